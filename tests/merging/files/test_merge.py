"""Whole files: every format in, safetensors and orbax out, the same bytes each time."""

import hashlib
import itertools
import json
import os
import pathlib
import subprocess
import sys
import threading

import numpy as np
import pytest

from jaxtricks.merging import files, linear_leaf, ties_leaf
from jaxtricks.merging.files import _compute, _merge, _run
from tests.merging.files.small import llama, load, models, save

ROOT = pathlib.Path(__file__).parents[3]


def recipe(folder, method="linear", names=("m1", "m2"), base=None, **top):
    found = {"merge_method": method, "models": [], **top}
    for i, name in enumerate(names):
        own = {"weight": 1.0 + i} if method in ("linear", "ties") else {}
        found["models"].append({"model": str(folder / name), "parameters": own})
    if base:
        found["base_model"] = str(folder / base)
    return found


def test_linear_is_the_leaf(tmp_path):
    found = models(tmp_path)
    out = files.merge(recipe(tmp_path), tmp_path / "out")
    got = load(out)
    assert list(got) == list(found["m1"])
    for name, x in got.items():
        stack = np.stack([found["m1"][name], found["m2"][name]])
        np.testing.assert_array_equal(x, linear_leaf(stack, weights=[1.0, 2.0]))


@pytest.mark.parametrize("density", [0.0, 0.01, 0.4, 1.0])
@pytest.mark.parametrize("kind", ["random", "ties", "zero"])
def test_trimming_in_parts_is_the_leaf(tmp_path, monkeypatch, density, kind):
    # Chunks of 7 entries; in "ties" many changes have the same magnitude.
    monkeypatch.setattr(_compute, "CHUNK", 7)
    rng = np.random.default_rng(3)
    base = rng.normal(size=(5, 6)).astype(np.float32)
    change = rng.normal(size=(2, 5, 6)).astype(np.float32)
    if kind == "ties":
        base, change = np.round(base), np.round(change)
    stack = base + change * (kind != "zero")
    for name, x in zip(("base", "m1", "m2"), (base, *stack), strict=True):
        save(tmp_path / name, {"w": x, "scalar": x[0, 0], "none": x[:0]})
    parameters = {"density": density, "lambda": 0.7}
    config = recipe(tmp_path, "ties", base="base", parameters=parameters)
    got = load(files.merge(config, tmp_path / "out"))
    keywords = {"weights": [1.0, 2.0], "density": [density] * 2, "scale": 0.7}
    want = ties_leaf(base, stack, **keywords)
    np.testing.assert_allclose(got["w"], want, rtol=0, atol=1e-6)
    assert got["scalar"].shape == ()
    assert got["none"].shape == (0, 6)


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    models(tmp_path)
    parameters = {"density": 0.5}
    config = recipe(tmp_path, "ties", base="base", parameters=parameters)
    outs = [
        files.merge(config, tmp_path / f"out{i}", workers=workers)
        for i, workers in enumerate((1, 4))
    ]
    (tmp_path / "c.yml").write_text(json.dumps(config))
    code = "import sys; from jaxtricks._cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["merge", "c.yml", "out2", "--workers", "3"]
    subprocess.run(
        [sys.executable, "-c", code, *words],
        check=True,
        capture_output=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "PYTHONHASHSEED": "7"},
    )
    for path in outs[0].iterdir():
        for other in (outs[1], tmp_path / "out2"):
            assert path.read_bytes() == (other / path.name).read_bytes(), path.name


def test_random_methods_depend_on_the_seed_and_the_name(tmp_path):
    models(tmp_path)
    config = recipe(tmp_path, "ties", base="base", parameters={"density": 0.5})
    config["merge_method"] = "dare_ties"
    a, b, c = (
        load(files.merge(config, tmp_path / f"o{i}", seed=seed, workers=1 + i))
        for i, seed in enumerate((0, 0, 1))
    )
    name = "model.layers.1.mlp.up_proj.weight"
    np.testing.assert_array_equal(a[name], b[name])
    assert not np.array_equal(a[name], c[name])


def test_checksums_are_of_the_files(tmp_path):
    models(tmp_path)
    out = files.merge(recipe(tmp_path, base=None), tmp_path / "out")
    about = json.loads((out / "merge.json").read_text())
    for name in ("m1", "m2"):
        data = (tmp_path / name / "model.safetensors").read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        said = about["inputs"][str(tmp_path / name)]
        assert said == {"model.safetensors": digest}
    assert about["config"] == recipe(tmp_path)
    assert about["method"] == "linear"


def test_checksums_whatever_the_order_of_the_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(_compute, "CHUNK", 3)
    found = models(tmp_path)
    turned = dict(reversed(found["m2"].items()))
    save(tmp_path / "m2", turned | {"extra": np.arange(9)})
    save(tmp_path / "m1", found["m1"] | {"extra": np.arange(9)})
    out = files.merge(recipe(tmp_path), tmp_path / "out", workers=4)
    said = json.loads((out / "merge.json").read_text())["inputs"]
    data = (tmp_path / "m2" / "model.safetensors").read_bytes()
    assert said[str(tmp_path / "m2")] == {
        "model.safetensors": hashlib.sha256(data).hexdigest()
    }


