"""Metagradient descent: data and schedules, moved by the sign of a meta-gradient."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Integer, Key, PyTree, ScalarLike

from .._batch import whole
from .._check import above, at_least, between
from .._mask import at_least_f32


def mgd(
    z: PyTree,
    grads: PyTree,
    *,
    rate: PyTree = 1.0,
    p: ScalarLike = 1.0,
    key: Key[Array, ""] | None = None,
    low: ScalarLike | None = None,
    high: ScalarLike | None = None,
) -> PyTree:
    """One step of metagradient descent; for data counts, schedules, any hyperparameter.

    z <- clip(z - rate m sign(g), low, high),   m ~ Bernoulli(p) for each entry

    Counts of examples go by `rate=1, p=..., key=..., low=0`, so that a part of them
    changes by one; the key points of a schedule by a small rate and `low=0`.

    Args:
      z: pytree of floats; whole numbers too (counts), if rate is 1.
      grads: like z, the meta-gradient of what is to be small.
      rate: >= 0, one number or a tree of them for parts of z.
      p: in [0, 1], how much of z moves in a step.
      key: typed key of the mask; needed unless p is the number 1.
      low, high: bounds of z, or None.
    Returns:
      The new z, each leaf of its dtype.
    Gradient: none in grads; in z and rate.
    Cost: none to speak of.
    Raises: ValueError for a p outside [0, 1], a rate < 0, p without a key, or grads
      that are not like z.
    Source: Engstrom et al., "Optimizing ML Training with Metagradient Descent", 2025,
      arXiv:2503.13751, the updates of counts and of schedules. Differs: the sources of
      this did not give p, the rates or the number of key points; they are the caller's.
    Example:
      >>> print(mgd(jnp.array([0, 1, 2]), jnp.array([0.3, 0.1, -2.0]), low=0))
      [0 0 3]
    """
    between("p", p, 0, 1)
    for part in jax.tree.leaves(rate):
        at_least("rate", part, 0)
    if key is None and not (isinstance(p, int | float) and p == 1):
        raise ValueError(f"key: wanted one, as p is {p}")
    leaves, structure = jax.tree.flatten(jax.tree.map(jnp.asarray, z))
    slopes = jax.tree.leaves(grads)
    if jax.tree.structure(grads) != structure or any(
        jnp.shape(a) != jnp.shape(b) for a, b in zip(leaves, slopes, strict=True)
    ):
        raise ValueError(f"grads: wanted them like z, {structure}, came others")
    rates = _spread(rate, jax.tree.unflatten(structure, leaves))
    keys = [None] * len(leaves) if key is None else jax.random.split(key, len(leaves))

    def leaf(z, g, rate, key):
        move = rate * lax.stop_gradient(jnp.sign(at_least_f32(g)))
        if key is not None:
            move = jnp.where(jax.random.bernoulli(key, p, z.shape), move, 0)
        return jnp.clip(at_least_f32(z) - move, low, high).astype(z.dtype)

    moved = [leaf(*each) for each in zip(leaves, slopes, rates, keys, strict=True)]
    return jax.tree.unflatten(structure, moved)


def relax_counts(
    loss_fn: Callable[[PyTree, PyTree], Float[Array, ""]],
    losses_fn: Callable[[PyTree], Float[Array, " examples"]],
    *,
    at: Integer[ArrayLike, "*steps"] | int,
) -> Callable[..., Float[Array, ""]]:
    """A training loss in which every candidate has a weight; 0, so that none changes.

    loss_t(theta) = loss(theta, batch_t) + [t in at] sum_i z_i loss_i(theta)

    The gradient of a finished run in z at z = 0 tells of each candidate, in the data or
    not, whether once more of it would help: what `mgd` changes counts by.

    Args:
      loss_fn: (params, batch) -> f[], what is trained on.
      losses_fn: params -> f[examples], of every candidate, on the scale on which one
        copy of it counts in loss_fn (over the batch size, where that is a mean).
      at: the step of training, or the steps, at which they are weighed in.
    Returns:
      (params, batch, step, z f[examples]) -> f[], to be differentiated in params by
      training and in z by `scan` or `replay`.
    Gradient: exact, any order.
    Cost: one pass over all candidates at each step of `at`; other steps skip it (under
      vmap they do not).
    Raises: ValueError for a negative step.
    Source: Engstrom et al., "Optimizing ML Training with Metagradient Descent", 2025,
      arXiv:2503.13751, the relaxation of counts. Differs: which step is the source's
      could not be found out; several are allowed.
    Example:
      >>> loss = relax_counts(lambda w, x: w * x, lambda w: w * jnp.arange(3.0), at=7)
      >>> by_z = jax.grad(loss, argnums=3)
      >>> print(by_z(2.0, 5.0, 7, jnp.zeros(3)), by_z(2.0, 5.0, 6, jnp.zeros(3)))
      [0. 2. 4.] [0. 0. 0.]
    """
    at_least("at", at, 0)

    def relaxed(params, batch, step, z):
        def weighed(params, z):
            losses = losses_fn(params)
            return jnp.sum(jnp.asarray(z, losses.dtype) * losses)

        def left(params, z):
            return jnp.zeros((), jax.eval_shape(weighed, params, z).dtype)

        now = jnp.any(jnp.equal(jnp.asarray(at), step))
        return loss_fn(params, batch) + lax.cond(now, weighed, left, params, z)

    return relaxed


def key_points(
    values: Float[ArrayLike, " points"], *, total_steps: int
) -> optax.Schedule:
    """A schedule that is linear between points at even distances; to be learned.

    s(t) = sum_k v_k max(0, 1 - |u - k|),   u = (K - 1) min(t / total_steps, 1)

    Args:
      values: f[points], at the steps 0, total_steps / (K - 1), ..., total_steps.
      total_steps: >= 1; after it the last value stays.
    Returns:
      step -> f32[].
    Gradient: linear in values.
    Cost: K products a step.
    Raises: ValueError for total_steps < 1, or values that are no vector.
    Source: Engstrom et al., "Optimizing ML Training with Metagradient Descent", 2025,
      arXiv:2503.13751, the schedule. Differs: points at even distances are our choice.
    Example:
      >>> schedule = key_points(jnp.array([0.0, 1.0, 0.5]), total_steps=100)
      >>> print(*[f"{schedule(t):.3f}" for t in (0, 25, 50, 75, 100, 120)])
      0.000 0.500 1.000 0.750 0.500 0.500
    """
    above("total_steps", total_steps, 0)
    if jnp.ndim(values) != 1 or jnp.shape(values)[0] < 1:
        raise ValueError(f"values: wanted f[points], came shape {jnp.shape(values)}")
    points = whole(at_least_f32(values))

    def schedule(step):
        part = jnp.clip(jnp.asarray(step, points.dtype) / total_steps, 0, 1)
        away = part * (len(points) - 1) - jnp.arange(len(points), dtype=points.dtype)
        return jnp.sum(points * jnp.maximum(1 - jnp.abs(away), 0))

    return schedule


def _spread(rate: PyTree, z: PyTree) -> list:
    """The rate of each leaf of z, from a prefix tree."""
    whole = jax.tree.map(lambda r, part: jax.tree.map(lambda _: r, part), rate, z)
    return jax.tree.leaves(whole)
