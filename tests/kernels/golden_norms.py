"""The norms: float64 oracles with hand-written gradients, torch's and the authors'."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from jaxtricks.kernels import (
    add_crms_norm,
    add_layer_norm,
    add_rms_norm,
    crms_norm,
    layer_norm,
    rms_norm,
)
from tests.case import Golden

_rng = np.random.default_rng(2305)
X = (2 * _rng.normal(size=(2, 3, 5)) + 0.5).astype(np.float32)
RESIDUAL = _rng.normal(size=(2, 3, 5)).astype(np.float32)
SCALE = (1 + _rng.normal(size=5) / 2).astype(np.float32)
BIAS = _rng.normal(size=5).astype(np.float32)
COTANGENT = _rng.normal(size=(2, 3, 5)).astype(np.float32)
FAR = (X + np.float32(1e4)).astype(np.float32)

KINDS = {layer_norm: "layer", rms_norm: "rms", crms_norm: "crms"}
ADDS = {add_layer_norm: layer_norm, add_rms_norm: rms_norm, add_crms_norm: crms_norm}
PAPERS = {
    "layer": "arXiv:1607.06450 eq. 4",
    "rms": "arXiv:1910.07467 eq. 4",
    "crms": "arXiv:2305.14858 sec. 3",
}


def _whole(kind, x):
    """The vectors that are normalized: with the feature that crms leaves out."""
    x = np.asarray(x, np.float64)
    if kind == "layer":
        return x - x.mean(axis=-1, keepdims=True)
    if kind == "crms":
        return np.concatenate([x, -x.sum(axis=-1, keepdims=True)], axis=-1)
    return x


def _rstd(kind, x, eps):
    square = np.mean(_whole(kind, x) ** 2, axis=-1, keepdims=True) + eps
    with np.errstate(divide="ignore"):
        return np.where(square > 0, square**-0.5, 0)


def _oracle(kind, x, scale=1.0, bias=0.0, eps=1e-6):
    d = np.shape(x)[-1]
    normalized = _whole(kind, x)[..., :d] * _rstd(kind, x, eps)
    return normalized * np.float64(scale) + np.float64(bias)


def _gradients(kind, x, scale, bias, eps, cotangent):
    """d sum(cotangent y) / d (x, scale, bias, eps), flat: through the whole vector."""
    c, d = cotangent.astype(np.float64), np.shape(x)[-1]
    whole, rstd = _whole(kind, x), _rstd(kind, x, eps)
    g = c * np.float64(1 if scale is None else scale)
    agree = np.sum(g * whole[..., :d], axis=-1, keepdims=True)  # = -drstd/rstd^3 of y
    dsquare = -0.5 * rstd**3 * agree
    dwhole = 2 * whole * dsquare / whole.shape[-1]
    dwhole[..., :d] += g * rstd
    dx = dwhole[..., :d]
    if kind == "layer":
        dx = dx - dx.mean(axis=-1, keepdims=True)
    if kind == "crms":
        dx = dx - dwhole[..., d:]
    parts = [dx]
    if scale is not None:
        parts.append((c * whole[..., :d] * rstd).sum((0, 1)))
    if bias is not None:
        parts.append(c.sum((0, 1)))
    return np.concatenate([np.ravel(part) for part in [*parts, dsquare.sum()]])


def _value(fn, x, scale=None, bias=None, rtol=2e-6, atol=2e-7, **kwargs):
    kind = KINDS[fn]
    given = [v for v in (scale, bias) if v is not None]
    affine = {
        k: v for k, v in (("scale", scale), ("bias", bias)) if v is not None
    } | kwargs
    return Golden(
        fn,
        (x, *given),
        kwargs,
        _oracle(kind, x, **affine),
        f"numpy f64 oracle of {PAPERS[kind]}",
        lambda y: np.asarray(y, np.float64),
        rtol,
        atol,
    )


def _double(fn, **kwargs):
    def pick(_):
        with jax.enable_x64(True):
            return np.asarray(fn(jnp.asarray(FAR, jnp.float64), **kwargs))

    expect = _oracle(KINDS[fn], FAR, **kwargs)
    origin = f"numpy f64 oracle of {PAPERS[KINDS[fn]]}"
    # The mean of numbers near 1e4 is rounded by 2e-12.
    return Golden(fn, (FAR,), kwargs, expect, origin, pick, 1e-13, 5e-12)


def _gradient(fn, x, scale=None, bias=None, eps=0.1, rtol=3e-6):
    """Of x, scale, bias and eps."""
    params = [v for v in (scale, bias) if v is not None]

    def total(x, eps, *params):
        return jnp.sum(fn(x, *params, eps=eps) * COTANGENT)

    def pick(_):
        argnums = (0, *range(2, 2 + len(params)), 1)
        grads = jax.jit(jax.grad(total, argnums))(x, jnp.float32(eps), *params)
        return np.concatenate([np.ravel(g) for g in grads])

    expect = _gradients(KINDS[fn], x, scale, bias, eps, COTANGENT)
    origin = f"numpy f64 gradient of {PAPERS[KINDS[fn]]}"
    scale_of = np.abs(expect).max()
    return Golden(
        fn, (x, *params), {"eps": eps}, expect, origin, pick, rtol, rtol * scale_of
    )


def _added(fn, scale=None, bias=None, dtype=np.float32, rtol=2e-6, **kwargs):
    """y and the sum, and of their gradient the x and residual parts."""
    x, residual = X.astype(dtype), RESIDUAL.astype(dtype)
    plain, params = ADDS[fn], [v for v in (scale, bias) if v is not None]
    summed = np.asarray((x + residual).astype(dtype), np.float64)
    affine = {k: v for k, v in (("scale", scale), ("bias", bias)) if v is not None}
    eps = kwargs.get("eps", 1e-6)
    y = _oracle(KINDS[plain], summed, **affine, **kwargs)
    dy, dsummed = COTANGENT.astype(dtype), np.cos(COTANGENT).astype(dtype)
    dx = _gradients(KINDS[plain], summed, scale, bias, eps, dy)[: x.size]
    dx = dx.reshape(x.shape) + dsummed.astype(np.float64)

    def pick(found):
        _, pull = jax.vjp(lambda *xs: fn(*xs, *params, **kwargs), x, residual)
        both = (*found, *pull((jnp.asarray(dy), jnp.asarray(dsummed))))
        return np.stack([np.asarray(v, np.float64) for v in both])

    expect = np.stack([y, summed, dx, dx])
    origin = f"numpy f64 oracle and gradient of {PAPERS[KINDS[plain]]} of the sum"
    return Golden(fn, (x, residual, *params), kwargs, expect, origin, pick, rtol, rtol)


# --- others' numbers ------------------------------------------------------------------

Z = np.array([[0.5, -1.25, 2.0, 3.5], [100.25, 98.5, -100.0, 99.75]], np.float32)
GAIN = np.array([1.5, -0.5, 0.25, 2.0], np.float32)
SHIFT = np.array([0.125, -1.0, 0.5, 0.75], np.float32)
SEED = np.array([[1.0, -2.0, 0.5, 3.0], [0.25, 1.0, -1.5, 2.0]], np.float32)


def _theirs(fn, params, eps, y, grads, origin):
    """The value and the gradients in x and the parameters of sum(SEED y)."""

    def total(x, *params):
        return jnp.sum(fn(x, *params, eps=eps) * SEED)

    def pick(found):
        argnums = tuple(range(1 + len(params)))
        grads = jax.grad(total, argnums)(Z, *params)
        return np.concatenate([np.ravel(v) for v in (found, *grads)])

    expect = np.concatenate([np.ravel(y), grads])
    return Golden(fn, (Z, *params), {"eps": eps}, expect, origin, pick, 3e-6, 1e-6)


TORCH = "torch 2.13.0 torch.nn.functional in float64, of "
AUTHORS = "ZixuanJiang/pre-rmsnorm-transformer@025d43a in float64, arXiv:2305.14858"
OTHERS = [
    _theirs(
        layer_norm,
        (GAIN, SHIFT),
        1e-6,
        [
            [-0.460194600039, -0.308406381772, 0.615265603038, 3.37450911533],
            [1.00402441606, -1.28287946229, 0.0669990839407, 1.91045692458],
        ],
        [
            *(-0.042381266554, 0.513926956367, -1.54267410878, 1.07112841897),
            *(-0.0107182242737, -0.0206764667749, 0.000102560555405, 0.0312921304932),
            *(-0.243625664016, 3.33213339749, 2.82853670243, 5.09722059757),
            *(1.25, -1.0, -1.0, 5.0),
        ],
        TORCH + PAPERS["layer"],
    ),
    _theirs(
        layer_norm,
        (GAIN, SHIFT),
        0.1,
        [
            [-0.450994302921, -0.319279460184, 0.613453423303, 3.33324717674],
            [1.00401852693, -1.2828775671, 0.067001984885, 1.91044914995],
        ],
        [
            *(-0.0518483782303, 0.469919531738, -1.506444675, 1.08837352149),
            *(-0.0107180864025, -0.0206762644708, 0.000102364615022, 0.0312919862583),
            *(-0.237493114126, 3.28863729346, 2.82489493729, 5.03531991505),
            *(1.25, -1.0, -1.0, 5.0),
        ],
        TORCH + PAPERS["layer"],
    ),
    _theirs(
        rms_norm,
        (GAIN,),
        1e-6,
        [
            [0.352941137391, 0.294117614492, 0.235294091594, 3.29411728231],
            [1.50937583418, -0.494342542532, -0.250935300778, 2.00246370021],
        ],
        [
            *(0.43557908755, 1.14634615126, -1.02238922602, 0.931406788509),
            *(-0.00700356964727, -0.0155983420969, 0.00697671777905, 0.0294357527019),
            *(0.486856730623, 2.16515554303, 1.97619998785, 6.94363962367),
        ],
        TORCH + PAPERS["rms"],
    ),
    _theirs(
        rms_norm,
        (GAIN,),
        0.1,
        [
            [0.349096910147, 0.290914091789, 0.232731273431, 3.25823782804],
            [1.50936823086, -0.494340052334, -0.250934036718, 2.00245361301],
        ],
        [
            *(0.436627189356, 1.11937912421, -0.988083705396, 0.961808864608),
            *(-0.00700342588709, -0.0155981569351, 0.00697657442465, 0.0294357123619),
            *(0.484292645241, 2.15233647183, 1.97106676717, 6.88981035507),
        ],
        TORCH + PAPERS["rms"],
    ),
    _theirs(
        crms_norm,
        (),
        1e-6,
        [
            [0.175411593067, -0.438528982667, 0.701646372267, 1.22788115147],
            [0.797018579399, 0.783105536866, -0.795031001894, 0.793043424389],
        ],
        [
            *(-0.306565410974, -1.13990543701, -0.6698023175, 0.0194303343753),
            *(-0.0122163558053, -0.00617042033443, -0.0166086028729, 0.0017204590012),
        ],
        AUTHORS,
    ),
    _theirs(
        crms_norm,
        (),
        0.1,
        [
            [0.174342010939, -0.435855027347, 0.697368043754, 1.22039407657],
            [0.797016060561, 0.783103061998, -0.795028489338, 0.793040918114],
        ],
        [
            *(-0.296752359044, -1.12765896437, -0.655504764532, 0.0317948956119),
            *(-0.01221622742, -0.00617031158213, -0.016608520784, 0.0017205431914),
        ],
        AUTHORS,
    ),
]


def _simple():
    """SRMSNorm is x / (|x|_2 / sqrt d): no gain and no eps."""
    x = X.astype(np.float64)
    expect = x / (np.linalg.norm(x, axis=-1, keepdims=True) / np.sqrt(x.shape[-1]))
    origin = "numpy f64 oracle of arXiv:2307.14995 sec. 3.1"
    return Golden(rms_norm, (X,), {"eps": 0.0}, expect, origin)


BF16, F16 = ml_dtypes.bfloat16, np.float16

ROWS = [
    *OTHERS,
    _simple(),
    *(
        row
        for fn in KINDS
        for row in (
            _value(fn, X),
            _value(fn, X, SCALE),
            _value(fn, X, SCALE, eps=0.3),
            _value(fn, X.astype(BF16), SCALE, rtol=2**-8),
            _value(fn, X.astype(F16), SCALE, rtol=2**-11),
            _double(fn),
            _double(fn, eps=0.3),
            _gradient(fn, X),
            _gradient(fn, X, SCALE),
            _gradient(fn, X, SCALE, eps=1e-6),
        )
    ),
    _value(layer_norm, X, SCALE, BIAS),
    _gradient(layer_norm, X, SCALE, BIAS),
    *(
        row
        for fn in ADDS
        for row in (
            _added(fn),
            _added(fn, SCALE, eps=0.3),
            _added(fn, SCALE, dtype=BF16, rtol=2**-8),
        )
    ),
    _added(add_layer_norm, SCALE, BIAS),
]
