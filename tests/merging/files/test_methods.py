"""Every method of mergekit's that is shared: its parameters, on whole files, are the
leaf's keywords. What the leaves compute is compared with mergekit in tests/merging.
"""

import numpy as np
import pytest

from jaxtricks import merging
from jaxtricks.merging import files
from jaxtricks.merging.files._compute import generator
from jaxtricks.merging.files._methods import METHODS, REQUIRED
from tests.merging.files.golden_files import NUMBERS, RECIPES
from tests.merging.files.small import load, models

W = {"weight": 0.7}, {"weight": -0.4}
KEPT = {"weight": 0.5, "density": 0.6}, {"weight": 0.8, "density": 0.7}
SPARSE = {"weights": [0.5, 0.8], "density": [0.6, 0.7]}
# method, parameters of each model, those of all -> leaf, its keywords.
TABLE = [
    ("linear", W, {}, "linear", {"weights": [0.7, -0.4], "normalize": True}),
    (
        "linear",
        W,
        {"normalize": False},
        "linear",
        {"weights": [0.7, -0.4], "normalize": False},
    ),
    ("passthrough", ({"scale": 0.5},), {}, "linear", {"weights": [1.0]}),
    ("slerp", ({},), {"t": 0.3}, "slerp", {"t": 0.3}),
    ("nuslerp", W, {}, "nuslerp", {"weights": [0.7, -0.4], "rows": False}),
    (
        "nuslerp",
        W,
        {"nuslerp_flatten": False},
        "nuslerp",
        {"weights": [0.7, -0.4], "rows": True},
    ),
    (
        "multislerp",
        ({"weight": 0.7}, {"weight": 0.4}),
        {"normalize_weights": False},
        "multislerp",
        {"weights": [0.7, 0.4], "normalize": False},
    ),
    ("karcher", ({}, {}), {"max_iter": 3}, "karcher", {"max_iter": 3}),
    (
        "task_arithmetic",
        W,
        {"lambda": 0.8, "normalize": True},
        "task_arithmetic",
        {"weights": [0.7, -0.4], "scale": 0.8, "normalize": True},
    ),
    ("ties", KEPT, {}, "ties", {**SPARSE, "normalize": True}),
    (
        "ties",
        KEPT,
        {"normalize": False, "rescale": True, "lambda": 0.5},
        "ties",
        {**SPARSE, "normalize": False, "rescale": "l1", "scale": 0.5},
    ),
    (
        "dare_linear",
        KEPT,
        {},
        "dare",
        {**SPARSE, "consensus": "linear", "normalize": 0},
    ),
    (
        "dare_ties",
        KEPT,
        {"rescale": False},
        "dare",
        {**SPARSE, "consensus": "ties", "normalize": 0, "rescale": None},
    ),
    (
        "della",
        KEPT,
        {"epsilon": 0.1},
        "della",
        {**SPARSE, "consensus": "ties", "normalize": 1, "epsilon": [0.1, 0.1]},
    ),
    (
        "della_linear",
        KEPT,
        {},
        "della",
        {**SPARSE, "consensus": "linear", "normalize": 0, "epsilon": [0.15, 0.15]},
    ),
    (
        "breadcrumbs",
        KEPT,
        {"gamma": 0.1},
        "breadcrumbs",
        {**SPARSE, "consensus": "linear", "normalize": False, "gamma": [0.1, 0.1]},
    ),
    (
        "breadcrumbs_ties",
        KEPT,
        {},
        "breadcrumbs",
        {**SPARSE, "consensus": "ties", "normalize": False, "gamma": [0.01, 0.01]},
    ),
    ("sce", ({}, {}), {"select_topk": 0.6}, "sce", {"select": 0.6}),
    ("ram", ({}, {}), {"epsilon": 0.05}, "ram", {"epsilon": 0.05}),
    ("ramplus_tl", ({}, {}), {}, "ram", {"r": 0.1, "alpha": 0.2, "epsilon": 1e-5}),
    ("model_stock", ({}, {}), {}, "model_stock", {"rows": False}),
    ("model_stock", ({}, {}), {"filter_wise": True}, "model_stock", {"rows": True}),
    ("nearswap", ({},), {"t": 0.02}, "nearswap", {"t": 0.02}),
    ("arcee_fusion", ({},), {}, "arcee_fusion", {}),
]


