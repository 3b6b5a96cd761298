"""Names of tensors: which layer, of which stack, before or after the layers."""

import re
from collections.abc import Iterable
from typing import NamedTuple

# A part of the path that is a number, or flax's layers_0; the first one counts: an
# expert's number within a layer is no layer.
_INDEX = re.compile(
    r"(?:^|(?<=[./]))(?:(?P<stem>(?:layers?|blocks?|h|stages?)_))?(?P<n>\d+)(?=[./]|$)",
    re.IGNORECASE,
)
_AFTER = re.compile(
    r"(^|\.)(lm_head|head|norm|ln_f|output|embed_out|score|classifier|cls|pooler|"
    r"final_\w+)(\.|$)"
)


class Place(NamedTuple):
    """`model.layers.3.mlp.weight` is layer 3 of the stack `model.layers`."""

    stack: str
    layer: int
    rest: str

    def at(self, layer: int) -> str:
        return f"{self.stack}{layer}{self.rest}"

    @property
    def name(self) -> str:
        """The stack without what joins it to the number."""
        return re.sub(r"[./_]$", "", self.stack)


def place(name: str) -> Place | None:
    """Where in the stacks of layers a tensor is, None where it is in none."""
    found = _INDEX.search(name)
    if found is None or len(found["n"]) > 9:
        return None
    at = found.start("n")
    return Place(name[:at], int(found["n"]), name[found.end("n") :])


def depths(names: Iterable[str]) -> dict[str, int]:
    """How many layers each stack has."""
    found: dict[str, int] = {}
    for name in names:
        if (here := place(name)) is not None:
            found[here.stack] = max(found.get(here.stack, 0), here.layer + 1)
    return found


def is_after(name: str) -> bool:
    """Whether a tensor outside the layers comes after them; told by its name."""
    return _AFTER.search(name) is not None


def pattern(name: str) -> str:
    """The name with its layer as *."""
    here = place(name)
    return name if here is None else f"{here.stack}*{here.rest}"
