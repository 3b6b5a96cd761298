"""Derivative rules against closed forms and recursions by hand, in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtricks import metagrad
from tests import oracles as oracle
from tests.case import Golden
from tests.metagrad.golden import AIM, MOMENTUM, RATE, weights


def f64(run):
    """A pick that runs something in float64, and lays its arrays end to end."""

    def pick(_):
        with jax.enable_x64(True):
            leaves = jax.tree.leaves(jax.jit(run)())
            return np.concatenate([np.ravel(leaf) for leaf in leaves])

    return pick


def wide(x):
    return jnp.asarray(x, jnp.float64)


def row(fn, args, kwargs, expect, origin, run, rtol=1e-12):
    expect = np.concatenate([np.ravel(part) for part in expect])
    return Golden(fn, args, kwargs, expect, origin, f64(run), rtol=rtol, atol=1e-14)


# --- mixed: softmax regression, its Hessian and its examples' gradients ---------------

DESIGN = np.concatenate([np.ones((5, 1)), oracle.X], axis=1).astype(np.float64)
THETA = np.concatenate([oracle.B[None], oracle.W]).astype(np.float64)
ALONG = np.random.default_rng(40).normal(size=(4, 3))
EXAMPLES = np.random.default_rng(41).uniform(0.2, 2, size=5)


def regression(theta, examples):
    """What `oracle.regression_gradient` is the gradient of, with the bias on top."""
    logits = jnp.asarray(DESIGN) @ theta
    losses = jax.nn.logsumexp(logits, axis=-1) - logits[np.arange(5), oracle.Y]
    return jnp.mean(examples * losses)


def pulled():
    """<g, v>'s gradient in theta, H v, and in the examples; g; each loss."""
    p = oracle.softmax(DESIGN @ THETA)
    each = DESIGN[:, :, None] * (p - oracle.one_hot(oracle.Y, 3))[:, None, :] / 5
    middle = EXAMPLES[:, None] * np.einsum("ncd,nd->nc", curve(p), DESIGN @ ALONG) / 5
    losses = -oracle.log_softmax(DESIGN @ THETA)[np.arange(5), oracle.Y] / 5
    gradient = np.einsum("n,nij->ij", EXAMPLES, each)
    return DESIGN.T @ middle, np.einsum("nij,ij->n", each, ALONG), gradient, losses


def curve(p):
    return p[:, :, None] * np.eye(3) - p[:, :, None] * p[:, None, :]


def mixed_row(has_value):
    by_theta, by_examples, gradient, losses = pulled()
    if has_value:
        by_theta, by_examples = by_theta + 0.7 * gradient, by_examples + 0.7 * losses

    def run():
        base = (jax.value_and_grad if has_value else jax.grad)(regression)

        def outer(theta, examples):
            result = metagrad.mixed(base, has_value=has_value)(theta, examples)
            value, grads = result if has_value else (0.0, result)
            return jnp.sum(wide(ALONG) * grads) + 0.7 * value

        return jax.grad(outer, argnums=(0, 1))(wide(THETA), wide(EXAMPLES))

    expect = by_theta, by_examples
    origin = "numpy f64 Hessian of softmax regression by hand, arXiv:2505.00793"
    args = (jax.value_and_grad if has_value else jax.grad)(regression)
    return row(metagrad.mixed, (args,), {"has_value": has_value}, expect, origin, run)


# --- truncated: w' = w - r (w^3 - x), y = q w'^2 --------------------------------------

XS = np.random.default_rng(42).normal(size=11)


def truncated_by_hand(window, start=0.4, rate=0.1, q=0.3, aim=0.2):
    w = [start]
    for x in XS:
        w.append(w[-1] - rate * (w[-1] ** 3 - x))
    steps, by_x = len(XS), np.zeros(len(XS))
    bar = w[-1] - aim
    for t in reversed(range(steps)):
        bar += 2 * q * w[t + 1]
        by_x[t] = rate * bar
        cut = t > 0 and (steps - t) % window == 0
        bar = 0.0 if cut else bar * (1 - 3 * rate * w[t] ** 2)
    return by_x, bar


