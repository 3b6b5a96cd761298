"""DataRater: a network that rates data, taught by how well rated data trains others."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.scipy.special import betainc
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Key, PyTree

from .. import _safe as safe
from .._batch import AxisName, share, whole
from .._check import at_least, of_shape
from .._mask import at_least_f32, blank
from ._scan import scan


class DataRaterState(NamedTuple):
    """Of a population of P inner models."""

    params: PyTree  # [P, ...]
    opt_state: Any  # [P, ...], of the inner optimizer
    meta_state: Any  # [P, ...], of the outer one, a state for each inner model
    age: Array  # i32[P], windows since each began


class DataRater(NamedTuple):
    """init(eta, key=) -> state; update(eta, state, batches, held_out, key=) -> (eta,
    state, f32[P], the outer losses).
    """

    init: Callable
    update: Callable


def datarater_weights(
    scores: Float[ArrayLike, "*batch"],
    *,
    where: Bool[ArrayLike, "*batch"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch"]:
    """What each example of a batch counts, from a rater's scores. Batch-coupled.

    w = softmax(score)

    Args:
      scores: float[*batch]; -inf leaves an example out.
      where: bool[*batch], True counts.
      axis_name: the axis or axes of shard_map or pmap that the batch is split over.
    Returns:
      f32[*batch] in [0, 1], summing to 1 over the live whole batch, so that the loss is
      sum(w l); 0 where masked, or where nothing has a finite score.
    Gradient: smooth in scores, and summing to 0: a constant added to all changes
      nothing. (`weighting.tilted` is this for losses, which it stops.)
    Cost: a gather of the scores with `axis_name`.
    Raises: ValueError for a `where` of another shape.
    Source: Calian et al., "DataRater: Meta-Learned Dataset Curation", 2025,
      arXiv:2505.17895. Differs: none.
    Example:
      >>> print(datarater_weights(jnp.log(jnp.array([1.0, 2.0, 5.0]))))
      [0.125 0.25  0.625]
    """
    scores = at_least_f32(scores)
    if where is not None:
        of_shape(scores.shape, where=where)
    everyone = whole(blank(scores, where), axis_name)
    lives = True if where is None else whole(where, axis_name)
    top = jnp.max(jnp.where(lives, everyone, -jnp.inf), initial=-jnp.inf)
    top = lax.stop_gradient(jnp.where(jnp.isneginf(top), 0, top))
    below = jnp.where(lives, everyone - top, 0)
    parts = jnp.where(lives, jnp.exp(below), 0)
    return share(safe.divide(parts, jnp.sum(parts)), scores, axis_name)


def datarater(
    scores: Callable[[PyTree, PyTree], Float[Array, " examples"]],
    losses: Callable[[PyTree, PyTree], Float[Array, " examples"]],
    *,
    fresh: Callable[[Array], PyTree],
    optimizer: optax.GradientTransformation,
    meta_optimizer: optax.GradientTransformation,
    objective: Callable[[PyTree, PyTree], Float[Array, ""]] | None = None,
    population: int = 8,
    lifetime: int = 1000,
    policy: str = "step",
) -> DataRater:
    """Learns to rate data by the meta-gradient through a few steps on what it rates.

    theta' = Opt(theta, sum_i softmax(scores_eta)_i dl_i/dtheta)    a window of T steps
    eta <- eta + mean over models of Adam(dL(theta_T, held out) / deta)

    Args:
      scores: (eta, batch) -> f[examples].
      losses: (params, batch) -> f[examples].
      fresh: key -> params of a new inner model.
      optimizer: the inner models'; `optimizers.differentiable` makes any of them safe
        to differentiate.
      meta_optimizer: eta's, a state for every inner model; Adam in the source.
      objective: (params, held_out) -> L, f[]; default the mean of losses.
      population: P inner models, 8 in the source.
      lifetime: windows after which an inner model begins anew. Their ages are spread at
        the start. The default is ours.
      policy: what the gradient of a window stores, as for `scan`.
    Returns:
      DataRater(init, update). update takes batches [P, T, examples, ...] (2 steps in
      the source) and held_out [P, ...], other data for every model.
    Gradient: update runs under jit, vmap and scan; eta's gradient is exact through the
      window and its optimizer, and stops where the window begins.
    Cost: P windows' gradients, one after another in time or side by side by vmap.
    Raises: ValueError for population < 1 or lifetime < 1.
    Source: Calian et al., "DataRater: Meta-Learned Dataset Curation", 2025,
      arXiv:2505.17895. Differs: ages are counted in windows; a model that begins anew
      keeps its state of meta_optimizer, of which the source's text was not at hand.
    Example:
      >>> rater = datarater(
      ...     lambda eta, x: eta * x, lambda w, x: (w - x) ** 2 / 2, population=2,
      ...     fresh=lambda key: 0.0, optimizer=optax.sgd(0.5),
      ...     meta_optimizer=optax.sgd(1.0))
      >>> key = jax.random.key(0)
      >>> x = jnp.tile(jnp.array([-1.0, 1.0]), (2, 2, 1))  # held out: large is good
      >>> eta, state, loss = rater.update(0.0, rater.init(0.0, key=key), x,
      ...                                 jnp.ones((2, 1)), key=key)
      >>> print(eta, *loss)
      0.75 0.5 0.5
    """
    at_least("population", population, 1)
    at_least("lifetime", lifetime, 1)
    measure = objective or (lambda params, batch: jnp.mean(losses(params, batch)))

    def born(key):
        params = jax.vmap(fresh)(jax.random.split(key, population))
        params = jax.tree.map(jnp.asarray, params)
        return params, jax.vmap(optimizer.init)(params)

    def init(eta: PyTree, *, key: Key[Array, ""]) -> DataRaterState:
        params, opt_state = born(key)
        every = jnp.arange(population, dtype=jnp.int32)
        meta = jax.vmap(lambda _: meta_optimizer.init(eta))(every)
        ages = (every * lifetime) // population
        return DataRaterState(params, opt_state, meta, ages)

    def window(eta, params, opt_state, batches, held_out):
        def step(carry, batch):
            params, opt_state = carry

            def loss(params):
                weights = datarater_weights(scores(eta, batch))
                return jnp.sum(weights * losses(params, batch))

            updates, opt_state = optimizer.update(
                jax.grad(loss)(params), opt_state, params
            )
            return (optax.apply_updates(params, updates), opt_state), None

        carry, _ = scan(step, (params, opt_state), batches, policy=policy)
        return measure(carry[0], held_out), carry

    def update(
        eta: PyTree,
        state: DataRaterState,
        batches: PyTree,
        held_out: PyTree,
        *,
        key: Key[Array, ""],
    ) -> tuple[PyTree, DataRaterState, Float[Array, " population"]]:
        eta = jax.tree.map(jnp.asarray, eta)

        def of_one(params, opt_state, meta, batches, held_out):
            by_eta = jax.value_and_grad(window, has_aux=True)
            (loss, carry), grads = by_eta(eta, params, opt_state, batches, held_out)
            updates, meta = meta_optimizer.update(grads, meta, eta)
            return loss, carry, updates, meta

        loss, carry, updates, meta = jax.vmap(of_one)(
            state.params, state.opt_state, state.meta_state, batches, held_out
        )
        mean = jax.tree.map(lambda u: jnp.mean(u, axis=0), updates)
        age = state.age + 1
        old = age >= lifetime

        def renewed(now, new):
            at = old.reshape(old.shape + (1,) * (jnp.ndim(now) - 1))
            return jnp.where(at, new, now)

        params, opt_state = jax.tree.map(renewed, carry, born(key))
        state = DataRaterState(params, opt_state, meta, jnp.where(old, 0, age))
        return optax.apply_updates(eta, mean), state, at_least_f32(loss)

    return DataRater(init, update)


def topk_batch_filter(
    scores: Float[ArrayLike, " batch"],
    *,
    keep: int,
    where: Bool[ArrayLike, " batch"] | None = None,
) -> Bool[Array, " batch"]:
    """Which examples of a batch to train on: the `keep` best rated. Batch-coupled.

    Args:
      scores: float[batch]; NaN is never kept.
      keep: N >= 0. To discard a part rho of the data, draw N / (1 - rho) for N.
      where: bool[batch], True counts.
    Returns:
      bool[batch] with keep times True, fewer where fewer live; of equal scores the
      first.
    Gradient: none.
    Cost: a sort.
    Raises: ValueError for a keep < 0 or above the batch, or shapes that do not fit.
    Source: Calian et al., "DataRater: Meta-Learned Dataset Curation", 2025,
      arXiv:2505.17895. Differs: which of equal scores stays is our choice.
    Example:
      >>> print(topk_batch_filter(jnp.array([0.1, 3.0, 2.0, -1.0]), keep=2))
      [False  True  True False]
    """
    scores = at_least_f32(scores)
    at_least("keep", keep, 0)
    if scores.ndim != 1:
        raise ValueError(f"scores: wanted f[batch], came shape {scores.shape}")
    if where is not None:
        of_shape(scores.shape, where=where)
    if keep > scores.shape[0]:
        said = f"wanted at most the {scores.shape[0]} of the batch, came {keep}"
        raise ValueError(f"keep: {said}")
    everyone = whole(blank(scores, where))
    live = ~jnp.isnan(everyone)
    if where is not None:
        live = live & whole(where)
    # What does not live comes last, after a score of -inf too.
    order = jnp.lexsort((jnp.where(live, -everyone, 0), ~live))
    first = jnp.zeros(scores.shape, bool).at[order[:keep]].set(True)
    return share(first & live, scores)


def topk_keep_probability(
    quantile: Float[ArrayLike, "*batch"], *, keep: int, batch: int
) -> Float[Array, "*batch"]:
    """How likely the filter keeps an example by itself, to filter data one at a time.

    P(keep) = sum_{s < K} C(B - 1, s) (1 - p)^s p^(B - 1 - s) = I_p(B - K, K)

    Args:
      quantile: float[*batch], p in [0, 1], the part of all data that is rated lower.
      keep: K >= 1.
      batch: B >= K, how many the K are chosen from.
    Returns:
      f32[*batch] in [0, 1], rising with p from 0 to 1 and K / B on average; 1 where all
      are kept.
    Gradient: smooth in quantile; 0 at 0 and 1.
    Cost: an incomplete beta function.
    Raises: ValueError unless 1 <= keep <= batch.
    Source: Calian et al., "DataRater: Meta-Learned Dataset Curation", 2025,
      arXiv:2505.17895. Differs: the sum is written as the beta function that it is.
    Example:
      >>> p = jnp.array([0.25, 0.5, 0.75])
      >>> print(*topk_keep_probability(p, keep=1, batch=3))  # p^2
      0.0625 0.25 0.5625
    """
    at_least("keep", keep, 1)
    if batch < keep:
        raise ValueError(f"batch: wanted at least keep, {keep}, came {batch}")
    p = at_least_f32(quantile)
    if keep == batch:
        return jnp.where(jnp.isnan(p), p, 1)
    p = whole(p)  # betainc refuses what lies on an Explicit mesh in parts
    inside = (p > 0) & (p < 1)
    a, b = (jnp.full_like(p, n) for n in (batch - keep, keep))
    edge = jnp.where(jnp.isnan(p), p, (p >= 1).astype(p.dtype))
    kept = jnp.where(inside, betainc(a, b, jnp.where(inside, p, 0.5)), edge)
    return share(kept, quantile)
