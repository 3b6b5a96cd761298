"""Token statistics: logits a tile of tokens by classes at a time, in VMEM only.

What is carried from one tile of classes to the next is a few numbers a token, relative
to the largest logit so far. Terms and their rescaling are of one sign, so that nothing
cancels. The backward pass computes the logits twice more, once for each gradient: a
kernel that walks the classes innermost has the hidden states' in VMEM to add to, and
one that walks the tokens innermost the weight's, without a race.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from .._tuned import tuned
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
    widen,
)

STATS = ("target", "total", "mean", "square", "argmax")
COTANGENTS = ("lse", "target", "total", "mean", "square")
SIZES = (1024, 512, 256, 128)
CHUNK = 512  # features of a gradient that are added at a time
IN_FLIGHT = 6  # f32 arrays of a tile's shape that formulas hold at once
MOST_CLASSES = 2**24  # indices are compared in f32


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
    problem = _Problem(hidden, weight, labels, bias, softcap, scale, layout, "forward")
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
            _update(r, problem.logits(r, part, j), kept)
        else:

            @pl.when(k == 0)
            def _():
                r.partial[...] = part

            @pl.when(k > 0)
            def _():
                r.partial[...] += part

            @pl.when(k == grid[2] - 1)
            def _():
                _update(r, problem.logits(r, r.partial[...], j), kept)

        @pl.when((j == grid[1] - 1) & (k == grid[2] - 1))
        def _():
            _finish(r, names)

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
    rows = _rows(saved, cotangents)
    names, packed = list(rows), jnp.stack(list(rows.values()))

    def problem(kernel):
        args = (hidden, weight, labels, bias, softcap, scale, layout, kernel)
        return _Problem(*args)

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
            r.d_hidden[:, at] += _dot(dz.astype(w.dtype), w, (1, axis))

    at = problem.inputs(lambda i, j: (i, j, 0), slow=("hidden",))
    return call(
        body,
        (pl.cdiv(n, tokens), pl.cdiv(v, classes)),
        name="token_statistics_d_hidden",
        inputs=at | {"rows": _per_token(packed, tokens, lambda i, j: i)},
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
                r.d_weight[at, :] += _dot(h, dz.astype(h.dtype), (0, 0))
            else:
                r.d_weight[:, at] += _dot(dz.astype(h.dtype), h, (0, 0))

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
        inputs=at | {"rows": _per_token(packed, tokens, lambda j, i: i)},
        outputs=outputs,
        scalars=problem.scalars,
    )
    return out["d_weight"], out["d_bias"][0] if has_bias else None


# --- a tile of logits -----------------------------------------------------------------


class _Problem:
    """The arguments of a kernel, and a tile of their logits."""

    def __init__(
        self, hidden, weight, labels, bias, softcap, scale, layout, kernel
    ) -> None:
        self.dv = layout == "dv"
        self.hidden, self.weight = widen(hidden), widen(weight)
        self.labels, self.bias = labels, bias
        scalars = {"softcap": softcap, "scale": scale}
        self.scalars = {k: x for k, x in scalars.items() if x is not None}
        (n, d), v = hidden.shape, weight.shape[self.dv]
        self.sizes = n, d, v
        tiles = heuristic(n, d, v, hidden.dtype, kernel)
        self.tiles = tuned(
            "tpu", f"statistics_{kernel}", self.sizes, hidden.dtype, tiles
        )

    def inputs(self, order, slow=()):
        """Blocks by name; order(*point) -> which tile of tokens, classes, features."""
        tokens, classes, features = self.tiles

        def block(shape, axes, name):
            def at(*point):
                tile = order(*point)
                return tuple(0 if axis is None else tile[axis] for axis in axes)

            return Block(shape, at, slow=name in slow)

        weight = (
            ((features, classes), (2, 1)) if self.dv else ((classes, features), (1, 2))
        )
        found = {
            "hidden": (self.hidden, block((tokens, features), (0, 2), "hidden")),
            "weight": (self.weight, block(*weight, "weight")),
            "labels": (
                self.labels.astype(jnp.int32)[None],
                block((1, tokens), (None, 0), "labels"),
            ),
        }
        if self.bias is not None:
            bias = self.bias.astype(jnp.float32)[None]
            found["bias"] = (bias, block((1, classes), (None, 1), "bias"))
        return found

    def product(self, r, k: Any = 0):
        """hidden @ weight of a tile, over the features of tile k."""
        h, w = r.hidden[...], r.weight[...]
        (_, d, _), (_, _, features) = self.sizes, self.tiles
        axis = 0 if self.dv else 1
        h = keep(inside(h.shape, 1, k * features, d, features), h)
        w = keep(inside(w.shape, axis, k * features, d, features), w)
        return _dot(h, w, (1, axis))

    def logits(self, r, product, j):
        """(z, live, hit, column, slope = dz / d product) of the tile's classes."""
        (_, _, v), (_, classes, _) = self.sizes, self.tiles
        u = product if self.bias is None else product + r.bias[...]
        column = lax.broadcasted_iota(jnp.int32, u.shape, 1)
        live = u != -jnp.inf  # True of NaN
        if v % classes:
            live &= j * classes + column < v
        u, slope = jnp.where(live, u, 0), 1.0
        if "softcap" in self.scalars:
            softcap = r.softcap[0, 0]
            t = jnp.tanh(u / softcap)
            u, slope = softcap * t, 1 - t * t
        if "scale" in self.scalars:
            scale = r.scale[0, 0]
            u, slope = u * scale, slope * scale
        column = j * classes + column
        hit = live & (column == _as_column(r.labels, 0))
        return jnp.where(live, u, -jnp.inf), live, hit, column, slope

    def d_logits(self, r, j, names):
        """The tile's d product from its rows of `_rows`; 0 where not live."""
        z, live, hit, _, slope = self.logits(r, self.product(r), j)
        row = {name: _as_column(r.rows, at) for at, name in enumerate(names)}
        z = jnp.where(live, z - row["peak"], 0)
        by_p, dz = row.get("d_lse", 0.0), 0.0
        if "d_mean" in row:
            by_p = by_p + row["d_mean"] * (1 + (z - row["mean"]))
        if "d_lse" in row or "d_mean" in row:
            dz = by_p * jnp.exp(z - row["lse"])
        if "d_square" in row:
            dz += 2 * row["d_square"] * jnp.exp(2 * z - row["square"])
        if "d_total" in row:
            dz += row["d_total"]
        if "d_target" in row:
            dz += jnp.where(hit, row["d_target"], 0)
        return jnp.where(live, dz * slope, 0)


