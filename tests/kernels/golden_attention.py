"""The attentions' numbers: the authors' code in float64, and oracles in numpy.

What was run: HazyResearch/lolcats, with its casts to float32 made casts to float64, and
OpenNLPLab/lightning-attention, both under torch 2.13.0 on a CPU.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxtricks.kernels import (
    attention_logit_max,
    attention_transfer_loss,
    hedgehog_feature_map,
    hybrid_window_linear_attention,
    hybrid_window_linear_attention_step,
    lightning_decay,
    lightning_linear_attention,
    lightning_linear_attention_step,
    long_short_attention,
    lrpe,
    simple_glu,
)
from tests.case import Golden

ONE_TENTH = -np.log(9)  # the log-odds
LOLCATS = "HazyResearch/lolcats@375df84, arXiv:2410.10254"
LIGHTNING_CODE = "OpenNLPLab/lightning-attention@d15c385, arXiv:2307.14995"
HYBRID_ORACLE = "numpy f64 oracle of arXiv:2410.10254, sliding windows"
LIGHTNING_ORACLE = "numpy f64 oracle of arXiv:2307.14995, all pairs of positions"
LONG_SHORT = "numpy f64 oracle of arXiv:2505.15548, bands and all before"


def _normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def _double(*arrays):
    return [np.asarray(x, np.float64) for x in arrays]


def _pairs(length):
    """The position of the query and of the key."""
    return np.arange(length)[:, None], np.arange(length)[None, :]


def _scores(q, k):
    q, k = _double(q, k)
    return np.einsum("...tf,...sf->...ts", q, k)


def _values(weights, v):
    return np.einsum("...ts,...sv->...tv", weights, np.asarray(v, np.float64))


# --- LoLCATs --------------------------------------------------------------------------

_rng = np.random.default_rng(2410)
Q, K, V = (_normal(_rng, 1, 2, 7, n) for n in (3, 3, 2))
WEIGHT_Q, WEIGHT_K = (_normal(_rng, 2, 3, 2) for _ in range(2))
FACTOR = np.array([-1.5, 0.75], np.float32)
LIVE = np.array([[[1, 1, 0, 1, 1, 1, 0], [0, 1, 1, 1, 0, 1, 1]]], bool)


def _features(x, weight):
    """The feature map, whose largest member is no smaller than 1e-12 anyway."""
    half = np.einsum("...lf,...fh->...lh", *_double(x, weight))
    both = [np.exp(half), np.exp(-half)]
    return np.concatenate([x / x.sum(-1, keepdims=True) for x in both], -1)


PHI_Q, PHI_K = (
    x.astype(np.float32) for x in map(_features, (Q, K), (WEIGHT_Q, WEIGHT_K))
)


def _hybrid(window, terraced, factor=ONE_TENTH, affine=False, where=None):
    """Softmax weights in the window and linear ones before it, of all pairs."""
    t, s = _pairs(7)
    live = np.ones((1, 2, 7), bool) if where is None else where
    if window == 0:
        near = (s < t) & False
    else:
        near = s // window >= t // window - 1 if terraced else s > t - window
    seen = (s <= t) & live[..., None, :]
    scores = _scores(Q, K) / np.sqrt(3)
    scores = np.where(seen & near, scores, -1e9)
    top = np.max(scores, -1, keepdims=True)
    g = 1 / (1 + np.exp(-np.reshape(factor, (-1, 1, 1)).astype(np.float64)))
    softmax = g * np.where(seen & near, np.exp(scores - top), 0)
    linear = np.where(seen & ~near, _scores(PHI_Q, PHI_K), 0) * (1 - g if affine else 1)
    weights = softmax + linear
    total = weights.sum(-1, keepdims=True)
    return np.where(live[..., None], _values(weights / np.maximum(total, 1e-30), V), 0)


PHI = [
    [0.7599176048, 0.2400823952, 0.2400823952, 0.7599176048],
    [0.6507139437, 0.3492860563, 0.3492860563, 0.6507139437],
    [0.2625342184, 0.7374657816, 0.7374657816, 0.2625342184],
    [0.9748329363, 0.0251670637, 0.0251670637, 0.9748329363],
    [0.9781239867, 0.0218760133, 0.0218760133, 0.9781239867],
    [0.0430045435, 0.9569954565, 0.9569954565, 0.0430045435],
    [0.8452601086, 0.1547398914, 0.1547398914, 0.8452601086],
    [0.0183858336, 0.9816141664, 0.9816141664, 0.0183858336],
    [0.4886611069, 0.5113388931, 0.5113388931, 0.4886611069],
    [0.8295046317, 0.1704953683, 0.1704953683, 0.8295046317],
    [0.4505939816, 0.5494060184, 0.5494060184, 0.4505939816],
    [0.2690254557, 0.7309745443, 0.7309745443, 0.2690254557],
    [0.8667959251, 0.1332040749, 0.1332040749, 0.8667959251],
    [0.2112814756, 0.7887185244, 0.7887185244, 0.2112814756],
]
TERRACED_2 = [
    [-0.3395955563, -1.495742321],
    [-0.9920505004, -1.1315792161],
    [-0.8878081872, -0.9505459228],
    [-1.0097588892, 0.651384099],
    [-0.7134973035, -1.0069298203],
    [-0.7630519996, -0.8672197153],
    [-0.2706760466, 0.0320268907],
    [0.6875025261, -1.2731284268],
    [0.7454128898, -1.03576341],
    [0.8037523678, 0.0088336494],
    [0.417745572, -0.4654476165],
    [0.3526660193, 0.0143376772],
]
TERRACED_3_AFFINE = [
    [-0.3395955563, -1.495742321],
    [-0.9920505004, -1.1315792161],
    [-0.8878081872, -0.9505459228],
    [-1.0097588892, 0.651384099],
    [-0.7334756802, -0.1005837262],
    [-0.7193248033, 0.4093612097],
    [-0.2706760466, 0.0320268907],
    [0.6875025261, -1.2731284268],
    [0.7454128898, -1.03576341],
    [0.8037523678, 0.0088336494],
    [0.2024186098, -0.0617818267],
    [0.4111381563, 0.0604381704],
]
SLIDING_3 = [
    [-0.3395955563, -1.495742321],
    [-0.9920505004, -1.1315792161],
    [-0.8878081872, -0.9505459228],
    [-0.4573079848, -1.118605207],
    [-0.7134973035, -1.0069298203],
    [-0.8726620768, -0.3116201397],
    [-0.6934393516, 0.1838989214],
    [-0.2706760466, 0.0320268907],
    [0.6875025261, -1.2731284268],
    [0.7454128898, -1.03576341],
    [0.4243928144, 0.017022727],
    [0.417745572, -0.4654476165],
    [0.5676733977, 0.0046700062],
    [0.6905843262, -0.0969914218],
]
SLIDING_1_AFFINE = [
    [-0.3395955563, -1.495742321],
    [-0.483095223, -1.4156489986],
    [-0.8061351759, -1.0297807108],
    [-0.7980420138, -0.4216804434],
    [-0.6493780449, 0.2678096224],
    [-0.8180239345, -0.1498980055],
    [-0.7027625132, 0.0768297146],
    [-0.2706760466, 0.0320268907],
    [0.4055702251, -0.8891024715],
    [0.8036171076, -0.2198875636],
    [0.6829820492, 0.1599853166],
    [0.250454517, -0.1188902458],
    [0.5624276786, 0.088080081],
    [0.7972381862, -0.1308731303],
]
LARGE_SCORES = [
    [-0.3395955563, -1.495742321],
    [-1.1530320644, -1.0417284966],
    [-1.1530320644, -1.0417284966],
    [-1.1269929409, 0.977550745],
    [-0.7196606534, -1.1881853091],
    [-0.7714327082, -1.0931473171],
    [-0.2706760466, 0.0320268907],
    [0.7256640196, -1.325109005],
    [0.7256640196, -1.325109005],
    [0.8267009854, 1.0545601845],
    [0.323090192, -0.6912721343],
    [0.138694365, -0.3649581254],
]
LINEAR = [
    [-0.3395955563, -1.495742321],
    [-0.7314342047, -1.2770403552],
    [-0.8934408284, -0.4835842289],
    [-0.6666890923, 0.2617055201],
    [-0.5723469442, 0.2904951582],
    [-0.9072311822, -0.2833532091],
    [-0.6838149482, 0.1026068617],
    [-0.2706760466, 0.0320268907],
    [0.2305460351, -0.6506983172],
    [0.6023143348, -0.2972323418],
    [0.6458455054, -0.0711701567],
    [0.3812220106, -0.107867803],
    [0.4946146738, 0.0125800159],
    [0.6613621005, -0.0941415659],
]
BY_Q = [
    [0.0, 0.0, 0.0],
    [0.0489100599, -0.0582970974, 0.0121018779],
    [0.2597890013, 0.029488519, -0.3241951146],
    [-0.1557874758, -0.2464241787, 0.4864523654],
    [-0.1422664494, -0.2463778916, 0.0496646841],
    [0.1527758657, 0.0732891765, -0.0807558687],
    [0.0, 0.0, 0.0],
    [0.1402055814, 0.2440364002, -0.1378795455],
    [0.2215526619, 0.5251038536, -0.200982363],
    [0.0952545005, 0.0342212866, -0.0900432004],
    [-0.0172602559, -0.1132687969, 0.0157860714],
    [-0.0038168187, -0.0454601359, 0.0024855681],
]
BY_K = [
    [0.2582142205, 0.173858993, -0.3997579745],
    [0.2852874778, -0.1714270802, -0.3876249078],
    [-0.7774218598, -0.0148796422, 0.6920695063],
    [0.2027312976, -0.0319988454, 0.0994182493],
    [0.0201712987, 0.0482696855, -0.0092252348],
    [0.0110175652, -0.0038231107, 0.0051203614],
    [-0.4927627171, -0.397933949, -0.1792605285],
    [0.5714557739, 0.5285774961, 0.3364252995],
    [-0.1313651518, -0.2172652688, -0.1122018418],
    [0.0203126537, 0.0299390815, -0.0155961708],
    [0.0310115782, 0.0492775083, -0.0493244771],
    [0.0013478631, 0.0074051319, 0.0199577186],
]
BY_FACTOR = [-0.8788484639, 0.0064505353]
LIGHTNING = [
    [1.3330483, -2.4087005],
    [0.7909558, 2.6362338],
    [3.4180696, 0.6010385],
    [3.9268188, 2.1154244],
    [-0.494918, 2.1503754],
    [4.374024, 0.9114637],
    [-0.3363914, 3.904173],
    [-0.0960824, 2.981142],
    [-2.3329558, 0.6052895],
    [-5.8185015, -7.308168],
    [-0.0957372, -4.7139263],
    [1.0405294, 2.0228972],
    [-3.5484285, -1.6316223],
    [-0.816947, 3.3698328],
    [0.7476839, -0.1711556],
    [1.4246142, -3.216661],
    [-1.7689464, -6.7035503],
    [0.4090937, 8.734139],
    [5.165682, 7.616732],
    [2.4640865, -0.7064965],
    [-0.6828327, -1.979501],
    [-0.5865804, 1.6204402],
    [4.354458, 0.5741894],
    [-0.6727791, 0.1378795],
    [0.0389609, 5.7057295],
    [-4.8182874, -8.593206],
    [-2.9423857, -3.4494762],
    [9.331414, 11.531052],
    [0.4282394, -1.1802065],
    [0.1079698, -0.4028222],
    [0.2045985, -0.7301209],
    [0.3626702, -0.2941545],
    [-0.0277473, -2.9786336],
    [-0.1121578, 0.3895363],
    [-0.5669396, 1.8627987],
    [0.0306275, 0.0184277],
    [-0.8861336, -2.9490287],
    [-1.9671406, -4.1651964],
    [-2.0008879, 3.0970194],
    [1.8309224, -3.8493633],
    [-0.3143232, 2.9461982],
    [-3.4431033, 1.2506123],
]
TRANSFER = 256.47678799
SLOPES_12 = [*(0.5**h for h in range(1, 9)), *(0.5 ** (h + 0.5) for h in range(4))]


def _flat(x):
    return np.reshape(x, (-1, np.shape(x)[-1]))


def _first(length):
    return tuple(x[..., :length, :] for x in (Q, K, V, PHI_Q, PHI_K))


def _row(expect, origin, length=7, pick=_flat, rtol=2e-6, atol=2e-7, **kwargs):
    fn = hybrid_window_linear_attention
    return Golden(fn, _first(length), kwargs, expect, origin, pick, rtol, atol)


def _oracle(window, terraced, block=None, **kwargs):
    expect = _flat(_hybrid(window, terraced, **kwargs))
    if "factor" in kwargs:
        kwargs["window_factor"] = kwargs.pop("factor")
    static = {"window": window, "terraced": terraced, "block": block}
    return _row(expect, HYBRID_ORACLE, **static, **kwargs)


def _gradients():
    """d sum(out^2) / d (q, k, window_factor), in blocks that do not come out even."""
    q, k, *rest = _first(6)

    def objective(q, k, factor):
        kwargs = {"window": 2, "window_factor": factor, "block": 4}
        return jnp.sum(hybrid_window_linear_attention(q, k, *rest, **kwargs) ** 2)

    def pick(_):
        grads = jax.jit(jax.grad(objective, (0, 1, 2)))(q, k, FACTOR)
        return np.concatenate([np.ravel(x) for x in grads])

    expect = np.concatenate([np.ravel(x) for x in (BY_Q, BY_K, BY_FACTOR)])
    return _row(expect, LOLCATS, 6, pick, rtol=1e-5, atol=1e-6)


def _in_double(window, terraced):
    def pick(_):
        with jax.enable_x64(True):
            args = [jnp.asarray(x, jnp.float64) for x in _first(7)]
            kwargs = {"window": window, "terraced": terraced, "block": 3}
            return np.asarray(hybrid_window_linear_attention(*args, **kwargs))

    expect = _hybrid(window, terraced)
    return _row(expect, HYBRID_ORACLE, pick=pick, rtol=1e-13, atol=1e-14)


def _stepwise(cuts, fn, args, expect, origin, **kwargs):
    """The sequence in parts, from state to state."""

    def part(start, stop):
        return tuple(x[..., start:stop, :] for x in args)

    def pick(result):
        state, out = result
        outs, step = [out], jax.jit(functools.partial(fn, **kwargs))
        for start, stop in zip(cuts, [*cuts[1:], 7], strict=True):
            state, out = step(state, *part(start, stop))
            outs.append(out)
        return np.concatenate(outs, axis=-2)

    first = (None, *part(0, cuts[0]))
    return Golden(fn, first, kwargs, expect, origin, pick, 2e-6, 2e-6)


HYBRID_ROWS = [
    _row(TERRACED_2, LOLCATS, 6, window=2, window_factor=FACTOR),
    _row(TERRACED_3_AFFINE, LOLCATS, 6, window=3, window_factor=FACTOR, affine=True),
    _row(SLIDING_3, LOLCATS, window=3, terraced=False, window_factor=FACTOR, block=2),
    _row(
        SLIDING_1_AFFINE,
        LOLCATS,
        window=1,
        terraced=False,
        window_factor=FACTOR,
        affine=True,
    ),
    Golden(
        hybrid_window_linear_attention,
        (40 * Q[..., :6, :], 40 * K[..., :6, :], *_first(6)[2:]),
        {"window": 2},
        LARGE_SCORES,
        LOLCATS,
        _flat,
        2e-6,
        2e-6,
    ),
    _row(LINEAR, LOLCATS, window=0),
    _row(LINEAR, LOLCATS, window=0, terraced=False, affine=True, block=2),
    _oracle(64, True),
    _oracle(4, True, 3),
    _oracle(2, True, 3, where=LIVE),
    _oracle(2, False, 3, where=LIVE, factor=FACTOR),
    _oracle(3, False, 2, factor=FACTOR, affine=True),
    _in_double(2, True),
    _in_double(3, False),
    _gradients(),
    *(
        _stepwise(
            cuts,
            hybrid_window_linear_attention_step,
            (Q, K, V, PHI_Q, PHI_K),
            _hybrid(window, terraced),
            HYBRID_ORACLE,
            window=window,
            terraced=terraced,
            block=2,
        )
        for cuts, window, terraced in [
            ((1, 2, 3, 4, 5, 6), 2, True),
            ((1, 2, 3, 4, 5, 6), 3, False),
            ((5, 6), 3, True),
            ((2, 5), 1, False),
            ((3,), 64, True),
            ((3,), 0, True),
        ]
    ),
    Golden(
        hedgehog_feature_map,
        (Q, WEIGHT_Q),
        {},
        PHI,
        LOLCATS,
        _flat,
        atol=1e-7,
    ),
    Golden(
        hedgehog_feature_map,
        (np.array([[40.0]], np.float32), np.array([[-1.0, 1.0]], np.float32)),
        {},
        [[1e-12, 1, 1, 1e-12]],
        "e^-80 is below eps, arXiv:2410.10254",
    ),
    Golden(
        hedgehog_feature_map,
        (Q, WEIGHT_Q),
        {"eps": 0.3, "where": LIVE},
        np.where(LIVE[..., None], np.maximum(_features(Q, WEIGHT_Q), 0.3), 0),
        "numpy f64 oracle of arXiv:2410.10254",
    ),
    Golden(
        attention_transfer_loss,
        (
            _hybrid(3, False).astype(np.float32),
            _hybrid(7, False).astype(np.float32),
        ),
        {},
        1000 * np.mean((_hybrid(3, False) - _hybrid(7, False)) ** 2, -1),
        "numpy f64 oracle of arXiv:2410.10254, attention transfer",
        atol=1e-5,
    ),
    Golden(
        attention_transfer_loss,
        (_hybrid(2, False).astype(np.float32), _hybrid(7, False).astype(np.float32)),
        {},
        TRANSFER,
        LOLCATS,
        np.mean,
    ),
    Golden(
        attention_transfer_loss,
        (V[0], K[0, ..., :2]),
        {"factor": 3.0, "where": LIVE[0]},
        1.5 * LIVE[0] * np.sum(np.subtract(*_double(V[0], K[0, ..., :2])) ** 2, -1),
        "numpy f64 oracle of arXiv:2410.10254, attention transfer",
    ),
]


# --- TransNormerLLM -------------------------------------------------------------------

_rng = np.random.default_rng(2307)
LQ, LK, LV = (_normal(_rng, 2, 3, 7, n) for n in (4, 4, 2))
DECAY = np.array([0.9, 0.5, 1.0], np.float32)
L_LIVE = _rng.random((2, 3, 7)) < 0.7
COTANGENT = _normal(_rng, 2, 3, 7, 2)
THETA = _normal(_rng, 3, 4)
HIDDEN, VALUE, GATE, OUT = (_normal(_rng, *s) for s in ((2, 3), (3, 5), (3, 5), (5, 4)))


def _decays(decay, power):
    """decay^power on and below the diagonal, [heads, 7, 7]."""
    t, s = _pairs(7)
    decay = np.reshape(decay, (-1, 1, 1)).astype(np.float64)
    return np.where(s <= t, decay ** np.maximum(power(t - s), 0), 0)


def _lightning(decay=1.0, where=None, q=LQ, k=LK):
    live = np.ones((2, 3, 7), bool) if where is None else where
    seen = live[..., None, :] & live[..., None]
    weights = np.where(seen, _scores(q, k) * _decays(decay, lambda gap: gap), 0)
    return _values(weights, LV)


def _lightning_row(atol=3e-6, **kwargs):
    formula = {k: v for k, v in kwargs.items() if k != "block"}
    return Golden(
        lightning_linear_attention,
        (LQ, LK, LV),
        kwargs,
        _lightning(**formula),
        LIGHTNING_ORACLE,
        atol=atol,
    )


def _lightning_gradients():
    """d sum(COTANGENT out) / d (q, k, v, decay), by hand."""

    def objective(q, k, v, decay):
        out = lightning_linear_attention(q, k, v, decay=decay, block=3)
        return jnp.sum(COTANGENT * out)

    def pick(_):
        grads = jax.jit(jax.grad(objective, (0, 1, 2, 3)))(LQ, LK, LV, DECAY)
        return np.concatenate([np.ravel(x) for x in grads])

    q, k, v, g = _double(LQ, LK, LV, COTANGENT)
    powers = _decays(DECAY, lambda gap: gap)
    t, s = _pairs(7)
    slopes = np.maximum(t - s, 0) * _decays(DECAY, lambda gap: gap - 1)
    by_weight = _scores(g, v)
    by_v = np.einsum("...ts,...tv->...sv", _scores(q, k) * powers, g)
    by_q = np.einsum("...ts,...sf->...tf", by_weight * powers, k)
    by_k = np.einsum("...ts,...tf->...sf", by_weight * powers, q)
    by_decay = np.sum(by_weight * _scores(q, k) * slopes, (0, 2, 3))
    expect = np.concatenate([np.ravel(x) for x in (by_q, by_k, by_v, by_decay)])
    return Golden(
        lightning_linear_attention,
        (LQ, LK, LV),
        {},
        expect,
        LIGHTNING_ORACLE,
        pick,
        atol=1e-5,
    )


def _lightning_double():
    def pick(_):
        with jax.enable_x64(True):
            args = [jnp.asarray(x, jnp.float64) for x in (LQ, LK, LV, DECAY)]
            out = lightning_linear_attention(*args[:3], decay=args[3], block=2)
            return np.asarray(out)

    return Golden(
        lightning_linear_attention,
        (LQ, LK, LV),
        {},
        _lightning(DECAY),
        LIGHTNING_ORACLE,
        pick,
        rtol=1e-13,
        atol=1e-14,
    )


def _last_state():
    """sum_s decay^(6-s) k_s v_s^T."""
    k, v, decay = _double(LK, LV, DECAY)
    k = k * decay[:, None, None] ** (6 - np.arange(7.0))[:, None]
    expect = np.einsum("...sf,...sv->...fv", k, v)
    return Golden(
        lightning_linear_attention_step,
        (None, LQ, LK, LV),
        {"decay": DECAY, "block": 3},
        expect,
        LIGHTNING_ORACLE,
        lambda result: result[0].kv,
        atol=2e-6,
    )


def _turned(x, theta, offset=0):
    x, theta = _double(x, theta)
    angle = (offset + np.arange(x.shape[-2]))[:, None] * theta[:, None, :]
    return np.concatenate([x * np.cos(angle), x * np.sin(angle)], -1)


def _relative():
    """Scores of turned queries and keys: the real part of exp(i theta (t - s))."""
    t, s = _pairs(7)
    turn = np.cos(THETA.astype(np.float64)[:, None, None, :] * (t - s)[..., None])
    q, k = _double(LQ, LK)
    expect = np.einsum("bhtf,bhsf,htsf->bhts", q, k, turn)
    return Golden(
        lrpe,
        (LQ, THETA),
        {"offset": 5},
        expect,
        "numpy f64 oracle of arXiv:2307.14995, position encoding",
        lambda q: np.einsum("...tf,...sf->...ts", q, lrpe(LK, THETA, offset=5)),
        atol=1e-5,
    )


LIGHTNING_ROWS = [
    _lightning_row(),
    _lightning_row(decay=0.7, block=3),
    _lightning_row(decay=DECAY, block=2),
    _lightning_row(decay=DECAY, block=7, where=L_LIVE),
    _lightning_row(decay=0.01, block=5, where=L_LIVE),
    Golden(
        lightning_linear_attention,
        (LQ, LK, LV),
        {"decay": np.exp(-0.75001 * np.array([0.0625, 0.00390625, 0.25], np.float32))},
        LIGHTNING,
        LIGHTNING_CODE,
        _flat,
        1e-5,
        1e-5,
    ),
    _lightning_gradients(),
    _lightning_double(),
    _last_state(),
    *(
        _stepwise(
            cuts,
            lightning_linear_attention_step,
            (LQ, LK, LV),
            _lightning(DECAY),
            LIGHTNING_ORACLE,
            decay=DECAY,
            block=2,
        )
        for cuts in [(1, 2, 3, 4, 5, 6), (3,), (5, 6)]
    ),
    Golden(
        lightning_decay,
        (4,),
        {},
        np.exp([-2, -4, -6, -8]),
        "by hand, arXiv:2307.14995",
    ),
    Golden(
        lightning_decay,
        (3,),
        {"layer": 1, "layers": 4},
        np.exp(-np.array([8 / 3, 16 / 3, 8]) * 3 / 4),
        "by hand, arXiv:2307.14995",
    ),
    Golden(
        lightning_decay,
        (3,),
        {"layer": 1, "layers": 5, "slopes": "geometric"},
        np.exp(-0.75001 * np.array([0.0625, 0.00390625, 0.25])),
        LIGHTNING_CODE,
    ),
    Golden(
        lightning_decay,
        (8,),
        {"layer": 4, "layers": 5, "slopes": "geometric"},
        1e-5 * 0.5 ** np.arange(1, 9),
        LIGHTNING_CODE,
        lambda decay: 1 - np.asarray(decay, np.float64),
        atol=6e-8,
    ),
    Golden(
        lightning_decay,
        (12,),
        {"slopes": "geometric"},
        np.exp(-1.00001 * np.array(SLOPES_12)),
        LIGHTNING_CODE,
    ),
    Golden(
        lrpe,
        (LQ, THETA),
        {},
        _turned(LQ, THETA),
        "numpy f64 oracle of arXiv:2307.14995, position encoding",
        atol=1e-6,
    ),
    _relative(),
    Golden(
        simple_glu,
        (HIDDEN, VALUE, GATE, OUT),
        {},
        np.linalg.multi_dot([*_double(HIDDEN, VALUE)])
        * (HIDDEN.astype(np.float64) @ GATE)
        @ OUT.astype(np.float64),
        "numpy f64 oracle of arXiv:2307.14995, SGLU",
        atol=1e-6,
    ),
]


# --- long-short attention -------------------------------------------------------------


def _softmax_on(seen, where=None):
    live = np.ones((2, 3, 7), bool) if where is None else where
    scores = np.where(seen & live[..., None, :], _scores(LQ, LK) / 2, -1e9)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    out = _values(weights / weights.sum(-1, keepdims=True), LV)
    return np.where(live[..., None], out, 0)


def _long_short(window, short, where=None):
    t, s = _pairs(7)
    heads = np.arange(3)[:, None, None]
    return _softmax_on((s <= t) & ((s > t - window) | (heads >= short)), where)


def _long_short_row(window, short, where=None, **kwargs):
    kwargs |= {} if where is None else {"where": where}
    expect = _long_short(window, short, where)
    return Golden(
        long_short_attention,
        (LQ, LK, LV),
        {"window": window, **kwargs},
        expect,
        LONG_SHORT,
        atol=1e-6,
    )


def _max_row(seen, **kwargs):
    live = kwargs.get("where", np.ones((2, 3, 7), bool))
    seen = seen & live[..., None, :] & live[..., None]
    scores = np.where(seen, _scores(LQ, LK) / 2, -np.inf)
    expect = scores.max((-1, -2))
    return Golden(attention_logit_max, (LQ, LK), kwargs, expect, LONG_SHORT)


_t, _s = _pairs(7)
LONG_SHORT_ROWS = [
    _long_short_row(2, 1),
    _long_short_row(3, 2, short_heads=2, block=2),
    _long_short_row(1, 3, short_heads=3),
    _long_short_row(9, 0, short_heads=2, block=3),
    _long_short_row(2, 1, where=L_LIVE, block=4),
    _max_row(_s <= _t),
    _max_row(_s <= _t, where=L_LIVE, block=2),
    _max_row((_s <= _t) & (_s > _t - 2), window=2, block=3),
    _max_row(_s > -1, is_causal=False),
    _max_row(np.abs(_s - _t) < 3, is_causal=False, window=3),
]

ROWS = [*HYBRID_ROWS, *LIGHTNING_ROWS, *LONG_SHORT_ROWS]
