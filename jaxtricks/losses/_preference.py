"""Preference losses: prefer one sequence to another, by their log-probabilities.

Each is a function of one number, how much likelier the chosen sequence is than the
rejected one: against a reference model (dpo, ipo), a margin (simpo), or odds (orpo).
A sequence's log-probability is the sum over tokens of `kernels.linear_logprob`'s, or of
minus `cross_entropy`; the mean over tokens where the arguments say so.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, ScalarLike

from .._check import above, at_least, between, of_shape
from .._mask import at_least_f32, blank
from .._safe import log1mexp


def dpo(
    chosen: Float[ArrayLike, "*batch"],
    rejected: Float[ArrayLike, "*batch"],
    reference_chosen: Float[ArrayLike, "*batch"],
    reference_rejected: Float[ArrayLike, "*batch"],
    *,
    beta: ScalarLike = 0.1,
    label_smoothing: ScalarLike = 0.0,
    where: Bool[ArrayLike, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """Logistic loss on how a policy moved from a reference; tuning on preferences.

    loss = -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h)
    h = (chosen - reference_chosen) - (rejected - reference_rejected)

    Args:
      chosen: float[*batch], the policy's log-probability of the preferred sequence,
        summed over its tokens.
      rejected: float[*batch], that of the other one.
      reference_chosen: float[*batch], the reference model's.
      reference_rejected: float[*batch], the reference model's.
      beta: > 0, how dear it is to leave the reference. May be traced.
      label_smoothing: e in [0, 0.5], how often a preference is taken to be the wrong
        way round (conservative DPO). May be traced.
      where: bool[*batch], True counts.
    Returns:
      f32[*batch] >= 0, log 2 at h = 0; 0 where masked.
    Gradient: smooth in all arguments, any order; nothing is stopped, the reference
      neither.
    Cost: none.
    Raises: ValueError for a shape that does not fit, beta <= 0 or a label_smoothing
      outside [0, 0.5].
    Source: Rafailov et al., "Direct Preference Optimization: Your Language Model is
      Secretly a Reward Model", 2023, arXiv:2305.18290, eq. 7. Differs: label_smoothing,
      after E. Mitchell's note on noisy preferences, 2023, as in huggingface/trl.
    Example:
      >>> dpo(jnp.array(-3.0), jnp.array(-5.0), jnp.array(-4.0), jnp.array(-4.0))
      Array(0.5981, dtype=float32)
    """
    above("beta", beta, 0)
    between("label_smoothing", label_smoothing, 0, 0.5)
    h = _moved(chosen, rejected, reference_chosen, reference_rejected, where)
    z, e = beta * h, jnp.asarray(label_smoothing, h.dtype)
    wrong = e * jax.nn.softplus(jnp.where(e > 0, z, 0))  # 0 times infinity is 0
    return blank((1 - e) * jax.nn.softplus(-z) + wrong, where)


def ipo(
    chosen: Float[ArrayLike, "*batch"],
    rejected: Float[ArrayLike, "*batch"],
    reference_chosen: Float[ArrayLike, "*batch"],
    reference_rejected: Float[ArrayLike, "*batch"],
    *,
    tau: ScalarLike = 0.1,
    where: Bool[ArrayLike, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """`dpo` with a squared distance to a margin; does not run off on sure preferences.

    loss = (h - 1 / (2 tau))^2,  h as in `dpo`

    Args:
      chosen: float[*batch], as in `dpo`; common practice is the mean over tokens, so
        that one tau serves all lengths.
      rejected: float[*batch], likewise.
      reference_chosen: float[*batch], likewise.
      reference_rejected: float[*batch], likewise.
      tau: > 0, how dear it is to leave the reference. May be traced.
      where: bool[*batch], True counts.
    Returns:
      f32[*batch] >= 0, 1 / (4 tau^2) at h = 0; 0 where masked.
    Gradient: smooth in all arguments, any order; nothing is stopped.
    Cost: none.
    Raises: ValueError for a shape that does not fit or tau <= 0.
    Source: Azar et al., "A General Theoretical Paradigm to Understand Learning from
      Human Preferences", 2023, arXiv:2310.12036, eq. 17. Differs: the default tau is
      that of `dpo`'s beta.
    Example:
      >>> ipo(jnp.array(-3.0), jnp.array(-5.0), jnp.array(-4.0), jnp.array(-4.0))
      Array(9., dtype=float32)
    """
    above("tau", tau, 0)
    h = _moved(chosen, rejected, reference_chosen, reference_rejected, where)
    return blank(jnp.square(h - 1 / (2 * tau)), where)


def simpo(
    chosen: Float[ArrayLike, "*batch"],
    rejected: Float[ArrayLike, "*batch"],
    *,
    beta: ScalarLike = 2.0,
    gamma: ScalarLike = 1.0,
    where: Bool[ArrayLike, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """Preference by mean log-probability with a margin; needs no reference model.

    loss = -log sigmoid(beta (chosen - rejected) - gamma)

    Args:
      chosen: float[*batch], log-probability of the preferred sequence, the mean over
        its tokens.
      rejected: float[*batch], that of the other one.
      beta: > 0, scale of the reward. May be traced.
      gamma: the margin that the rewards should keep. May be traced.
      where: bool[*batch], True counts.
    Returns:
      f32[*batch] >= 0; 0 where masked.
    Gradient: smooth in all arguments, any order; nothing is stopped.
    Cost: none.
    Raises: ValueError for a shape that does not fit or beta <= 0.
    Source: Meng et al., "SimPO: Simple Preference Optimization with a Reference-Free
      Reward", 2024, arXiv:2405.14734, eq. 6. Differs: the defaults are one point of the
      ranges that the paper searches for each model.
    Example:
      >>> simpo(jnp.array(-1.0), jnp.array(-1.5))  # log 2
      Array(0.6931, dtype=float32)
    """
    above("beta", beta, 0)
    of_shape(jnp.shape(chosen), rejected=rejected)
    chosen, rejected = (blank(at_least_f32(x), where) for x in (chosen, rejected))
    return blank(jax.nn.softplus(gamma - beta * (chosen - rejected)), where)


def orpo(
    chosen: Float[ArrayLike, "*batch"],
    rejected: Float[ArrayLike, "*batch"],
    *,
    lam: ScalarLike = 0.1,
    where: Bool[ArrayLike, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """Cross entropy of the chosen sequence and the odds against the rejected one.

    loss = -chosen - lam log sigmoid(log odds(chosen) - log odds(rejected))
    log odds(l) = l - log(1 - e^l)

    One stage instead of fine-tuning and then a preference loss with a reference.

    Args:
      chosen: float[*batch] <= 0, log-probability of the preferred sequence, the mean
        over its tokens.
      rejected: float[*batch] <= 0, that of the other one.
      lam: >= 0, weight of the odds; 0 is cross entropy. May be traced.
      where: bool[*batch], True counts.
    Returns:
      f32[*batch] >= 0; 0 where masked.
    Gradient: smooth in all arguments, any order; nothing is stopped. The odds of a
      probability that rounds to 1 have none.
    Cost: none.
    Raises: ValueError for a shape that does not fit or a negative lam.
    Source: Hong et al., "ORPO: Monolithic Preference Optimization without Reference
      Model", 2024, arXiv:2403.07691, eq. 6 and 7. Differs: none.
    Example:
      >>> orpo(jnp.array(-1.0), jnp.array(-2.0))
      Array(1.0238, dtype=float32)
    """
    at_least("lam", lam, 0)
    of_shape(jnp.shape(chosen), rejected=rejected)
    chosen, rejected = (blank(at_least_f32(x), where, -1) for x in (chosen, rejected))
    odds = (chosen - log1mexp(chosen)) - (rejected - log1mexp(rejected))
    return blank(lam * jax.nn.softplus(-odds) - chosen, where)


def _moved(
    chosen: Float[ArrayLike, "*batch"],
    rejected: Float[ArrayLike, "*batch"],
    reference_chosen: Float[ArrayLike, "*batch"],
    reference_rejected: Float[ArrayLike, "*batch"],
    where: Bool[ArrayLike, "*batch"] | None,
) -> Float[Array, "*batch"]:
    """h: how much more the policy moved towards the chosen than to the rejected."""
    for name, x in (
        ("rejected", rejected),
        ("reference_chosen", reference_chosen),
        ("reference_rejected", reference_rejected),
    ):
        of_shape(jnp.shape(chosen), **{name: x})
    pairs = (chosen, reference_chosen), (rejected, reference_rejected)
    up, down = (
        blank(at_least_f32(x), where) - blank(at_least_f32(y), where) for x, y in pairs
    )
    return up - down
