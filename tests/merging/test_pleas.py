"""PLeaS, REPAIR, the barrier and the singular vectors: their limits and messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks import merging

SPEC = {"in": "_ h", "b": "h", "mid": "h g", "out": "g _"}
X = np.random.default_rng(5).normal(size=(64, 3)).astype(np.float32)


def model(seed, h=6, g=5):
    rng = np.random.default_rng(seed)
    shapes = {"in": (3, h), "b": (h,), "mid": (h, g), "out": (g, 2)}
    return {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}


def apply(params, x):
    h = jax.nn.relu(x @ params["in"] + params["b"].reshape(1, -1))
    return jax.nn.relu(h @ params["mid"]) @ params["out"]


A, B = model(0), model(1)
MATCHING = merging.weight_matching(SPEC, A, B)


def pleas(separate, **kwargs):
    return merging.pleas(
        apply, SPEC, A, B, X, matching=MATCHING, separate=separate, **kwargs
    )


def test_nothing_separate_and_no_fit_is_the_aligned_average():
    got = pleas(0.0, least_squares=False)
    moved = merging.apply_permutation(SPEC, MATCHING.permutation, B)
    for k in A:
        np.testing.assert_allclose(got[k], (A[k] + moved[k]) / 2, rtol=1e-6)


@pytest.mark.parametrize("least_squares", [False, True])
def test_all_separate_is_the_mean_of_both(least_squares):
    got = pleas(1.0, least_squares=least_squares)
    assert got["mid"].shape == (12, 10)
    np.testing.assert_allclose(
        apply(got, X), (apply(A, X) + apply(B, X)) / 2, rtol=1e-4, atol=1e-4
    )


def test_as_the_authors_put_it_all_separate_is_the_sum():
    got = pleas(1.0, least_squares=False, outputs="sum")
    want = apply(A, X) + apply(B, X)
    np.testing.assert_allclose(apply(got, X), want, rtol=1e-4, atol=1e-4)


def test_equal_models_are_a_fixed_point():
    found = merging.weight_matching(SPEC, A, A)
    for separate in (0.0, 0.4, {"h": 0.5}):
        got = merging.pleas(apply, SPEC, A, A, X, matching=found, separate=separate)
        np.testing.assert_allclose(apply(got, X), apply(A, X), rtol=1e-3, atol=1e-4)
    got = merging.pleas(apply, SPEC, A, A, X, matching=found)
    for k in A:
        np.testing.assert_allclose(got[k], A[k], rtol=1e-4, atol=1e-5)


def test_the_models_own_units_do_not_meet():
    got = pleas(0.5)
    blocks = merging.partial_matching(MATCHING, separate=0.5)
    m, u = len(blocks["h"].merged), len(blocks["h"].own)
    n, v = len(blocks["g"].merged), len(blocks["g"].own)
    assert got["mid"].shape == (m + 2 * u, n + 2 * v)
    assert not np.any(got["mid"][m : m + u, n + v :])
    assert not np.any(got["mid"][m + u :, n : n + v])
    assert np.any(got["mid"][m : m + u, n : n + v])


def test_the_fit_is_least_squares():
    """No change of the last layer lowers its own error, by numpy's solution."""
    got = pleas(0.0, ridge=0.0)
    p = {k: np.asarray(v) for k, v in MATCHING.permutation.items()}
    h = [np.maximum(X @ t["in"] + t["b"], 0) for t in (A, B)]
    z = [np.maximum(x @ t["mid"], 0) for x, t in zip(h, (A, B), strict=True)]
    mean = (z[0] + z[1][:, p["g"]]) / 2
    target = (z[0] @ A["out"] + z[1] @ B["out"]) / 2
    want = np.linalg.lstsq(np.float64(mean), np.float64(target), rcond=None)[0]
    np.testing.assert_allclose(got["out"], want, rtol=1e-3, atol=1e-4)


def test_without_examples_it_stays_at_the_start_and_dead_units_do_no_harm():
    start = pleas(0.0, least_squares=False)
    got = merging.pleas(apply, SPEC, A, B, X[:0], matching=MATCHING)
    for k in A:
        np.testing.assert_array_equal(got[k], start[k])
    dead = {**A, "in": A["in"] * 0, "b": A["b"] * 0 - 1}
    found = merging.weight_matching(SPEC, dead, dead)
    got = merging.pleas(apply, SPEC, dead, dead, X, matching=found, ridge=0.0)
    for k in A:
        np.testing.assert_allclose(got[k], dead[k], atol=1e-6)


