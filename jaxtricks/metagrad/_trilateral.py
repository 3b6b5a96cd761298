"""TGeo-KD: how much of the teacher each example takes, learned from a triangle.

Student, teacher and truth are three points; how they lie to one another, and to the
teacher's mean prediction for the class, says whether the teacher is worth following.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from .. import _safe as safe
from .._check import above, of_shape
from .._mask import at_label, at_least_f32, blank, one_hot


def class_predictions(
    probabilities: Float[ArrayLike, "n classes"], labels: Int[ArrayLike, " n"]
) -> Float[Array, "classes classes"]:
    """The teacher's mean prediction for each class, which outliers cannot move.

    Args:
      probabilities: float[n, classes], the teacher's, over the training set.
      labels: int[n]; out of range counts for no class.
    Returns:
      f32[classes, classes], a row a class; uniform for a class without examples.
    Gradient: in the probabilities.
    Cost: n classes^2.
    Source: Hu et al., "Less or More From Teacher: Exploiting Trilateral Geometry For
      Knowledge Distillation", 2023, arXiv:2312.15112. Differs: what an absent class
      gets is our choice.
    Example:
      >>> class_predictions(jnp.array([[0.75, 0.25], [1.0, 0.0]]), jnp.array([0, 0]))
      Array([[0.875, 0.125],
             [0.5  , 0.5  ]], dtype=float32)
    """
    p = at_least_f32(probabilities)
    member = one_hot(labels, p.shape).astype(p.dtype)
    count = jnp.sum(member, axis=0)[:, None]
    return jnp.where(count > 0, safe.divide(member.T @ p, count), 1 / p.shape[1])


def trilateral_geometry(
    student: Float[ArrayLike, "*batch classes"],
    teacher: Float[ArrayLike, "*batch classes"],
    labels: Int[ArrayLike, "*batch"],
    means: Float[ArrayLike, "classes classes"],
) -> Float[Array, "*batch features"]:
    """What a network learns an example's fusion ratio from; stack it under a sigmoid.

    [S, T, G, M, (M - S)^2, (G - S)^2, (T - S)^2, (T - G)^2, (M - G)^2]

    S, T are the predictions of student and teacher, G the one-hot label, M the
    teacher's mean for the label.

    Args:
      student: float[*batch, classes], probabilities.
      teacher: float[*batch, classes], probabilities.
      labels: int[*batch]; out of range gives NaN.
      means: float[classes, classes], of `class_predictions`.
    Returns:
      f32[*batch, 9 classes].
    Gradient: smooth; stop it at the student, as the ratio is learned by another loss.
    Cost: none to speak of.
    Raises: ValueError for a teacher or means of another shape.
    Source: Hu et al., "Less or More From Teacher: Exploiting Trilateral Geometry For
      Knowledge Distillation", 2023, arXiv:2312.15112. Differs: vertices and edges are
      the paper's; that edges are squared differences is what an independent
      reimplementation does, the authors' code was not to be had.
    Example:
      >>> half = jnp.full((1, 2), 0.5)
      >>> trilateral_geometry(half, half, jnp.array([0]), jnp.eye(2))[0, 8:]
      Array([0.25, 0.25, 0.25, 0.25, 0.  , 0.  , 0.25, 0.25, 0.  , 0.  ],
            dtype=float32)
    """
    s, t, means = at_least_f32(student), at_least_f32(teacher), at_least_f32(means)
    of_shape(s.shape, teacher=t)
    of_shape(s.shape[-1:] * 2, means=means)
    hit = one_hot(labels, s.shape)
    g = hit.astype(s.dtype)
    m = g @ means
    edges = [m - s, g - s, t - s, t - g, m - g]
    told = jnp.concatenate([s, t, g, m, *map(jnp.square, edges)], axis=-1)
    return jnp.where(jnp.any(hit, axis=-1, keepdims=True), told, jnp.nan)


def fused_distillation(
    logits: Float[ArrayLike, "*batch classes"],
    teacher_logits: Float[ArrayLike, "*batch classes"],
    labels: Int[ArrayLike, "*batch"],
    ratio: Float[ArrayLike, "*batch"],
    *,
    temperature: ScalarLike = 4.0,
    where: Bool[ArrayLike, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """Distillation and cross entropy, mixed by a ratio of each example's own.

    ratio t^2 KL(softmax(teacher / t) | softmax(logits / t)) + (1 - ratio) CE

    Args:
      logits: float[*batch, classes], the student's.
      teacher_logits: float[*batch, classes].
      labels: int[*batch]; out of range gives NaN.
      ratio: float[*batch] in [0, 1]; 0 is cross entropy, 1 distillation.
      temperature: t > 0. The paper's is not known to us; 4 is usual.
      where: bool[*batch], True counts.
    Returns:
      f32[*batch] in [0, inf); 0 where masked.
    Gradient: smooth in everything; the ratio's is what a look ahead differentiates.
    Cost: three softmaxes.
    Raises: ValueError for temperature <= 0, or a teacher or ratio of another shape.
    Source: Hu et al., "Less or More From Teacher: Exploiting Trilateral Geometry For
      Knowledge Distillation", 2023, arXiv:2312.15112. Differs: none.
    Example:
      >>> zero, label = jnp.zeros((1, 2)), jnp.array([0])
      >>> fused_distillation(zero, zero, label, jnp.array([0.25]))  # 3/4 log 2
      Array([0.5199], dtype=float32)
    """
    above("temperature", temperature, 0)
    of_shape(jnp.shape(logits), teacher_logits=teacher_logits)
    of_shape(jnp.shape(logits)[:-1], ratio=ratio)
    z = blank(at_least_f32(logits), where)
    t = blank(at_least_f32(teacher_logits), where)
    log_q = jax.nn.log_softmax(_over(z, temperature))
    log_p = jax.nn.log_softmax(_over(t, temperature))
    p = jnp.exp(log_p)
    apart = jnp.where(p > 0, log_p - log_q, 0)  # 0 where the teacher rules it out
    distilled = temperature**2 * jnp.sum(p * apart, axis=-1)
    truth = -at_label(jax.nn.log_softmax(z), labels)
    ratio = blank(at_least_f32(ratio), where)
    return blank(ratio * distilled + (1 - ratio) * truth, where)


def _over(logits: Float[Array, "*batch classes"], temperature: ScalarLike) -> Array:
    """logits / temperature, where a class at -inf tells temperature nothing."""
    dead = logits == -jnp.inf
    return jnp.where(dead, -jnp.inf, jnp.where(dead, 0, logits) / temperature)