def test_the_progress_is_drawn_where_it_is_wanted(tmp_path, capsys):
    models(tmp_path)
    files.merge(recipe(tmp_path), tmp_path / "quiet")  # no terminal
    assert capsys.readouterr() == ("", "")
    files.merge(recipe(tmp_path), tmp_path / "out", progress=True)
    line, end = capsys.readouterr().err.rsplit("\r", 1)
    assert "/s" in line
    assert line.endswith(" left\x1b[K")
    assert end == "\x1b[K"


def test_several_tensors_are_in_flight(tmp_path, monkeypatch):
    both, compute = threading.Barrier(2, timeout=20), _run.compute
    met = []

    def meeting(step, *args):
        if not met:
            both.wait()
            met.append(step.name)
        return compute(step, *args)

    models(tmp_path)
    monkeypatch.setattr(_run, "compute", meeting)
    files.merge(recipe(tmp_path), tmp_path / "out", workers=2)
    assert met


MEASURED = """
import sys
from jaxtricks.merging import files
files.merge("c.yml", "out", workers=2, format=sys.argv[1])
lines = open("/proc/self/status").read().split("\\n")
print(*[x.split()[1] for x in lines if x.startswith("VmHWM")])
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="Linux says it")
@pytest.mark.parametrize("format", ["safetensors", "orbax"])
def test_memory_is_that_of_the_tensors_in_flight(tmp_path, format):
    rng = np.random.default_rng(0)
    peaks = []
    for count in (8, 32):  # tensors of 4 MB in each model
        folder = tmp_path / str(count)
        for name in ("m1", "m2"):
            tree = {f"w{i}": rng.random((1024, 1024), "f4") for i in range(count)}
            save(folder / name, tree)
        (folder / "c.yml").write_text(json.dumps(recipe(folder)))
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, format],
            capture_output=True,
            text=True,
            cwd=folder,
            env={"PYTHONPATH": str(ROOT), "PATH": ""},
        )
        assert done.stderr == ""
        peaks.append(int(done.stdout) * 1024)
    assert peaks[1] - peaks[0] < 32e6  # of 200 MB more in the inputs


SAID = """
from contextlib import ExitStack
from jaxtricks.merging.files import _merge, _run

def peak():
    return 1024 * int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])

with ExitStack() as stack:
    ready = _merge.prepare("c.yml", stack)
    said = _run.budget(_run.needs(ready.plan, ready.checkpoints), 1)
before = peak()
_merge.merge("c.yml", "out", workers=1)
print(peak() - before, said)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="Linux says it")
@pytest.mark.parametrize(
    ("method", "count", "dtype"),
    [
        *itertools.product(
            ["della", "dare_ties", "ramplus_tl", "ties"], [1, 3], ["f4"]
        ),
        *[("della", 3, "f8"), ("ties", 3, "f8")],
    ],
)
def test_memory_is_what_was_said(tmp_path, method, count, dtype):
    rng = np.random.default_rng(0)
    for name in ("base", "m1", "m2", "m3"):
        tree = {f"w{i}": rng.normal(size=(2000, 2000)).astype(dtype) for i in range(2)}
        save(tmp_path / name, tree)
    config = recipe(tmp_path, method, ("m1", "m2", "m3")[:count], "base")
    if method != "ramplus_tl":
        config["parameters"] = {"density": 0.3, "weight": 1.0}
    config["out_dtype"] = "float32"
    (tmp_path / "c.yml").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-c", SAID],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )
    assert done.stderr == ""
    used, said = map(int, done.stdout.split())
    assert used < said + 8e6  # what the allocator keeps


def test_slices_renumber_layers(tmp_path):
    found = models(tmp_path)
    sources = [("m1", [0, 2]), ("m2", [1, 3])]
    config = {
        "merge_method": "passthrough",
        "slices": [
            {"sources": [{"model": str(tmp_path / m), "layer_range": layers}]}
            for m, layers in sources
        ],
    }
    out = files.merge(config, tmp_path / "out")
    got = load(out)
    assert len({x.split(".")[2] for x in got if ".layers." in x}) == 4
    rest = "mlp.up_proj.weight"
    for into, (model, layer) in enumerate((("m1", 0), ("m1", 1), ("m2", 1), ("m2", 2))):
        want = found[model][f"model.layers.{layer}.{rest}"]
        np.testing.assert_array_equal(got[f"model.layers.{into}.{rest}"], want)
    first, last = "model.embed_tokens.weight", "lm_head.weight"
    np.testing.assert_array_equal(got[first], found["m1"][first])
    np.testing.assert_array_equal(got[last], found["m2"][last])
    assert json.loads((out / "config.json").read_text())["num_hidden_layers"] == 4