def test_pleas_keeps_dtypes_and_integers():
    low = {k: jnp.asarray(v, jnp.bfloat16) for k, v in A.items()}
    low |= {"steps": jnp.arange(3), "scale": jnp.bfloat16(2.0)}
    spec = {**SPEC, "steps": "...", "scale": "..."}
    found = merging.weight_matching(spec, low, low)
    got = merging.pleas(apply, spec, low, low, X, matching=found, separate=0.5)
    assert got["mid"].dtype == got["scale"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(got["steps"], [0, 1, 2])


def test_what_pleas_refuses():
    for kwargs, name in (
        ({"separate": 1.5}, "separate"),
        ({"separate": {"x": 0.5}}, "'x'"),
        ({"separate": 0.0, "ridge": -1.0}, "ridge"),
        ({"separate": 0.0, "outputs": "all"}, "outputs"),
    ):
        # The check of annotations refuses a word that is not known before we do.
        with pytest.raises((ValueError, TypeError), match=name):
            pleas(**kwargs)
    with pytest.raises(ValueError, match="inputs: wanted finite"):
        merging.pleas(apply, SPEC, A, B, X * np.nan, matching=MATCHING)
    nested = merging.Matching(
        {"g": np.arange(2), "g/c": np.zeros((2, 1), int)},
        np.asarray(0.0),
        {"g": np.ones(2), "g/c": np.ones((2, 1))},
    )
    with pytest.raises(ValueError, match="nested"):
        merging.partial_matching(nested, separate={"g": 0.5})
    assert len(merging.partial_matching(nested, separate=0.5)["g"].merged) == 2


def test_repair_gives_the_units_their_own_mean_and_spread():
    rng = np.random.default_rng(7)
    a, b, c = (rng.normal(i, 1 + i, size=(50, 2, 4)).astype("f4") for i in range(3))
    found = merging.repair(a, b, c, weight=0.25)
    scale, shift = (np.asarray(x) for x in found)
    got = (c * scale + shift).reshape(-1, 4)
    flat = [x.reshape(-1, 4) for x in (a, b)]
    want = 0.75 * flat[0].std(0) + 0.25 * flat[1].std(0)
    np.testing.assert_allclose(got.std(0), want, rtol=1e-5)
    want = 0.75 * flat[0].mean(0) + 0.25 * flat[1].mean(0)
    np.testing.assert_allclose(got.mean(0), want, rtol=1e-4, atol=1e-5)


def test_repair_of_one_model_is_nothing_and_a_constant_unit_is_shifted():
    z = np.random.default_rng(8).normal(size=(9, 3)).astype("f4")
    found = merging.repair(z, z, z)
    np.testing.assert_allclose(found.scale, 1, rtol=1e-6)
    np.testing.assert_allclose(found.shift, 0, atol=1e-6)
    found = merging.repair(z, z, np.zeros_like(z))
    np.testing.assert_array_equal(found.scale, 1)
    grads = jax.grad(lambda c: merging.repair(z, z, c).shift.sum())(jnp.zeros((9, 3)))
    assert np.isfinite(grads).all()


def test_a_correction_folds_into_the_layer():
    rng = np.random.default_rng(9)
    w, b = rng.normal(size=(3, 4)).astype("f4"), rng.normal(size=4).astype("f4")
    scale, shift = rng.normal(size=(2, 4)).astype("f4")
    found = merging.Correction(jnp.asarray(scale), jnp.asarray(shift))
    kernel, bias = merging.fold_repair(w, b, found)
    x = rng.normal(size=(5, 3)).astype("f4")
    want = (x @ w + b) * scale + shift
    np.testing.assert_allclose(x @ kernel + bias[None], want, rtol=1e-4, atol=1e-5)
    kernel, _ = merging.fold_repair(w.astype(jnp.bfloat16), None, found)
    assert kernel.dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="correction"):
        merging.fold_repair(np.ones((3, 2), "f4"), None, found)


def test_what_repair_refuses():
    z = np.ones((4, 3), "f4")
    for args, name in (
        ((z[:, :2], z, z), "activations"),
        ((z, z[0], z), "others"),
        ((z[:0], z, z), "activations"),
    ):
        with pytest.raises(ValueError, match=name):
            merging.repair(*args)
    with pytest.raises(ValueError, match="weight"):
        merging.repair(z, z, z, weight=2.0)


def test_no_barrier_where_the_loss_is_convex_or_the_models_are_one():
    found = merging.interpolation_barrier(
        lambda t: jnp.sum(t["w"] ** 2), {"w": X}, {"w": -X}
    )
    assert float(found.barrier) == 0
    assert found.losses.shape == found.ts.shape == (11,)
    found = merging.interpolation_barrier(jnp.sum, X, X, points=2)
    np.testing.assert_allclose(found.barrier, 0, atol=1e-5)
    for kwargs, name in (({"points": 1}, "points"),):
        with pytest.raises(ValueError, match=name):
            merging.interpolation_barrier(jnp.sum, X, X, **kwargs)
    with pytest.raises(ValueError, match="other"):
        merging.interpolation_barrier(jnp.sum, X, X[:1])


def test_the_middle_is_repaired_and_the_ends_are_not():
    found = merging.interpolation_barrier(
        jnp.sum, jnp.ones(2), jnp.ones(2), points=3, repair=lambda w: 3 * w
    )
    assert found.losses.tolist() == [2.0, 6.0, 2.0]
    assert float(found.barrier) == 4


@pytest.mark.parametrize("weighted", [False, True])
def test_singular_vectors_of_one_model_agree(weighted):
    w = np.random.default_rng(3).normal(size=(2, 3, 5)).astype("f4")
    tree = {"w": w, "b": np.ones(3, "f4"), "zero": np.zeros((2, 2), "f4")}
    found = merging.singular_vector_alignment(tree, tree, weighted=weighted)
    np.testing.assert_allclose(found["w"], 1, rtol=1e-5)
    assert np.isnan(found["b"])
    assert float(found["zero"]) == 0
    found = merging.singular_vector_alignment(w, -w, threshold=0.5, weighted=weighted)
    np.testing.assert_allclose(found, -1, rtol=1e-5)
    with pytest.raises(ValueError, match="threshold"):
        merging.singular_vector_alignment(w, w, threshold=2.0)
