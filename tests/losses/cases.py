"""The losses under the free checks: plain labels, soft targets, memory, positions."""

import jax
import numpy as np
import optax

from jaxtricks import losses
from jaxtricks.losses import AldrKlState
from tests.case import Case, Inputs
from tests.inputs import CLASSES, logits_and_labels, rng

POSITIONS = 5


def _with_soft(data):
    """Logits, and a soft target that gives nothing to what is ruled out."""
    logits, labels = data
    target = rng(4, *labels.shape).dirichlet(np.ones(CLASSES), size=labels.shape)
    target = np.where(np.isneginf(logits), 0, target)
    return logits, (target / target.sum(-1, keepdims=True)).astype(np.float32)


logits_and_soft = Inputs(
    make=lambda batch: _with_soft(logits_and_labels.make(batch)),
    batched=(True, True),
    edges=lambda: {k: _with_soft(v) for k, v in logits_and_labels.edges().items()},
    sharded=(("model",), ("model",)),
)


def _with_index(data):
    """Logits, labels and each example's place in a memory of 20."""
    shape = data[1].shape
    return *data, (np.arange(np.prod(shape, dtype=int)) * 2 + 3).reshape(shape)


logits_labels_index = Inputs(
    make=lambda batch: _with_index(logits_and_labels.make(batch)),
    batched=(True, True, True),
    edges=lambda: {k: _with_index(v) for k, v in logits_and_labels.edges().items()},
    labels=1,
    sharded=(("model",), (), ()),
)


def late_step(aldr_kl, data, kwargs):
    """The losses once every example has a temperature of its own."""
    where = kwargs.pop("where")
    init, update = aldr_kl(**kwargs)
    logits, labels, index = data
    state = init(20)
    lam = state.lam * np.linspace(0.3, 1, 20, dtype=state.lam.dtype)
    return update(logits, labels, AldrKlState(lam), index=index, where=where)[0]


def _sentences(batch):
    logits, labels = logits_and_labels.make((*batch, POSITIONS))
    return logits, labels, rng(6, *batch).random((*batch, POSITIONS)) < 0.8


def _sentence_edges():
    """The edges of an example at every position; one sentence with no position."""
    _, labels, counts = _sentences((8,))
    counts[0] = False
    stack = np.broadcast_to
    return {
        name: (stack(x[:, None], (8, POSITIONS, CLASSES)).copy(), labels, counts)
        for name, (x, _) in logits_and_labels.edges().items()
    }


def _no_positions(inputs: Inputs) -> Inputs:
    return Inputs(
        make=lambda batch: inputs.make(batch)[:2],
        batched=inputs.batched[:2],
        edges=lambda: {k: v[:2] for k, v in inputs.edges().items()},
        labels=inputs.labels,
        sharded=inputs.sharded[:2],
    )


padded_sentences = Inputs(
    make=_sentences,
    batched=(True, True, True),
    edges=_sentence_edges,
    labels=1,
    sharded=((None, "model"), (None,), (None,)),
)
sentences = _no_positions(padded_sentences)


def with_positions(dice_set, data, kwargs):
    logits, labels, positions = data
    return dice_set(logits, labels, positions=positions, **kwargs)


def _p_label(logits, labels):
    return np.take_along_axis(np.asarray(jax.nn.softmax(logits)), labels[:, None], 1)[
        :, 0
    ]


CROSS_ENTROPY = optax.softmax_cross_entropy_with_integer_labels
DICE_BAD = [{"gamma": -1.0}, {"activation": "relu"}]

