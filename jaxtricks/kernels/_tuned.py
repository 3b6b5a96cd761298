"""Tile sizes that were measured on a device, in place of the heuristic ones.

The environment variable JAXTRICKS_TILES names a JSON file, as written by
`python -m experiments.benchmarks.tune_kernels`:

    {device kind: {kernel: {"8192x2304x256000 bfloat16": {"tokens": 512, ...}}}}

The kernels are "statistics" on GPU; "statistics_forward", "statistics_d_hidden" and
"statistics_d_weight" on TPU; "softmax" and "norms" on both. Read when a program is
lowered.
"""

import functools
import json
import os
from pathlib import Path
from typing import Any

from .._compat import device_kind

VARIABLE = "JAXTRICKS_TILES"


def tuned(platform: str, kernel: str, shape: tuple[int, ...], dtype, tiles: Any) -> Any:
    """The NamedTuple `tiles` with what the file says of them, if anything."""
    path = os.environ.get(VARIABLE)
    if not path:
        return tiles
    try:
        found = _read(path, Path(path).stat().st_mtime_ns)
    except (OSError, ValueError) as error:
        raise ValueError(f"{VARIABLE}: cannot read {path}: {error}") from None
    kind = device_kind("cuda" if platform == "gpu" else platform)
    entry = found.get(kind, {}).get(kernel, {}).get(key(shape, dtype), {})
    if not set(entry) <= set(tiles._fields):
        raise ValueError(
            f"{VARIABLE}: {path} has {sorted(entry)} for {kernel}, wanted some of "
            f"{list(tiles._fields)}"
        )
    return tiles._replace(**{name: int(size) for name, size in entry.items()})


def key(shape: tuple[int, ...], dtype) -> str:
    """How a shape and a dtype are written in the file."""
    return f"{'x'.join(map(str, shape))} {dtype}"


@functools.cache
def _read(path: str, changed: int) -> dict:
    del changed  # a new time of change is a new entry
    return json.loads(Path(path).read_text())
