"""Cross entropy and its gradients from one pass over a vocabulary's logits.

Gradients that wait for a cotangent need the logits a second time. Where every token's
weight is known beforehand, they are made at once, while a chunk's logits are there.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Integer, ScalarLike

from .._check import above, at_least, between
from .._compat import unvaried, varying_like
from .._mask import blank
from ._by_chunks import (
    by_chunks_and_sum,
    copies_held,
    finished,
    on_mesh,
    product,
    reshard,
)
from ._linear_cross_entropy import is_zero, of_token
from ._relative import joined, of_logits
from ._statistics import own_labels, prepared

BLOCK = 512  # classes that the filter keeps or drops together


class LossAndGrads(NamedTuple):
    """The losses and the gradients of their weighted sum."""

    loss: Float[Array, "*batch"]
    hidden: Float[Array, "*batch features"]
    weight: Float[Array, "..."]  # of the weight's shape
    bias: Float[Array, " classes"] | None
    dropped: Float[Array, "*batch"] | None  # sum_v |weight d loss / d logit_v| left out


def linear_cross_entropy_value_and_grad(
    hidden: Float[ArrayLike, "*batch features"],
    weight: Float[ArrayLike, "..."],
    labels: Integer[ArrayLike, "*batch"],
    *,
    weights: Float[ArrayLike, "*batch"] | None = None,
    filter_eps: ScalarLike | None = None,
    layout: str = "dv",
    bias: Float[ArrayLike, " classes"] | None = None,
    softcap: ScalarLike | None = None,
    scale: ScalarLike = 1.0,
    class_weights: Float[ArrayLike, " classes"] | None = None,
    label_smoothing: ScalarLike = 0.0,
    z_loss: ScalarLike = 0.0,
    where: Bool[ArrayLike, "*batch"] | None = None,
    w_axis: str | None = None,
    workspace_mb: float | int | None = None,
) -> LossAndGrads:
    """`linear_cross_entropy` and its gradients in one pass; where weights are known.

    losses l_i;   gradients of sum_i weights_i l_i in hidden, weight and bias

    The logits are computed once, not again for the gradients: three products in place
    of four. So the weights cannot depend on the losses.

    Args:
      hidden, weight, labels: as in `linear_cross_entropy`, and so all not named here.
      weights: float[*batch], for example where / count for the mean; None for 1.
      filter_eps: None, or a bound >= 0: in 512 classes of a chunk where no |weights_i
        d l_i / d z_iv| reaches it, gradients count as 0 and their products are skipped.
        The result is not the derivative then. The source has 2^-12 for bf16, and does
        not count the weights in. May be traced.
      layout, bias, softcap, scale, class_weights: as in `linear_cross_entropy`.
      label_smoothing, z_loss, where, w_axis, workspace_mb: likewise.
    Returns:
      LossAndGrads: f32[*batch] losses; gradients in the dtypes of the arguments; with
      `filter_eps` in dropped, f32[*batch], what every token's gradient left out.
    Gradient: as smooth as the loss, but the gradients hold one of the weight for every
      chunk in reverse mode: differentiate `linear_cross_entropy` twice instead.
    Cost: three products with the weight, an f32 copy of its gradient, no statistics
      kernel; with split classes, every chunk's statistics travel in turn.
    Raises: ValueError for a shape, a hyperparameter or a choice that does not fit.
    Source: Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models", 2024,
      arXiv:2411.09009, sec. 4.3 (the filter). Differs: gradients are made in the
      forward pass; the filter weighs a gradient before testing it, and reports what it
      drops.
    Example:
      >>> out = linear_cross_entropy_value_and_grad(
      ...     jnp.ones((1, 3)), jnp.zeros((3, 2)), jnp.array([1])
      ... )
      >>> print(out.loss, out.weight[0])  # log 2, p - y
      [0.6931] [ 0.5 -0.5]
    """
    between("label_smoothing", label_smoothing, 0, 1)
    at_least("z_loss", z_loss, 0)
    at_least("filter_eps", filter_eps, 0)
    above("workspace_mb", workspace_mb, 0)
    hidden, weight = jnp.asarray(hidden), jnp.asarray(weight)
    given = prepared(
        hidden,
        weight,
        labels,
        layout=layout,
        bias=bias,
        softcap=softcap,
        scale=scale,
        class_weights=class_weights,
        where=where,
    )
    dtype, batch = given.hiddens[0].dtype, given.labels.shape
    if weights is None:
        by = varying_like(jnp.ones(batch, dtype), hidden)
    else:
        by = jnp.asarray(weights, dtype)
    if by.shape != batch:
        raise ValueError(f"weights: wanted shape {batch}, came {by.shape}")
    smoothing = None if is_zero(label_smoothing) else label_smoothing
    out = _value_and_grad(
        (given.hiddens[0], given.labels, blank(by, where)),
        (given.heads[0], smoothing, z_loss, filter_eps),
        given.forms[0],
        w_axis,
        workspace_mb,
    )
    return LossAndGrads(
        blank(out.loss, where),
        _like(out.hidden, hidden),
        _like(out.weight, weight),
        None if bias is None else _like(out.bias, jnp.asarray(bias)),
        out.dropped,
    )


def _like(x, argument):
    """A gradient in its argument's dtype and layout."""
    return reshard(x, jax.typeof(argument).sharding.spec).astype(argument.dtype)


