"""Data by meta-gradient: recursions by hand, brute force, closed forms in float64."""

from itertools import permutations
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtricks import metagrad
from tests import oracles as oracle
from tests.case import Golden
from tests.metagrad.golden import MOMENTUM, RATE
from tests.metagrad.golden_derivatives import row, wide

# --- magic: softmax regression by SGD with momentum, 5 examples, some in each batch ---

_rng = np.random.default_rng(121)
BATCHES = (_rng.random((7, 5)) < 0.6).astype(np.float64)
WEIGHTS = _rng.uniform(0.5, 1.5, size=5)
AIMS = (0.3, -0.2, 0.9)
DESIGN = np.concatenate([np.ones((5, 1)), oracle.X], axis=1).astype(np.float64)


def trained(weights, batch=None):
    """The influence on |theta - aim|^2 / 2, for three aims."""

    def step(carry, live, weights):
        theta, speed = carry
        error = jax.nn.softmax(wide(DESIGN) @ theta) - np.eye(3)[oracle.Y]
        by = wide(DESIGN).T @ ((live * weights)[:, None] * error) / 5
        speed = MOMENTUM * speed + by
        return (theta - RATE * speed, speed), None

    def targets(carry):
        apart = carry[0][None] - jnp.asarray(AIMS)[:, None, None]
        return jnp.sum(apart**2, axis=(1, 2)) / 2

    theta = wide(np.concatenate([oracle.B[None], oracle.W]))
    init = theta, jnp.zeros_like(theta)
    return metagrad.magic(
        step, init, wide(BATCHES), targets, wide(weights), batch=batch
    )


def influence_by_hand(weights):
    table = BATCHES * weights
    found = [oracle.unrolled(table, RATE, MOMENTUM, aim, 0.0) for aim in AIMS]
    values = [value for value, *_ in found]
    return values, [(BATCHES * by).sum(0) for _, by, *_ in found]


def magic_row(weights, batch):
    def run():
        found = trained(weights, batch)
        return found.values, found.by_weight, found.predict(wide(2 * weights))

    values, by = influence_by_hand(weights)
    expect = values, by, np.array(values) + np.array(by) @ weights
    origin = "numpy f64 adjoint recursion of arXiv:2503.13751, for arXiv:2504.16430"
    step = lambda w, i, weights: (w - weights[i], None)  # noqa: E731
    ones = np.ones(3, np.float32)
    args = (step, jnp.float32(0), np.arange(3), lambda w: w[None], ones)
    return row(metagrad.magic, args, {"batch": batch}, expect, origin, run)


_scores = np.random.default_rng(120)
PREDICTED = _scores.normal(size=(2, 3, 9)).round(1).astype(np.float32)
ACTUAL = (PREDICTED + _scores.normal(size=PREDICTED.shape)).round(0).astype(np.float32)
# scipy 1.17.1, stats.spearmanr; both have ties
SPEARMAN = [
    [0.7302967433402214, 0.652568781111469, 0.8377292410617666],
    [0.48725135656323015, 0.7863936833384958, 0.7256566765192382],
]


def score_row(at):
    return Golden(
        metagrad.linear_datamodeling_score,
        (PREDICTED[at], ACTUAL[at]),
        {},
        np.array(SPEARMAN)[at],
        "scipy 1.17.1 stats.spearmanr, for the LDS of arXiv:2504.16430",
    )


# --- metagradient descent -------------------------------------------------------------

MGD = "by hand, arXiv:2503.13751"
COUNTS = np.array([0, 3, 1, 2], np.int32)
SLOPES = np.array([0.2, -1e-3, 4.0, 0.0], np.float32)
POINTS = np.array([0.1, 0.7, 0.4], np.float32)
Z = np.random.default_rng(122).normal(size=5)


def relaxed_row(at):
    """Softmax regression, a mean over 5: z adds 5 z to a weight at a step."""

    def run():
        def losses(params):
            logits = wide(oracle.X) @ params["w"] + params["b"][None]
            return optax.softmax_cross_entropy_with_integer_labels(logits, oracle.Y)

        def loss(params, weights):
            return jnp.mean(weights * losses(params))

        params = {"b": wide(oracle.B), "w": wide(oracle.W)}
        whole = metagrad.relax_counts(loss, losses, at=jnp.asarray(at))
        run = jax.grad(whole, argnums=(0, 3))
        return [run(params, jnp.ones(5), t, wide(Z)) for t in (3, 4)]

    params = {"b": oracle.B.astype(np.float64), "w": oracle.W.astype(np.float64)}
    logits = oracle.X.astype(np.float64) @ params["w"] + params["b"]
    losses = -oracle.log_softmax(logits)[np.arange(5), oracle.Y]
    expect = []
    for t in (3, 4):
        now = t in np.atleast_1d(at)
        by = oracle.regression_gradient(params, 1 + 5 * Z * now)
        expect += [by["b"], by["w"], losses * now]
    args = (lambda w, x: w * x, lambda w: w * jnp.ones(3))
    origin = "numpy f64 gradients by hand, arXiv:2503.13751"
    return row(metagrad.relax_counts, args, {"at": at}, expect, origin, run)


