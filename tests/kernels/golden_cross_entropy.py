"""linear_cross_entropy: values and hand-written gradients in float64, and torch's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxtricks.kernels import linear_cross_entropy
from tests import oracles as oracle
from tests.case import Golden

_rng = np.random.default_rng(2411)
HIDDEN = _rng.normal(size=(2, 3, 4)).astype(np.float32)
WEIGHT = _rng.normal(size=(4, 7)).astype(np.float32)
BIAS = _rng.normal(size=7).astype(np.float32)
RULED_OUT = np.where(np.arange(7) == 5, -np.inf, BIAS).astype(np.float32)
LABELS = np.array([[0, 6, 3], [2, 2, 4]], np.int32)
LIVE = np.array([[True, False, True], [True, True, False]])
COTANGENT = _rng.normal(size=(2, 3)).astype(np.float32)
ORIGIN = "numpy f64 oracle of arXiv:2411.09009 sec. 4"


def _row(origin=ORIGIN, pick=None, expect=None, rtol=2e-6, atol=0.0, **kwargs):
    formula = {k: v for k, v in kwargs.items() if k not in ("where", "workspace_mb")}
    if expect is None:
        expect, _ = oracle.linear_cross_entropy(HIDDEN, WEIGHT, LABELS, **formula)
        expect = np.where(kwargs.get("where", True), expect, 0)
    return Golden(
        linear_cross_entropy,
        (HIDDEN, WEIGHT, LABELS),
        kwargs,
        expect,
        origin,
        pick or (lambda loss: loss),
        rtol,
        atol,
    )


def _gradients(**kwargs):
    """d sum(COTANGENT loss) / d (hidden, weight, bias), flat."""
    bias = kwargs.get("bias", np.zeros(7, np.float32))
    rest = {k: v for k, v in kwargs.items() if k != "bias"}

    def objective(hidden, weight, bias):
        loss = linear_cross_entropy(hidden, weight, LABELS, bias=bias, **rest)
        return jnp.sum(loss * COTANGENT)

    def pick(_):
        grads = jax.jit(jax.grad(objective, argnums=(0, 1, 2)))(HIDDEN, WEIGHT, bias)
        return np.concatenate([np.ravel(g) for g in grads])

    formula = {k: v for k, v in rest.items() if k not in ("where", "workspace_mb")}
    _, dz = oracle.linear_cross_entropy(HIDDEN, WEIGHT, LABELS, bias=bias, **formula)
    dz = dz * np.where(kwargs.get("where", True), COTANGENT, 0)[..., None]
    hidden, weight = HIDDEN.astype(np.float64), WEIGHT.astype(np.float64)
    by_weight = np.einsum("abd,abv->dv", hidden, dz)
    parts = dz @ weight.T, by_weight, dz.sum((0, 1))
    expect = np.concatenate([np.ravel(part) for part in parts])
    return _row(pick=pick, expect=expect, atol=2e-7, **kwargs)


def _double(**kwargs):
    """As `_row`, in float64 throughout."""

    def pick(_):
        with jax.enable_x64(True):
            wide = [jnp.asarray(x, jnp.float64) for x in (HIDDEN, WEIGHT)]
            return np.asarray(linear_cross_entropy(*wide, LABELS, **kwargs))

    return _row(pick=pick, rtol=1e-14, **kwargs)


def _prime(**kwargs):
    """Seven tokens, in chunks that they do not fill, and their gradients."""
    hidden, labels = SEVEN, np.arange(7, dtype=np.int32)
    expect, dz = oracle.linear_cross_entropy(hidden, WEIGHT, labels)

    def pick(_):
        def total(hidden):
            return jnp.sum(linear_cross_entropy(hidden, WEIGHT, labels, **kwargs))

        value = linear_cross_entropy(hidden, WEIGHT, labels, **kwargs)
        return np.concatenate([value, np.ravel(jax.grad(total)(hidden))])

    expect = np.concatenate([expect, np.ravel(dz @ WEIGHT.T.astype(np.float64))])
    return _row(pick=pick, expect=expect, atol=2e-7, **kwargs)


def _chunks(tokens, classes, chunks, dtype=np.float32, **kwargs):
    """How many chunks the tokens are cut into: this is the memory that a loss takes."""

    def pick(_):
        with jax.enable_x64(dtype == np.float64):
            shapes = (tokens, 4), (4, classes)
            wide = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
            labels = jax.ShapeDtypeStruct((tokens,), np.int32)
            run = functools.partial(linear_cross_entropy, **kwargs)
            return [
                length for length, _ in oracle.scans(jax.make_jaxpr(run)(*wide, labels))
            ]

    expect, origin = (
        [chunks],
        "by hand: 2 tokens * classes * itemsize / workspace_mb, arXiv:2411.09009",
    )
    return _row(pick=pick, expect=expect, origin=origin, **kwargs)


SEVEN = _rng.normal(size=(7, 4)).astype(np.float32)
# Twice the logits of 3 tokens, and of 4.
THREE, FOUR = 2 * 3 * 7 * 4 / 2**20, 2 * 4 * 7 * 4 / 2**20
ALL = {
    "bias": BIAS,
    "softcap": 1.5,
    "label_smoothing": 0.15,
    "z_loss": 0.05,
    "where": LIVE,
}

ROWS = [
    _row(),
    _row(bias=BIAS),
    _row(softcap=1.5),
    _row(label_smoothing=0.15),
    _row(z_loss=0.05),
    _row(bias=RULED_OUT),
    _row(bias=RULED_OUT, label_smoothing=0.15, z_loss=0.05),
    _row(bias=RULED_OUT, label_smoothing=0.15, softcap=3.0),
    _row(workspace_mb=THREE),
    _row(**ALL),
    _row(**ALL, workspace_mb=FOUR),
    Golden(
        linear_cross_entropy,
        (HIDDEN, WEIGHT, LABELS),
        {k: v for k, v in ALL.items() if k != "where"},
        [
            [3.82157224161, 3.788317464181, 3.139279109163],
            [2.564353273783, 4.599304622934, 2.093963086436],
        ],
        "torch 2.13.0 F.cross_entropy in float64 of the capped logits, + z-loss",
    ),
    *(
        Golden(
            linear_cross_entropy,
            (HIDDEN, WEIGHT, np.full((2, 3), 5, np.int32)),
            {"bias": RULED_OUT, "label_smoothing": smoothing},
            np.full((2, 3), np.inf),
            "a label of probability 0, arXiv:2411.09009",
        )
        for smoothing in (0.0, 1.0)
    ),
    _double(bias=BIAS, softcap=1.5, label_smoothing=0.15, z_loss=0.05),
    _prime(workspace_mb=THREE),
    _chunks(7, 7, 1),
    _chunks(6, 7, 2, workspace_mb=THREE),
    _chunks(6, 7, 3, np.float64, workspace_mb=THREE * 1.4),
    _chunks(6, 7, 6, workspace_mb=1e-9),
    _chunks(7, 7, 3, workspace_mb=THREE),  # no 3, 4 or 5 divides 7
    _chunks(10, 7, 5, workspace_mb=THREE),  # 4 would do, 5 come out even
    _chunks(1028, 2**18, 5, workspace_mb=512),  # 256 fit, 257 would not
    _chunks(1024, 2**18, 16),  # 64 at least
    _chunks(1024, 2**15, 8),  # 128 fit in 32 MiB
    _chunks(1024, 2**14, 4),  # 256 do
    _chunks(0, 7, 1),
    _gradients(),
    _gradients(**ALL, workspace_mb=FOUR),
    _gradients(bias=RULED_OUT, label_smoothing=0.15, z_loss=0.05, softcap=3.0),
]
