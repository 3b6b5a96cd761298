"""The softmax family: float64 oracles, torch's numbers, XNNPACK's two-pass kernels'."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax import lax

from jaxtricks.kernels import ext_add, ext_exp, log_softmax, logsumexp, softmax
from tests.case import Golden

_rng = np.random.default_rng(2001)
X = (3 * _rng.normal(size=(2, 3, 7))).astype(np.float32)
UP = X + np.float32(1e4)
DOWN = X - np.float32(1e4)
SPREAD = np.where(X > 0, 1e4, -1e4).astype(np.float32) + X
RULED_OUT = np.where(np.arange(7) == 5, -np.inf, X).astype(np.float32)
LIVE = _rng.random((2, 3, 7)) < 0.6
LIVE[1, 2] = False
SPOILED = np.where(LIVE, X, np.nan).astype(np.float32)
COTANGENT = _rng.normal(size=(2, 3, 7)).astype(np.float32)
LONG = (4 * _rng.normal(size=(2, 1009))).astype(np.float32)
TWO_PASS = "numpy f64 oracle of the shares that arXiv:2001.04438 computes"


def _oracle(x, live=None):
    """(shares, their logarithms, log sum) in float64, 0, -inf and -inf of nothing."""
    x = np.asarray(x, np.float64)
    live = (np.ones(x.shape, bool) if live is None else live) & (x > -np.inf)
    x = np.where(live, x, -np.inf)
    peak = np.max(x, axis=-1, keepdims=True)
    peak = np.where(peak > -np.inf, peak, 0)
    e = np.exp(x - peak)
    total = e.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        log_total = np.where(total > 0, np.log(total), 0)
        value = (peak + np.log(total))[..., 0]
    return e / np.where(total > 0, total, 1), x - peak - log_total, value


def _rows(fn, x, which, origin="numpy f64 oracle of the definition", **options):
    """The value, as an oracle has it, of x and of a mask."""
    kwargs = {k: v for k, v in options.items() if k not in ("rtol", "atol")}
    expect = _oracle(x, kwargs.get("where"))[which]
    tolerance = {k: v for k, v in options.items() if k in ("rtol", "atol")}
    if fn is log_softmax:  # the logarithm of a sum near 1, rounded by an ulp
        tolerance["atol"] = 1.2e-7
    return Golden(fn, (x,), kwargs, expect, origin, **tolerance)


def _double(fn, which, origin="numpy f64 oracle of the definition", **kwargs):
    """As `_rows`, in float64 throughout."""

    def pick(_):
        with jax.enable_x64(True):
            return np.asarray(fn(jnp.asarray(SPREAD, jnp.float64), **kwargs))

    expect = _oracle(SPREAD)[which]
    return Golden(fn, (SPREAD,), kwargs, expect, origin, pick, 1e-13, 1e-300)


def _gradient(fn, which, x, live=None, **kwargs):
    """d sum(COTANGENT result) / dx, of the classes that take part."""
    p, _, _ = _oracle(x, live)
    c = COTANGENT.astype(np.float64)
    if live is not None:
        kwargs["where"] = live
        c = np.where(live, c, 0)
    expect = (
        p * (c - np.sum(p * c, axis=-1, keepdims=True)),
        c - p * np.sum(c, axis=-1, keepdims=True),
        p * COTANGENT[..., :1],
    )[which]
    if live is not None:
        expect = np.where(live, expect, 0)

    def total(x):
        out = fn(x, **kwargs)
        weights = COTANGENT if out.ndim == x.ndim else COTANGENT[..., 0]
        return jnp.sum(jnp.where(out > -jnp.inf, out * weights, 0))

    origin = "numpy f64 gradient of the definition (arXiv:2001.04438 if two_pass)"
    pick = lambda _: jax.grad(total)(jnp.asarray(x))  # noqa: E731
    return Golden(fn, (x,), kwargs, expect, origin, pick, 3e-6, 3e-7)


def _low(fn, which, dtype, rtol, **kwargs):
    """Rounded once, at the end; the numbers are those of the rounded input."""
    x = X.astype(dtype)
    pick = lambda out: np.asarray(out, np.float64)  # noqa: E731
    expect = _oracle(x)[which]
    origin = "numpy f64 oracle of the definition (arXiv:2001.04438 if two_pass)"
    return Golden(fn, (x,), kwargs, expect, origin, pick, rtol, 6e-8)


ZERO = np.float32(0), np.float32(-np.inf)


def _halves(x):
    """The sums of e^x of the first four and of the others: numpy's own pairs."""
    x = x.astype(np.float64)
    pairs = []
    for part in (x[:4], x[4:]):
        n = np.round(np.max(part) / np.log(2))
        m = np.sum(np.exp(part - n * np.log(2)))
        pairs.append((np.float32(m), np.float32(n)))
    return tuple(pairs)


# --- others' numbers ------------------------------------------------------------------