def points_row(values, total):
    steps = np.array([0, 1, 7, total // 2, total - 1, total, total + 5])
    expect = np.interp(steps, np.linspace(0, total, len(values)), values)

    def pick(schedule):
        return np.array([schedule(int(t)) for t in steps])

    origin = "numpy.interp, arXiv:2503.13751"
    kwargs = {"total_steps": total}
    return Golden(metagrad.key_points, (values,), kwargs, expect, origin, pick)


# --- DataRater ------------------------------------------------------------------------

SCORES = np.random.default_rng(123).normal(size=(2, 6)).astype(np.float32)
LIVE = np.array([[True] * 4 + [False, True], [False] + [True] * 5])


def softmax_row(where):
    x = SCORES.astype(np.float64)
    parts = np.exp(x) * (1 if where is None else where)
    origin = "numpy f64 softmax, arXiv:2505.17895"
    kwargs = {} if where is None else {"where": where}
    return Golden(
        metagrad.datarater_weights, (SCORES,), kwargs, parts / parts.sum(), origin
    )


# Inner models w, losses (w - x)^2 / 2, scores eta x; three models, two steps, four x.
RATED = np.random.default_rng(124).normal(size=(3, 2, 4))
HELD = np.random.default_rng(125).normal(size=(3, 5)) + 1
BORN, ETA, INNER, OUTER = np.array([0.2, -0.4, 0.7]), 0.3, 0.6, 0.05


def window(eta, w, batches, held_out):
    """The outer loss; eta may be complex, and its imaginary part a derivative."""
    for x in batches:
        parts = np.exp(eta * x)
        w = w - INNER * np.sum(parts / parts.sum() * (w - x))
    return w, np.mean((w - held_out) ** 2) / 2


def rater_by_hand(adam):
    tiny = 1e-30
    found = [window(ETA + 1j * tiny, *of) for of in zip(BORN, RATED, HELD, strict=True)]
    grads = np.array([loss.imag / tiny for _, loss in found])
    # Adam's first step, without bias, is the sign but for its eps.
    moves = grads / (np.abs(grads) + 1e-8) if adam else grads
    losses = [loss.real for _, loss in found]
    return ETA - OUTER * moves.mean(), [w.real for w, _ in found], losses


def rater(meta, lifetime=100):
    return metagrad.datarater(
        lambda eta, x: eta * x,
        lambda w, x: (w - x) ** 2 / 2,
        fresh=lambda key: jnp.zeros(()),
        optimizer=optax.sgd(INNER),
        meta_optimizer=meta,
        population=3,
        lifetime=lifetime,
    )


def rater_row(adam):
    meta = optax.adam(OUTER) if adam else optax.sgd(OUTER)

    def run():
        made, key = rater(meta), jax.random.key(0)
        state = made.init(wide(ETA), key=key)._replace(params=wide(BORN))
        eta, state, losses = made.update(
            wide(ETA), state, wide(RATED), wide(HELD), key=key
        )
        return eta, state.params, losses

    kwargs = {
        "fresh": lambda key: jnp.zeros(()),
        "optimizer": optax.sgd(INNER),
        "meta_optimizer": meta,
        "population": 3,
    }
    args = (lambda eta, x: eta * x, lambda w, x: (w - x) ** 2 / 2)
    expect = rater_by_hand(adam)
    origin = "numpy f64 window and its derivative by a complex step, arXiv:2505.17895"
    return row(metagrad.datarater, args, kwargs, expect, origin, run, rtol=1e-9)


RATINGS = np.array([0.3, 2.0, -1.0, 2.0, np.nan, 0.4], np.float32)
KEPT = {0: (), 2: (1, 3), 4: (0, 1, 3, 5), 6: (0, 1, 2, 3, 5)}
QUANTILES = np.array([0.0, 0.05, 0.3, 0.5, 0.77, 0.999, 1.0], np.float32)


def probability_row(keep, batch):
    p = QUANTILES.astype(np.float64)
    terms = (
        comb(batch - 1, s) * (1 - p) ** s * p ** (batch - 1 - s) for s in range(keep)
    )
    origin = "numpy f64 sum of binomials, arXiv:2505.17895"
    kwargs = {"keep": keep, "batch": batch}
    fn = metagrad.topk_keep_probability
    return Golden(fn, (QUANTILES,), kwargs, sum(terms), origin, rtol=2e-5, atol=1e-12)


# --- shifts, and sensitivity ----------------------------------------------------------

_rng = np.random.default_rng(126)
SHIFT_LOSSES = _rng.gamma(2, size=7).astype(np.float32)
RATIOS = _rng.normal(size=(7, 4)).astype(np.float32) / 2
HERE = np.array([True, True, False, True, True, True, True])


def value_by_hand(coalition, clip=None, normalize=False, where=None):
    live = np.ones(7, bool) if where is None else where
    losses, ratios = SHIFT_LOSSES[live].astype(np.float64), RATIOS[live]
    weights = np.exp(ratios.astype(np.float64) @ coalition)
    weights = weights if clip is None else np.minimum(weights, clip)
    weights = weights / weights.mean() if normalize else weights
    return np.mean(weights * losses) - losses.mean()


def shapley_by_hand(**kwargs):
    """The mean over all orders of what a mechanism adds when it comes."""
    phi, orders = np.zeros(4), [*permutations(range(4))]
    for order in orders:
        there = np.zeros(4)
        for i in order:
            before = value_by_hand(there, **kwargs)
            there[i] = 1
            phi[i] += value_by_hand(there, **kwargs) - before
    return phi / len(orders)


SHIFT = "numpy f64, the mean over all orders, arXiv:2210.10769"
SOME = np.array([1, 0, 1, 1], np.float32)
SETTINGS = ({}, {"clip": 1.3}, {"clip": 2.0, "normalize": True, "where": HERE})

_rng = np.random.default_rng(127)
INPUTS = _rng.normal(size=(6, 3))
SLOPE = np.array([0.8, -0.5, 0.0])


def sensitivity_row(order, signed):
    def run():
        def fun(x):
            return jnp.tanh(x @ wide(SLOPE)) + x[1] ** 3

        return metagrad.input_derivative_sensitivity(
            fun, wide(INPUTS), order=order, signed=signed
        )

    t = np.tanh(INPUTS @ SLOPE)
    s = 1 - t**2
    bend = {1: s, 2: -2 * t * s, 3: s * (6 * t**2 - 2)}[order]
    by = bend[:, None] * SLOPE**order
    by[:, 1] += {1: 3 * INPUTS[:, 1] ** 2, 2: 6 * INPUTS[:, 1], 3: 6.0}[order]
    expect = (by if signed else np.abs(by)).mean(0)
    args = (lambda x: jnp.sum(x**2), INPUTS.astype(np.float32))
    kwargs = {"order": order, "signed": signed}
    fn = metagrad.input_derivative_sensitivity
    return row(fn, args, kwargs, [expect], "closed form, arXiv:2403.01128", run)


ROWS = [
    magic_row(np.ones(5), None),
    magic_row(WEIGHTS, 2),
    score_row(np.s_[:]),
    score_row(np.s_[1, 2]),
    Golden(metagrad.mgd, (COUNTS, SLOPES), {"low": 0}, [0, 4, 0, 2], MGD),
    Golden(
        metagrad.mgd,
        (POINTS, np.array([1, -2, 0.5], np.float32)),
        {"rate": 0.15, "low": 0.0, "high": 0.8},
        [0.0, 0.8, 0.25],
        MGD,
    ),
    relaxed_row(3),
    relaxed_row(np.array([2, 3, 4])),
    points_row(POINTS, 20),
    points_row(np.array([0.5, 0.1, 0.2, 0.9, 0.3], np.float32), 37),
    points_row(np.array([0.5], np.float32), 10),
    softmax_row(None),
    softmax_row(LIVE),
    rater_row(False),
    rater_row(True),
    *(
        Golden(
            metagrad.topk_batch_filter,
            (RATINGS,),
            {"keep": keep},
            [i in kept for i in range(6)],
            "by hand, arXiv:2505.17895",
        )
        for keep, kept in KEPT.items()
    ),
    *(probability_row(*of) for of in ((1, 2), (3, 8), (7, 10), (4, 4), (30, 100))),
    *(
        Golden(
            metagrad.importance_weighted_value,
            (SHIFT_LOSSES, RATIOS, SOME),
            kwargs,
            value_by_hand(SOME, **kwargs),
            "numpy f64 formula, arXiv:2210.10769",
            rtol=1e-5,
        )
        for kwargs in SETTINGS
    ),
    *(
        Golden(
            metagrad.shift_shapley,
            (SHIFT_LOSSES, RATIOS),
            kwargs,
            shapley_by_hand(**kwargs),
            SHIFT,
            rtol=1e-4,
            atol=1e-6,
        )
        for kwargs in SETTINGS
    ),
    *(sensitivity_row(k, signed) for k in (1, 2, 3) for signed in (False, True)),
]
