"""Gradients by random perturbations: for runs that backpropagation cannot or may not.

They are gradients of the objective smoothed by Gaussian noise, which is what one wants
where training is chaotic in its hyperparameters.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Key, PyTree, ScalarLike

from .. import _tree as tree
from .._check import above, at_least, of_shape


class PesState(NamedTuple):
    """State of `pes`."""

    inner: PyTree  # [2, pairs, ...]: each pair's two runs
    drift: PyTree  # [pairs, *leaf], f32 or wider: the perturbations so far, summed


class Pes(NamedTuple):
    """What `pes` gives."""

    init: Callable[[PyTree, PyTree], PesState]
    update: Callable[..., tuple[Float[Array, ""], PyTree, PesState]]


def es(
    fun: Callable[[PyTree], Float[Array, ""]],
    x: PyTree,
    *,
    key: Key[Array, ""],
    pairs: int,
    sigma: ScalarLike = 0.01,
    batch_size: int | None = None,
) -> tuple[Float[Array, ""], PyTree]:
    """The gradient of a smoothed objective, from antithetic pairs of evaluations.

    g = mean_i e_i (f(x + sigma e_i) - f(x - sigma e_i)) / (2 sigma),   e_i ~ N(0, I)

    Its mean is the gradient of E f(x + sigma e); a pair has the variance of a random
    direction, about (dimension + 1) |g|^2.

    Args:
      fun: x -> f[], traceable; it needs no derivative.
      x: pytree; leaves that are no floats are left alone.
      key: what the perturbations are drawn from.
      pairs: how many, >= 1.
      sigma: > 0, the smoothing; 0.01 as in learned_optimization.
      batch_size: how many pairs run at once; all by default.
    Returns:
      (f32[], gradients): the mean of all evaluations, and a pytree like x, whose leaves
      that are no floats come back as they are.
    Gradient: of the estimate itself; fun's at the points looked at.
    Cost: 2 pairs calls; the memory of 2 batch_size.
    Raises: ValueError for pairs < 1, sigma <= 0, or a fun that gives no scalar.
    Source: Salimans et al., "Evolution Strategies as a Scalable Alternative to
      Reinforcement Learning", 2017, arXiv:1703.03864, alg. 1. Differs:
      antithetic pairs, no ranks of the returns.
    Example:
      >>> key = jax.random.key(0)
      >>> es(lambda x: 3 * x, 1.0, key=key, pairs=4000)[1]  # 3 mean e^2
      Array(2.9538, dtype=float32)
    """
    at_least("pairs", pairs, 1)
    above("sigma", sigma, 0)

    def one(key):
        noise = _noise(key, x)
        down = fun(_moved(x, sigma, [-e for e in noise]))
        up = fun(_moved(x, sigma, noise))
        tree.check_scalar("fun", up)
        slope = (up - down) / (2 * sigma)
        return (up + down) / 2, _times(slope, noise)

    keys = jax.random.split(key, pairs)
    found = lax.map(one, keys, batch_size=batch_size or pairs)
    value, grads = jax.tree.map(lambda g: jnp.mean(g, axis=0), found)
    return value, _like(grads, x)


def pes(
    run: Callable[..., tuple[PyTree, Float[Array, ""]]],
    *,
    pairs: int,
    sigma: ScalarLike = 0.01,
    persistent: bool = True,
) -> Pes:
    """Unbiased gradients from windows of long runs: persistent evolution strategies.

    d_i <- d_i + sigma e_i                  summed over the windows of run i so far
    g = mean_i d_i (L_i+ - L_i-) / (2 sigma^2),   L_i+- at x +- sigma e_i

    A window's loss depends on every perturbation since its run began; weighing it by
    their sum takes away the short-horizon bias of truncation. To learn what acts over a
    whole training (optimizers, schedules) with an update after every window.

    Args:
      run: (inner, x, data) -> (inner, loss f[]), a window of one run: the inner
        state holds its parameters, optimizer, keys. A pair is given the same.
      pairs: how many runs are held at once, each twice.
      sigma: > 0, of the perturbations; 0.01 as in learned_optimization.
      persistent: False forgets at every window: truncated ES, biased, less variance.
    Returns:
      Pes(init, update). init(x, inner) takes the inner states stacked, leaves
      [pairs, ...]. update(x, state, data=None, *, key, restart=None) gives (the mean
      loss f32[], gradients like x, state); restart=(ended bool[pairs], inner) begins
      the runs told of anew, before the window.
    Gradient: of the estimate itself, if that is wanted.
    Cost: 2 pairs windows an update; the states of 2 pairs runs, and pairs times x.
    Raises: ValueError for pairs < 1, sigma <= 0, inner states not so stacked, a restart
      that does not tell of every pair, or a loss that is no scalar.
    Source: Vicol et al., "Unbiased Gradient Estimation in Unrolled Computation Graphs
      with Persistent Evolution Strategies", 2021, arXiv:2112.13835. Differs:
      runs end between windows.
    Example:
      >>> def run(w, x, data):  # w <- w + x, and its distance from 3
      ...     return w + x, (w + x - 3.0) ** 2
      >>> tuner, x = pes(run, pairs=1000), jnp.array(0.5)
      >>> state = tuner.init(x, jnp.zeros(1000))
      >>> _, grads, state = tuner.update(x, state, key=jax.random.key(0))
      >>> print(grads)  # about 2 (x - 3)
      -4.3930
    """
    at_least("pairs", pairs, 1)
    above("sigma", sigma, 0)

    def init(x, inner):
        for path, leaf in tree.paths(inner).items():
            if jnp.shape(leaf)[:1] != (pairs,):
                raise ValueError(
                    f"inner: wanted leaves [{pairs}, ...], one a pair, came "
                    f"{jnp.shape(leaf)} at {path}"
                )
        inner = jax.tree.map(lambda s: jnp.stack([s, s]), inner)
        return PesState(inner, _still(x))

    def _still(x):
        return [jnp.zeros((pairs, *leaf.shape), leaf.dtype) for leaf in _floats(x)]

    def update(x, state, data=None, *, key, restart=None):
        inner, drift = state
        if restart is not None:
            of_shape((pairs,), restart=restart[0])
            inner, drift = _begin(inner, drift, *restart)

        def one(key, inner, drift):
            noise = [sigma * e for e in _noise(key, x)]
            drift = jax.tree.map(jnp.add, drift, noise)

            def side(sign, inner):
                inner, loss = run(inner, _moved(x, sign, noise), data)
                tree.check_scalar("run: its loss", loss)
                return inner, loss

            inner, losses = jax.vmap(side)(jnp.array([1.0, -1.0]), inner)
            slope = (losses[0] - losses[1]) / (2 * sigma**2)
            return jnp.mean(losses), _times(slope, drift), inner, drift

        keys = jax.random.split(key, pairs)
        mapped = jax.vmap(one, in_axes=(0, 1, 0), out_axes=(0, 0, 1, 0))
        value, grads, inner, drift = mapped(keys, inner, drift)
        value, grads = jax.tree.map(lambda g: jnp.mean(g, axis=0), (value, grads))
        if not persistent:
            drift = _still(x)
        return value, _like(grads, x), PesState(inner, drift)

    return Pes(init, update)


def _begin(
    inner: PyTree, drift: PyTree, ended: Bool[Array, " pairs"], fresh: PyTree
) -> tuple[PyTree, PyTree]:
    """With the runs that ended at their fresh states, and their drift 0."""

    def choose(old, new, axis):
        shape = [1] * old.ndim
        shape[axis] = -1
        return jnp.where(ended.reshape(shape), new, old)

    inner = jax.tree.map(
        lambda old, new: choose(old, jnp.broadcast_to(new[None], old.shape), 1),
        inner,
        fresh,
    )
    return inner, jax.tree.map(lambda d: choose(d, jnp.zeros_like(d), 0), drift)


def _floats(x: PyTree) -> list:
    return [leaf for leaf in jax.tree.leaves(tree.promote(x)) if tree.is_float(leaf)]


def _noise(key: Key[Array, ""], x: PyTree) -> list:
    """Normals for the float leaves, in at least f32."""
    floats = _floats(x)
    keys = jax.random.split(key, max(len(floats), 1))
    return [
        jax.random.normal(k, jnp.shape(leaf), jnp.result_type(leaf))
        for k, leaf in zip(keys, floats, strict=False)
    ]


def _moved(x: PyTree, scale: ScalarLike, noise: list) -> PyTree:
    """x + scale noise, added in at least f32."""
    return _like([a + scale * e for a, e in zip(_floats(x), noise, strict=True)], x)


def _times(slope: Float[Array, ""], noise: list) -> list:
    return [slope * e for e in noise]


def _like(floats: list, x: PyTree) -> PyTree:
    """A list for the float leaves as a tree like x."""
    left = iter(floats)

    def leaf(old):
        return next(left).astype(jnp.result_type(old)) if tree.is_float(old) else old

    return jax.tree.map(leaf, x)
