"""Learned optimizers: symmetries, width, and that evolution strategies train them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtricks import metagrad
from jaxtricks.metagrad import learned_optimizer, pes, scale_by_mup, velo
from tests.free.common import as_users_see_it, assert_close
from tests.metagrad.learned import GRADS, MLP, PARAMS, VELO, single

BOTH = {
    "mlp": functools.partial(learned_optimizer, single(MLP), exp_mult=0.1),
    "velo": functools.partial(velo, single(VELO), total_steps=30, exp_mult=0.1),
}


@functools.partial(jax.jit, static_argnums=0)
def two_steps(name, params, grads):
    tx = BOTH[name](step_mult=0.1)
    state = tx.init(params)
    for value in (1.0, 0.5):
        updates, state = tx.update(grads, state, params, value=value)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("name", BOTH)
def test_the_order_of_units_does_not_matter(name):
    params, grads = single(PARAMS), single(GRADS[0])

    def turned(tree):
        tree = jax.tree.map(np.asarray, tree)
        return tree | {"a": tree["a"][::-1, [1, 2, 0]], "b": tree["b"][[2, 0, 1]]}

    want = turned(two_steps(name, params, grads))
    assert_close(two_steps(name, turned(params), turned(grads)), want, rtol=1e-5)
    assert not np.allclose(want["a"], turned(params)["a"])


def test_whole_numbers_pass_and_bf16_stays():
    params = {"w": jnp.ones((3, 2), jnp.bfloat16), "n": jnp.int32(4)}
    grads = {"w": jnp.ones((3, 2), jnp.bfloat16), "n": jnp.int32(0)}
    for make in BOTH.values():
        tx = make()
        state = tx.init(params)
        assert all(m.mean.dtype == jnp.float32 for m in state.moments)
        updates, state = jax.jit(tx.update)(grads, state, params, value=1.0)
        assert updates["w"].dtype == jnp.bfloat16
        assert updates["n"] == 0
        assert state.steps == 1


# --- what makes one optimizer serve every width ---------------------------------------


def moved(width, mup, learnt):
    """How far the hidden outputs move in three steps on a network of a width."""
    key = jax.random.split(jax.random.key(4), 3)
    params = {
        "in": jax.random.normal(key[0], (8, width)) / np.sqrt(8),
        "hidden": jax.random.normal(key[1], (width, width)) / np.sqrt(width),
        "out": jax.random.normal(key[2], (width, 4)) / np.sqrt(width),
    }
    if mup:
        params["out"] = 0 * params["out"]
    roles = {"in": "input", "hidden": "hidden", "out": "output"}
    tx = learned_optimizer(single(MLP), step_mult=0.03) if learnt else optax.adam(0.03)
    tx = optax.chain(tx, scale_by_mup(roles) if mup else optax.identity())
    x = jax.random.normal(jax.random.key(5), (16, 8))
    y = jax.random.randint(jax.random.key(6), (16,), 0, 4)

    def hidden(params):
        return jnp.tanh(x @ params["in"]) @ params["hidden"]

    def loss(params):
        logits = jnp.tanh(hidden(params)) @ params["out"] / (width if mup else 1)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        first = params, tx.init(params)
        after, _ = jax.lax.scan(step, first, length=3)[0]
        return jnp.sqrt(jnp.mean((hidden(after) - hidden(params)) ** 2))

    return float(run(params))


@pytest.mark.parametrize("learnt", [False, True])
def test_with_mup_activations_move_as_far_at_every_width(learnt):
    growth = {
        mup: moved(512, mup, learnt) / moved(32, mup, learnt) for mup in (True, False)
    }
    assert 1 / 5 < growth[True] < 3
    assert growth[False] > 3 * growth[True]


def test_a_base_width_equal_to_the_fan_in_scales_nothing():
    updates = {"w": jnp.arange(6.0).reshape(3, 2), "n": jnp.int32(3)}
    tx = scale_by_mup("hidden", base_width=3)
    found, _ = tx.update(updates, tx.init(updates))
    assert_close(found, updates)
    slope = jax.grad(
        lambda b: jnp.sum(
            scale_by_mup("hidden", base_width=b).update(updates, None)[0]["w"]
        )
    )(3.0)
    assert float(slope) == 5


# --- training them --------------------------------------------------------------------


@pytest.mark.slow
def test_evolution_strategies_train_one_on_small_tasks():
    """Least squares in four unknowns, ten steps a window, three windows a run."""
    pairs, meta = 16, metagrad.init_learned_optimizer(key=jax.random.key(0), hidden=4)

    def task(key):
        return jax.random.normal(key, (4, 4)) / 2, jnp.zeros((4,))

    def loss(w, task):
        matrix, _ = task
        return jnp.mean((matrix @ w - 1) ** 2)

    def run(inner, meta, data):
        del data
        task, w, state = inner
        tx = learned_optimizer(meta, step_mult=0.05)

        def step(carry, _):
            w, state = carry
            value, grads = jax.value_and_grad(loss)(w, task)
            updates, state = tx.update(grads, state, w)
            return (w + updates, state), value

        (w, state), losses = jax.lax.scan(step, (w, state), length=10)
        return (task, w, state), jnp.mean(losses)

    def fresh(key):
        found = jax.vmap(task)(jax.random.split(key, pairs))
        state = learned_optimizer(meta).init(jnp.zeros(4))
        state = jax.tree.map(lambda s: jnp.stack([s] * pairs), state)
        return found, jnp.zeros((pairs, 4)), state

    tuner, adam = pes(run, pairs=pairs, sigma=0.05), optax.adam(0.01)

    @jax.jit
    def train(meta):
        def update(carry, key):
            meta, opt, state, i = carry
            restart = jnp.full(pairs, i % 3 == 0), fresh(jax.random.fold_in(key, 1))
            _, grads, state = tuner.update(meta, state, key=key, restart=restart)
            updates, opt = adam.update(grads, opt)
            return (optax.apply_updates(meta, updates), opt, state, i + 1), None

        first = meta, adam.init(meta), tuner.init(meta, fresh(jax.random.key(1))), 0
        keys = jax.random.split(jax.random.key(2), 300)
        return jax.lax.scan(update, first, keys)[0][0]

    @jax.jit
    def reached(meta):
        inner = fresh(jax.random.key(3))
        for _ in range(3):
            inner, losses = jax.vmap(run, (0, None, None))(inner, meta, None)
        return jnp.mean(losses)

    before, after = reached(meta), reached(train(meta))
    assert after < 0.7 * before
    assert after < 0.8  # the loss of no step at all is 1


def test_mistakes():
    params = jnp.ones(2)
    for call, message in (
        (
            lambda: BOTH["mlp"]().update(params, None),
            r"learned_optimizer needs update\(grads, state, params\)",
        ),
        (
            lambda: BOTH["velo"]().update(params, None, params),
            r"velo needs update\(grads, state, params, value=loss\)",
        ),
        (lambda: scale_by_mup({"w": "head"}), "roles: wanted one of 'input'"),
        (
            lambda: scale_by_mup("hidden", base_width=0),
            "base_width: wanted > 0, came 0",
        ),
        (lambda: velo(single(VELO), total_steps=0), "total_steps: wanted > 1, came 0"),
        (
            lambda: metagrad.init_learned_optimizer(key=jax.random.key(0), hidden=0),
            "hidden: wanted >= 1, came 0",
        ),
        (
            lambda: metagrad.init_velo(key=jax.random.key(0), bank=0),
            "bank: wanted >= 1, came 0",
        ),
    ):
        with as_users_see_it(), pytest.raises(ValueError, match=message):
            call()
