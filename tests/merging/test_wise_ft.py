"""WiSE-FT and BANG: ends, linear models, confidence, who is right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks import merging
from tests.free.common import as_users_see_it, assert_close, cast_floats
from tests.free.merge import floats, make_tree


def _logits(seed, scale=1.0):
    rng = np.random.default_rng((95, seed))
    return jnp.asarray(scale * rng.normal(size=(50, 4)), jnp.float32)


def test_ends():
    base, tree = make_tree(0), make_tree(1)
    assert_close(merging.wise_ft(base, tree, alpha=0.0), base)
    assert_close(merging.wise_ft(base, tree, alpha=1.0), tree)
    assert_close(merging.wise_ft(base, tree), merging.linear([base, tree]), rtol=1e-6)
    low = merging.wise_ft(cast_floats(base, jnp.bfloat16), tree)
    assert all(x.dtype == jnp.bfloat16 for x in floats(low))
    where = {"layer": False, "scale": True, "steps": True}
    got = merging.wise_ft(base, tree, where=where)
    assert got["layer"][0]["w"] is base["layer"][0]["w"]


def test_for_a_linear_model_weights_and_logits_average_alike():
    base, tree, x = _logits(0)[:4], _logits(1)[:4], _logits(2)
    for alpha in (0.3, 0.8):
        got = x @ merging.wise_ft(base, tree, alpha=alpha)
        want = merging.calibrated_ensemble(x @ base, x @ tree, alpha=alpha)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_overconfidence():
    base, tuned = _logits(0), _logits(1, 5.0)
    assert float(merging.overconfidence(base, base)) == 1
    assert float(merging.overconfidence(base, tuned)) > 1.2
    assert float(merging.overconfidence(tuned, base)) < 1
    where = jnp.arange(50) < 30
    holes = jnp.where(where[:, None], tuned, jnp.nan)
    got = merging.overconfidence(base, holes, where=where)
    assert_close(got, merging.overconfidence(base[:30], tuned[:30]), rtol=1e-6)
    assert float(merging.overconfidence(base, tuned, where=where & False)) == 0


def test_the_temperature_makes_both_equally_sure():
    base, tuned = _logits(0), _logits(1, 5.0)
    t = jax.jit(merging.confidence_temperature)(base, tuned)
    assert float(t) > 1
    ratio = merging.overconfidence(base, tuned / t)
    np.testing.assert_allclose(ratio, 1, rtol=1e-5)
    np.testing.assert_allclose(
        merging.confidence_temperature(base, 3 * base), 3, rtol=1e-5
    )
    assert np.isfinite(merging.confidence_temperature(base, jnp.zeros((50, 4))))


def test_who_is_right_by_hand():
    base = jnp.array([[2.0, 3.0, 0.0], [3.0, 0, 0], [3.0, 0, 0], [0, 3.0, 0]])
    tuned = jnp.array([[2.0, 0.0, 3.0], [2.0, 0, 0], [0, 9.0, 0], [0, 1.0, 0]])
    labels = jnp.array([0, 0, 0, 0])
    got = merging.false_false_true(base, tuned, (base + tuned) / 2, labels)
    assert got == merging.FalseFalseTrue(0.25, 0.0, 0.5, 0.5, 0.25)
    worst = merging.false_false_true(base, base, -base, labels)
    assert (worst.ratio, worst.harmed) == (0.25, 0.5)
    one = merging.false_false_true(
        base, tuned, (base + tuned) / 2, labels, where=jnp.arange(4) < 1
    )
    assert one.ratio == 1


def test_mistakes_are_named():
    base, tree = make_tree(0), make_tree(1)
    short = {k: v for k, v in tree.items() if k != "scale"}
    with as_users_see_it():
        with pytest.raises(ValueError, match=r"tree: \['scale'\] is missing"):
            merging.wise_ft(base, short)
        with pytest.raises(ValueError, match="temperature"):
            merging.calibrated_ensemble(_logits(0), _logits(1), temperature=0.0)
        with pytest.raises(ValueError, match="where"):
            merging.overconfidence(_logits(0), _logits(1), where=jnp.ones(3, bool))
