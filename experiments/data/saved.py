"""What Hugging Face `datasets` saved to disk: a column of images, tokens or text.

Tokens and bytes of text stay in the memory-mapped Arrow files; with a tokenizer.json,
text is tokenized when it is loaded. The split `validation`, `valid`, `val` or `test` of
a DatasetDict is the validation split; without one, a part of the rows is held out.
"""

import itertools
from pathlib import Path

import numpy as np

from experiments.config import BadInput, Data

from .images import Images, scaled
from .packing import Documents, pack
from .store import Domain, Parts, Rows, Source, scattered
from .token_files import check_eos, sampled
from .tokenizer import Tokenizer

HELD_OUT = ("validation", "valid", "val", "test")
TOKENS = ("input_ids", "tokens", "token_ids")
TEXT = ("text", "content", "document")
LABELS = ("label", "labels", "fine_label")


def is_saved(folder: Path) -> bool:
    one = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    return one or (folder / "dataset_dict.json").is_file()


def read(folder: Path, name: str, config: Data, tokenizer: Tokenizer) -> Source:
    """One domain of it, of images where it has them, else of tokens, else of text."""
    splits = _splits(folder)
    features = splits["train"].features
    if image := _image_column(features):
        return _images(folder, name, splits, image, config)
    if tokens := _pick(features, TOKENS, _is_tokens):
        return _tokens(folder, name, splits, tokens, config)
    if text := _pick(features, TEXT, lambda f: getattr(f, "dtype", "") in STRINGS):
        return _text(folder, name, splits, text, config, tokenizer)
    found = ", ".join(f"{key} ({type(f).__name__})" for key, f in features.items())
    wanted = "wanted a column of images, of lists of integers, or of text"
    raise BadInput(f"--data: {folder}: {wanted}; it has {found}")


STRINGS = ("string", "large_string")


def _splits(folder: Path) -> dict:
    """`train`, and `valid` where there is a split for it."""
    try:
        import datasets
    except ImportError:
        needs = "needs datasets: pip install 'jaxtricks[data]'"
        raise BadInput(f"--data: {folder} {needs}") from None
    if not any(folder.rglob("*.arrow")):
        raise BadInput(f"--data: {folder} holds no rows")
    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # of Arrow, of json, of that package
        reason = str(error).splitlines()[0]
        raise BadInput(f"--data: cannot read {folder}: {reason}") from None
    if isinstance(loaded, datasets.Dataset):
        splits = {"train": loaded}
    else:
        if "train" not in loaded:
            found = ", ".join(loaded)
            raise BadInput(f"--data: {folder}: wanted a split train; it has {found}")
        held_out = next((key for key in HELD_OUT if key in loaded), None)
        splits = {"train": loaded["train"]}
        if held_out:
            splits["valid"] = loaded[held_out]
    for key, split in splits.items():
        if not len(split):
            raise BadInput(f"--data: {folder}: its {key} split is empty")
    if len(splits["train"]) < 2 and "valid" not in splits:
        raise BadInput(f"--data: {folder} has one row; a split needs two")
    return splits


def _pick(features, names: tuple[str, ...], fits) -> str | None:
    """The column of a usual name, else the only one that fits."""
    good = [key for key, feature in features.items() if fits(feature)]
    usual = [key for key in names if key in good]
    return usual[0] if usual else good[0] if len(good) == 1 else None


def _is_tokens(feature) -> bool:
    inner = getattr(feature, "feature", None)
    return getattr(inner, "dtype", "").startswith(("int", "uint"))


def _image_column(features) -> str | None:
    names = {"Image", "Array2D", "Array3D"}
    return _pick(features, ("image", "img"), lambda f: type(f).__name__ in names)


def _about(folder: Path, splits: dict, kind: str) -> dict:
    return {
        "source": str(folder),
        "kind": kind,
        "rows": {key: len(split) for key, split in splits.items()},
        "digest": sampled(sorted(folder.rglob("*.arrow"))),
    }


