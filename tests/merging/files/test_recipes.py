"""Recipes that are odd or hostile: taken as mergekit takes them, or one line that names
the file and the line. What is planned for each tensor is looked at, nothing is merged.
"""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtricks.merging import files
from jaxtricks.merging.files import _compute, _explain, _recipe, _table, _yaml
from jaxtricks.merging.files._methods import METHODS
from jaxtricks.merging.files._plan import plan
from jaxtricks.merging.files._tensors import DTYPES, Tensor

F32 = DTYPES["F32"]


class Fake:
    """A checkpoint without bytes: two tensors a layer, and three around."""

    def __init__(self, name):
        self.path = Path(name)
        names = ["model.embed_tokens.weight"]
        for i in range(3):
            names += [f"model.layers.{i}.{x}.weight" for x in ("self_attn.q", "mlp.up")]
        names += ["model.norm.weight", "lm_head.weight"]
        self.tensors = {
            one: Tensor(F32, (2, 2), self.path, i * 16) for i, one in enumerate(names)
        }

    def read(self, name, begin=0, end=None):
        raise AssertionError

    def held(self, name):
        return 0

    def digests(self):
        return {}

    def close(self):
        pass


def planned(text):
    """The plan, with its table and explanation; MergeError where there is none."""
    recipe = _recipe.check(_yaml.parse(text, "c.yml"))
    made = plan(recipe, {name: Fake(name) for name in recipe.models()})
    rows(made)
    list(_explain.explanation(recipe, made))
    return made


def rows(made):
    needs = {s.name: _compute.memory(s, made.method) for s in made.steps}
    assert list(_table.report(made, needs))[-1].split()[0] == made.steps[-1].name
    same = _table.common(made)
    return {row[0]: row[1:] for row in _table.table(made, needs, same)}


LINEAR = "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: "
WEIGHT = LINEAR + "{weight: %s}"


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("1", 1.0),
        ("1e-3", 1e-3),  # text in YAML 1.1
        ("+.5", 0.5),
        ("1_000", 1000.0),
        ("0x10", 16.0),
        ("true", 1.0),
        ("'0.25'", 0.25),
        ("[3]", 3.0),
        ("{value: 2}", 2.0),
        ("[{filter: nowhere, value: 1}, {filter: '*', value: 2}]", 2.0),
    ],
)
def test_numbers_as_mergekit_reads_them(text, want):
    keywords = planned(WEIGHT % text).steps[0].keywords
    assert keywords == {"weights": [want, want], "normalize": True}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (WEIGHT % ".nan", ("c.yml:3: parameters.weight", "finite")),
        (WEIGHT % "-.inf", ("c.yml:3: parameters.weight", "finite")),
        (WEIGHT % "nan", ("c.yml:3: parameters.weight", "finite")),
        (WEIGHT % "1e999", ("c.yml:3: parameters.weight", "finite")),
        (WEIGHT % ("9" * 400), ("c.yml:3: parameters.weight", "400 digits")),
        (WEIGHT % ("1:" * 200_000 + "1"), ("c.yml:3: parameters.weight", "digits")),
        (WEIGHT % "!!float abc", ("c.yml:3: parameters.weight", "no float")),
        (WEIGHT % "!!python/name:os.system ''", ("c.yml:3: parameters.weight", "tag")),
        (WEIGHT % "!!set {1}", ("c.yml:3: parameters.weight", "tag")),
        (WEIGHT % "!!binary aGk=", ("c.yml:3: parameters.weight", "tag")),
        (WEIGHT % "2001-01-01", ("c.yml:3: parameters.weight", "2001")),
        (WEIGHT % "[]", ("c.yml:3: parameters.weight", "at least one")),
        (WEIGHT % "[1, {value: 2}]", ("c.yml:3: parameters.weight", "mixes")),
        (WEIGHT % "{value: 1, filtre: x}", ("c.yml:3", "filtre", "filter")),
        (
            WEIGHT % "[{filter: x, value: 1}]",
            ("c.yml:2", "wanted the parameter"),
        ),
        (LINEAR + "{weight: 1, normalize: 2}", ("c.yml:3: parameters.normalize", "[0")),
        (LINEAR + "{weight: 1, normalize: .5}", ("c.yml:3", "whole number")),
        (LINEAR + "{weight: 1, weight: 2}", ("c.yml:3: parameters.weight", "twice")),
        (LINEAR + "{weight: 1}\n\tx: 1", ("c.yml:4",)),
        (LINEAR + "{weight: 1}\n---\nmerge_method: ties", ("c.yml:4", "document")),
        (LINEAR + "{weight: 1}\nout_path: x", ("c.yml:4: out_path", "unknown")),
        (LINEAR + "{weight: 1}\n? [a]\n: 1", ("c.yml:1: recipe", "no text")),
        (LINEAR + '{weight: 1}\n"a\\nb": 1', ("c.yml:4: a b", "unknown")),
        (LINEAR + "{weight: *none}", ("c.yml:3", "alias")),
        (LINEAR + "{weight: \0}", ("c.yml:3", "U+0000")),
        (LINEAR + "{weight: " + "[" * 1000, ("c.yml:1", "deep")),
        ("a: &a [*a]", ("c.yml:1: a", "alias")),
        ("- 1\n- 2", ("c.yml:1: recipe", "wanted a map")),
        ("x" * 600_000, ("c.yml", "600000 characters")),
        (
            'merge_method: linear\nmodels: [{model: "a\\nb"}]\nparameters: {weight: 1}',
            ("c.yml:2: models[0].model", "no model"),
        ),
        (WEIGHT % 0, ("c.yml:1: merge_method", "give nan", "sum to 0")),
        (
            "merge_method: della\nbase_model: a\nmodels: [{model: b}]\n"
            "parameters: {weight: 1, density: .1}",
            ("c.yml:1: merge_method", "epsilon", "(0, 1)", "lm_head"),
        ),
        (
            "merge_method: karcher\nmodels: [{model: a}]\nparameters: {max_iter: 2.5}",
            ("c.yml:3: parameters.max_iter", "whole number"),
        ),
        (
            "merge_method: ties\nbase_model: a\nmodels: [{model: b}, {model: b}]\n"
            "parameters: {weight: 1}",
            ("c.yml:3: models[1].model", "twice"),
        ),
    ],
)
def test_what_is_odd_is_one_line(text, words):
    with pytest.raises(files.MergeError) as error:
        planned(text)
    said = str(error.value)
    assert "\n" not in said
    assert len(said) < 400
    for word in words:
        assert word in said


