"""Noisy labels: what each loss promises of its mean over the noise, and its memory."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxtricks import losses
from tests.free import common
from tests.inputs import logits_and_labels
from tests.losses.cases_noisy import CROSS_ENTROPY, NOISE

LOGITS, LABELS = logits_and_labels.make((8,))
INDEX = np.array([3, 1, 9, 0, 7, 2, 5, 4], np.int32)
LIVE = np.array([True, True, True, False, True, True, True, True])
EVERY = np.broadcast_to(np.arange(6, dtype=np.int32), (8, 6))
SPREAD = np.repeat(LOGITS[:, None], 6, axis=1)


def test_backward_correction_is_unbiased_over_the_noise():
    noisy = losses.backward_correction(SPREAD, EVERY, transition=NOISE)
    got = np.sum(NOISE[LABELS] * np.asarray(noisy), axis=1)
    common.assert_close(got, CROSS_ENTROPY(LOGITS, LABELS), rtol=1e-5)


def test_forward_correction_is_least_at_the_clean_distribution():
    clean = np.random.default_rng(0).dirichlet(np.ones(6), 8).astype(np.float32)

    def expected(logits):
        spread = jnp.repeat(logits[:, None], 6, axis=1)
        nll = losses.forward_correction(spread, EVERY, transition=NOISE)
        return jnp.sum(jnp.asarray(clean @ NOISE) * nll)

    slope = jax.grad(expected)(np.log(clean))
    np.testing.assert_allclose(slope, 0, atol=1e-6)
    assert np.abs(jax.grad(expected)(LOGITS)).max() > 0.1


def test_normalized_losses_of_all_labels_sum_to_one():
    for hyper in ({}, {"gamma": 0.5}, {"tau": 1.7}, {"tau": 2.0, "gamma": 1.0}):
        each = losses.normalized(SPREAD, EVERY, **hyper)
        common.assert_close(jnp.sum(each, axis=1), np.ones(8))
    alone = losses.normalized(np.ones((2, 1), np.float32), np.zeros(2, int))
    assert (np.asarray(alone) == 0).all()


def test_bootstrap_soft_is_cross_entropy_and_a_price_on_entropy():
    p = jax.nn.softmax(LOGITS)
    entropy = -jnp.sum(p * jnp.log(p), axis=-1)
    want = 0.9 * CROSS_ENTROPY(LOGITS, LABELS) + 0.1 * entropy
    common.assert_close(losses.bootstrap(LOGITS, LABELS, beta=0.9), want)


def test_taylor_approaches_cross_entropy():
    near = losses.taylor(LOGITS / 4, LABELS, order=80)
    common.assert_close(near, CROSS_ENTROPY(LOGITS / 4, LABELS), rtol=1e-5)


def test_elr_pulls_towards_what_it_remembers():
    """With the memory on one class, its probability lowers the loss."""
    init, update = losses.elr(lam=3.0)
    state = losses.ElrState(init(10, 6).target.at[:, 2].set(0.9))

    def loss(logits):
        return jnp.sum(update(logits, LABELS, state, index=INDEX)[0])

    plain = jax.grad(lambda x: jnp.sum(CROSS_ENTROPY(x, LABELS)))(LOGITS)
    assert (np.asarray(jax.grad(loss)(LOGITS) - plain)[:, 2] < 0).all()


def test_elr_is_the_same_on_every_mesh():
    init, update = losses.elr()
    start = losses.ElrState(init(10, 6).target + 0.1)

    def two_steps(logits, labels, index, where, axis_name=None):
        more = {"index": index, "where": where, "axis_name": axis_name}
        _, state = update(logits, labels, start, **more)
        values, state = update(logits * 0.5, labels, state, **more)
        return values, state.target

    data = (LOGITS, LABELS, INDEX, LIVE)
    want = jax.jit(two_steps)(*data)
    for kind in (AxisType.Auto, AxisType.Explicit):
        with jax.set_mesh(common.mesh(kind)):
            placed = [common.put(x, kind, "data") for x in data]
            common.assert_close(jax.jit(two_steps)(*placed), want, what=str(kind))
    mapped = jax.shard_map(
        lambda *data: two_steps(*data, axis_name="data"),
        mesh=common.mesh(AxisType.Auto),
        in_specs=P("data"),
        out_specs=(P("data"), P()),
    )
    common.assert_close(jax.jit(mapped)(*data), want, what="shard_map")


def test_elr_forgets_a_nan():
    """An example that failed once is remembered as before, and counts again."""
    init, update = losses.elr()
    start = losses.ElrState(init(10, 6).target + 0.1)
    logits = jnp.asarray(LOGITS).at[0].set(jnp.nan)
    broken, after = update(logits, LABELS, start, index=INDEX)
    assert np.isnan(broken[0])
    np.testing.assert_array_equal(after.target[INDEX[0]], start.target[INDEX[0]])
    values, _ = update(LOGITS, LABELS, after, index=INDEX)
    assert np.isfinite(values).all()


def test_elr_names_what_is_missing():
    init, update = losses.elr()
    common.raises(lambda: update(LOGITS, LABELS, init(9, 6)), naming="index")
    common.raises(
        lambda: update(LOGITS, LABELS, init(9, 5), index=INDEX), naming="logits"
    )
