"""The blockwise cross entropy, in chunks of at most three tokens."""

import numpy as np
import optax

from jaxtricks import kernels
from tests.case import Case, Inputs
from tests.inputs import CLASSES, rng

FEATURES = 5
THREE_TOKENS = 2 * 3 * CLASSES * 4 / 2**20


def _hidden(batch):
    return rng(20, *batch).normal(size=(*batch, FEATURES)).astype(np.float32)


def _labels(batch):
    return rng(2, *batch).integers(0, CLASSES, size=batch).astype(np.int32)


WEIGHT = rng(21).normal(size=(FEATURES, CLASSES)).astype(np.float32)
BIAS = rng(22).normal(size=CLASSES).astype(np.float32)


def _edges():
    hidden, labels = _hidden((8,)), _labels((8,))
    # Certainty: the head's columns are one-hot, so that a hidden state says its logits.
    one_hot = np.eye(FEATURES, CLASSES, dtype=np.float32)
    certain = 40 * np.eye(CLASSES, FEATURES, dtype=np.float32)[labels]
    return {
        "zero hidden": (np.zeros_like(hidden), WEIGHT, labels),
        "zero weight": (hidden, np.zeros_like(WEIGHT), labels),
        "huge": (np.sign(hidden) * 1e4, np.sign(WEIGHT), labels),
        "certain": (certain, one_hot, labels),
        "wrong by 1e4": (-250 * certain, one_hot, labels),
        "identical": (np.tile(hidden[:1], (8, 1)), WEIGHT, labels),
    }


hidden_weight_labels = Inputs(
    make=lambda batch: (_hidden(batch), WEIGHT, _labels(batch)),
    batched=(True, False, True),
    edges=_edges,
    labels=2,
    sharded=((), (None, "model"), ()),
)


def _plain(hidden, weight, labels):
    return optax.softmax_cross_entropy_with_integer_labels(hidden @ weight, labels)


CASES = [
    Case(
        kernels.linear_cross_entropy,
        hidden_weight_labels,
        {"label_smoothing": 0.1, "z_loss": 0.01},
        static={"workspace_mb": THREE_TOKENS},
        limits=[("cross entropy", _plain, {"label_smoothing": 0.0, "z_loss": 0.0})],
        bad=[
            {"label_smoothing": 1.5},
            {"z_loss": -1.0},
            {"workspace_mb": 0},
            {"implementation": "cuda"},
        ],
        tests="tests/kernels/test_linear_cross_entropy.py",
    ),
    Case(
        kernels.linear_cross_entropy,
        hidden_weight_labels,
        {"softcap": 5.0, "label_smoothing": 0.1, "z_loss": 0.01},
        static={"workspace_mb": THREE_TOKENS, "bias": BIAS},
        bad=[{"softcap": -1.0}],
        tests="tests/kernels/test_meshes.py",
        name="softcap",
    ),
]
