"""One step: the tensors of the models in, parts of the result out, memory bounded."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ._elect import elected
from ._methods import Method
from ._plan import Step
from ._tensors import Checkpoint, MergeError
from ._trim import Cut, bits

CHUNK = 1 << 16  # entries computed at once: what they take stays in the caches
SAMPLE = 64, 512  # blocks and their entries, to guess a cut from

Checkpoints = Mapping[str, Checkpoint]
Part = tuple[int, np.ndarray]  # where it begins, flat


def compute(
    step: Step,
    method: Method,
    leaf: Callable,
    checkpoints: Checkpoints,
    seed: int,
) -> Iterator[Part]:
    """The result of a step in its dtype, from front to back.

    A part is the caller's until the next one is asked for.
    """
    if step.keywords is None or not step.size:
        yield from _copy(step, checkpoints)
        return
    keywords = dict(step.keywords)
    if method.random:
        keywords["key"] = generator(seed, step.name)
    kind = how(step, method)
    if kind == "whole":
        for _, base, stack in _parts(step, checkpoints, step.size):
            shaped = None if base is None else base.reshape(step.shape)
            whole = stack.reshape(len(stack), *step.shape)
            merged = np.asarray(_call(leaf, shaped, whole, keywords))
            yield 0, merged.reshape(-1).astype(step.out, copy=False)
    elif kind == "chunks":
        for begin, base, stack in _parts(step, checkpoints, CHUNK):
            merged = _call(leaf, base, stack, keywords)
            yield begin, np.asarray(merged).astype(step.out, copy=False)
    else:
        yield from _trimmed(step, checkpoints, keywords)


def how(step: Step, method: Method) -> str:
    """ "chunks", "magnitude" or "whole": what this step really needs."""
    if method.parts != "magnitude" or step.keywords is None:
        return method.parts
    if step.keywords.get("rescale"):
        return "whole"  # the norm before and after is of the whole tensor
    return "magnitude"


def memory(step: Step, method: Method, width: int = 4) -> int:
    """Bytes that a step needs at once, about: what the run is told to stay within.

    width: bytes of a number that it is computed in.
    """
    models = len(step.inputs) + (step.base is not None)
    few = 8 * width * min(CHUNK, step.size) * (models + 4)
    if step.keywords is None or how(step, method) == "chunks":
        return few
    width = max(width, step.out.itemsize)
    if how(step, method) == "magnitude":
        return step.size * width + few
    # Measured with 1 to 4 models; della takes the most.
    return step.size * width * (6 * models + 2)


def computing(step: Step, checkpoints: Checkpoints) -> np.dtype:
    """f64 where an input or the base is, else f32."""
    everyone = [*step.inputs, *([step.base] if step.base else [])]
    wide = any(checkpoints[m].tensors[n].dtype.itemsize == 8 for m, n in everyone)
    return np.dtype(np.float64 if wide else np.float32)


def generator(seed: int, name: str) -> np.random.Generator:
    """A stream of its own for each tensor: threads and order change no bit."""
    digest = hashlib.sha256(f"{seed}\n{name}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))


def _call(leaf: Callable, base: Any, stack: np.ndarray, keywords: dict) -> Any:
    with np.errstate(all="ignore"):  # what is not finite stays so, without a word
        try:
            return leaf(base, stack, **keywords)
        except ValueError as error:  # a setting that the leaf refuses
            said = " ".join(str(error).split())
            raise MergeError(f"parameters: {said}") from error


def _trimmed(step: Step, checkpoints: Checkpoints, keywords: dict) -> Iterator[Part]:
    """`ties_leaf` in two passes over the files: the cuts first, then the rest of it."""
    cuts = _cuts(step, checkpoints, keywords["density"])
    weights, normalize = keywords["weights"], keywords["normalize"]
    for begin, base, changes in _parts(step, checkpoints, CHUNK):
        assert base is not None
        with np.errstate(all="ignore"):
            changes -= base
            for change, cut in zip(changes, cuts, strict=True):
                cut.trim(change)
            w = np.asarray(weights, changes.dtype)
            merged = elected(changes, w, normalize=normalize)
            merged *= merged.dtype.type(keywords["scale"])
            merged += base
        yield begin, merged.astype(step.out, copy=False)


def _cuts(step: Step, checkpoints: Checkpoints, densities: list[float]) -> list[Cut]:
    samples = [None] * len(densities)
    blocks, length = SAMPLE
    if step.size > 8 * blocks * length:
        begins = np.linspace(0, step.size - length, blocks).astype(int).tolist()
        spans = [(begin, begin + length) for begin in begins]
        found = [
            bits(stack - base) for _, base, stack in _spans(step, checkpoints, spans)
        ]
        samples = list(np.concatenate(found, axis=1))
    cuts = [
        Cut(step.size, density, sample)
        for density, sample in zip(densities, samples, strict=True)
    ]
    while wanted := [i for i, cut in enumerate(cuts) if not cut.is_found]:
        for _, base, changes in _parts(step, checkpoints, CHUNK, wanted):
            with np.errstate(all="ignore"):
                changes -= base
            for i, change in zip(wanted, changes, strict=True):
                cuts[i].count(change)
        for i in wanted:
            cuts[i].settle()
    return cuts


def _parts(
    step: Step, checkpoints: Checkpoints, length: int, only: list[int] | None = None
) -> Iterator[tuple[int, np.ndarray | None, np.ndarray]]:
    """(begin, base, stack) from front to back."""
    begins = range(0, step.size, length)
    spans = [(begin, min(begin + length, step.size)) for begin in begins]
    return _spans(step, checkpoints, spans, only)


def _spans(
    step: Step,
    checkpoints: Checkpoints,
    spans: list[tuple[int, int]],
    only: list[int] | None = None,
) -> Iterator[tuple[int, Any, np.ndarray]]:
    """Entries in the dtype that is computed in; the next ones overwrite them."""
    inputs = [step.inputs[i] for i in only] if only else step.inputs
    dtype = computing(step, checkpoints)
    longest = max(end - begin for begin, end in spans)
    rows = np.empty((len(inputs) + 1, longest), dtype)
    for begin, end in spans:
        stack, base = rows[1:, : end - begin], None
        for row, (model, name) in zip(stack, inputs, strict=True):
            row[...] = checkpoints[model].read(name, begin, end)
        if step.base is not None:
            model, name = step.base
            base = rows[0, : end - begin]
            base[...] = checkpoints[model].read(name, begin, end)
        yield begin, base, stack


def _copy(step: Step, checkpoints: Checkpoints) -> Iterator[Part]:
    (model, name), *_ = step.inputs
    for begin in range(0, step.size, CHUNK):
        part = checkpoints[model].read(name, begin, min(begin + CHUNK, step.size))
        yield begin, part.astype(step.out, copy=False)
