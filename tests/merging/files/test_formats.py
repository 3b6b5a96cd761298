"""Every format, dtype, shape and name, in and out."""

import hashlib
import json
import os

import ml_dtypes
import numpy as np
import pytest

from jaxtricks.merging import files, linear_leaf
from jaxtricks.merging.files._open import open_checkpoint
from tests.merging.files.small import NAMES, load, models, of_name, save
from tests.merging.files.test_merge import recipe


@pytest.mark.parametrize("format", ["safetensors", "orbax"])
def test_every_dtype_shape_and_name(tmp_path, format):
    values = np.random.default_rng(0).uniform(0.5, 4.0, (2, 3, 2))
    kinds = {name: of_name(name) for name in NAMES}
    trees = []
    for i in (0, 1):
        tree = {f"a {name}/ü": values[i].astype(kind) for name, kind in kinds.items()}
        tree |= {f"0-d {k}": x[0, 0] for k, x in tree.items()}
        tree |= {"empty": np.zeros((0, 3), np.float32), "": np.ones(1, np.float32)}
        trees.append(tree)
        save(tmp_path / f"m {i + 1} ü", tree, shards=1 + i, name="any näme")
    config = recipe(tmp_path, names=("m 1 ü", "m 2 ü"))
    if format == "orbax":
        config = recipe(tmp_path, names=("m 1 ü",))
    out = files.merge(config, tmp_path / "an out ü", format=format)
    checkpoint = open_checkpoint(out)
    assert checkpoint.tensors.keys() == trees[0].keys()
    for name, tensor in checkpoint.tensors.items():
        first, second = (np.asarray(tree[name]) for tree in trees)
        assert (tensor.dtype, tensor.shape) == (first.dtype, first.shape)
        want = first
        if tensor.is_float and format != "orbax":
            wide = np.float64 if first.dtype == np.float64 else np.float32
            stack = np.stack([first, second]).astype(wide)
            want = linear_leaf(stack, weights=[1.0, 2.0]).astype(first.dtype)
        got = checkpoint.read(name).reshape(tensor.shape)
        assert got.tobytes() == np.asarray(want).tobytes(), name
    checkpoint.close()


@pytest.mark.parametrize("names", [("a", "./a"), ("../a",), ("/a",)])
def test_names_that_are_no_folders_of_orbax(tmp_path, names):
    save(tmp_path / "m1", {name: np.ones(2, np.float32) for name in names})
    config = recipe(tmp_path, names=("m1",))
    with pytest.raises(files.MergeError, match=r"tensor \S*a is"):
        files.merge(config, tmp_path / "out", format="orbax")
    assert [x.name for x in tmp_path.iterdir()] == ["m1"]


def test_what_a_dtype_cannot_hold_is_infinite_without_a_word(tmp_path):
    for i in (1, 2):
        save(tmp_path / f"m{i}", {"w": np.float32([1e30, 1, np.nan])})
    config = recipe(tmp_path, out_dtype="float16")
    got = load(files.merge(config, tmp_path / "out"))["w"]
    np.testing.assert_array_equal(got, np.float16([np.inf, 1, np.nan]))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_dtypes(tmp_path, dtype):
    kind = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    found = models(tmp_path, dtype=kind)
    got = load(files.merge(recipe(tmp_path), tmp_path / "out"))
    name = "model.layers.1.mlp.up_proj.weight"
    wide = np.float64 if dtype == "float64" else np.float32
    stack = np.stack([found["m1"][name], found["m2"][name]]).astype(wide)
    want = linear_leaf(stack, weights=[1.0, 2.0]).astype(kind)
    assert got[name].dtype == kind
    np.testing.assert_array_equal(got[name], want)
    config = recipe(tmp_path, dtype="float16", out_dtype="float32")
    out = files.merge(config, tmp_path / "wide")
    assert load(out)[name].dtype == np.float32
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "float32"


def test_integers_are_those_of_the_first(tmp_path):
    for i in (1, 2):
        x = np.float32([i, i])
        save(tmp_path / f"m{i}", {"w": x, "ids": np.arange(i, i + 3)})
    got = load(files.merge(recipe(tmp_path), tmp_path / "out"))
    np.testing.assert_array_equal(got["ids"], [1, 2, 3])


def test_shards_in_and_out(tmp_path):
    found = models(tmp_path)
    one = load(files.merge(recipe(tmp_path), tmp_path / "one"))
    save(tmp_path / "many" / "m1", found["m1"], shards=3)
    save(tmp_path / "many" / "m2", found["m2"], name="weights", shards=2)
    config = recipe(tmp_path / "many")
    out = files.merge(config, tmp_path / "out", shard_bytes=400)
    got = load(out)
    assert got.keys() == one.keys()
    for name, x in one.items():
        np.testing.assert_array_equal(got[name], x)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(one)
    assert index["metadata"]["total_size"] == sum(x.nbytes for x in one.values())
    shards = sorted(set(index["weight_map"].values()))
    assert len(shards) > 2
    assert shards == sorted(x.name for x in out.glob("*.safetensors"))


