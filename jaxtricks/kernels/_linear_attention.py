"""Lightning attention: causal linear attention with decay, a block at a time.

Without a softmax, what a position sees of all those before it is one matrix, the state
S_t = decay S_{t-1} + k_t v_t^T. A block's positions see each other by a small masked
product and everything before the block by the state at its start; derivatives store
those states alone (`atomic`). The same function takes a state in and hands one out, so
that training, prefill and decoding are one.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, ScalarLike

from .._check import above, at_least, between, one_of
from .._mask import at_least_f32, blank
from ._atomic import atomic
from ._blocks import check_shapes, computing_dtype, empty_sum, over_blocks, per_head


class LinearAttentionState(NamedTuple):
    """What causal linear attention knows of all positions so far."""

    kv: Float[Array, "*batch features values"]  # f32, sum_s decay^(t-s) k_s v_s^T


def lightning_linear_attention(
    q: Float[ArrayLike, "*batch length features"],
    k: Float[ArrayLike, "*batch length features"],
    v: Float[ArrayLike, "*batch length values"],
    *,
    decay: ScalarLike | Float[ArrayLike, "..."] = 1.0,
    where: Bool[ArrayLike, "*batch length"] | None = None,
    block: int = 64,
) -> Float[Array, "*batch length values"]:
    """Causal linear attention with decay, in blocks; for training on long sequences.

    out_t = sum_{s<=t} decay^(t-s) (q_t . k_s) v_s

    Nothing is normalised: the paper has swish on q and k before, an RMS norm over the
    heads' outputs after. `lightning_decay` gives its decays, `lrpe` its positions.

    Args:
      q: float[*batch, length, features], with the heads among the batch axes.
      k: float[*batch, length, features].
      v: float[*batch, length, values].
      decay: in (0, 1], a scalar or [*heads], which end the batch axes; 1 is plain
        linear attention. May be traced.
      where: bool[*batch, length], True counts. What does not still takes up a position.
      block: positions in a block; a cost, the result is the same. The default is that
        of the authors' kernel.
    Returns:
      [*batch, length, values] in v's dtype, computed in f32; 0 where masked.
    Gradient: smooth in q, k, v and decay, any order and mode; nothing is stopped.
    Cost: length * (block + features) products a value; length / block states stored
      for a gradient, and no array of length x length.
    Raises: ValueError for a shape, decay or block that does not fit.
    Source: Qin et al., "Scaling TransNormer to 175 Billion Parameters", 2023,
      arXiv:2307.14995, lightning attention. Differs: a state crosses from block to
      block, where algorithm 1 goes over all pairs of blocks; in plain XLA.
    Example:
      >>> ones = jnp.ones((3, 1))
      >>> lightning_linear_attention(ones, ones, ones, decay=0.5).ravel()
      Array([1.  , 1.5 , 1.75], dtype=float32)
    """
    _, out = lightning_linear_attention_step(
        None, q, k, v, decay=decay, where=where, block=block
    )
    return out


def lightning_linear_attention_step(
    state: LinearAttentionState | None,
    q: Float[ArrayLike, "*batch length features"],
    k: Float[ArrayLike, "*batch length features"],
    v: Float[ArrayLike, "*batch length values"],
    *,
    decay: ScalarLike | Float[ArrayLike, "..."] = 1.0,
    where: Bool[ArrayLike, "*batch length"] | None = None,
    block: int = 64,
) -> tuple[LinearAttentionState, Float[Array, "*batch length values"]]:
    """Lightning attention that goes on from a state; for prefill, decoding, segments.

    S_t = decay S_{t-1} + k_t v_t^T,   out_t = S_t^T q_t

    Args:
      state: what the call before returned; None at the start.
      q: float[*batch, length, features]; a length of 1 decodes one position.
      k: float[*batch, length, features].
      v: float[*batch, length, values].
      decay: in (0, 1], a scalar or [*heads], which end the batch axes. May be traced.
      where: bool[*batch, length], True counts. What does not still takes up a position.
      block: positions in a block; a cost, the result is the same.
    Returns:
      The state after these positions, in f32, and [*batch, length, values] in v's
      dtype: what `lightning_linear_attention` of the whole sequence has there.
    Gradient: smooth in state, q, k, v and decay, any order and mode.
    Cost: as `lightning_linear_attention`; the state is features * values numbers.
    Raises: ValueError for a shape, decay or block that does not fit.
    Source: Qin et al., "Scaling TransNormer to 175 Billion Parameters", 2023,
      arXiv:2307.14995, the robust inference, which never divides by a power of the
      decay. Differs: any number of positions a step.
    Example:
      >>> one = jnp.ones((1, 1))
      >>> state, _ = lightning_linear_attention_step(None, one, one, one, decay=0.5)
      >>> lightning_linear_attention_step(state, one, one, one, decay=0.5)[1]
      Array([[1.5]], dtype=float32)
    """
    above("decay", decay, 0)
    between("decay", decay, 0, 1)
    at_least("block", block, 1)
    data = tuple(map(jnp.asarray, (q, k, v)))
    check_shapes(data[0], k=data[1], v=data[2])
    return _attend(state, data, decay, where, block)


def lightning_decay(
    heads: int,
    *,
    layer: ScalarLike = 0,
    layers: ScalarLike = 1,
    slopes: str = "linear",
) -> Float[Array, " heads"]:
    """Decays of TransNormerLLM's heads: later heads forget sooner, later layers later.

    linear:     decay_h = exp(-(8 h / heads) (1 - layer / layers)),  h = 1 .. heads
    geometric:  decay_h = exp(-2^(-8 h / heads) (1 - layer / (layers - 1) + 1e-5))

    Args:
      heads: how many.
      layer: index of the layer in [0, layers). May be traced.
      layers: how many layers. May be traced.
      slopes: "linear" as in the paper, or "geometric" as in the released models, where
        it is the earlier heads that forget sooner; there a number of heads that is no
        power of 2 takes every other slope of the next one, as in ALiBi.
    Returns:
      f32[heads] in (0, 1], for `lightning_linear_attention(decay=)`.
    Gradient: smooth in layer and layers.
    Cost: none.
    Raises: ValueError for no heads, no layers, or another name of slopes.
    Source: Qin et al., "Scaling TransNormer to 175 Billion Parameters", 2023,
      arXiv:2307.14995, position encoding. Differs: geometric slopes of a single
      layer are not scaled, where the released code divides by 0.
    Example:
      >>> lightning_decay(4, layer=1, layers=2)
      Array([0.3679, 0.1353, 0.0498, 0.0183], dtype=float32)
    """
    at_least("heads", heads, 1)
    above("layers", layers, 0)
    one_of("slopes", slopes, ("linear", "geometric"))
    layer, layers = at_least_f32(layer), at_least_f32(layers)
    if slopes == "linear":
        rates, part = [8 * h / heads for h in range(1, heads + 1)], 1 - layer / layers
    else:
        rates = _geometric(heads)
        part = 1 - layer / jnp.maximum(layers - 1, 1) + 1e-5
    return jnp.exp(-jnp.asarray(rates, part.dtype) * part)


def lrpe(
    x: Float[ArrayLike, "*batch length features"],
    theta: Float[ArrayLike, "..."],
    *,
    offset: ScalarLike = 0,
) -> Float[Array, "*batch length twice"]:
    """Linearised relative positions: turns queries and keys by their position.

    lrpe(x)_t = [x_t cos(theta t), x_t sin(theta t)],   so that
    lrpe(q)_t . lrpe(k)_s = sum_i q_ti k_si cos(theta_i (t - s))

    With the `decay` of `lightning_linear_attention` this is the paper's LRPE-d. Its
    first layer has both; all others the decay alone.

    Args:
      x: float[*batch, length, features], queries or keys.
      theta: float[*heads, features] in radians a position; heads end the batch axes.
        Learned; it starts from 10000^(-2 i / n) for i = 0 .. n-1 over all n features of
        all heads.
      offset: position of the first; in decoding, how many came before. May be traced.
    Returns:
      [*batch, length, 2 features] in x's dtype, computed in f32, of x's norm.
    Gradient: smooth in x, theta and offset.
    Cost: twice the features of queries, keys and state.
    Raises: ValueError for a theta that does not fit.
    Source: Qin et al., "Scaling TransNormer to 175 Billion Parameters", 2023,
      arXiv:2307.14995, position encoding. Differs: real parts, as the released models.
    Example:
      >>> lrpe(jnp.ones((2, 1)), jnp.array([jnp.pi / 2])).round(4) + 0
      Array([[1., 0.],
             [0., 1.]], dtype=float32)
    """
    x = jnp.asarray(x)
    theta = jnp.asarray(theta, computing_dtype(x, jnp.asarray(theta)))
    theta = per_head("theta", theta, x, theta.dtype, after=x.shape[-1:])
    position = lax.broadcasted_iota(theta.dtype, x.shape[-2:], 0)
    position = position + jnp.asarray(offset, theta.dtype)
    angle = position.reshape((1,) * (x.ndim - 2) + x.shape[-2:]) * theta[..., None, :]
    wide = x.astype(theta.dtype)
    turned = [wide * jnp.cos(angle), wide * jnp.sin(angle)]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


@partial(jax.jit, static_argnums=4)
def _attend(state, data, decay, where, block):
    """The state after the positions of `data`, and what they see."""
    dtype = computing_dtype(*data)
    log_decay = jnp.log(per_head("decay", decay, data[0], dtype))
    q, k, v = (blank(x, where) for x in data)
    if state is None:
        state = LinearAttentionState(empty_sum(k, v, dtype))

    def body(kv, xs):
        return atomic(_block, kv, *xs, log_decay)

    kv, out = over_blocks(body, state.kv.astype(dtype), (q, k, v), block)
    return LinearAttentionState(kv), blank(out.astype(v.dtype), where)


def _block(kv, q, k, v, log_decay):
    """The state after a block of positions, and what they see."""
    q, k, v = (x.astype(kv.dtype) for x in (q, k, v))
    length = q.shape[-2]
    at = jnp.arange(length)

    def decayed(steps):  # [*heads, *steps]; no step is negative, so no power grows
        powers = steps.reshape((1,) * log_decay.ndim + steps.shape).astype(kv.dtype)
        return jnp.exp(powers * log_decay.reshape(log_decay.shape + (1,) * steps.ndim))

    gap = at[:, None] - at[None, :]
    seen = jnp.where(gap >= 0, decayed(jnp.maximum(gap, 0)), 0)
    scores = jnp.einsum("...tf,...sf->...ts", q, k) * seen
    before = jnp.einsum("...tf,...fv->...tv", q, kv) * decayed(at + 1)[..., None]
    left = k * decayed(length - 1 - at)[..., None]
    kv = kv * decayed(jnp.full((1, 1), length)) + jnp.einsum(
        "...sf,...sv->...fv", left, v
    )
    return kv, before + jnp.einsum("...ts,...sv->...tv", scores, v)


def _geometric(heads: int) -> list[float]:
    """ALiBi's slopes."""
    near = 2 ** (heads.bit_length() - 1)
    slopes = [2 ** (-8 * h / near) for h in range(1, near + 1)]
    return slopes + (_geometric(2 * near)[::2][: heads - near] if near < heads else [])
