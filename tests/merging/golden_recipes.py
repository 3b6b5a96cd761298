"""Merges that need data or decompositions: the authors' numbers, and oracles."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtricks import merging
from tests.case import Golden

_rng = np.random.default_rng(77)


def _normal(*shape):
    return _rng.normal(size=shape)


BASE = {"v": _normal(5).astype(np.float32), "w": _normal(4, 6).astype(np.float32)}
TREES = [
    {k: (x + 0.3 * _normal(*x.shape)).astype(np.float32) for k, x in BASE.items()}
    for _ in range(3)
]
FISHERS = [
    {k: np.square(_normal(*x.shape)).astype(np.float32) for k, x in BASE.items()}
    for _ in range(3)
]
INPUTS = [_normal(9, 4).astype(np.float32) for _ in range(3)]
GRAMS = [{"v": None, "w": (x.T @ x / 9).astype(np.float32)} for x in INPUTS]
WEIGHTS = (0.5, 0.2, 1.1)
_draws = np.random.default_rng(7).normal(size=(6, 9))
CONTRIBUTIONS = np.float32(0.3 * _draws - 1.2)
# Where a sum of entries near 1 almost cancels, a few roundings are left.
ROUNDING = 3e-7
_SHAPES = {"a": (4, 6), "b": (5, 3)}


def flat(tree):
    """The leaves as one vector."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def _f64(tree):
    return {key: np.asarray(leaf, np.float64) for key, leaf in tree.items()}


def _each(f, *trees):
    """f on the f64 leaves, as one vector."""
    return flat({k: f(*(_f64(tree)[k] for tree in trees)) for k in BASE})


def _row(fn, args, kwargs, expect, origin, pick=flat, rtol=2e-6):
    return Golden(fn, args, kwargs, expect, origin, pick, rtol=rtol, atol=ROUNDING)


def _changes(key):
    return [_f64(tree)[key] - _f64(BASE)[key] for tree in TREES]


def _polar(x):
    u, _, vt = np.linalg.svd(x, full_matrices=False)
    return u @ vt


def _tsv(rank, scale):
    parts = [np.linalg.svd(x, full_matrices=False) for x in _changes("w")]
    u = np.concatenate([p[0][:, :rank] for p in parts], axis=1)
    s = np.concatenate([p[1][:rank] for p in parts])
    vt = np.concatenate([p[2][:rank] for p in parts])
    change = {
        "v": np.mean(_changes("v"), axis=0),
        "w": _polar(u) @ np.diag(s) @ _polar(vt),
    }
    return {key: _f64(BASE)[key] + scale * change[key] for key in BASE}


def _iso_cts(scale):
    # 4 directions: one of each of the three tasks, and one in common.
    u, s, vt = np.linalg.svd(sum(_changes("w")), full_matrices=False)
    us, ss, vts = [], [], []
    for x in _changes("w"):
        own = np.linalg.svd(x - u[:, :1] @ (u[:, :1].T @ x), full_matrices=False)
        us, ss, vts = [*us, own[0][:, :1]], [*ss, own[1][0]], [*vts, own[2][:1]]
    left = _polar(np.concatenate([*us, u[:, :1]], axis=1))
    right = _polar(np.concatenate([*vts, vt[:1]]))
    size = np.mean([*ss, s[0]])
    change = {"v": np.mean(_changes("v"), axis=0), "w": size * left @ right}
    return {key: _f64(BASE)[key] + scale * change[key] for key in BASE}


def _fisher(floors=lambda f: f + 0.0, weights=(1.0, 1.0, 1.0)):
    def leaf(*xs):
        shares = [w * floors(f) for w, f in zip(weights, xs[3:], strict=True)]
        total = sum(s * x for s, x in zip(shares, xs[:3], strict=True))
        return total / sum(shares)

    return _each(leaf, *TREES, *FISHERS)


def _norms():
    return [np.linalg.norm(flat(_f64(f))) for f in FISHERS]


