"""MAML's family: limits, closed forms on quadratics, and the tasks themselves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from jaxtricks.metagrad import (
    finite_difference,
    inner_adapt,
    interpolate_tasks,
    maml,
    task_landscape,
)
from tests.free.common import as_users_see_it, assert_close, mesh, put
from tests.inputs import rng

CENTRES = rng(80).normal(size=(5, 3)).astype(np.float32)
PARAMS = {"w": rng(81).normal(size=3).astype(np.float32), "b": np.float32(0.3)}


def quadratic(params, centre):
    return (jnp.sum((params["w"] - centre) ** 2) + (params["b"] - 1) ** 2) / 2


def curved(params, centre):
    return jnp.sum(jnp.cosh(params["w"] - centre)) + params["b"] ** 4 * centre[0]


TASKS = CENTRES, CENTRES[::-1]
SAME = CENTRES, CENTRES


def slopes(loss=quadratic, tasks=SAME, **kwargs):
    return jax.jit(jax.value_and_grad(lambda p: maml(loss, p, tasks, **kwargs)))(PARAMS)


def test_closed_forms_on_quadratics():
    """L_i = |w - c_i|^2 / 2: the gradient is (1 - rate)^2k mean(w - c_i)."""
    away = PARAMS["w"] - CENTRES.mean(0)
    for kwargs, power in (
        ({"steps": 1}, 2),
        ({"steps": 3}, 6),
        ({"steps": 2, "first_order": True}, 2),
        ({"steps": 0}, 0),
    ):
        _, grads = slopes(rate=0.4, **kwargs)
        np.testing.assert_allclose(grads["w"], 0.6**power * away, rtol=1e-5)
    _, grads = slopes(rate=0.4, steps=2, variant="reptile")
    np.testing.assert_allclose(grads["w"], (1 - 0.6**2) * away, rtol=1e-5)
    _, grads = slopes(rate=0.4, variant="reptile")  # one step: the plain gradient
    np.testing.assert_allclose(grads["b"], 0.4 * (PARAMS["b"] - 1), rtol=1e-5)
    # w_i = (c_i + l w) / (1 + l), and (I + H / l)^-1 = l / (1 + l)
    _, grads = slopes(rate=0.3, steps=80, variant="imaml", regularization=2.0)
    np.testing.assert_allclose(grads["w"], (2 / 3) ** 2 * away, rtol=1e-4)


def test_defaults():
    """One step at 0.01 that is differentiated through; lambda is 1."""

    def half(w, centre):
        return (w - centre) ** 2 / 2

    zeros = jnp.zeros(2), jnp.zeros(2)
    end, slope = jax.value_and_grad(lambda w: inner_adapt(half, w, 0.0))(2.0)
    np.testing.assert_allclose([end, slope], [1.98, 0.99], rtol=1e-6)
    slope = jax.grad(lambda w: maml(half, w, zeros))(2.0)
    np.testing.assert_allclose(slope, 0.99 * 1.98, rtol=1e-6)
    solved = {"variant": "imaml", "rate": 0.5, "steps": 20, "policy": "none"}
    slope = jax.grad(lambda w: maml(half, w, zeros, **solved))(2.0)
    np.testing.assert_allclose(slope, 0.5, rtol=1e-6)


def test_variants_have_the_values_of_maml():
    want = slopes(curved, TASKS, rate=0.1, steps=2)[0]
    for kwargs in ({"first_order": True}, {"variant": "reptile"}):
        np.testing.assert_allclose(
            slopes(curved, TASKS, rate=0.1, steps=2, **kwargs)[0], want
        )


def test_the_gradient_is_that_of_finite_differences():
    with jax.enable_x64(True):
        params = jax.tree.map(np.float64, PARAMS)

        def f(params, rate=0.1, **kwargs):
            return maml(curved, params, TASKS, rate=rate, steps=2, **kwargs)

        def both():
            weights = jnp.array([0.5, 0.1, 0.2, 0.0, 0.4])
            some = {"mask": {"w": True, "b": False}, "weights": weights}
            return (
                (jax.grad(f)(params), finite_difference(f, params)),
                (
                    jax.grad(lambda p: f(p, **some))(params),
                    finite_difference(lambda p: f(p, **some), params),
                ),
                (
                    jax.grad(lambda r: f(params, r))({"w": 0.1, "b": 0.2}),
                    finite_difference(lambda r: f(params, r), {"w": 0.1, "b": 0.2}),
                ),
            )

        for got, want in jax.jit(both)():
            assert_close(got, want, rtol=1e-7)


def test_first_order_switches_while_it_is_traced():
    f = jax.jit(
        jax.grad(lambda p, on: maml(curved, p, TASKS, rate=0.1, first_order=on))
    )
    assert_close(f(PARAMS, True), slopes(curved, TASKS, rate=0.1, first_order=True)[1])
    assert_close(f(PARAMS, False), slopes(curved, TASKS, rate=0.1)[1], rtol=1e-5)


def test_a_mask_holds_what_does_not_adapt():
    some = {"mask": {"w": False, "b": True}, "rate": 0.2, "steps": 3}
    for tx in (None, optax.adamw(0.1, weight_decay=0.5)):
        ends = inner_adapt(quadratic, PARAMS, CENTRES[0], tx=tx, **some)
        np.testing.assert_array_equal(ends["w"], PARAMS["w"])
        assert ends["b"] != PARAMS["b"]
    _, grads = slopes(variant="imaml", regularization=2.0, cg_steps=20, **some)
    np.testing.assert_allclose(grads["w"], PARAMS["w"] - CENTRES.mean(0), rtol=1e-4)


def test_integers_among_the_parameters_stay():
    start = {**PARAMS, "count": np.int32(3)}

    def ends(params, **kwargs):
        return inner_adapt(quadratic, params, CENTRES[0], rate=0.5, steps=2, **kwargs)

    for kwargs in ({}, {"first_order": True}, {"mask": False}):
        want = {**ends(PARAMS, **kwargs), "count": np.int32(3)}
        assert_close(ends(start, **kwargs), want)


def test_tasks_on_a_mesh():
    want = slopes(curved, (CENTRES[:4], CENTRES[1:]), rate=0.1)
    f = jax.value_and_grad(lambda p, *tasks: maml(curved, p, tasks, rate=0.1))
    for kind in (AxisType.Auto, AxisType.Explicit):
        with jax.set_mesh(mesh(kind)):
            tasks = put(CENTRES[:4], kind, "data"), put(CENTRES[1:], kind, "data")
            params = jax.tree.map(functools.partial(put, kind=kind), PARAMS)
            assert_close(jax.jit(f)(params, *tasks), want, rtol=1e-5)


def test_bf16_parameters_stay_bf16():
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.bfloat16), PARAMS)
    value, grads = jax.value_and_grad(lambda p: maml(quadratic, p, SAME, rate=0.5))(
        params
    )
    assert value.dtype == jnp.float32
    assert grads["w"].dtype == jnp.bfloat16
    want = 0.25 * (PARAMS["w"] - CENTRES.mean(0))
    np.testing.assert_allclose(np.float32(grads["w"]), want, atol=0.02)


# --- tasks ----------------------------------------------------------------------------


def test_the_landscapes_solutions_are_minima():
    matrices = rng(82).normal(size=(4, 3, 3)).astype(np.float32)
    curvatures = np.einsum("tij,tkj->tik", matrices, matrices) / 3
    curvatures += 0.5 * np.eye(3, dtype=np.float32)
    optima = rng(83).normal(size=(4, 3)).astype(np.float32)
    found = task_landscape(optima, curvatures, rate=0.2)

    def loss(w, task):
        centre, matrix = task
        return (w - centre) @ matrix @ (w - centre) / 2

    tasks = (optima, curvatures), (optima, curvatures)
    f = jax.value_and_grad(lambda w: maml(loss, w, tasks, rate=0.2))
    value, slope = f(found.maml)
    np.testing.assert_allclose(slope, 0, atol=1e-6)
    np.testing.assert_allclose(value, found.maml_risk, rtol=1e-5)
    np.testing.assert_allclose(f(found.nal)[0], found.nal_risk, rtol=1e-5)
    alike = np.broadcast_to(curvatures[0], (4, 3, 3))
    for settings in ((curvatures, 0.0), (alike, 0.3)):
        same = task_landscape(optima, settings[0], rate=settings[1])
        np.testing.assert_allclose(same.nal, same.maml, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(same.ratio, 1, rtol=1e-4)


def test_hard_tasks_that_lie_together_are_where_maml_gains():
    centres = np.array([[0.0], [0.05], [3.0], [3.1]], np.float32)
    hard = np.array([0.05, 0.06, 0.95, 1.0], np.float32)[:, None, None]
    found = task_landscape(centres, hard, rate=0.99)
    assert found.ratio > 20
    assert abs(found.maml[0] - 0.03) < 0.1
    spread = task_landscape(centres[[0, 2, 1, 3]], hard, rate=0.99)
    assert spread.ratio < found.ratio
    none = task_landscape(np.zeros((2, 1), np.float32), hard[:2], rate=0.5)
    assert none.ratio == 1


def test_interpolated_tasks():
    a = {"support": (CENTRES, np.eye(5, dtype=np.float32)), "query": CENTRES[::-1]}
    b = jax.tree.map(lambda x: x + 1, a)
    assert_close(interpolate_tasks(a, b, 1.0), a)
    assert_close(interpolate_tasks(a, b, 0.0), b)
    assert_close(interpolate_tasks(a, b, 0.3), interpolate_tasks(b, a, 0.7), rtol=1e-5)
    slope = jax.grad(lambda v: jnp.sum(interpolate_tasks(a, b, v)["query"]))(0.4)
    np.testing.assert_allclose(slope, -15, rtol=1e-5)
    # A linear model's features may be mixed in place of its inputs.
    w = rng(84).normal(size=(3, 2)).astype(np.float32)
    mixed = interpolate_tasks(CENTRES @ w, (CENTRES + 1) @ w, 0.3)
    assert_close(mixed, interpolate_tasks(CENTRES, CENTRES + 1, 0.3) @ w, rtol=1e-5)


def test_mistakes():
    labelled = {"x": CENTRES, "y": np.arange(5)}
    for call, message in (
        (lambda: slopes(variant="fomaml"), "variant: wanted one of 'maml', 'reptile'"),
        (lambda: slopes(steps=-1), "steps: wanted >= 0, came -1"),
        (lambda: slopes(rate=-0.1), "rate: wanted >= 0, came -0.1"),
        (lambda: slopes(regularization=0), "regularization: wanted > 0"),
        (lambda: slopes(cg_steps=0), "cg_steps: wanted >= 1"),
        (lambda: slopes(weights=jnp.ones(4)), r"weights: wanted shape \(5,\)"),
        (lambda: slopes(tasks=(CENTRES, CENTRES[1:])), r"tasks: .* \[\(4,\), \(5,\)\]"),
        (lambda: slopes(tasks=(CENTRES, {"c": 1.0})), r"tasks: .* \[\(\), \(5,\)\]"),
        (lambda: slopes(tasks=(CENTRES[:0], CENTRES[:0])), r"tasks: .* \[\(0,\)\]"),
        (lambda: slopes(tasks={"s": 0, "q": 0}), r"tasks: wanted \(support, query\)"),
        (lambda: slopes(mask={"w": True}), "mask: wanted a prefix tree"),
        (lambda: slopes(rate={"w": 0.1}), "rate: wanted a prefix tree"),
        (lambda: interpolate_tasks(labelled, labelled, 0.5), r"a: .* at \['y'\]"),
        (lambda: interpolate_tasks(CENTRES, CENTRES[1:], 0.5), "b: .* has shape"),
        (lambda: interpolate_tasks(CENTRES, CENTRES, np.ones(3)), "weight: wanted"),
        (
            lambda: interpolate_tasks(CENTRES, CENTRES, 0.5, order=np.array([0])),
            r"order: wanted shape \(5,\), came \(1,\)",
        ),
        (
            lambda: task_landscape(CENTRES, np.ones((4, 3, 3)), rate=0.1),
            "curvatures: wanted shape",
        ),
    ):
        with as_users_see_it(), pytest.raises(ValueError, match=message):
            call()