def truncated_row(window, **kwargs):
    def run():
        def outer(xs, start):
            def step(w, x):
                w = w - 0.1 * (w**3 - x)
                return w, 0.3 * w**2

            w, ys = metagrad.truncated(step, start, xs, window=window, **kwargs)
            return (w - 0.2) ** 2 / 2 + jnp.sum(ys)

        return jax.grad(outer, argnums=(0, 1))(wide(XS), wide(0.4))

    origin = "numpy f64 adjoint recursion, cut; arXiv:1810.10667"
    args = (lambda c, x: (c + x, None), 0.0, np.ones(2, np.float32))
    settings = {"window": window, **kwargs}
    expect = truncated_by_hand(window)
    return row(metagrad.truncated, args, settings, expect, origin, run)


# --- implicit: ridge regression in closed form ----------------------------------------

_rng = np.random.default_rng(79)
RIDGE_X = _rng.normal(size=(6, 3)).astype(np.float32).astype(np.float64)
RIDGE_Y = _rng.normal(size=6).astype(np.float32).astype(np.float64)
PENALTY = 0.3  # its logarithm
HESSIAN = RIDGE_X.T @ RIDGE_X + np.exp(PENALTY) * np.eye(3)
RIDGE = np.linalg.solve(HESSIAN, RIDGE_X.T @ RIDGE_Y)
KEY = 3  # of the columns that Nyström looks at
# jaxopt 0.8.5, implicit_diff.custom_root: d w / d PENALTY, d |w|^2 / d y
JAXOPT = oracle.numbers(
    """0.10775855 -0.10003523 -0.43607272
    0.05713097 0.28171222 -0.01640417 -0.32888585 0.40513289 -0.30437078"""
)


def ridge(solve, **kwargs):
    def solution(penalty, y):
        x = jnp.asarray(RIDGE_X)
        matrix = x.T @ x + jnp.exp(penalty) * jnp.eye(3)
        return jnp.linalg.solve(matrix, x.T @ y)

    def optimality(w, penalty, y):
        x = jnp.asarray(RIDGE_X)
        return x.T @ (x @ w - y) + jnp.exp(penalty) * w

    return metagrad.implicit(solution, optimality, solve=solve, **kwargs)


def inverse(solve, **kwargs):
    """What stands for the inverse of the Hessian."""
    damped = HESSIAN + kwargs.get("damping", 0) * np.eye(3)
    if solve == "neumann":
        left = np.eye(3) - kwargs["rate"] * damped
        powers = [np.linalg.matrix_power(left, k) for k in range(kwargs["steps"])]
        return kwargs["rate"] * sum(powers)
    if solve == "nystrom":
        chosen = jax.random.choice(
            jax.random.key(KEY), 3, (kwargs["rank"],), replace=False
        )
        columns = HESSIAN[:, np.asarray(chosen)]
        low = columns @ np.linalg.inv(columns[np.asarray(chosen)]) @ columns.T
        return np.linalg.inv(low + kwargs["damping"] * np.eye(3))
    return np.linalg.inv(damped)


def implicit_row(solve, origin="numpy f64 closed form", expect=None, **kwargs):
    matrix = inverse(solve, **kwargs)
    if expect is None:
        expect = -np.exp(PENALTY) * matrix @ RIDGE, 2 * RIDGE_X @ matrix.T @ RIDGE
    papers = {"neumann": "1911.02590", "nystrom": "2302.09726"}
    origin = f"{origin}, arXiv:{papers.get(solve, '2105.15183')}"

    def run():
        settings = dict(kwargs)
        if solve == "nystrom":
            settings["key"] = jax.random.key(KEY)
        if solve in ("cg", "gmres"):
            settings["tol"] = 1e-14
        f = ridge(solve, **settings)
        z, y = wide(PENALTY), wide(RIDGE_Y)
        forward = jax.jvp(lambda z: f(z, y), (z,), (jnp.ones_like(z),))[1]
        return forward, jax.grad(lambda y: jnp.sum(f(z, y) ** 2))(y)

    args = (lambda z: z**0.5, lambda w, z: w**2 - z)
    settings = dict(kwargs) | {"solve": solve}
    if solve == "nystrom":
        settings["key"] = jax.random.key(KEY)
    rtol = 2e-7 if expect is JAXOPT else 1e-10
    if expect is JAXOPT:
        expect = (JAXOPT,)
    return row(metagrad.implicit, args, settings, expect, origin, run, rtol)


