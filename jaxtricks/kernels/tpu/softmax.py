"""Softmax, its logarithm and log-sum-exp of rows of any length.

A row passes twice, a tile of columns at a time: once to be reduced, once to be written.
What is carried between tiles is a maximum and a sum (`softmax`, `log_softmax`,
`logsumexp`), or a sum with an exponent of its own (`two_pass_softmax`).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from .._tuned import tuned
from ._tiles import (
    DTYPES,
    LANES,
    SUBLANES,
    Block,
    call,
    inside,
    keep,
    padded,
    round_up,
    widen,
)

LOG2_E = 1.4426950408889634
# ln 2 in three parts, the first two of 8 bits: their multiples by integers up to 2^16
# are exact in float32, so that x - n ln 2 is right to rounding for |x| <= 2^16 ln 2.
LN2 = (0.69140625, 0.001739501953125, 1.428606765330187e-06)
FURTHEST = 2.0**24  # exponents stay within, so that they are exact integers


class Tiles(NamedTuple):
    rows: int
    columns: int


def heuristic(rows: int, n: int, dtype) -> Tiles:
    """Half a MiB of f32 in whole rows, or in 8192 columns of a longer one."""
    del dtype
    columns = min(round_up(n, LANES), 8192)
    fit = max(SUBLANES, 2**17 // columns // SUBLANES * SUBLANES)
    return Tiles(min(fit, 512, round_up(rows, SUBLANES)), columns)


def scratch_bytes(tiles: Tiles, dtype) -> int:
    """VMEM: two buffers in and out, six f32 tiles in flight, two columns of sums."""
    itemsize = max(2, jnp.dtype(dtype).itemsize)
    return (
        4 * padded(*tiles, itemsize)
        + 6 * padded(*tiles, 4)
        + 4 * padded(tiles[0], 1, 4)
    )


def lacks(x) -> str | None:
    """Why the kernels cannot take x[rows, n]; None if they can."""
    if x.dtype not in DTYPES:
        return f"{x.dtype}: wanted float32, bfloat16 or float16"
    if x.size == 0:
        return f"an empty array, {x.shape}"
    return None


def softmax(x: jax.Array) -> jax.Array:
    """exp(x - max) / sum, of rows; 0 where a row is -inf only."""

    def write(x, peak, total):
        return jnp.exp(x - peak) / total

    return _twice(x, partial(_online, finish=write))


def log_softmax(x: jax.Array) -> jax.Array:
    """x - max - log sum exp(x - max), of rows; -inf where a row is -inf only."""

    def write(x, peak, total):
        return (x - peak) - jnp.log(total)

    return _twice(x, partial(_online, finish=write))


def two_pass_softmax(x: jax.Array) -> jax.Array:
    """Softmax of rows without their maximum; every exp is a mantissa and an exponent.

    e^x = m 2^n with n = round(x / ln 2) and m in [sqrt 1/2, sqrt 2]. Sums are kept as
    such pairs too, so that nothing overflows, and they are rescaled by powers of two
    only, so that nothing is rounded. Right to rounding for |x| up to 45000; further out
    the order of entries holds, not their ratio.
    Source: Dukhan and Ablavatski, "The Two-Pass Softmax Algorithm", 2020,
      arXiv:2001.04438, alg. 3. Differs: m by the hardware's exp; ln 2 in three parts.
    """
    return _twice(x, _by_pairs)


def logsumexp(x: jax.Array) -> jax.Array:
    """log sum exp of rows, f32[rows]; -inf where all of a row is -inf."""
    x = widen(x)
    rows, n = x.shape
    tiles = tuned("tpu", "softmax", x.shape, x.dtype, heuristic(rows, n, x.dtype))

    def body(r):
        j = pl.program_id(1)
        _online_update(r, _columns(r.x, j, n, tiles), first=j == 0)

        @pl.when(j == pl.num_programs(1) - 1)
        def _():
            peak = r.peak[...]
            found = peak + jnp.log(r.total[...])
            r.out[...] = jnp.where(peak == jnp.inf, peak, found)

    return call(
        body,
        (pl.cdiv(rows, tiles.rows), pl.cdiv(n, tiles.columns)),
        name="logsumexp",
        inputs={"x": (x, Block(tiles, lambda i, j: (i, j)))},
        outputs={
            "out": ((rows, 1), jnp.float32, Block((tiles.rows, 1), lambda i, j: (i, 0)))
        },
        scratch={"peak": (tiles.rows, 1), "total": (tiles.rows, 1)},
    )["out"][:, 0]


def _twice(x: jax.Array, step) -> jax.Array:
    """All tiles of a row in phase 0, which writes none, and again in phase 1."""
    dtype, x = x.dtype, widen(x)
    rows, n = x.shape
    tiles = tuned("tpu", "softmax", x.shape, x.dtype, heuristic(rows, n, x.dtype))

    def body(r):
        phase, j = pl.program_id(1), pl.program_id(2)
        step(r, _columns(r.x, j, n, tiles), phase, first=(phase == 0) & (j == 0))

    return call(
        body,
        (pl.cdiv(rows, tiles.rows), 2, pl.cdiv(n, tiles.columns)),
        name="softmax",
        inputs={"x": (x, Block(tiles, lambda i, phase, j: (i, j)))},
        # The block of phase 1's first tile is held, unwritten, throughout phase 0.
        outputs={
            "out": (x.shape, x.dtype, Block(tiles, lambda i, phase, j: (i, phase * j)))
        },
        scratch={"peak": (tiles.rows, 1), "total": (tiles.rows, 1)},
    )["out"].astype(dtype)


def _columns(ref, j, n, tiles):
    """The tile in f32, -inf past the last column."""
    x = ref[...].astype(jnp.float32)
    return keep(inside(x.shape, 1, j * tiles.columns, n, tiles.columns), x, -jnp.inf)


def _online(r, x, phase, *, first, finish):
    @pl.when(phase == 0)
    def _():
        _online_update(r, x, first)

    @pl.when(phase == 1)
    def _():
        peak, total = r.peak[...], r.total[...]
        peak = jnp.where(peak == -jnp.inf, 0, peak)
        out = finish(x, peak, jnp.where(total == 0, 1, total))
        r.out[...] = out.astype(r.out.dtype)


def _online_update(r, x, first):
    """The maximum so far, and the sum of exp less that."""

    @pl.when(first)
    def _():
        r.peak[...] = jnp.full_like(r.peak, -jnp.inf)
        r.total[...] = jnp.zeros_like(r.total)

    before = r.peak[...]
    peak = jnp.maximum(before, jnp.max(x, axis=1, keepdims=True))
    shift = jnp.where(peak == -jnp.inf, 0, peak)
    more = jnp.sum(jnp.exp(x - shift), axis=1, keepdims=True)
    r.total[...] = r.total[...] * jnp.exp(before - shift) + more
    r.peak[...] = peak


def _by_pairs(r, x, phase, first):
    """`total` holds the mantissa of the sum, `peak` its exponent."""

    @pl.when(first)
    def _():
        r.peak[...] = jnp.full_like(r.peak, -FURTHEST)
        r.total[...] = jnp.zeros_like(r.total)

    m, n = _pair(x)

    @pl.when(phase == 0)
    def _():
        before = r.peak[...]
        peak = jnp.maximum(before, jnp.max(n, axis=1, keepdims=True))
        more = jnp.sum(m * _power_of_two(n - peak), axis=1, keepdims=True)
        r.total[...] = r.total[...] * _power_of_two(before - peak) + more
        r.peak[...] = peak

    @pl.when(phase == 1)
    def _():
        total = r.total[...]
        y = m / jnp.where(total == 0, 1, total) * _power_of_two(n - r.peak[...])
        r.out[...] = y.astype(r.out.dtype)


def _pair(x):
    """(m, n) with e^x = m 2^n; m = 0 for -inf, NaN for inf."""
    n = jnp.clip(jnp.round(x * LOG2_E), -FURTHEST, FURTHEST)
    t = x
    for part in LN2:
        t = t - n * part
    m = jnp.exp(jnp.clip(t, -0.35, 0.35))
    m = jnp.where(x == -jnp.inf, 0, m)
    return jnp.where(x < jnp.inf, m, jnp.nan), n


def _power_of_two(n):
    """2^n of integers n <= 0 in f32, written as bits: exact; 0 below 2^-126."""
    bits = (jnp.maximum(n, -127) + 127).astype(jnp.int32) << 23
    return lax.bitcast_convert_type(bits, jnp.float32)
