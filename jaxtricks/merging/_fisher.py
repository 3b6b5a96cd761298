"""Fisher merging: each parameter from the models whose predictions depend on it."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from jaxtyping import Float, Int

from .._check import at_least, one_of
from ._namespace import (
    Coefficients,
    Number,
    Tree,
    along,
    at_least_f32,
    coefficients,
    namespace,
    nonzero,
)

Floors = Literal["all", "first", "add"]


def fisher(
    trees: Sequence[Tree],
    fishers: Sequence[Tree],
    *,
    weights: Coefficients = None,
    floor: Number = 1e-6,
    floors: Floors = "all",
    normalize: bool = False,
    where: Tree | None = None,
) -> Tree:
    """The average weighted by diagonal Fisher information; for models of other tasks.

    merged = sum_i w_i F_i tree_i / sum_i w_i F_i, F_i = max(fishers_i, floor)

    Args:
      trees: n pytrees of one structure. The first gives the result its dtypes and the
        leaves that are not merged.
      fishers: n pytrees of that structure, >= 0, as of `fisher_diagonal`.
      weights: float[n]; None is all 1. May be traced.
      floor: >= 0, the authors' 1e-6: below it all models count alike. May be traced.
      floors: which diagonals have it: "all", "first" (the authors' "favor the target":
        the others do not count where they know nothing), "add" (MergeLM, FusionBench:
        F + floor).
      normalize: divide each F_i by its norm over all leaves that are merged, as the
        authors' code does (static).
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like the first, summed in at least f32. Equal fishers give the mean.
    Gradient: linear in trees; smooth in fishers above the floor, weights and floor.
    Cost: one pass; a copy of one leaf of all trees and fishers at a time, of all with
      normalize.
    Raises: ValueError for no trees, for trees or fishers that differ (with the paths),
      for fishers or weights that are not one a tree, for a floor < 0.
    Source: Matena and Raffel, "Merging Models with Fisher-Weighted Averaging", 2021,
      arXiv:2111.09832, eq. 3, and its code. Differs: the floor is everybody's and
      nothing is normalized unless told; the code's defaults are floors="first",
      normalize=True.
    Example:
      >>> import jax.numpy as jnp
      >>> a, b = {"w": jnp.array([1.0, 1.0])}, {"w": jnp.array([2.0, 2.0])}
      >>> fisher([a, b], [{"w": jnp.array([3.0, 1.0])}, {"w": jnp.array([1.0, 3.0])}])
      {'w': Array([1.25, 1.75], dtype=float32)}
    """
    import jax.numpy as jnp

    from .. import _safe as safe
    from .._tree import check_alike
    from ._trees import merge

    if not trees:
        raise ValueError("trees: wanted at least one, came none")
    n = len(trees)
    if len(fishers) != n:
        raise ValueError(f"fishers: wanted {n}, one a tree, came {len(fishers)}")
    for i, diagonal in enumerate(fishers):
        check_alike(f"fishers[{i}]", diagonal, trees[0])

    def size(pairs, i):
        """The norm of one model's diagonal."""
        return safe.norm(jnp.stack([safe.norm(stack[n + i]) for _, stack in pairs]))

    def merge_leaves(pairs):
        w = weights
        if normalize and (pairs := list(pairs)):
            sizes = jnp.stack([size(pairs, i) for i in range(n)])
            w = coefficients(jnp, "weights", weights, sizes) / safe.nonzero(sizes)
        for _, stack in pairs:
            yield fisher_leaf(
                stack[:n], stack[n:], weights=w, floor=floor, floors=floors
            )

    return merge(merge_leaves, trees[0], [*trees, *fishers], where)


def fisher_leaf(
    stack: Float[Any, " n *shape"],
    fishers: Float[Any, " n *shape"],
    *,
    weights: Coefficients = None,
    floor: Number = 1e-6,
    floors: Floors = "all",
) -> Float[Any, "*shape"]:
    """One parameter of `fisher`.

    merged = sum_i w_i F_i stack_i / sum_i w_i F_i, F_i = max(fishers_i, floor)

    Args:
      stack: float[n, *shape], the parameter in all models; numpy's or jax's.
      fishers: float[n, *shape], >= 0.
      weights: float[n]; None is all 1. May be traced.
      floor: >= 0. May be traced.
      floors: "all", "first" or "add", as in `fisher`.
    Returns:
      f32[*shape].
    Gradient: as `fisher`.
    Cost: as `fisher`.
    Raises: ValueError for fishers of another shape, weights that are not one a model,
      another word, a floor < 0.
    Source: as `fisher`.
    Example:
      >>> import jax.numpy as jnp
      >>> fisher_leaf(jnp.array([[1.0], [2.0]]), jnp.array([[3.0], [1.0]]))
      Array([1.25], dtype=float32)
    """
    one_of("floors", floors, ("all", "first", "add"))
    at_least("floor", floor, 0)
    xp = namespace(stack, fishers, weights, floor)
    stack, F = at_least_f32(xp, stack), at_least_f32(xp, fishers)
    if F.shape != stack.shape:
        raise ValueError(f"fishers: wanted shape {stack.shape}, came {F.shape}")
    w = along(coefficients(xp, "weights", weights, stack), stack)
    floor = xp.asarray(floor, F.dtype)
    if floors == "add":
        F = F + floor
    elif floors == "all":
        F = xp.maximum(F, floor)
    else:
        F = xp.concatenate([xp.maximum(F[:1], floor), F[1:]])
    share = w * F
    return xp.sum(share * stack, axis=0) / nonzero(xp, xp.sum(share, axis=0))


