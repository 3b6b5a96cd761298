"""Cross entropy from hidden states and the head's weight, a chunk of tokens at a time.

A chunk's logits are one full-vocabulary matrix product, reduced at once to a few
numbers a token (`Statistics`); the loss is a formula on those. Derivatives compute a
chunk's logits again (`atomic`), so that they hold no more than a few chunks' either.
Chunks are cut within each device's own tokens.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Integer, ScalarLike

from .._check import above, at_least, between, one_of
from .._compat import NamedSharding, P, varying_like
from .._mask import at_label, blank
from ._atomic import atomic

IMPLEMENTATIONS = ("auto", "xla")


def linear_cross_entropy(
    hidden: Float[ArrayLike, "*batch features"],
    weight: Float[ArrayLike, "features classes"],
    labels: Integer[ArrayLike, "*batch"],
    *,
    bias: Float[ArrayLike, " classes"] | None = None,
    softcap: ScalarLike | None = None,
    label_smoothing: ScalarLike = 0.0,
    z_loss: ScalarLike = 0.0,
    where: Bool[ArrayLike, "*batch"] | None = None,
    implementation: str = "auto",
    workspace_mb: float | int = 256,
) -> Float[Array, "*batch"]:
    """Cross entropy of `hidden @ weight` without its logits; for a large vocabulary.

    z = softcap tanh((hidden @ weight + bias) / softcap),   lse = log sum_v exp z_v
    loss = lse - (1 - label_smoothing) z_y - label_smoothing mean_v z_v + z_loss lse^2

    Args:
      hidden: float[*batch, features], what the head multiplies.
      weight: float[features, classes], the head; a tied embedding transposed.
      labels: int[*batch] in [0, classes); out of range gives NaN.
      bias: float[classes]; -inf rules a class out, from the smoothing too.
      softcap: bound > 0 of |z|; None for no bound. May be traced.
      label_smoothing: in [0, 1], the share of the target spread evenly. May be traced.
      z_loss: >= 0, weight of lse^2, which keeps logits from drifting. May be traced.
      where: bool[*batch], True counts.
      implementation: "auto" or "xla", the only one so far.
      workspace_mb: MiB that a chunk's logits in f32 may fill on a device; inf for one
        chunk. A chunk has one token at least.
    Returns:
      f32[*batch], log(classes) at zero weight without z_loss; inf where the label's
      class is ruled out; 0 where masked. All sums are in f32, whatever the dtypes.
    Gradient: smooth in all float arguments, any order and mode; nothing is stopped.
    Cost: one more product with the weight in a gradient; f32 copies of the weight and
      of its gradient. A value or gradient holds up to 4 chunks' logits at a time, a jvp
      or HVP up to 8, forward mode over an HVP up to 15; times the instances of a vmap.
      Reverse mode three times over stores a gradient of the weight per chunk.
      Hidden states stay on their device and the weight's gradient is reduced once: on
      an Explicit mesh, in shard_map, and on an Auto mesh that `jax.set_mesh` set and
      whose axis "data" splits the batch. A weight split over axes that split the batch
      is gathered first (on an Explicit mesh under jax 0.10, over any axes).
    Raises: ValueError for a shape, a hyperparameter or a choice that does not fit.
    Source: Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models", 2024,
      arXiv:2411.09009, sec. 4. Differs: cut by tokens, in plain XLA; no gradient is
      dropped as small and the vocabulary is not sorted; any order of derivatives.
    Example:
      >>> hidden, weight = jnp.ones((2, 3)), jnp.zeros((3, 5))
      >>> linear_cross_entropy(hidden, weight, jnp.array([0, 4]))  # log 5
      Array([1.6094, 1.6094], dtype=float32)
    """
    one_of("implementation", implementation, IMPLEMENTATIONS)
    above("workspace_mb", workspace_mb, 0)
    above("softcap", softcap, 0)
    between("label_smoothing", label_smoothing, 0, 1)
    at_least("z_loss", z_loss, 0)
    hidden, weight, labels = map(jnp.asarray, (hidden, weight, labels))
    _check_shapes(hidden, weight, labels, bias)
    token = _statistics(
        blank(hidden, where), weight, blank(labels, where), bias, softcap, workspace_mb
    )
    live = weight.shape[1]
    if bias is not None:
        live = jnp.sum(jnp.asarray(bias) > -jnp.inf, dtype=token.total.dtype)
    impossible = token.target == -jnp.inf
    nll = token.lse - jnp.where(impossible, 0, token.target)
    if isinstance(label_smoothing, int | float) and label_smoothing == 0:
        loss = nll  # so that the compiler drops the pass over the logits for `total`
    else:
        even = token.lse - token.total / live
        loss = (1 - label_smoothing) * nll + label_smoothing * even
    log_z = token.peak + token.lse
    loss += z_loss * log_z * log_z  # in this order 0 stays 0 where the square is inf
    return blank(jnp.where(impossible, jnp.inf, loss), where)


class Statistics(NamedTuple):
    """What a token's logits come down to, less their peak to keep the digits."""

    peak: Float[Array, "*batch"]  # max_v z_v, a constant to derivatives
    lse: Float[Array, "*batch"]  # log sum_v exp(z_v - peak)
    target: Float[Array, "*batch"]  # z_y - peak
    total: Float[Array, "*batch"]  # sum_v (z_v - peak) over the classes not ruled out


