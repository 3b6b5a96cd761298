"""Token statistics: logits a tile of tokens by classes at a time, in VMEM only.

What is carried from one tile of classes to the next is a few numbers a token, relative
to the largest logit so far. Terms and their rescaling are of one sign, so that nothing
cancels. The backward pass computes the logits twice more, once for each gradient: a
kernel that walks the classes innermost has the hidden states' in VMEM to add to, and
one that walks the tokens innermost the weight's, without a race.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from .._tuned import tuned
from ._logits import (
    MOST_CLASSES,
    Problem,
    dot,
    finish,
    per_token,
    rows_of,
    update,
)
from ._tiles import (
    DTYPES,
    LANES,
    VMEM_BYTES,
    Block,
    call,
    inside,
    keep,
    padded,
    round_up,
)

STATS = ("target", "total", "mean", "square", "argmax")
SIZES = (1024, 512, 256, 128)
CHUNK = 512  # features of a gradient that are added at a time
IN_FLIGHT = 6  # f32 arrays of a tile's shape that formulas hold at once


class Tiles(NamedTuple):
    tokens: int
    classes: int
    features: int


def heuristic(n: int, d: int, v: int, dtype, kernel: str = "forward") -> Tiles:
    """The tiles that load the fewest bytes a logit of those that fit in VMEM.

    kernel: "forward", "d_hidden" or "d_weight". The smallest tiles if none fit.
    """
    whole, features = [d], []
    if kernel == "forward":
        features = [f for f in (2048, 1024, 512) if f < d]
    found = [
        tiles
        for t in SIZES
        for c in SIZES
        for f in whole + features
        if t < round_up(n, LANES) + LANES and c < round_up(v, LANES) + LANES
        if scratch_bytes(tiles := Tiles(t, c, f), d, dtype, kernel) <= VMEM_BYTES
    ]

    def cost(tiles):
        t, c, f = tiles
        hidden = 1 / c if f < d or kernel == "d_weight" else 0
        weight = 1 / t if kernel != "d_weight" else 0
        masked = (d % f > 0) + (v % c > 0 and kernel == "d_hidden")
        return hidden + weight, masked, -t * c, -f

    return min(found, key=cost, default=Tiles(LANES, LANES, d))


def scratch_bytes(tiles: Tiles, d: int, dtype, kernel: str = "forward") -> int:
    """VMEM of a kernel: blocks in and out, accumulators, and what formulas hold.

    An upper bound, by what the compiler for TPU v5e (libtpu 0.0.42) reports.
    """
    t, c, f = tiles
    itemsize = jnp.dtype(_wide(dtype)).itemsize
    hidden, weight = padded(t, f, itemsize), padded(f, c, itemsize)
    held = IN_FLIGHT * padded(t, c, 4)
    # A product in full f32 precision takes its operands apart.
    parts = 2 * (hidden + weight) if itemsize == 4 else 0
    if kernel == "forward":
        partial = padded(t, c, 4) if f < d else 0
        masked = hidden + weight if d % f else weight
        columns = (len(STATS) + 3 + 2) * padded(t, 1, 4)
        blocks = 2 * (hidden + weight)
        return blocks + max(masked, parts) + partial + columns + held
    few = padded(1, t, 4) * 2 * 16 + padded(1, c, 4) * 4
    if kernel == "d_hidden":
        blocks = hidden + 2 * weight + padded(t, d, 4) + padded(t, CHUNK, 4)
        return blocks + max(weight, parts) + held + few
    blocks = 2 * hidden + weight + padded(d, c, 4) + padded(c, CHUNK, 4)
    return blocks + max(2 * hidden, parts) + held + few


def lacks(
    hidden,
    weight,
    labels=None,
    bias=None,
    softcap=None,
    scale=None,
    *,
    layout,
    stats=(),
) -> str | None:
    """Why the kernels, backward included, cannot take these; None if they can."""
    del labels, bias, softcap, scale, stats
    (n, d), v = hidden.shape, weight.shape[layout == "dv"]
    if hidden.dtype != weight.dtype:
        return f"hidden of {hidden.dtype} beside a weight of {weight.dtype}"
    if hidden.dtype not in DTYPES:
        return f"{hidden.dtype}: wanted float32, bfloat16 or float16"
    if 0 in (n, d, v):
        return f"an empty array, {hidden.shape} or {weight.shape}"
    if v > MOST_CLASSES:
        return f"{v} classes: wanted {MOST_CLASSES} at most"
    for kernel in ("forward", "d_hidden", "d_weight"):
        tiles = heuristic(n, d, v, hidden.dtype, kernel)
        if scratch_bytes(tiles, d, hidden.dtype, kernel) > VMEM_BYTES:
            return f"{d} features: a gradient's smallest tile does not fit in VMEM"
    return None


def forward(
    hidden: jax.Array,
    weight: jax.Array,
    labels: jax.Array,
    bias: jax.Array | None,
    softcap,
    scale,
    *,
    layout: str,
    stats: tuple[str, ...] = (),
) -> dict[str, jax.Array]:
    """f32[N] by name: "peak", "lse" and what `stats` names; of no class, peak is 0.

    z = scale softcap tanh((hidden @ weight + bias) / softcap)
    peak = max_v z_v (0 where all are -inf);   lse = log sum_v exp(z_v - peak)
    target = z_label - peak, -inf for a label out of range
    total = sum_v (z_v - peak) over the classes not ruled out; "live" counts them
    mean = E_p[z - peak];   square = log sum_v exp 2 (z_v - peak);   argmax: int32
    """
    problem = _problem(hidden, weight, labels, bias, softcap, scale, layout, "forward")
    n, d, v = problem.sizes
    tokens, classes, features = problem.tiles
    grid = (pl.cdiv(n, tokens), pl.cdiv(v, classes), pl.cdiv(d, features))
    kept = ["peak", "sum", *(s for s in STATS if s in stats)]
    kept += ["live"] if "total" in stats else []
    names = ["peak", "lse", *kept[2:]]

    def body(r):
        j, k = pl.program_id(1), pl.program_id(2)

        @pl.when((j == 0) & (k == 0))
        def _():
            for name in kept:
                start = -jnp.inf if name in ("peak", "target") else 0.0
                ref = getattr(r, name)
                ref[...] = jnp.full(ref.shape, start, jnp.float32)

        part = problem.product(r, k)
        if grid[2] == 1:
            update(r, problem.logits(r, part, j), kept)
        else:

            @pl.when(k == 0)
            def _():
                r.partial[...] = part

            @pl.when(k > 0)
            def _():
                r.partial[...] += part

            @pl.when(k == grid[2] - 1)
            def _():
                update(r, problem.logits(r, r.partial[...], j), kept)

        @pl.when((j == grid[1] - 1) & (k == grid[2] - 1))
        def _():
            finish(r, names)

    scratch = {name: (tokens, LANES) for name in kept}
    if grid[2] > 1:
        scratch["partial"] = (tokens, classes)
    board = call(
        body,
        grid,
        name="token_statistics",
        inputs=problem.inputs(lambda i, j, k: (i, j, k)),
        outputs={
            "board": (
                (n, LANES),
                jnp.float32,
                Block((tokens, LANES), lambda i, j, k: (i, 0)),
            )
        },
        scratch=scratch,
        scalars=problem.scalars,
    )["board"]
    found = {name: board[:, lane] for lane, name in enumerate(names)}
    if "argmax" in found:
        found["argmax"] = found["argmax"].astype(jnp.int32)
    return found


def backward(
    hidden: jax.Array,
    weight: jax.Array,
    labels: jax.Array,
    bias: jax.Array | None,
    softcap,
    scale,
    saved: dict[str, jax.Array],
    cotangents: dict[str, jax.Array],
    *,
    layout: str,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """(d_hidden, d_weight, d_bias or None), all f32, the peak being a constant.

    dz = g_lse p + g_target onehot + g_total live + g_mean p (1 + z - peak - mean)
         + 2 g_square exp(2 (z - peak) - square),   then through scale and softcap.
    saved: forward's "peak" and "lse"; "mean" and "square" where those have cotangents.
    For bfloat16 inputs dz is rounded to bfloat16, as a factor of two products; d_bias
    sums it in f32. The logits are computed twice, 8 N D V operations in all.
    """
    rows = rows_of(saved, cotangents)
    names, packed = list(rows), jnp.stack(list(rows.values()))

    def problem(kernel):
        args = (hidden, weight, labels, bias, softcap, scale, layout, kernel)
        return _problem(*args)

    d_hidden = _d_hidden(problem("d_hidden"), names, packed)
    return d_hidden, *_d_weight(problem("d_weight"), names, packed, bias is not None)


def _d_hidden(problem, names, packed):
    n, d, v = problem.sizes
    tokens, classes, _ = problem.tiles

    def body(r):
        j = pl.program_id(1)

        @pl.when(j == 0)
        def _():
            r.d_hidden[...] = jnp.zeros_like(r.d_hidden)

        dz = problem.d_logits(r, j, names)
        axis = 1 if problem.dv else 0
        for at in _chunks(d):
            w = r.weight[at, :] if problem.dv else r.weight[:, at]
            w = keep(inside(w.shape, axis, j * classes, v, classes), w)
            r.d_hidden[:, at] += dot(dz.astype(w.dtype), w, (1, axis))

    at = problem.inputs(lambda i, j: (i, j, 0), slow=("hidden",))
    return call(
        body,
        (pl.cdiv(n, tokens), pl.cdiv(v, classes)),
        name="token_statistics_d_hidden",
        inputs=at | {"rows": per_token(packed, tokens, lambda i, j: i)},
        outputs={
            "d_hidden": (
                (n, d),
                jnp.float32,
                Block((tokens, d), lambda i, j: (i, 0), slow=True),
            )
        },
        scalars=problem.scalars,
    )["d_hidden"]


def _d_weight(problem, names, packed, has_bias):
    n, d, v = problem.sizes
    tokens, classes, _ = problem.tiles

    def body(r):
        j, i = pl.program_id(0), pl.program_id(1)

        @pl.when(i == 0)
        def _():
            r.d_weight[...] = jnp.zeros_like(r.d_weight)
            if has_bias:
                r.d_bias[...] = jnp.zeros_like(r.d_bias)

        live = inside((tokens, 1), 0, i * tokens, n, tokens)
        dz = keep(live, problem.d_logits(r, j, names))
        if has_bias:
            r.d_bias[...] += jnp.sum(dz, axis=0, keepdims=True)
        for at in _chunks(d):
            h = keep(live, r.hidden[:, at])
            if problem.dv:
                r.d_weight[at, :] += dot(h, dz.astype(h.dtype), (0, 0))
            else:
                r.d_weight[:, at] += dot(dz.astype(h.dtype), h, (0, 0))

    at = problem.inputs(lambda j, i: (i, j, 0), slow=("weight", "bias"))
    block = (d, classes) if problem.dv else (classes, d)

    def where(j, i):
        return (0, j) if problem.dv else (j, 0)

    outputs = {
        "d_weight": (problem.weight.shape, jnp.float32, Block(block, where, slow=True))
    }
    if has_bias:
        outputs["d_bias"] = (
            (1, v),
            jnp.float32,
            Block((1, classes), lambda j, i: (0, j), slow=True),
        )
    out = call(
        body,
        (pl.cdiv(v, classes), pl.cdiv(n, tokens)),
        name="token_statistics_d_weight",
        inputs=at | {"rows": per_token(packed, tokens, lambda j, i: i)},
        outputs=outputs,
        scalars=problem.scalars,
    )
    return out["d_weight"], out["d_bias"][0] if has_bias else None


def _problem(hidden, weight, labels, bias, softcap, scale, layout, kernel) -> Problem:
    """With the kernel's tiles, measured ones if there are any."""
    (n, d), v = hidden.shape, weight.shape[layout == "dv"]
    tiles = heuristic(n, d, v, hidden.dtype, kernel)
    tiles = tuned("tpu", f"statistics_{kernel}", (n, d, v), hidden.dtype, tiles)
    return Problem(hidden, weight, labels, bias, softcap, scale, layout, tiles)


def _chunks(d):
    return [slice(start, min(start + CHUNK, d)) for start in range(0, d, CHUNK)]


def _wide(dtype):
    return jnp.float32 if dtype == jnp.float16 else dtype
