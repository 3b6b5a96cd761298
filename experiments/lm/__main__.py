"""The command line: flags in, exit status out."""

import os
import shlex
import sys

from .config import BadInput, parse
from .stop import Stop, Stopped


def main(argv: list[str]) -> int:
    """0 when done, 2 for bad input, 128 + the signal's number when stopped."""
    stop = Stop()
    stop.install()
    try:
        config = parse(argv)
        prepare(config)
        from .train import run

        run(config, stop)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        words = ["python", "-m", "experiments.lm", *argv]
        again = shlex.join(word for word in words if word != "--fresh")
        print(f"stopped by {stopped}; to continue: {again}", file=sys.stderr)
        return 128 + stopped.signum
    return 0


def prepare(config) -> None:
    """Quiet libraries, and compiled programs kept between runs, before jax starts."""
    cache = str((config.runs / ".cache").resolve())
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # "Very slow compile?"
    import absl.logging

    absl.logging.set_verbosity(absl.logging.ERROR)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