def test_a_byte_order_mark_and_windows_lines(tmp_path):
    path = tmp_path / "c.yml"
    path.write_bytes(b"\xef\xbb\xbf" + (WEIGHT % 1).replace("\n", "\r\n").encode())
    assert _recipe.read(path).method.value == "linear"
    path.write_bytes((WEIGHT % 1).encode("utf-16"))
    with pytest.raises(files.MergeError, match=r"c.yml:1: no UTF-8"):
        _recipe.read(path)


def test_the_nearest_setting_holds():
    text = """\
merge_method: linear
slices:
- sources:
  - {model: a, layer_range: [0, 1], parameters: {weight: 1}}
  - {model: b, layer_range: [0, 1]}
  parameters: {weight: [{filter: mlp, value: 2}]}
- sources: [{model: a, layer_range: [1, 3]}, {model: b, layer_range: [0, 2]}]
parameters: {weight: 3}
"""
    got = {s.name: (s.keywords["weights"], s.inputs) for s in planned(text).steps}
    at = "model.layers.{}.{}.weight".format
    assert got[at(0, "mlp.up")][0] == [1, 2]
    assert got[at(0, "self_attn.q")][0] == [1, 3]
    assert got[at(1, "mlp.up")] == (
        [3, 3],
        (("a", at(1, "mlp.up")), ("b", at(0, "mlp.up"))),
    )
    assert got["model.embed_tokens.weight"][0] == [1, 3]
    assert got["lm_head.weight"][0] == [3, 3]


def test_the_table_says_effective_weights_and_memory():
    text = """\
merge_method: linear
models:
- {model: a, parameters: {weight: [1, 3]}}
- {model: b, parameters: {weight: 1}}
"""
    found = rows(planned(text))
    first, last = "weights=[0.5 0.5]", "weights=[0.75 0.25]"
    assert found["model.layers.*.mlp.up.weight"] == (
        "3",
        "linear",
        f"{first} ... {last}",
        "48 B",
        "768 B",
    )
    assert found["lm_head.weight"][2] == first


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            WEIGHT % 1,
            ("linear_leaf", "divided by their sum", "2203.05482"),
        ),
        (
            "merge_method: ties\nbase_model: a\nmodels: [{model: b}, {model: c}]\n"
            "parameters: {weight: 1, int8_mask: true}",
            (
                "each tensor by itself",
                "0 counts as +",
                "divide by their count",
                "line 4: parameters.int8_mask has no effect",
                "mergekit's default: density=1, normalize=1",
                "arXiv:2306.01708",
            ),
        ),
        (
            "merge_method: dare_linear\nbase_model: a\nmodels: [{model: b}]\n"
            "parameters: {weight: 1, density: .5}",
            ("torch's", "divides by p", "arXiv:2311.03099"),
        ),
    ],
)
def test_the_explanation_is_of_what_was_resolved(text, words):
    recipe = _recipe.check(_yaml.parse(text, "c.yml"))
    made = plan(recipe, {name: Fake(name) for name in recipe.models()})
    said = "\n".join(_explain.explanation(recipe, made))
    for word in words:
        assert word in said
    if made.name == "linear":
        assert "torch's" not in said
        assert "sign" not in said


