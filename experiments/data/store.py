"""Where examples lie: arrays in parts, rows of a store, and what a source is read to.

A store has a length and `take(rows) -> dict of arrays [rows, ...]`; any row can be had
at any time, which is what makes an exact and cheap resume possible.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np


class Store(Protocol):
    """Examples of one kind, in a fixed order."""

    def __len__(self) -> int: ...
    def take(self, rows: np.ndarray) -> dict[str, np.ndarray]: ...


class Parts(NamedTuple):
    """Arrays, memory-mapped or not, read as if they were one."""

    arrays: tuple[np.ndarray, ...]
    starts: np.ndarray  # i64[parts + 1]

    @classmethod
    def of(cls, *arrays: np.ndarray) -> "Parts":
        sizes = [len(array) for array in arrays]
        return cls(arrays, np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]))

    @property
    def size(self) -> int:
        return int(self.starts[-1])

    def at(self, address: np.ndarray) -> np.ndarray:
        """The elements at these places, of whatever shape the places have."""
        if len(self.arrays) == 1:
            return self.arrays[0][address]
        part = np.searchsorted(self.starts, address, side="right") - 1
        dtype = np.result_type(*{array.dtype for array in self.arrays})
        found = np.empty(address.shape + self.arrays[0].shape[1:], dtype)
        for p in np.unique(part):
            here = part == p
            found[here] = self.arrays[p][address[here] - self.starts[p]]
        return found


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a store; of a huge one, a range."""

    store: Store
    rows: np.ndarray | range

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, index: np.ndarray) -> np.ndarray:
        """Rows of the store, from places among these rows."""
        if isinstance(self.rows, range):
            return self.rows.start + index
        return self.rows[index]


class Domain(NamedTuple):
    """One part of the mixture."""

    name: str
    train: Rows
    valid: Rows
    size: int  # of all its bytes, tokens or images


class Source(NamedTuple):
    """What one --data is read to."""

    kind: str  # tokens or images
    domains: list[Domain]
    classes: int | None  # None: not known, fewer than `limit`
    about: dict  # for config.json
    limit: int = 0
    text_bytes: int | None = None  # of the tokens that `tokens` counts
    tokens: int = 0
    image: tuple[int, int, int] | None = None


def scattered(n: int, fraction: float) -> np.ndarray:
    """bool[n]: a fraction, chosen by a hash of the row; both parts are not empty."""
    x = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    x ^= x >> np.uint64(31)
    chosen = np.zeros(n, bool)
    chosen[np.argsort(x, kind="stable")[: share(n, fraction)]] = True
    return chosen


def spread(n: int, wanted: int) -> np.ndarray:
    """About `wanted` of `n` places, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, max(wanted, 1)).astype(np.int64))


def share(n: int, fraction: float) -> int:
    """About `fraction` of `n`, and at least one in it and one outside."""
    return min(max(1, round(fraction * n)), n - 1)
