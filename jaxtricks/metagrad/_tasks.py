"""Tasks: made from one another, and what their landscape says of adapting to them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PyTree, ScalarLike

from .. import _safe as safe
from .. import _tree as tree
from .._check import of_shape
from .._mask import at_least_f32


class TaskLandscape(NamedTuple):
    """What `task_landscape` measures."""

    nal: Float[Array, " d"]  # the minimum of the average loss
    maml: Float[Array, " d"]  # that of the loss after one step of adaptation
    nal_risk: Float[Array, ""]  # excess risk after adaptation, from either
    maml_risk: Float[Array, ""]
    ratio: Float[Array, ""]  # nal_risk / maml_risk, >= 1; 1 where both are 0


def interpolate_tasks(
    a: PyTree,
    b: PyTree,
    weight: ScalarLike,
    *,
    order: Int[ArrayLike, " classes"] | None = None,
) -> PyTree:
    """A new task between two, for meta-learning with few: mixed with one weight.

    H = weight H_a + (1 - weight) H_b      for features and soft labels alike

    Draw `weight` from Beta(2, 2) by `jax.random.beta`, one for support and query. What
    is mixed may be inputs or the hidden features of a layer, drawn anew each time; the
    layers above then adapt.

    Args:
      a, b: tasks of one structure, such as (support, query), each of them (x, y).
      weight: in [0, 1]; 1 is task a. May be traced.
      order: int[classes], for tasks whose labels do not mean the same: class k of a is
        mixed with class order[k] of b, to a new class. Float leaves are then
        [classes, ...], and integer ones (labels) those of a.
    Returns:
      The task, with a's dtypes.
    Gradient: linear in a, b and weight.
    Cost: none to speak of.
    Raises: ValueError for tasks that do not match, a weight or an order of another
      shape, or integer labels without an order: make them one-hot.
    Source: Yao et al., "Meta-Learning with Fewer Tasks through Task Interpolation",
      2021, arXiv:2106.02695. Differs: manifold mixup alone, no CutMix;
      which layer is up to the caller.
    Example:
      >>> interpolate_tasks(jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0]), 0.75)
      Array([0.75, 0.5 ], dtype=float32)
    """
    tree.check_alike("b", b, a)
    of_shape((), weight=weight)
    for path, leaf in tree.paths(a).items():
        if order is not None and tree.is_float(leaf):
            of_shape(jnp.shape(leaf)[:1], order=order)
        if order is None and not tree.is_float(leaf):
            raise ValueError(
                f"a: wanted float leaves, came {jnp.result_type(leaf)} at {path}; give "
                "soft labels, or an order for labels that do not mean the same"
            )

    def mix(x, y):
        y = y if order is None else jnp.take(y, jnp.asarray(order), axis=0)
        return weight * x + (1 - weight) * y

    return tree.map_floats(mix, a, b)


def task_landscape(
    optima: Float[ArrayLike, "tasks d"],
    curvatures: Float[ArrayLike, "tasks d d"],
    *,
    rate: ScalarLike,
) -> TaskLandscape:
    """Whether MAML can gain over plain training, for tasks that are linear regressions.

    L_i(w) = (w - w_i)' S_i (w - w_i) / 2,   Q_i = (I - rate S_i) S_i (I - rate S_i)
    nal = (sum S_i)^-1 sum S_i w_i,   maml = (sum Q_i)^-1 sum Q_i w_i
    risk(w) = mean_i (w - w_i)' Q_i (w - w_i) / 2

    It gains most where the hard tasks (small curvature, slow to adapt) lie together and
    far from the easy ones.

    Args:
      optima: float[tasks, d], w_i.
      curvatures: float[tasks, d, d], S_i, symmetric, their sum invertible.
      rate: of the one step of adaptation; 0 makes both solutions the same.
    Returns:
      TaskLandscape(nal, maml, nal_risk, maml_risk, ratio).
    Gradient: smooth where sum Q_i is invertible.
    Cost: two linear systems of size d.
    Raises: ValueError for curvatures of another shape.
    Source: Collins et al., "How Does the Task Landscape Affect MAML Performance?",
      2020, arXiv:2010.14672. Differs: infinite data, for both levels.
    Example:
      >>> curvatures = jnp.array([[[0.1]], [[1.0]]])  # hard at 0, easy at 1
      >>> found = task_landscape(jnp.array([[0.0], [1.0]]), curvatures, rate=0.9)
      >>> print(found.nal, found.maml, found.ratio)
      [0.9091] [0.1077] 7.6795
    """
    optima, curvatures = at_least_f32(optima), at_least_f32(curvatures)
    size = optima.shape[1]
    of_shape((*optima.shape, size), curvatures=curvatures)
    left = jnp.eye(size, dtype=curvatures.dtype)[None] - rate * curvatures
    after = left @ curvatures @ left

    def minimum(matrices):
        pull = jnp.sum(jax.vmap(jnp.matmul)(matrices, optima), axis=0)
        return jnp.linalg.solve(jnp.sum(matrices, axis=0), pull)

    def risk(w):
        away = w[None] - optima
        return jnp.mean(jnp.einsum("ti,tij,tj->t", away, after, away)) / 2

    nal, maml = minimum(curvatures), minimum(after)
    risks = risk(nal), risk(maml)
    gain = jnp.where(risks[1] == 0, 1, safe.divide(*risks))
    return TaskLandscape(nal, maml, *risks, gain)
