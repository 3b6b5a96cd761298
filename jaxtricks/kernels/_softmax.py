"""Softmax, its logarithm and its normalizer over a last axis of any length.

Derivatives store the result of `softmax`, or the input of the other two, and a number
or two a row: the value is a constant to them, and its tangent is written down here.
"""

import importlib
import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from .. import _safe as safe
from .._batch import AxisName
from .._check import one_of
from .._mask import at_least_f32, blank
from ._atomic import atomic
from ._attached import attached
from ._dispatch import IMPLEMENTATIONS, Kernel, dispatch
from ._extended import ext_exp, ext_sum, power_of_two


def softmax(
    x: Float[ArrayLike, "*batch classes"],
    *,
    where: Bool[ArrayLike, "*batch classes"] | None = None,
    two_pass: bool = False,
    axis_name: AxisName | None = None,
    implementation: str = "auto",
) -> Float[Array, "*batch classes"]:
    """The shares e^x_i / sum_j e^x_j of a row; for rows too long to go over thrice.

    Args:
      x: float[*batch, classes]; -inf rules a class out.
      where: bool[*batch, classes], which classes take part; the others may hold NaN.
      two_pass: sum by `ext_exp` and `ext_add` instead of finding the maximum first.
        Exact for |x| up to 1e4, beyond as if x was moved by its last digit; NaN beyond
        2e38. Shares below 1.2e-38 are 0.
      axis_name: mesh axis that splits the classes, inside shard_map.
      implementation: "auto", "xla", "mosaic_tpu", "mosaic_gpu" or "reference".
    Returns:
      x's dtype[*batch, classes] in [0, 1], computed in f32 at least; 0 where a class
      does not take part, also in a row where none does.
    Gradient: smooth in x, any order and mode; 0 where a class does not take part.
    Cost: a derivative stores the result. With the classes split over devices, two
      numbers a row travel, one more in a gradient; by `two_pass` on an Auto mesh only
      if `jax.set_mesh` set it. XLA on CPUs takes 2 to 4 times as long by `two_pass`.
    Raises: ValueError for a `where` or an implementation that does not fit.
    Source: Dukhan, Ablavatski, "The Two-Pass Softmax Algorithm", 2020,
      arXiv:2001.04438, algorithm 3, for `two_pass`. Differs: exp on the reduced range
      by XLA's; ln 2 in three terms, as multiply and add may not be fused.
    Example:
      >>> softmax(jnp.log(jnp.array([1.0, 2.0, 5.0])))
      Array([0.125 , 0.25 , 0.625], dtype=float32)
    """
    x = _live(x, where)
    name, form = ("two_pass_softmax", _two_pass) if two_pass else ("softmax", _shares)
    value = _form(name, form, axis_name, implementation)
    if implementation == "reference":
        return value(x)
    return attached(
        partial(_softmax_tangent, axis_name), value(lax.stop_gradient(x)), x
    )


def log_softmax(
    x: Float[ArrayLike, "*batch classes"],
    *,
    where: Bool[ArrayLike, "*batch classes"] | None = None,
    axis_name: AxisName | None = None,
    implementation: str = "auto",
) -> Float[Array, "*batch classes"]:
    """log softmax(x), without the underflow; for losses and for comparing classes.

    log p_i = x_i - log sum_j e^x_j

    Args:
      x: float[*batch, classes]; -inf rules a class out.
      where: bool[*batch, classes], which classes take part; the others may hold NaN.
      axis_name: mesh axis that splits the classes, inside shard_map.
      implementation: "auto", "xla", "mosaic_tpu", "mosaic_gpu" or "reference".
    Returns:
      x's dtype[*batch, classes] <= 0, computed in f32 at least; -inf where a class does
      not take part, also in a row where none does.
    Gradient: smooth in x, any order and mode; 0 where a class does not take part.
    Cost: a derivative stores x and two numbers a row. With the classes split over
      devices, two numbers a row travel, one more in a gradient.
    Raises: ValueError for a `where` or an implementation that does not fit.
    Source: definition.
    Example:
      >>> log_softmax(jnp.zeros(4))  # -log 4
      Array([-1.3863, -1.3863, -1.3863, -1.3863], dtype=float32)
    """
    x = _live(x, where)
    value = _form("log_softmax", _log_shares, axis_name, implementation)
    if implementation == "reference":
        return value(x)
    tangent = partial(_log_softmax_tangent, axis_name)
    log_p = attached(tangent, value(lax.stop_gradient(x)), x)
    return log_p if where is None else blank(log_p, where, -jnp.inf)


def logsumexp(
    x: Float[ArrayLike, "*batch classes"],
    *,
    where: Bool[ArrayLike, "*batch classes"] | None = None,
    axis_name: AxisName | None = None,
    implementation: str = "auto",
) -> Float[Array, "*batch"]:
    """log sum_j e^x_j of a row: the normalizer of `softmax`, a smooth maximum.

    Args:
      x: float[*batch, classes]; -inf rules a class out.
      where: bool[*batch, classes], which classes take part; the others may hold NaN.
      axis_name: mesh axis that splits the classes, inside shard_map.
      implementation: "auto", "xla", "mosaic_tpu", "mosaic_gpu" or "reference".
    Returns:
      f32[*batch] (f64 of f64), at least the maximum; -inf where no class takes part.
    Gradient: smooth in x, any order and mode; 0 where a class does not take part.
    Cost: a derivative stores x and two numbers a row. With the classes split over
      devices, two numbers a row travel, one more in a jvp.
    Raises: ValueError for a `where` or an implementation that does not fit.
    Source: definition.
    Example:
      >>> logsumexp(jnp.zeros((1, 4)))  # log 4
      Array([1.3863], dtype=float32)
    """
    x = _live(x, where)
    value = _form("logsumexp", _log_total, axis_name, implementation)
    if implementation == "reference":
        return value(x)
    tangent = partial(_logsumexp_tangent, axis_name)
    return attached(tangent, value(lax.stop_gradient(x)), x)


