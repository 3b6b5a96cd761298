"""AdamR after three steps: the authors' code in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtricks import optimizers
from tests.case import Golden

_rng = np.random.default_rng(78)


def _draw(scale=1.0, around=None):
    shapes = {"b": (3,), "w": (2, 3)}
    tree = {k: scale * _rng.normal(size=s) for k, s in shapes.items()}
    return {k: x + (0 if around is None else around[k]) for k, x in tree.items()}


_EXACT = _draw()
_START = _draw(0.2, _EXACT)
PRETRAINED, START = (
    {k: x.astype(np.float32) for k, x in tree.items()} for tree in (_EXACT, _START)
)
GRADS = [{k: x.astype(np.float32) for k, x in _draw().items()} for _ in range(3)]
ORIGIN = "vengdeng/DAREx@0873fc2 AdamR in float64, arXiv:2410.09344"


def _run(tx):
    """The parameters after the three gradients."""
    params = jax.tree.map(jnp.asarray, START)
    state = tx.init(params)
    for grads in GRADS:
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(params)])


def _row(fn, expect, pick=_run, **kwargs):
    kwargs = {"pretrained": PRETRAINED, **kwargs}
    return Golden(fn, (), kwargs, expect, ORIGIN, pick, rtol=3e-6, atol=1e-6)


def _stepped(tx):
    return _run(optax.chain(tx, optax.scale(-0.1)))


_DEFAULT = [
    -0.772891919,
    0.500408244,
    -0.20491917,
    -1.04234682,
    0.936759485,
    -0.00749789677,
    0.248942882,
    0.820760143,
    2.80972033,
]
_L1 = [
    -0.699882268,
    0.368200939,
    -0.31842774,
    -1.18681917,
    0.657515703,
    -0.383353877,
    0.196293483,
    0.684148667,
    2.44308335,
]
_L2 = [
    -0.774387724,
    0.390541364,
    -0.296887627,
    -1.21653486,
    0.723407874,
    -0.316138229,
    0.268932273,
    0.651001337,
    2.51390652,
]

ROWS = [
    _row(optimizers.adamr, _DEFAULT),
    _row(
        optimizers.adamr,
        _L1,
        learning_rate=0.1,
        weight_decay=0.2,
        norm="l1",
        b1=0.8,
        b2=0.95,
        eps=1e-3,
    ),
    _row(optimizers.scale_by_adamr, _L2, _stepped, weight_decay=0.2, b1=0.8, b2=0.95),
]
