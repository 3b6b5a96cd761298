"""The sources of the flags as one dataset: domains, vocabulary, splits, validation."""

import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.config import BadInput, Data

from . import augment, images, mixing, saved, text, token_files
from .store import Domain, Rows, Source, spread
from .tokenizer import Tokenizer, tokenizer

SUPPORTED = (
    "stdlib, digits, text or token files (.bin, .npy, .array_record) or a folder of "
    "either, a folder of CIFAR binaries, or one that datasets saved"
)


class Dataset(NamedTuple):
    """All that is trained and validated on; any row of it can be had at any time."""

    kind: str  # tokens or images
    domains: tuple[str, ...]
    shares: np.ndarray  # f64[domains], of all bytes, tokens or images, summing to 1
    classes: int  # of the vocabulary, or of the labels
    image: tuple[int, int, int] | None  # height, width, channels
    bytes_per_token: float | None  # where all of it is text
    about: dict  # sources, sizes, digests, for config.json
    train: tuple[Rows, ...]
    valid: tuple[Rows, ...]

    @property
    def sizes(self) -> np.ndarray:
        """i64[domains], examples to train on: windows or images."""
        return np.array([len(rows) for rows in self.train])


def load(config: Data, *, seed: int = 0) -> Dataset:
    """Reads what --data names, or BadInput. The seed changes nothing so far: which
    examples are held out depends on the data alone, so that seeds can be compared."""
    del seed
    if not config.data:
        raise BadInput(f"--data: wanted {SUPPORTED}, came nothing")
    named = [_name(item) for item in config.data]
    encode = tokenizer(config.tokenizer)
    alone = len(named) == 1
    sources = [_read(name, source, alone, config, encode) for name, source in named]
    kinds = {source.kind for source in sources}
    if len(kinds) > 1:
        raise BadInput("--data: tokens and images do not mix")
    (kind,) = kinds
    if kind == "tokens" and config.augment:
        raise BadInput("--augment: for images only, and these are tokens")
    augment.parse(config.augment)
    shapes = {source.image for source in sources}
    if len(shapes) > 1:
        came = " and ".join(str(shape) for shape in sorted(shapes))
        raise BadInput(f"--data: wanted images of one shape, came {came}")
    domains = [domain for source in sources for domain in source.domains]
    names = [domain.name for domain in domains]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"--data: two domains are called {name!r}: NAME=SOURCE")
    if not sum(len(domain.train) for domain in domains):
        raise BadInput("--data: nothing to train on")
    if not sum(len(domain.valid) for domain in domains):
        raise BadInput("--data: nothing to validate on")
    sizes = np.array([domain.size for domain in domains], np.float64)
    all_text = all(source.text_bytes for source in sources)
    tokens = sum(source.tokens for source in sources)
    classes = _classes(sources)
    bounded = _bounded(domains, classes) if kind == "tokens" else domains
    dataset = Dataset(
        kind=kind,
        domains=tuple(names),
        shares=sizes / sizes.sum(),
        classes=classes,
        image=sources[0].image,
        bytes_per_token=sum(s.text_bytes for s in sources) / tokens
        if all_text
        else None,
        about={
            "sources": [source.about for source in sources],
            "tokenizer": encode.about if all_text else None,
            "train": {domain.name: len(domain.train) for domain in domains},
            "valid": {domain.name: len(domain.valid) for domain in domains},
        },
        train=tuple(domain.train for domain in bounded),
        valid=tuple(domain.valid for domain in bounded),
    )
    if max(sum(map(len, dataset.train)), sum(map(len, dataset.valid))) >= 2**31:
        raise BadInput("--seq-len: wanted fewer than 2^31 windows, came more; longer?")
    for split in (rows for rows in dataset.train + dataset.valid if len(rows)):
        split.store.take(split.of(spread(len(split), 2)))  # says what is wrong early
    for flag, spec in (("--mix", config.mix), ("--mix-end", config.mix_end)):
        mixing.weights(spec, dataset.domains, dataset.sizes, flag)
    return dataset


def validation(
    dataset: Dataset, config: Data, *, batch: int, process: int = 0, processes: int = 1
) -> list[dict[str, np.ndarray]]:
    """About --valid-examples held-out examples, as many of each domain, unaugmented.

    `batch` is over all processes, each of which gets its rows. The last batch is filled
    with rows of id -1 whose mask is False.
    """
    rows = own_rows(batch, process, processes, "the batch of validation")
    filled = [d for d, split in enumerate(dataset.valid) if len(split)]
    each = config.valid_examples // max(len(filled), 1)
    picked, domain, ids = [], [], []
    before = np.cumsum([0] + [len(split) for split in dataset.valid])
    for d in filled:
        chosen = spread(len(dataset.valid[d]), each)
        picked.append(dataset.valid[d].of(chosen))
        domain.append(np.full(len(chosen), d, np.int32))
        ids.append((chosen + before[d]).astype(np.int32))
    if not filled:
        return []
    picked, domain, ids = map(np.concatenate, (picked, domain, ids))
    batches = []
    for at in range(0, len(ids), batch):
        here = at + rows
        real = here < len(ids)
        here = np.where(real, here, 0)
        content = gather(dataset.valid, domain[here], picked[here])
        filler = {name: np.zeros_like(x) for name, x in content.items()}
        content |= {"id": ids[here], "domain": domain[here]}
        filler |= {
            "id": np.full_like(ids[here], -1),
            "domain": np.zeros_like(domain[here]),
        }
        batches.append(
            {
                name: np.where(
                    real.reshape((-1,) + (1,) * (x.ndim - 1)), x, filler[name]
                )
                for name, x in content.items()
            }
        )
    return batches


