"""The norms: their rows, contracted to one number each by fixed weights."""

import jax.numpy as jnp
import numpy as np

from jaxtricks import kernels
from jaxtricks._mask import blank
from tests.case import Case, Inputs
from tests.inputs import rng
from tests.kernels.cases_softmax import contracted

FEATURES = 6
SCALE = 1 + rng(41).normal(size=FEATURES).astype(np.float32) / 2
BIAS = rng(42).normal(size=FEATURES).astype(np.float32)
# A row's hyperparameter: the zero row then has derivatives of a size that f32 can hold.
EPS = {"eps": 1e-3}


def _rows(batch, seed=40):
    return rng(seed, *batch).normal(size=(*batch, FEATURES)).astype(np.float32) * 2


def _inputs(*rest, residual=False):
    """x, perhaps a residual, and the parameters."""

    def beside(x, seed=43):
        return (x, _rows(x.shape[:-1], seed), *rest) if residual else (x, *rest)

    def edges():
        x = _rows((8,))
        found = {
            "zero": np.zeros_like(x),
            "constant": np.full_like(x, 3),
            "huge": np.where(x > 0, 1e4, -1e4).astype(np.float32),
            "far up": x + np.float32(1e4),
            "1e18": x * np.float32(1e18),
            "beyond the squares": x * np.float32(1e30),
            "1e-30": x * np.float32(1e-30),
            "one feature": np.where(np.arange(FEATURES) == 2, x, 0),
            "identical": np.tile(x[:1], (8, 1)),
        }
        return {
            name: (x, np.zeros_like(x), *rest) if residual else (x, *rest)
            for name, x in found.items()
        }

    data = 2 if residual else 1
    return Inputs(
        make=lambda batch: beside(_rows(batch)),
        batched=(True,) * data + (False,) * len(rest),
        edges=edges,
        sharded=(("model",),) * (data + len(rest)),
    )


def _call(fn, data, kwargs):
    """A masked row is blanked before and after, as the norms know no mask."""
    where, rest = kwargs["where"], {k: v for k, v in kwargs.items() if k != "where"}
    count = 2 if fn.__name__.startswith("add_") else 1
    rows = [blank(x, where) for x in data[:count]]
    out = fn(*rows, *data[count:], **rest)
    if count == 2:
        return blank(contracted(out[0]) - contracted(jnp.sin(out[1])), where)
    return blank(contracted(out), where)


def _layer(x, scale, bias):
    x = (x - jnp.mean(x, -1, keepdims=True)) / jnp.std(x, -1, keepdims=True)
    return contracted(x * scale[None] + bias[None])


def _rms(x, scale):
    x = x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True))
    return contracted(x * scale[None])


def _crms(x, scale):
    x = jnp.concatenate([x, -jnp.sum(x, -1, keepdims=True)], axis=-1)
    x = x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True))
    return contracted(x[:, :-1] * scale[None])


BAD = [{"implementation": "cuda"}, {"eps": -1.0}]
PLAIN = {"call": _call, "bf16_rtol": 2**-7}

CASES = [
    Case(
        kernels.layer_norm,
        _inputs(SCALE, BIAS),
        EPS,
        limits=[("the definition", _layer, {"eps": 0.0})],
        bad=BAD,
        **PLAIN,
    ),
    Case(
        kernels.rms_norm,
        _inputs(SCALE),
        EPS,
        limits=[("the definition", _rms, {"eps": 0.0})],
        bad=BAD,
        **PLAIN,
    ),
    Case(
        kernels.crms_norm,
        _inputs(SCALE),
        EPS,
        limits=[("the whole vector's", _crms, {"eps": 0.0})],
        bad=BAD,
        **PLAIN,
    ),
    Case(kernels.layer_norm, _inputs(), EPS, name="plain", **PLAIN),
    Case(
        kernels.add_layer_norm,
        _inputs(SCALE, BIAS, residual=True),
        EPS,
        bad=BAD,
        **PLAIN,
    ),
    Case(kernels.add_rms_norm, _inputs(SCALE, residual=True), EPS, bad=BAD, **PLAIN),
    Case(kernels.add_crms_norm, _inputs(SCALE, residual=True), EPS, bad=BAD, **PLAIN),
]