def _regmean(alpha):
    shrink = np.where(np.eye(4), 1.0, alpha)
    grams = [x.astype(np.float64).T @ x / 9 * shrink for x in INPUTS]
    pairs = zip(grams, TREES, strict=True)
    total = sum(g @ np.float64(tree["w"]) for g, tree in pairs)
    kernel = np.linalg.solve(sum(grams), total)
    return flat({"v": np.mean([_f64(t)["v"] for t in TREES], axis=0), "w": kernel})


def _stack(key):
    return np.stack([tree[key] for tree in TREES])


def _ema(decay, debias=False):
    m = np.zeros(5) if debias else np.float64(BASE["v"])
    for tree in TREES:
        m = decay * m + (1 - decay) * np.float64(tree["v"])
    return m / (1 - decay**3) if debias else m


def _last(pair):
    """The average after the three trees' vectors."""
    state = pair.init(jnp.asarray(BASE["v"]))
    mean = None
    for tree in TREES:
        mean, state = pair.update(jnp.asarray(tree["v"]), state)
    return mean


def _ties(density):
    """As the authors of KnOTS have it."""
    return functools.partial(
        merging.ties, density=density, scope="global", divisor="count"
    )


def _fit(result):
    return np.concatenate([np.ravel(result[0]), np.ravel(result[1])])


def _quadratic(c, x):
    return jnp.sum((c - x) ** 2)


def _descent():
    c, values = np.array([0.3, 0.3]), []
    for x in (1.0, 0.0, 2.0):
        values.append(np.sum((c - x) ** 2))
        c = c - 0.1 * 2 * (c - x)
    return np.concatenate([c, values])


def _logits_fn(w, x):
    return x @ w


def _diagonal(labels=None):
    x, w = INPUTS[0].astype(np.float64), np.float64(BASE["w"])
    z = x @ w
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    total = 0.0
    for i in range(9):
        for y in range(6):
            slope = np.outer(x[i], (np.arange(6) == y) - p[i])
            chance = p[i, y] if labels is None else float(labels[i] == y)
            total = total + chance * slope**2
    return total / 9


_LABELS = np.array([0, 5, 1, 2, 3, 4, 4, 0, 1])
_P, _Q = INPUTS[0] * 2, INPUTS[1]


def _sure(z):
    z = np.float64(z)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return (p.max(axis=1) / p.sum(axis=1)).mean()


def _temperature():
    low, high = 0.01, 100.0
    for _ in range(80):
        middle = (low * high) ** 0.5
        sure = _sure(_P / middle) > _sure(_Q)
        low, high = (middle, high) if sure else (low, middle)
    return low


def _signature(a=0, p=1):
    def leaf(key):
        a_, p_ = _changes(key)[a].ravel(), _changes(key)[p].ravel()
        return p_ - (p_ @ a_) / (a_ @ a_) * a_

    return {key: leaf(key).reshape(BASE[key].shape) for key in BASE}


_SIGNATURES = [
    {k: x.astype(np.float32) for k, x in _signature(0, p).items()} for p in (1, 2)
]
_MASK = {k: np.arange(x.size).reshape(x.shape) % 3 > 0 for k, x in BASE.items()}


def _darex(q):
    return _each(
        lambda b, t, m: b + m * (t - b) / q, BASE, TREES[0], _MASK
    )  # bools become 0 and 1


def _interpolated(weights):
    return _each(
        lambda *xs: sum(w * x for w, x in zip(weights, xs, strict=True)), *TREES
    )


def _clipped(coefficients):
    return _each(
        lambda b, *xs: (
            b
            + sum(
                min(max(c, 0), 1) * (x - b)
                for c, x in zip(coefficients, xs, strict=True)
            )
        ),
        BASE,
        *TREES,
    )


def _positioned(logits, scale):
    share = np.exp(logits) / np.exp(logits).sum()
    return _each(
        lambda b, *xs: (
            b + scale * sum(s * (x - b) for s, x in zip(share, xs, strict=True))
        ),
        BASE,
        *TREES,
    )