def own_rows(
    batch: int, process: int, processes: int, name: str = "--batch-size"
) -> np.ndarray:
    """Rows of the global batch that are this process's."""
    if batch % processes:
        wanted = f"wanted a multiple of the {processes} processes"
        raise BadInput(f"{name}: {wanted}, came {batch}")
    each = batch // processes
    return np.arange(process * each, (process + 1) * each)


def gather(
    splits: tuple[Rows, ...], domain: np.ndarray, rows: np.ndarray
) -> dict[str, np.ndarray]:
    """Rows of the domains' stores as one batch; a store is asked once."""
    numbers: dict[int, int] = {}
    of = np.array(
        [numbers.setdefault(id(split.store), len(numbers)) for split in splits]
    )
    stores = list({id(split.store): split.store for split in splits}.values())
    which = of[domain]
    if (which == which[0]).all():
        return stores[which[0]].take(rows)
    batch: dict[str, np.ndarray] = {}
    for s in np.unique(which):
        here = which == s
        for name, x in stores[s].take(rows[here]).items():
            whole = batch.setdefault(name, np.empty((len(rows), *x.shape[1:]), x.dtype))
            whole[here] = x
    return batch


def _name(item: str) -> tuple[str | None, str]:
    """(name or none, source) of NAME=SOURCE or SOURCE."""
    name, separator, source = item.partition("=")
    if separator and re.fullmatch(r"\w[\w .-]*", name) and not Path(item).exists():
        return name, source
    return None, item


def _read(
    name: str | None, source: str, alone: bool, config: Data, encode: Tokenizer
) -> Source:
    """By what is found there, the reader that knows it."""
    if source == "stdlib":
        whole = name or (None if alone else "stdlib")
        return text.read(text.library(), text.is_library, whole, config, encode)
    if source == "digits":
        return images.digits(name or source, config)
    path = Path(source).expanduser()
    named = name or path.resolve().name.split(".")[0] or str(path)
    try:
        if not path.exists():
            said = f"came {source}, which does not exist"
            raise BadInput(f"--data: wanted {SUPPORTED}, {said}")
        if path.is_file():
            if token_files.NAMES.fullmatch(path.name):
                return token_files.read([path], named, config)
            with path.open("rb") as file:
                if b"\0" in file.read(1 << 16):
                    said = f"came {source}, a binary file of another kind"
                    raise BadInput(f"--data: wanted {SUPPORTED}, {said}")
            return text.read(path, text.is_visible, named, config, encode)
        if not path.is_dir():
            raise BadInput(f"--data: {source} is neither a file nor a folder")
        if saved.is_saved(path):
            return saved.read(path, named, config, encode)
        if found := images.cifar_files(path):
            return images.cifar(named, *found, config)
        if found := token_files.files(path):
            return token_files.read(found, named, config)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
        raise BadInput(f"--data: cannot read {reason}") from None
    whole = name or (None if alone else named)
    return text.read(path, text.is_visible, whole, config, encode)


def _classes(sources: list[Source]) -> int:
    """The vocabulary that all share; where none tells, what their dtypes can hold."""
    known = {source.classes for source in sources if source.classes}
    if len(known) > 1:
        came = " and ".join(map(str, sorted(known)))
        raise BadInput(f"--data: wanted one vocabulary for all, came {came}")
    if known:
        return known.pop()
    limit = max(source.limit for source in sources)
    if limit > 2**16:
        told = 'or {"vocabulary": N} in tokens.json beside the files'
        raise BadInput(f"--vocab: wanted the size of the vocabulary, {told}")
    return limit


def _bounded(domains: list[Domain], classes: int) -> list[Domain]:
    """With stores that refuse a token outside the vocabulary of all."""
    splits = [rows for domain in domains for rows in (domain.train, domain.valid)]
    stores = {id(rows.store): rows.store for rows in splits}  # of all or some domains
    stores = {key: replace(store, classes=classes) for key, store in stores.items()}

    def of(rows):
        return replace(rows, store=stores[id(rows.store)])

    return [d._replace(train=of(d.train), valid=of(d.valid)) for d in domains]
