"""PLeaS: merges the units of two models that agree, keeps the others from both, and
fits every layer to what the two models' layers put out.
"""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree, ScalarLike

from .._check import at_least, between, one_of
from .._mask import at_least_f32
from .._tree import arranged, is_float
from ._layer_inputs import factors_of, layer_inputs
from ._matching import Matching
from ._permutation import Layout, apply_permutation, layouts, parent


class Blocks(NamedTuple):
    """The units of one name, by where they go; places in each model."""

    merged: np.ndarray  # i64[m], of the first model
    merged_other: np.ndarray  # i64[m], of the second, matched to them
    own: np.ndarray  # i64[u], of the first, kept apart
    own_other: np.ndarray  # i64[u], of the second


def partial_matching(
    matching: Matching, *, separate: ScalarLike | Mapping[str, ScalarLike] = 0.0
) -> dict[str, Blocks]:
    """Which matched units to merge and which to keep from both models.

    merged: the pairs whose score is at least the `separate`-quantile of the scores

    Args:
      matching: of `weight_matching` or `activation_matching`.
      separate: in [0, 1], the share of units that are kept apart, one or name ->
        share (0 for a name that is missing); the layer grows to (1 + share) n. One for
        all leaves nested names and their parents at 0.
    Returns:
      name -> Blocks. 0 merges all; 1 none.
    Gradient: none: on the host.
    Cost: none.
    Raises: ValueError for a share out of range, a name that was not matched, and for a
      "parent/name" or its parent with a share other than 0.
    Source: Nasery et al., "PLeaS -- Merging Models with Permutations and Least
      Squares", 2024, arXiv:2407.02447, sec. 3. Differs: at 1 no pair is merged (the
      authors' code merges the best one and drops the permutation).
    Example:
      >>> scores = {"h": np.array([3.0, 1.0, 2.0])}
      >>> found = Matching({"h": np.array([2, 0, 1])}, np.array(6.0), scores)
      >>> partial_matching(found, separate=0.5)["h"].merged
      array([0, 2])
    """
    shares = separate if isinstance(separate, Mapping) else {}
    for name in shares:
        if name not in matching.permutation:
            known = ", ".join(matching.permutation)
            raise ValueError(f"separate: {name!r} was not matched, only {known}")
    nested = {n.split("/")[0] for n in matching.permutation if "/" in n}
    blocks = {}
    for name, index in matching.permutation.items():
        share = shares.get(name, 0.0) if isinstance(separate, Mapping) else separate
        between("separate", share, 0, 1)
        if "/" in name or name in nested:
            if isinstance(separate, Mapping) and share:
                raise ValueError(
                    f"separate: {name!r} is nested, wanted 0, came {share}"
                )
            share = 0.0
        index, score = np.asarray(index), np.asarray(matching.scores[name])
        here = np.arange(index.shape[-1])
        if index.ndim > 1:
            continue
        share = np.asarray(share, np.float64)
        keep = (score >= np.quantile(score, share)) & (share < 1)
        blocks[name] = Blocks(here[keep], index[keep], here[~keep], index[~keep])
    return blocks


