"""A tile of logits: made from blocks of hidden states and weight, and reduced."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ._tiles import Block, inside, keep, widen

COTANGENTS = ("lse", "target", "total", "mean", "square")
MOST_CLASSES = 2**24  # indices are compared in f32


class Problem:
    """The arguments of a kernel, and a tile of their logits."""

    def __init__(
        self, hidden, weight, labels, bias, softcap, scale, layout, tiles
    ) -> None:
        self.dv = layout == "dv"
        self.hidden, self.weight = widen(hidden), widen(weight)
        self.labels, self.bias = labels, bias
        scalars = {"softcap": softcap, "scale": scale}
        self.scalars = {k: x for k, x in scalars.items() if x is not None}
        (n, d), v = hidden.shape, weight.shape[self.dv]
        self.sizes = n, d, v
        self.tiles = tiles

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
        return dot(h, w, (1, axis))

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
        """The tile's d product from its rows of `rows_of`; 0 where not live."""
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


def update(r, tile, kept):
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


def finish(r, names):
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


def rows_of(saved, cotangents):
    """What a tile's derivative needs of its tokens; of no class, 0 in place of -inf."""
    found = {"peak": saved["peak"], "lse": saved["lse"]}
    for name in ("mean", "square"):
        if name in cotangents:
            found[name] = saved[name]
    found = {k: jnp.where(x == -jnp.inf, 0, x) for k, x in found.items()}
    given = {f"d_{k}": cotangents[k] for k in COTANGENTS if k in cotangents}
    return jax.tree.map(lambda x: x.astype(jnp.float32), found | given)


def per_token(packed, tokens, which):
    """f32[k, N] as an input of one column of k numbers a token."""
    return packed, Block((len(packed), tokens), lambda *point: (0, which(*point)))


def _as_column(ref, k):
    """Row k of a block [_, tokens], one number for each row of a tile."""
    return jnp.expand_dims(ref[k], -1)


def dot(a, b, contract):
    """The product in f32, over one axis of each."""
    exact = a.dtype == jnp.float32
    return lax.dot_general(
        a,
        b,
        (((contract[0],), (contract[1],)), ((), ())),
        precision=lax.Precision.HIGHEST if exact else lax.Precision.DEFAULT,
        preferred_element_type=jnp.float32,
    )
