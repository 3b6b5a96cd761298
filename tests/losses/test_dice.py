"""Dice: sets, hard negatives, and the edges of smoothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks import losses
from tests.free import common
from tests.inputs import logits_and_labels, rng

LOGITS, LABELS = logits_and_labels.make((4, 5))
KEEP = rng(8).random((4, 5)) < 0.7


@pytest.mark.parametrize("hard", [None, 1.0])
def test_positions_that_do_not_count_are_not_there(hard):
    logits, labels = LOGITS.copy(), LABELS.copy()
    logits[~KEEP], labels[~KEEP] = np.nan, -1
    kwargs = {"alpha": 0.5, "gamma": 0.2, "hard_negatives": hard}
    got = losses.dice_set(logits, labels, positions=KEEP, **kwargs)
    for i, keep in enumerate(KEEP):
        want = losses.dice_set(LOGITS[i, keep], LABELS[i, keep], **kwargs)
        np.testing.assert_allclose(got[i], want, rtol=1e-5)


def test_one_position_is_one_example():
    got = losses.dice_set(LOGITS[:, :1], LABELS[:, :1], alpha=0.7, gamma=0.3)
    want = losses.self_adjusting_dice(LOGITS[:, 0], LABELS[:, 0], alpha=0.7, gamma=0.3)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_no_position_costs_nothing():
    def loss(logits):
        return losses.dice_set(logits, LABELS[0], positions=np.zeros(5, bool))

    assert loss(LOGITS[0]) == 0
    assert (jax.grad(loss)(LOGITS[0]) == 0).all()


def test_hard_negatives_are_the_most_wrong():
    logits = jnp.array([3.0, -1.0, 2.0, 0.5, 1.0, -4.0])[:, None]
    y = np.array([1, 0, 0, 0, 0, 1], np.float32)[:, None]
    kwargs = {"activation": "sigmoid", "gamma": 1.0}
    for ratio, kept in ((0.0, [0, 5]), (1.0, [0, 5, 2, 4]), (1.5, [0, 5, 2, 4, 3])):
        got = losses.dice_set(logits, y, hard_negatives=ratio, **kwargs)
        want = losses.dice_set(logits[np.array(kept)], y[kept], **kwargs)
        np.testing.assert_allclose(got, want, rtol=1e-6)
    many = losses.dice_set(logits, y, hard_negatives=100, **kwargs)
    np.testing.assert_allclose(many, losses.dice_set(logits, y, **kwargs), rtol=1e-6)


@pytest.mark.parametrize("squared", [False, True])
def test_without_smoothing_nothing_is_nan(squared):
    logits = jnp.array([-jnp.inf, 1e4, -1e4, 0.0])

    def loss(logits, alpha):
        return losses.self_adjusting_dice(
            logits, 1, alpha=alpha, gamma=0.0, squared=squared
        )

    for alpha in (0.0, 1.0, 2.5):
        common.assert_finite(loss(logits, alpha))
        common.assert_finite(jax.grad(loss, argnums=(0, 1))(logits, alpha))
        common.assert_finite(jax.hessian(loss)(logits, alpha))


def test_easy_examples_fade_in_the_logits():
    slopes = jax.vmap(jax.grad(lambda x: losses.self_adjusting_dice(x, 0)))
    easy = slopes(jnp.array([[4.0, 0.0], [8.0, 0.0], [16.0, 0.0]]))
    sizes = np.linalg.norm(easy, axis=-1)
    assert (sizes[1:] < sizes[:-1] / 20).all()


def test_a_perfect_prediction_costs_nothing():
    logits = jnp.array([200.0, 0.0, 0.0])
    for loss in (losses.dice, losses.tversky):
        for gamma in (1e-6, 1.0):
            np.testing.assert_allclose(loss(logits, 0, gamma=gamma), 0, atol=1e-6)
    # ... but self-adjusting dice takes it for no prediction at all.
    np.testing.assert_allclose(losses.self_adjusting_dice(logits, 0), 0.5, rtol=1e-6)


def test_shapes_that_do_not_fit_are_named():
    for bad in (LABELS[:, :3], np.zeros((4, 5, 3), np.float32)):
        common.raises(losses.dice_set, LOGITS, bad, naming="labels|targets")
    for bad in (KEEP[0], KEEP[:, 0]):
        common.raises(
            losses.dice_set, LOGITS, LABELS, positions=bad, naming="positions"
        )