# --- values: each of (x, axis_name), plain jnp ---------------------------------------


def _origin_and_total(x, axis_name=None):
    """(origin, total): sum_j e^x_j = total e^origin, and total = 0 of nothing."""
    peak = at_least_f32(jnp.max(lax.stop_gradient(x), axis=-1, initial=-jnp.inf))
    if axis_name is not None:
        peak = lax.pmax(peak, axis_name)
    origin = jnp.where(jnp.isfinite(peak), peak, 0)
    total = jnp.sum(jnp.exp(at_least_f32(x) - origin[..., None]), axis=-1)
    return origin, _over_devices(total, axis_name)


def _shares(x, axis_name=None):
    origin, total = _origin_and_total(x, axis_name)
    shares = jnp.exp(at_least_f32(x) - origin[..., None])
    return (shares / safe.nonzero(total)[..., None]).astype(x.dtype)


def _log_shares(x, axis_name=None):
    origin, total = _origin_and_total(x, axis_name)
    log_total = jnp.log(safe.nonzero(total))
    return (at_least_f32(x) - origin[..., None] - log_total[..., None]).astype(x.dtype)


def _log_total(x, axis_name=None):
    origin, total = _origin_and_total(x, axis_name)
    return origin + safe.log(total)


def _two_pass(x, axis_name=None):
    mantissa, exponent = ext_sum(x)
    if axis_name is not None:
        top = lax.pmax(exponent, axis_name)
        mantissa = lax.psum(mantissa * power_of_two(exponent, top), axis_name)
        exponent = top
    shares, exponents = ext_exp(x)
    shares = shares / safe.nonzero(mantissa)[..., None]
    return (shares * power_of_two(exponents, exponent[..., None])).astype(x.dtype)


# --- derivatives ----------------------------------------------------------------------


def _softmax_tangent(axis_name, shares, x, dx):
    """p (dx - sum p dx)."""
    del x
    mean = _over_devices(atomic(_dot, shares, dx), axis_name)
    return atomic(_deviation, shares, dx, mean)


def _dot(a, b):
    return jnp.sum(at_least_f32(a) * at_least_f32(b), axis=-1)


def _deviation(shares, dx, mean):
    moved = at_least_f32(shares) * (at_least_f32(dx) - mean[..., None])
    return moved.astype(shares.dtype)


def _log_softmax_tangent(axis_name, log_p, x, dx):
    del log_p
    mean = _logsumexp_tangent(axis_name, None, x, dx)
    return (at_least_f32(dx) - mean[..., None]).astype(dx.dtype)


def _logsumexp_tangent(axis_name, value, x, dx):
    """sum p dx, from the statistics of x (on XLA, those that gave the value)."""
    del value
    pair = _origin_and_total(lax.stop_gradient(x), axis_name)
    origin, total = attached(partial(_total_tangent, axis_name), pair, x)
    _, moved = _total_tangent(axis_name, (origin, total), x, dx)
    return moved / safe.nonzero(total)


def _total_tangent(axis_name, pair, x, dx):
    """The origin is a constant: whatever it is, the value is the same."""
    origin = lax.stop_gradient(pair[0])
    moved = atomic(_weighted, x, origin, dx)
    return jnp.zeros_like(origin), _over_devices(moved, axis_name)


def _weighted(x, origin, dx):
    """sum e^(x - origin) dx."""
    return _dot(jnp.exp(at_least_f32(x) - origin[..., None]), dx)


# --- helpers --------------------------------------------------------------------------


def _live(x, where):
    """x as an array, with -inf for the classes that take no part."""
    return blank(jnp.asarray(x), where, -jnp.inf)


def _over_devices(x, axis_name):
    return x if axis_name is None else lax.psum(x, axis_name)


def _form(name, form, axis_name, implementation) -> Callable:
    """x -> the value, by the implementation asked for; over devices, by XLA."""
    if axis_name is None:
        return lambda x: dispatch(
            name,
            (x,),
            implementation=implementation,
            reference=form,
            xla=form,
            mosaic_tpu=_kernel("tpu", name),
            mosaic_gpu=_kernel("gpu", name),
        )
    one_of("implementation", implementation, IMPLEMENTATIONS)
    if implementation.startswith("mosaic"):
        raise ValueError(
            f"implementation: {implementation} of {name} cannot take an axis_name"
        )
    return partial(form, axis_name=axis_name)


def _kernel(platform: str, name: str) -> Kernel:
    """What a platform's kernel of rows lacks, and the kernel."""

    def module():
        return importlib.import_module(f".{platform}.softmax", __package__)

    def rows(x):
        return math.prod(x.shape[:-1]), x.shape[-1]

    def lacks(x):
        return module().lacks(jax.ShapeDtypeStruct(rows(x), x.dtype))

    def run(x):
        out = getattr(module(), name)(x.reshape(rows(x)))
        return out.reshape(x.shape[: x.ndim + out.ndim - 2])

    return lacks, run