# --- forward mode, hypergradients -----------------------------------------------------


def unrolled(forward, steps=7):
    """The derivative of sum (params_T - AIM)^2 / 2 in (rate, momentum)."""
    examples = weights(steps)
    value, _, by_rates, _ = oracle.unrolled(examples, RATE, MOMENTUM, AIM, 0.0)
    origin = "numpy f64 adjoint recursion, checked with torch 2.13.0, arXiv:1806.04910"

    def step(carry, examples, rates):
        (table, speed), (rate, momentum) = carry, rates
        error = jax.nn.softmax(jnp.asarray(DESIGN) @ table) - np.eye(3)[oracle.Y]
        speed = momentum * speed + jnp.asarray(DESIGN).T @ (
            examples[:, None] * error / 5
        )
        return (table - rate * speed, speed), None

    def start():
        return (wide(THETA), jnp.zeros((4, 3), jnp.float64))

    rates = (RATE, MOMENTUM)
    if forward == "unroll":

        def run():
            given = tuple(map(wide, rates))
            found = metagrad.unroll(step, start(), wide(examples), given)
            (table, _), (by_table, _) = found
            along = [jnp.sum((table - AIM) * z) for z in by_table]
            return jnp.sum((table - AIM) ** 2) / 2, along

        args = (lambda c, x, z: (c + z * x, None), 0.0, np.ones(2, np.float32), 0.5)
        other = f"{origin}, arXiv:1703.01785"
        return row(metagrad.unroll, args, {}, ([value], by_rates), other, run)

    def run():
        def outer(carry, rates):
            del rates
            return jnp.sum((carry[0] - AIM) ** 2) / 2

        given = tuple(map(wide, rates))
        setting = {"mode": forward}
        xs = wide(examples)
        return metagrad.hypergradient(outer, step, start(), xs, given, **setting)

    args = (
        lambda c, z: c * z,
        lambda c, x, z: (c + z * x, None),
        0.0,
        np.ones(2, np.float32),
        0.5,
    )
    settings = {"mode": forward}
    expect = [value], by_rates
    return row(metagrad.hypergradient, args, settings, expect, origin, run)


def multi_step_row(weights):
    """w <- (1 - r) w from 1: E_n = (1 - r)^2n, and its slope in r."""
    n, rate = np.arange(1, 4), 0.3
    mix = np.full(3, 1 / 3) if weights is None else np.asarray(weights)
    value = mix @ (1 - rate) ** (2 * n)
    slope = mix @ (-2 * n * (1 - rate) ** (2 * n - 1))

    def run():
        def loss(rate):
            return metagrad.multi_step(
                lambda w, x, rate: w**2,
                lambda w, x, rate: (w - rate * w, None),
                wide(1.0),
                None,
                rate,
                length=3,
                weights=None if weights is None else wide(weights),
            )

        return jax.value_and_grad(loss)(wide(rate))

    args = (lambda w, x, z: w, lambda w, x, z: (w * z, None), 1.0, None, 0.5)
    settings = {"length": 3}
    if weights is not None:
        settings["weights"] = np.float32(weights)
    origin = "by hand, of arXiv:2111.00206's mixture"
    expect = [value], [slope]
    return row(metagrad.multi_step, args, settings, expect, origin, run)


# --- evolution strategies, with the noise that the key gives --------------------------


def normals(key, pairs, shape):
    """As `es` and `pes` draw them for one leaf."""
    keys = jax.random.split(key, pairs)
    draws = [jax.random.normal(jax.random.split(k, 1)[0], shape) for k in keys]
    return np.asarray(draws, np.float64)