def pleas(
    function: Callable[..., Any],
    spec: PyTree[str],
    tree: PyTree,
    other: PyTree,
    *inputs: Any,
    matching: Matching,
    separate: ScalarLike | Mapping[str, ScalarLike] = 0.0,
    least_squares: bool = True,
    ridge: ScalarLike = 1e-3,
    outputs: Literal["mean", "sum"] = "mean",
) -> PyTree:
    """Merges two models into one that is wider where they disagree, by least squares.

    start: [merged, own, other's own] units of each name; merged units take the mean
    fit: min_W |Z W - T|^2 + ridge |W - start|^2, layer by layer, with
    Z = [(z_1 + P z_2)/2, z_1 own, z_2 own] the layer's inputs in the two models, T the
    same of its outputs; no weight joins the two models' own units

    Args:
      function: (params, *inputs) -> outputs; traced, and not called with wider
        parameters here. It must take its widths from its parameters.
      spec: a permutation spec.
      tree: the first model.
      other: the second, as it is: `matching` says how to permute it.
      matching: of `weight_matching` or `activation_matching` of the two.
      separate: as for `partial_matching`; 0 keeps the size.
      least_squares: False stops at the start (static), which for separate=0 is the
        average of the aligned models.
      ridge: >= 0, relative to the mean square of the layer's inputs; 0 is the smallest
        step from the start that is least squares.
      outputs: what units of their own give to outputs that are not permuted: "mean"
        half of their weight, so that separate=1 is the mean of the two functions;
        "sum" all of it, as the authors' code (static).
      inputs: examples, no labels.
    Returns:
      A tree of the structure and dtypes of `tree`, wider.
    Gradient: none: not traceable, on the host.
    Cost: a forward pass of both models, and an eigendecomposition of [inputs, inputs]
      for each layer and group of outputs.
    Raises: ValueError for trees or a spec that differ (with the paths), ridge < 0,
      activations that are not finite, and as `partial_matching`.
    Source: Nasery et al., "PLeaS -- Merging Models with Permutations and Least
      Squares", 2024, arXiv:2407.02447, sec. 3. Differs: solved exactly, with a ridge
      towards the start, for products with kernels (the authors: gradient steps, biases
      too); the mask holds for every axis order; "mean".
    Example:
      >>> model = lambda p, x: jax.nn.relu(x @ p["in"]) @ p["out"]
      >>> a = {"in": jnp.ones((2, 3)), "out": jnp.ones((3, 1))}
      >>> same = Matching({"h": np.arange(3)}, np.array(0.0), {"h": np.arange(3.0)})
      >>> merged = pleas(
      ...     model, {"in": "_ h", "out": "h _"}, a, a, jnp.ones((4, 2)),
      ...     matching=same, separate=1.0,
      ... )
      >>> merged["in"].shape, model(merged, jnp.ones((1, 2)))
      ((2, 6), Array([[6.]], dtype=float32))
    """
    one_of("outputs", outputs, ("mean", "sum"))
    at_least("ridge", ridge, 0)
    other = arranged("other", other, tree)
    found, _ = layouts(spec, tree)
    blocks = partial_matching(matching, separate=separate)
    # What is nested is not widened: permute it, and its parents, first.
    nested = {n for n in matching.permutation if "/" in n}
    nested |= {parent(n) for n in nested}
    first = {k: v for k, v in matching.permutation.items() if k in nested}
    other = apply_permutation(spec, first, other)
    for name in nested & set(blocks):
        here = np.arange(len(blocks[name].merged))
        blocks[name] = Blocks(here, here, here[:0], here[:0])
    uses = layer_inputs(function, tree, *inputs)
    theirs = layer_inputs(function, other, *inputs)
    leaves, treedef = jax.tree.flatten(tree)
    sums: dict[int, list[int]] = {}
    for k, use in enumerate(uses):
        sums.setdefault(use.leaf, []).append(k)
    merged = []
    for i, (a, b) in enumerate(zip(leaves, jax.tree.leaves(other), strict=True)):
        if not is_float(a):
            merged.append(a)
            continue
        layout = found[i]
        inside = factors_of(layout, uses[sums[i][0]].contracted) if i in sums else []
        pair = [np.asarray(at_least_f32(x)).reshape(layout.factors) for x in (a, b)]
        start = _start(pair[0], pair[1], layout, blocks, inside, outputs)
        if least_squares and i in sums and any(layout.names):
            data = [(uses[k].inputs, theirs[k].inputs) for k in sums[i]]
            start = _fit(start, pair, data, layout, blocks, inside, ridge, outputs)
        merged.append(jnp.asarray(_joined(start, layout)).astype(jnp.result_type(a)))
    return jax.tree.unflatten(treedef, merged)


def _start(a, b, layout: Layout, blocks, inside: list[int], outputs: str) -> np.ndarray:
    """The block-structured average, by factors: what own units give to merged ones is
    halved, as these are means of two; what they take from them is not."""
    wide = [i for i, n in enumerate(layout.names) if n in blocks]
    for axis in wide:
        own = blocks[layout.names[axis]]
        x, y = np.take(a, own.own, axis), np.take(b, own.own_other, axis)
        a, b = np.take(a, own.merged, axis), np.take(b, own.merged_other, axis)
        a = np.concatenate([a, x, np.zeros_like(y)], axis)
        b = np.concatenate([b, np.zeros_like(x), y], axis)
    ends = [i for i in wide if i not in inside]
    if outputs == "sum" and not ends:
        ends = wide
    mean = np.ones((1,) * a.ndim, bool)
    for axis in ends:
        shape = [1] * a.ndim
        shape[axis] = -1
        mean = mean & (_part(blocks[layout.names[axis]]) == 0).reshape(shape)
    return np.where(mean, (a + b) / 2, a + b)