def fisher_diagonal(
    logits_fn: Callable[[Tree, Tree], Float[Any, "batch classes"]],
    params: Tree,
    batch: Tree,
    *,
    labels: Int[Any, " batch"] | None = None,
    key: Any | None = None,
    where: Any = None,
) -> Tree:
    """The diagonal of the Fisher information, from each example's gradients.

    F = mean_x sum_y p(y|x) (d log p(y|x) / d params)^2, or one y for each x

    Args:
      logits_fn: (params, batch) -> float[batch, classes], one example not changing
        another's.
      params: the model's.
      batch: a tree of arrays whose leading axis is the examples.
      labels: int[batch]; then y is the label: the empirical Fisher information.
      key: a typed key; then y is drawn from the model once an example.
      where: bool[batch], True counts.
    Returns:
      A tree like params, f32, >= 0; zeros for leaves that are no floats, and for an
      empty batch. To add batches, weigh them by their examples.
    Gradient: flows through the gradients; none through drawn labels.
    Cost: one example at a time in a scan: a gradient a class, or one with labels or
      key; memory of one example's gradients and of the sum.
    Raises: ValueError for both labels and key, and for logits of another shape.
    Source: Matena and Raffel, "Merging Models with Fisher-Weighted Averaging", 2021,
      arXiv:2111.09832, eq. 2 and its code. Differs: none.
    Example:
      >>> import jax.numpy as jnp
      >>> params, x = jnp.zeros((1, 2)), jnp.array([[2.0]])  # p = 1/2: (2 * 1/2)^2
      >>> fisher_diagonal(lambda w, x: x @ w, params, x)
      Array([[1., 1.]], dtype=float32)
    """
    import jax
    import jax.numpy as jnp
    from jax import lax

    from .._mask import blank
    from .._tree import is_float

    if labels is not None and key is not None:
        raise ValueError("key: wanted none beside labels, came both")
    leaves, structure = jax.tree.flatten(params)
    moving = [i for i, leaf in enumerate(leaves) if is_float(leaf)]
    examples = len(jax.tree.leaves(batch)[0])
    live = blank(jnp.ones(examples), where)

    def log_p(floats, example):
        filled = list(leaves)
        for i, leaf in zip(moving, floats, strict=True):
            filled[i] = leaf
        alone = jax.tree.map(lambda x: x[None], example)
        logits = logits_fn(jax.tree.unflatten(structure, filled), alone)
        if jnp.ndim(logits) != 2 or len(logits) != 1:
            raise ValueError(
                "logits_fn: wanted logits of shape [batch, classes], came "
                f"{jnp.shape(logits)} for one example"
            )
        return jax.nn.log_softmax(at_least_f32(jnp, logits[0]))

    def squares(floats, example, label, number):
        known = label
        if key is not None:
            own = jax.random.fold_in(key, number)
            known = jax.random.categorical(own, log_p(floats, example))
        if known is not None:
            grads = jax.grad(lambda f: log_p(f, example)[known])(floats)
            return [jnp.square(at_least_f32(jnp, g)) for g in grads]
        p = jnp.exp(log_p(floats, example))
        rows = jax.jacrev(lambda f: log_p(f, example))(floats)
        rows = [at_least_f32(jnp, row) for row in rows]
        return [jnp.sum(along(p, row) * jnp.square(row), axis=0) for row in rows]

    def step(total, row):
        example, label, number, on = row
        found = squares(floats, example, label, number)
        parts = zip(total, found, strict=True)
        return [t + jnp.where(on > 0, f, 0) for t, f in parts], None

    floats = [leaves[i] for i in moving]
    start = [jnp.zeros_like(at_least_f32(jnp, leaf)) for leaf in floats]
    rows = batch, labels, jnp.arange(examples), live
    total, _ = lax.scan(step, start, rows)
    count = jnp.maximum(jnp.sum(live), 1)
    result = [jnp.zeros(jnp.shape(leaf)) for leaf in leaves]
    for i, leaf in zip(moving, total, strict=True):
        result[i] = leaf / count
    return jax.tree.unflatten(structure, result)
