"""Which tensors the models have, and which one is meant where names differ."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from . import _layers
from ._tensors import Checkpoint, MergeError, Tensor


class Found(NamedTuple):
    """A tensor of a model."""

    model: str
    name: str
    tensor: Tensor


class Contents:
    """The tensors of all models; `tied` says what stands in for a missing one."""

    def __init__(self, checkpoints: Mapping[str, Checkpoint], tied: dict[str, str]):
        self._checkpoints, self._tied = checkpoints, tied
        self._layers: dict[tuple[str, str], dict[int, list[str]]] = {}

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Every model and tensor."""
        for model, checkpoint in self._checkpoints.items():
            for name in checkpoint.tensors:
                yield model, name

    def names(self, model: str) -> list[str]:
        """In the order of the files, so that they are read from front to back."""
        tensors = self._checkpoints[model].tensors
        return sorted(
            tensors, key=lambda name: (str(tensors[name].file), tensors[name].start)
        )

    def layers(self, model: str, stack: str) -> dict[int, list[str]]:
        """What each layer of a stack holds, as what follows its number in the names."""
        if (model, stack) not in self._layers:
            found: dict[int, list[str]] = {}
            for name in self.names(model):
                here = _layers.place(name)
                if here is not None and here.stack == stack:
                    found.setdefault(here.layer, []).append(here.rest)
            self._layers[model, stack] = found
        return self._layers[model, stack]

    def find(self, model: str, name: str) -> Found:
        """The tensor, or what stands in for it; else MergeError."""
        checkpoint = self._checkpoints[model]
        for one in (name, self._tied.get(name)):
            if one is not None and one in checkpoint.tensors:
                return Found(model, one, checkpoint.tensors[one])
        said = f"tensor {name} is missing{_lost(name, checkpoint)}"
        raise MergeError(f"{checkpoint.path}: {said}")

    def lost(self, model: str, name: str, reference: str) -> None:
        """MergeError for what the reference lacks, unless something stands in."""
        if name not in self._tied:
            file = self._checkpoints[model].tensors[name].file
            there = self._checkpoints[reference]
            said = f"is missing in {there.path}{_lost(name, there)}"
            raise MergeError(f"{file}: tensor {name} {said}")


def hint(one: Found, other: Found) -> str:
    """What to do about shapes that differ."""
    rows = one.tensor.shape[1:] == other.tensor.shape[1:]
    return "; the vocabularies differ" if rows and _of_tokens(one.name) else ""


def _lost(name: str, checkpoint: Checkpoint) -> str:
    """What to do about one that is missing there."""
    if not _of_tokens(name):
        return ""
    found = [other for other in checkpoint.tensors if _of_tokens(other)]
    other = found[0] if len(found) == 1 else "TENSOR"
    return f"; if it is tied there, say so by --tied {name}={other}"


def _of_tokens(name: str) -> bool:
    return "embed" in name or "head" in name or "wte" in name
