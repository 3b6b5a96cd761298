"""mergekit 0.1.5's example recipes: what each asks for, on made-up checkpoints.

The recipes are rebuilt from their facts (method, keys, values), with short names for
the models. Each either runs, or fails naming key and line; so do those that earlier
versions had.
"""

import json
import re

import numpy as np
import pytest

from jaxtricks.merging import files
from tests.merging.files.small import llama, load, save

THREE = """\
models:
  - model: a
    parameters:
      density: [1, 0.7, 0.1]
      weight: 1.0
  - model: b
    parameters:
      density: 0.5
      weight: [0, 0.3, 0.7, 1]
  - model: c
    parameters:
      density: 0.33
      weight:
        - filter: mlp
          value: 0.5
        - value: 0
merge_method: ties
base_model: base
parameters: {normalize: true, int8_mask: true}
dtype: float16
"""
GRADIENT = """\
slices:
  - sources:
      - {model: a, layer_range: [0, 40]}
      - {model: b, layer_range: [0, 40]}
merge_method: slerp
base_model: a
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5
dtype: float16
"""
EXAMPLES = {
    "arcee_fusion.yml": """\
models: [{model: a}, {model: b}]
merge_method: arcee_fusion
base_model: a
dtype: bfloat16
""",
    "bio-merge.yml": """\
models:
  - {model: a, parameters: {density: 0.5, weight: 0.5}}
  - {model: b, parameters: {density: 0.5, weight: 0.5}}
merge_method: ties
base_model: base
parameters: {normalize: false, int8_mask: true}
dtype: float16
""",
    "gradient-slerp.yml": GRADIENT,
    "linear.yml": """\
models:
  - {model: a, parameters: {weight: 1.0}}
  - {model: b, parameters: {weight: 0.3}}
  - {model: c, parameters: {weight: 0.5}}
merge_method: linear
dtype: float16
""",
    "orcamini-platy-44layer.yml": """\
slices:
  - sources: [{model: a, layer_range: [0, 24]}]
  - sources: [{model: b, layer_range: [20, 40]}]
merge_method: passthrough
dtype: float16
""",
    "ties.yml": THREE,
}
# What runs elsewhere and not here says so by key and line.
REFUSED = {
    "mega.yml, two recipes in a file": (
        f"{GRADIENT}---\n{THREE}",
        GRADIENT.count("\n") + 1,
        "second document",
    ),
    "mega.yml, where its results go": (
        f"{GRADIENT}out_path: ./slerp\n",
        GRADIENT.count("\n") + 1,
        "out_path",
    ),
    "a method of a plug-in": (
        "models: [{model: a}]\nmerge_method: metrics",
        2,
        "merge_method",
    ),
    "a LoRA": ("models: [{model: a+b}]\nmerge_method: linear", 1, "models[0].model"),
    "tokens of a union": (
        "models: [{model: a}]\nmerge_method: linear\ntokenizer:\n  tokens: {x: {}}",
        4,
        "tokenizer.tokens",
    ),
    "padding": (
        "models: [{model: a}]\nmerge_method: linear\n"
        "tokenizer:\n  pad_to_multiple_of: 8",
        4,
        "tokenizer.pad_to_multiple_of",
    ),
    "a named template": (
        "models: [{model: a}]\nmerge_method: linear\nparameters: {weight: 1}\n"
        "chat_template: chatml",
        4,
        "chat_template",
    ),
    "another architecture": (
        "models:\n- model: {model: a, override_architecture: X}\nmerge_method: linear",
        2,
        "override_architecture",
    ),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """40 layers, as the recipes have it."""
    folder = tmp_path_factory.mktemp("models")
    small = {"layers": 40, "h": 2, "inter": 3, "vocab": 3}
    base = llama(0, **small)
    for i, name in enumerate(("base", "a", "b", "c")):
        found = base if i == 0 else llama(i, base, **small)
        kept = ("q_proj", "up_proj", "embed", "model.norm", "head")
        found = {k: v for k, v in found.items() if any(x in k for x in kept)}
        save(folder / name, found)
    return {name: folder / name for name in ("base", "a", "b", "c")}


def used(text, places):
    return {name: places[name] for name in re.findall(r"model: (\w+)", text)}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(tmp_path, places, name):
    config = tmp_path / name
    config.write_text(EXAMPLES[name])
    out = files.merge(config, tmp_path / "out", models=used(EXAMPLES[name], places))
    got = load(out)
    layers = 44 if "44" in name else 40
    assert len(got) == 3 + 2 * layers
    wanted = "bfloat16" if "arcee" in name else "float16"
    assert {x.dtype.name for x in got.values()} == {wanted}
    assert all(np.isfinite(x.astype(np.float32)).all() for x in got.values())
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == wanted


def test_gradients_filters_and_fallbacks_of_the_examples(tmp_path, places):
    a, b = load(places["a"]), load(places["b"])
    config = tmp_path / "c.yml"
    config.write_text(GRADIENT.replace("float16", "float32"))
    out = files.merge(config, tmp_path / "out", models=used(GRADIENT, places))
    got = load(out)
    first, last = "model.layers.0.", "model.layers.39."
    q, up = "self_attn.q_proj.weight", "mlp.up_proj.weight"
    np.testing.assert_array_equal(got[first + q], a[first + q])
    np.testing.assert_allclose(got[last + q], b[last + q], rtol=1e-6)
    np.testing.assert_allclose(got[first + up], b[first + up], rtol=1e-6)
    np.testing.assert_allclose(got[last + up], a[last + up], rtol=1e-6)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused(tmp_path, places, name):
    text, line, key = REFUSED[name]
    (tmp_path / "c.yml").write_text(text)
    with pytest.raises(files.MergeError, match=f"c.yml:{line}: ") as error:
        files.merge(tmp_path / "c.yml", tmp_path / "out", models={"a": places["a"]})
    assert key in str(error.value)
    assert not (tmp_path / "out").exists()
