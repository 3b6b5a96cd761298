"""Statistics of a token's logits, on tensor cores, without the logits.

A warp-specialised matrix product: one warpgroup copies tiles of the hidden states and
of the weight into shared memory, two multiply them. What they do with a tile of logits,
in registers, is reduce it to a few numbers a token, relative to the tile's own peak;
these go to a buffer [tiles, numbers, tokens], nothing is locked, and XLA adds the tiles
up.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .._tuned import tuned
from ._tiles import (
    SMEM_BYTES,
    alike,
    cores,
    launch,
    padded,
    pl,
    plgpu,
    result,
    up,
)

STATISTICS = ("target", "total", "mean", "square", "argmax")

TILING = (8, 64)  # of what tensor cores read: 8 rows of 128 bytes
COLUMNS = 64  # of a tile that are reduced together
WARPGROUPS = 2  # that multiply, each its own tokens


class Tiles(NamedTuple):
    """What a block works on at a time."""

    tokens: int  # of one warpgroup; half of the block's
    classes: int
    features: int  # of one step
    steps: int  # in flight
    width: int  # tiles of classes that all tokens pass before the next ones


def heuristic(n: int, d: int, v: int, dtype) -> Tiles:
    """Tiles for [n, d] by [d, v]: the largest that two accumulators leave room for.

    64 by 256 f32 are 128 of a thread's registers. As many steps as shared memory holds,
    up to 4; a small vocabulary takes a smaller tile.
    """
    del n
    classes = next(size for size in (64, 128, 256) if v <= size or size == 256)
    tiles = Tiles(tokens=64, classes=classes, features=64, steps=4, width=8)
    steps = min(4, -(-d // tiles.features))
    while steps > 1 and smem_bytes(tiles._replace(steps=steps), dtype) > SMEM_BYTES:
        steps -= 1
    return tiles._replace(steps=steps)


def smem_bytes(tiles: Tiles, dtype, numbers: int = 2 + len(STATISTICS)) -> int:
    """Shared memory that a block takes."""
    rows = WARPGROUPS * tiles.tokens
    step = (rows + tiles.classes) * tiles.features * jnp.dtype(dtype).itemsize
    labels, bias, out = rows, WARPGROUPS * tiles.classes, rows * numbers
    barriers = 8 * (2 * tiles.steps + WARPGROUPS)
    # Each of the allocations is aligned to 1024 bytes at most.
    return tiles.steps * step + 4 * (labels + bias + out) + barriers + 6 * 1024


def lacks(
    hidden, weight, labels, bias, softcap, scale, *, layout: str, stats: tuple[str, ...]
) -> str | None:
    """What the kernel cannot take, if anything; from shapes and dtypes alone."""
    del labels, bias, softcap, scale, layout, stats
    if hidden.dtype != weight.dtype:
        return f"a hidden of {hidden.dtype} with a weight of {weight.dtype}"
    if hidden.dtype not in (jnp.bfloat16, jnp.float16):
        return f"{hidden.dtype}: bfloat16 and float16 are supported"
    if not (hidden.size and weight.size):
        return "an empty array"
    return None


def forward(
    hidden, weight, labels, bias, softcap, scale, *, layout: str, stats: tuple[str, ...]
) -> dict[str, jax.Array]:
    """ "peak", "lse" and each of `stats`, f32[tokens] ("argmax" int32), of the logits

    z = scale cap(hidden @ weight + bias),   cap(u) = softcap tanh(u / softcap)

    peak = max_v z_v, 0 where all are -inf;   lse = log sum_v exp(z_v - peak)
    target = z_label - peak, -inf for a label out of range
    total = sum_v (z_v - peak) over the classes that the bias does not rule out
    mean = E_p[z - peak];   square = log sum_v exp(2 (z_v - peak));   argmax: the first

    weight is [features, classes] for layout "dv" and its transpose for "vd".
    Asynchronous copies want whole tiles of 8 by 64, so that zeros are appended to (a
    copy of) a weight where 64 does not divide the features, or where 64 in "dv", 8 in
    "vd", does not divide the classes; to hidden likewise, which is small beside it.
    """
    (n, d), v = hidden.shape, weight.shape[layout.index("v")]
    tiles = heuristic(n, d, v, hidden.dtype)
    tiles = tuned("gpu", "statistics", (n, d, v), hidden.dtype, tiles)
    rows, classes = WARPGROUPS * tiles.tokens, up(v, tiles.classes)
    d = up(d, tiles.features)
    hidden = padded(hidden, up(n, TILING[0]), d)
    shape = (d, up(v, TILING[1])) if layout == "dv" else (up(v, TILING[0]), d)
    weight = padded(weight, *shape)
    labels = padded(labels.astype(jnp.int32), up(n, rows))
    # Classes that are not there are ruled out as any class may be, by the bias.
    if bias is None and classes != v:
        bias = jnp.zeros(v, jnp.float32)
    if bias is not None:
        bias = padded(bias.astype(jnp.float32), classes, value=-jnp.inf)
    cap = 1.0 if softcap is None else softcap
    scalars = jnp.stack([jnp.asarray(x, jnp.float32) for x in (cap, 1 / cap, scale)])
    hidden, weight, labels, bias, scalars = alike(hidden, weight, labels, bias, scalars)

    names = ("peak", "sum", *(name for name in STATISTICS if name in stats))
    grid = (up(n, rows) // rows, classes // tiles.classes)
    body = functools.partial(
        _kernel,
        names=names,
        tiles=tiles,
        grid=grid,
        layout=layout,
        capped=softcap is not None,
    )
    out = result((grid[1], len(names), grid[0] * rows), jnp.float32, hidden)
    run = launch(body, out, min(cores(), grid[0] * grid[1]), WARPGROUPS + 1)
    parts = run(hidden, weight, labels, bias, scalars)[:, :, :n]
    live = jnp.full(grid[1], tiles.classes, jnp.float32)
    if bias is not None:
        there = (bias > -jnp.inf).reshape(grid[1], tiles.classes)
        live = jnp.sum(there, axis=1, dtype=jnp.float32)
    parts = {name: parts[:, i] for i, name in enumerate(names)}
    out = _added(parts, live, tiles.classes)
    if "argmax" in out:  # of NaN, one of the classes as well
        out["argmax"] = jnp.minimum(out["argmax"], v - 1)
    return out


def _kernel(
    hidden, weight, labels, bias, scalars, out, *, names, tiles, grid, layout, capped
):
    rows, features = WARPGROUPS * tiles.tokens, hidden.shape[1]
    transforms = (plgpu.TilingTransform(TILING), plgpu.SwizzleTransform(128))
    block = functools.partial(plgpu.BlockSpec, transforms=transforms)
    if layout == "dv":
        spec = block((tiles.features, tiles.classes), lambda k: (k, 0))
    else:
        spec = block((tiles.classes, tiles.features), lambda k: (0, k))

    def pipeline(step, around):
        return plgpu.emit_pipeline_warp_specialized(
            step,
            grid=(features // tiles.features,),
            in_specs=[block((rows, tiles.features), lambda k: (0, k)), spec],
            max_concurrent_steps=tiles.steps,
            memory_registers=40,
            wg_axis="warpgroup",
            num_compute_wgs=WARPGROUPS,
            compute_context=around,
        )

    def ignore(*_, **__):
        pass

    @functools.partial(
        pl.run_scoped,
        buffers=pipeline(ignore, ignore).get_allocations(hidden, weight),
        label_smem=plgpu.SMEM((WARPGROUPS, tiles.tokens), jnp.int32),
        bias_smem=plgpu.SMEM((WARPGROUPS, tiles.classes), jnp.float32),
        out_smem=plgpu.SMEM((WARPGROUPS, len(names), tiles.tokens), jnp.float32),
        arrived=plgpu.Barrier(
            num_arrivals=1 if bias is None else 2, num_barriers=WARPGROUPS
        ),
        collective_axes="warpgroup",
    )
    def scope(buffers, label_smem, bias_smem, out_smem, arrived):
        group = lax.axis_index("warpgroup")
        mine = pl.ds(group * tiles.tokens, tiles.tokens)

        @plgpu.nd_loop((grid[0] * grid[1],), collective_axes="block")
        def _(loop):
            at_row, at_class = plgpu.planar_snake(loop.index[0], grid, 1, tiles.width)
            tokens = pl.ds(at_row * rows, rows)
            first = at_class * tiles.classes
            classes = pl.ds(first, tiles.classes)

            def step(_, hidden_smem, weight_smem, acc):
                if layout == "vd":
                    weight_smem = weight_smem.transpose((1, 0))
                plgpu.wgmma(acc, hidden_smem.at[mine], weight_smem)
                plgpu.wgmma_wait(0)
                return acc

            def around(multiply):
                ready = arrived.at[group]
                at = pl.ds(at_row * rows + group * tiles.tokens, tiles.tokens)
                plgpu.copy_gmem_to_smem(labels.at[at], label_smem.at[group], ready)
                if bias is not None:
                    plgpu.copy_gmem_to_smem(
                        bias.at[classes], bias_smem.at[group], ready
                    )

                def accumulate(acc):
                    multiply(acc)
                    return acc[...]

                logits = pl.run_scoped(
                    accumulate,
                    plgpu.WGMMAAccumulatorRef(
                        (tiles.tokens, tiles.classes), jnp.float32
                    ),
                )
                plgpu.barrier_wait(ready)
                numbers = _reduced(
                    logits,
                    label_smem[group] - first,
                    None if bias is None else bias_smem[group],
                    scalars,
                    names,
                    capped,
                )
                plgpu.wait_smem_to_gmem(0, wait_read_only=True)
                for i, number in enumerate(numbers):
                    out_smem[group, i] = number
                plgpu.commit_smem()
                plgpu.copy_smem_to_gmem(out_smem.at[group], out.at[at_class, :, at])

            along = (tokens, slice(None))
            over = (slice(None), classes) if layout == "dv" else (classes, slice(None))
            pipeline(step, around)(
                hidden.at[along], weight.at[over], allocations=buffers
            )

        plgpu.wait_smem_to_gmem(0)


def _reduced(logits, label, bias, scalars, names, capped):
    """The numbers `names`, f32[tokens] each, of a tile of logits in registers."""
    shape = logits.shape
    if bias is not None:
        bias = lax.broadcast_in_dim(bias, shape, (1,))
        logits += bias
    if capped:
        logits = scalars[0] * jnp.tanh(logits * scalars[1])
    logits *= scalars[2]
    if bias is not None:  # the cap has made -inf finite
        logits = jnp.where(bias > -jnp.inf, logits, -jnp.inf)
    peak = jnp.max(logits, axis=1)
    numbers = {"peak": peak}
    origin = jnp.where(peak == -jnp.inf, 0.0, peak)
    # Some columns at a time, so that what is made of them fits the registers left.
    for start in range(0, shape[1], COLUMNS):
        part = logits[:, start : start + COLUMNS]
        found = _of_columns(part, peak, origin, label - start, start, names)
        for name, x in found.items():
            join = jnp.maximum if name in ("target", "argmax") else jnp.add
            numbers[name] = join(numbers[name], x) if name in numbers else x
    return [numbers[name] for name in names]


def _of_columns(logits, peak, origin, label, start, names):
    """What columns from `start` add to the numbers, or the largest of them."""

    def down(row):
        return lax.broadcast_in_dim(row, logits.shape, (0,))

    column = lax.broadcasted_iota(jnp.int32, logits.shape, 1)
    z = logits - down(origin)
    e, there = jnp.exp(z), z > -jnp.inf
    found = {"sum": jnp.sum(e, axis=1)}
    if "target" in names:
        hit = jnp.where(column == down(label), logits, -jnp.inf)
        found["target"] = jnp.max(hit, axis=1)
    if "total" in names:
        found["total"] = jnp.sum(jnp.where(there, z, 0.0), axis=1)
    if "mean" in names:
        found["mean"] = jnp.sum(jnp.where(there, z * e, 0.0), axis=1)
    if "square" in names:
        found["square"] = jnp.sum(e * e, axis=1)
    if "argmax" in names:  # the first of several is the largest negated
        negated = (-start - column).astype(jnp.float32)
        at_peak = logits == down(peak)
        found["argmax"] = jnp.max(jnp.where(at_peak, negated, -jnp.inf), axis=1)
    return found


def _added(parts, live, width: int) -> dict[str, jax.Array]:
    """The statistics of all classes from those of tiles of `width`, f32[tiles, N]."""
    peaks = parts["peak"]
    first, peak = jnp.argmax(peaks, axis=0), jnp.max(peaks, axis=0)
    some = peaks != -jnp.inf  # of a tile's classes is there; else it adds nothing
    peak = jnp.where(peak == -jnp.inf, 0.0, peak)
    shift = jnp.where(some, peaks - peak[None], 0.0)
    weight = jnp.where(some, jnp.exp(shift), 0.0)
    sums = jnp.sum(weight * parts["sum"], axis=0)
    out = {"peak": peak, "lse": jnp.log(sums)}
    if "target" in parts:
        out["target"] = jnp.max(parts["target"], axis=0) - peak
    if "total" in parts:
        out["total"] = jnp.sum(parts["total"] + live[:, None] * shift, axis=0)
    if "mean" in parts:
        inner = jnp.sum(weight * (parts["mean"] + parts["sum"] * shift), axis=0)
        out["mean"] = inner / jnp.where(sums == 0, 1.0, sums)
    if "square" in parts:
        out["square"] = jnp.log(jnp.sum(weight * weight * parts["square"], axis=0))
    if "argmax" in parts:
        column = -jnp.take_along_axis(parts["argmax"], first[None], axis=0)[0]
        column = jnp.clip(column, 0, width - 1)
        out["argmax"] = first.astype(jnp.int32) * width + column.astype(jnp.int32)
    return out