def _update(r, tile, kept):
    """The statistics so far, by one more tile of logits."""
    z, live, hit, column, _ = tile
    before = r.peak[:, :1]
    top = jnp.max(z, axis=1, keepdims=True)
    peak = jnp.maximum(before, top)
    # Where all is ruled out so far, or was before, differences are not of numbers.
    shift = jnp.where(peak == -jnp.inf, 0, peak)
    down = jnp.where(before == -jnp.inf, 0, before - shift)
    e, z_below = jnp.exp(z - shift), jnp.where(live, z - shift, 0)
    faded = jnp.exp(before - shift)

    def put(name, column):
        ref = getattr(r, name)
        ref[...] = jnp.broadcast_to(column, ref.shape)

    def along(x):
        return jnp.sum(x, axis=1, keepdims=True)

    if "mean" in kept:
        put("mean", faded * (r.mean[:, :1] + r.sum[:, :1] * down) + along(e * z_below))
    if "square" in kept:
        put("square", faded * faded * r.square[:, :1] + along(e * e))
    if "total" in kept:
        put("total", r.total[:, :1] + r.live[:, :1] * down + along(z_below))
        put("live", r.live[:, :1] + along(live.astype(jnp.float32)))
    if "argmax" in kept:
        index = column.astype(jnp.float32)
        first = jnp.min(
            jnp.where(z == top, index, float(MOST_CLASSES)), axis=1, keepdims=True
        )
        put("argmax", jnp.where(top > before, first, r.argmax[:, :1]))
    if "target" in kept:
        label = jnp.max(jnp.where(hit, z, -jnp.inf), axis=1, keepdims=True)
        put("target", jnp.maximum(r.target[:, :1], label))
    put("sum", faded * r.sum[:, :1] + along(e))
    put("peak", peak)


def _finish(r, names):
    """The statistics of all classes, one in each lane of `board`."""
    peak, total = r.peak[...], r.sum[...]
    peak = jnp.where(peak == -jnp.inf, 0, peak)
    found = {"peak": peak, "lse": jnp.log(total)}
    for name in names[2:]:
        found[name] = getattr(r, name)[...]
    if "target" in found:
        found["target"] = found["target"] - peak
    if "mean" in found:
        found["mean"] = jnp.where(total == 0, 0, found["mean"] / total)
    if "square" in found:
        found["square"] = jnp.log(found["square"])
    lane = lax.broadcasted_iota(jnp.int32, peak.shape, 1)
    board = jnp.zeros_like(peak)
    for at, name in enumerate(names):
        board = jnp.where(lane == at, found[name], board)
    r.board[...] = board


def _rows(saved, cotangents):
    """What a tile's derivative needs of its tokens; of no class, 0 in place of -inf."""
    found = {"peak": saved["peak"], "lse": saved["lse"]}
    for name in ("mean", "square"):
        if name in cotangents:
            found[name] = saved[name]
    found = {k: jnp.where(x == -jnp.inf, 0, x) for k, x in found.items()}
    given = {f"d_{k}": cotangents[k] for k in COTANGENTS if k in cotangents}
    return jax.tree.map(lambda x: x.astype(jnp.float32), found | given)


def _per_token(packed, tokens, which):
    """f32[k, N] as an input of one column of k numbers a token."""
    return packed, Block((len(packed), tokens), lambda *point: (0, which(*point)))


def _as_column(ref, k):
    """Row k of a block [_, tokens], one number for each row of a tile."""
    return jnp.expand_dims(ref[k], -1)


def _dot(a, b, contract):
    """The product in f32, over one axis of each."""
    exact = a.dtype == jnp.float32
    return lax.dot_general(
        a,
        b,
        (((contract[0],), (contract[1],)), ((), ())),
        precision=lax.Precision.HIGHEST if exact else lax.Precision.DEFAULT,
        preferred_element_type=jnp.float32,
    )


def _chunks(d):
    return [slice(start, min(start + CHUNK, d)) for start in range(0, d, CHUNK)]


def _wide(dtype):
    return jnp.float32 if dtype == jnp.float16 else dtype
