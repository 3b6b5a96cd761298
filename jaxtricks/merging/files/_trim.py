"""The largest changes of a tensor that is seen in parts, twice: to count, to keep.

A sample tells between which two magnitudes the cut lies, so that counting remembers
few entries and not all. Magnitudes are compared by their bits, integers of the
same order with NaN above all, as the leaf does.
"""

import numpy as np

from .._sparsify import how_many

_SURE = 5.0  # standard deviations of the sample's rank that the bracket is wide
_BLOCKS = 0.02  # of the sample, because neighbours are alike


def bits(change: np.ndarray) -> np.ndarray:
    """Magnitudes as integers of the same order."""
    kind = np.uint64 if change.itemsize == 8 else np.uint32
    return np.abs(change).view(kind)


class Cut:
    """Which entries of one model's changes are among the density of its largest.

    As the leaf has it: floor(density * size) of them, one at least unless density is 0;
    among equals the first ones.
    """

    def __init__(self, size: int, density: float, sample: np.ndarray | None = None):
        self._k = int(how_many(np, density, size, 1)[0])
        self.is_found = self._k in (0, size)
        self._all, self._simple, self._floor = self._k == size, True, 0
        self._room = self._seen = 0
        self._bracket(sample, size)

    def _bracket(self, sample: np.ndarray | None, size: int) -> None:
        self._low, self._high = 0, (1 << 64) - 1
        if sample is not None and sample.size and not self.is_found:
            found, share = np.sort(sample), 1 - self._k / size
            spread = _SURE * (sample.size * share * (1 - share)) ** 0.5
            spread += _BLOCKS * sample.size
            at = [int(share * sample.size + side * spread) for side in (-1, 1)]
            if at[0] >= 0:
                self._low = int(found[at[0]])
            if at[1] < sample.size:
                self._high = int(found[at[1]])
        self._restart()

    def _restart(self) -> None:
        self._above = self._from_high = self._over_low = self._from_low = 0
        self._between: list[np.ndarray] = []

    def count(self, change: np.ndarray) -> None:
        """The next part of the first pass."""
        found = bits(change)
        low, high = (found.dtype.type(x) for x in self._within(found.dtype))
        over, top = found > low, found >= high
        self._above += int(np.count_nonzero(found > high))
        self._from_high += int(np.count_nonzero(top))
        self._over_low += int(np.count_nonzero(over))
        self._from_low += int(np.count_nonzero(found >= low))
        self._between.append(found[over & ~top])

    def _within(self, dtype: np.dtype) -> tuple[int, int]:
        most = int(np.iinfo(dtype).max)
        return self._low, min(self._high, most)

    def settle(self) -> bool:
        """Whether the pass has found the cut; if not, another is wanted."""
        k = self._k
        if k <= self._above or k > self._from_low:  # the sample was not like the rest
            low = self._low
            self._low, self._high = (
                (self._high, (1 << 64) - 1) if k <= self._above else (0, low)
            )
            self._restart()
            return False
        if k <= self._from_high:
            self._found(self._high, k - self._above, self._from_high - self._above)
        elif k <= self._over_low:
            found = np.concatenate(self._between)
            at = found.size - (k - self._from_high)
            found.partition(at)
            floor, top = found[at], found[at:]
            room = top.size - int(np.count_nonzero(top > floor))
            self._found(int(floor), room, int(np.count_nonzero(found == floor)))
        else:
            equal = self._from_low - self._over_low
            self._found(self._low, k - self._over_low, equal)
        self._between = []
        return True

    def _found(self, floor: int, room: int, equal: int) -> None:
        self._floor, self._room, self._simple = floor, room, equal == room
        self.is_found = True

    def trim(self, change: np.ndarray) -> None:
        """The next part of the second pass: 0 in place of what is cut."""
        if self._all:
            return
        if not self._k:
            change[...] = 0
            return
        found = bits(change)
        if self._simple:
            # -1 for what is below the floor, 0 else: by integers, much the fastest way.
            kind = np.int64 if change.itemsize == 8 else np.int32
            below = found.view(kind)
            below -= kind(self._floor)
            below >>= 8 * change.itemsize - 1
            np.invert(below, out=below)
            bitwise = change.view(kind)
            bitwise &= below
            return
        floor = found.dtype.type(self._floor)
        tied = found == floor
        place = self._seen + np.cumsum(tied)
        self._seen += int(np.count_nonzero(tied))
        cut = (found < floor) | (tied & (place > self._room))
        np.copyto(change, 0, where=cut)
