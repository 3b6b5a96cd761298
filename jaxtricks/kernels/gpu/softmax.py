"""Softmax, its logarithm and its normalizer of rows of any length.

A block is one warpgroup with one row, which streams through shared memory twice: once
to be summed, once to be written. Every thread keeps sums of its own columns, relative
to the largest of them so far, or, in `two_pass_softmax`, with an exponent of their own;
threads meet once a row.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .._extended import ext_add, power_of_two
from .._tuned import tuned
from ._tiles import (
    LANES,
    aligned,
    alike,
    launch,
    pl,
    plgpu,
    result,
    up,
)

DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)

LOG2_E = 1.4426950408889634
# ln 2 in three terms; a product of the first two with an exponent is exact.
LN_2 = tuple(map(float.fromhex, ("0x1.628p-1", "0x1.908p-11", "0x1.fdf474p-22")))


class Tiles(NamedTuple):
    """How a row is gone through."""

    chunk: int  # columns in registers at a time
    span: int  # columns of one copy
    steps: int  # copies in flight


def heuristic(rows: int, n: int, dtype) -> Tiles:
    """8 columns a thread, up to 4 times that in a copy, and up to 3 copies."""
    del rows, dtype
    chunk = min(8 * LANES, up(n, LANES))
    span = min(4 * chunk, up(n, chunk))
    return Tiles(chunk, span, min(3, -(-n // span)))


def smem_bytes(tiles: Tiles, dtype) -> int:
    """Shared memory of a block: copies in flight, and two to write."""
    size = up(tiles.span * jnp.dtype(dtype).itemsize, 1024)
    return (tiles.steps + 2) * size + 3 * 1024  # barriers and what sums go through


def lacks(x) -> str | None:
    """What the kernels cannot take, if anything."""
    if x.dtype not in DTYPES:
        return f"{x.dtype}: float32, bfloat16 and float16 are supported"
    if not x.size:
        return f"an empty array, {x.shape}"
    if x.shape[1] < LANES:
        return f"rows of {x.shape[1]}, fewer than {LANES}"
    return None


def softmax(x: jax.Array) -> jax.Array:
    """exp(x - peak) / sum exp(x - peak) of rows, in x's dtype; 0 where all are -inf."""

    def ready(stream):
        origin, total = _met(*_online(stream))
        inverse = jnp.where(total == 0, 0.0, 1 / total)
        return lambda x: jnp.exp(x - origin) * inverse

    return _written(x, ready)


def log_softmax(x: jax.Array) -> jax.Array:
    """x - log sum exp x of rows, in x's dtype."""

    def ready(stream):
        origin, total = _met(*_online(stream))
        log_total = jnp.log(jnp.where(total == 0, 1.0, total))
        return lambda x: x - origin - log_total

    return _written(x, ready)


def two_pass_softmax(x: jax.Array) -> jax.Array:
    """Softmax of rows without their peak: each exp is mantissa times power of two.

    Source: Dukhan, Ablavatski, "The Two-Pass Softmax Algorithm", 2020,
      arXiv:2001.04438, algorithm 3. Differs: exp on the reduced range by the compiler.
    """

    def ready(stream):
        mantissas, exponents = _extended(stream)
        top = jnp.max(exponents)
        total = jnp.sum(mantissas * power_of_two(exponents, top))
        inverse = jnp.where(total == 0, 0.0, 1 / total)

        def write(x):
            mantissa, exponent = _pair(x)
            return mantissa * inverse * power_of_two(exponent, top)

        return write

    return _written(x, ready)


def logsumexp(x: jax.Array) -> jax.Array:
    """log sum exp x of rows, f32[rows]; -inf where all are -inf."""
    rows, n = x.shape
    tiles = tuned("gpu", "softmax", x.shape, x.dtype, heuristic(rows, n, x.dtype))
    (x,) = alike(aligned(x))

    def body(x, out):
        at = lax.axis_index("block")

        def scope(smem, arrived):
            stream = Stream(x.at[at], n, tiles, smem, arrived)
            origin, total = _met(*_online(stream))
            empty = total == 0
            log_total = jnp.log(jnp.where(empty, 1.0, total))
            out[at] = jnp.where(empty, -jnp.inf, origin + log_total)

        pl.run_scoped(scope, *_buffers(tiles, x.dtype))

    return launch(body, result((rows,), jnp.float32, x), rows)(x)


