"""SAM and ASAM: trajectories of the authors' code, of others' and of an oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtricks.sharpness import complete, sam
from tests import oracles as oracle
from tests.case import Golden

ORACLE = "numpy f64 oracle of arXiv:2010.01412 eq. 2"
ADAPTIVE = "numpy f64 oracle of arXiv:2102.11600 eq. 8, arXiv:2010.01412"
PARAMS = {"b": oracle.B, "w": oracle.W}


def loss_fn(params):
    log_p = jax.nn.log_softmax(oracle.X @ params["w"] + params["b"][None])
    return -jnp.mean(jnp.sum(log_p * np.eye(3, dtype=np.float32)[oracle.Y], axis=-1))


def train(tx, params=PARAMS, steps=3):
    """Parameters, flat, after steps of SGD with momentum behind `tx`."""
    tx = optax.chain(tx, optax.sgd(0.5, momentum=0.9))
    grad_fn = jax.grad(loss_fn)

    @jax.jit
    def step(carry, _):
        params, state = carry
        updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
        return (optax.apply_updates(params, updates), state), None

    params = jax.tree.map(jnp.asarray, params)
    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=steps)
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])


def _row(expect=None, origin=ORACLE, **kwargs):
    if expect is None:
        expect = oracle.sam_train(**kwargs)
    return Golden(sam, (), kwargs, expect, origin, train)


def point(tx):
    """w + e at w = 1 for the gradient (3, -4, 0): this grad_fn gives its own point."""
    params, grads = {"w": jnp.ones(3)}, {"w": jnp.array([3.0, -4.0, 0.0])}
    updates, _ = tx.update(grads, tx.init(params), params, grad_fn=lambda p: p)
    return updates["w"]


def at_rest(tx):
    """The update at a zero gradient is the gradient at w itself."""
    params = {"w": jnp.asarray(oracle.W)}
    flat = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(flat, tx.init(params), params, grad_fn=lambda p: p)
    return updates["w"]


def slope(tx):
    """d update / d gradient at (3, 4, 0), for the loss |w|^2 / 2."""
    params = jnp.ones(3)

    def update(grads):
        return tx.update(grads, tx.init(params), params, grad_fn=lambda p: p)[0]

    return jax.jit(jax.jacrev(update))(jnp.array([3.0, 4.0, 0.0]))


def part(completed):
    """The weights' gradient at shifted weights; the biases stay at PARAMS'."""
    grads = completed({"b": optax.MaskedNode(), "w": jnp.asarray(0.5 * oracle.W)})
    assert isinstance(grads["b"], optax.MaskedNode)
    return grads["w"]


# Three steps of torch's SGD(lr=0.5, momentum=0.9) in float64: b, then w.
DAVDA54 = "davda54/sam@3c3afdb, arXiv:2010.01412"
DAVDA54_SAM = [0.2310662528, -0.3227895695, -0.3653253378, 0.2665958949]
DAVDA54_SAM += [-0.1337807991, -0.8337065011, 0.5786172057, -0.1938564288]
DAVDA54_SAM += [-1.199355821, -0.4183995395, 0.420001195, -1.297221508]
DAVDA54_ADAPTIVE = [0.2088616799, -0.3132381431, -0.3526721913, 0.2610281957]
DAVDA54_ADAPTIVE += [-0.1131104584, -0.8488091426, 0.574541556, -0.2074338507]
DAVDA54_ADAPTIVE += [-1.181702749, -0.4093245193, 0.4062514171, -1.292546751]
ASAM = "SamsungLabs/ASAM@f156a68, arXiv:2102.11600"
ASAM_HALF = [0.2436027988, -0.3743302696, -0.3263211838, 0.2692319915]
ASAM_HALF += [-0.1220083887, -0.8481150082, 0.5618548005, -0.2217990361]
ASAM_HALF += [-1.154650808, -0.4181998216, 0.3746588328, -1.252078864]
ASAM_ETA = [0.2626697854, -0.3699284569, -0.349789983, 0.277724585]
ASAM_ETA += [-0.09087298311, -0.8877430072, 0.5835683786, -0.2011242252]
ASAM_ETA += [-1.197039197, -0.4072042443, 0.3947863145, -1.283201923]
NOT_BIASES = {"b": False, "w": True}

_SIZE = (3**1.5 + 8) ** (1 / 3)
_PROJECTION = [[0.064, -0.048, 0.0], [-0.048, 0.036, 0.0], [0.0, 0.0, 0.1]]

ROWS = [
    _row(),
    _row(rho=0.3),
    _row(DAVDA54_SAM, DAVDA54, rho=0.3),
    _row(DAVDA54_ADAPTIVE, DAVDA54, rho=0.7, adaptive=True, eta=0.0),
    _row(rho=0.3, p=3.0),
    _row(rho=0.3, p=1.5),
    _row(rho=0.1, p=np.inf),
    _row(rho=np.float32(0.3), p=np.float32(2)),
    _row(rho=0.5, adaptive=True, origin=ADAPTIVE),
    _row(rho=0.4, adaptive=True, p=4.0, eta=0.2, origin=ADAPTIVE),
    _row(rho=0.2, adaptive=True, p=np.inf, eta=0.2, origin=ADAPTIVE),
    _row(ASAM_HALF, ASAM, rho=0.5, adaptive=NOT_BIASES),
    _row(ASAM_ETA, ASAM, rho=0.7, adaptive=NOT_BIASES, eta=0.1),
    # 1 + 0.5 sign(g) |g|^(q-1) / (sum |g|^q)^(1/p), q = 2, 2, 3/2, 1, 1.
    *(
        Golden(sam, (0.5,), {"p": p}, expect, ORACLE, point)
        for p, expect in (
            (2, [1.3, 0.6, 1.0]),
            (np.float32(2), [1.3, 0.6, 1.0]),
            (3.0, [1 + 0.5 * 3**0.5 / _SIZE, 1 - 1 / _SIZE, 1.0]),
            (np.inf, [1.5, 0.5, 1.0]),
            (np.float32(np.inf), [1.5, 0.5, 1.0]),
        )
    ),
    *(
        Golden(sam, (), {"p": p, "adaptive": adaptive}, oracle.W, ORACLE, at_rest)
        for p, adaptive in ((2, False), (3.0, True), (np.inf, False))
    ),
    # 0.5 (I - u u') / |g| with u = g / |g|: also at the entry that is 0.
    *(
        Golden(sam, (0.5,), {"p": p}, _PROJECTION, ORACLE, slope, atol=1e-8)
        for p in (2, np.float32(2))
    ),
    Golden(
        complete,
        (jax.grad(loss_fn), PARAMS),
        {},
        oracle.regression_gradient(
            {"w": 0.5 * oracle.W.astype(np.float64), "b": oracle.B.astype(np.float64)}
        )["w"],
        "numpy f64 oracle: the gradient of softmax regression",
        part,
    ),
]
