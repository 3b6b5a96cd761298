"""A tensor in a file: where its bytes are, so that any part of it can be read alone."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import ml_dtypes
import numpy as np


class MergeError(ValueError):
    """The merge cannot be done; the message is one line that names what is wrong.

    Names come from files that nobody vouches for: what does not print is escaped.
    """

    def __init__(self, message: str):
        shown = (c if c.isprintable() else ascii(c)[1:-1] for c in message)
        super().__init__("".join(shown))


# The names that safetensors uses, and numpy's or ml_dtypes' types for them.
DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "C64": np.dtype("<c8"),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Tensor(NamedTuple):
    """One tensor of a checkpoint: its type, and the file that holds it from `start`."""

    dtype: np.dtype
    shape: tuple[int, ...]
    file: Path
    start: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def is_float(self) -> bool:
        return floating(self.dtype)

    def __str__(self) -> str:
        return f"{self.dtype.name}{list(self.shape)}"


@runtime_checkable
class Checkpoint(Protocol):
    """What every reader gives: names to tensors, and their values flat, in parts."""

    path: Path
    tensors: Mapping[str, Tensor]

    def read(self, name: str, begin: int = 0, end: int | None = None) -> np.ndarray:
        """Entries [begin, end) of the flattened tensor, in its own dtype."""
        ...

    def held(self, name: str) -> int:
        """Bytes of memory that reading any part of it takes until the last is read."""
        ...

    def digests(self) -> dict[str, str]:
        """SHA-256 of every file, what was not read being read now."""
        ...

    def close(self) -> None: ...


def unfit(shape: Sequence[int], dtype: np.dtype) -> str | None:
    """Why numpy can hold no array of this shape, if so; empty ones count, too."""
    if len(shape) > 64:
        return f"{len(shape)} axes are more than the 64 of an array"
    if math.prod(n for n in shape if n) * dtype.itemsize >= 2**63:
        return f"the shape {list(shape)!r:.60} is past what a machine can address"
    return None


def floating(dtype: np.dtype) -> bool:
    """Whether it is merged; ml_dtypes' types are no kind of float in numpy."""
    return dtype.kind == "f" or "float" in dtype.name
