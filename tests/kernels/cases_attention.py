"""The attentions under the free checks: an example is a sequence, or heads of them.

An example's result, [length, values], comes down to one generic sum of it, and what is
masked is a whole example; masked positions are in the files of tests.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtricks.kernels import (
    attention_logit_max,
    attention_transfer_loss,
    hedgehog_feature_map,
    hybrid_window_linear_attention,
    hybrid_window_linear_attention_step,
    lightning_decay,
    lightning_linear_attention,
    lightning_linear_attention_step,
    long_short_attention,
    lrpe,
    simple_glu,
)
from tests.case import Case, Inputs
from tests.inputs import rng

LENGTH, FEATURES, VALUES, MAPS = 5, 3, 2, 4


def _normal(seed, batch, *shape):
    return rng(seed, *batch).normal(size=(*batch, *shape)).astype(np.float32)


def _qkv(batch, heads=()):
    sizes = (FEATURES, FEATURES, VALUES)
    return tuple(_normal(50 + i, batch, *heads, LENGTH, n) for i, n in enumerate(sizes))


def _with_features(data):
    """Positive features beside queries, keys and values, as softmaxes are."""
    shape = data[0].shape[:-2]
    q, k = (np.exp(_normal(60 + i, shape, LENGTH, MAPS)) for i in range(2))
    return (*data, *(x / x.sum(-1, keepdims=True) for x in (q, k)))


def _qkv_edges(heads=()):
    base = _qkv((8,), heads)
    alike = [np.tile(x[..., :1, :], (LENGTH, 1)) for x in base]
    return {
        "zero": tuple(map(np.zeros_like, base)),
        "zero values": (*base[:2], np.zeros_like(base[2])),
        "huge": tuple(np.sign(x) * np.float32(1e4) for x in base),
        "huge scores": (base[0] * 100, base[1] * 100, base[2]),
        "identical": tuple(alike),
    }


def _of_sequences(make, edges, count):
    return Inputs(make=make, batched=(True,) * count, edges=edges)


qkv = _of_sequences(_qkv, _qkv_edges, 3)
qk = _of_sequences(
    lambda batch: _qkv(batch)[:2],
    lambda: {name: x[:2] for name, x in _qkv_edges().items()},
    2,
)
heads_qkv = _of_sequences(lambda batch: _qkv(batch, (3,)), lambda: _qkv_edges((3,)), 3)
qkv_features = _of_sequences(
    lambda batch: _with_features(_qkv(batch)),
    lambda: {name: _with_features(x) for name, x in _qkv_edges().items()},
    5,
)

MAP = rng(70).normal(size=(FEATURES, MAPS)).astype(np.float32)
GLU = tuple(
    rng(71, n).normal(size=shape).astype(np.float32)
    for n, shape in enumerate([(FEATURES, 6), (FEATURES, 6), (6, VALUES)])
)


def _points(batch):
    return _normal(80, batch, FEATURES)


def _point_edges(other):
    x = _points((8,))
    edges = {
        "zero": np.zeros_like(x),
        "huge": np.sign(x) * np.float32(1e4),
        "identical": np.tile(x[:1], (8, 1)),
    }
    return {name: (x, *other(x)) for name, x in edges.items()}


points_and_weights = Inputs(
    make=lambda batch: (_points(batch), *GLU),
    batched=(True, False, False, False),
    edges=lambda: _point_edges(lambda _: GLU),
)
outputs_and_targets = Inputs(
    make=lambda batch: (_points(batch), _normal(81, batch, FEATURES)),
    batched=(True, True),
    edges=lambda: _point_edges(lambda x: (x.copy(),)),
)
sequence_and_map = Inputs(
    make=lambda batch: (_qkv(batch)[0], MAP),
    batched=(True, False),
    edges=lambda: {name: (x[0], MAP) for name, x in _qkv_edges().items()},
)


def _at_all_positions(where, lead):
    """`where` of examples, for each position of them; lead: their axes."""
    where = jnp.asarray(where)
    lifted = where.reshape(where.shape + (1,) * len(lead))
    return jnp.broadcast_to(lifted, where.shape + lead)


def on_examples(axes):
    """Runs a trick whose examples have so many axes, and sums each one's result."""

    def call(fn, data, kwargs):
        where, shape = kwargs.pop("where"), data[0].shape
        batch = shape[: len(shape) - axes]
        if where is not None:
            kwargs["where"] = _at_all_positions(where, shape[len(batch) : -1])
        out = fn(*data, **kwargs)
        out = out.astype(jnp.promote_types(out.dtype, jnp.float32))
        each = out.shape[len(batch) :]
        weights = jnp.cos(2 + jnp.arange(np.prod(each, dtype=int), dtype=out.dtype))
        weights = weights.reshape((1,) * len(batch) + each)
        return jnp.sum(out * weights, axis=tuple(range(len(batch), out.ndim)))

    return call


