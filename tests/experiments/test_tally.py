"""What the host remembers of past steps, and the mixture that follows the losses."""

import json
import math

import numpy as np
import pytest

from experiments import driven
from experiments.config import BadInput
from experiments.tally import RECENT, Tally, by_name, trouble


def metrics(loss, domain_loss=(1.0, 3.0), domain_count=(2.0, 1.0), skipped=0):
    return {
        "loss": np.float32(loss),
        "grad_norm": np.float32(1.0),
        "skipped": np.int32(skipped),
        "domain_loss": np.float32(domain_loss),
        "domain_count": np.float32(domain_count),
    }


def test_domains_are_means_over_all_their_positions_since_cleared():
    tally = Tally(2)
    tally.add(metrics(1.0, (1.0, 3.0), (2.0, 0.0)))
    assert by_name(("a", "b"), tally.means("row")) == {"a": 1.0}
    tally.add(metrics(1.0, (4.0, 5.0), (1.0, 3.0)))
    np.testing.assert_allclose(tally.means("row"), [(2 * 1 + 4) / 3, 5.0])
    tally.clear("row")
    assert by_name(("a", "b"), tally.means("row")) == {}
    np.testing.assert_allclose(tally.means("mix"), [2.0, 5.0])


def test_a_skipped_step_counts_nowhere_but_as_skipped():
    tally = Tally(2)
    tally.add(metrics(float("nan"), (math.nan, 1.0), skipped=1))
    assert (tally.losses, tally.skipped) == ([], 1)
    assert np.isnan(tally.means("row")).all()


def test_a_spike_is_a_multiple_of_the_median_of_recent_losses():
    tally = Tally(2)
    for loss in range(9):
        tally.add(metrics(loss))
    assert tally.limit(2.0) == math.inf  # too few yet
    tally.add(metrics(9))
    assert tally.limit(2.0) == 9.0
    assert tally.limit(0.0) == math.inf
    for _ in range(RECENT):
        tally.add(metrics(5))
    assert tally.limit(2.0) == 10.0
    assert len(tally.losses) == RECENT


def test_notes_are_json_and_bring_everything_back():
    tally = Tally(2, memory=[[0.5, 0.25], 3])
    for loss in (0.1, 0.2, 1 / 3):
        tally.add(metrics(loss, (loss, 2 * loss)))
    tally.rewinds, tally.skipped = 2, 1
    again = Tally(**json.loads(json.dumps(tally.notes())))
    assert again == tally


def test_why_a_step_was_left_out():
    assert trouble(metrics(7.0), 5.0) == "the loss is 7, a spike above 5"
    assert "the loss is nan" in trouble(metrics(math.nan), math.inf)
    assert "the update is not finite" in trouble(metrics(1.0), math.inf)


def test_the_mixture_moves_to_domains_of_high_loss():
    base = np.array([0.5, 0.25, 0.25])
    driver = driven.driver(("kl_dro", "temperature=2.0"), base)
    weights, memory = driver.update(np.array([1.0, 2.0, 3.0]), driver.init)
    assert weights.sum() == pytest.approx(1)
    assert memory == driver.init == []
    ratio = weights / base
    assert ratio[0] < ratio[1] < ratio[2]
    even, _ = driver.update(np.array([2.0, 2.0, 2.0]), [])
    np.testing.assert_allclose(even, base, rtol=1e-6)


def test_a_domain_without_losses_counts_as_the_mean_of_the_others():
    base = np.array([0.25, 0.5, 0.25])
    driver = driven.driver(("kl_dro", "temperature=2.0"), base)
    known, _ = driver.update(np.array([1.0, 2.0, 3.0]), [])
    unseen, _ = driver.update(np.array([1.0, math.nan, 3.0]), [])
    np.testing.assert_allclose(unseen, known, rtol=1e-6)
    none, _ = driver.update(np.full(3, math.nan), [])
    np.testing.assert_array_equal(none, base)


def test_a_weighting_with_memory_goes_on_from_json():
    base = np.array([0.5, 0.5])
    driver = driven.driver(("kl_dro_moving",), base)
    memory, losses = driver.init, np.array([1.0, 2.0])
    for _ in range(3):
        once, after = driver.update(losses, json.loads(json.dumps(memory)))
        again, same = driver.update(losses, memory)
        np.testing.assert_array_equal(once, again)
        assert after == same != memory
        memory = after


def test_none_is_none_and_a_wrong_name_is_the_flag_s():
    assert driven.driver((), np.ones(2)) is None
    with pytest.raises(BadInput, match=r"--mix-by: unknown 'kldro'; perhaps kl_dro"):
        driven.driver(("kldro",), np.ones(2))