def _packed(
    stored: dict[str, Documents], config: Data, classes: int
) -> tuple[Rows, Rows]:
    """Windows to train on and to validate on."""
    if "valid" not in stored:
        whole = stored["train"]
        whole = whole.select(whole.stop > whole.first)  # an empty row is no validation
        out = scattered(len(whole.start), config.valid_fraction)
        stored = {"train": whole.select(~out), "valid": whole.select(out)}
    cut = {"how": config.pack, "length": config.seq_len, "classes": classes}
    train, valid = (
        pack(documents, np.zeros(len(documents.start), np.int8), 1, **cut)[0]
        for documents in (stored["train"], stored["valid"])
    )
    return train, valid


def _documents(arrays: list[tuple], begin: int | None) -> Documents:
    """Of (values, offsets) of each chunk of a column."""
    parts = Parts.of(*(values[at[0] : at[-1]] for values, at in arrays))
    bounds = [
        start + at - at[0] for (_, at), start in zip(arrays, parts.starts, strict=False)
    ]
    start, stop = (
        np.concatenate([b[cut] for b in bounds]) for cut in (slice(-1), slice(1, None))
    )
    return Documents(parts, start, stop, begin)


def _tokens(folder, name, splits, column, config: Data) -> Source:
    stored, tokens, limit = {}, 0, 0
    for key, split in splits.items():
        arrays = []
        for chunk in _chunks(split, column):
            if chunk.null_count or chunk.values.null_count:
                raise BadInput(f"--data: {folder}: column {column} has missing values")
            arrays.append(_lists(chunk))
        stored[key] = _documents(arrays, config.eos)
        tokens += stored[key].tokens.size
        limit = max(limit, *(int(np.iinfo(v.dtype).max) + 1 for v, _ in arrays))
    if not tokens:
        raise BadInput(f"--data: {folder}: column {column} has no tokens")
    check_eos(config.eos, config.vocab or limit)
    train, valid = _packed(stored, config, config.vocab or limit)
    about = _about(folder, splits, "tokens") | {"tokens": tokens, "eos": config.eos}
    domain = Domain(name, train, valid, tokens)
    classes = config.vocab or None
    return Source("tokens", [domain], classes, about, limit=limit, tokens=tokens)


def _text(folder, name, splits, column, config: Data, tokenizer: Tokenizer) -> Source:
    stored, size, tokens = {}, 0, 0
    for key, split in splits.items():
        arrays = []
        for chunk in _chunks(split, column):
            arrays.append(_bytes(chunk))
            size += int(arrays[-1][1][-1] - arrays[-1][1][0])
            if not tokenizer.is_bytes:
                arrays[-1] = _encoded(*arrays[-1], tokenizer)
        stored[key] = _documents(arrays, tokenizer.begin)
        tokens += stored[key].tokens.size
    if not tokens:
        raise BadInput(f"--data: {folder}: column {column} has no text")
    train, valid = _packed(stored, config, tokenizer.classes)
    about = _about(folder, splits, "text") | {"bytes": size}
    return Source(
        kind="tokens",
        domains=[Domain(name, train, valid, size)],
        classes=tokenizer.classes,
        about=about,
        text_bytes=size,
        tokens=tokens,
    )


def _chunks(split, column: str) -> list:
    return [chunk for chunk in split.data.column(column).chunks if len(chunk)]