def _low_rank(rank):
    u, s, vt = np.linalg.svd(_changes("w")[0], full_matrices=False)
    return u[:, :rank] * s[:rank] @ vt[:rank]


def _score(tree):
    return -float(np.sum((np.asarray(tree["v"], np.float64) - TARGET) ** 2))


TARGET = (np.float64(TREES[0]["v"]) + TREES[2]["v"]) / 2


def _greedy():
    """Whether each tree goes in, in order of its score, by means of those that did."""
    order = sorted(range(3), key=lambda i: -_score(TREES[i]))
    chosen = order[:1]
    for i in order[1:]:
        before, after = (
            _score({"v": np.mean([np.float64(TREES[k]["v"]) for k in who], axis=0)})
            for who in (chosen, [*chosen, i])
        )
        chosen = [*chosen, i] if after >= before else chosen
    return _each(lambda *xs: sum(xs) / len(xs), *(TREES[k] for k in chosen))


_LORA = {
    "v": None,
    "w": merging.Lora(jnp.asarray(INPUTS[0][:4, :2]), jnp.asarray(BASE["w"][:2])),
}
_JAX = jax.tree.map(jnp.asarray, TREES)
_W, _WS = {"w": BASE["w"]}, [{"w": tree["w"]} for tree in TREES]
_own = np.random.default_rng(5)
_PAIR = {k: _own.normal(size=s).astype(np.float32) for k, s in _SHAPES.items()}
_ADAPTED = [
    {
        k: np.float32(x + np.outer(*(_own.normal(size=size) for size in x.shape)))
        for k, x in _PAIR.items()
    }
    for _ in range(2)
]
TSV = (
    "AntoAndGar/task_singular_vectors@a6c9718 in float64, arXiv:2412.00081, "
    "arXiv:2502.06876"
)
TSV_ORACLE = "numpy f64 oracle of arXiv:2412.00081 alg. 1, arXiv:2502.06876"
ISO = "danielm1405/iso-merging@d34010a in float64, arXiv:2502.04959"
ISO_CTS = "numpy f64 oracle of arXiv:2502.04959 alg. 2"
KNOTS = "gstoica27/KnOTS@baa35e8 in float64, arXiv:2410.19735"
FISHER = "numpy f64 oracle of arXiv:2111.09832 eq. 3"
FISHER_CODE = "numpy f64 oracle of mmatena/model_merging@46802f9, arXiv:2111.09832"
REGMEAN = "numpy f64 oracle of arXiv:2212.09849 eq. 2"
ADA = "numpy f64 oracle of arXiv:2310.02575"
DAREX = "numpy f64 oracle of arXiv:2410.09344"
DAREX_CODE = "numpy f64 oracle of vengdeng/DAREx@0873fc2, arXiv:2410.09344"
RWS = "numpy f64 oracle of arXiv:2302.12480 eq. 2"
WISE = "numpy f64 oracle of arXiv:2109.01903 eq. 1, arXiv:2309.17230"
BANG = "numpy f64 oracle of arXiv:2309.17230"
POSITION = "numpy f64 oracle of arXiv:2410.15035"
MWA = "numpy f64 oracle of arXiv:2504.18580"
NEON = "numpy f64 oracle of arXiv:2510.03597 eq. 1"
SOUP = "numpy f64 oracle of arXiv:2203.05482 recipe 1"
EMA = (
    "numpy f64 oracle of Acceleration of Stochastic Approximation by Averaging, with "
    "exponential weights"
)
LORA = "numpy f64 oracle of arXiv:2106.09685"
FUSION_BENCH = "tanganke/fusion_bench@54c9e8c in float64, "
# What the authors' code gives in float64, leaf "v" of five entries, then "w" of 24.
_TSV = [
    0.47649472,
    -0.471607228,
    2.49826129,
    -1.72483357,
    0.81897519,
    0.733644795,
    -0.742440587,
    1.34283448,
    -1.87519634,
    -1.6027742,
    0.0676087997,
    2.14675346,
    0.0631944283,
    0.841904727,
    -1.63679925,
    -0.826348126,
    1.12209313,
    -1.16487424,
    -0.408887214,
    0.461675069,
    -2.4769629,
    -1.99972506,
    -0.111974831,
    -1.65385598,
    -0.328535288,
    0.49850704,
    -0.910525084,
    -0.48514991,
    -0.266085006,
]
_TSV_FULL = [
    0.461877291,
    -0.501376327,
    2.54512111,
    -1.68994698,
    0.771797339,
    0.0434086249,
    -0.202913011,
    0.972312897,
    -1.60536986,
    -1.07454021,
    -0.203467926,
    1.92976111,
    0.128594502,
    0.89257004,
    -1.78602504,
    -1.36415336,
    0.944294063,
    -0.770225721,
    -0.231574256,
    0.716093516,
    -2.24940199,
    -1.43880925,
    0.00858819703,
    -1.36732782,
    -0.589003477,
    -0.0193025543,
    -0.752441995,
    -0.110923964,
    0.0328165046,
]
_ISO = [
    0.47649472,
    -0.471607228,
    2.49826129,
    -1.72483357,
    0.81897519,
    0.107267894,
    -0.0250488999,
    0.557137366,
    -1.35499534,
    -1.21569244,
    -0.376981974,
    2.35103989,
    -0.17210293,
    1.31778645,
    -1.81877244,
    -1.56992966,
    0.775394913,
    -0.747580455,
    -0.241340979,
    0.429416905,
    -2.51966769,
    -1.87304775,
    0.189131889,
    -1.01847059,
    -0.401984477,
    -0.254912287,
    -1.13843805,
    -0.0216781668,
    0.292394109,
]
_ISO_CTS = [
    0.491112148,
    -0.441838129,
    2.45140148,
    -1.75972015,
    0.866153042,
    0.802291388,
    -0.259489551,
    0.734190921,
    -0.953826506,
    -1.48299992,
    -0.626011446,
    0.749399566,
    0.860215822,
    0.528521111,
    -1.53114954,
    -1.54066702,
    0.372874042,
    -0.977946498,
    -0.587525923,
    1.07849364,
    -2.14843846,
    -2.47262053,
    0.270320585,
    -1.2325397,
    0.274649189,
    1.03118282,
    -0.709151201,
    -0.427963005,
    0.187931206,
]
_FUSION_BENCH_FISHER = [
    0.131230053,
    -0.489361295,
    2.53218798,
    -1.73763283,
    0.790735929,
    -0.361985435,
    -0.173715001,
    0.740960233,
    -1.51304831,
    -1.03530409,
    -0.605874579,
    1.93871713,
    0.0733537999,
    1.13917626,
    -1.16410898,
    -1.39193409,
    0.766095227,
    -0.739526255,
    -0.350543872,
    0.91883346,
    -2.46621734,
    -1.98533587,
    -0.0330276107,
    -1.527728,
    -0.598694608,
    -0.268840541,
    -0.71305203,
    0.0067558726,
    0.180283969,
]
_FUSION_BENCH_REGMEAN = [
    0.47649472,
    -0.471607228,
    2.49826129,
    -1.72483357,
    0.81897519,
    0.111917309,
    -0.299080874,
    1.02455573,
    -1.60578615,
    -1.06315923,
    -0.237868408,
    1.92914749,
    0.0528649503,
    0.829580255,
    -1.87399303,
    -1.3600552,
    0.934577603,
    -0.869352732,
    -0.291716795,
    0.613506286,
    -2.25638224,
    -1.48160532,
    -0.0864742653,
    -1.29738987,
    -0.636089172,
    -0.0772166349,
    -0.715450345,
    -0.0128221684,
    0.0941223131,
]
_SIGNATURE = [
    0.00305818386,
    -0.00583665442,
    -0.206635157,
    0.0349053462,
    -0.0534020935,
    1.12358348,
    -0.141325219,
    0.330671857,
    0.152608918,
    0.0138990477,
    0.0376965565,
    0.155845833,
    -0.0129985015,
    -0.110156721,
    -0.187238639,
    -0.131898987,
    0.0808127304,
    -0.0531968094,
    0.231982776,
    0.357078396,
    0.0168738595,
    -0.0872570202,
    0.409510585,
    0.00866607089,
    0.0971580532,
    -0.033103987,
    0.0366354076,
    0.375909284,
    0.223138155,
]
_KNOTS = [
    0.953690799,
    -0.591102944,
    1.40728488,
    -1.57094483,
    -0.955935689,
    -0.480845291,
    1.53617217,
    0.315445374,
    1.15345294,
    -1.28726858,
    -1.22156806,
    0.838787654,
    -1.29482897,
    -0.280134193,
    1.1291622,
    -2.39266397,
    -1.90700677,
    0.440959588,
    -1.57005289,
    -0.62354985,
    -0.285344738,
    -0.595887626,
    0.0452469586,
    0.096468984,
]
_KNOTS_INPUTS = [
    0.483636934,
    -0.235341921,
    0.647318702,
    -1.57991972,
    -1.20352801,
    -0.412002281,
    1.87085829,
    0.188635217,
    1.0976986,
    -1.42300643,
    -1.35564141,
    1.17651607,
    -0.522464402,
    -0.278878284,
    0.718512648,
    -2.47716843,
    -1.68044667,
    0.061212261,
    -1.45775212,
    -0.661845772,
    -0.19792072,
    -0.856354608,
    -0.104396558,
    0.124966635,
]
_KNOTS_ADAPTERS = [
    -1.43715283,
    -0.103932676,
    -0.242353984,
    -0.268698068,
    3.00136236,
    0.214970917,
    1.44108323,
    -2.16270978,
    0.578933748,
    4.86368827,
    -0.542993643,
    -0.765836075,
    -0.418617086,
    1.2106252,
    0.157930029,
    -0.865298073,
    -0.338248624,
    -1.0420325,
    -1.33089314,
    1.71218662,
    -0.759133112,
    0.162613167,
    3.74807284,
    -0.195914109,
    0.409637839,
    0.829855323,
    -1.64302337,
    -0.546254009,
    -1.81443975,
    1.21147911,
    -0.933850231,
    1.04456014,
    -1.73837526,
    -0.30433774,
    -1.04792655,
    -0.396190345,
    -0.760581783,
    -0.402812925,
    -1.35699665,
]
# SVD in f32, whose error is relative to the largest entry.
DECOMPOSED = 1e-5

