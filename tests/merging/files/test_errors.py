"""What is wrong is said in one line naming file, line or tensor; nothing is left."""

import json
import os
import pickle
import struct

import numpy as np
import pytest

from jaxtricks._cli import main
from jaxtricks.merging import files
from jaxtricks.merging.files._open import open_checkpoint
from tests.merging.files.small import llama, models, save
from tests.merging.files.test_merge import recipe


def fails(config, out, *words, **options):
    """The line of a merge that fails and leaves nothing."""
    before = sorted(x.name for x in out.parent.iterdir())
    with pytest.raises(files.MergeError) as error:
        files.merge(config, out, **options)
    line = str(error.value)
    assert "\n" not in line
    assert len(line) < 600
    for word in words:
        assert word in line, line
    assert sorted(x.name for x in out.parent.iterdir()) == before
    return line


def test_truncated_and_corrupt_files(tmp_path):
    models(tmp_path)
    path = tmp_path / "m2" / "model.safetensors"
    good = path.read_bytes()
    for length in (0, 7, 8, 100, len(good) - 1):
        path.write_bytes(good[:length])
        fails(recipe(tmp_path), tmp_path / "out", str(path))
    path.write_bytes(good + b"0")
    fails(recipe(tmp_path), tmp_path / "out", str(path))
    path.write_bytes(struct.pack("<Q", 2**60) + good[8:])
    fails(recipe(tmp_path), tmp_path / "out", str(path), "header")
    path.write_bytes(struct.pack("<Q", 2) + b"{}")
    fails(recipe(tmp_path), tmp_path / "out", str(path), "holds no tensors")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"dtype": "F31"}, "dtype"),
        ({"shape": [2, -3]}, "shape"),
        ({"shape": [2, True]}, "shape"),
        ({"shape": "ab"}, "shape"),
        ({"data_offsets": [0, 20]}, "data_offsets"),
        ({"data_offsets": [8, 32]}, "ends at byte"),
        ({"shape": [0, 2**62], "data_offsets": [0, 0]}, "past what a machine"),
        ({"shape": [1] * 65, "data_offsets": [0, 4]}, "65 axes"),
        ({"more": 1}, "wanted dtype"),
    ],
)
def test_a_header_that_lies(tmp_path, change, word):
    facts = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]} | change
    text = json.dumps({"w": facts}).encode()
    path = tmp_path / "m" / "model.safetensors"
    path.parent.mkdir()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(24))
    with pytest.raises(files.MergeError, match=word) as error:
        open_checkpoint(path)
    assert "tensor w" in str(error.value)


@pytest.mark.parametrize(
    "file", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "x\0", 3, ""]
)
def test_an_index_names_files_beside_it_only(tmp_path, file):
    index = tmp_path / "m1" / "model.safetensors.index.json"
    index.parent.mkdir()
    index.write_text(json.dumps({"weight_map": {"w": file}}))
    config = recipe(tmp_path, names=("m1",))
    words = ("tensor w", "is no safetensors file beside it")
    fails(config, tmp_path / "out", str(index), *words)


def test_an_index_and_its_shards_have_to_agree(tmp_path):
    found = models(tmp_path)["m1"]
    one = recipe(tmp_path, names=("m1",))
    (tmp_path / "m1" / "model.safetensors").unlink()
    save(tmp_path / "m1", found, shards=2)
    index = tmp_path / "m1" / "model.safetensors.index.json"
    said = json.loads(index.read_text())
    said["weight_map"]["absent"] = next(iter(said["weight_map"].values()))
    index.write_text(json.dumps(said))
    fails(one, tmp_path / "out", "tensor absent is missing")
    del said["weight_map"]["absent"], said["weight_map"]["lm_head.weight"]
    index.write_text(json.dumps(said))
    fails(one, tmp_path / "out", "tensor lm_head.weight is not in")
    shard = sorted((tmp_path / "m1").glob("*.safetensors"))[0]
    shard.unlink()
    fails(one, tmp_path / "out", str(shard), "No such file")


