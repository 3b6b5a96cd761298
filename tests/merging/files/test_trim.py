"""What is kept of a tensor that is seen in parts is what the leaf keeps of it whole."""

import numpy as np
import pytest

from jaxtricks.merging import ties_leaf
from jaxtricks.merging._consensus import combine
from jaxtricks.merging._sparsify import largest
from jaxtricks.merging.files import _compute, merge
from jaxtricks.merging.files._elect import elected
from jaxtricks.merging.files._trim import Cut, bits
from tests.merging.files.small import load, save

RNG = np.random.default_rng(0)
RANDOM = RNG.normal(size=3000).astype(np.float32)
STRANGE = np.where(np.arange(3000) % 7 == 0, np.nan, RANDOM).astype(np.float32)
STRANGE[5:50:3] = -np.inf
KINDS = {
    "random": RANDOM,
    "float64": RANDOM.astype(np.float64),
    "equal magnitudes": np.round(2 * RANDOM),
    "zeros": np.where(np.abs(RANDOM) < 1, 0, RANDOM).astype(np.float32),
    "one value": np.full(3000, -0.5, np.float32),
    "NaN and infinities": STRANGE,
    "subnormal": RANDOM * np.float32(1e-41),
    "one entry": RANDOM[:1],
}
SAMPLES = {
    "none": lambda x: None,
    "good": lambda x: bits(x[:: max(1, len(x) // 500)]),
    "too low": lambda x: bits(x) // 2**20,
    "too high": lambda x: np.full(200, 2**31 - 1, bits(x).dtype),
}


def parts(x, length=70):
    return np.split(x, range(length, len(x), length))


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("kind", KINDS)
def test_parts_keep_what_the_whole_keeps(kind, sample):
    x = KINDS[kind]
    for density in (0.0, 1e-4, 0.3, 0.9, 0.9999, 1.0):
        cut, passes = Cut(x.size, density, SAMPLES[sample](x)), 0
        while not cut.is_found:
            for part in parts(x):
                cut.count(part)
            cut.settle()
            passes += 1
        assert passes <= (1 if sample == "none" else 2)
        trimmed = x.copy()
        for part in parts(trimmed):
            cut.trim(part)
        (mask,) = largest(np, [x[None]], density)
        np.testing.assert_array_equal(trimmed, np.where(mask[0], x, 0))


def test_a_sample_saves_memory():
    x = RNG.normal(size=200_000).astype(np.float32)
    cut = Cut(x.size, 0.3, bits(x[::20]))
    cut.count(x)
    assert 0 < sum(part.size for part in cut._between) < x.size / 10
    assert cut.settle()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_election_in_place_is_the_one_of_the_leaf(n, normalize):
    changes = np.stack([np.roll(STRANGE, 3 * i) * (-1) ** i for i in range(n)])
    changes[:, 100:200] = np.round(changes[:, 100:200])
    weights = RNG.normal(size=n).astype(np.float32)
    with np.errstate(all="ignore"):
        want = combine(np, changes, weights, normalize=normalize)
        got = elected(changes, weights, normalize=normalize)
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("density", [0.2, 1.0])
def test_a_file_is_sampled_and_trimmed_as_the_leaf(tmp_path, monkeypatch, density):
    monkeypatch.setattr(_compute, "CHUNK", 70)
    monkeypatch.setattr(_compute, "SAMPLE", (8, 4))
    base, change = RANDOM.reshape(50, 60), np.roll(RANDOM, 7).reshape(50, 60)
    other = np.round(change[::-1])
    for name, x in (("b", base), ("m", base + change), ("n", base + other)):
        save(tmp_path / name, {"w": x})
    listed = [{"model": str(tmp_path / name)} for name in "mn"]
    parameters = {"weight": 0.5, "density": density, "lambda": 0.7}
    config = {"merge_method": "ties", "models": listed, "parameters": parameters}
    out = merge(config | {"base_model": str(tmp_path / "b")}, tmp_path / "out")
    stack = np.stack([base + change, base + other])
    want = ties_leaf(base, stack, weights=[0.5, 0.5], density=density, scale=0.7)
    np.testing.assert_array_equal(load(out)["w"], want)