def _plain(q, k, v, *_):
    """Causal softmax attention."""
    scores = jnp.einsum("...tf,...sf->...ts", q, k) / FEATURES**0.5
    seen = np.tri(LENGTH, dtype=bool).reshape((1,) * (q.ndim - 2) + (LENGTH, LENGTH))
    weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf))
    return jnp.einsum("...ts,...sv->...tv", weights, v)


def _linear(q, k, v):
    scores = jnp.einsum("...tf,...sf->...ts", q, k)
    weights = scores * np.tri(LENGTH, dtype=np.float32)[None]
    return jnp.einsum("...ts,...sv->...tv", weights, v)


def _hybrid_of_linear(q, k, v, q_features, k_features):
    del q, k
    ones = jnp.ones_like(v[..., :1])
    total = _linear(q_features, k_features, ones)
    return _linear(q_features, k_features, v) / total


def _summed(rank, fn):
    call = on_examples(rank)
    return lambda *data: call(fn, data, {"where": None})


LOW = 2e-2  # results are of the values' dtype, and rounded to it

CASES = [
    Case(
        lightning_linear_attention,
        qkv,
        {"decay": 0.8},
        {"block": 2},
        call=on_examples(2),
        limits=[("linear attention", _summed(2, _linear), {"decay": 1.0})],
        bad=[{"decay": 0.0}, {"decay": 1.5}, {"block": 0}],
        bf16_rtol=LOW,
    ),
    Case(
        hybrid_window_linear_attention,
        qkv_features,
        {"window_factor": -1.0},
        {"window": 1, "block": 2},
        call=on_examples(2),
        limits=[
            ("softmax", _summed(2, _plain), {"window": LENGTH}),
            ("softmax in two blocks", _summed(2, _plain), {"window": 3}),
            ("linear", _summed(2, _hybrid_of_linear), {"window": 0}),
        ],
        bad=[{"window": -1}, {"block": 0}],
        bf16_rtol=LOW,
        name="terraced",
    ),
    Case(
        hybrid_window_linear_attention,
        qkv_features,
        {"window_factor": 0.5},
        {"window": 2, "block": 3, "terraced": False, "affine": True},
        call=on_examples(2),
        limits=[("softmax", _summed(2, _plain), {"window": LENGTH})],
        bf16_rtol=LOW,
        name="sliding",
    ),
    Case(
        hedgehog_feature_map,
        sequence_and_map,
        {"eps": 1e-12},
        call=on_examples(2),
        smooth=(0, 1),
        bad=[{"eps": 0.0}],
    ),
    Case(
        attention_transfer_loss,
        outputs_and_targets,
        {"factor": 1000.0},
        smooth=(0, "factor"),
        bad=[{"factor": -1.0}],
    ),
    Case(simple_glu, points_and_weights, call=on_examples(1), bf16_rtol=LOW),
    Case(
        long_short_attention,
        heads_qkv,
        static={"window": 2, "block": 3},
        call=on_examples(3),
        limits=[
            ("softmax", _summed(3, _plain), {"window": LENGTH}),
            ("no short heads", _summed(3, _plain), {"short_heads": 0}),
        ],
        bad=[{"window": 0}, {"block": 0}, {"short_heads": 4}],
        bf16_rtol=LOW,
    ),
    Case(
        attention_logit_max,
        qk,
        static={"block": 2},
        call=on_examples(2),
        bad=[{"window": 0}, {"block": 0}],
    ),
    *(
        Case(fn, kind="own", tests="tests/kernels/test_linear_attention.py")
        for fn in (lightning_decay, lightning_linear_attention_step, lrpe)
    ),
    Case(
        hybrid_window_linear_attention_step,
        kind="own",
        tests="tests/kernels/test_hedgehog.py",
    ),
]
