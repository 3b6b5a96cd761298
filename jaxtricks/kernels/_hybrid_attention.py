"""LoLCATs: softmax attention turned into linear attention, but for a window.

The nearest keys keep their softmax weights; all earlier ones get the weights of a
learned feature map and come down to one matrix and one vector, the state. Both share
one denominator. A block of queries meets its own keys and the cached ones in reach of
the window, then what leaves the reach joins the state, so that training, prefill and
decoding are one function; derivatives store cache and state of each block (`atomic`).
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from .._check import at_least
from .._mask import blank
from .._safe import divide
from ._atomic import atomic
from ._blocks import (
    check_shapes,
    computing_dtype,
    empty_sum,
    over_blocks,
    per_head,
)

ONE_TENTH = -2.1972245773362196  # its sigmoid is 0.1


class HybridAttentionState(NamedTuple):
    """What hybrid attention keeps: keys in reach of the window, sums of the rest."""

    k: Float[Array, "*batch reach features"]  # f32, as all that follow
    v: Float[Array, "*batch reach values"]
    k_features: Float[Array, "*batch reach maps"]
    live: Bool[Array, "*batch reach 1"]  # False for masked, and before the start
    kv: Float[Array, "*batch maps values"]  # sum of k_features v^T out of reach
    total: Float[Array, "*batch maps 1"]  # sum of k_features out of reach
    position: Int[Array, ""]  # i32, how many positions came before


def hybrid_window_linear_attention(
    q: Float[ArrayLike, "*batch length features"],
    k: Float[ArrayLike, "*batch length features"],
    v: Float[ArrayLike, "*batch length values"],
    q_features: Float[ArrayLike, "*batch length maps"],
    k_features: Float[ArrayLike, "*batch length maps"],
    *,
    window: int = 64,
    terraced: bool = True,
    window_factor: ScalarLike | Float[ArrayLike, "..."] = ONE_TENTH,
    affine: bool = False,
    where: Bool[ArrayLike, "*batch length"] | None = None,
    block: int | None = None,
) -> Float[Array, "*batch length values"]:
    """Causal attention: softmax on a window, linear before it; to linearise a model.

    a_ts = g exp(q_t . k_s / sqrt(features) - c_t)   for s in the window of t
    b_ts = h q_features_t . k_features_s             for s before it
    out_t = (sum_s a_ts v_s + sum_s b_ts v_s) / (sum_s a_ts + sum_s b_ts)

    with c_t the window's largest score, g = sigmoid(window_factor), and h = 1, or 1 - g
    if affine. c_t is a part of the formula: softmax weights count by how far they are
    below the largest, whatever that is, and linear ones as they are.

    Args:
      q: float[*batch, length, features], heads among the batch axes.
      k: float[*batch, length, features].
      v: float[*batch, length, values].
      q_features: float[*batch, length, maps], `hedgehog_feature_map` of q; positive.
      k_features: float[*batch, length, maps], that of k.
      window: >= 0; 0 is linear attention, length or more exact softmax attention.
      terraced: the window is the query's block of `window` positions up to itself, and
        the block before, as in the authors' kernel; else the last `window` positions.
      window_factor: log-odds of g, a scalar or [*heads], which end the batch axes. The
        default makes g = 0.1, from where the released models learn it. May be traced.
      affine: whether g and h sum to 1.
      where: bool[*batch, length], True counts. What does not still takes up a position.
      block: queries at a time; a cost. None for 128, or a quarter of a long window.
    Returns:
      [*batch, length, values] in v's dtype, computed in f32: means of values. 0 where
      masked.
    Gradient: any order and mode; not smooth where a window's largest score is tied.
    Cost: length * (block + window + maps) products a value; for a gradient, the keys in
      reach and the state of each block. No array of length x length.
    Raises: ValueError for a shape, window or block that does not fit.
    Source: Zhang et al., "LoLCATs: On Low-Rank Linearizing of Large Language Models",
      2024, arXiv:2410.10254, sliding windows. Differs: g a sigmoid for each head and
      terraced windows as in the released code, which still slides them to generate.
    Example:
      >>> v, one = jnp.array([[0.0], [3.0], [4.0]]), jnp.ones((3, 1))
      >>> kwargs = {"window": 1, "terraced": False, "window_factor": 0.0}
      >>> hybrid_window_linear_attention(one, one, v, one, one, **kwargs).ravel()
      Array([0., 1., 2.], dtype=float32)
    """
    _check(q, k, v, q_features, k_features, window, block)
    # Only what is in the sequence has to be within reach.
    reach = min(_reach(window, terraced), max(jnp.shape(q)[-2] - 1, 0))
    data = tuple(map(jnp.asarray, (q, k, v, q_features, k_features)))
    kind = (window, terraced, affine)
    return attend(None, data, window_factor, where, kind, block, reach)[1]


def hybrid_window_linear_attention_step(
    state: HybridAttentionState | None,
    q: Float[ArrayLike, "*batch length features"],
    k: Float[ArrayLike, "*batch length features"],
    v: Float[ArrayLike, "*batch length values"],
    q_features: Float[ArrayLike, "*batch length maps"],
    k_features: Float[ArrayLike, "*batch length maps"],
    *,
    window: int = 64,
    terraced: bool = True,
    window_factor: ScalarLike | Float[ArrayLike, "..."] = ONE_TENTH,
    affine: bool = False,
    where: Bool[ArrayLike, "*batch length"] | None = None,
    block: int | None = None,
) -> tuple[HybridAttentionState, Float[Array, "*batch length values"]]:
    """Hybrid attention that goes on from a state; for prefill, decoding and segments.

    The formula is that of `hybrid_window_linear_attention`, positions counted on.

    Args:
      state: what the call before returned; None at the start.
      q: float[*batch, length, features]; a length of 1 decodes one position.
      k: float[*batch, length, features].
      v: float[*batch, length, values].
      q_features: float[*batch, length, maps], `hedgehog_feature_map` of q; positive.
      k_features: float[*batch, length, maps], that of k.
      window: >= 0, the same in every call; 0 is linear attention.
      terraced: as in `hybrid_window_linear_attention`, the same in every call.
      window_factor: log-odds of g, a scalar or [*heads], which end the batch axes. May
        be traced.
      affine: whether the weights of the two parts sum to 1.
      where: bool[*batch, length], True counts. What does not still takes up a position.
      block: queries at a time; a cost. None for 128, or a quarter of a long window.
    Returns:
      The state after these positions, and [*batch, length, values] in v's dtype: what
      `hybrid_window_linear_attention` of the whole sequence has there.
    Gradient: any order and mode; not smooth where a window's largest score is tied.
    Cost: as there; the state has window - 1 keys, terraced 2 window - 1.
    Raises: ValueError for a shape, window or block that does not fit.
    Source: Zhang et al., "LoLCATs: On Low-Rank Linearizing of Large Language Models",
      2024, arXiv:2410.10254, sliding windows. Differs: decodes with the window of
      training, where the released code slides a terraced one.
    Example:
      >>> step, one = hybrid_window_linear_attention_step, jnp.ones((1, 1))
      >>> state, _ = step(None, one, one, one, one, one, window=0)
      >>> step(state, one, one, 2 * one, one, one, window=0)[1]
      Array([[1.5]], dtype=float32)
    """
    _check(q, k, v, q_features, k_features, window, block)
    data = tuple(map(jnp.asarray, (q, k, v, q_features, k_features)))
    kind, reach = (window, terraced, affine), _reach(window, terraced)
    return attend(state, data, window_factor, where, kind, block, reach)


def _reach(window: int, terraced: bool) -> int:
    """How far before a query its window may begin."""
    return max(0, 2 * window - 1 if terraced else window - 1)


@partial(jax.jit, static_argnums=(4, 5, 6))
def attend(state, data, window_factor, where, kind, block, reach):
    """The state after the queries, and what they see."""
    window, terraced, affine = kind
    dtype, kept = computing_dtype(*data), data[2].dtype
    # Cast once, so that a key's gradients are summed over the blocks in f32.
    q, *_ = data = tuple(blank(x, where).astype(dtype) for x in data)
    block = max(128, reach // 4) if block is None else block
    factor = per_head("window_factor", window_factor, q, dtype)[..., None, None]
    near = jax.nn.sigmoid(factor)
    far = jax.nn.sigmoid(-factor) if affine and window else jnp.ones_like(factor)
    live = jnp.ones_like(q[..., :1], bool) if where is None else where[..., None]
    state = _start(data, live, reach) if state is None else state
    inside = partial(queries, window=window, terraced=terraced)

    def body(state, xs):
        q, k, v, q_features, k_features, live = xs
        keys = jax.tree.map(
            lambda *x: jnp.concatenate(x, axis=-2),
            (state.k, state.v, state.k_features, state.live),
            (k, v, k_features, live),
        )
        first = state.position - reach
        *sums, out = atomic(
            inside,
            (state.kv, state.total),
            (q, q_features),
            keys,
            (state.position, first),
            (near, far),
        )
        cache = (x[..., q.shape[-2] :, :] for x in keys)
        position = state.position + q.shape[-2]
        return HybridAttentionState(*cache, *sums, position=position), out

    state, out = over_blocks(body, state, (*data, live), block)
    return state, blank(out.astype(kept), where)


def _start(data, live, reach) -> HybridAttentionState:
    """Nothing seen yet: zeros that lie on the mesh as what will take their place."""
    _, k, v, _, k_features = data

    def nothing(x):
        pads = [(0, 0)] * (x.ndim - 2) + [(reach, 0), (0, 0)]
        return jnp.pad(x[..., :0, :], pads)

    one = jnp.ones_like(k[..., :0, :1])
    return HybridAttentionState(
        *map(nothing, (k, v, k_features, live)),
        kv=empty_sum(k_features, v, v.dtype),
        total=empty_sum(k_features, one, v.dtype),
        position=jnp.zeros((), jnp.int32),
    )


def queries(sums, asking, keys, at, mix, *, window: int, terraced: bool):
    """What a block of queries sees, and the sums after the oldest keys leave reach.

    at: the position of the first query, and that of the first key.
    """
    (kv, total), (near_share, far_share) = sums, mix
    (q, q_features), (k, v, k_features, live) = asking, keys
    t, s = positions(q, k, *at)
    if terraced and window:
        near = (s <= t) & (s // window >= t // window - 1)
    else:
        near = (s <= t) & (s > t - window)

    # Linear attention: the keys of the state, and those that are still here.
    here = jnp.einsum("...tm,...sm->...ts", q_features, k_features)
    here = far_share * jnp.where((s <= t) & ~near, here, 0)
    asked = far_share * q_features
    gone = jnp.einsum("...tm,...mn->...tn", asked, total)
    far = jnp.sum(here, axis=-1, keepdims=True) + gone
    # Softmax attention. Alone it needs no share, and its largest score cancels.
    seen = near & jnp.swapaxes(live, -1, -2)
    scores = jnp.einsum("...tf,...sf->...ts", q, k) / math.sqrt(q.shape[-1])
    peak = jnp.where(seen, scores, -jnp.inf)
    peak = jnp.max(peak, axis=-1, keepdims=True, initial=-jnp.inf)
    peak = jnp.where(peak > -jnp.inf, peak, 0)
    if q_features.shape[-1] == 0:
        peak = lax.stop_gradient(peak)
    softmax = jnp.where(seen, jnp.exp(jnp.where(seen, scores - peak, 0)), 0)
    weights = jnp.where(far == 0, 1, near_share) * softmax + here
    out = jnp.einsum("...ts,...sv->...tv", weights, v)
    out += jnp.einsum("...tm,...mv->...tv", asked, kv)
    out = divide(out, jnp.sum(weights, axis=-1, keepdims=True) + gone)

    leave = slice(0, q.shape[-2])
    k_features, v = k_features[..., leave, :], v[..., leave, :]
    kv = kv + jnp.einsum("...sm,...sv->...mv", k_features, v)
    total = total + jnp.sum(k_features, axis=-2)[..., None]
    return kv, total, out


def positions(q, k, first_query, first_key):
    """The positions of queries, [..., n, 1], and of keys, [..., 1, n], in q's rank."""
    ones = (1,) * (q.ndim - 2)
    t = lax.broadcasted_iota(jnp.int32, (*ones, q.shape[-2], 1), q.ndim - 2)
    s = lax.broadcasted_iota(jnp.int32, (*ones, 1, k.shape[-2]), q.ndim - 1)
    return first_query + t, first_key + s


def _check(q, k, v, q_features, k_features, window, block) -> None:
    """ValueError naming what does not fit."""
    at_least("window", window, 0)
    if block is not None:
        at_least("block", block, 1)
    q, k, v, q_features, k_features = map(
        jnp.asarray, (q, k, v, q_features, k_features)
    )
    check_shapes(q, k=k, v=v, q_features=q_features, k_features=k_features)
    if q_features.shape != k_features.shape:
        raise ValueError(
            f"k_features: wanted {list(q_features.shape)} as q_features, "
            f"came {list(k_features.shape)}"
        )
