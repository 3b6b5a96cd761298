"""Matching the hidden units of two models by what they do on the same data.

A matching is one linear assignment for each name of a permutation spec, solved exactly
on the host by scipy. Git Re-Basin: Ainsworth et al., arXiv:2209.04836.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from .._check import one_of
from ._permutation import Permutation, parent


class Matching(NamedTuple):
    """How to order a model's units so that they are most like another's."""

    permutation: Permutation  # name -> int[n], or int[parents, n]
    objective: np.ndarray  # f64[], what was maximised
    scores: dict[str, np.ndarray]  # name -> f64[n] or [parents, n], of the pairs


def activation_matching(
    activations: Mapping[str, Float[Any, "..."]],
    others: Mapping[str, Float[Any, "..."]],
    *,
    statistic: Literal["correlation", "product"] = "correlation",
) -> Matching:
    """The order of another model's units in which they do the same on the same data.

    for each name the permutation that maximises sum_i s(z_i, other z_permutation(i)),
    s the correlation or the product over the examples

    Args:
      activations: name -> float[*batch, units], of the model that stays; of a
        "parent/name" [*batch, parents, units]. `label_activations` finds them.
      others: the same of the model to permute, on the same examples.
      statistic: "correlation" of each pair of units, 0 for one that is constant, or
        "product", as is.
    Returns:
      Matching; the objective is the sum over all names.
    Gradient: none: not traceable, on the host.
    Cost: one product and one assignment a name.
    Raises: ValueError for names or shapes that differ, no examples.
    Source: Ainsworth et al., "Git Re-Basin: Merging Models modulo Permutation
      Symmetries", 2022, arXiv:2209.04836, sec. 3.1 (product); Jordan et al., "REPAIR:
      REnormalizing Permuted Activations for Interpolation Repair", 2022,
      arXiv:2211.08403, sec. 2 (correlation). Differs: none.
    Example:
      >>> z = np.array([[1.0, 0.0, 3.0], [2.0, 5.0, 3.5], [4.0, 1.0, 0.0]])
      >>> activation_matching({"h": z}, {"h": z[:, [1, 2, 0]]}).permutation["h"]
      array([2, 0, 1])
    """
    one_of("statistic", statistic, ("correlation", "product"))
    if set(activations) != set(others):
        said = f"wanted {sorted(activations)}, came {sorted(others)}"
        raise ValueError(f"others: {said}")
    permutation, scores = {}, {}
    for name in sorted(activations, key=lambda n: "/" in n):
        z, other = (on_host(x[name]) for x in (activations, others))
        if z.shape != other.shape or z.ndim < 2 or not z.size:
            said = f"wanted [*batch, units] of {z.shape}, came {other.shape}"
            raise ValueError(f"others[{name!r}]: {said}")
        nested = parent(name) != name
        if nested and parent(name) in permutation:
            other = np.take(other, permutation[parent(name)], axis=-2)
        rows = z.shape[-2:] if nested else z.shape[-1:]
        z, other = (x.reshape(-1, *rows).astype(np.float64) for x in (z, other))
        if statistic == "correlation":
            z, other = _standard(z), _standard(other)
        cross = np.einsum("b...i,b...j->...ij", z, other)
        of = f"activations, others[{name!r}]"
        permutation[name], scores[name] = assign(cross, of)
    total = np.float64(sum(s.sum() for s in scores.values()))
    return Matching(permutation, np.asarray(total), scores)


def assign(
    cross: Float[np.ndarray, "*parents n n"], of: str = "tree, other"
) -> tuple[np.ndarray, Float[np.ndarray, "*parents n"]]:
    """The permutation of the largest sum cross[i, p(i)], exact, and its terms."""
    from scipy.optimize import linear_sum_assignment

    if not np.isfinite(cross).all():
        raise ValueError(f"{of}: wanted finite numbers, came NaN or inf")
    flat = cross.reshape(-1, *cross.shape[-2:])
    index = np.empty(cross.shape[:-1], np.int64)
    for row, one in zip(index.reshape(len(flat), -1), flat, strict=True):
        row[:] = linear_sum_assignment(one, maximize=True)[1]
    terms = np.take_along_axis(cross, index[..., None], axis=-1)[..., 0]
    return index, terms


def on_host(x: Any) -> np.ndarray:
    """In at least f32."""
    x = np.asarray(x)
    return x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)


def _standard(z: Float[np.ndarray, "b ..."]) -> Float[np.ndarray, "b ..."]:
    """Of mean 0 and norm 1 over the examples; a constant stays 0."""
    z = z - z.mean(0, keepdims=True)
    norm = np.sqrt(np.sum(z * z, axis=0, keepdims=True))
    return z / np.where(norm > 0, norm, 1)
