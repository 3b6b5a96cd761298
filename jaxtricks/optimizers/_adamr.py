"""AdamR: Adam that is drawn back to the pretrained weights, not to zero."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree, ScalarLike

from .. import _safe as safe
from .. import _tree as tree
from .._check import at_least, one_of
from .._mask import at_least_f32
from ._leaves import adam, descend, incremented, map_leaves, memory, moves, needs_params


def adamr(
    learning_rate: ScalarLike | optax.Schedule = 1e-3,
    *,
    pretrained: PyTree,
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.999,
    eps: ScalarLike = 1e-8,
    weight_decay: ScalarLike = 1e-4,
    norm: str = "l2",
) -> optax.GradientTransformationExtraArgs:
    """Fine-tuning whose changes stay small enough to be pruned away (`darex_q`).

    w <- w - learning_rate (scale_by_adamr's direction)

    Args:
      learning_rate: >= 0, or a schedule; the code's 1e-3.
      pretrained, b1, b2, eps, weight_decay, norm: as of `scale_by_adamr`.
    Returns:
      A transformation whose update(grads, state, params) gives what
      `optax.apply_updates` adds.
    Gradient: as of `scale_by_adamr`; smooth in learning_rate.
    Cost: that of `scale_by_adamr`.
    Raises: ValueError as `scale_by_adamr`.
    Source: Deng et al., "DARE the Extreme: Revisiting Delta-Parameter Pruning For
      Fine-Tuned Models", 2024, arXiv:2410.09344, alg. 3, and its code. Differs: none
      beyond `scale_by_adamr`.
    Example:
      >>> w, g = jnp.array([1.0]), jnp.array([0.5])
      >>> tx = adamr(0.1, pretrained=jnp.array([0.0]), weight_decay=0.25)
      >>> tx.update(g, tx.init(w), w)[0]  # -0.1 (1 + 0.25 / 0.5)
      Array([-0.15], dtype=float32)
    """
    direction = scale_by_adamr(
        b1, b2, eps, pretrained=pretrained, weight_decay=weight_decay, norm=norm
    )
    return optax.chain(direction, descend(learning_rate))


class AdamRState(NamedTuple):
    """Adam's moments."""

    step: Int[Array, ""]  # int32[], updates so far
    mu: PyTree  # f32 like the parameters
    nu: PyTree  # f32 like the parameters


def scale_by_adamr(
    b1: ScalarLike = 0.9,
    b2: ScalarLike = 0.999,
    eps: ScalarLike = 1e-8,
    *,
    pretrained: PyTree,
    weight_decay: ScalarLike = 1e-4,
    norm: str = "l2",
) -> optax.GradientTransformationExtraArgs:
    """Adam's direction and a pull to the pretrained weights, as strong as the step.

    direction = adam(g) + weight_decay / v (w - pretrained)
    v = sqrt(the mean over all entries of Adam's second moments, without their bias)

    Args:
      b1, b2, eps: Adam's.
      pretrained: where fine-tuning began: a tree with the parameters' leaves, and with
        others if only a part is trained.
      weight_decay: >= 0; the code's 1e-4.
      norm: "l2", or "l1": the sign of w - pretrained (static).
    Returns:
      A transformation whose update(grads, state, params) gives a direction to step
      against, in each leaf's dtype.
    Gradient: smooth but for the signs of "l1"; 0 for v where all gradients are 0, which
      then is 1.
    Cost: Adam's, and the pretrained weights.
    Raises: ValueError if params are missing, for pretrained that lack a leaf or have
      it in another shape (with the paths), another word, a number out of range.
    Source: Deng et al., "DARE the Extreme: Revisiting Delta-Parameter Pruning For
      Fine-Tuned Models", 2024, arXiv:2410.09344, alg. 3, and its code. Differs: both
      parts are of the weights before the step, as in the code; no AMSGrad.
    Example:
      >>> w, g = jnp.array([1.0]), jnp.array([0.5])
      >>> tx = scale_by_adamr(pretrained=jnp.array([0.0]), weight_decay=0.25)
      >>> tx.update(g, tx.init(w), w)[0]
      Array([1.5], dtype=float32)
    """
    one_of("norm", norm, ("l2", "l1"))
    for name, value in (("b1", b1), ("b2", b2), ("eps", eps)):
        at_least(name, value, 0)
    at_least("weight_decay", weight_decay, 0)

    def init(params):
        return AdamRState(jnp.zeros((), jnp.int32), memory(params), memory(params))

    def update(updates, state, params=None, **extra):
        del extra
        needs_params("scale_by_adamr", params)
        start = _start(pretrained, params)
        step = incremented(state.step)

        def first(p, g, m, v):
            if not moves(g, p):
                return g, m, v
            return adam(at_least_f32(g), m, v, step, b1, b2, eps)

        steps, mu, nu = map_leaves(first, 3, params, updates, state.mu, state.nu)
        size = _mean_root(params, updates, nu, 1 - b2**step)

        def pulled(p, g, u, p0):
            if not moves(g, p):
                return (u,)
            change = at_least_f32(p) - at_least_f32(p0)
            pull = jnp.sign(change) if norm == "l1" else change
            u = u + weight_decay * pull / size.astype(u.dtype)
            return (u.astype(jnp.result_type(g)),)

        (steps,) = map_leaves(pulled, 1, params, updates, steps, start)
        return steps, AdamRState(step, mu, nu)

    return optax.GradientTransformationExtraArgs(init, update)


def _start(pretrained: PyTree, params: PyTree) -> PyTree:
    """The pretrained weights of the parameters that there are, masked ones masked."""
    known, here = tree.paths(pretrained), tree.paths(params)
    lacks = [p for p, x in here.items() if p not in known and not tree.is_masked(x)]
    if lacks:
        raise ValueError(f"pretrained: {'; '.join(f'{p} is missing' for p in lacks)}")
    found = [x if tree.is_masked(x) else known[p] for p, x in here.items()]
    start = jax.tree.structure(params, is_leaf=tree.is_masked).unflatten(found)
    tree.check_alike("pretrained", start, params)
    return start


def _mean_root(params, updates, nu, bias) -> Float[Array, ""]:
    """The root of the mean second moment over what moves; 1 where it is 0."""
    total, count = [], 0

    def add(p, g, v):
        nonlocal count
        if moves(g, p):
            total.append(jnp.sum(v / bias))
            count += v.size
        return (v,)

    map_leaves(add, 1, params, updates, nu)
    if not count:
        return jnp.float32(1)
    return safe.nonzero(safe.sqrt(sum(total[1:], start=total[0]) / count))
