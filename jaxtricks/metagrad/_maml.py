"""Learning to be adapted: MAML and its relatives, as one loss.

`inner_adapt` takes a few steps on a task; `maml` is the loss of where they end, as a
function of where they began. Everything after that is `jax.grad`.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, PyTree, ScalarLike

from .. import _tree as tree
from .._check import above, at_least, of_shape, one_of
from .._mask import at_least_f32
from ._implicit import implicit
from ._scan import scan

VARIANTS = ("maml", "reptile", "imaml")
LossFn = Callable[[PyTree, PyTree], Float[Array, ""]]


def inner_adapt(
    loss_fn: LossFn,
    params: PyTree,
    support: PyTree,
    *,
    rate: PyTree = 0.01,
    steps: int = 1,
    first_order: bool | Bool[Array, ""] = False,
    mask: PyTree[bool] = True,
    tx: optax.GradientTransformation | None = None,
    policy: str = "replay",
) -> PyTree:
    """Parameters after a few differentiable gradient steps on one task.

    w <- w - rate * dL(w, support)/dw   `steps` times

    Args:
      loss_fn: (params, batch) -> f[].
      params: where to begin; integers stay as they are.
      support: the task's batch, the same for every step.
      rate: one number, or a tree of numbers or arrays for parts of params (a prefix,
        or one a parameter: Meta-SGD, whose rates are learned with params).
      steps: K >= 0.
      first_order: whether the gradients are constants to differentiation (FOMAML);
        traced, it switches during training, at the cost of the second order.
      mask: which parts adapt, a prefix tree of bools (ANIL: the head alone).
      tx: an optax optimizer in place of the step at `rate`, begun anew; `optimizers.
        differentiable` makes any of them so.
      policy: what a gradient through the steps stores, as for `scan`.
    Returns:
      The adapted parameters.
    Gradient: through the steps, in params, rate, support and what loss_fn reads.
    Cost: K gradients; differentiated, as `scan`'s.
    Raises: ValueError for steps < 0, a rate < 0, or a rate or mask that is no prefix.
    Source: Finn et al., "Model-Agnostic Meta-Learning for Fast Adaptation of Deep
      Networks", 2017, arXiv:1703.03400, alg. 1; Li et al., "Meta-SGD: Learning
      to Learn Quickly for Few-Shot Learning", 2017, arXiv:1707.09835; Raghu et
      al., "Rapid Learning or Feature Reuse? Towards Understanding the Effectiveness of
      MAML", 2019, arXiv:1909.09157. Differs: none.
    Example:
      >>> inner_adapt(lambda w, c: (w - c) ** 2 / 2, 1.0, 3.0, rate=0.5, steps=2)
      Array(2.5, dtype=float32)
    """
    at_least("steps", steps, 0)
    for part in jax.tree.leaves(rate):
        at_least("rate", part, 0)
    rates = _spread("rate", rate, params)
    live = partial(_where, _spread("mask", mask, params))

    def gradient(w):
        grads = jax.grad(loss_fn, allow_int=True)(w, support)
        grads = jax.tree.map(_zero_of_integers, w, grads)
        if first_order is not False:
            held = jax.tree.map(lax.stop_gradient, grads)
            grads = jax.tree.map(lambda h, g: jnp.where(first_order, h, g), held, grads)
        return live(grads)

    def plain(w, _):
        down = tree.map_floats(lambda p, g, r: p - r * g, w, gradient(w), rates)
        return down, None

    if tx is None:
        return scan(plain, params, length=steps, policy=policy)[0]

    def optimized(carry, _):
        w, state = carry
        updates, state = tx.update(gradient(w), state, w)
        return (optax.apply_updates(w, live(updates)), state), None

    init = params, tx.init(params)
    return scan(optimized, init, length=steps, policy=policy)[0][0]


def maml(
    loss_fn: LossFn,
    params: PyTree,
    tasks: tuple[PyTree, PyTree],
    *,
    variant: str = "maml",
    rate: PyTree = 0.01,
    steps: int = 1,
    first_order: bool | Bool[Array, ""] = False,
    mask: PyTree[bool] = True,
    tx: optax.GradientTransformation | None = None,
    policy: str = "replay",
    weights: Float[ArrayLike, " tasks"] | None = None,
    regularization: ScalarLike = 1.0,
    cg_steps: int = 5,
) -> Float[Array, ""]:
    """The loss of parameters adapted to tasks; its gradient makes them adapt well.

    mean_i L(w_i, query_i),   w_i = inner_adapt(L, w, support_i)
    maml:    its gradient;   first_order: mean_i dL(w_i, query_i)/dw_i (FOMAML)
    reptile: gradient mean_i (w - w_i), the value that of maml
    imaml:   w_i = argmin L(u, support_i) + lambda/2 |u - w|^2, by the implicit
             gradient (I + H_i / lambda)^-1 dL(w_i, query_i)/dw_i

    Args:
      loss_fn: (params, batch) -> f[].
      params: the initialisation that is learned.
      tasks: (support, query), leaves [tasks, ...], one task or more; "reptile" uses
        query for the value.
      variant: "maml", "reptile" or "imaml".
      rate, steps, first_order, mask, tx, policy: as for `inner_adapt`; "imaml" steps
        down the regularised loss.
      weights: float[tasks], in place of 1 / tasks each.
      regularization: lambda > 0 of "imaml".
      cg_steps: of "imaml", for each gradient; 5 as in the paper.
    Returns:
      f32[], the query losses' mean, or their weighted sum.
    Gradient: by variant, in params; in rate, weights and so on likewise ("reptile": in
      params alone). Freezing statistics of normalisation is up to loss_fn.
    Cost: tasks x (steps + 1) gradients by vmap; shard the tasks to spread them.
    Raises: ValueError for an unknown variant, tasks that are no such pair, weights of
      another length, and what `inner_adapt` refuses.
    Source: Finn et al., "Model-Agnostic Meta-Learning for Fast Adaptation of Deep
      Networks", 2017, arXiv:1703.03400; Nichol et al., "On First-Order
      Meta-Learning Algorithms", 2018, arXiv:1803.02999, alg. 2; Rajeswaran et al.,
      "Meta-Learning with Implicit Gradients", 2019, arXiv:1909.04630; Hendryx et
      al., "Meta-Learning Initializations for Image Segmentation", 2019,
      arXiv:1912.06290; Kim et al., "Auto-Meta: Automated Gradient Based Meta Learner
      Search", 2018, arXiv:1806.06927; Zhou et al., "Towards Omni-generalizable Neural
      Methods for Vehicle Routing Problems", 2023, arXiv:2305.19587, weights and the
      switch to first order. Differs: no architecture search, no tuned update routine,
      no bootstrap target.
    Example:
      >>> loss_fn = lambda w, c: (w - c) ** 2 / 2
      >>> tasks = jnp.array([1.0, 3.0]), jnp.array([1.0, 3.0])
      >>> jax.grad(maml, argnums=1)(loss_fn, 0.0, tasks, rate=0.5)  # 0.5^2 (0 - 2)
      Array(-0.5, dtype=float32, weak_type=True)
    """
    one_of("variant", variant, VARIANTS)
    above("regularization", regularization, 0)
    at_least("cg_steps", cg_steps, 1)
    if not isinstance(tasks, tuple | list) or len(tasks) != 2:
        raise ValueError(f"tasks: wanted (support, query), came {type(tasks).__name__}")
    support, query = tasks
    counts = {jnp.shape(x)[:1] for x in jax.tree.leaves(tasks)}
    if len(counts) != 1 or counts <= {(), (0,)}:
        raise ValueError(f"tasks: wanted leaves [tasks, ...], came {sorted(counts)}")
    if weights is not None:
        of_shape(counts.pop(), weights=weights)
    settings = {"rate": rate, "steps": steps, "mask": mask, "tx": tx, "policy": policy}
    adapt = partial(inner_adapt, **settings)

    def near(params):
        """The loss, kept near params."""

        def loss(w, batch):
            pairs = zip(jax.tree.leaves(w), jax.tree.leaves(params), strict=True)
            away = sum(jnp.sum(jnp.square(at_least_f32(a - b))) for a, b in pairs)
            return at_least_f32(loss_fn(w, batch)) + regularization / 2 * away

        return loss

    def solution(params, support):
        return adapt(near(params), params, support)

    def optimality(w, params, support):
        grads = jax.grad(near(params))(w, support)
        held = jax.tree.map(jnp.subtract, w, params)
        return _choose(_spread("mask", mask, params), grads, held)

    def one(support, query):
        if variant == "imaml":
            solve = "cg" if mask is True else "gmres"
            ends = implicit(solution, optimality, solve=solve, steps=cg_steps)
            return at_least_f32(loss_fn(ends(params, support), query))
        if variant == "maml":
            ends = adapt(loss_fn, params, support, first_order=first_order)
            return at_least_f32(loss_fn(ends, query))
        start = jax.tree.map(lax.stop_gradient, params)
        ends = jax.tree.map(lax.stop_gradient, adapt(loss_fn, start, support))
        value = lax.stop_gradient(at_least_f32(loss_fn(ends, query)))
        along = tree.dot(params, jax.tree.map(jnp.subtract, start, ends))
        return value + (along - lax.stop_gradient(along))

    losses = jax.vmap(one)(support, query)
    return (
        jnp.mean(losses) if weights is None else jnp.sum(jnp.asarray(weights) * losses)
    )


def _spread(name: str, prefix: PyTree, params: PyTree) -> PyTree:
    """A prefix tree with a leaf for each of the params."""
    try:
        return jax.tree.broadcast(prefix, params)
    except ValueError as error:
        raise ValueError(f"{name}: wanted a prefix tree of params; {error}") from error


def _zero_of_integers(p: Array, grad: Array) -> Array:
    return grad if tree.is_float(p) else jnp.zeros_like(p)


def _where(mask: PyTree, grads: PyTree) -> PyTree:
    """0 where a tree of bools says so."""
    return _choose(mask, grads, jax.tree.map(jnp.zeros_like, grads))


def _choose(mask: PyTree, yes: PyTree, no: PyTree) -> PyTree:
    return jax.tree.map(lambda on, a, b: jnp.where(on, a, b), mask, yes, no)