def test_pickles_are_not_read(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    for name in ("pytorch_model.bin", "model.pt"):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        (folder / name).write_bytes(pickle.dumps(Bomb()))
        config = recipe(tmp_path, names=(folder.name,))
        fails(config, tmp_path / "out", name, "pickle")
        config["models"][0]["model"] += f"/{name}"
        fails(config, tmp_path / "out", name, "pickle")
    assert not (tmp_path / "ran").exists()


def test_shapes_and_names_that_differ(tmp_path):
    found = models(tmp_path)["m2"]
    name = "model.layers.1.mlp.up_proj.weight"
    path = str(tmp_path / "m2" / "model.safetensors")
    save(tmp_path / "m2", found | {name: found[name][:-1]})
    fails(recipe(tmp_path), tmp_path / "out", path, name, "[5, 4]", "[6, 4]")
    save(tmp_path / "m2", {k: v for k, v in found.items() if k != name})
    fails(recipe(tmp_path), tmp_path / "out", path, name, "missing")
    save(tmp_path / "m2", found | {"more": found[name]})
    fails(recipe(tmp_path), tmp_path / "out", path, "tensor more", "missing")
    embed = "model.embed_tokens.weight"
    save(tmp_path / "m2", found | {embed: found[embed][:-1]})
    fails(recipe(tmp_path), tmp_path / "out", path, embed, "the vocabularies differ")
    save(tmp_path / "m2", found | {name: found[name].astype(np.int32)})
    fails(recipe(tmp_path), tmp_path / "out", path, name, "int32")


def test_models_of_other_depths(tmp_path):
    models(tmp_path)
    save(tmp_path / "m2", llama(4, layers=5))
    for names in (("m1", "m2"), ("m2", "m1")):
        config = recipe(tmp_path, names=names)
        fails(config, tmp_path / "out", "tensor model.layers.3.", "m1", "missing")
    config = recipe(tmp_path, "ties", base="base")
    fails(config, tmp_path / "out", "tensor model.layers.3.", "base", "missing")


def test_weights_tied_in_one_model_only(tmp_path):
    found = models(tmp_path)
    head, embed = "lm_head.weight", "model.embed_tokens.weight"
    tied = {k: v for k, v in found["m2"].items() if k != head}
    save(tmp_path / "m2", tied)
    for names in (("m1", "m2"), ("m2", "m1")):
        config = recipe(tmp_path, names=names)
        line = fails(config, tmp_path / "out", head, "m2", "missing")
        assert f"--tied {head}={embed}" in line
    out = files.merge(recipe(tmp_path), tmp_path / "out", tied={head: embed})
    got = open_checkpoint(out).read(head)
    want = (found["m1"][head] + 2 * found["m2"][embed]) / 3
    np.testing.assert_allclose(got, want.reshape(-1), rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "merge_method: linear\nmodels: [{model: m1}]\nmodles: 3",
            ("c.yml:3", "modles"),
        ),
        ("merge_method: linaer\nmodels: [{model: m1}]", ("c.yml:1", "linear?")),
        ("merge_method: TIES\nmodels: [{model: m1}]", ("c.yml:1", "ties?")),
        ("models: [{model: m1}]", ("c.yml:1", "merge_method")),
        ("merge_method: linear", ("c.yml:1", "exactly one of models")),
        ("merge_method: linear\nmodels: [{model: m1}]", ("c.yml:2", "weight")),
        (
            "merge_method: linear\nmodels:\n- model: m1\n  parameters: {wieght: 1}",
            ("c.yml:4", "wieght", "weight"),
        ),
        (
            "merge_method: linear\nmodels:\n- model: m1\n  parameters: {weight: a}",
            ("c.yml:4", "wanted a number"),
        ),
        (
            "merge_method: linear\nmodels:\n- model: m1\n  parameters: {normalize: 1}",
            ("c.yml:4", "for all models"),
        ),
        ("merge_method: ties\nmodels:\n- model: m1", ("c.yml:2", "base_model")),
        (
            "merge_method: ties\nbase_model: base\nmodels:\n- model: m1\n"
            "  parameters: {weight: 1, density: 1.5}",
            ("c.yml:5", "density", "[0, 1]"),
        ),
        (
            "merge_method: linear\nmodels: [{model: m1+lora}]\n",
            ("c.yml:2", "LoRA"),
        ),
        (
            "merge_method: linear\ndtype: f33\nmodels: [{model: m1}]\n",
            ("c.yml:2", "f33"),
        ),
        (
            "merge_method: linear\nmodels: [{model: m9}]\nparameters: {weight: 1}",
            ("c.yml:2", "m9", "not on this machine"),
        ),
        (
            "merge_method: linear\nmodels: [{model: m1}]\nparameters: {weight: 1}\n"
            "tokenizer: {source: base, tokens: {a: {source: m1}}}",
            ("c.yml:4", "tokens"),
        ),
        (
            "merge_method: linear\nmodels: [{model: m1}]\nparameters: {weight: 1}\n"
            "chat_template: chatml",
            ("c.yml:4", "chatml"),
        ),
        (
            "merge_method: passthrough\nslices:\n"
            "- sources: [{model: m1, layer_range: [0, 9]}]",
            ("c.yml:3", "has 3 layers"),
        ),
        (
            "merge_method: passthrough\nslices:\n- residual_weight: 1\n  sources: []",
            ("c.yml:3", "residual_weight"),
        ),
        ("merge_method: linear\nmerge_method: ties", ("c.yml:2", "twice")),
        ("a: &a [*a]", ("c.yml:1",)),
        ("a: [", ("c.yml:1",)),
        ("", ("c.yml:1", "empty")),
        ("!!python/object/apply:os.system [ls]", ("c.yml:1",)),
        ("[" * 3000, ("c.yml:1", "deep")),
    ],
)
def test_recipes_are_answered_by_key_and_line(tmp_path, monkeypatch, text, words):
    models(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yml").write_text(text)
    fails("c.yml", tmp_path / "out", *words)


def test_the_command_says_it_in_one_line(tmp_path, monkeypatch, capsys):
    models(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yml").write_text("merge_method: 3\nmodels: [{model: m1}]")
    assert main(["merge", "c.yml", "out"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "jaxtricks: c.yml:1: merge_method: wanted text, came 3\n"
    (tmp_path / "c.yml").write_text(json.dumps(recipe(tmp_path)))
    assert main(["merge", "c.yml"]) == 2
    assert "OUT" in capsys.readouterr().err
    assert main(["merge", "c.yml", "--dry-run", "--explain"]) == 0
    said = capsys.readouterr().out
    assert "model.layers.*.mlp.up_proj.weight" in said
    assert "weights=[0.3333 0.6667]" in said
    assert "of memory at once" in said
    assert "mergekit" in said
    assert main(["merge", "c.yml", "out"]) == 0
    assert main(["merge", "c.yml", "out"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["merge", "c.yml", "out", "--overwrite", "--shard-size", "1K"]) == 0
    assert main(["average", "nowhere"]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err


def test_the_place_may_come_after_a_flag(tmp_path, monkeypatch, capsys):
    models(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yml").write_text(json.dumps(recipe(tmp_path)))
    assert main(["merge", "c.yml", "--seed", "1", "out", "--workers", "2"]) == 0
    assert capsys.readouterr().out == "out\n"
    for more in (["--nothing", "out"], ["--seed", "1", "a", "b"]):
        with pytest.raises(SystemExit):
            main(["merge", "c.yml", *more])
        assert "unrecognized arguments" in capsys.readouterr().err


def test_texts_that_are_none(tmp_path):
    models(tmp_path)
    (tmp_path / "m2" / "chat_template.jinja").write_bytes(b"\xff\xfe")
    config = recipe(tmp_path, chat_template="auto")
    fails(config, tmp_path / "out", "chat_template.jinja:1: no UTF-8 text")
    fails(tmp_path / "m1" / "model.safetensors", tmp_path / "out", "no UTF-8 text")
    (tmp_path / "c.yml").write_text("#" * 1_000_001)  # as /dev/zero is, without an end
    fails(tmp_path / "c.yml", tmp_path / "out", "more than 1000000 characters")


def test_options_that_are_none(tmp_path, monkeypatch, capsys):
    models(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yml").write_text(json.dumps(recipe(tmp_path)))
    for more in (["out"], ["--dry-run"]):
        assert main(["merge", "c.yml", "--workers", "0", *more]) == 2
        said = "jaxtricks: workers: wanted >= 1, came 0\n"
        assert capsys.readouterr() == ("", said)


def test_names_that_would_not_print_are_escaped(tmp_path):
    save(tmp_path / "m1", {"a\n\x1b[2J": np.ones(2, np.float32)})
    save(tmp_path / "m2", {"b": np.ones(2, np.float32)})
    fails(recipe(tmp_path), tmp_path / "out", "a\\n\\x1b[2J")
    text = b'{"\\ud800": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}'
    path = tmp_path / "m2" / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    fails(recipe(tmp_path), tmp_path / "out", str(path), "surrogates")
