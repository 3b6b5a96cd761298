"""linear_cross_entropy: values and hand-written gradients in float64, and torch's."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtricks.kernels import linear_cross_entropy
from tests import oracles_b as oracle
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


# The logits of 3 tokens: two chunks of the 6 tokens; then of 4, a ragged cut.
TWO_CHUNKS = 3 * 7 * 4 / 2**20
RAGGED = 4 * 7 * 4 / 2**20
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
    _row(workspace_mb=TWO_CHUNKS),
    _row(**ALL),
    _row(**ALL, workspace_mb=RAGGED),
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
    _gradients(),
    _gradients(**ALL, workspace_mb=RAGGED),
    _gradients(bias=RULED_OUT, label_smoothing=0.15, z_loss=0.05, softcap=3.0),
]