def es_row(sigma, pairs):
    def f(x):
        return np.sin(x[0]) * x[1] ** 2

    x = np.array([0.3, -0.8])
    noise = normals(jax.random.key(5), pairs, (2,))
    up = np.array([f(x + sigma * e) for e in noise])
    down = np.array([f(x - sigma * e) for e in noise])
    grads = np.mean(((up - down) / (2 * sigma))[:, None] * noise, axis=0)
    expect = np.concatenate([[np.mean(up + down) / 2], grads])
    args = (lambda x: jnp.sin(x[0]) * x[1] ** 2, jnp.float32(x))
    kwargs = {"key": jax.random.key(5), "pairs": pairs}
    if sigma != 0.01:
        kwargs["sigma"] = sigma
    origin = "numpy f64 oracle, arXiv:1703.03864 alg. 1 with antithetic pairs"

    def pick(result):
        return np.concatenate([np.ravel(leaf) for leaf in result])

    rtol = 1e-4 if sigma == 0.01 else 1e-5  # a difference of f32 over 0.02
    return Golden(metagrad.es, args, kwargs, expect, origin, pick, rtol=rtol)


def pes_row(persistent, sigma=0.1, pairs=3, rate=0.8):
    """Two windows of w <- rate w + sum of two x, then a third of which run 1 is new."""

    def window(w, x):
        w = rate * w + x[0]
        return w, (w - 1) ** 2 * np.cos(x[1])

    x, expect = np.array([0.4, 0.2]), []
    w, drift = np.zeros((2, pairs)), np.zeros((pairs, 2))
    for turn in range(3):
        if turn == 2:
            w[:, 1], drift[1] = 0.5, 0
        noise = sigma * normals(jax.random.key(turn), pairs, (2,))
        drift = drift + noise if persistent else noise
        losses = np.zeros((2, pairs))
        for side, sign in enumerate((1, -1)):
            for i in range(pairs):
                moved = window(w[side, i], x + sign * noise[i])
                w[side, i], losses[side, i] = moved
        slope = (losses[0] - losses[1]) / (2 * sigma**2)
        expect += [np.mean(losses), *np.mean(slope[:, None] * drift, axis=0)]

    def run_window(w, x, data):
        w = rate * w + x[0]
        return w, (w - 1) ** 2 * jnp.cos(x[1])

    def pick(tuner):
        given, found = jnp.array(x, jnp.float32), []
        state = tuner.init(given, jnp.zeros(pairs))
        for turn in range(3):
            new = None
            if turn == 2:
                new = jnp.arange(pairs) == 1, jnp.full(pairs, 0.5)
            key = jax.random.key(turn)
            value, grads, state = tuner.update(given, state, key=key, restart=new)
            found += [[value], grads]
        return np.concatenate(found)

    kwargs = {"pairs": pairs, "sigma": sigma, "persistent": persistent}
    origin = "numpy f64 oracle of arXiv:2112.13835"
    return Golden(
        metagrad.pes, (run_window,), kwargs, expect, origin, pick, rtol=2e-5, atol=1e-5
    )


ROWS = [
    mixed_row(False),
    mixed_row(True),
    *(truncated_row(window) for window in (1, 4, 11, 40)),
    truncated_row(4, policy="step"),
    implicit_row("cg"),
    implicit_row("cg", "jaxopt 0.8.5", JAXOPT),
    implicit_row("cg", damping=0.7),
    implicit_row("gmres", damping=0.7),
    implicit_row("exact"),
    implicit_row("exact", damping=0.7),
    implicit_row("neumann", steps=4, rate=0.05),
    implicit_row("neumann", steps=1, rate=0.05, damping=0.7),
    implicit_row("nystrom", rank=2, damping=0.7),
    implicit_row("nystrom", rank=3, damping=0.1),
    *(unrolled(mode) for mode in ("unroll", "forward", "reverse")),
    *(multi_step_row(mix) for mix in (None, [0.0, 0.0, 1.0], [0.5, 0.3, 0.1])),
    es_row(0.01, 3),
    es_row(0.5, 2),
    pes_row(True),
    pes_row(False),
    Golden(
        metagrad.finite_difference,
        (lambda x: x[0] ** 3 * x[1], np.array([1.5, 2.0], np.float32)),
        {"eps": 0.25},
        [(3 * 1.5**2 + 0.25**2) * 2.0, 1.5**3],
        "by hand: a cubic's difference",
    ),
    Golden(
        metagrad.finite_difference,
        (lambda x: x["a"] ** 2 / 2 + 3 * x["b"], {"a": 4.0, "b": 1.0}),
        {},
        [4.0, 3.0],
        "by hand: exact for a quadratic",
        lambda found: np.array([found["a"], found["b"]]),
        rtol=1e-4,
    ),
]
