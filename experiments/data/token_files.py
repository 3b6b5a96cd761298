"""Files of tokens, read where a window needs them: .bin, .npy and .array_record.

.npy: one dimension of integers. .bin: nothing but tokens, little-endian, uint16 unless
the name says otherwise (`corpus.uint32.bin`). .array_record: a record is a document,
its tokens as in a .bin (`corpus.uint32.array_record`). `corpus.json` beside a file, or
`tokens.json` in its folder, may tell {"dtype": ..., "vocabulary": ..., "eos": ...}; the
flags --vocab and --eos go before it.

A folder of such files, or with one of train as a word of its name, is one source. Those
with val, valid, validation or test as a word of their name are the validation split;
without any, it is the end of the tokens.

.bin and .npy do not tell where documents end. Without --eos, windows are plain cuts, in
which every token but the first of a file is a target. With it, a document ends after
each such token, and the next is predicted from it: --pack stream sees that in each
window as it is read, the others in one pass over the files at the start. ArrayRecord's
lengths are found in such a pass as well.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.config import BadInput, Data

from .packing import Cuts, Documents, pack
from .store import Domain, Parts, Rows, Source, share

NAMES = re.compile(r"(.+?)\.(bin|npy|array_?record)(-\d+-of-\d+)?")
DTYPES = ("uint8", "uint16", "uint32", "int32", "int64", "uint64")
TRAIN = re.compile(r"(?<![a-z])train(?![a-z])")
HELD_OUT = re.compile(r"(?<![a-z])(val|valid|validation|test)(?![a-z])")
BESIDE = {".json", ".md", ".pkl"}  # what else a folder of token files may hold
SCANNED = 1 << 24  # tokens at a time, where documents are looked for


class Records(NamedTuple):
    """ArrayRecord files as one row of tokens; a record is read when it is needed."""

    records: object  # of grain
    starts: np.ndarray  # i64[records + 1]
    dtype: str

    def at(self, address: np.ndarray) -> np.ndarray:
        record = np.searchsorted(self.starts, address, side="right") - 1
        needed, which = np.unique(record, return_inverse=True)
        # Several at once start threads, which takes ten times as long as a few reads.
        content = b"".join(self.records[record] for record in needed.tolist())
        size = self.starts[needed + 1] - self.starts[needed]
        shift = np.cumsum(size) - size - self.starts[needed]
        tokens = np.frombuffer(content, self.dtype)
        return tokens[address + shift[which.reshape(address.shape)]]


def files(folder: Path) -> list[Path]:
    """Its token files, where they are what it is about."""
    visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
    found = sorted(path for path in visible if NAMES.fullmatch(path.name))
    if any(TRAIN.search(path.name.lower()) for path in found):
        return found
    others = set(visible) - set(found)
    return found if all(path.suffix in BESIDE for path in others) else []


def read(paths: list[Path], name: str, config: Data) -> Source:
    """One domain from token files of one kind and one vocabulary."""
    kinds = {_kind(path) for path in paths}
    if "arrayrecord" in kinds and len(kinds) > 1:
        raise BadInput(f"--data: {paths[0].parent} mixes ArrayRecord with other files")
    told = [_told(path) for path in paths]
    eos = config.eos if config.eos is not None else _agreed(paths, told, "eos")
    classes = config.vocab or _agreed(paths, told, "vocabulary")
    dtypes = [
        np.dtype(_dtype(path, about)) for path, about in zip(paths, told, strict=True)
    ]
    limit = int(max(np.iinfo(dtype).max for dtype in dtypes)) + 1
    at_most = classes or limit
    check_eos(eos, at_most)
    several = len(paths) > 1
    apart = [p for p in paths if several and HELD_OUT.search(p.name.lower())]
    rest = [path for path in paths if path not in apart]
    if not rest:
        raise BadInput(f"--data: no file to train on beside {apart[0]}")
    of = dict(zip(paths, told, strict=True))
    opened = [_open(part, of, eos) for part in (rest, apart) if part]
    cut = {"config": config, "eos": eos, "classes": at_most}
    train, valid = _split(paths, opened, **cut)
    tokens = sum(size for *_, size in opened)
    return Source(
        kind="tokens",
        domains=[Domain(name, train, valid, tokens)],
        classes=classes,
        limit=limit,
        about={
            "source": str(paths[0] if len(paths) == 1 else paths[0].parent),
            "kind": "tokens",
            "files": len(paths),
            "tokens": tokens,
            "eos": eos,
            "digest": sampled(paths),
        },
        tokens=tokens,
    )


def check_eos(eos: int | None, classes: int) -> None:
    if eos is not None and not 0 <= eos < classes:
        raise BadInput(f"--eos: wanted a token in [0, {classes}), came {eos}")


def sampled(paths: list[Path]) -> str:
    """A digest of names, sizes and 16 samples of 4 KiB of each file."""
    digest = hashlib.blake2b(digest_size=8)
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            for at in sorted({int(x) for x in np.linspace(0, max(0, size - 4096), 16)}):
                file.seek(at)
                digest.update(file.read(4096))
    return digest.hexdigest()


def _kind(path: Path) -> str:
    return NAMES.fullmatch(path.name)[2].replace("_", "")


def _told(path: Path) -> dict:
    """What a file beside it says about it."""
    stem = NAMES.fullmatch(path.name)[1]
    for beside in (path.with_name(f"{stem}.json"), path.with_name("tokens.json")):
        if beside.is_file():
            try:
                told = json.loads(beside.read_text())
            except (OSError, ValueError) as error:
                raise BadInput(f"--data: cannot read {beside}: {error}") from None
            return told if isinstance(told, dict) else {}
    return {}


def _agreed(paths: list[Path], told: list[dict], key: str) -> int | None:
    said = [about.get(key) for about in told]
    if any(x != said[0] for x in said):
        raise BadInput(f"--data: files in {paths[0].parent} differ in {key}: {said}")
    if said[0] is not None and (type(said[0]) is not int or said[0] < 0):
        raise BadInput(f"--data: {paths[0]}: wanted a number as {key}, came {said[0]}")
    return said[0]


def _dtype(path: Path, told: dict) -> str:
    if _kind(path) == "npy":
        return str(_array(path, told).dtype)
    stem = NAMES.fullmatch(path.name)[1]
    suffix = stem.rpartition(".")[2]
    dtype = suffix if suffix in DTYPES else told.get("dtype", "uint16")
    if dtype not in DTYPES:
        wanted = ", ".join(DTYPES)
        raise BadInput(f"--data: {path}: wanted a dtype of {wanted}, came {dtype}")
    return dtype


def _array(path: Path, told: dict) -> np.ndarray:
    """The tokens of a .bin or .npy, memory-mapped."""
    try:
        if _kind(path) == "npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            dtype, size = np.dtype(_dtype(path, told)), path.stat().st_size
            if size % dtype.itemsize:
                said = f"{size} bytes are no whole number of {dtype} tokens"
                raise BadInput(f"--data: {path}: {said} (see NAME.uint32.bin)")
            little = dtype.newbyteorder("<")
            array = np.memmap(path, little, "r") if size else np.zeros(0, dtype)
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(f"--data: cannot read {path}: {error}") from None
    if array.ndim != 1 or array.dtype.kind not in "iu":
        came = f"{array.dtype}{list(array.shape)}"
        raise BadInput(f"--data: {path}: wanted one dimension of integers, came {came}")
    return np.asarray(array)


def _open(paths: list[Path], told: dict, eos: int | None) -> tuple:
    """(tokens, bounds of documents where they are known, how many tokens)."""
    if _kind(paths[0]) != "arrayrecord":
        parts = Parts.of(*(_array(path, told[path]) for path in paths))
        return parts, None, parts.size
    dtypes = {_dtype(path, told[path]) for path in paths}
    if len(dtypes) > 1:
        raise BadInput(
            f"--data: {paths[0].parent} mixes {' and '.join(sorted(dtypes))}"
        )
    (dtype,) = dtypes
    import grain

    try:
        records = grain.sources.ArrayRecordDataSource([str(path) for path in paths])
        sizes = np.zeros(len(records), np.int64)
        for at in range(0, len(records), 1024):
            some = list(range(at, min(at + 1024, len(records))))
            sizes[some] = [len(record) for record in records.__getitems__(some)]
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"--data: cannot read {paths[0]}: {reason}") from None
    width = np.dtype(dtype).itemsize
    if (sizes % width).any():
        odd = int(np.argmax(sizes % width > 0))
        said = f"record {odd} has {sizes[odd]} bytes, no whole number of {dtype} tokens"
        raise BadInput(f"--data: {paths[0]}: {said}")
    starts = np.append(0, np.cumsum(sizes // width))
    return Records(records, starts, dtype), starts, int(starts[-1])


def _split(
    paths: list[Path],
    opened: list[tuple],
    *,
    config: Data,
    eos: int | None,
    classes: int,
) -> list[Rows]:
    """Windows to train on and to validate on."""
    length, how = config.seq_len, config.pack
    _, bounds, size = opened[0]
    if size < 2:
        raise BadInput(f"--data: no tokens in {paths[0]}")
    if bounds is None and (eos is None or how == "stream"):
        if how == "fit":
            said = "fit needs to know where documents end: --eos TOKEN"
            raise BadInput(f"--pack: {said}, for {paths[0]}")
        cuts = [
            Cuts.of(parts, length=length, eos=eos, classes=classes)
            for parts, *_ in opened
        ]
        if len(cuts) == 2:
            return [Rows(store, range(len(store))) for store in cuts]
        windows = len(cuts[0])
        if windows < 2:
            said = f"{size} tokens are one window; a split needs two"
            raise BadInput(f"--data: {paths[0]}: {said}")
        middle = windows - share(windows, config.valid_fraction)
        return [
            Rows(cuts[0], range(middle)),
            Rows(cuts[0], range(middle, windows)),
        ]
    known = []
    for parts, found, _ in opened:
        if found is None:
            found = _ends(parts, eos)
        known.append(Documents(parts, found[:-1], found[1:], eos))
    if len(known) == 1:
        known = known[0].tail(config.valid_fraction)
    return [
        pack(
            documents,
            np.zeros(len(documents.start), np.int8),
            1,
            how=how,
            length=length,
            classes=classes,
        )[0]
        for documents in known
    ]


def _ends(tokens: Parts, eos: int) -> np.ndarray:
    """Bounds of the documents, from one pass over the files."""
    found = [tokens.starts]
    for array, start in zip(tokens.arrays, tokens.starts, strict=False):
        for at in range(0, len(array), SCANNED):
            (ends,) = np.nonzero(array[at : at + SCANNED] == eos)
            found.append(ends + (start + at + 1))
    return np.unique(np.concatenate(found))
