"""Layer norm, RMS norm and compressed RMS norm of rows, with the residual's addition.

A tile holds whole rows, so that every pass is one over memory. The gradients of scale
and bias are summed over row tiles in a block that stays in VMEM.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from .._tuned import tuned
from ._tiles import (
    DTYPES,
    SUBLANES,
    VMEM_BYTES,
    Block,
    call,
    inside,
    keep,
    padded,
    round_up,
    widen,
)

KINDS = ("layer", "rms", "crms")


class Tiles(NamedTuple):
    rows: int


def heuristic(rows: int, d: int, dtype) -> Tiles:
    """As many rows as fit, 512 at most; the fewest if even those do not."""
    least = 8 if jnp.dtype(dtype) == jnp.float32 else SUBLANES
    sizes = (r for r in (512, 256, 128, 64, 32, 16, 8) if r >= least)
    most = next((r for r in sizes if _fits(Tiles(r), d, dtype)), least)
    return Tiles(min(most, round_up(rows, SUBLANES)))


def scratch_bytes(tiles: Tiles, d: int, dtype) -> int:
    """VMEM: two buffers of four arrays, five f32 tiles in flight, statistics, sums."""
    rows, itemsize = tiles.rows, max(2, jnp.dtype(dtype).itemsize)
    return (
        8 * padded(rows, d, itemsize)
        + 5 * padded(rows, d, 4)
        + 4 * padded(rows, 1, 4)
        + 6 * padded(1, d, 4)
    )


def _fits(tiles, d, dtype) -> bool:
    return scratch_bytes(tiles, d, dtype) <= VMEM_BYTES


def lacks(
    x, residual=None, scale=None, bias=None, eps=None, *, kind: str = "layer"
) -> str | None:
    """Why the kernels cannot take these; None if they can."""
    del scale, bias, eps, kind
    if x.dtype not in DTYPES:
        return f"{x.dtype}: wanted float32, bfloat16 or float16"
    if residual is not None and residual.dtype != x.dtype:
        return f"a residual of {residual.dtype} beside {x.dtype}"
    if x.size == 0:
        return f"an empty array, {x.shape}"
    (rows, d), dtype = x.shape, _wide(x.dtype)
    if not _fits(heuristic(rows, d, dtype), d, dtype):
        return f"{d} features: a few rows do not fit in VMEM"
    return None


def forward(
    x: jax.Array,
    residual: jax.Array | None,
    scale: jax.Array | None,
    bias: jax.Array | None,
    eps,
    *,
    kind: str,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """(y, x + residual, mean, rstd) of x[rows, d]; mean is 0 but for "layer".

    layer: y = (x - mean) rstd scale + bias,   rstd = (mean (x - mean)^2 + eps)^(-1/2)
    rms:   y = x rstd scale + bias,            rstd = (mean x^2 + eps)^(-1/2)
    crms:  y = x rstd scale + bias,
           rstd = ((sum x^2 + (sum x)^2) / (d + 1) + eps)^(-1/2): RMS norm of d + 1
           features of zero mean, the last of them not stored.
    x + residual is rounded to x's dtype before it is normalised.
    Source: Jiang et al., "Pre-RMSNorm and Pre-CRMSNorm Transformers: Equivalent and
      Efficient Pre-LN Transformers", 2023, arXiv:2305.14858.
    """
    dtype = x.dtype
    if residual is not None and dtype == jnp.float16:  # before it is widened
        x, residual = x + residual, None
    given, x = x, widen(x)
    rows, d = x.shape
    (tile,) = tuned("tpu", "norms", x.shape, x.dtype, heuristic(rows, d, x.dtype))
    whole, column = Block((tile, d), _own), Block((tile, 1), _own)

    def body(r):
        x = r.x[...].astype(jnp.float32)
        if residual is not None:
            summed = (x + r.residual[...].astype(jnp.float32)).astype(r.summed.dtype)
            r.summed[...] = summed
            x = summed.astype(jnp.float32)
        if kind == "layer":
            mean = jnp.sum(x, axis=1, keepdims=True) / d
            x = x - mean
            r.mean[...] = mean
        square = jnp.sum(x * x, axis=1, keepdims=True)
        if kind == "crms":
            last = jnp.sum(x, axis=1, keepdims=True)
            square = (square + last * last) / (d + 1)
        else:
            square = square / d
        square = square + r.eps[0, 0]
        rstd = jnp.where(square == 0, 0, lax.rsqrt(square))
        r.rstd[...] = rstd
        y = x * rstd
        if scale is not None:
            y = y * r.scale[...]
        if bias is not None:
            y = y + r.bias[...]
        r.y[...] = y.astype(r.y.dtype)

    inputs = {"x": (x, whole)} | _features(d, scale=scale, bias=bias)
    outputs = {
        "y": (x.shape, x.dtype, whole),
        "rstd": ((rows, 1), jnp.float32, column),
    }
    if residual is not None:
        inputs["residual"] = (residual, whole)
        outputs["summed"] = (x.shape, x.dtype, whole)
    if kind == "layer":
        outputs["mean"] = ((rows, 1), jnp.float32, column)
    out = call(
        body,
        (pl.cdiv(rows, tile),),
        name=f"{kind}_norm",
        inputs=inputs,
        outputs=outputs,
        scalars={"eps": eps},
    )
    rstd = out["rstd"][:, 0]
    mean = out["mean"][:, 0] if kind == "layer" else jnp.zeros_like(rstd)
    return out["y"].astype(dtype), out.get("summed", given), mean, rstd


def backward(
    dy: jax.Array,
    dsummed: jax.Array | None,
    summed: jax.Array,
    scale: jax.Array | None,
    mean: jax.Array,
    rstd: jax.Array,
    *,
    kind: str,
    has_bias: bool,
) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
    """(dx in summed's dtype, dscale, dbias) from the cotangents of y and of the sum.

    With x^ = (x - mean) rstd and g = dy scale:
    layer: dx = rstd (g - mean g - x^ mean(g x^))
    rms:   dx = rstd (g - x^ mean(g x^))
    crms:  dx = rstd (g - (x^ + sum x^) sum(g x^) / (d + 1))
    """
    dtype = summed.dtype
    summed, dy = widen(summed), widen(dy)
    rows, d = summed.shape
    (tile,) = tuned(
        "tpu", "norms", summed.shape, summed.dtype, heuristic(rows, d, summed.dtype)
    )
    whole, column = Block((tile, d), _own), Block((tile, 1), _own)

    def body(r):
        i = pl.program_id(0)
        live = inside((tile, 1), 0, i * tile, rows, tile)
        x = keep(live, r.summed[...].astype(jnp.float32))
        g = keep(live, r.dy[...].astype(jnp.float32))
        rstd = keep(live, r.rstd[...])
        if kind == "layer":
            x = x - keep(live, r.mean[...])
        x = x * rstd
        if has_bias:
            _accumulate(r.dbias, g, i)
        if scale is not None:
            _accumulate(r.dscale, g * x, i)
            g = g * r.scale[...]
        along = jnp.sum(g * x, axis=1, keepdims=True)
        if kind == "crms":
            x = x + jnp.sum(x, axis=1, keepdims=True)
            dx = g - x * (along / (d + 1))
        else:
            dx = g - x * (along / d)
        if kind == "layer":
            dx = dx - jnp.sum(g, axis=1, keepdims=True) / d
        dx = dx * rstd
        if dsummed is not None:
            dx = dx + r.dsummed[...].astype(jnp.float32)
        r.dx[...] = dx.astype(r.dx.dtype)

    inputs = {"dy": (dy, whole), "summed": (summed, whole)}
    inputs["rstd"] = (rstd[:, None], column)
    inputs |= _features(d, scale=scale)
    if kind == "layer":
        inputs["mean"] = (mean[:, None], column)
    if dsummed is not None:
        inputs["dsummed"] = (widen(dsummed), whole)
    outputs = {"dx": (summed.shape, summed.dtype, whole)}
    sums = {"dscale": scale is not None, "dbias": has_bias}
    for name in (k for k, wanted in sums.items() if wanted):
        outputs[name] = ((1, d), jnp.float32, _all_rows(d))
    out = call(
        body,
        (pl.cdiv(rows, tile),),
        name=f"{kind}_norm_backward",
        inputs=inputs,
        outputs=outputs,
        parallel=0,  # dscale and dbias go from tile to tile
    )
    dscale, dbias = (out[k][0] if k in out else None for k in sums)
    return out["dx"].astype(dtype), dscale, dbias


def _own(i):
    return i, 0


def _all_rows(d):
    return Block((1, d), lambda i: (0, 0))


def _features(d, **vectors):
    """Inputs of one number a feature."""
    return {
        k: (x.astype(jnp.float32).reshape(1, d), _all_rows(d))
        for k, x in vectors.items()
        if x is not None
    }


def _accumulate(ref, x, i):
    """ref = the sum of x over the rows of tiles 0 to i."""

    @pl.when(i == 0)
    def _():
        ref[...] = jnp.zeros_like(ref)

    ref[...] += jnp.sum(x, axis=0, keepdims=True)


def _wide(dtype):
    return jnp.float32 if dtype == jnp.float16 else dtype
