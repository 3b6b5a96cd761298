"""Every method shared with mergekit 0.1.5, at the edges, against its numbers.

mergekit.json: setting -> kind of models -> what merge_tensors gave in float64, null
where it raises. Random masks were put in the place of its own.
"""

import json
import pathlib

import ml_dtypes
import numpy as np
import pytest

from jaxtricks import merging

NUMBERS = json.loads((pathlib.Path(__file__).parent / "mergekit.json").read_text())
W = [0.5, 0.2, 1.1]
SHAPES = {
    "scalar": (),
    "one": (1,),
    "zero change": (7,),
    "equal models": (2, 3),
    "bf16": (3, 4),
    "sparse": (2, 2, 3),
    "opposite": (5,),
    "no change": (4,),
}
_TIES = {"consensus": "ties", "rescale": "l1"}
_DELLA = {"density": 0.5, "epsilon": 0.2, "rescale": "l1"}
# The setting by mergekit's name of the method; our function, its keywords.
SETTINGS = {
    "linear": ("linear", {"weights": W}),
    "linear sum": ("linear", {"weights": W, "normalize": False}),
    "task_arithmetic": ("task_arithmetic", {"weights": W, "scale": 0.7}),
    "task_arithmetic mean": ("task_arithmetic", {"weights": W, "normalize": True}),
    "ties 0": ("ties", {"weights": W, "density": 0}),
    "ties 0.4": ("ties", {"weights": W, "density": 0.4}),
    "ties 1": ("ties", {"weights": W, "density": 1}),
    "ties l1": (
        "ties",
        {"weights": W, "density": [0.3, 0.6, 0.9], "rescale": "l1", "scale": 0.7},
    ),
    "ties sum": ("ties", {"weights": W, "density": 0.5, "normalize": False}),
    "breadcrumbs": ("breadcrumbs", {"weights": W, "density": 0.5, "gamma": 0.2}),
    "breadcrumbs 1": ("breadcrumbs", {"weights": W, "density": 1, "gamma": 0.2}),
    "breadcrumbs_ties": (
        "breadcrumbs",
        {"weights": W, "density": 0.6, "gamma": 0.2, **_TIES},
    ),
    "dare_linear": ("dare", {"weights": W, "density": 0.5, "rescale": "l1"}),
    "dare_ties": ("dare", {"weights": W, "density": 0.5, "normalize": True, **_TIES}),
    "della": ("della", {"weights": W, **_DELLA}),
    "della_linear": (
        "della",
        {"weights": W, **_DELLA, "consensus": "linear", "normalize": False},
    ),
    "sce 0": ("sce", {"select": 0}),
    "sce 0.5": ("sce", {"select": 0.5}),
    "sce 1": ("sce", {"select": 1}),
    "ram": ("ram", {"epsilon": 0.1}),
    "ramplus_tl": ("ram", {"epsilon": 0.1, "r": 0.3, "alpha": 0.6}),
    "slerp": ("slerp", {"t": 0.3}),
    "nuslerp": ("nuslerp", {"weights": W[:2]}),
    "nuslerp rows": ("nuslerp", {"weights": W[:2], "rows": True, "base": True}),
    "nuslerp columns": ("nuslerp", {"weights": W[:2], "rows": 0, "base": True}),
    "multislerp": ("multislerp", {"weights": W}),
    "multislerp base": (
        "multislerp",
        {"weights": W, "normalize": False, "base": True},
    ),
    "karcher": ("karcher", {}),
    "model_stock": ("model_stock", {}),
    "model_stock rows": ("model_stock", {"rows": True}),
    "nearswap": ("nearswap", {"t": 0.1}),
    "arcee_fusion": ("arcee_fusion", {}),
}
FREE = ("linear", "slerp", "nuslerp", "multislerp", "karcher")  # of a base
# There the way from one to the other has no direction but rounding's.
ROUNDING = {("nuslerp rows", "opposite"), ("nuslerp columns", "opposite")}


def inputs(kind):
    """The base, three models, and which changes a mask keeps."""
    rng = np.random.default_rng((41, list(SHAPES).index(kind)))
    base = rng.normal(size=SHAPES[kind])
    stack = base + 0.3 * rng.normal(size=(3, *base.shape))
    keep, mask = rng.random(stack.shape) < 0.5, rng.random(stack.shape) < 0.5
    if kind == "zero change":
        stack[0] = base
    if kind == "equal models":
        stack[:] = stack[0]
    if kind == "opposite":
        stack[1] = 2 * base - stack[0]
    if kind == "no change":
        stack[:] = base
    if kind == "sparse":
        stack = np.where(keep, base, stack)
    dtype = ml_dtypes.bfloat16 if kind == "bf16" else np.float32
    return base.astype(dtype), stack.astype(dtype), mask


def run(name, base, stack, mask, keywords):
    if keywords.pop("base", False):
        keywords["base"] = base
    if name in ("dare", "della"):
        keywords["mask"] = mask
    if name in ("slerp", "nuslerp"):
        stack = stack[:2]
    if name in ("nearswap", "arcee_fusion"):
        stack = stack[0]
    leaf = getattr(merging, f"{name}_leaf")
    return leaf(*((stack,) if name in FREE else (base, stack)), **keywords)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("setting", NUMBERS)
def test_equal_to_mergekit(setting, kind):
    name, keywords = SETTINGS[setting]
    base, stack, mask = inputs(kind)
    got = run(name, base, stack, mask, dict(keywords))
    assert got.dtype == np.float32
    wide = run(name, np.float64(base), np.float64(stack), mask, dict(keywords))
    want = NUMBERS[setting][kind]
    if want is None or (setting, kind) in ROUNDING:
        assert np.isfinite(got).all()
        return
    np.testing.assert_allclose(np.ravel(got), want, rtol=1e-6, atol=1e-6)
    # There mergekit computes masks, or ratios of counts, in f32.
    rtol = 1e-6 if name in ("dare", "della", "ram") else 1e-9
    np.testing.assert_allclose(np.ravel(wide), want, rtol=rtol, atol=rtol)


def test_every_setting_has_its_numbers():
    assert list(SETTINGS) == list(NUMBERS)
