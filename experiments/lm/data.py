"""Text to windows: which files, domains and splits there are, and batches of them.

A window is up to `length` bytes of one file, and every byte of every file is a target
in exactly one window. Byte 0 never occurs in text, so it begins each window and pads
the last one of a file, where the mask is False.
"""

import hashlib
import os
import sysconfig
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .config import BadInput

VOCABULARY = 256

# Tests, editors and installed packages dominate the bytes where they exist, and some
# distributions leave them out.
LEFT_OUT = {"__pycache__", "idlelib", "site-packages", "dist-packages", "test", "tests"}

# A top-level entry with less than this, of the bytes or in files, joins a group.
MIN_SHARE, MIN_FILES = 0.02, 4


@dataclass(frozen=True)
class Windows:
    """One split, cut into windows: bytes[start:stop] of each."""

    bytes: np.ndarray  # uint8[bytes]
    start: np.ndarray  # i64[windows]
    stop: np.ndarray  # i64[windows]
    domain: np.ndarray  # i32[windows], into Text.domains
    length: int

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """One example; `id` is what a trick with per-example memory is keyed by."""
        text = self.bytes[self.start[i] : self.stop[i]]
        targets = np.zeros(self.length, np.int32)
        targets[: len(text)] = text
        return {
            "id": np.int32(i),
            "domain": self.domain[i],
            "inputs": np.concatenate([[np.int32(0)], targets[:-1]]),
            "targets": targets,
            "mask": np.arange(self.length) < len(text),
        }

    def select(self, ids: np.ndarray) -> "Windows":
        return replace(
            self, start=self.start[ids], stop=self.stop[ids], domain=self.domain[ids]
        )


class Text(NamedTuple):
    """All the text, split by file, with what a table needs to know about it."""

    train: Windows
    valid: Windows
    domains: tuple[str, ...]
    shares: np.ndarray  # f64[domains], of all bytes, summing to 1
    about: dict  # files, bytes, digest, ... for config.json


def load(
    folder: Path | None, *, length: int, valid_fraction: float, valid_windows: int
) -> Text:
    """Every text file under `folder` (None: the standard library), cut and split."""
    if folder is None:
        root, wanted = Path(sysconfig.get_path("stdlib")), _is_library
    else:
        root, wanted = folder, _is_visible
    paths, texts, binary = _read(root, wanted)
    sizes = np.array([len(text) for text in texts])
    names = _domain_names(paths, sizes)
    domains = tuple(sorted(set(names)))
    domain = np.array([domains.index(name) for name in names], np.int32)
    valid = _held_out(paths, sizes, domain, valid_fraction)
    if not valid.any():
        raise BadInput(
            f"--data: {root} holds {len(paths)} text file; a split by file needs two"
        )
    digest = hashlib.blake2b(digest_size=8)
    for path, text in zip(paths, texts, strict=True):
        digest.update(f"{path}\0{len(text)}\0".encode() + text)
    return Text(
        train=_cut(texts, domain, ~valid, length),
        valid=_spread(_cut(texts, domain, valid, length), valid_windows),
        domains=domains,
        shares=np.bincount(domain, sizes) / sizes.sum(),
        about={
            "root": str(root),
            "files": len(paths),
            "bytes": int(sizes.sum()),
            "valid_bytes": int(sizes[valid].sum()),
            "binary_files_left_out": binary,
            "digest": digest.hexdigest(),
        },
    )


def _is_library(path: Path) -> bool:
    return path.suffix == ".py" and not LEFT_OUT & set(path.parts)


def _is_visible(path: Path) -> bool:
    return not any(part.startswith(".") for part in path.parts)


def _read(root: Path, wanted) -> tuple[list[Path], list[bytes], int]:
    """Relative paths and contents, sorted by path, and how many held no text."""
    if not root.is_dir():
        raise BadInput(f"--data: {root} is not a folder")
    paths, texts, binary = [], [], 0
    try:
        for folder, folders, files in os.walk(root, onerror=_raise):
            folders[:] = [f for f in folders if f not in {"__pycache__"}]
            for path in (Path(folder, name) for name in files):
                if not wanted(path.relative_to(root)):
                    continue
                text = path.read_bytes()
                if b"\0" in text:
                    binary += 1
                elif text:
                    paths.append(path.relative_to(root))
                    texts.append(text)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
        raise BadInput(f"--data: cannot read {reason}") from None
    if not paths:
        raise BadInput(f"--data: no text in {root}")
    order = sorted(range(len(paths)), key=lambda i: paths[i].as_posix())
    return [paths[i] for i in order], [texts[i] for i in order], binary


def _raise(error: OSError):
    raise error


def _domain_names(paths: list[Path], sizes: np.ndarray) -> list[str]:
    """The top-level folder or module of each file, small ones grouped."""
    tops = [path.parts[0] for path in paths]
    weight, count = dict.fromkeys(tops, 0), dict.fromkeys(tops, 0)
    for top, size in zip(tops, sizes, strict=True):
        weight[top] += size
        count[top] += 1

    def name(path):
        top = path.parts[0]
        if weight[top] >= MIN_SHARE * sizes.sum() and count[top] >= MIN_FILES:
            return top
        return "single files" if len(path.parts) == 1 else "small folders"

    return [name(path) for path in paths]


