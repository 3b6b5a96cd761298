"""metagrad.truncated: a scan whose gradient looks back a few steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxtricks.metagrad import scan, truncated
from tests.free.common import as_users_see_it, assert_close
from tests.metagrad.test_scan import assert_same, noisy


@pytest.mark.parametrize(("steps", "window"), [(0, 3), (1, 1), (7, 3), (8, 4), (9, 20)])
def test_values_are_those_of_lax_scan(steps, window):
    init = {"w": jnp.ones(3), "key": jax.random.key(0), "count": 0}
    xs = {
        "a": np.sin(np.arange(steps * 3.0)).reshape(steps, 3).astype(np.float32),
        "i": np.arange(steps),
    }
    got = jax.jit(lambda: truncated(noisy, init, xs, window=window))()
    assert_same(got, lax.scan(noisy, init, xs))


def train(rate, xs, run, **kwargs):
    def step(w, x):
        w = w - rate * (jnp.sin(w) - x)
        return w, w**2

    w, losses = run(step, 1.0, xs, **kwargs)
    return w, jnp.sum(losses)


XS = np.cos(np.arange(10.0)).astype(np.float32)


def test_whole_from_a_window_of_all_steps_on():
    def grads(run, **kwargs):
        f = lambda *args: sum(train(*args, run, **kwargs))  # noqa: E731
        return jax.jit(jax.grad(f, (0, 1)))(0.3, XS)

    for window in (10, 11):
        assert_close(grads(truncated, window=window), grads(scan), what=str(window))


def backward_loops(jaxpr) -> int:
    """How many scans of a program run from the last step to the first."""
    found = 0
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        found += eqn.primitive.name == "scan" and eqn.params["reverse"]
        for inner in eqn.params.values():
            if hasattr(getattr(inner, "jaxpr", inner), "eqns"):
                found += backward_loops(inner)
    return found


def test_the_end_is_told_of_by_the_last_window_alone():
    """Which is also what a run that begins there says; other steps are not run back."""

    def f(rate, xs):
        step = lambda w, x: (w - rate * (jnp.sin(w) - x), None)  # noqa: E731
        return truncated(step, 1.0, xs, window=4, policy="step")[0]

    assert backward_loops(jax.make_jaxpr(jax.grad(f, (0, 1)))(0.3, XS)) == 1
    by_rate, by_xs = jax.jit(jax.grad(f, (0, 1)))(0.3, XS)
    assert not np.any(by_xs[:6])
    begins = train(0.3, XS[:6], scan)[0]

    def tail(rate, xs):
        step = lambda w, x: (w - rate * (jnp.sin(w) - x), None)  # noqa: E731
        return scan(step, begins, xs)[0]

    want = jax.jit(jax.grad(tail, (0, 1)))(0.3, XS[6:])
    assert_close((by_rate, by_xs[6:]), want)


def test_the_bias_falls_with_the_window():
    """The last K of T steps tell a share K / T here, as w_t = 1 - (1 - rate)^t."""

    def g(window):
        def end(rate):
            step = lambda w, _: (w - rate * w + rate, None)  # noqa: E731
            return truncated(step, 0.0, length=40, window=window)[0]

        return float(jax.grad(end)(0.2))

    for window in (5, 20):
        np.testing.assert_allclose(g(window), window * 0.8**39, rtol=2e-3)


def test_forward_mode_and_vmap():
    def f(rate, xs):
        return sum(train(rate, xs, truncated, window=3))

    rates = jnp.array([0.1, 0.3])
    got = jax.jit(jax.vmap(jax.grad(f), (0, None)))(rates, XS)
    tangent = jax.jit(lambda: jax.jvp(lambda r: f(r, XS), (0.3,), (1.0,))[1])()
    np.testing.assert_allclose(got[1], tangent, rtol=1e-5)


def test_mistakes():
    with (
        as_users_see_it(),
        pytest.raises(ValueError, match="window: wanted >= 1, came 0"),
    ):
        truncated(lambda c, x: (c, x), 0.0, XS, window=0)
    with as_users_see_it(), pytest.raises(ValueError, match="scan"):
        truncated(lambda c, x: (c, x), 0.0, XS, window=2, length=4)
