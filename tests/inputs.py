"""Shared example data: generic numbers, and the hard ones every trick must survive.

Seeds are fixed; values have no ties. New kinds of input are added here, once.
"""

import numpy as np

from tests.case import Inputs

CLASSES = 6


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _logits(batch):
    return rng(1, *batch).normal(size=(*batch, CLASSES)).astype(np.float32) * 2


def _labels(batch):
    return rng(2, *batch).integers(0, CLASSES, size=batch).astype(np.int32)


def _logit_edges():
    """Name -> f32[8, CLASSES], hard for anything with a softmax inside."""
    base = _logits((8,))
    certain = np.zeros_like(base)
    certain[np.arange(8), _labels((8,))] = 40.0
    masked = base.copy()
    masked[np.arange(8), (_labels((8,)) + 1) % CLASSES] = -np.inf
    return {
        "zero": np.zeros_like(base),
        "huge": np.where(base > 0, 1e4, -1e4).astype(np.float32),
        "wrong by 1e4": (certain * -250).astype(np.float32),
        "certain": certain,
        "masked class": masked,
        "identical": np.broadcast_to(base[:1], base.shape).copy(),
    }


def _labels_edges():
    return {name: (x, _labels((8,))) for name, x in _logit_edges().items()}


logits_and_labels = Inputs(
    make=lambda batch: (_logits(batch), _labels(batch)),
    batched=(True, True),
    edges=_labels_edges,
    labels=1,
    sharded=(("model",), ()),
)


def _losses(batch):
    return rng(3, *batch).gamma(2.0, size=batch).astype(np.float32)


losses = Inputs(
    make=lambda batch: (_losses(batch),),
    batched=(True,),
    edges=lambda: {
        "zero": (np.zeros(8, np.float32),),
        "identical": (np.full(8, 3.5, np.float32),),
        "huge": (_losses((8,)) * 1e4,),
        "outlier": (
            np.where(np.arange(8) == 3, 1e4, _losses((8,))).astype(np.float32),
        ),
        "negative": (_losses((8,)) - 5,),
        "tiny": (_losses((8,)) * 1e-30,),
    },
)
