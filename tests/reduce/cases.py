"""The reductions, spread over the batch so that every free check applies."""

import jax.numpy as jnp
import numpy as np

from jaxtricks import reduce
from jaxtricks._mask import blank
from tests.case import Case, Inputs
from tests.inputs import rng


def _losses(batch):
    return rng(11, *batch).normal(size=batch).astype(np.float32) * 3


def _weights(batch):
    return rng(12, *batch).gamma(2.0, size=batch).astype(np.float32)


def _edges():
    x, w = _losses((8,)), _weights((8,))
    dropped = np.where(np.arange(8) == 3, 0, w).astype(np.float32)
    return {
        "zero": (np.zeros_like(x), w),
        "no weight": (x, np.zeros_like(w)),
        "huge": (x * 1e30, w),
        "tiny weights": (x, w * 1e-9),
        "infinite and dropped": (
            np.where(np.arange(8) == 3, np.inf, x).astype(np.float32),
            dropped,
        ),
    }


weighted = Inputs(
    make=lambda batch: (_losses(batch), _weights(batch)),
    batched=(True, True),
    edges=_edges,
)


def _spread(fn, data, kwargs):
    """The scalar, or the sum of the two, at every live example."""
    x, weights = data
    out = fn(x, weights=weights, **kwargs)
    out = sum(out) if isinstance(out, tuple) else out
    like = jnp.asarray(x, out.dtype)
    return blank(jnp.ones_like(like) * out, kwargs.get("where"))


CASES = [
    Case(fn, weighted, coupled=True, call=_spread) for fn in (reduce.mean, reduce.total)
]