def test_flax_msgpack_is_read(tmp_path):
    flax = pytest.importorskip("flax.serialization")
    trees = []
    for i in (1, 2):
        x = np.arange(6, dtype=np.float32).reshape(2, 3) * i
        tree = {"layers_0": {"w": x, "b": x[0].astype(ml_dtypes.bfloat16)}}
        tree |= {"scalar": np.float32(i), "count": np.int32(i)}
        trees.append(tree)
        (tmp_path / f"m{i}").mkdir()
        data = flax.msgpack_serialize(tree)
        (tmp_path / f"m{i}" / "flax_model.msgpack").write_bytes(data)
    got = load(files.merge(recipe(tmp_path), tmp_path / "out"))
    assert set(got) == {"layers_0.w", "layers_0.b", "scalar", "count"}
    want = (trees[0]["layers_0"]["w"] + 2 * trees[1]["layers_0"]["w"]) / 3
    np.testing.assert_allclose(got["layers_0.w"], want, rtol=1e-6)
    assert got["layers_0.b"].dtype == ml_dtypes.bfloat16
    np.testing.assert_allclose(got["scalar"], 5 / 3, rtol=1e-6)
    assert got["count"] == 1


def test_a_name_that_safetensors_keeps_for_itself(tmp_path):
    flax = pytest.importorskip("flax.serialization")
    for name in ("m1", "m2"):
        (tmp_path / name).mkdir()
        data = flax.msgpack_serialize({"__metadata__": np.ones(3, np.float32)})
        (tmp_path / name / "flax_model.msgpack").write_bytes(data)
    with pytest.raises(files.MergeError, match="tensor __metadata__"):
        files.merge(recipe(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_flax_msgpack_in_shards_and_in_chunks(tmp_path, monkeypatch):
    serialization = pytest.importorskip("flax.serialization")
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 20)
    big = np.arange(33, dtype=np.float32).reshape(3, 11)
    parts = ({"a": {"w": big}}, {"b": {"w": big.astype(ml_dtypes.bfloat16)}})
    (tmp_path / "m1").mkdir()
    for i, part in enumerate(parts):
        path = tmp_path / "m1" / f"flax_model-0000{i + 1}-of-00002.msgpack"
        path.write_bytes(serialization.to_bytes(part))
    config = recipe(tmp_path, names=("m1",))
    out = files.merge(config, tmp_path / "out", workers=3)
    got = load(out)
    for name, part in zip("ab", parts, strict=True):
        np.testing.assert_array_equal(got[f"{name}.w"], part[name]["w"])
    said = json.loads((out / "merge.json").read_text())["inputs"]
    digests = {
        x.name: hashlib.sha256(x.read_bytes()).hexdigest()
        for x in (tmp_path / "m1").iterdir()
    }
    assert said[str(tmp_path / "m1")] == digests
    (tmp_path / "m1" / "flax_model-00001-of-00002.msgpack").unlink()
    with pytest.raises(files.MergeError, match="-00001-of-00002"):
        files.merge(config, tmp_path / "more")


def test_shards_need_no_index_if_none_is_lost(tmp_path):
    found = models(tmp_path)
    save(tmp_path / "many" / "m1", found["m1"], shards=3, name="consolidated")
    (tmp_path / "many" / "m1" / "consolidated.safetensors.index.json").unlink()
    config = recipe(tmp_path / "many", names=("m1",))
    got = load(files.merge(config, tmp_path / "out"))
    for name, x in found["m1"].items():
        np.testing.assert_array_equal(got[name], x)
    next((tmp_path / "many" / "m1").glob("*-00002-of-*")).unlink()
    with pytest.raises(files.MergeError, match="-00002-of-00003"):
        files.merge(config, tmp_path / "more")


def test_many_small_shards_do_not_stay_open(tmp_path, monkeypatch):
    opened, real = set(), (os.open, os.close)

    def opening(path, *args):
        fd = real[0](path, *args)
        if str(path).endswith(".safetensors") and ".partial" in str(path):
            opened.add(fd)
            assert len(opened) <= 3
        return fd

    def closing(fd):
        opened.discard(fd)
        real[1](fd)

    models(tmp_path)
    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(os, "close", closing)
    out = files.merge(recipe(tmp_path), tmp_path / "out", shard_bytes=1, workers=2)
    assert len(list(out.glob("*.safetensors"))) == 30
    assert not opened
