"""metagrad.implicit: derivatives of a solution by what it solves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks.metagrad import implicit, scan
from tests.free.common import as_users_see_it, assert_close
from tests.inputs import rng

X = rng(60).normal(size=(8, 4)).astype(np.float32)
Y = rng(61).normal(size=8).astype(np.float32)


def inner_loss(params, penalties, y):
    """Ridge, with a penalty a part; strongly convex, smooth, not quadratic."""
    fit = X @ params["w"] + params["b"]
    penalty = sum(jnp.sum(jnp.exp(penalties[k]) * params[k] ** 2) for k in params)
    return jnp.sum((fit - y) ** 2) / 2 + penalty + 0.01 * jnp.sum(params["w"] ** 4)


def solution(penalties, y):
    def newton(params, _):
        flat, unravel = jax.flatten_util.ravel_pytree(params)
        f = lambda flat: inner_loss(unravel(flat), penalties, y)  # noqa: E731
        step = jnp.linalg.solve(jax.hessian(f)(flat), jax.grad(f)(flat))
        return unravel(flat - step), None

    return scan(
        newton, {"w": jnp.zeros(4), "b": jnp.zeros(())}, length=5, policy="none"
    )[0]


def outer(f, penalties, y):
    params = f(penalties, y)
    return jnp.sum(jnp.sin(params["w"])) + params["b"] ** 2


PENALTIES = {"w": jnp.float32(-0.5), "b": jnp.float32(0.2)}
EXACT = {"cg": {}, "gmres": {}, "exact": {}, "neumann": {"steps": 400, "rate": 0.05}}


@pytest.mark.parametrize("solve", list(EXACT))
def test_pytrees_against_backpropagation_through_the_solver(solve):
    f = implicit(solution, jax.grad(inner_loss), solve=solve, **EXACT[solve])

    def grads(f):
        return jax.jit(jax.grad(lambda *z: outer(f, *z), (0, 1)))(PENALTIES, Y)

    got = grads(f)
    assert_close(got, grads(solution), rtol=2e-4)
    tangent = jax.tree.map(jnp.ones_like, PENALTIES)
    moved = jax.jit(
        lambda: jax.jvp(lambda p: outer(f, p, Y), (PENALTIES,), (tangent,))
    )()
    np.testing.assert_allclose(moved[1], got[0]["w"] + got[0]["b"], rtol=1e-4)


def test_second_order_vmap_and_what_is_closed_over():
    def f(z):
        root = implicit(lambda: jnp.sqrt(z), lambda w: w**2 - z, solve="exact")
        return root() ** 3  # z^(3/2)

    z = jnp.array([1.0, 4.0, 9.0])
    assert_close(jax.jit(jax.vmap(jax.grad(f)))(z), 1.5 * jnp.sqrt(z))
    assert_close(jax.jit(jax.vmap(jax.grad(jax.grad(f))))(z), 0.75 / jnp.sqrt(z), 1e-5)
    with_cg = lambda z: implicit(jnp.sqrt, lambda w, z: w**2 - z)(z)  # noqa: E731
    assert_close(
        jax.jit(jax.vmap(jax.grad(jax.grad(with_cg))))(z), -0.25 * z**-1.5, 1e-5
    )


def test_second_order_in_a_part_of_what_is_solved_for():
    """The other part's derivative is 0, and known to be: a linear solve transposes."""

    def f(a):
        root = implicit(
            lambda z: jax.tree.map(jnp.sqrt, z),
            lambda w, z: jax.tree.map(lambda w, z: w**2 - z, w, z),
        )
        w = root({"a": a, "b": jnp.float32(4.0)})
        return w["a"] ** 3 + w["b"]

    np.testing.assert_allclose(jax.jit(jax.hessian(f))(9.0), 0.25, rtol=1e-5)


def test_a_fixed_point_and_the_limit_of_training():
    """T -> inf of gradient descent, without its path; by gmres as it is no gradient."""

    def step(w, z):
        return w - 0.1 * (jnp.tanh(w) - z * jnp.array([1.0, 0.5]))

    def train(z):
        return scan(lambda w, _: (step(w, z), None), jnp.zeros(2), length=300)[0]

    f = implicit(train, lambda w, z: w - step(w, z), solve="gmres")
    got = jax.jit(jax.grad(lambda z: jnp.sum(f(z))))(0.4)
    want = 1 / (1 - 0.4**2) + 0.5 / (1 - 0.2**2)  # w = arctanh(z x)
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_gmres_takes_no_more_steps_than_told():
    def f(z, steps):
        matrix = jnp.array([1.0, 3.0])  # one step from ones: (b A b) / (A b A b) b
        solved = implicit(
            lambda z: z / matrix,
            lambda w, z: matrix * w - z,
            solve="gmres",
            steps=steps,
        )
        return solved(z)

    for steps, want in ((1, [0.4, 0.4]), (2, [1, 1 / 3])):
        solved = functools.partial(f, steps=steps)
        moved = jax.jvp(solved, (jnp.ones(2),), (jnp.ones(2),))[1]
        np.testing.assert_allclose(moved, want, rtol=1e-5)


def test_a_singular_system_needs_its_damping():
    def f(z, damping):
        # w is any point on a line: F_w = [[1, 1], [1, 1]].
        solved = implicit(
            lambda z: jnp.array([z / 2, z / 2]),
            lambda w, z: jnp.sum(w) - z + 0 * w,
            solve="exact",
            damping=damping,
        )
        return solved(z)[0]

    assert not np.isfinite(jax.grad(f)(1.0, 0.0))
    np.testing.assert_allclose(jax.grad(f)(1.0, 1e-3), 0.5, rtol=1e-3)


def test_bf16_is_solved_in_f32():
    def f(z):
        solved = implicit(
            lambda z: (z / 3).astype(jnp.bfloat16), lambda w, z: 3 * w - z
        )
        return solved(z)

    out, moved = jax.jvp(f, (jnp.bfloat16(2.0),), (jnp.bfloat16(1.0),))
    assert out.dtype == moved.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(moved), 1 / 3, rtol=0.01)


def test_nystrom_with_all_columns_is_exact():
    settings = {"solve": "nystrom", "damping": 0.1, "key": jax.random.key(0)}

    def grads(**kwargs):
        f = implicit(solution, jax.grad(inner_loss), **kwargs)
        return jax.jit(jax.grad(lambda z: outer(f, z, Y)))(PENALTIES)

    want = grads(solve="exact", damping=0.1)
    assert_close(grads(rank=99, **settings), want, rtol=2e-3)


def test_mistakes():
    def told(message, solution=jnp.sqrt, optimality=lambda w, z: w**2 - z, **kwargs):
        with as_users_see_it(), pytest.raises(ValueError, match=message):
            implicit(solution, optimality, **kwargs)(jnp.ones(2))

    told("solve: wanted one of 'cg', 'gmres'", solve="lu")
    told("rate: wanted one for solve='neumann', came None", solve="neumann", steps=3)
    told("key: wanted one for solve='nystrom'", solve="nystrom", rank=2)
    told("damping: wanted >= 0, came -1", damping=-1)
    told("damping: wanted > 0", solve="nystrom", rank=2, key=jax.random.key(0))
    told("rank: wanted >= 1", solve="nystrom", rank=0, key=jax.random.key(0))
    told("steps: wanted >= 1, came 0", steps=0)
    told("rate: wanted > 0", solve="neumann", steps=1, rate=0)
    told("solution: wanted floats, came int32", solution=lambda z: jnp.int32(z))
    told("optimality:", optimality=lambda w, z: {"w": w})