@partial(jax.jit, static_argnums=(2, 3, 4))
def _value_and_grad(tokens, heads, form, w_axis, workspace_mb):
    heads = jax.tree.map(lambda x: jnp.asarray(x, tokens[0].dtype), heads)

    def results(rows, heads):
        head, _, _, eps = heads
        return LossAndGrads(
            rows, rows, head.weight, head.bias, None if eps is None else rows
        )

    local = partial(_local, form, workspace_mb)
    return on_mesh(
        local, tokens, heads, layout=form.layout, w_axis=w_axis, results=results
    )


def _local(form, workspace_mb, tokens, heads, w_axis):
    """On one device: losses and hidden gradients by chunk, the weight's summed."""
    (hidden, labels, weights), head = tokens, heads[0]
    batch, features = labels.shape, hidden.shape[-1]
    classes = head.weight.shape[form.layout == "dv"]
    labels = own_labels(labels, classes, w_axis)
    own = hidden if w_axis is None else varying_like(hidden, head.weight)
    rows = own.reshape(-1, features), labels.reshape(-1), weights.reshape(-1)
    (loss, by_hidden, dropped), (by_weight, by_bias) = by_chunks_and_sum(
        partial(_chunk, form, classes, w_axis),
        rows,
        heads,
        classes=classes,
        workspace_mb=workspace_mb,
        copies=copies_held(head, heads[1] is not None),
    )
    return LossAndGrads(
        loss.reshape(batch),
        unvaried(by_hidden.reshape(hidden.shape), hidden),
        unvaried(by_weight, head.weight),
        jax.tree.map(unvaried, by_bias, head.bias),
        jax.tree.map(lambda x: x.reshape(batch), dropped),
    )


def _chunk(form, classes, w_axis, tokens, heads):
    """((loss, gradient in hidden, dropped), (in weight, in bias)) of some tokens."""
    (hidden, labels, weights), (head, smoothing, z_loss, eps) = tokens, heads

    def of_z(z):
        stats = () if smoothing is None else ("total",)
        token = of_logits(stats, z, labels, head.class_weights)
        return of_token(joined(token, labels, classes, w_axis), smoothing, z_loss)

    x, pull = jax.vjp(partial(product, form=form), hidden, head.weight)
    z, finish = jax.vjp(lambda x, b: finished(x, head._replace(bias=b)), x, head.bias)
    loss, pull_loss = jax.vjp(of_z, z)
    (z_bar,) = pull_loss(weights)
    if eps is None:
        x_bar, by_bias = finish(z_bar)
        by_hidden, by_weight = pull(x_bar)
        return (loss, by_hidden, None), (by_weight, by_bias)
    small, kept = _filter(z_bar, eps)
    x_bar, by_bias = finish(kept)
    by_hidden, by_weight = _products(hidden, head.weight, x_bar, small, form)
    dropped = jnp.sum(jnp.abs(z_bar - kept), axis=-1)
    if w_axis is not None:
        dropped = lax.psum(dropped, w_axis)
    return (loss, by_hidden, dropped), (by_weight, by_bias)


def _filter(z_bar, eps):
    """(bool[blocks], z_bar without those): blocks of classes in which all is small."""
    classes = z_bar.shape[1]
    peak = _fold(jnp.max(jnp.abs(z_bar), axis=0, initial=0.0), 0).max(axis=1)
    small = peak < eps
    return small, jnp.where(jnp.repeat(small, BLOCK)[None, :classes], 0, z_bar)


def _products(hidden, weight, x_bar, small, form):
    """The gradients in hidden and weight, block by block but for the small ones."""
    axis, classes = int(form.layout == "dv"), x_bar.shape[1]

    def body(by_hidden, block):
        weight, x_bar, small = block
        pull = jax.vjp(partial(product, form=form), hidden, weight)[1]
        none = jnp.zeros_like(hidden), jnp.zeros_like(weight)
        part, by_weight = lax.cond(small, lambda _: none, pull, x_bar)
        return by_hidden + part, by_weight

    blocks = _fold(weight, axis), _fold(x_bar, 1), small
    by_hidden, by_weight = lax.scan(body, jnp.zeros_like(hidden), blocks)
    by_weight = jnp.moveaxis(by_weight, 0, axis)
    shape = (*weight.shape[:axis], -1, *weight.shape[axis + 1 :])
    by_weight = lax.slice_in_dim(by_weight.reshape(shape), 0, classes, axis=axis)
    return by_hidden, by_weight


def _fold(x, axis):
    """The classes as [blocks, BLOCK], blocks in front; zeros fill up the last."""
    classes = x.shape[axis]
    blocks = -(-classes // BLOCK)
    pad = [(0, 0)] * x.ndim
    pad[axis] = (0, blocks * BLOCK - classes)
    shape = (*x.shape[:axis], blocks, BLOCK, *x.shape[axis + 1 :])
    return jnp.moveaxis(jnp.pad(x, pad).reshape(shape), axis, 0)