def _held_out(
    paths: list[Path], sizes: np.ndarray, domain: np.ndarray, fraction: float
) -> np.ndarray:
    """bool[files]: in each domain, `fraction` of the bytes, by the hash of the path."""
    place = np.array([_place(path) for path in paths])
    held_out = np.zeros(len(paths), bool)
    for d in range(domain.max() + 1):
        files = np.nonzero(domain == d)[0]
        files = files[place[files].argsort()]
        before = np.cumsum(sizes[files]) - sizes[files]
        enough = before >= fraction * sizes[files].sum()
        enough[-1] = True  # one to train on
        held_out[files[~enough]] = True
    if len(paths) > 1 and not held_out.any():  # domains of one file each
        held_out[place.argmin()] = True
    return held_out


def _place(path: Path) -> float:
    """A number in [0, 1) that depends on the relative path alone."""
    digest = hashlib.blake2b(path.as_posix().encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def _cut(texts, domain, chosen, length: int) -> Windows:
    (files,) = np.nonzero(chosen)
    start, stop, of, offset = [], [], [], 0
    for i in files:
        begins = np.arange(offset, offset + len(texts[i]), length)
        offset += len(texts[i])
        start.append(begins)
        stop.append(np.minimum(begins + length, offset))
        of.append(np.full(len(begins), domain[i], np.int32))
    text = np.frombuffer(b"".join(texts[i] for i in files), np.uint8)
    return Windows(text, *map(np.concatenate, (start, stop, of)), length)


def _spread(windows: Windows, n: int) -> Windows:
    """About `n` windows, as many of each domain, evenly spaced over its text."""
    ids = []
    domains = np.unique(windows.domain)
    for d in domains:
        (of,) = np.nonzero(windows.domain == d)
        pick = np.linspace(0, len(of) - 1, max(1, n // len(domains)))
        ids.append(of[np.unique(pick.astype(int))])
    return windows.select(np.concatenate(ids))


def batches(windows: Windows, *, batch_size: int, seed: int):
    """An endless iterator, the same for every arm, that a checkpoint can hold.

    Example i depends on i and the seed alone; every epoch has a new order.
    """
    import grain

    stream = grain.MapDataset.source(windows).seed(seed).shuffle().repeat()
    stream = stream.batch(batch_size, drop_remainder=True)
    return iter(stream.to_iter_dataset(grain.ReadOptions(num_threads=0)))


def example(windows: Windows, batch_size: int) -> dict[str, np.ndarray]:
    """A batch of one window repeated, of the shapes and dtypes of every batch."""
    return {name: np.stack([x] * batch_size) for name, x in windows[0].items()}


def stack(windows: Windows, batch_size: int) -> list[dict[str, np.ndarray]]:
    """All windows in order, in batches of one size; rows that only fill have id -1."""
    rows = [windows[i] for i in range(len(windows))]
    blank = {name: np.zeros_like(value) for name, value in rows[0].items()}
    rows += [blank | {"id": np.int32(-1)}] * (-len(rows) % batch_size)
    whole = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return [
        {name: value[i : i + batch_size] for name, value in whole.items()}
        for i in range(0, len(rows), batch_size)
    ]


class Bits(NamedTuple):
    """Bits per byte: over all the text, and per domain."""

    overall: float
    domains: dict[str, float]

    @property
    def worst(self) -> str:
        return max(self.domains, key=self.domains.__getitem__)


def bits(nll: np.ndarray, text: Text) -> Bits:
    """From f64[windows], the summed nats of each validation window.

    All domains have as many windows, so overall each weighs its share of all bytes.
    """
    valid, n = text.valid, len(text.domains)
    count = np.bincount(valid.domain, valid.stop - valid.start, minlength=n)
    total = np.bincount(valid.domain, nll, minlength=n)
    per_byte = np.divide(total, count, where=count > 0, out=np.zeros(n)) / np.log(2)
    shares = text.shares * (count > 0)
    return Bits(
        float(per_byte @ shares / shares.sum()),
        {
            d: float(b)
            for d, b, c in zip(text.domains, per_byte, count, strict=True)
            if c
        },
    )


def baselines(text: Text) -> dict[str, Bits]:
    """What counting reaches: single bytes, and pairs with single bytes as the prior."""
    before = np.concatenate([[0], text.train.bytes[:-1]]).astype(np.int64)
    before[text.train.start] = 0
    pairs = np.bincount(before * VOCABULARY + text.train.bytes, minlength=VOCABULARY**2)
    pairs = pairs.reshape(VOCABULARY, VOCABULARY)
    single = (pairs.sum(0) + 1) / (pairs.sum() + VOCABULARY)
    double = (pairs + single) / (pairs.sum(1, keepdims=True) + 1)
    table = {"unigram": np.broadcast_to(single, pairs.shape), "bigram": double}
    rows = [text.valid[i] for i in range(len(text.valid))]
    return {
        name: bits(
            np.array(
                [-np.log(p[r["inputs"], r["targets"]])[r["mask"]].sum() for r in rows]
            ),
            text,
        )
        for name, p in table.items()
    }
