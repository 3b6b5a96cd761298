"""Unrolled training and its gradients, by hand in float64, under every policy."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtricks.metagrad import scan
from tests import oracles as oracle
from tests.case import Golden

ORIGIN = "numpy f64 adjoint recursion of arXiv:2503.13751, checked with torch 2.13.0"
RATE, MOMENTUM, AIM, READOUT = 0.4, 0.8, 0.3, 0.2
SETTINGS = ({"policy": "step"}, {"policy": "sqrt"}, {}, {"branching": 2})


def weights(steps):
    return np.random.default_rng(9).uniform(0.2, 2, size=(steps, 5))


def objective(weights, rates, table, **kwargs):
    """What `oracle.unrolled` trains and measures."""
    rate, momentum = rates
    design = np.concatenate([np.ones((5, 1)), oracle.X], axis=1)

    def step(carry, weights):
        table, speed = carry
        error = jax.nn.softmax(design @ table) - np.eye(3)[oracle.Y]
        speed = momentum * speed + design.T @ (weights[:, None] * error) / 5
        table = table - rate * speed
        return (table, speed), jnp.sum(table)

    (table, _), sums = scan(step, (table, jnp.zeros_like(table)), weights, **kwargs)
    if kwargs.get("reverse"):
        sums = sums[::-1]
    ramp = READOUT * jnp.arange(1, len(sums) + 1, dtype=table.dtype)
    return jnp.sum(jnp.square(table - AIM)) / 2 + jnp.sum(ramp * sums)


def _gradients(steps, **kwargs):
    """The objective and its gradients in example weights, rates and the start, flat."""
    order = -1 if kwargs.get("reverse") else 1
    value, by_weights, by_rates, by_start = oracle.unrolled(
        weights(steps)[::order], RATE, MOMENTUM, AIM, READOUT
    )
    parts = [[value], by_weights[::order].ravel(), by_rates, by_start]

    def pick(_):
        with jax.enable_x64(True):
            start = jnp.concatenate([oracle.B[None], oracle.W]).astype(jnp.float64)
            rates = jnp.array([RATE, MOMENTUM])
            run = jax.value_and_grad(objective, argnums=(0, 1, 2))
            value, grads = jax.jit(lambda *args: run(*args, **kwargs))(
                jnp.asarray(weights(steps)), rates, start
            )
            return np.concatenate([np.ravel(part) for part in (value, *grads)])

    args = (lambda carry, x: (carry + x, None), 0.0, np.ones(2, np.float32))
    expect = np.concatenate(parts)
    return Golden(scan, args, kwargs, expect, ORIGIN, pick, rtol=1e-12, atol=1e-12)


def _values(steps, **kwargs):
    """carry and ys of a linear recursion: c' = c / 2 + x, y = 3 c + x."""
    xs = np.arange(1.0, steps + 1).astype(np.float32)
    order = -1 if kwargs.get("reverse") else 1
    carry, ys = 0.75, []
    for x in xs[::order]:
        ys.append(3 * carry + x)
        carry = carry / 2 + x
    expect = np.array([carry, *ys[::order]])
    args = (lambda c, x: (c / 2 + x, 3 * c + x), jnp.float32(0.75), xs)

    def pick(result):
        return np.concatenate([np.ravel(leaf) for leaf in result])

    return Golden(scan, args, kwargs, expect, "by hand, arXiv:2503.13751", pick)


def _nested(steps, expect, **kwargs):
    """How T steps are cut: this is the memory that a gradient takes."""

    def run(carry):
        return scan(lambda c, _: (c / 2, None), carry, length=steps, **kwargs)[0]

    def pick(_):
        return oracle.scans(jax.make_jaxpr(run)(1.0))

    args = (lambda carry, x: (carry + x, None), 0.0, np.ones(2, np.float32))
    origin = "by hand: the k-ary tree of arXiv:2503.13751"
    return Golden(scan, args, kwargs, expect, origin, pick)


ROWS = [
    *(_gradients(7, **setting) for setting in ({"policy": "none"}, *SETTINGS)),
    _gradients(13, policy="sqrt"),
    _gradients(13, branching=3, unroll=2),
    _gradients(7, reverse=True, branching=2),
    _gradients(1),
    *(_values(n, **setting) for n in (0, 1, 5, 16) for setting in SETTINGS),
    *(_values(11, reverse=True, **setting) for setting in SETTINGS),
    _values(5, policy="none", reverse=True),
    _nested(64, [[64, 1]], policy="none"),
    _nested(64, [[64, 1]], policy="step"),
    _nested(64, [[8, 1], [8, 1]], policy="sqrt"),
    _nested(37, [[9, 1], [4, 1], [1, 1]], policy="sqrt"),
    _nested(64, [[4, 1], [4, 1], [4, 3]], unroll=3),
    _nested(64, [[4, 1], [4, 1], [4, 1]]),
    _nested(64, [[2, 1]] * 6, branching=2),
    # Odd steps: 66 = 6 * 11, 11 = 5 * 2 + 1; 8 = 4 * 2 is still cut, 7 is not.
    _nested(66, [[6, 1], [5, 1], [2, 1], [1, 1]]),
    _nested(8, [[4, 1], [2, 1]]),
    _nested(7, [[7, 1]]),
    # 128 steps in halves would nest 7 levels: more parts instead.
    _nested(128, [[4, 1], [4, 1], [4, 1], [2, 1]], branching=2),
    Golden(
        scan,
        (lambda c, _: (2 * c, c), 1, None),
        {"length": 5},
        [32, 1, 2, 4, 8, 16],
        "by hand, arXiv:2503.13751",
        lambda result: np.concatenate([np.ravel(leaf) for leaf in result]),
    ),
]
