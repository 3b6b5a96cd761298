"""Every seed in turn: its models are trained, then merged by every method.

Each trained model is a file, and what is measured of a seed another, written after
every method: a killed run loses one training or one method at most.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree
from rich.console import Console

from .. import files, runs
from ..config import Failed
from ..sweep.board import Board
from . import evidence, methods, report, text, training
from .config import Domains
from .text import NAMES
from .training import Measure, Task


def run(flags: Domains) -> None:
    console = Console(highlight=False)
    names = methods.chosen(flags.methods)
    texts = text.load(flags.text, flags.seq_len)

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False)

    for line in report.introduction(flags, names, texts):
        say(line)
    claimed = files.claim(
        flags.home, flags.numbers(), texts.about, fresh=flags.fresh, say=say
    )
    with claimed, Board(console) as board:
        board.begin(2 * flags.seeds)
        found = measured(flags, names, training.task(flags, texts), board)
        kept = {"flags": flags.numbers(), "about": texts.about, "seeds": found}
        files.write_json(flags.home / "results.json", kept)
        report.publish(files.plain(kept), flags.home, say)


def measured(flags: Domains, names: Sequence[str], task: Task, board: Board) -> list:
    """What the files hold, after training and merging what is not there."""
    measure, gather = training.measure(task), evidence.gatherer(task)
    train, programs = training.trainer(task), methods.programs(names, task)
    found = []
    for seed in range(flags.seed, flags.seed + flags.seeds):
        path = flags.home / f"seed-{seed}.json"
        one: dict[str, Any] = {"seed": seed, "models": {}, "methods": {}}
        if path.exists():
            one = json.loads(path.read_text())
        missing = [name for name in names if name not in one["methods"]]
        if not missing:
            board.skip()
            board.skip()
        else:
            models = trained(flags, seed, task, train, board)
            began = time.perf_counter()
            one["models"] = {k: measure.test(tree) for k, tree in models.items()}
            metrics = np.stack([measure.valid(models[name]) for name in NAMES])
            work = gather(models, seed, metrics.mean(1))
            for name in missing:
                board.show(f"seed {seed}: {name}")
                one["methods"][name] = merged(
                    name, programs[name], work, measure, flags.scales
                )
                files.write_json(path, one)
            board.done(f"seed {seed}: merged {said(one)}", time.perf_counter() - began)
        whole: Any = files.plain(one)
        chosen = {name: whole["methods"][name] for name in names}
        found.append(whole | {"methods": chosen})
    return found


def trained(flags, seed: int, task: Task, train, board: Board) -> dict[str, PyTree]:
    """The models of a seed, from their files where these are there."""
    began, models = time.perf_counter(), {}
    stages = training.stages(flags)
    like = jax.eval_shape(task.init, jax.random.key(0))
    for stage in stages:
        path = flags.home / f"seed-{seed}-{stage.name}.npz"
        if path.exists():
            models[stage.name] = load(path, like)
            continue
        show = lambda said: board.show(f"seed {seed}: {said}")  # noqa: E731
        models[stage.name] = train(stage, seed, models, show)
        save(path, models[stage.name])
    board.done(f"seed {seed}: trained", time.perf_counter() - began)
    return models


def merged(
    name: str,
    program: Callable[..., PyTree],
    work: evidence.Work,
    measure: Measure,
    scales: Sequence[float],
) -> dict:
    """Bits per byte of one merge: with the scale that is best on validation windows,
    and with the one to begin with."""
    tree = program(work, lambda params: -float(measure.valid(params).mean()))
    usual = methods.TABLE[name].scale
    if usual is None:
        return {"bits": measure.test(tree), "scale": None, "usual": None}
    tried = sorted({*scales, usual})
    mean = measure.line(work.base, tree, tried).mean(1)
    best = tried[int(np.where(np.isfinite(mean), mean, np.inf).argmin())]
    bits = {
        scale: measure.test(scaled(work.base, tree, scale)) for scale in {best, usual}
    }
    curve = {f"{scale:g}": x for scale, x in zip(tried, mean, strict=True)}
    return {"bits": bits[best], "scale": best, "usual": bits[usual], "tried": curve}


@jax.jit
def scaled(base: PyTree, tree: PyTree, scale) -> PyTree:
    """base + scale (tree - base): every method's coefficient is this one."""
    from jaxtricks import merging

    return merging.wise_ft(base, tree, alpha=scale)


def said(one: dict) -> str:
    """The best of a seed, in a line."""

    def mean(bits) -> float:
        found = np.mean([runs.number(x) for x in np.asarray(bits, object).tolist()])
        return float(found) if math.isfinite(found) else math.inf

    means = {name: mean(of["bits"]) for name, of in one["methods"].items()}
    best = min(means, key=lambda name: means[name])
    many = mean(one["models"]["multi-task"])
    return f"{best} {means[best]:.3f}, multi-task {many:.3f} bits/byte"


def save(path: Path, tree: PyTree) -> None:
    leaves = [np.asarray(x) for x in jax.tree.leaves(tree)]

    def into(at: Path) -> None:
        with at.open("wb") as file:
            np.savez(file, *leaves)

    files.write(path, into)


def load(path: Path, like: PyTree) -> PyTree:
    shapes, structure = jax.tree.flatten(like)
    try:
        with np.load(path, allow_pickle=False) as kept:
            leaves = [kept[f"arr_{i}"] for i in range(len(shapes))]
    except Exception as error:  # a zip has many ways to be none
        raise Failed(f"{path} cannot be read; delete it: {error}") from None
    return jax.tree.unflatten(structure, leaves)
