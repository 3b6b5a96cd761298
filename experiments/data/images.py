"""Images: scikit-learn's digits, and folders of CIFAR-10 or CIFAR-100 in binary form.

Pixels lie in [-1, 1], so that what `crop` pads with, 0, is grey.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.config import BadInput, Data

from .store import Domain, Parts, Rows, Source, scattered
from .token_files import sampled


@dataclass(frozen=True, eq=False)
class Images:
    """Images that `read` knows: rows -> (f32[rows, h, w, c], labels)."""

    read: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    count: int

    def __len__(self) -> int:
        return self.count

    def take(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        image, labels = self.read(rows)
        mask = np.ones(len(rows), bool)
        return {"image": image, "labels": labels.astype(np.int32), "mask": mask}


def scaled(pixels: np.ndarray, white: float = 255) -> np.ndarray:
    """From [0, white] to [-1, 1], f32."""
    return pixels.astype(np.float32) * np.float32(2 / white) - np.float32(1)


def digits(name: str, config: Data) -> Source:
    """1797 grey images of 8 by 8."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        needs = "needs scikit-learn: pip install 'jaxtricks[data]'"
        raise BadInput(f"--data: digits {needs}") from None
    found = load_digits()
    pixels, labels = scaled(found.images[..., None], 16), found.target
    store = Images(lambda rows: (pixels[rows], labels[rows]), len(labels))
    out = scattered(len(labels), config.valid_fraction)
    train, valid = (Rows(store, np.flatnonzero(x)) for x in (~out, out))
    about = {"source": "digits", "kind": "images", "images": len(labels)}
    domain = Domain(name, train, valid, len(labels))
    return Source("images", [domain], 10, about, image=(8, 8, 1))


def cifar_files(folder: Path) -> tuple[list[Path], Path, int] | None:
    """(files to train on, test file, bytes of labels), where it is one of the two."""
    ten = sorted(folder.glob("data_batch_[0-9]*.bin"))
    if ten and (folder / "test_batch.bin").is_file():
        return ten, folder / "test_batch.bin", 1
    hundred, test = folder / "train.bin", folder / "test.bin"
    whole = (p.is_file() and p.stat().st_size % 3074 == 0 for p in (hundred, test))
    if all(whole) and any(folder.glob("*label_names.txt")):
        return [hundred], test, 2
    return None


def cifar(
    name: str, train: list[Path], test: Path, label_bytes: int, config: Data
) -> Source:
    """A record is its labels, of which the last counts, and 3 planes of 32 by 32."""
    width = label_bytes + 3072
    classes = {1: 10, 2: 100}[label_bytes]

    def rows_of(paths: list[Path]) -> Rows:
        for path in paths:
            size = path.stat().st_size
            if not size or size % width:
                said = f"{size} bytes are no whole number of CIFAR records of {width}"
                raise BadInput(f"--data: {path}: {said}")
        try:
            maps = [np.memmap(path, np.uint8, "r") for path in paths]
        except OSError as error:
            raise BadInput(f"--data: cannot read {error.filename}: {error}") from None
        parts = Parts.of(*(np.asarray(m).reshape(-1, width) for m in maps))

        def read(rows):
            records = parts.at(rows)
            labels = records[:, label_bytes - 1]
            if labels.max(initial=0) >= classes:
                came = f"came label {labels.max()}"
                raise BadInput(f"--data: {paths[0].parent}: no CIFAR-{classes}, {came}")
            planes = records[:, label_bytes:].reshape(-1, 3, 32, 32)
            return scaled(np.moveaxis(planes, 1, -1)), labels

        return Rows(Images(read, parts.size), range(parts.size))

    domain = Domain(name, rows_of(train), rows_of([test]), 0)
    images = len(domain.train) + len(domain.valid)
    about = {
        "source": str(test.parent),
        "kind": "images",
        "images": images,
        "digest": sampled([*train, test]),
    }
    domain = domain._replace(size=images)
    return Source("images", [domain], classes, about, image=(32, 32, 3))
