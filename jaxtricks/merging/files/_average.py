"""The average of the last checkpoints of a run: LAWA, after the training."""

import math
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from ._merge import SHARD, Prepared, check_options, expanded, prepare, write
from ._tensors import MergeError

_PARAMETERS = ("params", "batch_stats")
_OPTIMIZERS = ("opt", "opt_state", "optimizer", "optimizer_state")


def average(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    last: int = 5,
    weights: Sequence[float | int] | None = None,
    parts: Sequence[str] | None = None,
    rest: Literal["newest", "drop"] = "newest",
    format: Literal["safetensors", "orbax"] = "orbax",
    shard_bytes: int = SHARD,
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Path:
    """Averages the last checkpoints of a run, tensor by tensor; LAWA, on the disk.

    The parameters are averaged, in at least f32. The rest of the state, the optimizer's
    above all, is the newest checkpoint's: the mean of Adam's moments is no state that a
    step leads to. What lies beside the state, such as the data's position, stays with
    the run, which goes on from its own checkpoints and never knows of the average.

    Args:
      run: a folder of checkpoints by step, or one whose `checkpoints` is that, as
        experiments.train writes it: orbax, or any other format that is read.
      out: the folder to make; None is `average` in `run`. Of orbax, `state` in it
        restores as the newest checkpoint's does, and onto any mesh.
      last: how many checkpoints, the newest ones.
      weights: one for each, oldest first, divided by their sum; None is the plain mean.
      parts: outermost names in the state of what is averaged; None is params and
        batch_stats, and where there are no params all but the optimizer.
      rest: "newest", or "drop" for the averaged parts alone.
      format, shard_bytes, workers, overwrite, progress: as in `merge`.
    Returns:
      The folder; merge.json in it names the steps, the parts and the inputs' SHA-256.
    Cost: one pass over the checkpoints, memory for the largest tensor.
    Raises: MergeError, one line.
    Source: Kaddour, "Stop Wasting My Time! Saving Days of ImageNet and BERT Training
      with Latest Weight Averaging", 2022, arXiv:2209.14981, section 2. Differs: none.
    """
    from ._orbax import steps

    run = expanded("run", run)
    check_options(format, shard_bytes, workers)
    if rest not in ("newest", "drop"):
        raise MergeError(f"rest: wanted 'newest' or 'drop', came {rest!r:.40}")
    if not run.is_dir():
        raise MergeError(f"{run}: no such folder")
    folder = run / "checkpoints" if (run / "checkpoints").is_dir() else run
    if last < 1:
        raise MergeError(f"last: wanted >= 1, came {last}")
    found = steps(folder)
    if len(found) < last:
        raise MergeError(
            f"{folder}: wanted {last} checkpoints, came {len(found)} ({list(found)})"
        )
    chosen = list(found)[-last:]
    shares = [1.0] * last if weights is None else _checked(weights, last)
    # The newest one comes first: it gives what is not averaged.
    config = {
        "merge_method": "linear",
        "models": [
            {"model": str(step), "parameters": {"weight": share}}
            for step, share in sorted(zip(chosen, shares, strict=True), reverse=True)
        ],
    }
    place = run / "average" if out is None else expanded("OUT", out)
    with ExitStack() as stack:
        models = {str(step): found[step] for step in chosen}
        ready = prepare(config, stack, models=models)
        averaged = _averaged(ready, parts)
        write(
            _only(ready, averaged, rest),
            place,
            format=format,
            shard_bytes=shard_bytes,
            workers=workers,
            seed=0,
            overwrite=overwrite,
            progress=progress,
            about={"steps": chosen, "averaged": averaged, "rest": rest},
        )
    return place


def _checked(weights: Sequence[float | int], last: int) -> list[float]:
    if len(weights) != last:
        raise MergeError(f"weights: wanted {last}, came {len(weights)}")
    shares = [float(x) for x in weights]
    if not math.isfinite(total := sum(shares)) or total == 0:
        raise MergeError(f"weights: wanted a finite sum that is not 0, came {total}")
    return shares


def _averaged(ready: Prepared, parts: Sequence[str] | None) -> list[str]:
    """The outermost names of what is averaged."""
    names = list(dict.fromkeys(_outermost(s.name) for s in ready.plan.steps))
    if parts is None:
        if "params" in names:
            return [name for name in _PARAMETERS if name in names]
        return [name for name in names if name not in _OPTIMIZERS]
    for part in parts:
        if part not in names:
            raise MergeError(f"parts: {part!r:.60} is none of {', '.join(names)}")
    return list(parts)


def _only(ready: Prepared, averaged: Iterable[str], rest: str) -> Prepared:
    """The plan in which all else is copied from the newest, or left out."""
    steps = []
    for step in ready.plan.steps:
        if _outermost(step.name) in averaged:
            steps.append(step)
        elif rest == "newest":
            steps.append(step._replace(inputs=step.inputs[:1], keywords=None))
    if not steps:
        raise MergeError("parts: nothing is averaged")
    return ready._replace(plan=ready.plan._replace(steps=tuple(steps)))


def _outermost(name: str) -> str:
    return name.partition(".")[0]


def parse_weights(text: str) -> list[float]:
    """ "1,2,3" -> [1.0, 2.0, 3.0]."""
    try:
        return [float(x) for x in re.split(r"[,\s]+", text.strip())]
    except ValueError:
        raise MergeError(f"weights: wanted numbers, came {text!r:.40}") from None