def expected(method, leaf, keywords, base, stack, name):
    fn = getattr(merging, f"{leaf}_leaf")
    keywords = dict(keywords)
    if method == "passthrough":
        return 0.5 * stack[0]
    if leaf in ("dare", "della"):
        keywords = {"rescale": "l1", "key": generator(0, name)} | keywords
        keywords["normalize"] = bool(keywords["normalize"])
    if leaf == "slerp":
        return fn(np.stack([base, stack[0]]), **keywords)
    if leaf in ("linear", "karcher"):
        return fn(stack, **keywords)
    if leaf in ("nuslerp", "multislerp"):
        return fn(stack, base=base, **keywords)
    if leaf in ("nearswap", "arcee_fusion"):
        return fn(base, stack[0], **keywords)
    return fn(base, stack, **keywords)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0]}-{len(row[2])}")
def test_a_method_is_its_leaf(tmp_path, row):
    method, each, shared, leaf, keywords = row
    found = models(tmp_path)
    names = [f"m{i + 1}" for i in range(len(each))]
    listed = [
        {"model": str(tmp_path / n), "parameters": own}
        for n, own in zip(names, each, strict=True)
    ]
    config = {"merge_method": method, "models": listed, "parameters": shared}
    if METHODS[method].base != "no":
        config["base_model"] = str(tmp_path / "base")
    got = load(files.merge(config, tmp_path / "out"))
    for name, base in found["base"].items():
        stack = np.stack([found[n][name] for n in names])
        want = expected(method, leaf, keywords, base, stack, name)
        np.testing.assert_allclose(got[name], want, rtol=0, atol=1e-6, err_msg=name)


def test_every_method_is_tested():
    assert {row[0] for row in TABLE} == set(METHODS)


def test_the_defaults_are_those_of_mergekit():
    # Read from merge_methods of mergekit 0.1.5.
    want = {
        "linear": {"weight": REQUIRED, "normalize": 1},
        "slerp": {"t": REQUIRED},
        "nuslerp": {"weight": REQUIRED, "nuslerp_row_wise": 0, "nuslerp_flatten": 1},
        "multislerp": {"weight": REQUIRED, "normalize_weights": 1, "eps": 1e-8},
        "karcher": {"max_iter": 10, "tol": 1e-5},
        "sce": {"select_topk": 1, "int8_mask": 0},
        "ram": {"epsilon": 1e-5},
        "ramplus_tl": {"r": 0.1, "alpha": 0.2, "epsilon": 1e-5},
        "model_stock": {"filter_wise": 0},
        "nearswap": {"t": REQUIRED},
        "arcee_fusion": {},
        "passthrough": {"scale": 1},
    }
    common = {"weight": REQUIRED, "density": 1, "int8_mask": 0, "lambda": 1}
    for name, normalize, rescale, more in (
        ("task_arithmetic", 0, 0, {}),
        ("ties", 1, 0, {}),
        ("dare_linear", 0, 1, {}),
        ("dare_ties", 0, 1, {}),
        ("breadcrumbs", 0, 0, {"gamma": 0.01}),
        ("breadcrumbs_ties", 0, 0, {"gamma": 0.01}),
        ("della", 1, 1, {"epsilon": 0.15}),
        ("della_linear", 0, 1, {"epsilon": 0.15}),
    ):
        want[name] = {**common, "normalize": normalize, "rescale": rescale, **more}
    got = {
        name: {k: p.default for k, p in {**m.each, **m.shared}.items()}
        for name, m in METHODS.items()
    }
    assert got == want


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    models(folder)
    return folder


@pytest.mark.parametrize("name", RECIPES)
def test_whole_files_are_those_of_mergekit(home, tmp_path, name):
    config = RECIPES[name] | {"dtype": "float32"}
    places = {model: home / model for model in ("base", "m1", "m2", "m3")}
    named = [m for m in places if f"'{m}'" in repr(config)]
    out = files.merge(config, tmp_path / "out", models={m: places[m] for m in named})
    got = load(out)
    entries = np.concatenate([got[tensor].reshape(-1) for tensor in sorted(got)])
    np.testing.assert_allclose(entries[::41], NUMBERS[name], rtol=0, atol=1e-6)


def test_whole_files_of_every_method():
    assert {recipe["merge_method"] for recipe in RECIPES.values()} == set(METHODS)
