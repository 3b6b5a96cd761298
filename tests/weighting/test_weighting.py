"""What the weights are for: robust losses, memory across steps, causality, scales."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxtricks import reduce, weighting
from tests.free.common import as_users_see_it, assert_close, mesh
from tests.inputs import losses as example

LOSSES = example.make((8,))[0]
LIVE = np.array([True, False, True, True, False, True, False, True])
LOSS_BASED = (
    weighting.linupper,
    weighting.upper,
    weighting.extremes,
    weighting.quadratic,
)


# --- loss-based reweighting ------------------------------------------------------


@pytest.mark.parametrize("fn", [*LOSS_BASED, weighting.kl_dro])
def test_weights_are_a_distribution_of_the_live_batch(fn):
    square = LOSSES.reshape(2, 4)
    weights = fn(square, where=LIVE.reshape(2, 4))
    assert_close(jnp.sum(weights), 1.0)
    assert_close(weights.reshape(8), fn(LOSSES, where=LIVE))
    assert_close(fn(np.full(5, 3.0)), np.full(5, 0.2))
    assert_close(fn(np.float32(3.0)), 1.0)


@pytest.mark.parametrize("fn", LOSS_BASED)
def test_only_the_place_between_the_extremes_matters(fn):
    """Any scale; and an offset of 2^20, where a formula that cancels is off by 1e-2."""
    assert_close(fn(LOSSES * 1e4), fn(LOSSES))
    grid = np.round(LOSSES * 8) / 8
    assert_close(fn(grid + 2**20), fn(grid))


def test_linupper_rises_and_then_is_flat():
    losses = np.sort(LOSSES)
    weights = np.asarray(weighting.linupper(losses))
    assert (np.diff(weights) >= 0).all()
    middle = (losses[0] + losses[-1]) / 2
    assert len(set(weights[losses > middle])) == 1
    assert weights[losses > middle][0] > weights[losses < middle].max()


def test_a_range_below_the_floor_of_the_source_counts_in_part():
    """max(l_max - l_min, 1e-6): at a range of 5e-7 the scores go from -1/2 to 1/2."""
    weights = weighting.upper(np.array([0.0, 5e-7], np.float32))
    assert_close(weights[1] / weights[0], np.exp(0.5))


def test_delta_only_scales_the_temperature():
    for fn in (weighting.linupper, weighting.upper, weighting.extremes):
        got = fn(LOSSES, delta=2.0, temperature=3.0)
        assert_close(got, fn(LOSSES, temperature=1.5))


@pytest.mark.parametrize("fn", [*LOSS_BASED, weighting.kl_dro])
def test_what_is_masked_may_be_far_from_what_is_live(fn):
    """Blanked entries are 0, which at live losses of -1e4 or 5 is an extreme score."""
    for value in (-1e4, 5.0):
        losses = np.where(LIVE, value, np.nan).astype(np.float32)

        def first(r, losses=losses):
            return fn(losses, temperature=r, where=LIVE)[0]

        assert_close(fn(losses, where=LIVE), LIVE / 5)
        assert jax.grad(first)(0.1) == 0
        assert jax.grad(jax.grad(first))(0.1) == 0


def test_the_moving_form_has_derivatives_far_from_zero():
    losses = np.where(LIVE, LOSSES - 1e4, np.nan).astype(np.float32)

    def second(hyper):
        init, update = weighting.kl_dro_moving(**hyper)
        _, state = update(losses + 1, init(), where=LIVE)
        return update(losses, state, where=LIVE)[0][0]

    hyper = {"temperature": 0.1, "beta": 0.3}
    assert all(map(np.isfinite, jax.grad(second)(hyper).values()))


def test_a_live_nan_is_never_hidden():
    losses = np.where(np.arange(8) == 2, np.nan, LOSSES).astype(np.float32)
    for fn in (*LOSS_BASED, weighting.kl_dro):
        assert np.isnan(fn(losses)).all()


# --- KL-DRO ----------------------------------------------------------------------


def robust(losses, r):
    return r * (jax.nn.logsumexp(losses / r) - jnp.log(losses.size))


@pytest.mark.parametrize("r", [0.3, 2.0])
def test_kl_dro_has_the_gradient_of_the_robust_loss(r):
    """Danskin: d/dtheta sum(w l) with stopped w is d/dtheta r log mean exp(l / r)."""

    def model(theta):
        return jnp.square(LOSSES - theta) + jnp.sin(theta * LOSSES)

    def weighted(theta):
        losses = model(theta)
        return jnp.sum(weighting.kl_dro(losses, temperature=r) * losses)

    want = jax.grad(lambda theta: robust(model(theta), r))(0.7)
    assert_close(jax.grad(weighted)(0.7), want, rtol=1e-5)


def test_kl_dro_is_the_worst_distribution():
    """No other distribution has a larger penalised loss; its value is known."""
    r, rng = 0.6, np.random.default_rng(0)
    losses = LOSSES.astype(np.float64)

    def penalised(w):
        return (w * losses).sum(-1) - r * (w * np.log(8 * w)).sum(-1)

    best = penalised(np.asarray(weighting.kl_dro(LOSSES, temperature=r), np.float64))
    assert_close(best, robust(LOSSES, r), rtol=1e-5)
    assert (penalised(rng.dirichlet(np.full(8, 0.7), size=2000)) < best).all()


def batches(n):
    steps = [np.roll(LOSSES, i) * (1 + 0.2 * i) for i in range(n)]
    return np.stack(steps).astype(np.float32)


def test_the_moving_form_follows_its_recursion():
    r, beta = 0.7, 0.3
    init, update = weighting.kl_dro_moving(temperature=r, beta=beta)
    state, u = init(), None
    for losses in batches(5):
        weights, state = update(losses, state, where=LIVE)
        raised = np.exp(losses[LIVE].astype(np.float64) / r)
        u = raised.mean() if u is None else (1 - beta) * u + beta * raised.mean()
        assert_close(weights[LIVE], raised / (LIVE.sum() * u), rtol=1e-5)
        assert_close(jnp.exp(state.anchor / r + state.log_ratio), u, rtol=1e-5)


def test_the_moving_form_weighs_a_hard_batch_more_and_is_bounded():
    init, update = weighting.kl_dro_moving(temperature=0.5, beta=0.2)
    first, state = update(LOSSES, init())
    assert_close(first, weighting.kl_dro(LOSSES, temperature=0.5))
    assert jnp.sum(update(LOSSES + 1, state)[0]) > 1.5
    assert jnp.sum(update(LOSSES - 1, state)[0]) < 0.5
    assert_close(jnp.sum(update(LOSSES + 1e4, state)[0]), 1 / 0.2)


def test_a_batch_with_nothing_live_leaves_the_memory():
    init, update = weighting.kl_dro_moving()
    for state in (init(), update(LOSSES, init())[1]):
        for losses, where in ((LOSSES, LIVE & False), (LOSSES[:0], None)):
            weights, after = update(losses, state, where=where)
            assert after == state
            assert (np.asarray(weights) == 0).all()


@pytest.mark.parametrize("scale", [1.0, 1e4, -1e4])
def test_the_moving_form_keeps_its_digits_at_huge_losses(scale):
    """l / r up to 6e6: log u itself would be rounded to the nearest half."""
    r, beta = 1e-2, 0.3
    init, update = weighting.kl_dro_moving(temperature=r, beta=beta)
    state, log_u = init(), None
    for factor in (1, 1, 0.5, 0.5, 1, 0, 2, 2):
        losses = (LOSSES * scale * factor).astype(np.float32)
        weights, state = update(losses, state)
        x = losses.astype(np.float64) / r
        log_mean = np.logaddexp.reduce(x) - np.log(8)
        before = log_mean if log_u is None else log_u
        log_u = np.logaddexp(np.log(1 - beta) + before, np.log(beta) + log_mean)
        assert_close(weights, np.exp(x - log_u) / 8, rtol=1e-4)
        assert np.isfinite(np.stack(state)).all()


def test_one_example_is_a_batch():
    """With a memory of loss 0 and then 1: u = (1 + e) / 2."""
    init, update = weighting.kl_dro_moving(beta=0.5)
    _, state = update(np.array([0.0], np.float32), init())
    weights, state = update(np.array([1.0], np.float32), state)
    assert_close(weights, [2 * np.e / (1 + np.e)])
    again, _ = update(np.array([0.0], np.float32), state)
    assert_close(again, [1 / (0.5 + (1 + np.e) / 4)])


def test_the_memory_scans_and_has_derivatives():
    """The weighted loss of 4 steps, by temperature and beta, through the state."""

    def run(hyper, data):
        init, update = weighting.kl_dro_moving(**hyper)

        def step(state, losses):
            weights, state = update(losses, state, where=LIVE)
            return state, jnp.sum(weights * losses)

        return jnp.sum(jax.lax.scan(step, init(), data)[1])

    for beta in (0.3, 1.0):
        grads = jax.grad(run)({"temperature": 0.7, "beta": beta}, batches(4))
        assert np.isfinite(list(grads.values())).all()
    with jax.enable_x64(True):
        data = batches(4).astype(np.float64)
        hyper = {"temperature": jnp.array(0.7), "beta": jnp.array(0.3)}
        grads = jax.grad(run)(hyper, data)
        for key in hyper:
            up = run({**hyper, key: hyper[key] + 1e-6}, data)
            down = run({**hyper, key: hyper[key] - 1e-6}, data)
            assert_close(grads[key], (up - down) / 2e-6, rtol=1e-7, what=key)


def test_the_memory_is_replicated_under_shard_map():
    init, update = weighting.kl_dro_moving(temperature=0.7, beta=0.3)

    def step(losses, state, where):
        return update(losses, state, where=where, axis_name="data")

    sharded = jax.jit(
        jax.shard_map(
            step,
            mesh=mesh(AxisType.Auto),
            in_specs=(P("data"), P(), P("data")),
            out_specs=(P("data"), P()),
        )
    )
    state = plain = init()
    for losses in batches(3):
        got, state = sharded(losses, state, LIVE)
        want, plain = update(losses, plain, where=LIVE)
        assert_close((got, state), (want, plain))


# --- causal ----------------------------------------------------------------------


def test_causal_rows_are_independent_runs():
    square = LOSSES.reshape(2, 4)
    want = np.stack([weighting.causal(row, eps=0.3) for row in square])
    assert_close(weighting.causal(square, eps=0.3), want)
    assert_close(jax.vmap(lambda row: weighting.causal(row, eps=0.3))(square), want)
    assert_close(weighting.causal(np.float32(7.0)), 1.0)


def test_causal_decreases_and_forgets_what_is_masked():
    weights = np.asarray(weighting.causal(LOSSES, eps=0.1))
    assert (np.diff(weights) < 0).all()
    assert weights[0] == 1
    masked = weighting.causal(LOSSES, eps=0.1, where=LIVE)
    assert_close(masked[LIVE], weighting.causal(LOSSES[LIVE], eps=0.1))


def test_causal_keeps_a_small_past_beside_a_large_present():
    assert_close(weighting.causal(np.array([0.5, 1e9], np.float32))[1], np.exp(-0.5))


def test_causal_knows_the_initial_condition():
    got = weighting.causal(LOSSES, eps=0.1, initial_loss=0.002)
    assert_close(got, np.exp(-0.1 * 2) * weighting.causal(LOSSES, eps=0.1))
    slope = jax.grad(lambda x: jnp.sum(weighting.causal(LOSSES, initial_loss=x)))(0.1)
    assert slope == 0


# --- scales ----------------------------------------------------------------------


def test_normalize_is_what_reduce_mean_divides_by():
    weights = weighting.linupper(LOSSES, where=LIVE)
    flat = weighting.normalize(weights, where=LIVE)
    assert_close(jnp.mean(flat[LIVE]), 1.0)
    got = reduce.mean(flat * LOSSES, where=LIVE)
    assert_close(got, reduce.mean(LOSSES, weights=weights, where=LIVE))
    assert_close(got, jnp.sum(weights * LOSSES))
    assert (np.asarray(weighting.normalize(np.zeros(3))) == 0).all()


def test_errors_say_what_was_wanted_and_what_came():
    with as_users_see_it():
        with pytest.raises(ValueError, match="temperature: wanted > 0, came -1"):
            weighting.linupper(LOSSES, temperature=-1)
        with pytest.raises(ValueError, match=r"where: .*\(8,\), came \(3,\)"):
            weighting.kl_dro(LOSSES, where=LIVE[:3])
        with pytest.raises(ValueError, match=r"beta: wanted in .*came 1.5"):
            weighting.kl_dro_moving(beta=1.5)