XNNPACK = "google/XNNPACK@75db3c0 f32-{}-avx2-p5, arXiv:2001.04438"
NINE = np.array([-3.5, 0.25, 2, -120, 5.75, 7.125, -0.625, 3.375, 6.5], np.float32)
SUMS = {0: (2.2074642, 10), 1000: (1.7868652, 1453), -10000: (2.2846627, -14417)}
SHARES = [
    *(1.3359054e-05, 5.6804146e-04, 3.2688527e-03, 0.0, 0.13899515, 0.54973644),
    *(2.3679487e-04, 1.2928563e-02, 0.29425275),
]
FOUR = np.array([[0.5, -1.25, 2.0, 3.5], [1000.25, 998.5, -1000, 999.75]], np.float32)
TORCH = "torch 2.13.0 torch.{} in float64 (arXiv:2001.04438 if two_pass)"
BY_TORCH = {
    softmax: [
        [0.03884852967827, 0.006750862199445, 0.1741070308578, 0.7802935772645],
        [0.5617016314081, 0.09760910753233, 0.0, 0.3406892610596],
    ],
    log_softmax: [
        [-3.248085049004, -4.998085049004, -1.748085049004, -0.2480850490038],
        [-0.5767844750362, -2.326784475036, -2000.826784475, -1.076784475036],
    ],
    logsumexp: [3.748085049004, 1000.826784475],
}

# x, its mantissa and its exponent by 60 digits of arithmetic: e^x = m 2^n.
PAIRS = [
    (0.0, 1.0, 0),
    (1.0, 1.3591409142295226, 1),
    (-1.0, 0.7357588823428847, -1),
    (0.34375, 1.4102260349257107, 0),
    (0.5, 0.8243606353500641, 1),
]


ROWS = [
    _rows(softmax, X, 0),
    _rows(softmax, UP, 0),
    _rows(softmax, DOWN, 0),
    _rows(softmax, SPREAD, 0),
    _rows(softmax, RULED_OUT, 0),
    _rows(softmax, SPOILED, 0, where=LIVE),
    _rows(softmax, LONG, 0, rtol=4e-6),
    _rows(softmax, X, 0, TWO_PASS, two_pass=True),
    _rows(softmax, UP, 0, TWO_PASS, two_pass=True),
    _rows(softmax, DOWN, 0, TWO_PASS, two_pass=True),
    _rows(softmax, SPREAD, 0, TWO_PASS, two_pass=True),
    _rows(softmax, RULED_OUT, 0, TWO_PASS, two_pass=True),
    _rows(softmax, SPOILED, 0, TWO_PASS, two_pass=True, where=LIVE),
    _rows(softmax, LONG, 0, TWO_PASS, two_pass=True, rtol=4e-6),
    _rows(log_softmax, X, 1),
    _rows(log_softmax, UP, 1),
    _rows(log_softmax, SPREAD, 1),
    _rows(log_softmax, RULED_OUT, 1),
    _rows(log_softmax, SPOILED, 1, where=LIVE),
    _rows(logsumexp, X, 2),
    _rows(logsumexp, UP, 2),
    _rows(logsumexp, DOWN, 2),
    _rows(logsumexp, RULED_OUT, 2),
    _rows(logsumexp, SPOILED, 2, where=LIVE),
    _double(softmax, 0),
    _double(softmax, 0, TWO_PASS, two_pass=True),
    _double(log_softmax, 1),
    _double(logsumexp, 2),
    *(
        row
        for dtype, ulp in ((ml_dtypes.bfloat16, 2**-8), (np.float16, 2**-11))
        for row in (
            _low(softmax, 0, dtype, ulp),
            _low(softmax, 0, dtype, ulp, two_pass=True),
            _low(log_softmax, 1, dtype, ulp),
            _low(logsumexp, 2, dtype, 2e-6),
        )
    ),
    *(
        _gradient(fn, which, x, live, **kwargs)
        for fn, which, kwargs in (
            (softmax, 0, {}),
            (softmax, 0, {"two_pass": True}),
            (log_softmax, 1, {}),
            (logsumexp, 2, {}),
        )
        for x, live in ((X, None), (UP, None), (SPOILED, LIVE))
    ),
    *(
        Golden(fn, (FOUR,), kwargs, expect, TORCH.format(fn.__name__), rtol=rtol)
        for fn, expect in BY_TORCH.items()
        for kwargs in ([{}, {"two_pass": True}] if fn is softmax else [{}])
        for rtol in (2e-6 if fn is not log_softmax else 4e-6,)
    ),
    *(
        Golden(
            softmax,
            (NINE + np.float32(up),),
            {"two_pass": True},
            SHARES,
            XNNPACK.format("vscaleextexp"),
            atol=1e-38,
        )
        for up in SUMS
    ),
    *(
        Golden(
            fn,
            args(NINE + np.float32(up)),
            {},
            found,
            XNNPACK.format("raddextexp"),
            pick,
            1e-6,
        )
        for up, found in SUMS.items()
        for fn, args, pick in (
            (
                ext_exp,
                lambda x: (x,),
                lambda pair: lax.reduce(pair, ZERO, ext_add, (0,)),
            ),
            (ext_add, _halves, lambda pair: pair),
        )
    ),
    Golden(
        ext_exp,
        (np.array([x for x, _, _ in PAIRS], np.float32),),
        {},
        [[m for _, m, _ in PAIRS], [n for _, _, n in PAIRS]],
        "60 digits of arithmetic, arXiv:2001.04438 sec. 3",
        rtol=2e-7,
    ),
    Golden(
        ext_add,
        (
            (np.float32([1.25, 0.75, 1.0]), np.float32([3, -200, 7])),
            (np.float32([1.0, 1.25, 0.0]), np.float32([5, -198, -np.inf])),
        ),
        {},
        [[1.3125, 1.4375, 1.0], [5, -198, 7]],
        "by hand: 10 + 32 = 1.3125 2^5 and so on, arXiv:2001.04438 sec. 3",
        rtol=0,
    ),
]