def test_modules_have_layers_and_parameters_of_their_own(tmp_path):
    for i in (1, 2):
        one = llama(i, layers=2)
        two = {f"text.{k}": v for k, v in llama(i + 2, layers=3).items()}
        save(tmp_path / f"m{i}", {**{f"vision.{k}": v for k, v in one.items()}, **two})
    listed = recipe(tmp_path)["models"]
    modules = {
        "text": {"models": listed},
        "vision": {"models": listed[:1]},
        "default": {"models": listed[:1]},
    }
    config = {"merge_method": "linear", "modules": modules}
    got = load(files.merge(config, tmp_path / "out"))
    name = "vision.model.layers.1.mlp.up_proj.weight"
    inputs = [load(tmp_path / f"m{i}") for i in (1, 2)]
    np.testing.assert_array_equal(got[name], inputs[0][name])
    name = "text.model.layers.2.mlp.up_proj.weight"
    want = linear_leaf(np.stack([x[name] for x in inputs]), weights=[1.0, 2.0])
    np.testing.assert_array_equal(got[name], want)
    assert set(got) == set(inputs[0])


def test_tokenizer_and_template_are_copied_through(tmp_path):
    models(tmp_path)
    vocabulary = {"model": {"vocab": {"a": 0}}, "added_tokens": []}
    for name in ("m1", "m2"):
        (tmp_path / name / "tokenizer.json").write_text(json.dumps(vocabulary))
    (tmp_path / "m2" / "tokenizer_config.json").write_text('{"of": "m2"}')
    source, template = str(tmp_path / "m2"), "{{ messages }} and more of it"
    config = recipe(tmp_path, tokenizer_source=source, chat_template=template)
    out = files.merge(config, tmp_path / "out")
    said = json.loads((out / "tokenizer_config.json").read_text())
    assert said == {"of": "m2", "chat_template": template}
    vocabulary["model"]["vocab"]["b"] = 1
    (tmp_path / "m1" / "tokenizer.json").write_text(json.dumps(vocabulary))
    with pytest.raises(files.MergeError, match="tokenizer_source: the vocabularies"):
        files.merge(config, tmp_path / "other")


def test_a_model_is_found_in_the_cache_of_hugging_face(tmp_path, monkeypatch):
    found = models(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    home = tmp_path / "hub" / "models--org--name"
    save(home / "snapshots" / "abc", found["m1"])
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc\n")
    config = {"merge_method": "linear", "models": [{"model": "org/name"}]}
    config["parameters"] = {"weight": "1e0"}
    got = load(files.merge(config, tmp_path / "out"))
    name = "lm_head.weight"
    np.testing.assert_array_equal(got[name], found["m1"][name])


def test_a_model_and_its_revision_lie_where_it_is_said(tmp_path):
    found = models(tmp_path)
    config = {"merge_method": "linear", "models": [{"model": "org/name@v2"}]}
    config["parameters"] = {"weight": 1}
    with pytest.raises(files.MergeError, match="--model org/name@v2=PATH"):
        files.merge(config, tmp_path / "out")
    out = files.merge(config, tmp_path / "out", models={"org/name@v2": tmp_path / "m1"})
    name = "lm_head.weight"
    np.testing.assert_array_equal(load(out)[name], found["m1"][name])


def test_dtypes_that_differ_are_told(tmp_path, capsys):
    found = models(tmp_path)
    half = {k: x.astype(np.float16) for k, x in found["m1"].items()}
    save(tmp_path / "m1", half)
    for config in (recipe(tmp_path), recipe(tmp_path, dtype="float32")):
        _merge.say(config, explain=True, dry_run=False)
        said = "model.embed_tokens.weight is float16 and float32, and the recipe has no"
        assert (said in capsys.readouterr().out) == ("dtype" not in config)
    got = load(files.merge(recipe(tmp_path), tmp_path / "out"))
    assert {x.dtype.name for x in got.values()} == {"float16"}


def test_the_record_says_what_stands_in(tmp_path):
    models(tmp_path)
    tied = {"head": "lm_head.weight"}
    out = files.merge(recipe(tmp_path), tmp_path / "out", tied=tied)
    assert json.loads((out / "merge.json").read_text())["tied"] == tied


@pytest.mark.parametrize("method", ["linear", "ties", "dare_ties", "slerp", "sce"])
def test_jax_is_not_imported(tmp_path, method):
    models(tmp_path)
    names = ("m1",) if method == "slerp" else ("m1", "m2")
    base = None if method == "linear" else "base"
    config = recipe(tmp_path, method, names, base)
    if method == "slerp":
        config["parameters"] = {"t": 0.5}
    elif method == "dare_ties":
        config["parameters"] = {"weight": 1.0}
    (tmp_path / "c.yml").write_text(json.dumps(config))
    code = """
import sys
from jaxtricks._cli import main
assert main(["merge", "c.yml", "out"]) == 0
heavy = {"jax", "jaxlib", "optax", "torch", "orbax", "rich"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )
    assert (done.returncode, done.stderr) == (0, "")
