"""Preference losses: what they are functions of."""

import jax
import numpy as np

from jaxtricks import losses
from tests.losses.golden_classification import CHOSEN, REFERENCE, REJECTED


def test_dpo_and_ipo_see_one_difference():
    shift = np.float32(1.5)
    moved = CHOSEN + shift, REJECTED + shift, *REFERENCE
    for loss in (losses.dpo, losses.ipo):
        want = loss(CHOSEN, REJECTED, *REFERENCE)
        np.testing.assert_allclose(loss(*moved), want, rtol=1e-5)


def test_swapping_the_pair_swaps_the_sign():
    """-log sigmoid(h) + log sigmoid(-h) = -h."""
    chosen, rejected = REFERENCE
    back = losses.dpo(REJECTED, CHOSEN, rejected, chosen, beta=0.5)
    h = (CHOSEN - chosen) - (REJECTED - rejected)
    got = losses.dpo(CHOSEN, REJECTED, chosen, rejected, beta=0.5) - back
    np.testing.assert_allclose(got, -0.5 * h, rtol=1e-5)


def test_ipo_is_least_at_its_margin():
    slope = jax.grad(losses.ipo)(2.5, 0.0, 0.0, 0.0, tau=0.2)
    np.testing.assert_allclose(slope, 0, atol=1e-6)


def test_an_impossible_chosen_sequence_costs_infinitely():
    value, slope = jax.value_and_grad(losses.dpo)(-np.inf, -1.0, -1.0, -1.0)
    assert np.isposinf(value)
    np.testing.assert_allclose(slope, -0.1)
    for smoothing in (0.0, 0.3):  # and if the rejected one is, nothing, or infinitely
        args = (-1.0, -np.inf, -1.0, -1.0, 0.1, smoothing)
        value, slope = jax.value_and_grad(smoothed)(*args)
        np.testing.assert_allclose(value, np.inf if smoothing else 0)
        np.testing.assert_allclose(slope, 0.1 * smoothing, atol=1e-7)


def smoothed(chosen, rejected, one, other, beta, smoothing):
    return losses.dpo(
        chosen, rejected, one, other, beta=beta, label_smoothing=smoothing
    )
