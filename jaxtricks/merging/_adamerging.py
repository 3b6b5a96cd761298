"""AdaMerging: how much of each task, found by gradient through the merge."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, PyTree

from ._namespace import along, at_least_f32


def adamerging(
    base: PyTree,
    trees: Sequence[PyTree],
    *,
    coefficients: PyTree,
    clip: bool = True,
    where: PyTree[bool] | None = None,
) -> PyTree:
    """Task arithmetic with a coefficient a task, or a task and layer, to be learned.

    merged = base + sum_i clip(coefficients_i, 0, 1) (tree_i - base)

    The objective is the mean entropy of the predictions on unlabelled inputs of every
    task, `losses.entropy(logits)`; `fit_coefficients` descends it.

    Args:
      base: the pytree that all were fine-tuned from; it gives the result its dtypes and
        the leaves that are not merged.
      trees: n pytrees of the structure of `base`; after `ties`-like trimming it is
        AdaMerging++.
      coefficients: float[n], task-wise; or a prefix tree of them, layer-wise. The
        authors begin with 0.3 everywhere. May be traced.
      clip: hold them in [0, 1], as the authors' code does (static).
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like `base`, summed in at least f32; all 0 gives `base`, one 1 that tree.
    Gradient: linear in trees, base and coefficients; 0 in those out of [0, 1].
    Cost: one pass; a copy of one leaf of all trees at a time.
    Raises: ValueError for no trees, for trees that differ (with the paths), for
      coefficients that are not one a tree.
    Source: Yang et al., "AdaMerging: Adaptive Model Merging for Multi-Task Learning",
      2023, arXiv:2310.02575, eq. 2 and 3, and its code. Differs: none.
    Example:
      >>> base, trees = jnp.zeros(1), [jnp.array([1.0]), jnp.array([2.0])]
      >>> loss = lambda c: (adamerging(base, trees, coefficients=c)[0] - 1.0) ** 2
      >>> jax.grad(loss)(jnp.array([0.5, 0.5]))
      Array([1., 2.], dtype=float32)
    """
    from ._beside import spread
    from ._trees import merge

    if not trees:
        raise ValueError("trees: wanted at least one, came none")
    n = len(trees)
    if isinstance(coefficients, list | tuple) and all(
        isinstance(c, float | int) or getattr(c, "ndim", 1) == 0 for c in coefficients
    ):
        coefficients = jnp.stack([jnp.asarray(c) for c in coefficients])
    columns = spread("coefficients", coefficients, base, where)

    def merge_leaves(pairs):
        for (leaf, stack), c in zip(pairs, columns, strict=True):
            if jnp.shape(c) != (n,):
                raise ValueError(
                    f"coefficients: wanted shape {(n,)}, came {jnp.shape(c)}"
                )
            c = jnp.asarray(c, stack.dtype)
            c = _clip(c) if clip else c
            yield leaf + jnp.sum(along(c, stack) * (stack - leaf[None]), axis=0)

    return merge(merge_leaves, base, trees, where)


def _clip(c):
    """In [0, 1], with the whole slope at both ends, as torch's, so that none sticks."""
    return jnp.where(c < 0, 0, jnp.where(c > 1, 1, c))


def fit_coefficients(
    objective: Callable[[PyTree, Any], Float[Array, ""]],
    coefficients: PyTree,
    batches: PyTree,
    *,
    optimizer: optax.GradientTransformation | None = None,
) -> tuple[PyTree, Float[Array, " steps"]]:
    """Descends an objective of a merge's coefficients, a step a batch, in one scan.

    c <- c + optimizer(d objective(c, batch) / dc)

    Args:
      objective: (coefficients, batch) -> a scalar, say the entropy of what the merge
        with those coefficients predicts; wrap it in `jax.checkpoint` to save memory.
      coefficients: where to begin: an array or a tree of float arrays.
      batches: a tree of arrays whose leading axis is the steps.
      optimizer: any of optax; None is `optax.adam(1e-3)`, AdaMerging's.
    Returns:
      The coefficients after the last step, and f32[steps], the objective before each.
    Gradient: through the whole descent.
    Cost: a forward and a backward pass of the objective a step.
    Source: Yang et al., "AdaMerging: Adaptive Model Merging for Multi-Task Learning",
      2023, arXiv:2310.02575, section 3.2. Differs: none.
    Example:
      >>> loss = lambda c, x: (c - x) ** 2
      >>> fit_coefficients(loss, jnp.float32(0), jnp.ones(2), optimizer=optax.sgd(0.25))
      (Array(0.75, dtype=float32), Array([1.  , 0.25], dtype=float32))
    """
    tx = optax.adam(1e-3) if optimizer is None else optimizer

    def step(carry, batch):
        c, state = carry
        value, grads = jax.value_and_grad(objective)(c, batch)
        updates, state = tx.update(grads, state, c)
        return (optax.apply_updates(c, updates), state), at_least_f32(jnp, value)

    coefficients = jax.tree.map(jnp.asarray, coefficients)
    (coefficients, _), values = lax.scan(
        step, (coefficients, tx.init(coefficients)), batches
    )
    return coefficients, values
