"""Divergence of two heads' distributions over classes, without either's logits."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, ScalarLike

from .._check import above, between, one_of
from .._mask import blank
from ._linear_logprob import inverse
from ._statistics import relative

DIRECTIONS = ("forward", "reverse", "jsd")


def linear_kl(
    hidden: Float[ArrayLike, "*batch features"],
    weight: Float[ArrayLike, "..."],
    teacher_hidden: Float[ArrayLike, "*batch teacher_features"],
    teacher_weight: Float[ArrayLike, "..."],
    *,
    direction: str = "forward",
    beta: ScalarLike = 0.5,
    temperature: ScalarLike = 1.0,
    layout: str = "dv",
    bias: Float[ArrayLike, " classes"] | None = None,
    teacher_bias: Float[ArrayLike, " classes"] | None = None,
    softcap: ScalarLike | None = None,
    where: Bool[ArrayLike, "*batch"] | None = None,
    w_axis: str | None = None,
    implementation: str = "auto",
    workspace_mb: float | int | None = None,
) -> Float[Array, "*batch"]:
    """Divergence of student and teacher from hidden states; to distil, logit-free.

    p = softmax(z / temperature), q = softmax(t / temperature), of student and teacher
    forward: KL(q, p) = sum_v q_v log(q_v / p_v);   reverse: KL(p, q)
    jsd: beta KL(q, m) + (1 - beta) KL(p, m),   m = beta q + (1 - beta) p

    Args:
      hidden: float[*batch, features], the student's.
      weight: float[features, classes], or [classes, features] in layout "vd".
      teacher_hidden: float[*batch, teacher_features].
      teacher_weight: of the teacher, in the same layout, over the same classes.
      direction: "forward" (covers the teacher), "reverse" (seeks its modes) or "jsd".
      beta: in [0, 1], the teacher's share in the mean of "jsd". May be traced.
      temperature: > 0, of both. May be traced. Hinton et al. multiply by its square.
      layout: as in `token_statistics`.
      bias, teacher_bias: float[classes]; -inf rules a class out.
      softcap: bound > 0 of |z| and |t|, before the temperature; None for no bound.
      where, w_axis, implementation, workspace_mb: as in `token_statistics`.
    Returns:
      f32[*batch] >= 0 up to rounding, 0 for equal heads; inf where the first
      distribution has a class that the second rules out; 0 where masked.
    Gradient: smooth in all float arguments, any order and mode. It flows into the
      teacher too: stop it there. 0 for a class that only one of them rules out.
    Cost: products with both weights; "jsd" takes a second pass over both.
    Raises: ValueError for a shape, a hyperparameter or a choice that does not fit.
    Source: Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models", 2024,
      arXiv:2411.09009, sec. 4; Agarwal et al., "On-Policy Distillation of Language
      Models: Learning from Self-Generated Mistakes", 2023, arXiv:2306.13649, the
      generalized Jensen-Shannon divergence. Differs: from hidden states.
    Example:
      >>> weight, hidden = jnp.eye(2), jnp.array([[1.0, 0.0]])
      >>> print(linear_kl(hidden, weight, 0 * hidden, weight))
      [0.1201]
    """
    one_of("direction", direction, DIRECTIONS)
    above("temperature", temperature, 0)
    between("beta", beta, 0, 1)
    hidden = jnp.asarray(hidden)
    token = relative(
        hidden,
        weight,
        jnp.zeros(hidden.shape[:-1], jnp.int32),
        teacher=(blank(teacher_hidden, where), teacher_weight, teacher_bias),
        jsd=beta if direction == "jsd" else None,
        layout=layout,
        bias=bias,
        softcap=softcap,
        scale=inverse(temperature),
        where=where,
        w_axis=w_axis,
        implementation=implementation,
        workspace_mb=workspace_mb,
    )
    divergence = {
        "forward": token.lse - token.teacher_lse - token.teacher_gap,
        "reverse": token.student_gap - token.lse + token.teacher_lse,
        "jsd": token.jsd,
    }
    return blank(divergence[direction], where)