CASES = [
    Case(
        losses.cross_entropy,
        logits_and_labels,
        {"label_smoothing": 0.1, "z_loss": 1e-3},
        limits=[("optax", CROSS_ENTROPY, {"label_smoothing": 0.0, "z_loss": 0.0})],
        bad=[{"label_smoothing": 1.5}, {"z_loss": -1.0}],
    ),
    Case(
        losses.cross_entropy,
        logits_and_soft,
        {"label_smoothing": 0.0, "z_loss": 1e-3},
        limits=[("optax", optax.softmax_cross_entropy, {"z_loss": 0.0})],
        name="soft",
    ),
    Case(
        losses.focal,
        logits_and_labels,
        {"gamma": 2.0},
        limits=[("cross entropy", losses.cross_entropy, {"gamma": 0.0})],
        bad=[{"gamma": -1.0}],
    ),
    Case(
        losses.comp_sum,
        logits_and_labels,
        {"tau": 1.0},
        limits=[
            ("cross entropy", losses.cross_entropy, {"tau": 1.0}),
            ("nearly", losses.cross_entropy, {"tau": 1.0 + 1e-7}),
            ("half MAE", lambda x, y: 1 - _p_label(x, y), {"tau": 2.0}),
            ("GCE", lambda x, y: (1 - _p_label(x, y) ** 0.7) / 0.7, {"tau": 1.7}),
            ("sum of exponentials", lambda x, y: 1 / _p_label(x, y) - 1, {"tau": 0.0}),
        ],
        bad=[{"tau": -0.5}],
    ),
    Case(losses.comp_sum, logits_and_labels, {"tau": 1.6}, name="robust"),
    Case(
        losses.comp_sum,
        logits_and_labels,
        {"tau": 0.5},
        infinite=("huge", "wrong by 1e4"),
        name="steep",
    ),
    Case(
        losses.ldr_kl,
        logits_and_labels,
        {"lam": 0.7, "margin": 2.0},
        bad=[{"lam": 0.0}, {"normalize": "l2"}],
    ),
    Case(
        losses.ldr_kl,
        logits_and_labels,
        {"lam": 1.5, "margin": 0.5},
        {"normalize": "none"},
        limits=[
            (
                "cross entropy - log(classes)",
                lambda x, y: CROSS_ENTROPY(x, y) - np.log(CLASSES),
                {"lam": 1.0, "margin": 0.0},
            )
        ],
        name="plain",
    ),
    Case(
        losses.ldr_kl,
        logits_and_labels,
        {"lam": 0.7, "margin": 1.0},
        {"normalize": "l1"},
        name="l1",
    ),
    Case(
        losses.aldr_kl,
        logits_labels_index,
        {"lam": 0.8, "alpha": 2.0, "margin": 1.0},
        call=late_step,
        smooth=("lam", "alpha", "margin"),
        bad=[{"lam": -1.0}, {"alpha": 0.5}, {"normalize": "l2"}],
    ),
    Case(
        losses.aldr_kl,
        logits_labels_index,
        {"lam": 1.0, "alpha": 1.0, "margin": 1.0},
        {"normalize": "softplus"},
        call=late_step,
        smooth=("lam", "alpha", "margin"),
        name="softplus",
    ),
    Case(losses.dice, logits_and_labels, {"gamma": 1.0}, bad=DICE_BAD),
    Case(
        losses.dice,
        logits_and_soft,
        {"gamma": 0.5},
        {"squared": True, "activation": "sigmoid"},
        name="sigmoid",
    ),
    Case(
        losses.self_adjusting_dice,
        logits_and_labels,
        {"alpha": 1.0, "gamma": 1.0},
        limits=[("dice", losses.dice, {"alpha": 0.0})],
        bad=[{"alpha": -1.0}, *DICE_BAD],
    ),
    Case(
        losses.self_adjusting_dice,
        logits_and_soft,
        {"alpha": 0.6, "gamma": 0.3},
        {"squared": True, "activation": "sigmoid"},
        name="sigmoid",
    ),
    Case(
        losses.tversky,
        logits_and_labels,
        {"alpha": 0.3, "beta": 0.7, "gamma": 1.0},
        limits=[
            (
                "dice with twice the gamma",
                lambda x, y: losses.dice(x, y, gamma=2.0),
                {"alpha": 0.5, "beta": 0.5},
            )
        ],
        bad=[{"alpha": -1.0}, {"beta": -1.0}, *DICE_BAD],
    ),
    Case(
        losses.tversky,
        logits_and_soft,
        {"alpha": 0.4, "beta": 0.8, "gamma": 0.2},
        {"activation": "sigmoid"},
        name="sigmoid",
    ),
    Case(
        losses.dice_set,
        sentences,
        {"alpha": 0.0, "gamma": 1e-4},
        bad=[{"alpha": -1.0}, {"hard_negatives": -1.0}, *DICE_BAD],
    ),
    Case(
        losses.dice_set,
        padded_sentences,
        {"alpha": 0.5, "gamma": 0.1, "hard_negatives": 1.5},
        {"squared": True},
        call=with_positions,
        smooth=(0, "alpha", "gamma"),
        name="padded",
    ),
]
