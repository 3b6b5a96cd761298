"""How the flags of a program that keeps its results are read and checked."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ..config import BadInput, flag, read

Bounds = Mapping[str, tuple[Callable[[Any], bool], str]]


def parse(
    kind: type,
    argv: list[str],
    program: str,
    bounds: Bounds,
    quick: Mapping[str, Any] | Callable[[Any], Mapping[str, Any]] = MappingProxyType(
        {}
    ),
):
    """A `kind` from the command line; `--help` prints and leaves.

    With --quick, what was not asked for otherwise is as `quick` says. `bounds` has what
    is wanted, how that is seen, and of which flags; of each part of a tuple.
    """
    config = read(kind, argv, f"python -m {program}")
    if getattr(config, "quick", False):
        usual = {field.name: field.default for field in dataclasses.fields(kind)}
        short = quick(config) if callable(quick) else quick
        left = {k: v for k, v in short.items() if getattr(config, k) == usual[k]}
        config = dataclasses.replace(config, **left)
    for wanted, (holds, names) in bounds.items():
        for name in names.split():
            came = getattr(config, name)
            for x in came if isinstance(came, tuple) else (came,):
                if not math.isfinite(x) or not holds(x):
                    raise BadInput(f"{flag(name)}: wanted {wanted}, came {x}")
    if not re.fullmatch(r"\w[\w.-]*", config.name):
        said = f"wanted letters, digits, . _ -, came {config.name!r}"
        raise BadInput(f"--name: {said}")
    return config


def distinct(config: Any, *names: str) -> None:
    """BadInput where one of these tuples holds something twice."""
    for name in names:
        came = getattr(config, name)
        if len(set(came)) < len(came):
            raise BadInput(f"{flag(name)}: the same one came twice")
