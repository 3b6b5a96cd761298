"""Whether a meta-gradient can be trusted: it is compared with what really happens."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .. import _tree as tree
from .._check import above, at_least
from ._advice import advice
from ._in_f32 import equations, in_f32, is_low
from ._smoothness import agreement


class Check(NamedTuple):
    """What `check` found; `print` shows it."""

    value: float
    norm: float  # of the gradient
    slopes: np.ndarray  # [directions], <gradient, v>
    differences: np.ndarray  # [directions, steps], (f(x + h v) - f(x - h v)) / 2h
    errors: np.ndarray  # [directions, steps], their distance over the larger of the two
    steps: tuple[float, ...]
    smoothness: np.ndarray  # [steps], mean metasmoothness over the directions
    curvature: np.ndarray  # [steps], mean |f(x + h v) - 2 f(x) + f(x - h v)| / h^2
    cosine: float | None  # in low precision, with the same gradient in f32
    advice: tuple[str, ...]  # what to change; empty where all is well

    @property
    def error(self) -> float:
        """The median over the directions, at the step that agrees best."""
        return float(np.min(np.median(self.errors, axis=0)))

    def __str__(self) -> str:
        n = len(self.slopes)
        lines = [
            f"value {self.value:.4g}, gradient of norm {self.norm:.4g}, {n} directions",
            "  step   error (median)   (largest)   metasmoothness   curvature",
        ]
        for i, h in enumerate(self.steps):
            error = self.errors[:, i]
            lines.append(
                f"{h:6g}   {np.median(error):14.2e}   {np.max(error):9.2e}"
                f"   {self.smoothness[i]:14.3f}   {self.curvature[i]:9.2e}"
            )
        if self.cosine is not None:
            lines.append(f"cosine with the gradient in f32: {self.cosine:.4f}")
        return "\n".join([*lines, *(self.advice or ("nothing to change",))])


def check(
    fun: Callable[[Any], Any],
    x: PyTree,
    *,
    key: Array | np.ndarray,
    grad: PyTree | None = None,
    directions: int = 8,
    steps: tuple[float, ...] = (1e-2, 1e-3),
    segment: Callable[[Any], Any] | None = None,
    jit: bool = True,
) -> Check:
    """Tells whether a meta-gradient can be trusted, and what to change if not.

    error = |<grad, v> - d| / max(|<grad, v>|, |d|),  d = (f(x + h v) - f(x - h v)) / 2h

    Args:
      fun: x -> float[], training and its objective; or -> (float[], trained), with what
        training gave (parameters), of which metasmoothness is taken. Otherwise it is
        the objective's.
      x: pytree of floats.
      key: typed key of the directions: random signs, times a leaf's root mean square
        (1 where that is 0).
      grad: the gradient to be checked, like x; default `jax.grad` of fun.
      directions: at least 8 of them.
      steps: h > 0, two or more: what agrees at the larger alone is lost in rounding,
        what agrees at the smaller alone bends.
      segment: x -> float[], a short piece of the run, whose gradients in its own
        precision and in f32 are compared if fun computes in less; default fun.
      jit: compile fun. Without, it may be a loop on the host, `replay` say, and `grad`
        is to be given.
    Returns:
      Check, with every number, `error`, `cosine` and `advice`, what to change. It asks
      for a finite gradient, error below 0.05, metasmoothness (here of the
      points x - h v, x, x + h v) above 0.9, cosine above 0.99.
    Gradient: none, it runs on the host.
    Cost: 2 * directions * len(steps) trainings and one gradient; two more gradients of
      `segment` in low precision.
    Raises: ValueError for fewer than 8 directions or two steps, for jit=False without
      grad, for a grad that is not like x, for an x that is not of floats or a fun that
      gives no scalar.
    Source: Engstrom et al., "Optimizing ML Training with Metagradient Descent", 2025,
      arXiv:2503.13751, Definitions 1 and 2. Differs: metasmoothness is averaged over
      directions, and comes from the points of central differences; the other checks
      are not of the paper.
    Example:
      >>> def train(rate):  # 50 steps of gradient descent on w^2 / 2
      ...     w = jax.lax.fori_loop(0, 50, lambda _, w: w - rate * w, 1.0)
      ...     return w**2, w
      >>> found = check(train, 0.03, key=jax.random.key(0))
      >>> found.error < 0.01, found.advice
      (True, ())
    """
    at_least("directions", directions, 8)
    if len(steps) < 2:
        raise ValueError(f"steps: wanted two or more, came {steps}")
    for h in steps:
        above("steps", h, 0)
    if grad is None and not jit:
        raise ValueError("grad: wanted one, as a fun without jit is not differentiated")
    tree.check_floats("x", x)
    x = jax.tree.map(jnp.asarray, x)
    pair = _paired(fun)
    run = jax.jit(pair) if jit else pair
    value, trained = run(x)
    tree.check_scalar("fun", value)
    if grad is None:
        grad = jax.jit(jax.grad(lambda x: pair(x)[0]))(x)
    tree.check_alike("grad", grad, x)
    slopes, differences, smooth, bends = [], [], [], []
    for sub in jax.random.split(key, directions):
        v = _direction(sub, x)
        slopes.append(tree.dot(grad, v))
        rows = []
        for h in steps:
            (up, after), (down, before) = (
                run(tree.add_scaled(x, s, v)) for s in (h, -h)
            )
            bend = jnp.abs(up - 2 * value + down) / h**2
            smoothness = agreement(before, trained, after)
            rows.append([(up - down) / (2 * h), smoothness, bend])
        rows = np.array(jax.device_get(rows), np.float64)
        differences.append(rows[:, 0])
        smooth.append(rows[:, 1])
        bends.append(rows[:, 2])
    slopes = np.array(jax.device_get(slopes), np.float64)
    differences = np.array(differences)
    larger = np.maximum(np.abs(slopes)[:, None], np.abs(differences))
    off = np.abs(slopes[:, None] - differences)
    errors = np.divide(off, larger, out=np.zeros_like(off), where=larger != 0)
    found = Check(
        float(value),
        float(tree.norm(grad)),
        slopes,
        differences,
        errors,
        tuple(steps),
        np.mean(smooth, axis=0),
        np.mean(bends, axis=0),
        None,
        (),
    )
    program = jax.make_jaxpr(pair)(x) if jit else None
    if program is not None and _computes_low(program):
        found = found._replace(cosine=_cosine(_paired(segment or fun), x))
    return found._replace(advice=advice(found, program))


def _paired(fun: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, Any]]:
    """x -> (value, what is trained)."""

    def both(x):
        found = fun(x)
        return found if isinstance(found, tuple) and len(found) == 2 else (found, found)

    return both


def _direction(key: Array, x: PyTree) -> PyTree:
    leaves, structure = jax.tree.flatten(x)
    keys = jax.random.split(key, max(len(leaves), 1))

    def leaf(key, x):
        size = jnp.sqrt(jnp.mean(jnp.square(x)))
        return jnp.where(size > 0, size, 1) * jax.random.rademacher(
            key, x.shape, x.dtype
        )

    return jax.tree.unflatten(structure, [*map(leaf, keys, leaves)])


def _computes_low(program: Any) -> bool:
    return any(
        hasattr(v.aval, "dtype") and is_low(v.aval.dtype)
        for eqn in equations(program.jaxpr)
        for v in eqn.outvars
    )


def _cosine(pair: Callable, x: PyTree) -> float:
    """Of the gradient as it is and in f32."""
    own = jax.jit(jax.grad(lambda x: pair(x)[0]))(x)
    exact = jax.jit(jax.grad(in_f32(lambda x: pair(x)[0])))(tree.promote(x))
    norms = tree.norm(own) * tree.norm(exact)
    return float(tree.dot(own, exact) / jnp.where(norms > 0, norms, 1))
