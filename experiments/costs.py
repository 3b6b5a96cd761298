"""What compiled steps cost: seconds, in turns, and bytes beside what goes in or out."""

import statistics
import time
from collections.abc import Callable
from operator import truediv
from typing import Any

import jax


def laps(
    programs: dict[str, tuple[Any, Callable]], rounds: int, *, before: int = 3
) -> dict[str, list[float]]:
    """Seconds of `rounds` steps of each; programs are (state, state -> state).

    They take turns, so that what else the machine does falls on all alike; the first
    `before` rounds do not count.
    """
    states = {name: state for name, (state, _) in programs.items()}
    found = {name: [] for name in programs}
    for i in range(before + rounds):
        for name, (_, step) in programs.items():
            began = time.perf_counter()
            states[name] = jax.block_until_ready(step(states[name]))
            if i >= before:
                found[name].append(time.perf_counter() - began)
    return found


def ratio(times: list[float], base: list[float]) -> float:
    """The median over the rounds of one program's time by another's."""
    return statistics.median(map(truediv, times, base))


def temp_bytes(lowered: jax.stages.Lowered) -> int:
    """Of the compiled program at its peak."""
    return lowered.compile().memory_analysis().temp_size_in_bytes
