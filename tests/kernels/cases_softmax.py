"""Softmax and its kin: their rows, contracted to one number each by fixed weights."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtricks import kernels
from jaxtricks._mask import at_least_f32, blank
from tests.case import Case, Inputs
from tests.inputs import CLASSES, rng


def _rows(batch):
    return rng(30, *batch).normal(size=(*batch, CLASSES)).astype(np.float32) * 2


def _edges():
    base = _rows((8,))
    one = np.arange(8)[:, None] % CLASSES == np.arange(CLASSES)
    return {
        "zero": (np.zeros_like(base),),
        "huge": (np.where(base > 0, 1e4, -1e4).astype(np.float32),),
        "far up": (base + np.float32(1e4),),
        "certain": (np.where(one, 40, 0).astype(np.float32),),
        "wrong by 1e4": (np.where(one, -1e4, 0).astype(np.float32),),
        "a class ruled out": (np.where(one, -np.inf, base),),
        "all but one ruled out": (np.where(one, base, -np.inf),),
        "identical": (np.tile(base[:1], (8, 1)),),
    }


rows = Inputs(
    make=lambda batch: (_rows(batch),),
    batched=(True,),
    edges=_edges,
    sharded=(("model",),),
)


def contracted(out):
    """[*batch, classes] to [*batch], by weights 1 + cos i; -inf counts nothing."""
    iota = jax.lax.broadcasted_iota(jnp.float32, out.shape, out.ndim - 1)
    out = at_least_f32(jnp.where(out > -jnp.inf, out, 0))
    return jnp.sum(out * (1 + jnp.cos(iota)).astype(out.dtype), axis=-1)


def _call(fn, data, kwargs):
    """A masked row is one where no class takes part."""
    x = jnp.asarray(data[0])
    where, rest = kwargs["where"], {k: v for k, v in kwargs.items() if k != "where"}
    classes = None if where is None else blank(jnp.full_like(x, True, bool), where)
    out = fn(x, where=classes, **rest)
    return blank(contracted(out) if out.ndim == x.ndim else out, where)


BAD = [{"implementation": "cuda"}]

CASES = [
    Case(
        kernels.softmax,
        rows,
        call=_call,
        limits=[("jax.nn", lambda x: contracted(jax.nn.softmax(x)), {})],
        bad=BAD,
        bf16_rtol=2**-8,
    ),
    Case(
        kernels.softmax,
        rows,
        static={"two_pass": True},
        call=_call,
        limits=[("jax.nn", lambda x: contracted(jax.nn.softmax(x)), {})],
        bf16_rtol=2**-8,
        name="two_pass",
    ),
    Case(
        kernels.log_softmax,
        rows,
        call=_call,
        limits=[("jax.nn", lambda x: contracted(jax.nn.log_softmax(x)), {})],
        bad=BAD,
        bf16_rtol=2**-8,
    ),
    Case(
        kernels.logsumexp,
        rows,
        call=_call,
        limits=[("jax.nn", lambda x: jax.nn.logsumexp(x, axis=-1), {})],
        bad=BAD,
    ),
    Case(kernels.ext_exp, kind="own", tests="tests/kernels/test_softmax.py"),
    Case(kernels.ext_add, kind="own", tests="tests/kernels/test_softmax.py"),
]
