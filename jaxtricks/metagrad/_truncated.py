"""Truncated backpropagation through training: gradients that look back a few steps."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import PyTree

from .._check import at_least
from ._costs import count
from ._scan import scan


def truncated(
    step: Callable[[Any, Any], tuple[Any, Any]],
    init: PyTree,
    xs: PyTree = None,
    *,
    window: int,
    length: int | None = None,
    policy: str = "replay",
    branching: int = 4,
) -> tuple[PyTree, PyTree]:
    """`scan` whose gradient looks back at most `window` steps; biased, and cheap.

    d carry_{t+1} / d carry_t = 0  for T - t a multiple of the window, t > 0

    Steps are cut into windows from the end, so that what is told of carry_T comes from
    the last `window` steps (K-RMD), and a loss among the ys from those before it in its
    own window (truncated backpropagation through time).

    Args:
      step: (carry, x) -> (carry, y), as for `scan`.
      init: carry_0.
      xs: pytree of arrays [T, ...], or None.
      window: K >= 1; from T on the gradient is whole.
      length: T, where xs does not say it.
      policy, branching: what the gradient of a window stores, as for `scan`.
    Returns:
      (carry_T, ys), those of `lax.scan`.
    Gradient: the truncated one in both modes; 0 in init through carry_T if T > K. The
      error shrinks as (1 - rate mu)^K where the inner loss has curvature mu. A second
      derivative is cut as the first is.
    Cost: as `scan` for K steps; other windows are run back only where their ys matter.
    Raises: ValueError for window < 1, and for what `scan` refuses.
    Source: Shaban et al., "Truncated Back-propagation for Bilevel Optimization", 2018,
      arXiv:1810.10667. Differs: windows before the last serve losses among the ys.
    Example:
      >>> def train(rate, window):
      ...     step = lambda w, _: (w - rate * w, None)
      ...     return truncated(step, 1.0, length=100, window=window)[0]
      >>> print(jax.grad(train)(0.01, 10), jax.grad(train)(0.01, 100))
      -3.6973 -36.9730
    """
    at_least("window", window, 1)
    jax.eval_shape(partial(lax.scan, step, length=length), init, xs)  # its messages
    steps = count(xs, length)
    run = partial(scan, step, policy=policy, branching=branching)
    blocks = max(1, -(-steps // window))
    if blocks == 1:
        return run(init, xs, length=steps)
    first = steps - (blocks - 1) * window

    def part(start, stop):
        return jax.tree.map(lambda x: x[start:stop], xs)

    @partial(jax.checkpoint, prevent_cse=False)
    def block(carry, xs):
        carry, ys = run(carry, xs, length=window)
        return _stopped(carry), ys

    carry, ys = run(init, part(0, first), length=first)
    middle = jax.tree.map(
        lambda x: x.reshape(blocks - 2, window, *x.shape[1:]),
        part(first, steps - window),
    )
    carry, middle_ys = lax.scan(block, _stopped(carry), middle, length=blocks - 2)
    middle_ys = jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:]), middle_ys)
    carry, last_ys = run(carry, part(steps - window, steps), length=window)
    parts = ys, middle_ys, last_ys
    return carry, jax.tree.map(lambda *y: jnp.concatenate(y), *parts)


def _stopped(carry: PyTree) -> PyTree:
    return jax.tree.map(lax.stop_gradient, carry)
