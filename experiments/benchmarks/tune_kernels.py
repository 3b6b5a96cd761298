"""Measures tile sizes of the Pallas kernels on this machine's TPU or Hopper GPU.

`python -m experiments.benchmarks.tune_kernels tiles.json` runs every kernel at the
given shapes with every candidate tile that its memory allows, and writes the fastest
beside those that the file has already. Kernels use them if JAXTRICKS_TILES=tiles.json.
"""

import importlib
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import tyro
from rich.console import Console
from rich.progress import track

from jaxtricks.kernels import _tuned


@dataclass(frozen=True)
class Config:
    """Measures tile sizes of the Pallas kernels on this machine's TPU or Hopper GPU."""

    path: Annotated[Path, tyro.conf.Positional]
    """The JSON file to add to, for JAXTRICKS_TILES."""
    heads: tuple[tuple[int, int, int], ...] = (
        (8192, 2304, 256000),
        (4096, 4096, 128256),
    )
    """Shapes (tokens, features, classes) for the token statistics."""
    rows: tuple[tuple[int, int], ...] = ((4096, 32768), (8192, 4096))
    """Shapes (rows, features) for softmax and the norms."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Of the data."""
    repeats: int = 7
    """Timed runs of each, after one to warm up."""
    list: bool = False
    """Print the candidates and run nothing; works without an accelerator."""
    platform: Literal["tpu", "gpu"] | None = None
    """With --list, whose candidates; this machine's otherwise."""


def module(platform: str, name: str) -> Any:
    return importlib.import_module(f"jaxtricks.kernels.{platform}.{name}")


def candidates(platform: str, kernel: str, shape: tuple[int, ...], dtype) -> Iterator:
    """Tiles that memory allows, the heuristic ones first."""
    if kernel.startswith("statistics"):
        part = module(platform, "statistics")
        names = [kernel.removeprefix("statistics_")] if platform == "tpu" else []
        first = part.heuristic(*shape, dtype, *names)
        yield first
        if platform == "tpu":
            sizes = itertools.product(part.SIZES, part.SIZES)
            others = (first._replace(tokens=t, classes=c) for t, c in sizes)
            d, limit = shape[1], part.VMEM_BYTES
            fits = lambda x: part.scratch_bytes(x, d, dtype, *names) <= limit  # noqa: E731
        else:
            sizes = itertools.product((64, 128, 256), (2, 3, 4, 5, 6), (1, 4, 8, 16))
            others = (first._replace(classes=c, steps=s, width=w) for c, s, w in sizes)
            fits = lambda x: part.smem_bytes(x, dtype) <= part.SMEM_BYTES  # noqa: E731
        yield from (x for x in others if x != first and fits(x))
        return
    first = module(platform, kernel).heuristic(*shape, dtype)
    if first is None:
        return
    yield first
    for name, size in first._asdict().items():
        for factor in (0.25, 0.5, 2, 4):
            if size * factor >= 8 and size * factor == int(size * factor):
                yield first._replace(**{name: int(size * factor)})


def programs(platform: str, config: Config) -> Iterator[tuple[str, tuple, Callable]]:
    """(kernel, shape, what runs it once)."""
    key = jax.random.key(0)
    dtype = jnp.dtype(config.dtype)
    for n, d, v in config.heads:
        part = module(platform, "statistics")
        hidden = jax.random.normal(key, (n, d), dtype)
        weight = jax.random.normal(key, (d, v), dtype) / d**0.5
        args = hidden, weight, jnp.zeros(n, jnp.int32), None, None, 1.0
        forward = lambda args=args, part=part: part.forward(  # noqa: E731
            *args, layout="dv", stats=("target",)
        )
        if platform == "gpu":
            yield "statistics", (n, d, v), forward
            continue
        yield "statistics_forward", (n, d, v), forward
        saved = jax.jit(forward)()
        moved = {"lse": jnp.ones(n), "target": -jnp.ones(n)}
        for name in ("d_hidden", "d_weight"):
            args_ = *args, saved, moved
            yield (
                f"statistics_{name}",
                (n, d, v),
                lambda args=args_, part=part: part.backward(*args, layout="dv"),
            )
    for n, d in config.rows:
        x = jax.random.normal(key, (n, d), dtype)
        yield "softmax", (n, d), lambda x=x: module(platform, "softmax").softmax(x)
        yield (
            "norms",
            (n, d),
            lambda x=x: module(platform, "norms").forward(
                x, None, None, None, 1e-6, kind="rms"
            ),
        )


def seconds(run: Callable, repeats: int) -> float:
    """The median of several runs of the compiled function."""
    compiled = jax.jit(run).lower().compile()
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(compiled())
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def write(path: Path, kind: str, kernel: str, key: str, tiles: dict) -> None:
    """Adds an entry, by a file that takes the old one's place when it is whole."""
    found = json.loads(path.read_text()) if path.exists() else {}
    found.setdefault(kind, {}).setdefault(kernel, {})[key] = tiles
    whole = path.with_suffix(".part")
    whole.write_text(json.dumps(found, indent=1) + "\n")
    whole.replace(path)


def main(config: Config) -> None:
    console, device = Console(), jax.devices()[0]
    here = {"tpu": "tpu", "gpu": "gpu", "cuda": "gpu"}.get(device.platform)
    platform = config.platform if config.list and config.platform else here
    if platform is None:
        raise SystemExit(
            f"this machine has a {device.device_kind}, but kernels run on a TPU or a "
            "Hopper GPU; --list --platform tpu shows what would be tried"
        )
    if config.list:
        kernels = {"tpu": ["forward", "d_hidden", "d_weight"], "gpu": [""]}[platform]
        names = ["_".join(filter(None, ("statistics", name))) for name in kernels]
        jobs = [(name, shape) for name in names for shape in config.heads]
        jobs += [
            (name, shape) for name in ("softmax", "norms") for shape in config.rows
        ]
        for name, shape in jobs:
            for tiles in candidates(platform, name, shape, config.dtype):
                console.print(name, _tuned.key(shape, config.dtype), tiles)
        return
    trial = config.path.with_suffix(".trial")
    for name, shape, run in programs(platform, config):
        key, times = _tuned.key(shape, config.dtype), {}
        tried = list(candidates(platform, name, shape, jnp.dtype(config.dtype)))
        for tiles in track(tried, description=f"{name} {key}", transient=True):
            entry = {device.device_kind: {name: {key: tiles._asdict()}}}
            trial.write_text(json.dumps(entry))
            os.environ[_tuned.VARIABLE] = str(trial)
            jax.clear_caches()
            try:
                times[tiles] = seconds(run, config.repeats)
            except Exception as error:  # the compiler's limits are its own
                console.print(f"{tiles}: {str(error).splitlines()[0][:80]}")
        if not times:
            continue
        best = min(times, key=times.__getitem__)
        write(config.path, device.device_kind, name, key, best._asdict())
        first = times.get(tried[0], float("nan"))
        console.print(f"{name} {key}: {best}, {times[best] / first:.2f}x the heuristic")
    trial.unlink(missing_ok=True)


if __name__ == "__main__":
    main(tyro.cli(Config))