def _fit(start, pair, data, layout, blocks, inside, ridge, outputs) -> np.ndarray:
    """Least squares for one kernel, group of outputs by group."""
    outside = [i for i in range(start.ndim) if i not in inside]
    order = [*inside, *outside]
    sizes = [start.shape[i] for i in order]
    n_in = int(np.prod([start.shape[i] for i in inside]))
    w = start.transpose(order).reshape(n_in, -1).astype(np.float64)
    allowed = np.ones_like(start, bool)
    for i in inside:
        for j in outside:
            if layout.names[i] in blocks and layout.names[j] in blocks:
                p, q = (_part(blocks[layout.names[k]]) for k in (i, j))
                clash = p[:, None] * q[None] == 2  # one's own, the other's own
                shape = [1] * start.ndim
                shape[i], shape[j] = len(p), len(q)
                clash = clash if i < j else clash.T
                allowed &= ~clash.reshape(shape)
    allowed = allowed.transpose(order).reshape(n_in, -1)
    gram, right = np.zeros((n_in, n_in)), np.zeros(w.shape)
    for z1, z2 in data:
        ins = [layout.factors[i] for i in inside]
        outs = [layout.factors[i] for i in outside]
        zs = [np.asarray(z, np.float64).reshape(len(z), *ins) for z in (z1, z2)]
        ts = [
            _rows(z)
            @ x.transpose(order).reshape(int(np.prod(ins)), -1).astype(np.float64)
            for z, x in zip(zs, pair, strict=True)
        ]
        ts = [t.reshape(len(t), *outs) for t in ts]
        z = _stack(zs, [layout.names[i] for i in inside], blocks)
        t = _stack(ts, [layout.names[i] for i in outside], blocks)
        z, t = _rows(z), _rows(t)
        if outputs == "sum" and not any(layout.names[i] in blocks for i in outside):
            t = z @ w  # the authors do not fit the sum of two heads
        gram += z.T @ z
        right += z.T @ t
    if not np.isfinite(gram).all() or not np.isfinite(right).all():
        raise ValueError("inputs: wanted finite activations, came NaN or inf")
    lift = float(ridge) * max(np.trace(gram) / max(n_in, 1), 1e-30)
    fitted = w.copy()
    for pattern in np.unique(allowed, axis=1).T:
        columns = np.flatnonzero((allowed == pattern[:, None]).all(0))
        rows = np.flatnonzero(pattern)
        system = gram[np.ix_(rows, rows)] + lift * np.eye(len(rows))
        start_here = w[np.ix_(rows, columns)]
        wanted = right[np.ix_(rows, columns)] - gram[np.ix_(rows, rows)] @ start_here
        # Units that are dead, or say the same, leave directions without data.
        least = len(rows) * np.finfo(np.float64).eps
        inverse = np.linalg.pinv(system, rcond=least, hermitian=True)
        fitted[np.ix_(rows, columns)] = start_here + inverse @ wanted
    back = np.argsort(order)
    return fitted.reshape(sizes).transpose(back)


def _rows(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), prod(x.shape[1:]))


def _part(blocks: Blocks) -> np.ndarray:
    """0 for merged, 1 for own, 2 for the other's own units."""
    return np.repeat([0, 1, 2], [len(blocks.merged), len(blocks.own), len(blocks.own)])


def _stack(pair, names, blocks) -> np.ndarray:
    """[(x_1 + P x_2)/2, x_1 own, x_2 own] along every wide axis."""
    a, b = pair
    wide = [i for i, n in enumerate(names) if n in blocks]
    if not wide:
        return (a + b) / 2
    axis, name = wide[0] + 1, names[wide[0]]
    if len(wide) > 1:
        said = f"{names[wide[0]]!r} and {names[wide[1]]!r} on one side of a product"
        if any(len(blocks[names[i]].own) for i in wide):
            raise ValueError(f"separate: cannot keep units of {said}")
        for i in wide:
            own = blocks[names[i]]
            a = np.take(a, own.merged, i + 1)
            b = np.take(b, own.merged_other, i + 1)
        return (a + b) / 2
    own = blocks[name]
    return np.concatenate(
        [
            (np.take(a, own.merged, axis) + np.take(b, own.merged_other, axis)) / 2,
            np.take(a, own.own, axis),
            np.take(b, own.own_other, axis),
        ],
        axis,
    )


def _joined(x: np.ndarray, layout: Layout) -> np.ndarray:
    """Factors back to axes."""
    sizes = [
        int(np.prod([x.shape[i] for i in factors_of(layout, (axis,))]))
        for axis in range(len(layout.shape))
    ]
    return x.reshape(sizes)
