"""What `import jaxtricks` costs beside the imports that every program has anyway.

`python -m experiments.benchmarks.import_time` starts fresh interpreters in turn (jax
and optax; jaxtricks; jaxtricks with every family loaded), takes the median of the CPU
times that each spends importing, and prints the ratios.
"""

import argparse
import statistics
import subprocess
import sys

BASE = "import jax, optax"
LAZY = "import jaxtricks"
WHOLE = """
import importlib, jaxtricks
for family in jaxtricks.__all__:
    module = importlib.import_module(f"jaxtricks.{family}")
    for name in module.__all__:
        getattr(module, name)
"""


def seconds(code: str) -> float:
    """CPU seconds that a fresh interpreter spends on `code`."""
    timed = f"""
import time
start = time.process_time()
{code}
print(time.process_time() - start)
"""
    return float(subprocess.check_output([sys.executable, "-c", timed], text=True))


def medians(codes: list[str], repeats: int) -> list[float]:
    """The median of each, measured in turn so that drift hits all alike."""
    rounds = [[seconds(code) for code in codes] for _ in range(repeats + 1)]
    return [statistics.median(times) for times in zip(*rounds[1:], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    base, lazy, whole = medians([BASE, LAZY, WHOLE], args.repeats)
    print(f"import jax, optax:                {base:.3f} s")
    print(f"import jaxtricks:                 {lazy:.3f} s, {lazy / base:.3f} of it")
    print(f"import jaxtricks, every family:   {whole:.3f} s, {whole / base:.3f} of it")


if __name__ == "__main__":
    main()
