"""The pmap example, and what it promises: the numbers of one device."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import pmap
from jaxtricks import kernels, reduce, schedules, sharpness, weighting
from tests.free.common import assert_close

DEVICES, STEPS = 8, 3


def test_the_example_gives_one_devices_numbers():
    """SAM, weights, blockwise cross entropy and a schedule at once; to 1e-5."""
    params = pmap.init(0)
    opt = pmap.optimizer().init(params)
    spread = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (DEVICES, *x.shape)), (params, opt)
    )
    one, eight = jax.jit(pmap.step), pmap.mapped(DEVICES)
    for windows in pmap.batches(0)[:STEPS]:
        params, opt, loss = one(params, opt, windows)
        *spread, losses = eight(*spread, windows)
        assert_close(losses, np.full(DEVICES, loss), rtol=1e-5)
    for device in (0, DEVICES - 1):
        own = jax.tree.map(lambda x, d=device: x[d], spread[0])
        assert_close(own, params, rtol=1e-4)


def problem():
    r = np.random.default_rng(5)
    params = {"w": r.normal(size=(6, 4)), "head": r.normal(size=(4, 10))}
    x = r.normal(size=(16, 3, 6)).astype(np.float32)
    labels = r.integers(0, 10, (16, 3), dtype=np.int32)
    return jax.tree.map(lambda p: np.float32(p), params), (x, labels)


WEIGHTINGS = {
    name: getattr(weighting, name)
    for name in ("causal", "extremes", "kl_dro", "linupper", "quadratic", "upper")
}
SCHEDULES = {
    "wsd": lambda: schedules.wsd(0.1, total_steps=10),
    "wsd_s": lambda: schedules.wsd_s(0.1, budgets=(5, 10)),
    "uba": lambda: schedules.uba(0.1, budgets=10),
    "rewarm": lambda: schedules.rewarm(0.1, budgets=(5, 10)),
    "infinite": lambda: schedules.infinite(
        0.1, warmup_steps=2, cooldown_steps=3, total_steps=10
    ),
}


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_each_weighting_with_sam_and_a_schedule(name):
    """In turn with every schedule, so that all of them run mapped."""
    params, batch = problem()
    schedule = list(SCHEDULES.values())[list(WEIGHTINGS).index(name) % len(SCHEDULES)]()
    tx = optax.chain(sharpness.sam(0.1), optax.sgd(schedule))

    def run(params, batch, axis_name=None):
        def objective(params):
            x, labels = batch
            hidden = jnp.tanh(x @ params["w"])
            nll = kernels.linear_cross_entropy(hidden, params["head"], labels)
            losses = nll.mean(axis=-1)
            weights = WEIGHTINGS[name](losses, axis_name=axis_name)
            return reduce.mean(losses, weights=weights, axis_name=axis_name)

        def grad_fn(params):
            grads = jax.grad(objective)(params)
            return jax.lax.pmean(grads, axis_name) if axis_name else grads

        opt = tx.init(params)
        for _ in range(2):
            updates, opt = tx.update(grad_fn(params), opt, params, grad_fn=grad_fn)
            params = optax.apply_updates(params, updates)
        return params

    split = jax.tree.map(lambda x: x.reshape(DEVICES, -1, *x.shape[1:]), batch)
    mapped = jax.pmap(
        lambda p, b: run(p, b, "data"), axis_name="data", in_axes=(None, 0)
    )
    out = jax.tree.map(lambda x: x[3], mapped(params, split))
    assert_close(out, jax.jit(run)(params, batch), rtol=1e-5)


def test_a_weighting_with_memory_keeps_one_state_on_all_devices():
    losses = np.random.default_rng(6).gamma(2.0, size=(2, 16)).astype(np.float32)
    pair = weighting.kl_dro_moving()
    state, spread = pair.init(), pair.init()
    spread = jax.tree.map(lambda x: jnp.broadcast_to(x, (DEVICES,)), spread)
    mapped = jax.pmap(lambda x, s: pair.update(x, s, axis_name="data"), "data")
    for row in losses:
        want, state = pair.update(row, state)
        got, spread = mapped(row.reshape(DEVICES, -1), spread)
        assert_close(got.reshape(-1), want, rtol=1e-5)
    for kept, alone in zip(spread, state, strict=True):
        assert_close(kept, np.full(DEVICES, alone), rtol=1e-6)
