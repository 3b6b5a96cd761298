"""Documents to windows of `length` targets, three ways, and batches of windows.

In each, every token of every document is a target exactly once. `windows`: a window
holds one piece of one document. `fit`: pieces of at most `length` tokens, put together
by best fit (Ding et al., "Fewer Truncations Improve Language Modeling", 2024,
arXiv:2404.10830); in both a piece stands alone and starts from the begin token.
`stream`: documents follow each other and are cut where a window ends; a window that
continues a document starts from the token before.

Where no begin token is known, a piece always starts from the token before, and the
first token of a document is no target. Segments are the pieces of a window, from 1;
positions count within the piece; 0 is padding in both, where the mask is False.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from experiments.config import BadInput

from .store import Parts, Rows


class Tokens(Protocol):
    """Token storage that can be read at any places."""

    def at(self, address: np.ndarray) -> np.ndarray: ...


class Documents(NamedTuple):
    """Where each document lies in the tokens."""

    tokens: Tokens
    start: np.ndarray  # i64[documents]
    stop: np.ndarray  # i64[documents]
    begin: int | None  # what the first token is predicted from

    @property
    def first(self) -> np.ndarray:
        """Of each document, the place of its first target."""
        return self.start + (self.begin is None)

    def select(self, chosen: np.ndarray) -> "Documents":
        return self._replace(start=self.start[chosen], stop=self.stop[chosen])

    def tail(self, fraction: float) -> tuple["Documents", "Documents"]:
        """The last documents apart; of a last one that is most of it all, the end."""
        kept = self.stop > self.first
        if kept.any() and not kept.all():
            return self.select(kept).tail(fraction)
        size = self.stop - self.start
        if len(size) == 1 or 2 * size[-1] > size.sum():
            part = max(1, min(int(fraction * size.sum()), int(size[-1]) - 1))
            middle = np.append(self.stop[:-1], self.stop[-1] - part)
            end = self.select(slice(-1, None))
            return self._replace(stop=middle), end._replace(start=middle[-1:])
        late = np.cumsum(size[::-1])[::-1] <= fraction * size.sum()
        late[-1], late[0] = True, False
        return self.select(~late), self.select(late)


@dataclass(frozen=True, eq=False)
class Pieces:
    """Windows made of pieces: tokens[start:stop] each, `offset` bounds a window's."""

    tokens: Tokens
    start: np.ndarray  # i64[pieces]
    stop: np.ndarray  # i64[pieces]
    fresh: np.ndarray  # bool[pieces]: the first input is `begin`
    offset: np.ndarray  # i64[windows + 1]
    length: int
    begin: int
    classes: int

    def __len__(self) -> int:
        return len(self.offset) - 1

    def take(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        count = self.offset[rows + 1] - self.offset[rows]
        piece = _ranges(self.offset[rows], count)
        start, size = self.start[piece], self.stop[piece] - self.start[piece]
        before = np.cumsum(size) - size  # tokens in the batch before the piece
        row = np.repeat(np.arange(len(rows)), count)
        first = np.cumsum(count) - count  # pieces in the batch before the row
        at = row * self.length + before - before[first[row]]  # place in the batch
        position = _ranges(np.zeros_like(size), size)
        place = np.repeat(at, size) + position
        shape = (len(rows), self.length)
        batch = {
            name: np.zeros(shape, np.int32)
            for name in ("inputs", "targets", "segments", "positions")
        }
        flat = {name: array.reshape(-1) for name, array in batch.items()}
        address = np.repeat(start, size) + position
        flat["targets"][place] = checked(self.tokens.at(address), self.classes)
        batch["inputs"][:, 1:] = batch["targets"][:, :-1]
        flat["inputs"][at] = self.begin
        (going_on,) = np.nonzero(~self.fresh[piece])
        if len(going_on):
            previous = self.tokens.at(start[going_on] - 1)
            flat["inputs"][at[going_on]] = checked(previous, self.classes)
        flat["segments"][place] = np.repeat(np.arange(len(at)) - first[row] + 1, size)
        flat["positions"][place] = position
        return batch | {"mask": batch["segments"] > 0}


@dataclass(frozen=True, eq=False)
class Cuts:
    """Windows of token files, found by arithmetic: of any size, nothing is read before.

    With `eos`, a document ends after it, which is seen when a window is read.
    """

    tokens: Parts
    offset: np.ndarray  # i64[parts + 1], windows before each part
    length: int
    eos: int | None
    classes: int

    @classmethod
    def of(cls, tokens: Parts, *, length: int, eos: int | None, classes: int) -> "Cuts":
        targets = np.diff(tokens.starts) - (eos is None)
        count = -(-np.maximum(targets, 0) // length)
        return cls(tokens, np.append(0, np.cumsum(count)), length, eos, classes)

    def __len__(self) -> int:
        return int(self.offset[-1])

    def take(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        part = np.searchsorted(self.offset, rows, side="right") - 1
        begins, stop = self.tokens.starts[part], self.tokens.starts[part + 1]
        first = begins + (self.eos is None) + (rows - self.offset[part]) * self.length
        address = first[:, None] + np.arange(-1, self.length)
        mask = address[:, 1:] < stop[:, None]
        inside = np.clip(address, begins[:, None], stop[:, None] - 1)
        tokens = checked(self.tokens.at(inside), self.classes)
        inputs, targets = tokens[:, :-1].copy(), np.where(mask, tokens[:, 1:], 0)
        if self.eos is not None:
            inputs[first == begins, 0] = self.eos
        fresh = inputs == (-1 if self.eos is None else self.eos)
        fresh[:, 0] = True
        column = np.arange(self.length, dtype=np.int32)
        began = np.maximum.accumulate(np.where(fresh, column, 0), axis=1)
        return {
            "inputs": inputs,
            "targets": targets,
            "segments": np.cumsum(fresh, axis=1, dtype=np.int32) * mask,
            "positions": (column - began) * mask,
            "mask": mask,
        }


def pack(
    documents: Documents,
    group: np.ndarray,
    groups: int,
    *,
    how: str,
    length: int,
    classes: int,
) -> list[Rows]:
    """The windows of each group of documents, all in one store."""
    packer = {"windows": _windows, "stream": _stream, "fit": _fit}[how]
    size = documents.stop - documents.first
    packed = [
        packer(documents.select((group == g) & (size > 0)), length)
        for g in range(groups)
    ]
    start, stop, fresh, count = map(np.concatenate, zip(*packed, strict=True))
    begin = documents.begin
    store = Pieces(
        documents.tokens,
        start,
        stop,
        fresh & (begin is not None),
        np.append(0, np.cumsum(count)),
        length,
        begin or 0,
        classes,
    )
    bounds = np.cumsum([0] + [len(count) for *_, count in packed])
    return [Rows(store, range(bounds[g], bounds[g + 1])) for g in range(groups)]


def _windows(documents: Documents, length: int) -> tuple[np.ndarray, ...]:
    """(start, stop, fresh) of pieces in order, and the pieces of each window."""
    count = -(-(documents.stop - documents.first) // length)
    start = np.repeat(documents.first, count)
    start = start + length * _ranges(np.zeros_like(count), count)
    stop = np.minimum(start + length, np.repeat(documents.stop, count))
    return start, stop, np.ones(len(start), bool), np.ones(len(start), np.int64)


def _stream(documents: Documents, length: int) -> tuple[np.ndarray, ...]:
    size = documents.stop - documents.first
    end = np.cumsum(size)
    total = int(size.sum())
    windows = np.arange(0, total, length)
    bounds = np.union1d(np.append(0, end), windows)
    low, high = bounds[:-1], bounds[1:]
    of = np.searchsorted(end, low, side="right")
    into = low - (end - size)[of]
    start = documents.first[of] + into
    count = np.bincount(low // length, minlength=len(windows))
    return start, start + high - low, into == 0, count


def _fit(documents: Documents, length: int) -> tuple[np.ndarray, ...]:
    start, stop, fresh, _ = _windows(documents, length)
    window = best_fit(stop - start, length)
    order = np.argsort(window, kind="stable")
    return start[order], stop[order], fresh, np.bincount(window)


def best_fit(size: np.ndarray, capacity: int) -> np.ndarray:
    """i64[items], the bin of each: from the largest item down, where it fits tightest.

    Items of one size and bins of one room are dealt with together, so that the loop is
    as long as the window, not as the text.
    """
    room = {}  # free space -> bins that have it
    order = np.argsort(-size, kind="stable")
    bounds = np.flatnonzero(np.diff(size[order])) + 1
    where, bins = np.empty(len(size), np.int64), 0
    for items in np.split(order, bounds) if len(size) else []:
        length = int(size[items[0]])
        while len(items):
            free = min((r for r in room if r >= length), default=capacity)
            each = free // length  # a bin stays the tightest until it is full
            wanted = -(-len(items) // each)
            if free in room:
                chosen, rest = np.split(room.pop(free), [wanted])
                if len(rest):
                    room[free] = rest
            else:
                chosen = np.arange(bins, bins + wanted)
                bins += wanted
            into = np.repeat(chosen, each)[: len(items)]
            where[items[: len(into)]] = into
            items = items[len(into) :]
            taken = np.minimum(each, len(into) - each * np.arange(len(chosen)))
            left = free - length * taken
            for r in np.unique(left[left > 0]).tolist():
                new = chosen[left == r]
                room[r] = np.concatenate([room[r], new]) if r in room else new
    return where


def checked(tokens: np.ndarray, classes: int) -> np.ndarray:
    """As int32, where the vocabulary has them."""
    low, high = (int(tokens.min()), int(tokens.max())) if tokens.size else (0, 0)
    if low < 0 or high >= classes:
        came = low if low < 0 else high
        raise BadInput(f"--data: wanted tokens in [0, {classes}), came {came}")
    return tokens.astype(np.int32)


def _ranges(start: np.ndarray, count: np.ndarray) -> np.ndarray:
    """start[0], start[0] + 1, ... (count[0] of them), start[1], ... ."""
    before = np.cumsum(count) - count
    return np.repeat(start - before, count) + np.arange(int(count.sum()))