def _lists(chunk) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, offsets) of a chunk of lists, where they lie."""
    if hasattr(chunk, "offsets"):
        at = chunk.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    else:  # lists of one size
        at = (np.arange(len(chunk) + 1) + chunk.offset) * chunk.type.list_size
    return chunk.values.to_numpy(), at


def _bytes(chunk) -> tuple[np.ndarray, np.ndarray]:
    """(bytes, offsets) of a chunk of strings, where they lie; none is empty."""
    _, offsets, content = chunk.buffers()
    width = np.int64 if "large" in str(chunk.type) else np.int32
    at = np.frombuffer(offsets, width)[chunk.offset :][: len(chunk) + 1]
    return np.frombuffer(content or b"", np.uint8), at.astype(np.int64)


def _encoded(
    content: np.ndarray, at: np.ndarray, tokenizer: Tokenizer
) -> tuple[np.ndarray, np.ndarray]:
    texts = [content[a:b].tobytes() for a, b in itertools.pairwise(at)]
    tokens = tokenizer.encode(texts)
    sizes = [len(document) for document in tokens]
    return np.concatenate(tokens), np.append(0, np.cumsum(sizes, dtype=np.int64))


def _images(folder, name, splits, column, config: Data) -> Source:
    labels, classes = _labels(folder, splits)
    shape = None
    stores = {}
    for key, split in splits.items():
        split = split.select_columns([column]).with_format(None)
        first = _pixels(split[0][column], config.image_size, None)
        shape = shape or first.shape
        read = _reader(folder, split, column, labels[key], shape, config.image_size)
        store = Images(read, len(split))
        stores[key] = Rows(store, range(len(split)))
    if "valid" not in stores:
        store = stores["train"].store
        out = scattered(len(store), config.valid_fraction)
        stores = {
            "train": Rows(store, np.flatnonzero(~out)),
            "valid": Rows(store, np.flatnonzero(out)),
        }
    images = sum(len(split) for split in splits.values())
    domain = Domain(name, stores["train"], stores["valid"], images)
    about = _about(folder, splits, "images") | {"images": images}
    return Source("images", [domain], classes, about, image=shape)


def _reader(folder, split, column, labels, shape, size):
    def read(rows):
        found = [
            _pixels(image, size, shape[-1]) for image in split[rows.tolist()][column]
        ]
        for image in found:
            if image.shape != shape:
                said = (
                    f"images of {shape} and {image.shape}; --image-size makes them one"
                )
                raise BadInput(f"--data: {folder} has {said}")
        return scaled(np.stack(found)), labels[rows]

    return read


def _pixels(image, size: int, channels: int | None) -> np.ndarray:
    """u8[h, w, c] of a picture or of an array of pixels from 0 to 255."""
    if not hasattr(image, "convert"):
        array = np.asarray(image)
        if size and array.shape[:2] != (size, size):
            raise BadInput("--image-size: only pictures can be resized, not arrays")
        if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
            wanted = "wanted whole numbers from 0 to 255 as the pixels of arrays"
            came = f"{array.dtype} from {array.min():g} to {array.max():g}"
            raise BadInput(f"--data: {wanted}, came {came}")
        return array[..., None] if array.ndim == 2 else array
    grey = channels == 1 if channels else image.mode in ("1", "L", "I;16")
    image = image.convert("L" if grey else "RGB")
    if size:  # the middle square
        side = min(image.size)
        left, top = ((x - side) // 2 for x in image.size)
        box = (left, top, left + side, top + side)
        image = image.resize((size, size), resample=2, box=box)
    array = np.asarray(image)
    return array[..., None] if grey else array


def _labels(folder, splits) -> tuple[dict[str, np.ndarray], int]:
    """Labels of each split, and how many classes there are."""
    features = splits["train"].features
    names = [key for key, f in features.items() if type(f).__name__ == "ClassLabel"]
    usual = [key for key in LABELS if key in features]
    column = next(iter([key for key in usual if key in names] + names + usual), None)
    if column is None:
        found = ", ".join(features)
        raise BadInput(f"--data: {folder}: wanted a column label; it has {found}")
    labels = {}
    for key, split in splits.items():
        stored = split.data.column(column).to_numpy()
        if stored.dtype.kind not in "iu" or stored.min() < 0:
            raise BadInput(f"--data: {folder}: wanted a label >= 0 for every image")
        labels[key] = stored
    feature = features[column]
    known = getattr(feature, "num_classes", None)
    return labels, known or 1 + max(int(of.max()) for of in labels.values())