def _written(x, ready):
    """write(x) for every x of rows, write = ready(stream of the row)."""
    rows, n = x.shape
    tiles = tuned("gpu", "softmax", x.shape, x.dtype, heuristic(rows, n, x.dtype))
    (x,) = alike(aligned(x))

    def body(x, out):
        at = lax.axis_index("block")

        def scope(smem, arrived, out_smem):
            stream = Stream(x.at[at], n, tiles, smem, arrived)
            write = ready(stream)

            def step(i, load, carry):
                there = out_smem.at[lax.rem(i, 2)]
                plgpu.wait_smem_to_gmem(1, wait_read_only=True)

                @pl.loop(0, tiles.span // tiles.chunk)
                def _(j):
                    part = pl.ds(j * tiles.chunk, tiles.chunk)
                    there[part] = write(load(j)).astype(out.dtype)

                plgpu.commit_smem()

                def put(size):
                    part = there.at[pl.ds(0, size)]
                    to = out.at[at, pl.ds(i * tiles.span, size)]
                    plgpu.copy_smem_to_gmem(part, to)

                stream.sized(i, put)
                return carry

            stream.over(step, None)
            plgpu.wait_smem_to_gmem(0)

        out_smem = plgpu.SMEM((2, tiles.span), x.dtype)
        pl.run_scoped(scope, *_buffers(tiles, x.dtype), out_smem)

    return launch(body, result(x.shape, x.dtype, x), rows)(x)[:, :n]


# --- the row's way through shared memory ----------------------------------------------


def _buffers(tiles: Tiles, dtype):
    """What `Stream` needs."""
    smem = plgpu.SMEM((tiles.steps, tiles.span), dtype)
    return smem, plgpu.Barrier(num_barriers=tiles.steps)


class Stream(NamedTuple):
    """A row of n columns that passes through shared memory, a span at a time."""

    x: Any  # what memory holds of it, of a whole number of 16 bytes
    n: int
    tiles: Tiles
    smem: Any
    arrived: Any

    @property
    def spans(self) -> int:
        return -(-self.n // self.tiles.span)

    def sized(self, i, f):
        """f(size of span i): the last one may be shorter."""
        whole, rest = divmod(self.x.shape[0], self.tiles.span)
        if not rest:
            f(self.tiles.span)
        elif not whole:
            f(rest)
        else:
            lax.cond(i < whole, lambda: f(self.tiles.span), lambda: f(rest))

    def fetch(self, i):
        """Begins to copy span i, in one piece."""
        slot = lax.rem(i, self.tiles.steps)

        def copy(size):
            source = self.x.at[pl.ds(i * self.tiles.span, size)]
            there = self.smem.at[slot, pl.ds(0, size)]
            mode = plgpu.OOBFillMode.PROMISE_IN_BOUNDS
            plgpu.copy_gmem_to_smem(source, there, self.arrived.at[slot], oob_mode=mode)

        self.sized(i, copy)

    def over(self, step, carry):
        """carry = step(i, load, carry) for each span i of the row.

        load(j) gives chunk j of the span in f32, with -inf past the row's end.
        """
        chunk, span, steps = self.tiles
        plgpu.commit_smem()  # whatever was read here before, all threads have
        pl.loop(0, min(steps, self.spans))(self.fetch)

        def body(i, carry):
            slot = lax.rem(i, steps)

            def load(j):
                x = self.smem[slot, pl.ds(j * chunk, chunk)].astype(jnp.float32)
                if self.n % span == 0:
                    return x
                at = lax.broadcasted_iota(jnp.int32, (chunk,), 0)
                return jnp.where(at < self.n - i * span - j * chunk, x, -jnp.inf)

            plgpu.barrier_wait(self.arrived.at[slot])
            carry = step(i, load, carry)

            @pl.when(i + steps < self.spans)
            def _():
                plgpu.commit_smem()
                self.fetch(i + steps)

            return carry

        return lax.fori_loop(0, self.spans, body, carry)


# --- sums -----------------------------------------------------------------------------


def _online(stream: Stream):
    """(peak, total) of each thread's columns: total = sum exp(x - finite(peak))."""
    chunk, span, _ = stream.tiles

    def step(i, load, sums):
        del i
        xs = [load(j) for j in range(span // chunk)]
        peak = functools.reduce(jnp.maximum, xs, sums[0])
        origin = _finite(peak)
        total = sums[1] * jnp.exp(_finite(sums[0], -jnp.inf) - origin)
        for x in xs:
            total += jnp.exp(x - origin)
        return peak, total

    return stream.over(step, (_full(chunk, -jnp.inf), _full(chunk, 0.0)))


def _met(peaks, totals):
    """(origin, total) of the row: sum exp x = total exp(origin)."""
    origin = _finite(jnp.max(peaks))
    return origin, jnp.sum(totals * jnp.exp(_finite(peaks, -jnp.inf) - origin))


def _finite(peak, lowest=0.0):
    """The peak, `lowest` for -inf and 0 for inf."""
    peak = jnp.where(peak == -jnp.inf, lowest, peak)
    return jnp.where(peak == jnp.inf, 0.0, peak)


def _extended(stream: Stream):
    """(mantissas, exponents) of the sums of each thread's columns."""
    chunk, span, _ = stream.tiles

    def step(i, load, sums):
        del i
        return lax.fori_loop(
            0, span // chunk, lambda j, sums: ext_add(sums, _pair(load(j))), sums
        )

    return stream.over(step, (_full(chunk, 0.0), _full(chunk, -jnp.inf)))


def _pair(x):
    """e^x as mantissa * 2^exponent: `ext_exp`, in what Mosaic lowers."""
    exponent = lax.round(x * LOG2_E, lax.RoundingMethod.TO_NEAREST_EVEN)
    live = exponent > -jnp.inf
    rest = jnp.where(live, x, 0.0)
    for term in LN_2:
        rest -= jnp.where(live, exponent, 0.0) * term
    return jnp.where(live, jnp.exp(rest), 0.0), exponent


def _full(size: int, value: float):
    return jnp.full(size, value, jnp.float32)
