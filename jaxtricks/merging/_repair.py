"""REPAIR: averaged models have units of too small a variance; give them their own."""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, ScalarLike

from .. import _safe as safe
from .._check import between
from .._mask import at_least_f32


class Correction(NamedTuple):
    """What a unit is multiplied by, and what is then added."""

    scale: Array  # f32[units]
    shift: Array  # f32[units]


def repair(
    activations: Float[ArrayLike, "..."],
    others: Float[ArrayLike, "..."],
    merged: Float[ArrayLike, "..."],
    *,
    weight: ScalarLike = 0.5,
) -> Correction:
    """Gives the units of an averaged layer the mean and spread of those they came from.

    target mean = (1-t) mean_1 + t mean_2, target deviation = (1-t) s_1 + t s_2
    corrected = (merged - mean) deviation / s + target mean = scale merged + shift

    Args:
      activations: float[*batch, units], preactivations of a layer of the first model.
      others: float[*batch, units], of the second, permuted to match it.
      merged: float[*batch, units], of the merged model, whose earlier layers are
        already corrected.
      weight: t in [0, 1], the second model's share. May be traced.
    Returns:
      Correction: put it into the layer by `fold_repair`. A unit that is constant in
      the merged model is only shifted.
    Gradient: smooth but where a deviation is 0.
    Cost: one pass; the layers of a model are corrected one after the other.
    Raises: ValueError for activations of different units, no examples, a weight out of
      range.
    Source: Jordan et al., "REPAIR: REnormalizing Permuted Activations for
      Interpolation Repair", 2022, arXiv:2211.08403, sec. 4. Differs: none.
    Example:
      >>> a, b = jnp.array([[0.0], [2.0]]), jnp.array([[4.0], [8.0]])
      >>> scale, shift = repair(a, b, jnp.array([[0.0], [1.0]]))
      >>> scale[0], shift[0]
      (Array(3., dtype=float32), Array(2., dtype=float32))
    """
    between("weight", weight, 0, 1)
    means, spreads = [], []
    names = ("activations", "others", "merged")
    units = jnp.shape(merged)[-1:]
    for name, x in zip(names, (activations, others, merged), strict=True):
        x = at_least_f32(x)
        if x.ndim < 2 or x.shape[-1:] != units or not x.size:
            raise ValueError(f"{name}: wanted [*batch, {units}], came {x.shape}")
        x = x.reshape(-1, x.shape[-1])
        mean = jnp.mean(x, axis=0)
        means.append(mean)
        spreads.append(safe.sqrt(jnp.mean(jnp.square(x - mean[None]), axis=0)))
    target = (1 - weight) * means[0] + weight * means[1]
    spread = (1 - weight) * spreads[0] + weight * spreads[1]
    live = spreads[2] > 0
    scale = jnp.where(live, spread / jnp.where(live, spreads[2], 1), 1)
    return Correction(scale, target - scale * means[2])


def fold_repair(
    kernel: Float[ArrayLike, "*inputs units"],
    bias: Float[ArrayLike, " units"] | None,
    correction: Correction,
) -> tuple[Float[Array, "*inputs units"], Float[Array, " units"]]:
    """Puts a correction of preactivations into the layer that makes them.

    kernel scale, bias scale + shift

    Args:
      kernel: float[*inputs, units].
      bias: float[units], or None for none.
      correction: of `repair`.
    Returns:
      (kernel, bias) of their dtypes; the bias is f32 where there was none.
    Gradient: linear in kernel and bias.
    Cost: one pass.
    Raises: ValueError for a correction of other units.
    Source: Jordan et al., "REPAIR: REnormalizing Permuted Activations for
      Interpolation Repair", 2022, arXiv:2211.08403, sec. 4. Differs: none.
    Example:
      >>> fold_repair(jnp.ones((2, 1)), None, Correction(jnp.full(1, 3.0), jnp.ones(1)))
      (Array([[3.],
             [3.]], dtype=float32), Array([1.], dtype=float32))
    """
    units = jnp.shape(kernel)[-1:]
    scale, shift = (at_least_f32(x) for x in correction)
    if scale.shape != units or shift.shape != units:
        came = f"{scale.shape} and {shift.shape}"
        raise ValueError(f"correction: wanted shapes {units}, came {came}")
    dtype = jnp.result_type(kernel)
    wide = at_least_f32(kernel)
    new = wide * scale.reshape((1,) * (wide.ndim - 1) + units)
    if bias is None:
        return new.astype(dtype), shift
    corrected = at_least_f32(bias) * scale + shift
    return new.astype(dtype), corrected.astype(jnp.result_type(bias))