def test_every_method_can_be_explained():
    for name, method in METHODS.items():
        count = method.models[1] or 2
        text = {"merge_method": name, "models": [{"model": m} for m in "bcd"[:count]]}
        text["parameters"] = {"weight": 1} if "weight" in method.each else {}
        text["parameters"] |= {"t": 0.5} if "t" in method.shared else {}
        if method.base != "no":
            text["base_model"] = "a"
        assert planned(json.dumps(text)).name == name


# Recipes that are nearly right, as text of YAML: JSON is YAML, too.
NAMES = st.sampled_from(["a", "b", "c", "b@main", "b+c", "", None, 3, {"model": "a"}])
NUMBERS = st.one_of(
    st.sampled_from([0, 1, 0.5, -1, True, None, "1e-3", "x", 10**400, 2.5, [], {}]),
    st.floats(),
    st.lists(st.floats(0, 1), max_size=3),
    st.lists(
        st.fixed_dictionaries(
            {"value": st.floats(0, 1)},
            optional={"filter": st.sampled_from(["mlp", "*", "", None, 3])},
        ),
        max_size=3,
    ),
)
KEYS = [*sorted({k for m in METHODS.values() for k in [*m.each, *m.shared]}), "x", ""]
PARAMETERS = st.one_of(
    st.dictionaries(st.sampled_from(KEYS), NUMBERS, max_size=3),
    st.fixed_dictionaries(
        {"weight": st.floats(-1, 2)}, optional={"density": NUMBERS, "t": NUMBERS}
    ),
    st.sampled_from([None, [], 3]),
)
RANGES = st.one_of(st.just([0, 3]), st.lists(st.integers(-1, 4), max_size=3), st.none())
MODELS = st.lists(
    st.fixed_dictionaries({"model": NAMES}, optional={"parameters": PARAMETERS}),
    max_size=3,
)
SOURCES = st.lists(
    st.fixed_dictionaries(
        {"model": NAMES, "layer_range": RANGES}, optional={"parameters": PARAMETERS}
    ),
    max_size=3,
)
SLICES = st.lists(
    st.fixed_dictionaries(
        {"sources": SOURCES},
        optional={"parameters": PARAMETERS, "base_model": NAMES, "x": st.none()},
    ),
    max_size=2,
)
PARTS = st.dictionaries(
    st.sampled_from(["default", "layers", "model", "x", ""]),
    st.fixed_dictionaries({}, optional={"models": MODELS, "slices": SLICES}),
    max_size=2,
)
METHOD = st.sampled_from([*METHODS, "x", None])
REST = {
    "base_model": NAMES,
    "parameters": PARAMETERS,
    "dtype": st.sampled_from(["float16", "bfloat16", "x", None, 3]),
    "tokenizer_source": st.sampled_from(["base", "union", "a", None, 3]),
    "tokenizer": st.sampled_from([{}, None, {"source": "a"}, {"tokens": {}}]),
}
RECIPES = st.one_of(
    *(
        st.fixed_dictionaries({"merge_method": METHOD, key: value}, optional=REST)
        for key, value in (("models", MODELS), ("slices", SLICES), ("modules", PARTS))
    )
)


def survives(recipe, place, cut):
    """A plan, or one line; whatever is torn out of the text."""
    text = json.dumps(recipe, indent=1)
    at = place % (len(text) + 1) if cut is not None else len(text)
    text = text[:at] + (cut or "") + text[at + 1 :]
    said = None
    try:
        assert planned(text).steps
    except files.MergeError as error:
        said = str(error)
    assert said is None or "\n" not in said


TORN = {
    "recipe": RECIPES,
    "place": st.integers(0, 10_000),
    "cut": st.one_of(st.none(), st.text(max_size=3), st.sampled_from("&*!|>%@`{[-\t#")),
}


@settings(max_examples=100, deadline=None)
@given(**TORN)
def test_nearly_right_recipes(recipe, place, cut):
    survives(recipe, place, cut)


@pytest.mark.slow
@settings(max_examples=2_000, deadline=None)
@given(**TORN)
def test_many_nearly_right_recipes(recipe, place, cut):
    survives(recipe, place, cut)
