"""Augmentation of batches of images: flip, crop, mixup, cutmix.

What happens to a row depends on the seed, the batch and the row of the global batch, so
it is the same however many processes share the batch. Mixing takes two rows of the
global batch: `partner` says which, and the partner is augmented as its own row is.

Sources: Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018,
arXiv:1710.09412; Yun et al., "CutMix: Regularization Strategy to Train Strong
Classifiers with Localizable Features", 2019, arXiv:1905.04899. With both, each batch
takes one.
"""

import math
from typing import NamedTuple

import numpy as np

from experiments.config import BadInput

MIXING = ("mixup", "cutmix")


class Plan(NamedTuple):
    """What to do to each row of a global batch."""

    steps: tuple[str, ...]
    flip: np.ndarray  # bool[batch]
    shift: np.ndarray  # f64[batch, 2], in [0, 1)
    mix: str  # mixup, cutmix or nothing
    partner: np.ndarray  # i64[batch]
    share: np.ndarray  # f64[batch], of the row itself
    centre: np.ndarray  # f64[batch, 2], of the box, in [0, 1)

    def of(self, rows: np.ndarray) -> "Plan":
        """The plan of these rows of the global batch."""
        each = {f: getattr(self, f)[rows] for f in ("flip", "shift", "partner")}
        return self._replace(**each, share=self.share[rows], centre=self.centre[rows])


def parse(spec: tuple[str, ...]) -> dict[str, float]:
    """Names of --augment, in order, with their alpha (0 where there is none)."""
    parsed = {}
    for item in spec:
        name, separator, value = item.partition("=")
        if name in MIXING:
            try:
                alpha = float(value) if separator else 1.0
            except ValueError:
                alpha = math.nan
            if not (math.isfinite(alpha) and alpha > 0):
                raise BadInput(f"--augment: wanted {name}=ALPHA > 0, came {item!r}")
        elif item in ("flip", "crop"):
            alpha = 0.0
        else:
            said = "wanted flip, crop, mixup=ALPHA or cutmix=ALPHA"
            raise BadInput(f"--augment: {said}, came {item!r}")
        if name in parsed:
            raise BadInput(f"--augment: {name} is given twice")
        parsed[name] = alpha
    return parsed


def plan(steps: dict[str, float], batch: int, rng: np.random.Generator) -> Plan:
    """Drawn for the whole global batch, the same on every process."""
    flip, shift = rng.random(batch) < 0.5, rng.random((batch, 2))
    mixes = [name for name in steps if name in MIXING]
    mix = mixes[rng.integers(len(mixes))] if mixes else ""
    alpha = steps[mix] if mix else 1.0
    return Plan(
        steps=tuple(name for name in steps if name not in MIXING),
        flip=flip,
        shift=shift,
        mix=mix,
        partner=rng.permutation(batch),
        share=rng.beta(alpha, alpha, batch),
        centre=rng.random((batch, 2)),
    )


def each(images: np.ndarray, plan: Plan) -> np.ndarray:
    """What is done to every image by itself, in the order of the flags."""
    apply = {"flip": (flip, plan.flip), "crop": (crop, plan.shift)}
    for function, how in (apply[name] for name in plan.steps):
        images = function(images, how)
    return images


def flip(images: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Left to right, where chosen."""
    return np.where(chosen[:, None, None, None], images[:, :, ::-1], images)


def crop(images: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Moved by up to an eighth of the size, up or down, left or right, onto grey."""
    batch, height, width, _ = images.shape
    pad = np.array([max(1, height // 8), max(1, width // 8)])
    padded = np.pad(images, [(0, 0), (pad[0],) * 2, (pad[1],) * 2, (0, 0)])
    offset = (shift * (2 * pad + 1)).astype(int)
    rows = offset[:, :1] + np.arange(height)
    columns = offset[:, 1:] + np.arange(width)
    return padded[np.arange(batch)[:, None, None], rows[:, :, None], columns[:, None]]


def mixed(batch: dict, other: dict, plan: Plan) -> dict:
    """A batch mixed with its partners: labels_b, and the share of labels."""
    image, share = batch["image"], plan.share
    if plan.mix == "mixup":
        own = share.astype(np.float32)[:, None, None, None]
        image = own * image + (1 - own) * other["image"]
    else:
        inside = boxes(share, plan.centre, image.shape[1:3])
        image = np.where(inside[..., None], other["image"], image)
        share = 1 - inside.mean(axis=(1, 2))
    share = share.astype(np.float32)
    return batch | {"image": image, "labels_b": other["labels"], "share": share}


def boxes(share: np.ndarray, centre: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """bool[batch, h, w]: boxes of 1 - share of the area, cut off at the edge."""
    inside = True
    for axis, size in enumerate(shape):
        half = size * np.sqrt(1 - share) / 2
        middle = np.floor(centre[:, axis] * size)
        low, high = np.rint(middle - half), np.rint(middle + half)
        at = np.arange(size)
        line = (at >= low[:, None]) & (at < high[:, None])
        inside = inside & (line[:, :, None] if axis == 0 else line[:, None, :])
    return inside
