"""`lax.scan` for long training runs that one differentiates through.

Reverse mode stores what every step computed. Here the steps are nested in blocks of
blocks under `jax.checkpoint`: only the carries at the borders of the blocks under way
are stored, and the backward pass runs a block again, from its border, on its way.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import PyTree

from .. import _tree as tree
from .._check import at_least, one_of
from ._blocks import POLICIES, cut, width
from ._costs import chosen, count


def scan(
    step: Callable[[Any, Any], tuple[Any, Any]],
    init: PyTree,
    xs: PyTree = None,
    *,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
    policy: str = "replay",
    branching: int = 4,
    budget_mb: float | int | None = None,
) -> tuple[PyTree, PyTree]:
    """`lax.scan` whose gradient stores O(log T) carries; to differentiate training.

    carry_0 = init;   carry_{t+1}, y_t = step(carry_t, x_t);   returns (carry_T, ys)

    Args:
      step: (carry, x) -> (carry, y). It runs more than once in a gradient, so that a
        random step must take its key from the carry or from x.
      init: carry_0, any pytree, sharded or not.
      xs: pytree of arrays [T, ...], or None.
      length: T, where xs does not say it.
      reverse: run from the last x to the first.
      unroll: how many steps an iteration of the innermost loop holds.
      policy: what a gradient stores: "none", all that T steps compute (`lax.scan`);
        "step", T carries; "sqrt", 2 sqrt(T) carries; "replay", k log_k(T) carries;
        "offload", T carries in the host's memory. All but the first add what one step
        computes. A CPU's memory is the host's: there "offload" is "step".
      branching: k >= 2, the parts that "replay" cuts a block into. It takes up to
        2k - 1 where that leaves fewer odd steps, and more where T is so long (above
        2 k^6) that more than 6 levels would be nested.
      budget_mb: in place of policy and branching, the megabytes (10^6) that a gradient
        may take: of "none", "step" and "replay" with any k, what runs the fewest steps.
        Sizes are those of `plan`: estimates.
    Returns:
      (carry_T, ys), those of `lax.scan`.
    Gradient: exact in init, xs and all that step closes over, at any order and in both
      modes; but for "offload" in reverse over reverse, which jax has no rule for.
      Forward over reverse stores twice as much; reverse over reverse, a few times as
      much for "step" and "replay" and O(T) for "sqrt".
    Cost: nothing without a gradient. In one, a step runs once forward and once for each
      level: 2 T steps for "step" and "offload", 3 T for "sqrt", (1 + log_k T) T for
      "replay". `plan` tells it all before.
    Raises: ValueError for an unknown policy, branching < 2, or a budget that nothing
      keeps, with the least that is possible. Lengths that disagree, or a step that
      changes the carry's type, raise what `lax.scan` raises.
    Source: Engstrom et al., "Optimizing ML Training with Metagradient Descent", 2025,
      arXiv:2503.13751, REPLAY. Differs: scans nested when compiling take the
      place of a tree of states walked lazily; any step, not only an optimizer's.
    Example:
      >>> def train(rate):  # 100 steps of gradient descent on w^2 / 2, from w = 1
      ...     return scan(lambda w, _: (w - rate * w, None), 1.0, length=100)[0]
      >>> print(jax.grad(train)(0.01))  # -100 * 0.99^99
      -36.9730
    """
    one_of("policy", policy, POLICIES)
    at_least("branching", branching, 2)
    plain = partial(lax.scan, length=length, reverse=reverse, unroll=unroll)
    if policy != "none" or budget_mb is not None:
        jax.eval_shape(partial(plain, step), init, xs)  # lax.scan's checks and messages
    if budget_mb is not None:
        policy, branching = chosen(budget_mb, step, init, xs, length)
    if policy == "none":
        return plain(step, init, xs)
    if policy == "offload":
        return plain(_offloaded(step), init, xs)
    steps = count(xs, length)
    parts = width(policy, branching, steps)
    return _nested(step, init, xs, steps, parts, reverse, unroll)


def _offloaded(step):
    """A step whose carry waits for its gradient in the host's memory.

    A name is what policies of `jax.checkpoint` know a value by; the integers and keys
    of a carry are small and stay.
    """
    policy = jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=["carry"],
        offload_src="device",
        offload_dst="pinned_host",
    )

    def named(carry, x):
        def name(c):
            return checkpoint_name(c, "carry") if tree.is_float(c) else c

        return step(jax.tree.map(name, carry), x)

    return jax.checkpoint(named, policy=policy, prevent_cse=False)


def _nested(step, init, xs, steps, parts, reverse, unroll):
    """A scan over `parts` blocks or a few more, each nested likewise; then odd steps.

    A block stores the carries between its parts, and only while it is differentiated.
    """
    from_inputs = partial(jax.checkpoint, prevent_cse=False)  # scan keeps passes apart
    found = cut(steps, parts)
    if found is None:
        return lax.scan(
            from_inputs(step), init, xs, length=steps, reverse=reverse, unroll=unroll
        )
    blocks, size, odd = found

    @from_inputs
    def block(carry, xs):
        return _nested(step, carry, xs, size, parts, reverse, unroll)

    main, rest = slice(steps - odd), slice(steps - odd, None)
    if reverse:
        main, rest = slice(odd, None), slice(odd)
    folded = jax.tree.map(lambda x: x[main].reshape(blocks, size, *x.shape[1:]), xs)
    carry, ys = lax.scan(block, init, folded, length=blocks, reverse=reverse)
    ys = jax.tree.map(lambda y: y.reshape(blocks * size, *y.shape[2:]), ys)
    if odd == 0:
        return carry, ys
    xs = jax.tree.map(lambda x: x[rest], xs)
    carry, odd_ys = _nested(step, carry, xs, odd, steps, reverse, unroll)
    both = (odd_ys, ys) if reverse else (ys, odd_ys)
    return carry, jax.tree.map(lambda *y: jnp.concatenate(y), *both)
