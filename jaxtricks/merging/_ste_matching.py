"""Matching by the loss: permutations found by gradient, through weights or Sinkhorn."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree, ScalarLike

from .._check import above, at_least
from .._mask import at_least_f32
from .._tree import arranged, dot, is_float, map_floats, promote
from ._matching import Matching, assign
from ._permutation import apply_permutation, layouts
from ._weight_matching import weight_matching


def ste_matching(
    loss_fn: Callable[..., Any],
    spec: PyTree[str],
    tree: PyTree,
    other: PyTree,
    batches: Iterable[Any],
    *,
    optimizer: optax.GradientTransformation | None = None,
) -> Matching:
    """The order of another model's units with the lowest loss half way, by gradient.

    w = tree; each step: P = weight_matching(w, other), and the gradient of
    L((tree + P other) / 2) at P other moves w, straight through

    Args:
      loss_fn: (params, batch) -> a scalar.
      spec: a permutation spec.
      tree: the model that stays.
      other: the model to permute.
      batches: one a step.
      optimizer: of w; None is the authors' SGD, 0.01 with momentum 0.9.
    Returns:
      Matching: the permutation of the lowest loss seen, `objective` that loss,
      negated; `scores` those of weights.
    Gradient: none: not traceable, on the host.
    Cost: a gradient and a weight matching a step.
    Raises: ValueError for trees or a spec that differ (with the paths), no batches.
    Source: Ainsworth et al., "Git Re-Basin: Merging Models modulo Permutation
      Symmetries", 2022, arXiv:2209.04836, sec. 3.3. Differs: none.
    Example:
      >>> loss = lambda p, x: jnp.mean((jnp.tanh(x @ p["a"]) @ p["b"] - x) ** 2)
      >>> a = {"a": jnp.array([[1.0, -2.0]]), "b": jnp.array([[1.0], [-0.5]])}
      >>> b = apply_permutation({"a": "_ h", "b": "h _"}, {"h": [1, 0]}, a)
      >>> batches = [jnp.linspace(-1, 1, 5)[:, None]] * 2
      >>> ste_matching(loss, {"a": "_ h", "b": "h _"}, a, b, batches).permutation["h"]
      array([1, 0])
    """
    other = arranged("other", other, tree)
    tx = optax.sgd(0.01, momentum=0.9) if optimizer is None else optimizer
    weights, state = tree, tx.init(tree)
    permutation, best = None, None

    @jax.jit
    def step(weights, state, permuted, batch):
        # The permutation is a constant of the gradient, which goes straight to w.
        middle = map_floats(lambda a, b: (a + b) / 2, tree, permuted)
        loss, grads = jax.value_and_grad(loss_fn, allow_int=True)(middle, batch)
        grads = jax.tree.map(
            lambda g, x: g / 2 if is_float(x) else jnp.zeros_like(x), grads, tree
        )
        updates, state = tx.update(grads, state, weights)
        return loss, optax.apply_updates(weights, updates), state

    for batch in batches:
        found = weight_matching(spec, weights, other, orders=1, init=permutation)
        permutation = found.permutation
        permuted = apply_permutation(spec, permutation, other)
        loss, weights, state = step(weights, state, permuted, batch)
        if best is None or -float(loss) > best.objective:
            best = found._replace(objective=np.asarray(-float(loss)))
    if best is None:
        raise ValueError("batches: wanted at least one, came none")
    # The scores of its pairs between the models themselves.
    scored = weight_matching(
        spec, tree, other, orders=1, init=best.permutation, max_sweeps=1
    )
    same = all(
        np.array_equal(scored.permutation[k], v) for k, v in best.permutation.items()
    )
    return best._replace(scores=scored.scores) if same else best


def sinkhorn_matching(
    spec: PyTree[str],
    tree: PyTree,
    other: PyTree,
    *,
    loss_fn: Callable[[PyTree], Any] | None = None,
    steps: int = 100,
    lr: ScalarLike = 0.1,
    epsilon: float = 1.0,
    iterations: int = 50,
    implicit: bool = False,
) -> Matching:
    """The order of another model's units by gradient through soft permutations.

    minimises L over scores X, P = Sinkhorn(X / epsilon) doubly stochastic; in the end
    P is the permutation that maximises <X, P>

    Args:
      spec: a permutation spec without "parent/name".
      tree: the model that stays.
      other: the model to permute.
      loss_fn: parameters of the softly permuted other model -> a scalar; None is its
        squared distance from `tree`.
      steps: of Adam, >= 1.
      lr: its learning rate.
      epsilon: the entropy of the transport, > 0; smaller is harder.
      iterations: of Sinkhorn, >= 1, which the gradient goes through.
      implicit: differentiate at the solution instead, as the authors (static); take
        `iterations` enough to reach it.
    Returns:
      Matching: `objective` is the loss of the hard permutation, negated; `scores` are
      X at its pairs.
    Gradient: none: the result is hard.
    Cost: a gradient and a Sinkhorn iteration for each name a step.
    Raises: ValueError for trees or a spec that differ (with the paths), "parent/name",
      steps < 1.
    Source: Guerrero Pena et al., "Re-basin via implicit Sinkhorn differentiation",
      2022, arXiv:2212.12042, sec. 3. Differs: through the iterations unless `implicit`.
    Example:
      >>> a = {"in": 3 * jnp.eye(3)}
      >>> b = {"in": a["in"][:, jnp.array([2, 0, 1])]}
      >>> sinkhorn_matching({"in": "_ h"}, a, b).permutation["h"]
      array([1, 2, 0])
    """
    at_least("steps", steps, 1)
    at_least("iterations", iterations, 1)
    above("epsilon", epsilon, 0)
    above("lr", lr, 0)
    other = arranged("other", other, tree)
    solve = _implicit if implicit else _sinkhorn
    found, sizes = layouts(spec, tree)
    nested = [name for name in sizes if "/" in name]
    if nested:
        raise ValueError(f"spec: wanted no nested names, came {', '.join(nested)}")

    def distance(soft):
        gap = jax.tree.map(jnp.subtract, promote(tree), promote(soft))
        return dot(gap, gap)

    loss = distance if loss_fn is None else loss_fn

    def softly(plans):
        leaves, treedef = jax.tree.flatten(other)
        moved = []
        for leaf, layout in zip(leaves, found, strict=True):
            if not is_float(leaf) or not any(layout.names):
                moved.append(leaf)
                continue
            x = at_least_f32(leaf).reshape(layout.factors)
            for axis, name in enumerate(layout.names):
                if name is not None:
                    plan = plans[name].astype(x.dtype)
                    x = jnp.moveaxis(jnp.tensordot(plan, x, (1, axis)), 0, axis)
            moved.append(x.reshape(layout.shape).astype(jnp.result_type(leaf)))
        return jax.tree.unflatten(treedef, moved)

    def objective(scores):
        plans = {k: solve(x / epsilon, iterations) for k, x in scores.items()}
        return loss(softly(plans))

    tx = optax.adam(jnp.asarray(lr))

    @jax.jit
    def run(scores):
        def step(carry, _):
            scores, state = carry
            updates, state = tx.update(jax.grad(objective)(scores), state)
            return (optax.apply_updates(scores, updates), state), None

        return jax.lax.scan(step, (scores, tx.init(scores)), length=steps)[0][0]

    start = {name: jnp.zeros((n, n)) for name, (n,) in sizes.items()}
    scores = {k: np.asarray(v, np.float64) for k, v in run(start).items()}
    hard = {name: assign(x) for name, x in scores.items()}
    permutation = {name: index for name, (index, _) in hard.items()}
    reached = -float(loss(apply_permutation(spec, permutation, other)))
    terms = {name: term for name, (_, term) in hard.items()}
    return Matching(permutation, np.asarray(reached), terms)


def _sinkhorn(x: Float[Array, "n n"], iterations: int) -> Float[Array, "n n"]:
    """Rows and columns of exp(x) scaled in turn until they sum to 1."""

    def step(_, x):
        x = x - jax.nn.logsumexp(x, axis=1, keepdims=True)
        return x - jax.nn.logsumexp(x, axis=0, keepdims=True)

    return jnp.exp(jax.lax.fori_loop(0, iterations, step, x))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _implicit(x: Float[Array, "n n"], iterations: int) -> Float[Array, "n n"]:
    """The same, differentiated at the solution: its rows and columns still sum to 1."""
    return _sinkhorn(x, iterations)


def _implicit_forward(x, iterations):
    plan = _sinkhorn(x, iterations)
    return plan, plan


def _implicit_backward(iterations, plan, grad):
    del iterations
    own, eye = plan * grad, jnp.eye(len(plan), dtype=plan.dtype)
    sums = jnp.concatenate([own.sum(1), own.sum(0)])
    system = jnp.block([[eye, plan], [plan.T, eye]])
    # Singular: potentials are known up to a constant, of a permutation up to n.
    ridge = 1e-4 * jnp.eye(2 * len(plan), dtype=plan.dtype)
    rows, columns = jnp.split(jnp.linalg.solve(system + ridge, sums), 2)
    return (own - plan * (rows[:, None] + columns[None]),)


_implicit.defvjp(_implicit_forward, _implicit_backward)
