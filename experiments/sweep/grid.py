"""The points of a sweep: from words like lr=1e-3,3e-4 to flags, or to a config."""

import ast
import hashlib
import itertools
import re
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..config import BadInput, Config, flag

# A hyperparameter of a family is this trick's where nothing else names one.
NAMESAKE = {"sharpness": "sam"}


class Point(NamedTuple):
    """A value, as text, for every name of the grid."""

    values: dict[str, str]

    @property
    def label(self) -> str:
        return " ".join(f"{k}={v}" for k, v in self.values.items())

    def run(self, seed: int) -> str:
        """The name of a run: letters, digits, . _ - and not too long."""
        words = [f"{k.split('.')[-1]}-{v}" for k, v in self.values.items()]
        wanted = "_".join(words)
        name = re.sub(r"[^\w.-]+", "_", wanted, flags=re.ASCII)
        if name != wanted or len(name) > 80:
            digest = hashlib.sha256(self.label.encode()).hexdigest()[:8]
            name = f"{name[:70]}_{digest}"
        return f"{name}_seed{seed}".lstrip("_")


def points(words: Sequence[str]) -> list[Point]:
    """Every combination of `name=value,value` words, the last name changing fastest."""
    axes = {}
    for word in words:
        name, equals, values = word.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?", name):
            raise BadInput(f"--grid: wanted NAME=VALUE,VALUE, came {word!r}")
        if name in axes:
            raise BadInput(f"--grid: {name} came twice")
        if name in ("seed", "name", "runs", "fresh"):
            raise BadInput(f"--grid: {name} is not for a grid; the sweep sets it")
        axes[name] = split(values)
        if "" in axes[name] or len(set(axes[name])) < len(axes[name]):
            raise BadInput(f"--grid: {name}: wanted different values, came {values!r}")
    chosen = itertools.product(*axes.values())
    found = [Point(dict(zip(axes, values, strict=True))) for values in chosen]
    if len({point.run(0) for point in found}) < len(found):
        raise BadInput("--grid: two points get one name; write their values apart")
    return found


def split(values: str) -> list[str]:
    """At the commas that are outside of brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in values:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        else:
            depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth <= 0 and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def config(point: Point) -> dict[str, Any]:
    """What a function gets: {"lr": 1e-3, "sharpness": {"rho": 0.05}}. A trick that the
    grid names and gives hyperparameters is {"name": "sam", "rho": 0.05}."""
    found = {k: value(v) for k, v in point.values.items() if "." not in k}
    for name, text in point.values.items():
        trick, dot, key = name.partition(".")
        if dot:
            if not isinstance(found.get(trick, {}), dict):
                found[trick] = {"name": found[trick]}
            found.setdefault(trick, {})[key] = value(text)
    return found


def value(text: str) -> Any:
    """A Python literal, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def flags(point: Point, constants: Sequence[str]) -> list[str]:
    """What a program gets: the constants, and the point's values, which win."""
    rest, given = _by_flag(constants)
    for name, text in point.values.items():
        if "." not in name:
            given.pop("--no-" + flag(name)[2:], None)
            given[flag(name)] = _words(name, text)
    for name, text in point.values.items():
        trick, dot, key = name.partition(".")
        if dot:
            words = given.get(flag(trick), [])[1:] or _trick(trick)
            words = [word for word in words if not word.startswith(f"{key}=")]
            given[flag(trick)] = [flag(trick), *words, f"{key}={text}"]
    return [*rest, *itertools.chain(*given.values())]


def _by_flag(words: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The words before the first flag, and each flag with its words."""
    rest, found, last = [], {}, None
    for word in words:
        if re.match(r"--[A-Za-z]", word):
            name, equals, text = word.partition("=")
            name = name.replace("_", "-")
            last = found[name] = [name, *[text] * bool(equals)]
        else:
            (rest if last is None else last).append(word)
    return rest, found


def _words(name: str, text: str) -> list[str]:
    """A flag with its value; True and False are --name and --no-name, or nothing where
    that is what experiments.train does by default."""
    if text in ("True", "False"):
        if _default(name) is value(text):
            return []
        return [flag(name) if text == "True" else "--no-" + flag(name)[2:]]
    try:
        return [flag(name), *shlex.split(text)]
    except ValueError as error:
        raise BadInput(f"--grid: {name}: {error}, came {text!r}") from None


def _trick(name: str) -> list[str]:
    """The trick that experiments.train takes by default, or the family's namesake."""
    words = _default(name)
    if isinstance(words, tuple) and words:
        return list(words)
    if name in NAMESAKE:
        return [NAMESAKE[name]]
    raise BadInput(f"--grid: {name}: of which trick? Add -- {flag(name)} NAME")


def _default(name: str) -> Any:
    for section in vars(Config()).values():
        if name in vars(section):
            return vars(section)[name]
    return None
