"""Derivatives of a solution by what it solves, not by how it was found.

If F(w, z) = 0 holds at w = w*(z), then F_w dw + F_z dz = 0: one linear solve is a
derivative, however many steps the solution took.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse.linalg import cg, gmres
from jaxtyping import Array, Float, Key, PyTree, ScalarLike

from .. import _tree as tree
from .._check import above, at_least, one_of

SOLVERS = ("cg", "gmres", "neumann", "nystrom", "exact")
RESTART = 20  # steps of a round of gmres


def implicit(
    solution: Callable[..., PyTree],
    optimality: Callable[..., PyTree],
    *,
    solve: str = "cg",
    damping: ScalarLike = 0.0,
    tol: float = 1e-6,
    steps: int | None = None,
    rate: ScalarLike | None = None,
    rank: int | None = None,
    key: Key[Array, ""] | None = None,
) -> Callable[..., PyTree]:
    """A solution as a function of its hyperparameters: implicit differentiation.

    dw = -(F_w + damping I)^-1 F_z dz        at F(w, z) = 0

    For inner problems that are solved to their end: the path there is not stored, nor
    does it matter. F is the inner loss's gradient, or w - step(w) for a fixed point.

    Args:
      solution: (*z) -> w, a pytree of floats; any solver that jit can trace.
      optimality: (w, *z) -> F, of w's structure; 0 at the solution.
      solve: how F_w is inverted. "cg": conjugate gradients, for a symmetric positive
        F_w (the Hessian of a convex problem); "gmres": any F_w; "neumann": `steps`
        terms of rate sum_k (I - rate F_w)^k, for eigenvalues in (0, 2 / rate);
        "nystrom": symmetric F_w, from `rank` random columns; "exact": a dense matrix.
      damping: >= 0, added to F_w's diagonal; what "nystrom" divides by, so > 0 there.
      tol: relative residual at which "cg" and "gmres" stop.
      steps: the most that "cg" and "gmres" take (default: theirs; beyond 20, "gmres"
        ends a round of 20), or the terms.
      rate: of "neumann", > 0.
      rank: of "nystrom", how many columns of F_w are looked at.
      key: of "nystrom", which.
    Returns:
      (*z) -> w, with solution's values.
    Gradient: both modes, and any order, in z and in all that optimality closes over;
      through `solution` none. Off by as much as F is off 0, times F_w^-1.
    Cost: a linear solve for a derivative, each of its steps a product with F_w (a
      Hessian-vector product); nothing of the path is stored.
    Raises: ValueError for an unknown solver, for what it needs and has not, and for
      trees that do not match.
    Source: Blondel et al., "Efficient and Modular Implicit Differentiation", 2021,
      arXiv:2105.15183; Lorraine et al., "Optimizing Millions of Hyperparameters
      by Implicit Differentiation", 2019, arXiv:1911.02590; Hataya, Yamada,
      "Nyström Method for Accurate and Scalable Implicit Differentiation", 2023,
      arXiv:2302.09726. Differs: damping for every solver.
    Example:
      >>> root = implicit(lambda z: z**0.5, lambda w, z: w**2 - z)
      >>> jax.grad(root)(9.0)  # 1 / (2 sqrt 9)
      Array(0.1667, dtype=float32, weak_type=True)
    """
    one_of("solve", solve, SOLVERS)
    at_least("damping", damping, 0)
    needs = {"neumann": {"steps": steps, "rate": rate}}
    needs["nystrom"] = {"rank": rank, "key": key}
    for name, value in needs.get(solve, {}).items():
        if value is None:
            raise ValueError(f"{name}: wanted one for solve={solve!r}, came None")
    for name, value in (("steps", steps), ("rank", rank)):
        at_least(name, value, 1)
    above("rate", rate, 0)
    if solve == "nystrom":
        above("damping", damping, 0)
    settings = {"tol": tol, "steps": steps, "rate": rate, "rank": rank, "key": key}
    inverse = partial(_SOLVE[solve], damping=damping, **settings)

    def solved(*z):
        shapes = jax.eval_shape(solution, *z)
        tree.check_floats("solution", shapes)
        residual = jax.eval_shape(optimality, shapes, *z)
        tree.check_alike("optimality", residual, shapes)
        guess = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return lax.custom_root(
            lambda w: tree.as_like(optimality(w, *z), w),
            guess,
            lambda _, __: _strong(solution(*z)),
            lambda product, b: _in_f32(inverse, product, b),
        )

    return solved


def _strong(w: PyTree) -> PyTree:
    """Without weak types, which the trees of derivatives do not have."""
    return jax.tree.map(lambda x: lax.convert_element_type(x, jnp.result_type(x)), w)


def _in_f32(inverse: Callable, product: Callable, b: PyTree) -> PyTree:
    """The solve in at least f32, whatever the dtypes are."""
    # A solve transposes in all of b or not at all, so that where a part alone is
    # differentiated, all of it is made to depend on that.
    zero = sum(jnp.sum(0 * x) for x in jax.tree.leaves(b))
    b = jax.tree.map(lambda x: x + jnp.asarray(zero, x.dtype), b)
    wide = inverse(lambda v: tree.promote(product(tree.as_like(v, b))), tree.promote(b))
    return tree.as_like(wide, b)


def _damped(product: Callable, damping: ScalarLike) -> Callable:
    return lambda v: tree.add_scaled(product(v), damping, v)


def _cg(product, b, *, damping, tol, steps, **_):
    def solve(product, b):  # the transpose needs its start to be made inside
        return cg(product, b, tol=tol, maxiter=steps)[0]

    return lax.custom_linear_solve(_damped(product, damping), b, solve, symmetric=True)


def _gmres(product, b, *, damping, tol, steps, **_):
    restart = min(steps or RESTART, RESTART)
    rounds = None if steps is None else -(-steps // restart)

    def solve(product, b):
        return gmres(product, b, tol=tol, restart=restart, maxiter=rounds)[0]

    matrix = _damped(product, damping)
    return lax.custom_linear_solve(matrix, b, solve, transpose_solve=solve)


def _neumann(product, b, *, damping, steps, rate, **_):
    def series(product, b):
        def term(carry, _):
            total, power = carry
            power = tree.add_scaled(power, -rate, product(power))
            return (tree.add_scaled(total, 1.0, power), power), None

        (total, _), _ = lax.scan(term, (b, b), length=steps - 1)
        return tree.map_floats(lambda x: rate * x, total)

    matrix = _damped(product, damping)
    return lax.custom_linear_solve(matrix, b, series, transpose_solve=series)


def _dense(product, like) -> tuple[Float[Array, "n n"], Callable]:
    flat, unravel = ravel_pytree(like)
    rows = jax.vmap(lambda v: ravel_pytree(product(unravel(v)))[0], out_axes=1)
    return rows(jnp.eye(flat.size, dtype=flat.dtype)), unravel


def _exact(product, b, *, damping, **_):
    matrix, unravel = _dense(_damped(product, damping), b)
    return unravel(jnp.linalg.solve(matrix, ravel_pytree(b)[0]))


def _nystrom(product, b, *, damping, rank, key, **_):
    def columns(product, b):
        flat, unravel = ravel_pytree(b)
        count = min(rank, flat.size)
        chosen = jax.random.choice(key, flat.size, (count,), replace=False)
        basis = jax.nn.one_hot(chosen, flat.size, dtype=flat.dtype)
        column = jax.vmap(lambda v: ravel_pytree(product(unravel(v)))[0])
        sample = column(basis).T  # [n, rank]
        # (C W^-1 C' + d I)^-1 b, for C the columns and W their rows `chosen`
        inner = damping * sample[chosen] + sample.T @ sample
        within = sample @ jnp.linalg.solve(inner, sample.T @ flat)
        return unravel((flat - within) / damping)

    return lax.custom_linear_solve(
        _damped(product, damping),
        b,
        lambda _, b: columns(product, b),
        symmetric=True,
    )


_SOLVE = {
    "cg": _cg,
    "gmres": _gmres,
    "neumann": _neumann,
    "nystrom": _nystrom,
    "exact": _exact,
}