@partial(jax.jit, static_argnums=5)
def _statistics(hidden, weight, labels, bias, softcap, workspace_mb) -> Statistics:
    """`_chunked` on each device's own tokens: hidden states stay where they are.

    Only the mesh axes that split the batch are taken over by hand; where others split
    the classes, the compiler adds up over those.
    """
    local = partial(_chunked, workspace_mb=workspace_mb)
    spec = _batch_spec(hidden, labels.ndim)
    if not any(spec):
        return local(hidden, weight, labels, bias, softcap)
    axes = {axis for entry in spec for axis in _names(entry)}
    split = jax.shard_map(
        local,
        in_specs=(P(*spec), P(), P(*spec), P(), P()),
        out_specs=P(*spec),
        axis_names=axes,
    )
    weight, bias = jax.tree.map(partial(_gathered, axes), (weight, bias))
    return split(hidden, weight, _reshard(labels, spec), bias, softcap)


def _chunked(hidden, weight, labels, bias, softcap, workspace_mb) -> Statistics:
    """The statistics of all tokens, a chunk of them at a time."""
    batch, tokens = labels.shape, labels.size
    wide = jnp.float64 in (hidden.dtype, weight.dtype)
    dtype = jnp.dtype(jnp.float64 if wide else jnp.float32)
    # Once, before the chunks: in f32, so that the gradient of the weight is summed over
    # them in f32; varying, so that it is summed over the devices after them.
    head = jax.tree.map(
        lambda x: varying_like(jnp.asarray(x, dtype), hidden), (weight, bias, softcap)
    )
    chunks = _chunks(tokens, weight.shape[1] * dtype.itemsize, workspace_mb)

    def fold(x):
        """[*batch, ...] -> [chunks, tokens, ...], each chunk with every n-th token.

        Had the compiler split the batch by itself, each chunk would be split alike.
        """
        x = x.reshape(tokens, *x.shape[len(batch) :])
        x = jnp.pad(x, ((0, -tokens % chunks), *((0, 0),) * (x.ndim - 1)))
        return jnp.moveaxis(x.reshape(-1, chunks, *x.shape[1:]), 1, 0)

    def unfold(x):
        return jnp.moveaxis(x, 0, 1).ravel()[:tokens].reshape(batch)

    def body(carry, chunk):
        hidden, labels = chunk
        return carry, atomic(_formulas, labels, hidden.astype(dtype), *head)

    return jax.tree.map(unfold, lax.scan(body, None, (fold(hidden), fold(labels)))[1])


def _formulas(labels, hidden, weight, bias, softcap) -> Statistics:
    """The statistics of tokens from their logits, all of them."""
    logits = hidden @ weight
    if bias is not None:
        logits = logits + bias[None, :]
    live = logits > -jnp.inf
    if softcap is not None:
        capped = softcap * jnp.tanh(jnp.where(live, logits, 0) / softcap)
        logits = jnp.where(live, capped, logits)
    peak = lax.stop_gradient(jnp.max(logits, axis=-1))
    target = at_label(logits, labels) - peak
    logits = logits - peak[:, None]
    return Statistics(
        peak=peak,
        lse=jnp.log(jnp.sum(jnp.exp(logits), axis=-1)),
        target=target,
        total=jnp.sum(jnp.where(live, logits, 0), axis=-1),
    )


def _chunks(tokens: int, bytes_each: int, workspace_mb: float | int) -> int:
    """How many chunks: what the workspace asks for, or some more to come out even."""
    fit = max(1, int(min(tokens, workspace_mb * 2**20 / bytes_each)))
    least = max(1, math.ceil(tokens / fit))
    return next((n for n in range(least, 2 * least) if tokens % n == 0), least)


def _check_shapes(hidden, weight, labels, bias) -> None:
    """ValueError naming what does not fit."""
    batch, classes = hidden.shape[:-1], weight.shape[1:]
    if weight.ndim != 2 or hidden.shape[-1:] != weight.shape[:1]:
        raise ValueError(
            f"weight: wanted [features, classes] beside hidden {hidden.shape}, "
            f"came {weight.shape}"
        )
    if labels.shape != batch or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"labels: wanted integers of shape {batch} beside hidden {hidden.shape}, "
            f"came {labels.dtype}{list(labels.shape)}"
        )
    if bias is not None and jnp.shape(bias) != classes:
        raise ValueError(f"bias: wanted shape {classes}, came {jnp.shape(bias)}")


# --- meshes ---------------------------------------------------------------------------


def _batch_spec(x, rank: int) -> tuple:
    """What splits the batch axes of `x`: by its type, or "data" on an Auto mesh."""
    spec = jax.typeof(x).sharding.spec[:rank]
    mesh = jax.sharding.get_abstract_mesh()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    if any(spec) or rank == 0 or kinds.get("data") != AxisType.Auto:
        return tuple(spec)
    return ("data",) if x.shape[0] % mesh.shape["data"] == 0 else ()


def _names(entry) -> tuple[str, ...]:
    """The mesh axes in one entry of a PartitionSpec."""
    if isinstance(entry, str):
        return (entry,)
    return tuple(entry or ())


def _gathered(axes, x):
    """`x` whole along the mesh axes in `axes`."""
    spec = jax.typeof(x).sharding.spec
    return _reshard(x, [tuple(n for n in _names(e) if n not in axes) for e in spec])


def _reshard(x, spec):
    """`x` laid out by `spec` on an Explicit mesh; as it is on an Auto one."""
    mesh = jax.typeof(x).sharding.mesh
    if AxisType.Explicit not in mesh.axis_types:
        return x
    return jax.reshard(x, NamedSharding(mesh, P(*spec)))
