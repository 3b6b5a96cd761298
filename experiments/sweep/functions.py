"""Runs of a function: all seeds at once where it can be traced so."""

import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..config import BadInput
from ..runs import clean
from ..watch.writers import plain
from . import grid
from .board import Board, brief
from .grid import Point
from .programs import on_path
from .store import Results, keep


def call(
    path: Path,
    points: Sequence[Point],
    seeds: int,
    results: Results,
    home: Path,
    board: Board,
) -> None:
    """Calls run(config, seed) for every point and seed whose results are not there."""
    with on_path(path.resolve().parent):
        spec = importlib.util.spec_from_file_location("swept", path)
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise BadInput(f"{path}: {_one_line(error)}") from None
        for point in points:
            names = {seed: point.run(seed) for seed in range(seeds)}
            left = [s for s, n in names.items() if "measured" not in results.get(n, {})]
            for _ in range(seeds - len(left)):
                board.skip()
            if left:
                for seed, outcome, seconds in measure(
                    module.run, grid.config(point), left, board.say_once
                ):
                    results[names[seed]] = outcome
                    keep(home, results)
                    said = outcome.get("failed") or brief(outcome)
                    board.done(f"{point.label} seed {seed}: {said}".strip(), seconds)


def measure(
    run: Callable, config: dict, seeds: Sequence[int], say: Callable[[str], None]
) -> Iterator[tuple[int, dict, float]]:
    """What `run` returns for each seed, from one vmapped call where it can be traced
    with the seed as an array, else from one call a seed."""
    import jax
    import numpy as np

    array = np.asarray(seeds, np.int32)
    together = jax.jit(jax.vmap(lambda seed: run(config, seed)))
    try:
        shapes = jax.eval_shape(together, array)
    except Exception as error:
        say(f"one seed after the other: {_one_line(error)}")
        for seed in seeds:
            began = time.perf_counter()
            outcome = _outcome(lambda seed=seed: run(config, int(seed)), ())
            yield seed, outcome, time.perf_counter() - began
        return
    say(f"all {len(seeds)} seeds at once, by jax.vmap")
    began, outcome = time.perf_counter(), {"failed": _not_scalars(shapes, array.shape)}
    if not outcome["failed"]:
        outcome = _outcome(lambda: together(array), array.shape)
    each = (time.perf_counter() - began) / len(seeds)
    for i, seed in enumerate(seeds):
        if "measured" in outcome:
            measured = {k: v[i] for k, v in outcome["measured"].items()}
            yield seed, {"measured": measured}, each
        else:
            yield seed, outcome, each


def _outcome(call: Callable[[], dict], shape: tuple[int, ...]) -> dict:
    """What it measured, as JSON has it, or why it failed."""
    import jax

    try:
        out = jax.device_get(call())
        wrong = _not_scalars(out, shape)
    except Exception as error:
        wrong = _one_line(error)
    return {"failed": wrong} if wrong else {"measured": plain(out)}


def _not_scalars(out, shape: tuple[int, ...]) -> str | None:
    import numpy as np

    if not isinstance(out, dict):
        return "run returned no dict; wanted one of scalars"
    wrong = [k for k, v in out.items() if tuple(np.shape(v)) != shape]
    return f"run returned no scalar as {wrong[0]!r}" if wrong else None


def _one_line(error: Exception) -> str:
    lines = str(error).strip().split("\n")
    return clean(f"{type(error).__name__}: {lines[0]}".rstrip(": "))
