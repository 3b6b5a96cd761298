"""LDR losses: the two limits, the worst case itself, and a memory that stays whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxtricks import losses
from tests.free import common
from tests.inputs import logits_and_labels

LOGITS, LABELS = logits_and_labels.make((8,))
INDEX = np.array([3, 1, 9, 0, 7, 2, 5, 4], np.int32)
LIVE = np.array([True, True, True, False, True, True, True, True])


def deltas(margin):
    own = LOGITS[np.arange(8), LABELS][:, None]
    rival = np.arange(6) != LABELS[:, None]
    return (LOGITS - own + margin * rival).astype(np.float64)


def test_a_small_lam_is_the_hinge_and_a_large_one_the_mean():
    for lam, want in ((1e-4, deltas(1.0).max(1)), (1e6, deltas(1.0).mean(1))):
        got = losses.ldr_kl(LOGITS, LABELS, lam=lam, margin=1.0, normalize="none")
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_it_is_the_worst_label_distribution():
    delta, lam = deltas(1.0), 0.7
    worst = np.exp(delta / lam) / np.exp(delta / lam).sum(1, keepdims=True)
    others = np.random.default_rng(0).dirichlet(np.ones(6), size=(200, 8))

    def value(p):
        return np.sum(p * delta - lam * p * np.log(6 * p), axis=-1)

    got = losses.ldr_kl(LOGITS, LABELS, lam=lam, margin=1.0, normalize="none")
    np.testing.assert_allclose(got, value(worst), rtol=1e-5, atol=1e-6)
    assert (value(others) < np.asarray(got) + 1e-6).all()


@pytest.mark.parametrize("normalize", ["none", "l1", "softplus"])
def test_a_class_ruled_out_is_a_class_that_is_not_there(normalize):
    logits = LOGITS.copy()
    logits[:, 5] = -np.inf
    labels = LABELS % 5
    got = losses.ldr_kl(logits, labels, normalize=normalize)
    want = losses.ldr_kl(logits[:, :5], labels, normalize=normalize)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    init, update = losses.aldr_kl(normalize=normalize)
    got = update(logits, labels, init(10), index=INDEX)
    want = update(logits[:, :5], labels, init(10), index=INDEX)
    common.assert_close(got, want)


@pytest.mark.parametrize("normalize", ["none", "l1", "softplus"])
def test_a_label_ruled_out_costs_inf_and_has_no_gradient(normalize):
    def loss(logits, lam):
        return losses.ldr_kl(logits, 0, lam=lam, normalize=normalize)

    args = jnp.array([-jnp.inf, 1.0, -2.0]), 0.5
    assert np.isposinf(loss(*args))
    common.assert_finite(jax.grad(loss, argnums=(0, 1))(*args))


def test_normalizing_where_the_plain_quotient_is_0_by_0():
    def loss(logits, normalize):
        return losses.ldr_kl(logits, 1, normalize=normalize, margin=0.0)

    zero, low = jnp.zeros(3), jnp.full(3, -1e4)
    assert loss(zero, "l1") == 0
    common.assert_finite(jax.hessian(loss)(zero, "l1"))
    np.testing.assert_allclose(loss(low, "softplus"), 0, atol=1e-6)
    common.assert_finite(jax.hessian(loss)(low, "softplus"))


def test_infinite_inertia_is_ldr():
    init, update = losses.aldr_kl(lam=0.7, alpha=np.inf, margin=1.0, normalize="none")
    got, state = update(LOGITS, LABELS, init(10), index=INDEX)
    want = losses.ldr_kl(LOGITS, LABELS, lam=0.7, margin=1.0, normalize="none")
    common.assert_close((got, state.lam), (want, np.full(10, 0.7)))


def test_one_class_has_nothing_to_adapt():
    init, update = losses.aldr_kl()
    got, state = update(jnp.ones((2, 1)), np.zeros(2, int), init(2), index=np.arange(2))
    common.assert_close((got, state.lam), (np.zeros(2), np.ones(2)))


def memory_after(index, where=None, logits=LOGITS):
    init, update = losses.aldr_kl(lam=0.9)
    return update(logits, LABELS, init(10), index=index, where=where)


def test_only_the_live_and_known_change_the_memory():
    plain, state = memory_after(INDEX)
    strange = INDEX.copy()
    strange[[1, 2]] = -1, 10
    logits = LOGITS.copy()
    logits[4] = np.nan
    got, after = memory_after(strange, LIVE, logits)
    keep = np.isin(np.arange(10), [3, 2, 5, 4])
    np.testing.assert_array_equal(after.lam, np.where(keep, state.lam, np.float32(0.9)))
    np.testing.assert_array_equal(np.isnan(got), np.isin(np.arange(8), [1, 2, 4]))
    assert got[3] == 0
    np.testing.assert_array_equal(got[5:], plain[5:])


def test_an_example_that_is_there_twice_keeps_the_larger_in_any_order():
    _, alone = memory_after(INDEX)
    twice = INDEX.copy()
    twice[5] = twice[0]
    _, state = memory_after(twice)
    _, reverse = losses.aldr_kl(lam=0.9).update(
        LOGITS[::-1], LABELS[::-1], losses.aldr_kl(lam=0.9).init(10), index=twice[::-1]
    )
    assert state.lam[3] == max(alone.lam[3], alone.lam[2])
    np.testing.assert_array_equal(state.lam, reverse.lam)


def test_nan_logits_are_not_classes_ruled_out():
    logits = np.array([np.nan, 1.0, 2.0], np.float32)
    for normalize in ("none", "l1", "softplus"):
        assert np.isnan(losses.ldr_kl(logits, 1, normalize=normalize))


def test_index_is_needed_and_checked():
    update = losses.aldr_kl().update
    state = losses.aldr_kl().init(10)
    for index in (None, INDEX[:3], INDEX * 1.0):
        common.raises(update, LOGITS, LABELS, state, index=index, naming="index")
    common.raises(update, LOGITS[0], 0, state, naming="index")


def two_steps(logits, labels, index, where, lam, **extra):
    """Losses of the second step and the memory after both."""
    init, update = losses.aldr_kl(lam=lam, alpha=1.5)
    _, state = update(logits, labels, init(10), index=index, where=where, **extra)
    return update(logits * 0.5, labels, state, index=index, where=where, **extra)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_memory_on_a_mesh(kind):
    want = jax.jit(two_steps)(LOGITS, LABELS, INDEX, LIVE, 0.9)
    with jax.set_mesh(common.mesh(kind)):
        data = (
            common.put(LOGITS, kind, "data", "model"),
            *(common.put(x, kind, "data") for x in (LABELS, INDEX, LIVE)),
        )
        common.assert_close(jax.jit(two_steps)(*data, 0.9), want)


def test_memory_sharded_itself():
    init, update = losses.aldr_kl()
    want = update(LOGITS, LABELS, init(12), index=INDEX)
    kind = AxisType.Explicit
    with jax.set_mesh(common.mesh(kind)):
        data = (common.put(x, kind, "data") for x in (LOGITS, LABELS, INDEX))
        logits, labels, index = data
        state = jax.tree.map(lambda x: common.put(x, kind, "data"), init(12))
        got = jax.jit(update)(logits, labels, state, index=index)
        common.assert_close(got, want)
        assert jax.typeof(got[1].lam).sharding.spec[0] == "data"


def test_memory_is_one_under_shard_map_and_pmap():
    want = jax.jit(two_steps)(LOGITS, LABELS, INDEX, LIVE, 0.9)

    def local(*data):
        return two_steps(*data, 0.9, axis_name="data")

    mapped = jax.shard_map(
        local,
        mesh=common.mesh(AxisType.Auto),
        in_specs=P("data"),
        out_specs=(P("data"), P()),
    )
    data = LOGITS, LABELS, INDEX, LIVE
    common.assert_close(jax.jit(mapped)(*data), want)
    split = [x.reshape(8, 1, *x.shape[1:]) for x in data]
    got, state = jax.pmap(local, "data", out_axes=(0, None))(*split)
    common.assert_close((got.reshape(8), state), want)
    single = jax.vmap(local, axis_name="data", out_axes=(0, None))
    common.assert_close(single(*data), want)


def test_the_memory_can_be_differentiated():
    with jax.enable_x64(True):
        logits = jnp.asarray(LOGITS, jnp.float64)

        def total(lam):
            got, state = two_steps(logits, LABELS, INDEX % 7, LIVE, lam)
            return jnp.sum(got) + jnp.sum(state.lam**2)

        slope = (total(0.9 + 1e-6) - total(0.9 - 1e-6)) / 2e-6
        np.testing.assert_allclose(jax.grad(total)(0.9), slope, rtol=1e-7)


def test_the_temperature_is_constant_in_the_logits():
    init, update = losses.aldr_kl(alpha=1.5, normalize="none")

    def late(logits):
        return jnp.sum(update(logits, LABELS, init(10), index=INDEX)[0])

    _, state = update(LOGITS, LABELS, init(10), index=INDEX)
    fixed = jax.vmap(
        lambda x, y, lam: losses.ldr_kl(x, y, lam=lam, margin=1.0, normalize="none")
    )
    want = jax.grad(lambda x: jnp.sum(fixed(x, LABELS, state.lam[INDEX])))(LOGITS)
    common.assert_close(jax.grad(late)(LOGITS), want)
