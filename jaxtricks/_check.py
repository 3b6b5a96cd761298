"""Static checks of Python hyperparameters; a traced or array value is never checked."""

from typing import Any, TypeGuard

import numpy as np


def at_least(name: str, value: Any, bound: float | int) -> None:
    """ValueError unless `value` >= bound."""
    if known(value) and not value >= bound:
        raise ValueError(f"{name}: wanted >= {bound}, came {value}")


def above(name: str, value: Any, bound: float | int) -> None:
    """ValueError unless `value` > bound."""
    if known(value) and not value > bound:
        raise ValueError(f"{name}: wanted > {bound}, came {value}")


def between(name: str, value: Any, low: float | int, high: float | int) -> None:
    """ValueError unless low <= `value` <= high."""
    if known(value) and not low <= value <= high:
        raise ValueError(f"{name}: wanted in [{low}, {high}], came {value}")


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """ValueError unless `value` is one of the choices."""
    if value not in choices:
        wanted = ", ".join(map(repr, choices))
        raise ValueError(f"{name}: wanted one of {wanted}, came {value!r}")


def known(value: Any) -> TypeGuard[int | float]:
    """Whether a number can be looked at: it is no array and no tracer."""
    return isinstance(value, int | float | np.number)
