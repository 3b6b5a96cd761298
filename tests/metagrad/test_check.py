"""A gradient that is wrong, rough or lost in rounding is told, and what to change."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtricks import metagrad
from jaxtricks.metagrad import check, metasmoothness, scan
from jaxtricks.metagrad._in_f32 import in_f32
from tests.free.common import assert_close
from tests.inputs import rng

X = rng(50).normal(size=(16, 4)).astype(np.float32)
Y = rng(51).integers(0, 3, size=16)
W = rng(52).normal(size=(4, 3)).astype(np.float32) / 2
ONES = jnp.ones(16)


def trainer(tx, dtype=jnp.float32, act=jnp.tanh, steps=20):
    """example weights -> (loss, parameters) after training."""

    def loss(w, weights):
        logits = act((X.astype(dtype) @ w.astype(dtype)).astype(jnp.float32) * 2)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, Y)
        return jnp.mean(weights * losses)

    def train(weights):
        def step(carry, _):
            w, state = carry
            updates, state = tx.update(jax.grad(loss)(w, weights), state, w)
            return (optax.apply_updates(w, updates), state), None

        (w, _), _ = scan(step, (W, tx.init(W)), length=steps)
        return loss(w, ONES), w

    return train


def checked(*args, act=jnp.tanh, **kwargs):
    return check(trainer(*args, act=act), ONES, key=jax.random.key(0), **kwargs)


def test_a_good_gradient_needs_no_change():
    found = checked(optax.adam(1e-2, eps_root=1e-16))
    assert found.advice == ()
    assert found.error < 0.01
    assert found.errors.shape == found.differences.shape == (8, 2)
    assert np.min(found.smoothness) > 0.99
    assert found.cosine is None
    assert "nothing to change" in str(found)
    assert len(str(found).splitlines()) == 5


def test_training_that_is_not_smooth():
    found = checked(optax.adam(3.0, eps_root=1e-16), act=jax.nn.relu)
    assert found.error > 0.05
    assert np.min(found.smoothness) < 0.9
    (said,) = found.advice
    for change in ("lower the learning rate", "eps inside", "gelu", "larger batches"):
        assert change in said
    assert said in str(found)


def test_a_sign_has_no_gradient():
    (said,) = (a for a in checked(optax.sign_sgd(0.02)).advice if "is 0" in a)
    assert "the optimizer takes a sign" in said


def test_an_infinite_slope():
    found = check(
        lambda x: jnp.sum(jnp.sqrt(x * x)), jnp.zeros(2), key=jax.random.key(0)
    )
    (said,) = found.advice
    assert "optimizers.differentiable" in said
    assert "eps_root" in said


def test_a_gradient_that_is_stopped():
    def f(x):
        return jnp.sum(x**2 * jax.lax.stop_gradient(x))

    found = check(f, jnp.arange(1.0, 4.0), key=jax.random.key(0))
    assert 0.3 < found.error < 0.4
    assert "stop_gradient" in found.advice[0]
    given = {"grad": 3 * jnp.arange(1.0, 4.0) ** 2}
    assert check(f, jnp.arange(1.0, 4.0), key=jax.random.key(0), **given).advice == ()


@pytest.mark.parametrize("x", [0.0, 1e-4, -1e-4])
def test_at_an_extremum(x):
    def bowl(x):
        return jnp.sum(x["a"] ** 2) + 2 * x["b"] ** 2

    x = {"a": jnp.full(3, x), "b": jnp.float32(0)}
    found = check(bowl, x, key=jax.random.key(1), steps=(0.1, 0.01))
    (said,) = found.advice
    assert "the objective turns within the steps" in said
    away = jax.tree.map(lambda x: x + 0.5, x)
    assert check(bowl, away, key=jax.random.key(1)).advice == ()
    kink = check(lambda x: jnp.abs(x), 0.0, key=jax.random.key(1))
    assert "the objective turns" not in kink.advice[0]


def test_what_rounding_and_bending_say():
    def f(x):
        return jnp.sum(jnp.sin(x))

    x = jnp.ones(1)
    lost = check(lambda x: 1e4 + f(x), x, key=jax.random.key(0), steps=(0.1, 1e-4))
    assert "at step 0.0001 differences are lost in rounding" in lost.advice[0]
    bent = check(lambda x: f(9 * x), x, key=jax.random.key(0), steps=(0.2, 1e-3))
    assert any("up to 0.001 alone" in a for a in bent.advice), bent


def test_low_precision_is_compared_with_f32():
    found = checked(optax.sgd(0.1), jnp.bfloat16)
    assert found.cosine > 0.99
    assert "lost in the rounding of low precision" in found.advice[0]
    apart = check(
        lambda x: jnp.sum((x.astype(jnp.bfloat16) + 512 - 512).astype(x.dtype) ** 2),
        jnp.array([0.7, -0.2, 0.4]),
        key=jax.random.key(0),
        segment=lambda x: jnp.sum((x.astype(jnp.bfloat16) + 64 - 64) ** 2),
    )
    assert apart.cosine < 0.99
    assert any("keep parameters, optimizer state" in a for a in apart.advice)


def test_in_f32_is_the_same_program_in_f32():
    """Loops, branches, custom rules, checkpoints, conversions and sums in bf16."""

    @jax.custom_jvp
    def square(x):
        return x * x

    square.defjvp(lambda xs, ts: (square(xs[0]), 2 * xs[0] * ts[0]))

    def f(x, dtype):
        x = x.astype(dtype)
        x, ys = scan(lambda c, y: (jnp.tanh(c * y), c), x, jnp.ones((5, 3), dtype))
        x = jax.lax.cond(jnp.sum(x) > 0, lambda x: x * 3, lambda x: x, x)
        x = jax.lax.while_loop(lambda x: jnp.sum(x) < 9, lambda x: x * 2, x)
        x = jax.nn.relu(square(jax.jit(jnp.sin)(x)))
        x = jnp.dot(x, x, preferred_element_type=dtype)
        return (x + jnp.sum(ys)).astype(jnp.float32)

    x = jnp.array([0.3, 0.7, 1.1])
    got = jax.jit(in_f32(functools.partial(f, dtype=jnp.bfloat16)))(x)
    assert_close(got, f(x, jnp.float32), rtol=1e-6)
    assert abs(got - f(x, jnp.bfloat16)) > 1e-3

    def g(x, dtype):  # a while loop has no reverse mode
        x, ys = scan(
            lambda c, y: (square(c * y), c), x.astype(dtype), jnp.ones((5, 3), dtype)
        )
        return jnp.sum(jax.nn.relu(x) + jnp.sum(ys)).astype(jnp.float32)

    got = jax.grad(in_f32(functools.partial(g, dtype=jnp.bfloat16)))(x)
    assert_close(got, jax.grad(g)(x, jnp.float32), rtol=1e-6)


def test_a_host_loop_is_checked_without_jit():
    def step(w, x, rate):
        return w - rate * (w - x), None

    def square(w, rate):
        return w**2

    def run(rate):
        xs = np.linspace(0, 1, 8, dtype=np.float32)
        return metagrad.replay(step, 1.0, xs, square, rate)

    grad = run(0.1).grad
    found = check(
        lambda rate: run(rate).value, 0.1, key=jax.random.key(0), grad=grad, jit=False
    )
    assert found.error < 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"directions": 7}, "directions: wanted >= 8, came 7"),
        ({"steps": (0.1,)}, r"steps: wanted two or more, came \(0.1,\)"),
        ({"steps": (0.1, 0.0)}, "steps: wanted > 0, came 0.0"),
        ({"jit": False}, "grad: wanted one"),
        ({"grad": jnp.ones(2)}, r"grad:  has shape \(2,\), wanted \(3,\)"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(ValueError, match=message):
        check(jnp.sum, jnp.ones(3), key=jax.random.key(0), **options)


def test_what_is_not_of_floats():
    for fun, x, message in (
        (jnp.sin, jnp.ones(2), r"fun: wanted float\[\], came float32\[2\]"),
        (lambda x: {"loss": x}, 1.0, r"fun: wanted float\[\], came {'loss': 'float"),
        (lambda x: x["a"], {"a": 1.0, "n": 3}, r"x: wanted floats, .* at \['n'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            check(fun, x, key=jax.random.key(0))


# --- metasmoothness -------------------------------------------------------------------


def test_limits_of_metasmoothness():
    x, v = jnp.array([0.5, -1.0]), jnp.array([1.0, 2.0])
    linear = jax.jit(
        functools.partial(metasmoothness, lambda x: {"a": 3 * x, "b": 1 - x})
    )
    assert linear(x, v) == 1
    assert metasmoothness(lambda x: 0 * x, x, v) == 1
    assert metasmoothness(lambda x: jnp.abs(x - 0.62), 0.5, 1.0) == -1
    # One parameter moves by 0.2, another there by 0.12 and back by 0.08, so by 0.04.
    mixed = metasmoothness(lambda x: jnp.stack([x, jnp.abs(x - 0.62)]), 0.5, 1.0)
    assert_close(mixed, jnp.float32((0.2 - 0.04) / (0.2 + 0.04)), rtol=1e-4)
    both = jax.vmap(lambda h: metasmoothness(jnp.cos, 0.0, 1.0, h=h))(
        jnp.array([0.1, 3.0])
    )
    assert_close(both, jnp.array([1.0, -1.0]), rtol=0)
    for h in (0, -1):
        with pytest.raises(ValueError, match="h: wanted > 0"):
            metasmoothness(jnp.sin, 0.5, 1.0, h=h)
    with pytest.raises(ValueError, match="direction: "):
        metasmoothness(jnp.sin, x, jnp.ones(3))


def test_metasmoothness_in_low_precision_and_beside_nan():
    got = metasmoothness(lambda x: jnp.asarray([x, -x]), jnp.bfloat16(1), 1.0, h=0.25)
    assert got == 1
    assert got.dtype == jnp.float32
    assert jnp.isnan(metasmoothness(lambda x: jnp.log(-x), 0.5, 1.0))
