"""What the case lines cannot say of the regression, ranking and sequence losses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtricks import losses
from tests.free import common
from tests.inputs import rng

VALUES = jnp.asarray(rng(71).uniform(-3, 3, size=7), jnp.float32)


# --- bins -----------------------------------------------------------------------------


def test_two_hot_has_the_value_as_its_mean():
    p = losses.two_hot(VALUES, 9, low=-4.0, high=4.0)
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-6)
    mean = losses.categorical_expectation(jnp.log(p), low=-4.0, high=4.0)
    np.testing.assert_allclose(mean, VALUES, rtol=1e-5, atol=1e-6)


def test_hl_gauss_has_nearly_that_mean_and_narrows_to_one_bin():
    p = losses.hl_gauss_targets(VALUES, 400, low=-8.0, high=8.0)
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-5)
    mean = losses.categorical_expectation(jnp.log(p), low=-8.0, high=8.0)
    np.testing.assert_allclose(mean, VALUES, atol=1e-4)
    sharp = losses.hl_gauss_targets(VALUES, 6, low=-3.0, high=3.0, sigma=1e-4)
    np.testing.assert_array_equal(sharp.argmax(-1), np.floor(VALUES + 3))
    np.testing.assert_allclose(sharp.max(-1), 1, rtol=1e-6)


def test_an_outlier_has_a_bounded_gradient():
    slope = jax.grad(losses.hl_gauss)(jnp.zeros(11), jnp.float32(1e6))
    assert np.abs(slope).max() <= 1
    np.testing.assert_allclose(slope.sum(), 0, atol=1e-6)


def test_bins_and_values_that_do_not_fit():
    common.raises(losses.hl_gauss, jnp.zeros((7, 5)), VALUES[:3], naming="values")
    for builder in (losses.hl_gauss_targets, losses.two_hot):
        common.raises(builder, VALUES, 0, naming="bins")


# --- Wasserstein ----------------------------------------------------------------------


def test_gradient_of_the_expected_distance():
    x, centers = jnp.array([0.3, -1.0, 0.8]), jnp.array([-1.0, 0.5, 3.0])

    def loss(x):
        return losses.wasserstein(x, 2, p=2.0, centers=centers)

    p = jax.nn.softmax(x)
    want = p * (jnp.square(centers - 3) - loss(x))
    np.testing.assert_allclose(jax.grad(loss)(x), want, rtol=1e-5)
    np.testing.assert_allclose(
        losses.wasserstein(x, 2, centers=centers + 7),
        p @ jnp.abs(centers - 3),
        rtol=1e-5,
    )


def test_no_distance_to_what_is_predicted():
    x = jnp.array([0.3, -1.0, 0.8])
    assert losses.earth_mover(x, jax.nn.softmax(x)) == 0
    assert losses.wasserstein(jnp.array([-jnp.inf, 2.0, -jnp.inf]), 1) == 0


def test_a_class_all_but_ruled_out_has_a_second_derivative():
    def bend(loss):
        x = jnp.array([-50.0, 0.0, 1.0])  # F_0 - G_0 is 1e-22, whose square is 0
        return jax.jvp(jax.grad(loss), (x,), (jnp.arange(3.0),))[1]

    want = bend(lambda x: jax.nn.softmax(x)[2])
    got = bend(lambda x: losses.earth_mover(x, 1))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-9)


# --- ranking --------------------------------------------------------------------------


def test_psl_activations_lie_between_the_step_and_the_exponential():
    d = jnp.linspace(-1, 1, 21)
    bound = {
        name: jnp.exp(losses.psl(jnp.zeros_like(d), d[:, None], activation=name))
        for name in ("tanh", "atan", "relu", "exp")
    }
    for name in ("tanh", "atan", "relu"):
        assert (bound[name] <= bound["exp"] * (1 + 1e-6)).all()
        assert (bound[name] >= (d >= 0) * (1 - 1e-6)).all()


def test_psl_with_exp_is_the_softmax_loss_without_the_positive():
    positive, negatives = jnp.float32(0.3), jnp.array([0.1, -0.2, 0.4])
    logits = jnp.append(negatives, positive)
    full = optax.softmax_cross_entropy_with_integer_labels(logits, 3)
    got = losses.psl(positive, negatives, activation="exp")
    np.testing.assert_allclose(jnp.log1p(jnp.exp(got)), full, rtol=1e-6)


def test_negatives_that_do_not_fit():
    for bad in (jnp.zeros((4, 2)), jnp.zeros(3), jnp.zeros((3, 3, 2))):
        common.raises(losses.psl, jnp.zeros(3), bad, naming="negatives")


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: losses.psl(x, jnp.zeros(2), activation="relu"),
        lambda x: losses.psl(x, jnp.zeros(2), activation="atan"),
        lambda x: losses.pixel_focus(x, 0.0, gamma=1.0, form="exponential"),
        losses.lamp,
    ],
)
def test_nan_stays_nan(loss):
    assert np.isnan(loss(jnp.float32(np.nan)))


def test_padding_of_a_list_changes_nothing():
    s, y = jnp.array([0.3, -1.0, 0.8]), jnp.array([2.0, 1.0, 0.0])
    longer = (
        jnp.append(s, jnp.array([-jnp.inf, -jnp.inf])),
        jnp.append(y, jnp.array([9.0, -4.0])),
    )
    want = losses.rank_net(s, y, weights="ndcg")
    np.testing.assert_allclose(
        losses.rank_net(*longer, weights="ndcg"), want, rtol=1e-6
    )
    assert losses.rank_net(jnp.array([90.0, 50.0, 0.0]), y, weights="ndcg") < 1e-9


def test_grades_too_high_for_their_gains():
    """2^130 is infinite in f32; what counts are ratios."""
    s, y = jnp.array([0.5, -0.25, 1.0]), jnp.array([30.0, 28.0, 27.0])
    want, high = (losses.rank_net(s, of, weights="ndcg") for of in (y, y + 100))
    np.testing.assert_allclose(high, want, rtol=1e-6)


# --- quantiles, likelihoods, ordered classes ------------------------------------------


def test_the_minimum_of_pinball_and_expectile():
    sample = jnp.asarray(rng(72).exponential(size=2001), jnp.float32)
    levels = jnp.array([0.2, 0.5, 0.9])

    def slope(loss, q):
        repeated = jnp.broadcast_to(q, (2001, 3))
        return jax.grad(lambda q: loss(q, sample, levels).mean())(repeated).sum(0)

    quantiles = jnp.quantile(sample, levels)
    np.testing.assert_allclose(slope(losses.pinball, quantiles), 0, atol=1e-3)
    mean = jnp.array([0.0, sample.mean(), 0.0])
    np.testing.assert_allclose(slope(losses.expectile, mean)[1], 0, atol=1e-6)


def test_the_weighted_interval_score_is_twice_the_pinball_loss():
    low, middle, high, y = 1.0, 2.5, 3.0, jnp.array([0.2, 2.0, 4.0])
    q = jnp.broadcast_to(jnp.array([low, middle, high]), (3, 3))
    alpha = 0.2
    interval = (
        high - low + 2 / alpha * (jnp.maximum(low - y, 0) + jnp.maximum(y - high, 0))
    )
    score = (jnp.abs(y - middle) / 2 + alpha / 2 * interval) / 1.5
    got = 2 * losses.pinball(q, y, jnp.array([alpha / 2, 0.5, 1 - alpha / 2]))
    np.testing.assert_allclose(got, score, rtol=1e-6)


def test_the_minimum_is_scipy_s_expectile():
    stats = pytest.importorskip("scipy.stats")
    sample = rng(72).exponential(size=50).astype(np.float32)
    levels = np.array([0.2, 0.9], np.float32)
    q = np.array([stats.expectile(sample, a) for a in levels], np.float32)
    repeated = np.broadcast_to(q, (50, 2))
    slope = jax.grad(lambda q: losses.expectile(q, sample, levels).mean())(repeated)
    np.testing.assert_allclose(slope.sum(0), 0, atol=1e-6)


def test_kinks_have_no_slope():
    slope = jax.grad(losses.pinball)(jnp.ones(2), jnp.float32(1), jnp.array([0.1, 0.8]))
    assert not slope.any()
    equal = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    np.testing.assert_array_equal(jax.grad(losses.presto)(equal), [[1, 0], [0, 0]])


def test_beta_one_gives_the_mean_the_gradient_of_the_squared_error():
    means, log_v, y = (
        jnp.array([0.3, 2.0]),
        jnp.array([-1.0, 2.0]),
        jnp.array([1.0, 1.5]),
    )
    slope = jax.grad(lambda m: losses.gaussian_nll(m, log_v, y, beta=1.0).sum())(means)
    np.testing.assert_allclose(slope, means - y, rtol=1e-5)


def test_a_sure_prediction_that_is_right_is_finite():
    value, slope = jax.value_and_grad(losses.gaussian_nll, argnums=1)(
        jnp.float32(1), jnp.float32(-150), jnp.float32(1)
    )
    np.testing.assert_allclose((value, slope), (-75, 0.5), rtol=1e-6)


def test_one_threshold_is_binary_cross_entropy():
    x = jnp.array([[0.7], [-2.0], [0.1]])
    labels = jnp.array([0, 1, 1])
    binary = optax.sigmoid_binary_cross_entropy(x[:, 0], 1 - labels)
    np.testing.assert_allclose(losses.proportional_odds(x, labels), binary, rtol=1e-6)
    np.testing.assert_allclose(losses.coral(-x, labels), binary, rtol=1e-6)


def test_coral_keeps_the_digits_of_a_small_loss():
    # 3 log(1 + e^-15), and the middle question alone wrong, by 1e4
    got = losses.coral(jnp.array([[15.0, 15, -15], [1e4, 1e4, -5]]), jnp.array([2, 1]))
    np.testing.assert_allclose(got, [9.17706821e-07, 10000.0067], rtol=1e-6)


def test_ordered_probabilities_sum_to_one():
    x = jnp.broadcast_to(jnp.array([-1.3, 0.2, 0.9]), (4, 3))
    p = jnp.exp(-losses.proportional_odds(x, jnp.arange(4)))
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-6)
    flat = jnp.zeros((2, 3))
    common.assert_finite(losses.proportional_odds(flat, jnp.array([1, 2])))


# --- bags, pixels ---------------------------------------------------------------------


def test_the_losses_of_a_bag_differ_by_its_variance():
    f, y = jnp.asarray(rng(73).normal(size=(4, 6)), jnp.float32), jnp.arange(4.0)
    apart = losses.bag(f, y, rho=1.0) - losses.bag(f, y, rho=0.0)
    np.testing.assert_allclose(apart, jnp.var(f, axis=-1), rtol=1e-5)


def test_gamma_moves_the_gradient_to_the_largest_errors():
    e = jnp.linspace(0.01, 1, 100)

    def share(gamma):
        slope = jax.grad(lambda e: losses.pixel_focus(e, 0 * e, gamma=gamma).sum())(e)
        return slope[-1] / slope.sum()

    assert share(0.0) < share(1.0) < share(3.0)


@pytest.mark.parametrize("form", ["power", "exponential"])
def test_a_detached_weight_is_the_size_of_the_gradient(form):
    e = jnp.array([0.2, -0.5])

    def loss(e):
        kwargs = {"gamma": 2.0, "form": form, "detach": True}
        return losses.pixel_focus(e, jnp.zeros(2), **kwargs).sum()

    weight = jnp.abs(e) ** 2 if form == "power" else jnp.exp(2 * jnp.abs(e))
    np.testing.assert_allclose(jax.grad(loss)(e), jnp.sign(e) * weight, rtol=1e-5)


def test_lamp_is_the_error_at_first_and_steeper_later():
    assert jax.grad(losses.lamp)(0.0) == 1
    e = jnp.linspace(0, 0.99, 34)
    slopes = jax.vmap(jax.grad(losses.lamp))(e)
    np.testing.assert_allclose(slopes, 1 / (1 - e), rtol=1e-4)
    assert (losses.lamp(e) >= e).all()


# --- sequences ------------------------------------------------------------------------


def test_eisl_of_the_whole_sequence_is_cross_entropy():
    logits = jnp.asarray(rng(74).normal(size=(2, 4, 5)), jnp.float32)
    targets = jnp.array([[0, 3, 2, 4], [1, 1, 0, 2]])
    ce = optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean(-1)
    np.testing.assert_allclose(losses.eisl(logits, targets, ngrams=(4,)), ce, rtol=1e-6)


def test_eisl_does_not_mind_a_shift():
    tokens = jnp.array([5, 0, 1, 2, 3, 4])
    logits = 20 * jax.nn.one_hot(tokens, 6)
    targets = jnp.roll(tokens, -1)  # 0 1 2 3 4 5
    loss = losses.eisl(logits, targets[:5], ngrams=(2, 3))
    assert loss < 1e-4
    shifted = optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
    assert shifted > 10


def test_eisl_noise_is_the_key_s():
    logits = jnp.asarray(rng(75).normal(size=(4, 5)), jnp.float32)
    targets = jnp.array([0, 3, 2, 4])
    a, b = jax.random.split(jax.random.key(0))
    loss = lambda key: losses.eisl(logits, targets, key=key)  # noqa: E731
    assert loss(a) == loss(a) != loss(b)


def test_padding_of_sequences_changes_nothing():
    logits = jnp.asarray(rng(76).normal(size=(6, 5)), jnp.float32)
    targets = jnp.array([0, 3, 2, 4, -1, -1])
    live = {"output_where": jnp.arange(6) < 5, "target_where": jnp.arange(6) < 4}
    got = losses.eisl(logits.at[5].set(jnp.nan), targets, ngrams=(2,), **live)
    want = losses.eisl(logits[:5], targets[:4], ngrams=(2,))
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_sinkhorn_reaches_the_best_assignment():
    optimize = pytest.importorskip("scipy.optimize")
    x, y = (jnp.asarray(rng(i).normal(size=(5, 2)), jnp.float32) for i in (77, 78))
    cost = np.sum(np.square(np.asarray(x)[:, None] - np.asarray(y)), -1) / 2
    rows, columns = optimize.linear_sum_assignment(cost)
    got = losses.sinkhorn(x, y, blur=0.03, iterations=400, debias=False)
    np.testing.assert_allclose(got, cost[rows, columns].mean(), rtol=0.02)


def test_sinkhorn_of_equal_sets_is_zero_and_order_counts_by_position_alone():
    x = jnp.asarray(rng(79).normal(size=(5, 2)), jnp.float32)
    plain = lambda y, **kwargs: losses.sinkhorn(x, y, blur=0.3, **kwargs)  # noqa: E731
    np.testing.assert_allclose(plain(x[::-1]), 0, atol=1e-5)
    np.testing.assert_allclose(plain(x, position=2.0), 0, atol=1e-5)
    assert plain(x[::-1], position=2.0) > 0.1


def test_sinkhorn_of_padded_sets():
    x, y = (jnp.asarray(rng(i).normal(size=(5, 2)), jnp.float32) for i in (77, 78))
    live = jnp.arange(5) < 3
    got = losses.sinkhorn(x.at[4].set(jnp.nan), y, x_where=live, position=1.0)
    np.testing.assert_allclose(got, losses.sinkhorn(x[:3], y, position=1.0), rtol=1e-5)
