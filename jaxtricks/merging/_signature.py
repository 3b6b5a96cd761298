"""Robust weight signatures: what training on a corruption changes beside learning."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import PyTree, Real

from .. import _safe as safe
from .._tree import check_alike
from ._beside import spread
from ._namespace import along, coefficients
from ._trees import merge


def robust_weight_signature(
    base: PyTree,
    clean: PyTree,
    robust: PyTree,
    *,
    where: PyTree[bool] | None = None,
) -> PyTree:
    """What makes a model robust to a corruption, as a vector for `patch_weights`.

    v = p - (p . a) / (a . a) a, p = robust - base, a = clean - base, each leaf alone

    Args:
      base: the pytree that both were trained from.
      clean: the model of clean data.
      robust: the model of corrupted data.
      where: prefix tree of bools, True takes a signature: the paper's shallowest layers
        (static). Others are 0.
    Returns:
      A tree like base, orthogonal to clean - base in every leaf; leaves that are no
      floats are the base's.
    Gradient: smooth, and 0 through a where a is 0: there v = p.
    Cost: one pass.
    Raises: ValueError for trees that differ (with the paths).
    Source: Cai et al., "Robust Weight Signatures: Gaining Robustness as Easy as
      Patching Weights?", 2023, arXiv:2302.12480, eq. 2 and its code. Differs: no
      quantization of v.
    Example:
      >>> base, clean = jnp.zeros(2), jnp.array([2.0, 0.0])
      >>> robust_weight_signature(base, clean, jnp.array([3.0, 1.0]))
      Array([0., 1.], dtype=float32)
    """
    for name, tree in (("clean", clean), ("robust", robust)):
        check_alike(name, tree, base)
    chosen = spread("where", True if where is None else where, base, None)

    def merge_leaves(pairs):
        for (leaf, stack), on in zip(pairs, chosen, strict=True):
            if not on:
                yield jnp.zeros_like(leaf)
                continue
            a, p = stack[0] - leaf, stack[1] - leaf
            # By a unit vector: a . a of tiny changes would vanish.
            unit = a / safe.nonzero(safe.norm(a))
            yield p - jnp.sum(p * unit) * unit

    return merge(merge_leaves, base, [clean, robust], None)


def patch_weights(
    target: PyTree,
    signatures: Sequence[PyTree],
    *,
    weights: Real[Any, " n"] | Sequence | None = None,
    replace: PyTree[bool] | None = None,
    models: Sequence[PyTree] | None = None,
    where: PyTree[bool] | None = None,
) -> PyTree:
    """Makes a model robust, or not any more, by adding signatures to it.

    patched = target + sum_i weights_i signature_i; where told, mean_i models_i

    Args:
      target: the pytree to patch, trained on any data; it gives the result its dtypes.
      signatures: n pytrees of `robust_weight_signature`.
      weights: float[n], the paper's alpha; None is 1/n, the code's, negative takes a
        patch off again. May be traced.
      replace: prefix tree of bools: True takes the mean of `models` instead, as the
        code does for batch norms, statistics and all (static).
      models: the n robust models; needed with replace.
      where: prefix tree of bools, True patches or replaces (static).
    Returns:
      A tree like target, computed in at least f32; weights of 0 give target, but where
      it is replaced.
    Gradient: linear in everything.
    Cost: one pass.
    Raises: ValueError for no signatures, for trees that differ (with the paths), for
      weights that are not one a signature, for replace without models.
    Source: Cai et al., "Robust Weight Signatures: Gaining Robustness as Easy as
      Patching Weights?", 2023, arXiv:2302.12480, eq. 3 and its code. Differs: weights
      as in the paper, once; the code multiplies them in twice.
    Example:
      >>> patch_weights(jnp.ones(2), [jnp.array([0.0, 2.0])], weights=[0.5])
      Array([1., 2.], dtype=float32)
    """
    if not signatures:
        raise ValueError("signatures: wanted at least one, came none")
    n = len(signatures)
    if replace is not None and (models is None or len(models) != n):
        came = "none" if models is None else len(models)
        raise ValueError(f"models: wanted {n} to replace with, came {came}")
    for i, tree in enumerate(signatures):
        check_alike(f"signatures[{i}]", tree, target)
    for i, tree in enumerate(models or ()):
        check_alike(f"models[{i}]", tree, target)
    swap = spread("replace", False if replace is None else replace, target, where)
    given = [*signatures, *(models or ())]

    def merge_leaves(pairs):
        for (leaf, stack), swapped in zip(pairs, swap, strict=True):
            if swapped:
                yield jnp.mean(stack[n:], axis=0)
                continue
            w = [1 / n] * n if weights is None else weights
            w = coefficients(jnp, "weights", w, stack[:n])
            yield leaf + jnp.sum(along(w, stack[:n]) * stack[:n], axis=0)

    return merge(merge_leaves, target, given, where, "signatures")
