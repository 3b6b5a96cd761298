"""Long-short attention: some heads see a short window, the others everything before.

In a transformer nearly every token leans on its neighbours, and heads that look at all
positions need large scores to single those out, which is where training blows up. Heads
that see nothing else have no need to. All is computed a block of queries at a time.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from .._check import at_least, between
from .._mask import blank
from ._atomic import atomic
from ._blocks import check_shapes, computing_dtype, empty_sum, over_blocks
from ._hybrid_attention import attend, positions, queries


def long_short_attention(
    q: Float[ArrayLike, "*batch heads length features"],
    k: Float[ArrayLike, "*batch heads length features"],
    v: Float[ArrayLike, "*batch heads length values"],
    *,
    window: int,
    short_heads: int | None = None,
    where: Bool[ArrayLike, "*batch heads length"] | None = None,
    block: int = 128,
) -> Float[Array, "*batch heads length values"]:
    """Causal attention whose first heads see a short window; against exploding logits.

    out_t = sum_s softmax_s(q_t . k_s / sqrt(features)) v_s
    over t - window < s <= t in the first `short_heads` heads, over s <= t in the others

    Args:
      q: float[*batch, heads, length, features].
      k: float[*batch, heads, length, features].
      v: float[*batch, heads, length, values].
      window: >= 1, how many positions a short head sees, the query's own among them.
      short_heads: in [0, heads]; None for half of them, rounded down.
      where: bool[*batch, heads, length], True counts.
      block: queries at a time; a cost, the result is the same.
    Returns:
      [*batch, heads, length, values] in v's dtype, computed in f32: means of values. A
      window of the whole length is plain causal attention. 0 where masked.
    Gradient: smooth, any order and mode.
    Cost: a short head length * (window + block) scores, a long one length^2, of which
      block * length are held at a time, for a gradient too; at least a quarter of the
      window is a short head's block.
    Raises: ValueError for a shape, window, block or number of heads that does not fit.
    Source: Hajra, "Short-Range Dependency Effects on Transformer Instability and a
      Decomposed Attention Solution", 2025, arXiv:2505.15548, LS-attention. Differs:
      built from its abstract and summaries. That heads are split into local ones, on
      a band, and global ones, on all before, is certain; how many of them are local,
      and how wide a band they see, is not known here.
    Example:
      >>> v, zero = jnp.arange(8.0).reshape(2, 4, 1), jnp.zeros((2, 4, 1))
      >>> long_short_attention(zero, zero, v, window=2)[..., 0]
      Array([[0. , 0.5, 1.5, 2.5],
             [4. , 4.5, 5. , 5.5]], dtype=float32)
    """
    at_least("window", window, 1)
    at_least("block", block, 1)
    q, k, v = map(jnp.asarray, (q, k, v))
    if q.ndim < 3:
        raise ValueError(f"q: wanted [*batch, heads, length, features], came {q.shape}")
    check_shapes(q, k=k, v=v)
    heads = q.shape[-3]
    short = heads // 2 if short_heads is None else short_heads
    between("short_heads", short, 0, heads)
    q, k, v = (blank(x, where) for x in (q, k, v))
    data = (q, k, v, _live(q, where))
    out = [
        _window(*(x[..., :short, :, :] for x in data), window=window, block=block),
        _causal(*(x[..., short:, :, :] for x in data), block=block),
    ]
    return blank(jnp.concatenate(out, axis=-3), where)


def attention_logit_max(
    q: Float[ArrayLike, "*batch length features"],
    k: Float[ArrayLike, "*batch length features"],
    *,
    window: int | None = None,
    is_causal: bool = True,
    where: Bool[ArrayLike, "*batch length"] | None = None,
    block: int = 128,
) -> Float[Array, "*batch"]:
    """The largest attention logit of each head, without all of them; an early warning.

    max_{t,s} q_t . k_s / sqrt(features), over the pairs that attention sees

    Its growth over training announces the divergence that short heads are to prevent.

    Args:
      q: float[*batch, length, features], heads among the batch axes.
      k: float[*batch, length, features].
      window: how many positions a query sees up to its own; None for all before it.
      is_causal: whether a query sees no later key; otherwise window counts both ways.
      where: bool[*batch, length], True counts.
      block: queries at a time; a cost, the result is the same.
    Returns:
      f32[*batch]; 0 where no pair counts.
    Gradient: at the largest pair, evenly among ties; not smooth where the pair changes.
    Cost: length^2 scores, block * length of them at a time.
    Raises: ValueError for a shape, window or block that does not fit.
    Source: Hajra, "Short-Range Dependency Effects on Transformer Instability and a
      Decomposed Attention Solution", 2025, arXiv:2505.15548, the pre-softmax logits.
      Differs: built from its abstract and summaries; scaled as the softmax has them.
    Example:
      >>> q = k = jnp.array([[1.0], [2.0], [3.0]])
      >>> attention_logit_max(q, k), attention_logit_max(q, -k)
      (Array(9., dtype=float32), Array(-1., dtype=float32))
    """
    at_least("block", block, 1)
    if window is not None:
        at_least("window", window, 1)
    q, k = jnp.asarray(q), jnp.asarray(k)
    check_shapes(q, k=k)
    q, k = blank(q, where), blank(k, where)
    return _max(q, k, _live(q, where), window, is_causal, block)


@partial(jax.jit, static_argnums=(3, 4, 5))
def _max(q, k, live, window, is_causal, block):
    """The largest logit over all queries."""
    largest = partial(_largest, window=window, is_causal=is_causal)
    k = k.astype(computing_dtype(q, k))  # once, so that its gradient is summed in f32

    def body(at, xs):
        return at + xs[0].shape[-2], atomic(largest, *xs, k, live, at)

    _, row = over_blocks(body, jnp.zeros((), jnp.int32), (q, live), block)
    top = jnp.max(row, axis=(-2, -1), initial=-jnp.inf)
    return jnp.where(top == -jnp.inf, 0, top)


def _window(q, k, v, live, *, window: int, block: int):
    """Softmax attention on the last `window` positions: hybrid without features."""
    data, kind = (q, k, v, q[..., :0], k[..., :0]), (window, False, False)
    reach = min(window, max(q.shape[-2], 1)) - 1
    block = max(block, reach // 4)  # the keys in reach are stored for each block
    return attend(None, data, 0.0, live[..., 0], kind, block, reach)[1]


@partial(jax.jit, static_argnames="block")
def _causal(q, k, v, live, *, block: int):
    """Softmax attention on all positions before, a block of queries at a time."""
    dtype = computing_dtype(q, k, v)
    every = partial(queries, window=max(q.shape[-2], 1), terraced=False)
    kept = v.dtype
    # Cast once, so that gradients are summed over the blocks in f32.
    q, k, v = (x.astype(dtype) for x in (q, k, v))
    none, one = k[..., :0], jnp.ones((), dtype)
    sums = empty_sum(none, v, dtype), empty_sum(none, k[..., :1], dtype)
    keys = (k, v, none, live)

    def body(at, xs):
        (q,) = xs
        places = (at, jnp.zeros_like(at))
        *_, out = atomic(every, sums, (q, q[..., :0]), keys, places, (one, one))
        return at + q.shape[-2], out

    _, out = over_blocks(body, jnp.zeros((), jnp.int32), (q,), block)
    return out.astype(kept)


def _largest(q, asks, k, live, at, *, window: int | None, is_causal: bool):
    """Of each query the largest logit that counts, [*batch, length, 1]."""
    t, s = positions(q, k, at, 0)
    seen = asks & jnp.swapaxes(live, -1, -2)
    if is_causal:
        seen &= s <= t
    if window is not None:
        seen &= jnp.abs(t - s) < window
    scores = jnp.einsum("...tf,...sf->...ts", q.astype(k.dtype), k)
    scores = jnp.where(seen, scores / math.sqrt(q.shape[-1]), -jnp.inf)
    return jnp.max(scores, axis=-1, keepdims=True, initial=-jnp.inf)


def _live(q, where):
    """Which positions count, [*batch, length, 1]."""
    if where is None:
        return jnp.ones_like(q[..., :1], bool)
    return jnp.asarray(where)[..., None]
