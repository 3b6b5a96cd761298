"""Layer norm, RMS norm and compressed RMS norm of rows, with the residual's addition.

A block is one warpgroup that goes from row to row, while the next is copied into shared
memory. A row stays there until it is done, so that memory is passed over once. The
gradients of scale and bias are summed in shared memory and written once a block; XLA
adds the blocks up.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from .._tuned import tuned
from ._tiles import (
    LANES,
    SMEM_BYTES,
    Row,
    aligned,
    alike,
    cores,
    f32,
    launch,
    pl,
    plgpu,
    result,
    up,
)

DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)


class Tiles(NamedTuple):
    """How rows are gone through."""

    chunk: int  # features in registers at a time
    blocks: int  # on a multiprocessor


def heuristic(rows: int, d: int, dtype) -> Tiles | None:
    """8 features a thread; as many blocks as fit, up to 8; None if none does."""
    del rows
    chunk = min(8 * LANES, up(d, LANES))
    fitting = SMEM_BYTES // smem_bytes(d, chunk, dtype)
    return Tiles(chunk, min(8, fitting)) if fitting else None


def smem_bytes(d: int, chunk: int, dtype) -> int:
    """Shared memory of a block backward: 3 rows twice, dx, and 3 rows in f32.

    Forward it is 2 rows twice, two results, and 2 rows in f32. Each, and the barriers,
    and what sums go through, begins at a multiple of 1024 bytes.
    """
    width, itemsize = up(d, chunk), jnp.dtype(dtype).itemsize
    twice, once, wide = (up(width * size, 1024) for size in (2 * itemsize, itemsize, 4))
    return 3 * twice + once + 3 * wide + 4 * 1024


def lacks(x, residual, scale=None, bias=None, eps=None, *, kind: str) -> str | None:
    """What forward cannot take, if anything; of backward, with dy for the residual."""
    del scale, bias, eps, kind
    if x.dtype not in DTYPES:
        return f"{x.dtype}: float32, bfloat16 and float16 are supported"
    if residual is not None and residual.dtype != x.dtype:
        return f"{residual.dtype} beside {x.dtype}"
    if not x.size:
        return f"an empty array, {x.shape}"
    if heuristic(x.shape[0], x.shape[1], x.dtype) is None:
        return f"{x.shape[1]} features: a row does not fit in shared memory"
    return None


def forward(x, residual, scale, bias, eps, *, kind: str):
    """(y, x + residual, mean, rstd) of x[rows, d]; mean is 0 but for "layer".

    layer: y = (x - mean) rstd scale + bias,   rstd = (mean (x - mean)^2 + eps)^(-1/2)
    rms:   y = x rstd scale + bias,            rstd = (mean x^2 + eps)^(-1/2)
    crms:  y = x rstd scale + bias,
           rstd = ((sum x^2 + (sum x)^2) / (d + 1) + eps)^(-1/2)

    The sum is rounded to x's dtype before it is normalised; rstd is 0 of a moment of 0.
    Arrays whose rows are no multiple of 16 bytes are copied to such as are.
    Source: Jiang et al., "Pre-RMSNorm and Pre-CRMSNorm Transformers: Equivalent and
      Efficient Pre-LN Transformers", 2023, arXiv:2305.14858.
    """
    rows, d = x.shape
    tiles = tuned("gpu", "norms", x.shape, x.dtype, heuristic(rows, d, x.dtype))
    assert tiles is not None  # else it lacks that
    x, residual, scale, bias = map(aligned, (x, residual, f32(scale), f32(bias)))
    eps = jnp.asarray(eps, jnp.float32).reshape(1)
    x, residual, scale, bias, eps = alike(x, residual, scale, bias, eps)
    row, blocks = Row(d, tiles.chunk), min(rows, cores() * tiles.blocks)
    out = {"y": result(x.shape, x.dtype, x), "rstd": result((rows,), jnp.float32, x)}
    if residual is not None:
        out["summed"] = out["y"]
    if kind == "layer":
        out["mean"] = out["rstd"]
    body = functools.partial(_forward, row=row, blocks=blocks, kind=kind)
    out = launch(body, out, blocks)(x, residual, scale, bias, eps)
    summed = out.get("summed", x)[:, :d]
    mean = out.get("mean", jnp.zeros_like(out["rstd"]))
    return out["y"][:, :d], summed, mean, out["rstd"]


def _forward(x, residual, scale, bias, eps, out, *, row, blocks, kind):
    given = [ref for ref in (x, residual) if ref is not None]
    affine = [ref for ref in (scale, bias) if ref is not None]
    d = row.size

    @functools.partial(
        pl.run_scoped,
        given_smem=[row.smem(ref.dtype, 2) for ref in given],
        affine_smem=[row.smem(jnp.float32) for ref in affine],
        sum_smem=None if residual is None else row.smem(x.dtype),
        y_smem=row.smem(x.dtype),
        arrived=plgpu.Barrier(num_arrivals=len(given), num_barriers=2),
        once=plgpu.Barrier(num_arrivals=max(1, len(affine))),
    )
    def _(given_smem, affine_smem, sum_smem, y_smem, arrived, once):
        row.load_once(affine, affine_smem, once)

        @row.each(x.shape[0], blocks, given, given_smem, arrived)
        def _(at, slot):
            plgpu.wait_smem_to_gmem(0, wait_read_only=True)
            source = given_smem[0].at[slot]
            if residual is not None:

                def add(part, _):
                    a, b = (ref[slot, part].astype(jnp.float32) for ref in given_smem)
                    sum_smem[part] = (a + b).astype(x.dtype)

                row.over(add)
                plgpu.commit_smem()
                row.store(sum_smem, out["summed"].at[at])
                source = sum_smem

            def load(part):
                return row.live(part, source[part].astype(jnp.float32))

            total = row.sum(load) if kind != "rms" else 0.0
            mean = total / d if kind == "layer" else 0.0
            square = row.sum(lambda p: row.live(p, load(p) - mean) ** 2)
            if kind == "crms":
                moment = (square + total * total) / (d + 1)
            else:
                moment = square / d
            moment += eps[0]
            rstd = jnp.where(moment == 0, 0.0, lax.rsqrt(moment))

            def normalise(part, _):
                y = (load(part) - mean) * rstd
                if scale is not None:
                    y *= affine_smem[0][part]
                if bias is not None:
                    y += affine_smem[-1][part]
                y_smem[part] = y.astype(x.dtype)

            row.over(normalise)
            plgpu.commit_smem()
            row.store(y_smem, out["y"].at[at])
            out["rstd"][at] = rstd
            if kind == "layer":
                out["mean"][at] = mean

        plgpu.wait_smem_to_gmem(0)


def backward(dy, dsummed, summed, scale, mean, rstd, *, kind: str, has_bias: bool):
    """(dx in summed's dtype, dscale, dbias) from the cotangents of y and of the sum.

    With x^ = (x - mean) rstd and g = dy scale:
    layer: dx = rstd (g - mean g - x^ mean(g x^))
    rms:   dx = rstd (g - x^ mean(g x^))
    crms:  dx = rstd (g - (x^ + sum x^) sum(g x^) / (d + 1))
    """
    rows, d = summed.shape
    tiles = tuned(
        "gpu", "norms", summed.shape, summed.dtype, heuristic(rows, d, summed.dtype)
    )
    assert tiles is not None  # else it lacks that
    arrays = map(aligned, (dy, dsummed, summed, f32(scale)))
    dy, dsummed, summed, scale, mean, rstd = alike(*arrays, mean, rstd)
    row, blocks = Row(d, tiles.chunk), min(rows, cores() * tiles.blocks)
    out = {"dx": result(summed.shape, summed.dtype, summed)}
    names = {"dscale": scale is not None, "dbias": has_bias}
    width = up(d, 4)
    for name in (name for name, wanted in names.items() if wanted):
        out[name] = result((blocks, width), jnp.float32, summed)
    body = functools.partial(
        _backward, row=row, blocks=blocks, kind=kind, has_bias=has_bias
    )
    out = launch(body, out, blocks)(dy, dsummed, summed, scale, mean, rstd)
    sums = {k: jnp.sum(out[k], axis=0)[:d] for k in names if k in out}
    return out["dx"][:, :d], sums.get("dscale"), sums.get("dbias")


def _backward(
    dy, dsummed, summed, scale, mean, rstd, out, *, row, blocks, kind, has_bias
):
    given = [ref for ref in (dy, summed, dsummed) if ref is not None]
    affine = [ref for ref in (scale,) if ref is not None]
    added = [name for name in ("dscale", "dbias") if name in out]
    d = row.size

    @functools.partial(
        pl.run_scoped,
        given_smem=[row.smem(ref.dtype, 2) for ref in given],
        affine_smem=[row.smem(jnp.float32) for ref in affine],
        added_smem={name: row.smem(jnp.float32) for name in added},
        dx_smem=row.smem(summed.dtype),
        arrived=plgpu.Barrier(num_arrivals=len(given), num_barriers=2),
        once=plgpu.Barrier(num_arrivals=max(1, len(affine))),
    )
    def _(given_smem, affine_smem, added_smem, dx_smem, arrived, once):
        row.load_once(affine, affine_smem, once)

        def clear(part, _):
            for ref in added_smem.values():
                ref[part] = jnp.zeros(row.chunk, jnp.float32)

        row.over(clear)
        plgpu.commit_smem()

        @row.each(summed.shape[0], blocks, given, given_smem, arrived)
        def _(at, slot):
            inverse = rstd[at]
            offset = mean[at] if kind == "layer" else 0.0

            def dy_of(part):
                return row.live(part, given_smem[0][slot, part].astype(jnp.float32))

            def normalised(part):
                x = given_smem[1][slot, part].astype(jnp.float32)
                return row.live(part, (x - offset) * inverse)

            def scaled(part):
                return dy_of(part) * affine_smem[0][part] if affine else dy_of(part)

            def slopes(part):
                return row.live(part, scaled(part))

            along = row.sum(lambda p: slopes(p) * normalised(p)) / d
            even = row.sum(slopes) / d if kind == "layer" else 0.0
            last = 0.0
            if kind == "crms":
                along, last = along * d / (d + 1), row.sum(normalised)
            plgpu.wait_smem_to_gmem(0, wait_read_only=True)

            def finish(part, _):
                x = normalised(part)
                dx = (slopes(part) - even - (x + last) * along) * inverse
                if dsummed is not None:
                    dx += given_smem[2][slot, part].astype(jnp.float32)
                dx_smem[part] = dx.astype(summed.dtype)
                if "dscale" in added_smem:
                    added_smem["dscale"][part] += dy_of(part) * x
                if "dbias" in added_smem:
                    added_smem["dbias"][part] += dy_of(part)

            row.over(finish)
            plgpu.commit_smem()
            row.store(dx_smem, out["dx"].at[at])

        plgpu.commit_smem()
        for name in added:
            row.store(added_smem[name], out[name].at[lax.axis_index("block")])
        plgpu.wait_smem_to_gmem(0)