ROWS = [
    _row(merging.tsv, (BASE, TREES), {}, _TSV, TSV, rtol=DECOMPOSED),
    _row(
        merging.tsv,
        (BASE, TREES),
        {"rank": "full", "scale": 0.7},
        _TSV_FULL,
        TSV,
        rtol=DECOMPOSED,
    ),
    _row(
        merging.tsv_leaf,
        (BASE["w"], _stack("w")),
        {"rank": 2},
        _tsv(2, 1)["w"],
        TSV_ORACLE,
        np.asarray,
        DECOMPOSED,
    ),
    _row(merging.iso, (BASE, TREES), {}, _ISO, ISO, rtol=DECOMPOSED),
    _row(
        merging.iso,
        (BASE, TREES),
        {"common": 0.5, "scale": 1.3},
        _ISO_CTS,
        ISO,
        rtol=DECOMPOSED,
    ),
    _row(
        merging.iso_leaf,
        (BASE["w"], _stack("w")),
        {"common": 0.5},
        _iso_cts(1)["w"],
        ISO_CTS,
        np.asarray,
        DECOMPOSED,
    ),
    # Its trimming keeps an entry more, for which its density was lowered.
    _row(
        merging.knots,
        (_W, _WS),
        {},
        _KNOTS,
        KNOTS,
        rtol=DECOMPOSED,
    ),
    _row(
        merging.knots,
        (_W, _WS),
        {"shared": "inputs", "scale": 0.6, "method": _ties(0.47)},
        _KNOTS_INPUTS,
        KNOTS,
        rtol=DECOMPOSED,
    ),
    _row(
        merging.knots,
        (_PAIR, _ADAPTED),
        {"rank": 2, "method": _ties(0.35)},
        _KNOTS_ADAPTERS,
        KNOTS,
        rtol=DECOMPOSED,
    ),
    _row(
        merging.fisher,
        (TREES, FISHERS),
        {},
        _fisher(lambda f: np.maximum(f, 1e-6)),
        FISHER,
    ),
    _row(
        merging.fisher,
        (TREES, FISHERS),
        {"weights": WEIGHTS, "floors": "add", "floor": 0.05},
        _fisher(lambda f: f + 0.05, WEIGHTS),
        FISHER,
    ),
    _row(
        merging.fisher,
        (TREES, FISHERS),
        {"weights": WEIGHTS, "normalize": True},
        _fisher(
            lambda f: np.maximum(f, 1e-6),
            [w / n for w, n in zip(WEIGHTS, _norms(), strict=True)],
        ),
        FISHER_CODE,
    ),
    _row(
        merging.fisher,
        (TREES, FISHERS),
        {"weights": WEIGHTS, "floors": "add", "floor": 1e-12, "normalize": True},
        _FUSION_BENCH_FISHER,
        FUSION_BENCH + "arXiv:2111.09832",
    ),
    _row(
        merging.fisher_leaf,
        (_stack("v"), np.stack([f["v"] for f in FISHERS])),
        {"floor": 0.3},
        _fisher(lambda f: np.maximum(f, 0.3))[:5],
        FISHER,
        np.asarray,
    ),
    _row(
        merging.fisher_diagonal,
        (_logits_fn, BASE["w"], INPUTS[0]),
        {},
        _diagonal(),
        "numpy f64 oracle of arXiv:2111.09832 eq. 2",
        np.asarray,
        1e-5,
    ),
    _row(
        merging.fisher_diagonal,
        (_logits_fn, BASE["w"], INPUTS[0]),
        {"labels": _LABELS},
        _diagonal(_LABELS),
        "numpy f64 oracle of arXiv:2111.09832 eq. 2, with labels",
        np.asarray,
        1e-5,
    ),
    _row(merging.regmean, (TREES, GRAMS), {}, _regmean(0.9), REGMEAN, rtol=1e-4),
    _row(
        merging.regmean,
        (TREES, GRAMS),
        {"alpha": 0.3},
        _FUSION_BENCH_REGMEAN,
        FUSION_BENCH + "arXiv:2212.09849",
        rtol=1e-4,
    ),
    _row(
        merging.regmean_leaf,
        (_stack("w").swapaxes(1, 2), np.stack([g["w"] for g in GRAMS])),
        {"inputs": "last"},
        _regmean(0.9)[5:].reshape(4, 6).T,
        REGMEAN,
        np.asarray,
        1e-4,
    ),
    _row(
        merging.gram,
        (INPUTS[0],),
        {},
        np.float64(INPUTS[0]).T @ INPUTS[0] / 9,
        REGMEAN,
        np.asarray,
    ),
    _row(
        merging.adamerging,
        (BASE, TREES),
        {"coefficients": [0.3, 0.3, 0.3]},
        _clipped([0.3] * 3),
        ADA,
    ),
    _row(
        merging.adamerging,
        (BASE, TREES),
        {"coefficients": [-0.2, 0.6, 1.4]},
        _clipped([-0.2, 0.6, 1.4]),
        ADA,
    ),
    _row(
        merging.fit_coefficients,
        (_quadratic, jnp.full(2, 0.3), jnp.array([1.0, 0.0, 2.0])),
        {"optimizer": optax.sgd(0.1)},
        _descent(),
        ADA,
        _fit,
    ),
    _row(
        merging.darex_q,
        (BASE, TREES[0]),
        {"density": 0.5, "mask": _MASK},
        _darex(0.5),
        DAREX,
    ),
    _row(
        merging.darex_q,
        (BASE, TREES[0]),
        {"density": 0.5, "q": 0.8, "mask": _MASK},
        _darex(0.8),
        DAREX,
    ),
    *[
        _row(merging.darex_rescale, (CONTRIBUTIONS,), kwargs, q, DAREX_CODE, np.asarray)
        for kwargs, q in (
            ({"density": 0.05}, 0.5033333333333334),
            ({"density": 0.1, "eta": 0.8, "gamma": 0.9, "enough": 1.0}, 0.46),
            ({"density": 0.01, "eta": 0.6, "enough": 0.5}, 0.31133333333333335),
        )
    ],
    _row(
        merging.robust_weight_signature,
        (BASE, TREES[0], TREES[1]),
        {},
        _SIGNATURE,
        "VITA-Group/Robust_Weight_Signatures@4c796da in float64, arXiv:2302.12480",
    ),
    _row(
        merging.patch_weights,
        (BASE, _SIGNATURES),
        {},
        _each(lambda b, x, y: b + (x + y) / 2, BASE, *_SIGNATURES),
        RWS,
    ),
    _row(
        merging.patch_weights,
        (BASE, _SIGNATURES),
        {"weights": [0.7, -0.4]},
        _each(lambda b, x, y: b + 0.7 * x - 0.4 * y, BASE, *_SIGNATURES),
        RWS,
    ),
    _row(
        merging.wise_ft,
        (BASE, TREES[0]),
        {},
        _each(lambda b, t: (b + t) / 2, BASE, TREES[0]),
        WISE,
    ),
    _row(
        merging.wise_ft,
        (BASE, TREES[0]),
        {"alpha": 0.8},
        _each(lambda b, t: 0.2 * b + 0.8 * t, BASE, TREES[0]),
        WISE,
    ),
    _row(merging.overconfidence, (_Q, _P), {}, _sure(_P) / _sure(_Q), BANG, np.asarray),
    _row(
        merging.calibrated_ensemble,
        (_Q, _P),
        {},
        (np.float64(_Q) + _P) / 2,
        BANG,
        np.asarray,
    ),
    _row(
        merging.calibrated_ensemble,
        (_Q, _P),
        {"temperature": 2.5, "alpha": 0.3},
        0.7 * np.float64(_Q) + 0.3 * np.float64(_P) / 2.5,
        BANG,
        np.asarray,
    ),
    _row(
        merging.confidence_temperature,
        (_Q, _P),
        {},
        _temperature(),
        BANG,
        np.asarray,
        1e-5,
    ),
    _row(
        merging.false_false_true,
        (
            np.float32([[2, 3, 0], [3, 0, 0], [3, 0, 0], [0, 3, 0]]),
            np.float32([[2, 0, 3], [2, 0, 0], [0, 9, 0], [0, 1, 0]]),
            np.float32([[4, 3, 3], [5, 0, 0], [3, 9, 0], [0, 4, 0]]),
            np.zeros(4, np.int32),
        ),
        {},
        [0.25, 0.0, 0.5, 0.5, 0.25],
        "counted by hand, arXiv:2309.17230",
        np.asarray,
    ),
    _row(
        merging.self_position, (BASE, TREES), {}, _positioned(np.zeros(3), 1), POSITION
    ),
    _row(
        merging.self_position,
        (BASE, TREES),
        {"logits": [0.5, -1.0, 0.2], "scale": 1.4},
        _positioned(np.array([0.5, -1.0, 0.2]), 1.4),
        POSITION,
    ),
    _row(
        merging.metrics_weighted,
        (TREES, [2.0, 1.0, 4.0]),
        {},
        _interpolated(np.array([2, 4, 1]) / 7),
        MWA,
    ),
    _row(
        merging.metrics_weighted,
        (TREES, [1.0, 2.0, 3.0]),
        {"better": "higher", "penalty": 2.0},
        _interpolated(np.array([1, 4, 9]) / 14),
        MWA,
    ),
    _row(
        merging.metric_weights,
        ([2.0, 1.0, 4.0],),
        {},
        np.array([2, 4, 1]) / 7,
        MWA,
        np.asarray,
    ),
    _row(
        merging.metric_weights,
        ([1.0, 2.0, 3.0],),
        {"better": "higher", "penalty": 2.0},
        np.array([1, 4, 9]) / 14,
        MWA,
        np.asarray,
    ),
    _row(
        merging.neon,
        (BASE, TREES[0]),
        {},
        _each(lambda b, t: 2 * b - t, BASE, TREES[0]),
        NEON,
    ),
    _row(
        merging.neon,
        (BASE, TREES[0]),
        {"weight": 0.3},
        _each(lambda b, t: 1.3 * b - 0.3 * t, BASE, TREES[0]),
        NEON,
    ),
    _row(
        merging.neon_alignment,
        (TREES[1], BASE, TREES[0]),
        {},
        flat(_f64(TREES[1]))
        @ (flat(_f64(TREES[0])) - flat(_f64(BASE)))
        / np.linalg.norm(flat(_f64(TREES[1])))
        / np.linalg.norm(flat(_f64(TREES[0])) - flat(_f64(BASE))),
        NEON,
        np.asarray,
        1e-5,
    ),
    _row(
        merging.greedy_soup,
        (_JAX, _score),
        {},
        _greedy(),
        SOUP,
        lambda soup: flat(soup.tree),
    ),
    _row(merging.ema, (0.6,), {}, _ema(0.6), EMA, _last),
    _row(merging.ema, (0.9,), {"debias": True}, _ema(0.9, True), EMA, _last),
    _row(
        merging.swa,
        (),
        {},
        np.mean([np.float64(t["v"]) for t in TREES], axis=0),
        "numpy f64 oracle of arXiv:1803.05407 alg. 1",
        _last,
    ),
    _row(
        merging.swa,
        (),
        {"start": 1},
        np.mean([np.float64(t["v"]) for t in TREES[1:]], axis=0),
        "numpy f64 oracle of arXiv:1803.05407 alg. 1",
        _last,
    ),
    _row(
        merging.lawa,
        (),
        {},
        np.mean([np.float64(t["v"]) for t in TREES], axis=0),
        "numpy f64 oracle of arXiv:2209.14981 section 2",
        _last,
    ),
    _row(
        merging.lawa,
        (2,),
        {},
        np.mean([np.float64(t["v"]) for t in TREES[1:]], axis=0),
        "numpy f64 oracle of arXiv:2209.14981 section 2",
        _last,
    ),
    _row(
        merging.extract_lora,
        (BASE, TREES[0]),
        {"rank": 2},
        _low_rank(2),
        LORA,
        lambda lora: lora["w"].a @ lora["w"].b,
        DECOMPOSED,
    ),
    _row(
        merging.fold_lora,
        (BASE, _LORA),
        {"scale": 0.5},
        flat(
            {
                "v": BASE["v"],
                "w": np.float64(BASE["w"])
                + 0.5 * np.float64(INPUTS[0][:4, :2]) @ BASE["w"][:2],
            }
        ),
        LORA,
    ),
    _row(
        merging.assemble_modules,
        ([TREES[0]["v"], TREES[1]["v"]], [TREES[2]["v"], BASE["v"]]),
        {"use": 0},
        np.concatenate([TREES[2]["v"], TREES[1]["v"]]),
        "by hand, arXiv:2212.04129",
        np.concatenate,
    ),
]
