"""Token statistics and what is built on them, contracted to one number a token."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtricks import kernels
from tests.case import Case, Inputs
from tests.inputs import CLASSES, rng
from tests.kernels.cases_cross_entropy import (
    BIAS,
    THREE_TOKENS,
    WEIGHT,
    hidden_weight_labels,
)

TEACHER_FEATURES = 4
TEACHER_WEIGHT = rng(24).normal(size=(TEACHER_FEATURES, CLASSES)).astype(np.float32)
TEACHER_BIAS = rng(25).normal(size=CLASSES).astype(np.float32)
CLASS_WEIGHTS = rng(26).gamma(2.0, size=CLASSES).astype(np.float32)


def _teacher_hidden(batch):
    return rng(23, *batch).normal(size=(*batch, TEACHER_FEATURES)).astype(np.float32)


def _with_teacher_edges():
    hidden, _, labels = hidden_weight_labels.make((8,))
    teacher = _teacher_hidden((8,))
    right = np.eye(CLASSES, TEACHER_FEATURES, dtype=np.float32)[labels]
    teachers = {
        "zero hidden": (np.zeros_like(teacher), TEACHER_WEIGHT),
        "zero weight": (teacher, np.zeros_like(TEACHER_WEIGHT)),
        "huge": (np.sign(teacher) * 1e4, np.sign(TEACHER_WEIGHT)),
        "certain": (40 * right, np.eye(TEACHER_FEATURES, CLASSES, dtype=np.float32)),
        "wrong by 1e4": (teacher, TEACHER_WEIGHT),
        "identical": (np.tile(teacher[:1], (8, 1)), TEACHER_WEIGHT),
    }
    edges = hidden_weight_labels.edges()
    both = {name: (*edges[name], *teachers[name]) for name in edges}
    far = (np.sign(teacher) * 1e4, np.sign(TEACHER_WEIGHT))
    return {**both, "huge teacher": (hidden, WEIGHT, labels, *far)}


_plain = hidden_weight_labels
hidden_weight_labels_teacher = Inputs(
    make=lambda b: (*_plain.make(b), _teacher_hidden(b), TEACHER_WEIGHT),
    batched=(*_plain.batched, True, False),
    edges=_with_teacher_edges,
    labels=2,
    sharded=(*_plain.sharded, (), (None, "model")),
)
two_heads = Inputs(
    make=lambda b: (*_plain.make(b)[:2], _teacher_hidden(b), TEACHER_WEIGHT),
    batched=(True, False, True, False),
    edges=lambda: {
        name: (*data[:2], *data[3:]) for name, data in _with_teacher_edges().items()
    },
    sharded=((), (None, "model"), (), (None, "model")),
)
weighted_classes = Inputs(
    make=lambda b: (*_plain.make(b), CLASS_WEIGHTS),
    batched=(*_plain.batched, False),
    edges=lambda: {
        **{name: (*data, CLASS_WEIGHTS) for name, data in _plain.edges().items()},
        "no weights": (*_plain.make((8,)), np.zeros_like(CLASS_WEIGHTS)),
    },
    labels=2,
    sharded=(*_plain.sharded, ("model",)),
)


def contracted(fields):
    """sum_i (1 + i / 2) field_i, of those there are."""
    there = [
        x for x in fields if x is not None and jnp.issubdtype(x.dtype, jnp.floating)
    ]
    return sum((1 + i / 2) * x for i, x in enumerate(there))


def _contracted(fn, data, kwargs):
    return contracted(fn(*data, **kwargs))


def _with_teacher(fn, data, kwargs):
    hidden, weight, labels, *teacher = data
    teacher = (*teacher, TEACHER_BIAS)
    return contracted(fn(hidden, weight, labels, teacher=teacher, **kwargs))


def _class_weights(fn, data, kwargs):
    *data, class_weights = data
    return fn(*data, class_weights=class_weights, **kwargs)


def _loss_and_gradient(fn, data, kwargs):
    """The loss, and a token's gradient in its own hidden state."""
    out = fn(*data, **kwargs)
    directions = 1 + jnp.cos(jnp.arange(out.hidden.shape[-1], dtype=out.loss.dtype))
    gradient = out.hidden.astype(out.loss.dtype)
    return out.loss + gradient @ directions


def _plain_statistics(hidden, weight, labels):
    z = hidden @ weight
    p = jax.nn.softmax(z)
    target = np.take_along_axis(z, labels[:, None], axis=-1)[:, 0]
    lse, square = jax.nn.logsumexp(z, axis=-1), jax.nn.logsumexp(2 * z, axis=-1)
    return contracted((lse, target, jnp.sum(z, -1), jnp.sum(p * z, -1), square))


