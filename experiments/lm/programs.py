"""Compiled steps and their costs: seconds, and bytes beside arguments and results."""

import contextlib
import statistics
import time
from collections.abc import Callable
from operator import truediv
from typing import Any, NamedTuple

import jax

from .arms import State


class Program(NamedTuple):
    """An arm's step, compiled for one size of batch."""

    state: State  # untrained
    step: Callable
    compile_s: float
    temp_bytes: int  # at the peak

    @classmethod
    def of(cls, state: State, step: Callable, batch: dict[str, Any]) -> "Program":
        began = time.perf_counter()
        compiled = jax.jit(step).lower(state, batch).compile()
        seconds = time.perf_counter() - began
        return cls(
            state, compiled, seconds, compiled.memory_analysis().temp_size_in_bytes
        )


def compare(programs: dict[str, Program], batch: dict, rounds: int) -> dict[str, dict]:
    """What a step of each costs, alone and relative to each other one.

    They take turns, so that what else the machine does falls on all alike.
    """
    laps = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(program.step(program.state, batch))
            laps[name].append(time.perf_counter() - began)
    return {
        name: {
            "temp_bytes": programs[name].temp_bytes,
            "step_s": statistics.median(times),
            "step_vs": {
                other: statistics.median(map(truediv, times, laps[other]))
                for other in programs
            },
        }
        for name, times in laps.items()
    }


class Clock:
    """Times training steps, and nothing else: no compilation, evaluation or saving."""

    def __init__(self, total: float):
        self._total, self._laps, self._tokens = total, [], 0

    @contextlib.contextmanager
    def lap(self, *, tokens: int):
        began = time.perf_counter()
        yield
        self._laps.append(time.perf_counter() - began)
        self._tokens += tokens

    def read(self) -> dict[str, float]:
        """Of the laps since the last read: their median, and the time of all so far."""
        spent = sum(self._laps)
        self._total += spent
        reading = {
            "train_s": self._total,
            "step_s": statistics.median(self._laps),
            "tokens_per_s": self._tokens / spent,
        }
        self._laps, self._tokens = [], 0
        return reading
