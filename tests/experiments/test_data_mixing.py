"""Weights of domains from flags, and draws that keep to them."""

import numpy as np
import pytest

from experiments.config import BadInput
from experiments.data import mixing

NAMES, SIZES = ("a", "b c", "d"), np.array([60, 30, 10])


def of(*spec):
    return mixing.weights(spec, NAMES, SIZES)


def test_weights_of_flags():
    assert of().tolist() == [0.6, 0.3, 0.1]
    assert of("uniform").tolist() == [1 / 3] * 3
    assert of("b c=3", "a=1").tolist() == [0.25, 0.75, 0]


def test_temperature_is_the_formula():
    powers = np.array([60, 30, 10]) ** 0.5
    np.testing.assert_allclose(of("temperature=2"), powers / powers.sum(), rtol=1e-12)
    np.testing.assert_allclose(of("temperature=1"), of(), rtol=1e-12)
    np.testing.assert_allclose(of("temperature=1e9"), of("uniform"), rtol=1e-6)
    np.testing.assert_allclose(of("temperature=1e-3"), [1, 0, 0], atol=1e-12)


def test_a_domain_that_is_all_held_out_is_not_drawn():
    sizes = np.array([5, 0, 5])
    for spec in ((), ("uniform",), ("temperature=3",)):
        np.testing.assert_allclose(mixing.weights(spec, NAMES, sizes), [0.5, 0, 0.5])
    with pytest.raises(BadInput, match="'b c' has nothing to train on"):
        mixing.weights(("b c=1",), NAMES, sizes)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (["x=1"], "--mix: no domain 'x'; there are a, b c, d"),
        (["a=0", "d=0"], "--mix: wanted a weight above 0, came a=0 d=0"),
        (["a=-1"], "--mix: wanted a number >= 0 for a, came '-1'"),
        (["a=nan"], "came 'nan'"),
        (["a=inf"], "came 'inf'"),
        (["a=1", "a=2"], "--mix: 'a' is given twice"),
        (["a"], "--mix: wanted uniform, temperature=T or DOMAIN=WEIGHT ..., came 'a'"),
        (["temperature=0"], "--mix: wanted a number > 0 for temperature, came '0'"),
        (["temperature=-2"], "wanted a number > 0"),
    ],
)
def test_bad_weights_get_one_line(spec, said):
    with pytest.raises(BadInput) as caught:
        of(*spec)
    assert said in str(caught.value)


def test_weights_from_elsewhere_are_checked():
    assert mixing.normalized([1, 3], 2).tolist() == [0.25, 0.75]
    for bad in ([1], [0, 0], [-1, 2], [np.nan, 1], [np.inf, 1]):
        with pytest.raises(ValueError, match="weights: wanted"):
            mixing.normalized(bad, 2)


def test_draws_never_leave_their_due():
    rng = np.random.default_rng(0)
    for n in (1, 3, 64):
        weights = rng.dirichlet(np.full(7, 0.3))
        weights[2] = 0
        weights /= weights.sum()
        owed, total = np.zeros(7), np.zeros(7, int)
        for k in range(1, 200):
            drawn, owed = mixing.draw(owed, weights, n)
            total += drawn
            assert drawn.sum() == n
            assert (drawn >= 0).all()
            assert (total < k * n * weights + 1).all()
            assert (total > k * n * weights - 7).all()
        assert total[2] == 0
        assert np.abs(total / total.sum() - weights).max() < 7 / total.sum()


def test_draws_by_size_end_with_the_epoch():
    for sizes in ([60, 30, 10], [1, 1, 998], [7, 11, 13, 17, 16]):
        sizes = np.array(sizes)
        owed, total = np.zeros(len(sizes)), np.zeros(len(sizes), int)
        for _ in range(0, 3 * sizes.sum(), 4):
            drawn, owed = mixing.draw(owed, sizes / sizes.sum(), 4)
            total += drawn
        if 3 * sizes.sum() % 4 == 0:
            assert total.tolist() == (3 * sizes).tolist()


def test_a_weight_that_becomes_0_is_never_drawn_again():
    owed = np.zeros(3)
    for _ in range(5):
        _, owed = mixing.draw(owed, np.array([0.4, 0.35, 0.25]), 3)
    for _ in range(20):
        drawn, owed = mixing.draw(owed, np.array([0.5, 0.5, 0.0]), 3)
        assert drawn[2] == 0
        assert drawn.sum() == 3


def test_whatever_the_weights_do_a_batch_is_full_and_nothing_stays_owed():
    rng = np.random.default_rng(0)
    owed = np.zeros(8)
    for _ in range(3000):
        weights = rng.dirichlet(np.ones(8)) * (rng.random(8) < 0.4)
        if not weights.any():
            continue
        weights /= weights.sum()
        drawn, owed = mixing.draw(owed, weights, int(rng.integers(1, 5)))
        assert not drawn[weights == 0].any()
        assert owed.sum() == pytest.approx(0, abs=1e-9)
        assert owed.min() > -1
