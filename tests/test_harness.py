"""The harness bites: planted mistakes, each of which a check must catch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks import losses
from jaxtricks._mask import at_label, at_least_f32, blank
from tests import inputs
from tests.case import Case, Golden
from tests.free import CHECKS, batch
from tests.test_tricks import assert_golden, missing

LOGITS = np.array([[0.3, -1.2, 0.7], [2.0, 0.1, -0.4]], np.float32)
LABELS = np.array([2, 1], np.int32)


def cross_entropy(logits, labels, *, scale=1.0, where=None):
    """A right loss, for the plants to differ from."""
    log_p = jax.nn.log_softmax(blank(at_least_f32(logits), where))
    return blank(-scale * at_label(log_p, blank(labels, where)), where)


def wrong_constant(logits, labels, *, scale=1.0, where=None):
    return cross_entropy(logits, labels, scale=1.001 * scale, where=where)


def nan_under_where(logits, labels, *, scale=1.0, where=None):
    log_p = jax.nn.log_softmax(at_least_f32(logits))
    return blank(-scale * at_label(log_p, blank(labels, where)), where)


def float_hyperparameter(logits, labels, *, scale=1.0, where=None):
    return cross_entropy(logits, labels, scale=float(scale), where=where)


def wraps_labels(logits, labels, *, scale=1.0, where=None):
    log_p = jax.nn.log_softmax(blank(at_least_f32(logits), where))
    picked = jnp.take_along_axis(log_p, jnp.asarray(labels)[..., None], axis=-1)
    return blank(-scale * picked[..., 0], where)


def stops_gradient(logits, labels, *, scale=1.0, where=None):
    log_p = jax.nn.log_softmax(blank(at_least_f32(logits), where))
    picked = at_label(log_p, blank(labels, where))
    return blank(-scale * picked * jax.lax.stop_gradient(1 + picked), where)


def infinite_curvature(logits, labels, *, scale=1.0, where=None):
    del labels
    return blank(scale * jnp.linalg.norm(blank(logits, where), axis=-1), where)


def local_share(losses, *, temperature=1.0, where=None, axis_name=None):
    """Each device normalises by its own sum."""
    del axis_name
    weights = blank(jnp.exp(blank(jnp.asarray(losses), where) / temperature), where)
    return blank(weights / jnp.sum(weights), where)


def _failures(case: Case) -> set[str]:
    """The names of the checks that fail."""
    found = set()
    for check in CHECKS[case.kind]:
        try:
            check(case)
        except Exception:
            found.add(check.__name__)
    return found


def test_a_right_loss_passes():
    case = Case(cross_entropy, inputs.logits_and_labels, {"scale": 1.0})
    assert _failures(case) == set()


@pytest.mark.parametrize(
    ("plant", "caught_by"),
    [
        (nan_under_where, "masked"),
        (float_hyperparameter, "edges"),
        (wraps_labels, "labels_out_of_range"),
        (stops_gradient, "derivatives"),
        (infinite_curvature, "edges"),
    ],
)
def test_planted_loss_is_caught(plant, caught_by):
    case = Case(plant, inputs.logits_and_labels, {"scale": 1.0})
    with pytest.raises((AssertionError, jax.errors.ConcretizationTypeError)):
        getattr(batch, caught_by)(case)


def test_a_batch_statistic_that_ignores_sharding_is_caught():
    case = Case(local_share, inputs.losses, {"temperature": 50.0}, coupled=True)
    batch.masked(case)
    with pytest.raises(AssertionError):
        batch.collectives(case)


def test_a_wrong_constant_is_caught():
    row = Golden(
        cross_entropy,
        (LOGITS, LABELS),
        {},
        -np.log(np.exp(LOGITS[[0, 1], LABELS]) / np.exp(LOGITS).sum(1)),
        "numpy oracle",
    )
    assert_golden(row)
    with pytest.raises(AssertionError):
        assert_golden(dataclasses.replace(row, fn=wrong_constant))


def test_a_missing_row_case_or_paper_is_caught():
    public = {"losses.focal": losses.focal}
    case = Case(losses.focal, inputs.logits_and_labels)
    row = Golden(losses.focal, (), {}, 0.0, "numpy f64 oracle of arXiv:1708.02002")
    assert missing(public, [case], [row]) == []
    assert missing(public, [case], [])[0] == "losses.focal has no golden row"
    assert missing(public, [], [row]) == ["losses.focal has no case"]
    other = dataclasses.replace(row, origin="numpy f64 oracle")
    assert missing(public, [case], [other]) == [
        "losses.focal: no golden row names arXiv:1708.02002"
    ]
