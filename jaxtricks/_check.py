"""Static checks of Python hyperparameters; a traced or array value is never checked."""

from typing import Any


def at_least(name: str, value: Any, bound: float | int) -> None:
    """ValueError unless `value` >= bound."""
    if _is_python(value) and not value >= bound:
        raise ValueError(f"{name}: wanted >= {bound}, came {value}")


def above(name: str, value: Any, bound: float | int) -> None:
    """ValueError unless `value` > bound."""
    if _is_python(value) and not value > bound:
        raise ValueError(f"{name}: wanted > {bound}, came {value}")


def between(name: str, value: Any, low: float | int, high: float | int) -> None:
    """ValueError unless low <= `value` <= high."""
    if _is_python(value) and not low <= value <= high:
        raise ValueError(f"{name}: wanted in [{low}, {high}], came {value}")


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """ValueError unless `value` is one of the choices."""
    if value not in choices:
        wanted = ", ".join(map(repr, choices))
        raise ValueError(f"{name}: wanted one of {wanted}, came {value!r}")


def _is_python(value: Any) -> bool:
    return isinstance(value, int | float)
