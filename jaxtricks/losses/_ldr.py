"""Label-distributionally robust losses: the worst label distribution within a KL price.

The temperature lam is the price: towards 0 the multi-class hinge (only the worst rival
counts), towards infinity the mean over rivals, which shrugs off label noise. `aldr_kl`
sets it for each training example from how peaked the model's prediction is.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Integer, ScalarLike

from .._batch import AxisName, replicate, share, whole
from .._check import above, at_least, one_of
from .._mask import at_label, at_least_f32, blank, one_hot
from .._pairs import Loss
from .._safe import divide, log_mean_exp, log_softplus
from ._memory import slots_of

NORMALIZE = ("none", "l1", "softplus")


def ldr_kl(
    logits: Float[ArrayLike, "*batch classes"],
    labels: Integer[ArrayLike, "*batch"],
    *,
    lam: ScalarLike = 1.0,
    margin: ScalarLike = 2.0,
    normalize: str = "softplus",
    where: Bool[ArrayLike, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """Temperature-scaled cross entropy with a margin; a large lam resists label noise.

    loss = lam log mean_k exp(delta_k / lam),  delta_k = f_k - f_y + margin [k != y]

    f is logits on a common scale: "softplus" divides softplus(logits) by its mean over
    classes, "l1" divides logits by the mean of |logits|, "none" takes them as they are.
    With "none", margin 0 and lam 1 it is cross entropy minus log(classes).

    Args:
      logits: float[*batch, classes]; -inf rules a class out of every mean.
      labels: int[*batch] in [0, classes); out of range gives NaN.
      lam: > 0, temperature. May be traced.
      margin: added to every rival's logit. May be traced.
      normalize: "softplus", "l1" or "none".
      where: bool[*batch], True counts.
    Returns:
      f32[*batch]: max delta for lam -> 0, mean delta for lam -> inf; 0 where masked.
    Gradient: smooth in logits (for "l1" away from logits 0), lam and margin; nothing is
      stopped. "l1" at all-zero logits has gradient 0.
    Cost: one softmax, two with "softplus".
    Raises: ValueError for a shape that does not fit, lam <= 0 or an unknown normalize.
    Source: Zhu et al., "Label Distributionally Robust Losses for Multi-class
      Classification: Consistency, Robustness and Adaptivity", 2021, arXiv:2112.14869.
      Differs: the normalization is the official code's.
    Example:
      >>> ldr_kl(jnp.zeros((1, 4)), jnp.array([0]), margin=0.0)
      Array([0.], dtype=float32)
      >>> ldr_kl(jnp.array([0.0, 3.0]), 0, lam=1e-3, margin=1.0, normalize="none")
      Array(3.9993, dtype=float32)
    """
    above("lam", lam, 0)
    one_of("normalize", normalize, NORMALIZE)
    f, live = _normalized(blank(at_least_f32(logits), where), normalize)
    lam = jnp.broadcast_to(jnp.asarray(lam, f.dtype), f.shape[:-1])
    loss = worst_case(f, live, blank(labels, where), lam, margin)
    return blank(loss, where)


class AldrKlState(NamedTuple):
    """The temperature of every training example."""

    lam: Float[Array, " examples"]  # f32[examples]


def aldr_kl(
    *,
    lam: ScalarLike = 1.0,
    alpha: ScalarLike = 1.0,
    margin: ScalarLike = 1.0,
    normalize: str = "l1",
) -> Loss:
    """LDR-KL whose temperature is learnt for each training example; for noisy labels.

    lam_i' = lam (1 - KL / (alpha log classes)),  KL = KL(softmax(f / lam_i), uniform)
    loss = lam_i' log mean_k exp(delta_k / lam_i') - lam KL^2 / (2 alpha log classes)

    with delta and f as in `ldr_kl`. The last term is the price of moving lam_i off lam.

    init(examples) gives every one of `examples` training examples the temperature lam.
    update(logits, labels, state, *, index, where=None, axis_name=None) gives the losses
    and the state with lam_i' in the place of the batch's lam_i.

    Args:
      lam: > 0, the temperature to start from and return to. May be traced.
      alpha: >= 1, inertia; infinite keeps every temperature at lam. May be traced.
      margin: added to every rival's logit. May be traced.
      normalize: "softplus", "l1" or "none", as in `ldr_kl`.
    Returns:
      Loss(init, update); update's losses are f32[*batch], 0 where masked. index:
      int[*batch] in [0, examples), each example's place; out of range gives NaN and
      changes nothing, as a masked example does. An example that is twice in a batch
      keeps its larger lam_i'. axis_name: the axis of shard_map or pmap that the batch
      is split over; the state is replicated.
    Gradient: lam_i' is constant in the logits, smooth in lam and alpha; the rest as in
      `ldr_kl`.
    Cost: one softmax more than `ldr_kl`; 4 bytes an example; the batch's indices and
      temperatures go to every device.
    Raises: ValueError for a shape that does not fit, lam <= 0, alpha < 1, an unknown
      normalize or a missing index.
    Source: Zhu et al., "Label Distributionally Robust Losses for Multi-class
      Classification: Consistency, Robustness and Adaptivity", 2021, arXiv:2112.14869.
      Differs: p is moved by 1e-5 off 0 and f normalized as in the official code.
    Example:
      >>> init, update = aldr_kl(alpha=2.0)
      >>> losses, state = update(jnp.array([0.0, 3.0]), 0, init(3), index=2)
      >>> float(losses), float(state.lam[1]), float(state.lam[2])
      (2.4469, 1.0, 0.7635)
    """
    above("lam", lam, 0)
    at_least("alpha", alpha, 1)
    one_of("normalize", normalize, NORMALIZE)

    def init(examples: int) -> AldrKlState:
        return AldrKlState(jnp.full((examples,), at_least_f32(lam)))

    def update(
        logits: Float[ArrayLike, "*batch classes"],
        labels: Integer[ArrayLike, "*batch"],
        state: AldrKlState,
        *,
        index: Integer[ArrayLike, "*batch"] | None = None,
        where: Bool[ArrayLike, "*batch"] | None = None,
        axis_name: AxisName | None = None,
    ) -> tuple[Float[Array, "*batch"], AldrKlState]:
        f, live = _normalized(blank(at_least_f32(logits), where), normalize)
        examples = state.lam.shape[0]
        slot = slots_of(index, f.shape[:-1], examples, where)
        slots = replicate(slot, axis_name)
        memory = whole(state.lam)
        before = memory.at[slots].get(mode="fill", fill_value=jnp.nan)
        before = blank(share(before.astype(f.dtype), slot, axis_name), where, 1)

        kl, log_k = _kl_to_uniform(lax.stop_gradient(f), live, before)
        now = jnp.asarray(lam * (1 - divide(kl, alpha * log_k)))
        losses = worst_case(f, live, blank(labels, where), now, margin)
        losses -= lam * divide(jnp.square(kl), 2 * alpha * log_k)

        after = replicate(now.astype(memory.dtype), axis_name)
        memory = _remember(memory, slots, after)
        return blank(losses, where), AldrKlState(share(memory, state.lam))

    return Loss(init, update)


def _normalized(
    logits: Float[Array, "*batch classes"], how: str
) -> tuple[Float[Array, "*batch classes"], Bool[Array, "*batch classes"]]:
    """(f, live): the logits on a common scale, 0 where ruled out, and what is not."""
    live = logits != -jnp.inf
    f = blank(logits, live)
    count = jnp.sum(live, axis=-1, keepdims=True).astype(f.dtype)
    if how == "l1":
        f = divide(f * count, jnp.sum(jnp.abs(f), axis=-1, keepdims=True))
    if how == "softplus":  # in logs, where no underflow can make it 0 / 0
        log_f = jnp.where(live, log_softplus(f), jnp.finfo(f.dtype).min)
        f = count * jax.nn.softmax(log_f)
    return f, live


def worst_case(
    f: Float[Array, "*batch classes"],
    live: Bool[Array, "*batch classes"],
    labels: Integer[ArrayLike, "*batch"],
    lam: Float[Array, "*batch"],
    margin: ScalarLike,
) -> Float[Array, "*batch"]:
    """lam log mean exp(delta / lam) over live classes; inf for a label ruled out."""
    rival = ~one_hot(labels, f.shape)
    delta = f - at_label(f, labels)[..., None] + margin * rival.astype(f.dtype)
    # The label's own delta is 0, so 0 may stand in for a class that does not count.
    top = lax.stop_gradient(jnp.max(jnp.where(live, delta, 0), axis=-1))
    log_mean = log_mean_exp((delta - top[..., None]) / lam[..., None], live)
    ruled_out = jnp.any(~live & ~rival, axis=-1)
    return jnp.where(ruled_out, jnp.inf, top + lam * log_mean)


def _kl_to_uniform(
    f: Float[Array, "*batch classes"],
    live: Bool[Array, "*batch classes"],
    lam: Float[Array, "*batch"],
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """(KL of softmax(f / lam), moved off 0, from uniform; log classes), both live."""
    count = jnp.maximum(jnp.sum(live, axis=-1, keepdims=True), 1).astype(f.dtype)
    p = jax.nn.softmax(jnp.where(live, f / lam[..., None], -jnp.inf))
    p = blank(p + 1e-5, live)
    p = p / (1 + 1e-5 * count)
    # Not xlogy, whose second derivative is NaN at the 0 of a class ruled out.
    kl = jnp.sum(p * jnp.log(jnp.where(live, p * count, 1)), axis=-1)
    return kl, jnp.log(jnp.squeeze(count, axis=-1))


def _remember(
    memory: Float[Array, " examples"],
    slots: Integer[Array, "*whole"],
    values: Float[Array, "*whole"],
) -> Float[Array, " examples"]:
    """`memory` with the finite `values` in their slots, the larger where two meet."""
    nowhere = memory.shape[0]
    slots = jnp.where(jnp.isfinite(values), slots, nowhere)
    # The maximum picks, a plain scatter writes: only that one has derivatives.
    rivals = lax.stop_gradient(values)
    top = lax.stop_gradient(memory).at[slots].set(-jnp.inf, mode="drop")
    top = top.at[slots].max(rivals, mode="drop").at[slots].get(mode="clip")
    return memory.at[jnp.where(rivals == top, slots, nowhere)].set(values, mode="drop")
