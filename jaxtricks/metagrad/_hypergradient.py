"""Bilevel problems: an objective of where training ends, and its hypergradient."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from .. import _tree as tree
from .._check import of_shape, one_of
from .._mask import at_least_f32
from ._scan import scan
from ._truncated import truncated
from ._unroll import unroll

MODES = ("reverse", "forward")


def hypergradient(
    objective: Callable[[PyTree, PyTree], Float[Array, ""]],
    step: Callable[[Any, Any, Any], tuple[Any, Any]],
    init: PyTree,
    xs: PyTree,
    wrt: PyTree,
    *,
    length: int | None = None,
    mode: str = "reverse",
    window: int | None = None,
    policy: str = "replay",
    branching: int = 4,
) -> tuple[Float[Array, ""], PyTree]:
    """The outer objective of a bilevel problem, and its gradient by either mode.

    min_z E(w_T(z), z)   with   w_{t+1} = step(w_t, x_t, z)
    reverse: a_T = dE/dw, a_t = a_{t+1} A_t, g = dE/dz + sum_t a_{t+1} B_t
    forward: Z_{t+1} = A_t Z_t + B_t, g = dE/dz + dE/dw Z_T

    Args:
      objective: (carry_T, wrt) -> E, f[].
      step: (carry, x, wrt) -> (carry, y).
      init: carry_0.
      xs: pytree of arrays [T, ...], or None.
      wrt: the hyperparameters z, any pytree of floats.
      length: T, where xs does not say it.
      mode: "reverse", for many hyperparameters; "forward", for few and any T.
      window: in reverse, how many steps back it looks; all by default.
      policy, branching: what reverse mode stores, as for `scan`.
    Returns:
      (E, gradients like wrt).
    Gradient: differentiable again, both modes.
    Cost: reverse: that of `scan`'s gradient, whatever the number of hyperparameters;
      forward: that of `unroll`, P + 1 training runs with nothing stored.
    Raises: ValueError for an unknown mode, a window in forward mode, or what is no
      float in wrt.
    Source: Franceschi et al., "Bilevel Programming for Hyperparameter Optimization and
      Meta-Learning", 2018, arXiv:1806.04910. Differs: none.
    Example:
      >>> step = lambda w, x, rate: (w - rate * (w - x), None)
      >>> loss = lambda w, rate: (w - 1.0) ** 2
      >>> hypergradient(loss, step, 0.0, jnp.ones(9), 0.1, mode="forward")[1]
      Array(-3.0019, dtype=float32)
    """
    one_of("mode", mode, MODES)
    tree.check_floats("wrt", wrt)
    if mode == "forward":
        if window is not None:
            raise ValueError(f"window: wanted None in forward mode, came {window}")
        carry, moved = unroll(step, init, xs, wrt, length=length)
        by = jax.value_and_grad(objective, argnums=(0, 1), allow_int=True)
        value, (by_carry, by_wrt) = by(carry, wrt)
        each = jax.tree.structure(carry).flatten_up_to(moved)
        for slope, moves in zip(jax.tree.leaves(by_carry), each, strict=True):
            if moves is not None:
                along = jax.tree.map(lambda z, s=slope: _contract(s, z), moves)
                by_wrt = tree.add_scaled(by_wrt, 1.0, along)
        return value, by_wrt

    def outer(wrt):
        def inner(carry, x):
            return step(carry, x, wrt)[0], None

        cost = {"length": length, "policy": policy, "branching": branching}
        if window is None:
            carry, _ = scan(inner, init, xs, **cost)
        else:
            carry, _ = truncated(inner, init, xs, window=window, **cost)
        return objective(carry, wrt)

    return jax.value_and_grad(outer)(wrt)


def multi_step(
    objective: Callable[[PyTree, PyTree, PyTree], Float[Array, ""]],
    step: Callable[[Any, Any, Any], tuple[Any, Any]],
    init: PyTree,
    xs: PyTree,
    wrt: PyTree,
    *,
    weights: Float[ArrayLike, " steps"] | None = None,
    length: int | None = None,
    policy: str = "replay",
    branching: int = 4,
) -> Float[Array, ""]:
    """Objectives after one to K steps, mixed; its gradient trades bias for variance.

    sum_n v_n E(w_n, x_n, z)   with   w_{n+1} = step(w_n, x_n, z), n = 1..K

    For hyperparameters that are tuned while training goes on: the last horizon alone is
    the least myopic and the noisiest.

    Args:
      objective: (carry_n, x, wrt) -> E, f[]; x is what the n-th step was given, and may
        hold fresh data for it.
      step: (carry, x, wrt) -> (carry, y).
      init: where this window of training begins.
      xs: pytree of arrays [K, ...], or None.
      wrt: the hyperparameters.
      weights: float[K], v; 1 / K each by default. A unit vector is one horizon.
      length: K, where xs does not say it.
      policy, branching: what its gradient stores, as for `scan`.
    Returns:
      f32[]; `jax.grad` of it is the mixed meta-gradient.
    Gradient: exact, through the steps, in everything.
    Cost: one window of K steps and K objectives.
    Raises: ValueError for weights of another length.
    Source: Bonnet et al., "One Step at a Time: Pros and Cons of Multi-Step
      Meta-Gradient Reinforcement Learning", 2021, arXiv:2111.00206, abstract. Differs:
      the paper's weights are not known to us; even ones are our choice.
    Example:
      >>> step = lambda w, _, rate: (w - rate * w, None)
      >>> square = lambda w, _, rate: w**2
      >>> multi_step(square, step, 1.0, None, 0.5, length=2)  # (1/4 + 1/16) / 2
      Array(0.1562, dtype=float32)
    """

    def inner(carry, x):
        carry, _ = step(carry, x, wrt)
        return carry, at_least_f32(objective(carry, x, wrt))

    cost = {"length": length, "policy": policy, "branching": branching}
    _, values = scan(inner, init, xs, **cost)
    if weights is None:
        return jnp.mean(values)
    of_shape(jnp.shape(values), weights=weights)
    return jnp.sum(jnp.asarray(weights) * values)


def _contract(slope: Array, moves: Array) -> Array:
    """sum over the leaf's axes of slope times its derivative."""
    return jnp.tensordot(slope, moves, axes=jnp.ndim(slope))
