"""Replays by hand in float64, costs counted by hand, checks of closed forms."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtricks.metagrad import check, metasmoothness, plan, replay
from tests import oracles as oracle
from tests.case import Golden
from tests.metagrad.golden import AIM, MOMENTUM, ORIGIN, RATE, READOUT, weights

DESIGN = np.concatenate([np.ones((5, 1)), oracle.X], axis=1)


# --- replay ---------------------------------------------------------------------------


def regression(state, t, wrt):
    """What `oracle.unrolled` does in a step; its readout is summed in the state."""
    table, speed, read = state
    rate, momentum = wrt["rates"]
    error = jax.nn.softmax(DESIGN @ table) - np.eye(3)[oracle.Y]
    speed = momentum * speed + DESIGN.T @ (wrt["weights"][t][:, None] * error) / 5
    table = table - rate * speed
    return (table, speed, read + READOUT * (t + 1) * jnp.sum(table)), None


def objective(state, wrt):
    del wrt
    return jnp.sum(jnp.square(state[0] - AIM)) / 2 + state[2]


def _replay(steps, **kwargs):
    """The objective and its gradients in example weights, rates and the start, flat."""
    value, by_weights, by_rates, by_start = oracle.unrolled(
        weights(steps), RATE, MOMENTUM, AIM, READOUT
    )
    expect = np.concatenate([[value], by_weights.ravel(), by_rates, by_start])

    def pick(_):
        with jax.enable_x64(True):
            table = jnp.concatenate([oracle.B[None], oracle.W]).astype(jnp.float64)
            state = (table, jnp.zeros_like(table), jnp.float64(0))
            rates = jnp.array([RATE, MOMENTUM])
            wrt = {"weights": jnp.asarray(weights(steps)), "rates": rates}
            got = replay(regression, state, range(steps), objective, wrt, **kwargs)
            grads = (got.grad["weights"], got.grad["rates"], got.grad_state[0])
            return np.concatenate([np.ravel(part) for part in (got.value, *grads)])

    def step(state, x, wrt):
        return state * wrt + x, None

    args = (step, 1.0, [1.0], lambda state, wrt: state * wrt, 0.5)
    return Golden(replay, args, kwargs, expect, ORIGIN, pick, rtol=1e-12, atol=1e-12)


# --- plan -----------------------------------------------------------------------------


def _plan(steps, expect, **kwargs):
    """(carries, steps run) of each policy."""

    def pick(found):
        return [(c.carries, c.evaluations) for c in found.costs]

    args = (lambda c, _: (c * c, None), np.ones(3, np.float32))
    kwargs = {"length": steps, **kwargs}
    return Golden(plan, args, kwargs, expect, "by hand", pick)


# none, step, offload, sqrt (8 of 8), replay with k = 2 (2 x 2 x 2 x 2 x 2 x 2), ...
EVEN = [(0, 64), (64, 128), (64, 128), (16, 192), (12, 448), (12, 256), (16, 192)]
# 63 = 9 x 7 for sqrt; 63 = 7 x 9 and 9 = 4 x 2 + 1 for k = 4: 7 + 4 + 2 carries, and
# of each 9 steps run again 8 and their 8 and 16 for gradients, and 2 for the odd one.
ODD = [(0, 63), (63, 126), (63, 126), (16, 189), (13, 63 + 7 * (8 + 16 + 2))]


# --- metasmoothness and check ---------------------------------------------------------

_rng = np.random.default_rng(7)
WAVES = _rng.uniform(1, 6, size=(4, 3)).astype(np.float32)
AT, ALONG = np.array([0.2, -0.3, 0.5], np.float32), np.array([1, -0.5, 2], np.float32)


def waves(x):
    return {"a": jnp.sin(WAVES @ x), "b": jnp.cos(WAVES @ x)[:2], "n": 3}


def _smooth(**kwargs):
    h = kwargs.get("h", 0.1)
    at, along, table = (np.asarray(a, np.float64) for a in (AT, ALONG, WAVES))

    def train(x):
        return np.concatenate([np.sin(table @ x), np.cos(table @ x)[:2]])

    zero, one, two = (train(at + n * h * along) for n in range(3))
    moved = np.abs(two - zero)
    moved = moved / moved.sum()
    expect = np.sign((one - zero) / h) @ np.diag(moved) @ np.sign((two - one) / h)
    origin = (
        "numpy f64 oracle of arXiv:2503.13751 Definition 2, as EleutherAI/bergson's"
    )
    return Golden(metasmoothness, (waves, AT, ALONG), kwargs, expect, origin, rtol=1e-5)


def _check(**kwargs):
    """sum x^3 / 3 at 2: <grad, v> = 4 sum v, and differences add h^2 sum v^3 / 3, where
    v is 2 or -2, so that v^3 is 4 v.
    """
    more = np.array(kwargs.get("steps", (1e-2, 1e-3))) ** 2 / 3

    def pick(_):
        with jax.enable_x64(True):
            x, key = jnp.full(3, 2.0), jax.random.key(1)
            steps = {k: v for k, v in kwargs.items() if k == "steps"}
            found = check(lambda x: jnp.sum(x**3) / 3, x, key=key, **steps)
            return [*found.errors[0], *(found.differences[0] / found.slopes[0])]

    expect = [*(more / (1 + more)), *(1 + more)]
    args = (lambda x: x**2, 1.0)
    origin = "closed form of a cubic; arXiv:2503.13751 Definition 1"
    kwargs = {"key": np.array([0, 1], np.uint32), **kwargs}
    return Golden(check, args, kwargs, expect, origin, pick, rtol=1e-5)


ROWS = [
    _replay(7, segment=2, branching=2),
    _replay(7),
    _replay(13, segment=1, branching=3),
    _plan(64, EVEN),
    _plan(63, ODD, branching=[4]),
    _smooth(),
    _smooth(h=0.4),
    _check(),
    _check(steps=(0.1, 0.05, 0.01)),
]
