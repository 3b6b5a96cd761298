"""RegMean: the linear layer nearest to all models' outputs on their own inputs."""

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

from jaxtyping import Bool, Float

from .._check import between, one_of
from ._matrices import gathered, symmetric_inverse
from ._namespace import Number, Tree, at_least_f32, how_many_models, namespace, number


def regmean(
    trees: Sequence[Tree],
    grams: Sequence[Tree],
    *,
    alpha: Number = 0.9,
    inputs: Literal["first", "last"] = "first",
    where: Tree | None = None,
) -> Tree:
    """The layers that predict best what each model's own predict; without training.

    W = (sum_i G_i)^-1 sum_i G_i W_i, G_i = inputs_i' inputs_i, shrunk off the diagonal

    Args:
      trees: n pytrees of one structure. The first gives the result its dtypes and the
        leaves that are not merged.
      grams: n trees of that structure: f32[k, k] of `gram` for a kernel [k, *outputs]
        (the leading axes of which have k entries together), None for what is averaged.
      alpha: in [0, 1], what the entries off the diagonal of G_i are multiplied by; the
        paper's 0.9. May be traced.
      inputs: "first" for kernels [*inputs, *outputs], "last" for [*outputs, *inputs],
        as torch has them (static).
      where: prefix tree of bools, True merges (static).
    Returns:
      A tree like the first, computed in at least f32. Equal grams give the mean;
      directions in which no model has inputs have the mean too.
    Gradient: linear in trees; smooth in grams and alpha while sum_i G_i keeps its rank.
    Cost: k^3 a kernel and its copies.
    Raises: ValueError for no trees, for trees that differ (with the paths), for grams
      that are not one a tree or do not fit, for an alpha out of range.
    Source: Jin et al., "Dataless Knowledge Fusion by Merging Weights of Language
      Models", 2022, arXiv:2212.09849, eq. 2 and alg. 1. Differs: by the pseudoinverse,
      around the mean, so that too few inputs do not matter.
    Example:
      >>> import jax.numpy as jnp
      >>> a, b = jnp.array([[1.0], [1.0]]), jnp.array([[3.0], [3.0]])
      >>> regmean([a, b], [jnp.diag(jnp.array([1.0, 3])), jnp.eye(2)])
      Array([[2. ],
             [1.5]], dtype=float32)
    """
    from ._beside import spread
    from ._trees import merge

    if not trees:
        raise ValueError("trees: wanted at least one, came none")
    if len(grams) != len(trees):
        raise ValueError(f"grams: wanted {len(trees)}, one a tree, came {len(grams)}")
    columns = [
        spread(f"grams[{i}]", tree, trees[0], where) for i, tree in enumerate(grams)
    ]

    def merge_leaves(pairs):
        for (leaf, stack), *beside in zip(pairs, *columns, strict=True):
            if all(g is None for g in beside):
                yield namespace(leaf, stack).mean(stack, axis=0)
            elif any(g is None for g in beside):
                raise ValueError("grams: None for a kernel of some of the trees only")
            else:
                xp = namespace(stack)
                stacked = xp.stack([at_least_f32(xp, g) for g in beside])
                yield regmean_leaf(stack, stacked, alpha=alpha, inputs=inputs)

    return merge(merge_leaves, trees[0], trees, where)


def regmean_leaf(
    stack: Float[Any, " n *shape"],
    grams: Float[Any, " n k k"],
    *,
    alpha: Number = 0.9,
    inputs: Literal["first", "last"] = "first",
) -> Float[Any, "*shape"]:
    """One kernel of `regmean`.

    W = (sum_i G_i)^-1 sum_i G_i W_i, G_i = grams_i, times alpha off the diagonal

    Args:
      stack: float[n, *shape], the kernel in all models; numpy's or jax's.
      grams: float[n, k, k].
      alpha: in [0, 1]. May be traced.
      inputs: "first" or "last", as in `regmean`.
    Returns:
      f32[*shape].
    Gradient: as `regmean`.
    Cost: as `regmean`.
    Raises: ValueError for grams that do not fit, another word, an alpha out of range.
    Source: as `regmean`.
    Example:
      >>> import jax.numpy as jnp
      >>> regmean_leaf(jnp.array([[[1.0]], [[3.0]]]), jnp.array([[[3.0]], [[1.0]]]))
      Array([[1.5]], dtype=float32)
    """
    one_of("inputs", inputs, ("first", "last"))
    between("alpha", alpha, 0, 1)
    xp = namespace(stack, grams, alpha)
    stack, G = at_least_f32(xp, stack), at_least_f32(xp, grams)
    shape = stack.shape[1:]
    n, k = how_many_models(stack), G.shape[-1]
    given = shape if inputs == "first" else shape[::-1]
    fits = any(prod(given[:i]) == k for i in range(1, len(given) + 1))
    if G.shape != (n, k, k) or not fits:
        raise ValueError(
            f"grams: wanted [{n}, k, k] with the k inputs of a kernel of shape "
            f"{shape}, inputs {inputs}, came shape {G.shape}"
        )
    if 0 in shape:
        return xp.mean(stack, axis=0)
    G = xp.where(xp.eye(k, dtype=bool)[None], G, number(xp, alpha, G) * G)
    mean = xp.mean(stack, axis=0)
    G, change = gathered(xp, G), gathered(xp, stack - mean[None])
    if inputs == "first":
        W = change.reshape(n, k, -1)
    else:
        W = change.reshape(n, -1, k).swapaxes(1, 2)
    W = symmetric_inverse(xp, xp.sum(G, axis=0)) @ xp.sum(G @ W, axis=0)
    return mean + (W if inputs == "first" else W.swapaxes(0, 1)).reshape(shape)


def gram(
    inputs: Float[Any, "*batch k"], *, where: Bool[Any, "*batch"] | None = None
) -> Float[Any, "k k"]:
    """The second moments of a layer's inputs; what `regmean` weighs its kernel by.

    G = mean over live rows x of x x'

    Args:
      inputs: float[*batch, k], what the kernel is multiplied with; of a convolution
        the patches, in the order of the kernel's leading axes.
      where: bool[*batch], True counts (tokens that are no padding).
    Returns:
      f32[k, k]; zeros if nothing is live. To add batches, weigh them by their rows.
    Gradient: smooth.
    Cost: rows times k^2.
    Raises: ValueError for a where that does not fit.
    Source: Jin et al., "Dataless Knowledge Fusion by Merging Weights of Language
      Models", 2022, arXiv:2212.09849, alg. 1. Differs: the mean over rows, as the
      implementations take it, so that models with more data do not count more.
    Example:
      >>> import jax.numpy as jnp
      >>> gram(jnp.array([[1.0, 2.0], [3.0, 0.0]]))
      Array([[5., 1.],
             [1., 2.]], dtype=float32)
    """
    import jax.numpy as jnp

    from .._mask import blank

    rows, k = jnp.shape(inputs)[:-1], jnp.shape(inputs)[-1]
    x = blank(at_least_f32(jnp, inputs), where).reshape(prod(rows), k)
    live = blank(jnp.ones(rows, x.dtype), where)
    return x.T @ x / jnp.maximum(jnp.sum(live), 1)