def _plain_logprob(hidden, weight, labels):
    log_p = jax.nn.log_softmax(hidden @ weight)
    found = np.take_along_axis(np.asarray(log_p), labels[:, None], axis=-1)[:, 0]
    return contracted((found, -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)))


def _plain_kl(hidden, weight, teacher_hidden, teacher_weight):
    log_p = jax.nn.log_softmax(hidden @ weight)
    log_q = jax.nn.log_softmax(teacher_hidden @ teacher_weight)
    return jnp.sum(jnp.exp(log_q) * (log_q - log_p), axis=-1)


def _weighted(hidden, weight, labels, class_weights):
    log_p = jax.nn.log_softmax(hidden @ weight)
    found = np.take_along_axis(np.asarray(log_p), labels[:, None], axis=-1)[:, 0]
    return -class_weights[labels] * found


STATS = ("total", "mean", "square", "argmax")
TESTS = "tests/kernels/test_statistics.py"
BAD = [{"workspace_mb": 0}, {"implementation": "cuda"}, {"layout": "v"}]

CASES = [
    Case(
        kernels.token_statistics,
        hidden_weight_labels,
        {"scale": 0.8},
        static={"workspace_mb": THREE_TOKENS, "stats": STATS},
        call=_contracted,
        limits=[("all logits", _plain_statistics, {"scale": 1.0})],
        bad=[
            *BAD,
            {"stats": ("entropy",)},
            {"scale": 0.0},
            {"bias": np.zeros(2, np.float32)},
        ],
        tests=TESTS,
    ),
    Case(
        kernels.token_statistics,
        hidden_weight_labels_teacher,
        {"scale": 0.8, "softcap": 3.0},
        static={"workspace_mb": THREE_TOKENS, "stats": STATS, "bias": BIAS},
        call=_with_teacher,
        bad=[{"softcap": -1.0}],
        tests=TESTS,
        name="teacher",
    ),
    Case(
        kernels.linear_kl,
        two_heads,
        {"temperature": 1.5},
        static={"workspace_mb": THREE_TOKENS},
        limits=[("KL", _plain_kl, {"temperature": 1.0})],
        bad=[*BAD, {"direction": "sideways"}, {"temperature": 0.0}],
        tests=TESTS,
    ),
    Case(
        kernels.linear_kl,
        two_heads,
        {"temperature": 1.5, "softcap": 5.0},
        static={"workspace_mb": THREE_TOKENS, "direction": "reverse", "bias": BIAS},
        bad=[{"bias": np.zeros(2, np.float32)}],
        tests=TESTS,
        name="reverse",
    ),
    Case(
        kernels.linear_kl,
        two_heads,
        {"temperature": 1.5, "beta": 0.3},
        static={
            "workspace_mb": THREE_TOKENS,
            "direction": "jsd",
            "teacher_bias": TEACHER_BIAS,
        },
        limits=[
            ("nothing", lambda *data: np.zeros(8), {"beta": 0.0}),
            ("nothing", lambda *data: np.zeros(8), {"beta": 1.0}),
        ],
        bad=[{"beta": 1.5}, {"beta": -0.5}],
        tests=TESTS,
        name="jsd",
    ),
    Case(
        kernels.linear_logprob,
        hidden_weight_labels,
        {"temperature": 1.5},
        static={"workspace_mb": THREE_TOKENS},
        call=_contracted,
        limits=[("log_softmax", _plain_logprob, {"temperature": 1.0})],
        bad=[*BAD, {"temperature": -1.0}, {"softcap": 0}],
        tests=TESTS,
    ),
    Case(
        kernels.linear_cross_entropy,
        weighted_classes,
        {"label_smoothing": 0.1, "z_loss": 0.01, "scale": 0.8},
        static={"workspace_mb": THREE_TOKENS},
        call=_class_weights,
        limits=[
            (
                "weighted cross entropy",
                _weighted,
                {"label_smoothing": 0.0, "z_loss": 0.0, "scale": 1.0},
            )
        ],
        bad=[{"layout": "v"}, {"scale": -1.0}],
        tests=TESTS,
        name="class_weights",
    ),
    Case(
        kernels.linear_cross_entropy_value_and_grad,
        hidden_weight_labels,
        {"label_smoothing": 0.1, "z_loss": 0.01, "softcap": 5.0},
        static={"workspace_mb": THREE_TOKENS, "bias": BIAS},
        call=_loss_and_gradient,
        bad=[
            {"workspace_mb": 0},
            {"layout": "v"},
            {"filter_eps": -1.0},
            {"label_smoothing": 2.0},
            {"z_loss": -1.0},
            {"weights": np.ones(3, np.float32)},
            {"class_weights": np.ones(3, np.float32)},
        ],
        bf16_rtol=2**-8,
        tests=TESTS,
    ),
]
