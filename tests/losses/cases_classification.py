"""Classification losses and likelihoods: labels, statistics, sequences, scores."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtricks import losses
from jaxtricks.kernels import TokenStatistics
from tests.case import Case, Inputs
from tests.inputs import CLASSES, logits_and_labels, rng
from tests.losses.cases import logits_and_soft


def _only_logits(data):
    return data[:1]


logits = Inputs(
    make=lambda batch: _only_logits(logits_and_labels.make(batch)),
    batched=(True,),
    edges=lambda: {
        name: _only_logits(data) for name, data in logits_and_labels.edges().items()
    },
    sharded=(("model",),),
)

# What sorts or adds classes keeps them on one device.
masked_logits = dataclasses.replace(logits, sharded=())
whole_classes = dataclasses.replace(logits_and_labels, sharded=())


# --- token statistics in the place of logits ------------------------------------------


def _statistics(data):
    """(lse, target, total, mean) of logits and labels."""
    z, labels = data
    z = z.astype(np.float64)
    live = np.isfinite(z)
    peak = z.max(-1)
    e = np.exp(z - peak[..., None])
    lse = peak + np.log(e.sum(-1))
    target = np.take_along_axis(z, labels[..., None], -1)[..., 0]
    finite = np.where(live, z, 0)
    total, mean = finite.sum(-1), (e * finite).sum(-1) / e.sum(-1)
    return tuple(x.astype(np.float32) for x in (lse, target, total, mean))


statistics = Inputs(
    make=lambda batch: _statistics(logits_and_labels.make(batch)),
    batched=(True,) * 4,
    edges=lambda: {
        name: _statistics(data) for name, data in logits_and_labels.edges().items()
    },
)


def of_statistics(fn, data, kwargs):
    lse, target, total, mean = data
    return fn(TokenStatistics(lse, target, total, mean), **kwargs)


def _from_log_p(f):
    return lambda lse, target, total, mean: f(target - lse)


# --- log-probabilities of sequences ---------------------------------------------------


def _log_probs(count):
    def make(batch):
        return tuple(
            -rng(30 + i, *batch).gamma(2.0, 2.0, size=batch).astype(np.float32)
            for i in range(count)
        )

    def edges():
        base = make((8,))
        return {
            "nearly certain": tuple(x * np.float32(1e-12) for x in base),
            "certain": tuple(x * 0 for x in base),
            "identical": base[:1] * count,
            "impossible in f32": tuple(x * 1e3 for x in base),
            "far apart": tuple(x * 10.0 ** (3 * i) for i, x in enumerate(base)),
        }

    return Inputs(make, (True,) * count, edges)


one_log_prob, two_log_probs, four_log_probs = map(_log_probs, (1, 2, 4))


# --- scores, several labels, temperatures ---------------------------------------------


def _with_multi(data):
    z, labels = data
    multi = rng(40, *labels.shape).random((*labels.shape, CLASSES)) < 0.4
    return np.where(np.isneginf(z), -1e4, z), multi.astype(np.float32)


logits_and_multi = Inputs(
    make=lambda batch: _with_multi(logits_and_labels.make(batch)),
    batched=(True, True),
    edges=lambda: {k: _with_multi(v) for k, v in logits_and_labels.edges().items()},
    sharded=(("model",), ("model",)),
)


def _with_tau(data):
    tau = 0.5 + rng(41, *data[1].shape).random(data[1].shape)
    return *data, tau.astype(np.float32)


logits_labels_tau = Inputs(
    make=lambda batch: _with_tau(logits_and_labels.make(batch)),
    batched=(True, True, True),
    edges=lambda: {k: _with_tau(v) for k, v in logits_and_labels.edges().items()},
    labels=1,
    sharded=(("model",), (), ()),
)


def _scores(batch):
    scores = 2 * rng(42, *batch).normal(size=batch)
    return scores.astype(np.float32), rng(43, *batch).integers(0, 2, size=batch)


scores_and_labels = Inputs(
    make=_scores,
    batched=(True, True),
    edges=lambda: {
        "zero": (np.zeros(8, np.float32), _scores((8,))[1]),
        "huge": (1e4 * _scores((8,))[0], _scores((8,))[1]),
    },
    labels=1,
)
margins = Inputs(
    make=lambda batch: _scores(batch)[:1],
    batched=(True,),
    edges=lambda: {k: v[:1] for k, v in scores_and_labels.edges().items()},
)


def keyed(fn, data, kwargs):
    return fn(*data, key=jax.random.key(7), **kwargs)


NET = losses.TempNet(
    *(
        np.float32(rng(44, i).normal(size=shape))
        for i, shape in enumerate(((CLASSES, 5), (5,), (5, 5), (5,), (), (5,), ()))
    )
)


def with_net(fn, data, kwargs):
    return fn(*data, NET, **kwargs)


def _finite(data):
    return tuple(np.where(np.isneginf(x), -10, x).astype(x.dtype) for x in data)


finite_logits = Inputs(
    make=logits.make,
    batched=(True,),
    edges=lambda: {k: _finite(v) for k, v in logits.edges().items()},
)


# --- a learnt link --------------------------------------------------------------------

LINK = losses.legendre_init(
    key=jax.random.key(3), classes=CLASSES + 1, width=4, depth=3, blocks=2
)
PLAIN = tuple(
    potential._replace(square=jnp.log(jnp.expm1(1.0)), network=jnp.float32(-1e3))
    for potential in LINK
)


def linked(fn, data, kwargs):
    return fn(*data, LINK, **kwargs)


def third_log_p(fn, data, kwargs):
    return fn(*data, **kwargs)[..., 2]


def third_linked(fn, data, kwargs):
    return fn(*data, LINK, **kwargs)[..., 2]


finite_and_labels = Inputs(
    make=logits_and_labels.make,
    batched=(True, True),
    edges=lambda: {k: _finite(v) for k, v in logits_and_labels.edges().items()},
    labels=1,
)

# --- sequences, attacks, decisions ----------------------------------------------------


def _tokens(batch):
    return (rng(45, *batch).gamma(2.0, size=(*batch, 7)).astype(np.float32),)


token_losses = Inputs(
    make=_tokens,
    batched=(True,),
    edges=lambda: {
        "zero": (np.zeros((8, 7), np.float32),),
        "huge": (1e4 * _tokens((8,))[0],),
    },
)


def _samples(batch):
    """Mean losses of four samples, and three tokens each; two samples are the same."""
    tokens = rng(46, *batch).integers(0, 3, size=(*batch, 4, 3))
    tokens[..., 2, :] = tokens[..., 0, :]
    return rng(47, *batch).gamma(2.0, size=(*batch, 4)).astype(np.float32), tokens


samples = Inputs(
    make=_samples,
    batched=(True, True),
    edges=lambda: {
        "zero": (np.zeros((8, 4), np.float32), _samples((8,))[1]),
        "huge": (1e4 * _samples((8,))[0], _samples((8,))[1]),
    },
)


def second_sample(fn, data, kwargs):
    where = kwargs["where"]
    if where is not None:
        where = jnp.asarray(where)[..., None]
        where = jnp.broadcast_to(where, (*where.shape[:-1], 4))
    return fn(*data, where=where)[..., 0]


def _attacked(data):
    x, labels = data
    change = rng(48, *x.shape).normal(size=x.shape).astype(np.float32)
    return x, x + change, labels


attacked_logits = Inputs(
    make=lambda batch: _attacked(logits_and_labels.make(batch)),
    batched=(True, True, True),
    edges=lambda: {
        **{k: _attacked(v) for k, v in logits_and_labels.edges().items()},
        "no attack": (
            *(logits_and_labels.make((8,))[:1] * 2),
            logits_and_labels.make((8,))[1],
        ),
    },
    labels=2,
    sharded=(("model",), ("model",), ()),
)


def _gaps(batch):
    return ((0.05 + 0.1 * rng(49, *batch).random(batch)).astype(np.float32),)


gaps = Inputs(_gaps, (True,), lambda: {"zero": (np.zeros(8, np.float32),)})


def _two(batch):
    pair = (rng(50 + i, *batch).gamma(2.0, size=batch) for i in range(2))
    return tuple(x.astype(np.float32) for x in pair)


two_losses = Inputs(
    _two,
    (True, True),
    lambda: {
        "zero": (np.zeros(8, np.float32),) * 2,
        "zero guide": (_two((8,))[0], np.zeros(8, np.float32)),
        "huge": tuple(1e4 * x for x in _two((8,))),
    },
)


def _decisions(batch):
    p = rng(52, *batch).dirichlet(np.ones(4), size=(*batch, 5)).astype(np.float32)
    return p, rng(53, *batch).normal(size=(*batch, 5, 4)).astype(np.float32)


decisions = Inputs(
    _decisions,
    (True, True),
    lambda: {
        "zero": (_decisions((8,))[0], np.zeros((8, 5, 4), np.float32)),
        "huge": (_decisions((8,))[0], 1e4 * _decisions((8,))[1]),
    },
)

CROSS_ENTROPY = optax.softmax_cross_entropy_with_integer_labels
MINUS_4 = {"log_zero": -4.0}
PREFERENCE = "tests/losses/test_preference.py"
COVERAGE = "tests/losses/test_direct_coverage.py"
SPHERICAL = "tests/losses/test_spherical.py"
LEGENDRE = "tests/losses/test_legendretron.py"
SEQUENCES = "tests/losses/test_sequences.py"
BOUND = "tests/losses/test_comp_sum_bound.py"
TEMPERATURE = "tests/losses/test_dro_temperature.py"

CASES = [
    Case(
        losses.cross_entropy,
        statistics,
        {"label_smoothing": 0.1, "z_loss": 1e-3},
        {"classes": CLASSES},
        call=of_statistics,
        limits=[
            ("-log p", _from_log_p(jnp.negative), {"label_smoothing": 0.0, "z_loss": 0})
        ],
        bad=[{"label_smoothing": 1.5}, {"z_loss": -1.0}],
        name="statistics",
    ),
    Case(
        losses.focal,
        statistics,
        {"gamma": 2.0},
        call=of_statistics,
        limits=[("-log p", _from_log_p(jnp.negative), {"gamma": 0.0})],
        name="statistics",
    ),
    Case(
        losses.comp_sum,
        statistics,
        {"tau": 1.7},
        call=of_statistics,
        limits=[("-log p", _from_log_p(jnp.negative), {"tau": 1.0})],
        name="statistics",
    ),
    Case(
        losses.symmetric_cross_entropy,
        logits_and_labels,
        {"alpha": 0.1, "beta": 1.0, "log_zero": -4.0},
        limits=[
            ("cross entropy", CROSS_ENTROPY, {"alpha": 1.0, "beta": 0.0}),
            (
                "MAE",
                lambda x, y: 4 * losses.comp_sum(x, y, tau=2.0),
                {"alpha": 0.0},
            ),
        ],
        bad=[{"alpha": -1.0}, {"beta": -1.0}, {"log_zero": 1.0}],
    ),
    Case(
        losses.symmetric_cross_entropy,
        statistics,
        {"alpha": 0.5, "beta": 0.7, "log_zero": -6.0},
        call=of_statistics,
        name="statistics",
    ),
    Case(losses.unlikelihood, logits_and_labels),
    Case(losses.unlikelihood, logits_and_soft, name="several"),
    Case(
        losses.unlikelihood,
        statistics,
        call=of_statistics,
        limits=[
            ("-log(1 - p)", _from_log_p(lambda x: -np.log1p(-np.exp(x))), {}),
        ],
        name="statistics",
    ),
    Case(losses.entropy, logits),
    Case(
        losses.entropy,
        statistics,
        call=of_statistics,
        limits=[("lse - mean", lambda lse, y, t, mean: lse - mean, {})],
        name="statistics",
    ),
    Case(
        losses.dpo,
        four_log_probs,
        {"beta": 0.1, "label_smoothing": 0.1},
        bad=[{"beta": 0.0}, {"label_smoothing": 0.6}],
        tests=PREFERENCE,
    ),
    Case(losses.ipo, four_log_probs, {"tau": 0.2}, bad=[{"tau": 0.0}]),
    Case(
        losses.simpo,
        two_log_probs,
        {"beta": 2.0, "gamma": 1.0},
        limits=[
            (
                "dpo without a reference",
                lambda c, r: losses.dpo(c, r, 0 * c, 0 * c, beta=2.0),
                {"gamma": 0.0},
            )
        ],
        bad=[{"beta": -1.0}],
    ),
    Case(
        losses.orpo,
        two_log_probs,
        {"lam": 0.1},
        limits=[("cross entropy", lambda c, r: -c, {"lam": 0.0})],
        bad=[{"lam": -1.0}],
    ),
    Case(
        losses.direct_coverage,
        one_log_prob,
        {"n": 16.0},
        limits=[("cross entropy", lambda x: -x, {"n": 1.0})],
        bad=[{"n": 0.5}],
        tests=COVERAGE,
    ),
    Case(
        losses.coverage_factor,
        one_log_prob,
        {"n": 16.0},
        limits=[("cross entropy", jnp.ones_like, {"n": 1.0})],
        bad=[{"n": 0.5}],
        tests=COVERAGE,
    ),
    Case(losses.pass_at_k, kind="own", tests=COVERAGE),
    Case(
        losses.dro_temperature,
        logits_labels_tau,
        {"rho": 0.7},
        limits=[
            (
                "ldr_kl and a price",
                lambda x, y, tau: (
                    tau * (0.7 - np.log(CLASSES) + CROSS_ENTROPY(x / tau[:, None], y))
                ),
                {},
            )
        ],
        bad=[{"rho": -1.0}],
    ),
    Case(
        losses.optimal_temperature,
        logits,
        {"rho": 0.7, "low": 0.1, "high": 9.0},
        bad=[{"low": 0.0}],
        tests=TEMPERATURE,
    ),
    Case(losses.tempnet, finite_logits, {"low": 0.5, "high": 5.0}, call=with_net),
    Case(losses.tempnet_init, kind="own", tests=TEMPERATURE),
    Case(
        losses.ldr_k,
        whole_classes,
        {"margin": 1.0},
        {"k": 3},
        limits=[
            (
                "all of them",
                lambda x, y: (
                    x.mean(-1)
                    - np.take_along_axis(x, y[:, None], 1)[:, 0]
                    + 1 * (CLASSES - 1) / CLASSES
                ),
                {"k": CLASSES},
            ),
            (
                "Crammer-Singer",
                lambda x, y: (
                    losses.ldr_kl(x, y, lam=1e-4, margin=1.0, normalize="none")
                    + 1e-4 * np.log(CLASSES)
                ),
                {"k": 1},
            ),
        ],
        bad=[{"k": 0}, {"k": CLASSES + 1}],
    ),
    Case(
        losses.spherical_z,
        logits_and_labels,
        {"a": 0.7, "b": 1.5},
        limits=[
            (
                "a hinge",
                lambda x, y: np.maximum(
                    0,
                    1.5
                    - ((x - x.mean(-1, keepdims=True)) / x.std(-1)[:, None])[
                        np.arange(8), y
                    ],
                ),
                {"a": 1e6},
            )
        ],
        bad=[{"a": 0.0}],
        tests=SPHERICAL,
    ),
    Case(losses.spherical_statistics, kind="own", tests=SPHERICAL),
    Case(
        losses.ensloss,
        scores_and_labels,
        {"lam": 0.4},
        call=keyed,
        coupled=True,
        smooth=(),
        tests="tests/losses/test_ensloss.py",
    ),
    Case(
        losses.random_calibrated_derivatives,
        margins,
        {"lam": -0.4},
        call=keyed,
        coupled=True,
        smooth=(),
        tests="tests/losses/test_ensloss.py",
    ),
    Case(
        losses.log_softmax_plus,
        masked_logits,
        call=third_log_p,
        infinite=("masked class",),
    ),
    Case(losses.legendre_link, finite_logits, call=third_linked),
    Case(losses.legendretron, finite_and_labels, call=linked, tests=LEGENDRE),
    Case(losses.legendre_init, kind="own", tests=LEGENDRE),
    Case(
        losses.bi_tempered,
        logits_and_labels,
        {"t1": 0.8, "t2": 1.2},
        limits=[
            ("cross entropy", CROSS_ENTROPY, {"t1": 1.0, "t2": 1.0}),
            (
                "comp_sum, and what a target of one class costs",
                lambda x, y: (
                    losses.comp_sum(x, y, tau=1.3)
                    - (1 - jnp.sum(jax.nn.softmax(x) ** 1.3, -1)) / 1.3
                ),
                {"t1": 0.7, "t2": 1.0},
            ),
        ],
        bad=[{"t1": 1.5}, {"t2": 0.9}],
    ),
    Case(losses.bi_tempered, logits_and_soft, {"t1": 0.5, "t2": 2.0}, name="soft"),
    Case(
        losses.asymmetric,
        logits_and_multi,
        {"gamma_neg": 4.0, "gamma_pos": 1.0, "clip": 0.05},
        limits=[
            (
                "binary cross entropy",
                lambda x, y: optax.sigmoid_binary_cross_entropy(x, y).sum(-1),
                {"gamma_neg": 0.0, "gamma_pos": 0.0, "clip": 0.0},
            ),
            (
                "focal",
                lambda x, y: optax.sigmoid_focal_loss(x, y).sum(-1),
                {"gamma_neg": 2.0, "gamma_pos": 2.0, "clip": 0.0},
            ),
        ],
        bad=[{"gamma_neg": -1.0}, {"gamma_pos": -1.0}, {"clip": 1.5}],
    ),
    Case(
        losses.topk_smoothing,
        token_losses,
        {"alpha": 0.7},
        {"n": 3},
        limits=[
            ("the mean", lambda x: x.mean(-1), {"alpha": 0.0}),
            ("all tokens", lambda x: 1.7 * x.mean(-1), {"n": 7}),
        ],
        bad=[{"n": 0}, {"alpha": -1.0}],
        tests=SEQUENCES,
    ),
    Case(losses.sequence_confidence, samples, call=second_sample, tests=SEQUENCES),
    Case(
        losses.smooth_adversarial_comp_sum,
        attacked_logits,
        {"tau": 1.3, "rho": 0.8, "nu": 0.6},
        limits=[
            (
                "clean",
                lambda x, a, y: losses.comp_sum(x, y),
                {
                    "tau": 1.0,
                    "rho": 1.0,
                    "nu": 0.0,
                },
            ),
        ],
        bad=[{"rho": 0.0}, {"nu": -1.0}, {"tau": -1.0}],
        tests=BOUND,
    ),
    *[
        Case(
            losses.comp_sum_bound,
            gaps,
            {"tau": tau},
            {"classes": 5},
            bad=[{"tau": -1.0}, {"classes": 1}],
            tests=BOUND,
            name=name,
        )
        for tau, name in ((0.5, "steep"), (1.3, "robust"), (2.5, "bounded"))
    ],
    Case(
        losses.guided,
        two_losses,
        smooth=(),
        limits=[("the guide", lambda x, y: y, {})],
        tests="tests/losses/test_guided.py",
    ),
    Case(losses.prior_bias, kind="own", tests="tests/losses/test_guided.py"),
    Case(losses.regret, decisions, tests="tests/losses/test_regret.py"),
    Case(losses.radial_violations, kind="own", tests="tests/losses/test_radial.py"),
    Case(losses.black_box_squared, kind="own", tests="tests/losses/test_black_box.py"),
    Case(losses.monomial_estimate, kind="own", tests="tests/losses/test_black_box.py"),
]
