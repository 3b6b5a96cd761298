"""Every trainer and seed in turn; what was measured is in a file, and is not run again.

A killed run loses one trainer's one seed at most.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from jaxtricks import metagrad

from .. import files
from ..small import sets, smooth
from ..small.kept import once
from ..sweep.board import Board
from . import baselines, report, training
from .config import METHODS, TRAINERS, Magic


def run(flags: Magic) -> None:
    console = Console(highlight=False)
    data = sets.load("digits")

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False)

    for line in report.introduction(flags):
        say(line)
    claimed = files.claim(
        flags.home, flags.numbers(), data.about, fresh=flags.fresh, say=say
    )
    seeds = range(flags.seed, flags.seed + flags.seeds)
    with claimed, Board(console) as board:
        board.begin(len(TRAINERS) * (flags.seeds + 1))
        results, checks = {}, {}
        for name in TRAINERS:
            checks[name] = kept(
                flags, board, f"{name} check", partial(checked, name, flags, data)
            )
            results[name] = [
                kept(
                    flags,
                    board,
                    f"{name} {seed}",
                    partial(attributed, name, flags, data, seed),
                )
                for seed in seeds
            ]
        found = {"flags": flags.numbers(), "checks": checks, "results": results}
        files.write_json(flags.home / "results.json", found)
        report.publish(files.plain(found), flags.home, say, save=flags.save)


def kept(flags: Magic, board: Board, what: str, measure) -> dict:
    """What the file holds, after measuring if it is not there."""
    path = flags.home / f"{what.replace(' ', '-')}.json"
    return once(path, what, measure, board, report.brief)


def attributed(name: str, flags: Magic, data: sets.Images, seed: int) -> dict:
    """Predicted and true losses: [target][subset] for each part that is left out."""
    of, task = training.trainer(name, flags), training.task(data, flags, seed)
    params, values = jax.jit(partial(training.train, of, flags, task))(
        jnp.ones(len(task.labels))
    )
    found = jax.jit(lambda: training.influence(of, flags, task))()
    ensemble = jax.jit(partial(training.ensemble, of, flags, task))()
    others = jax.jit(partial(baselines.baselines, of, flags, task))(params, ensemble)
    slopes = {"magic": found.by_weight[None], **others}
    again = jax.jit(partial(training.retrained, of, flags, task))
    parts = []
    for part in flags.drop:
        weights = training.left_out(flags, part, seed, len(task.labels))
        actual = np.asarray(again(jnp.asarray(weights)), np.float64).T
        each = {k: best(values, slopes[k], weights, actual) for k in METHODS}
        names = ("setting", "predicted", "scores")
        shown = {name: {k: each[k][name] for k in METHODS} for name in names}
        parts.append({"actual": actual, **shown})
    held_out = data.held_out, data.held_out_labels
    right = smooth.accuracy(params, *map(jnp.asarray, held_out), of.activation)
    return {"values": values, "accuracy": right, "parts": parts}


def best(values, slopes, weights, actual) -> dict:
    """Of a method's settings the one of the highest mean score here, what it predicts
    and its scores: in favour of whatever has settings."""
    moved = np.asarray(slopes, np.float64) @ (weights - 1).T
    predicted = np.asarray(values, np.float64)[None, :, None] + moved
    score = metagrad.linear_datamodeling_score
    # Differences, as f32 would round the values.
    scores = [np.asarray(score(of.astype(np.float32), actual)) for of in moved]
    at = int(np.argmax([np.nan_to_num(of.mean(), nan=-1.0) for of in scores]))
    return {"setting": at, "predicted": predicted[at], "scores": scores[at]}


def checked(name: str, flags: Magic, data: sets.Images) -> dict:
    """What `metagrad.check` says of the gradient of the mean phi in all weights."""
    of, task = training.trainer(name, flags), training.task(data, flags, flags.seed)

    def fun(weights):
        params, values = training.train(of, flags, task, weights)
        return jnp.mean(values), params

    key = jax.random.key(flags.seed)
    found = metagrad.check(fun, jnp.ones(len(task.labels)), key=key)
    return {
        "error": found.error,
        "smoothness": found.smoothness,
        "steps": found.steps,
        "advice": found.advice,
        "text": str(found),
    }
