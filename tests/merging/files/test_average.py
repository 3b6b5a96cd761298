"""`average`: a run's checkpoints in, a state out that restores as theirs do."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxtricks._cli import main
from jaxtricks.merging import files
from tests.merging.files.small import load, save
from tests.merging.files.test_merge import ROOT

ocp = pytest.importorskip("orbax.checkpoint")


def mean(*values):
    """In f64, then as the values are."""
    return np.mean([np.float64(x) for x in values], axis=0).astype(values[0].dtype)


def test_what_the_training_program_saved(tmp_path):
    from experiments import checkpoints as program
    from tests.experiments.test_checkpoints import like, state_at

    folder = tmp_path / "run" / "checkpoints"
    with program.Checkpoints(folder, keep=9, say=print) as saved:
        for step in (1, 2, 3, 5):
            saved.save(step, state_at(step), {"at": step}, {})
    out = files.average(tmp_path / "run", last=3)
    assert out == tmp_path / "run" / "average"
    about = json.loads((out / "merge.json").read_text())
    assert (about["steps"], about["averaged"]) == ([2, 3, 5], ["params"])
    # As the program itself reads it, onto another mesh than that which wrote it.
    wanted = program._flat(like(0, (2, 4)))
    got = program._arrays(out, wanted, program._facts(folder / "5")["leaves"])
    states = [program._flat(state_at(step)) for step in (2, 3, 5)]
    for name, array in got.items():
        assert array.sharding == wanted[name].sharding
        assert array.dtype == wanted[name].dtype
        given = [np.asarray(program.raw(state[name])) for state in states]
        found = np.asarray(program.raw(array))
        if name.startswith("params."):
            rtol, atol = (1e-6, 1e-7) if array.dtype == np.float32 else (8e-3, 0)
            got64, want = np.float64(found), np.float64(mean(*given))
            np.testing.assert_allclose(got64, want, rtol=rtol, atol=atol)
            assert not np.array_equal(found, given[-1])
        else:
            np.testing.assert_array_equal(found, given[-1], err_msg=name)
    assert sorted(x.name for x in folder.iterdir()) == ["1", "2", "3", "5"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")
def test_a_run_of_the_training_program(tmp_path):
    from experiments import checkpoints as program
    from tests.experiments import corpus
    from tests.experiments.test_train import run

    corpus.write(tmp_path / "text")
    run(tmp_path, "a", "--steps=12", "--save-every=3", "--keep=5")
    home = tmp_path / "runs" / "a"
    assert main(["average", str(home), "--last", "3"]) == 0
    folder = home / "checkpoints"
    read = ocp.PyTreeCheckpointer().restore
    got = read(home / "average" / "state")
    states = [read(folder / str(step) / "state") for step in (6, 9, 12)]
    assert got.keys() == states[-1].keys()
    for name, array in got.items():
        given = [np.asarray(state[name]) for state in states]
        want = mean(*given) if name.startswith("params.") else given[-1]
        np.testing.assert_allclose(np.asarray(array), want, rtol=1e-6, atol=1e-9)
    # The run goes on from its own checkpoints.
    with program.Checkpoints(folder, keep=5, say=print) as saved:
        assert saved.steps() == [3, 6, 9, 12]
    _, rows, _ = run(tmp_path, "a", "--steps=12", "--save-every=3", "--keep=5")
    assert rows[-1]["step"] == 12


TREE = {
    "params": {"layers": [{"w": np.ones((3, 5)), "b": np.ones(3)}, {"w": np.ones(1)}]},
    "batch_stats": {"mean": np.float32(1.0)},
    "opt_state": ((), {"mu": np.ones(2, np.float32)}, None, {}, []),
    "ema": np.ones(2, np.float32),
    "name": "a text",
    "step": 7,
}


def trees(folder, steps=(1, 2, 4), **options):
    """Checkpoints in which all numbers are the step's."""
    for step in steps:
        tree = jax.tree.map(
            lambda x, step=step: x * step if hasattr(x, "shape") else x, TREE
        )
        handler = ocp.PyTreeCheckpointHandler(**options)
        path = folder / f"step_{step}" / "default"
        with ocp.Checkpointer(handler) as saver:
            saver.save(path, tree)


@pytest.mark.parametrize("options", [{}, {"use_ocdbt": False}, {"use_zarr3": True}])
def test_every_leaf_and_every_empty_place_is_kept(tmp_path, options):
    trees(tmp_path, **options)
    out = files.average(tmp_path, tmp_path / "out", last=2)
    newest = ocp.PyTreeCheckpointer().restore(tmp_path / "step_4" / "default")
    got = ocp.PyTreeCheckpointer().restore(out / "state")
    assert jax.tree.structure(got) == jax.tree.structure(newest)
    assert (got["name"], got["step"]) == ("a text", 7)
    for layer in got["params"]["layers"]:
        for array in layer.values():
            assert np.all(array == 3)
    assert got["params"]["layers"][0]["w"].shape == (3, 5)
    assert got["batch_stats"]["mean"] == 3
    assert np.all(got["opt_state"][1]["mu"] == 4)
    assert np.all(got["ema"] == 4)


def test_the_same_checkpoints_give_the_same_bytes(tmp_path):
    trees(tmp_path / "run")
    outs = [tmp_path / "a", tmp_path / "b"]
    for out, workers in zip(outs, (1, 3), strict=True):
        files.average(tmp_path / "run", out, last=3, workers=workers)
    found = [
        {x.relative_to(out): x.read_bytes() for x in out.rglob("*") if x.is_file()}
        for out in outs
    ]
    assert found[0] == found[1]
    assert len(found[0]) > 10


def test_what_is_averaged_and_what_is_not_is_a_choice(tmp_path):
    trees(tmp_path)
    out = files.average(tmp_path, tmp_path / "a", last=2, rest="drop")
    got = ocp.PyTreeCheckpointer().restore(out / "state")
    assert got["params"]["layers"][0]["b"][0] == 3
    assert set(got) == {"params", "batch_stats"}
    words = ["average", str(tmp_path), str(tmp_path / "b"), "--last=3"]
    words += ["--weights=1,1,2", "--parts=ema,opt_state", "--format=safetensors"]
    assert main(words) == 0
    got = load(tmp_path / "b")
    np.testing.assert_allclose(got["ema"], [11 / 4] * 2)
    np.testing.assert_allclose(got["opt_state.1.mu"], [11 / 4] * 2)
    assert np.all(got["params.layers.0.w"] == 4)


def test_checkpoints_of_safetensors_without_params(tmp_path):
    for step in (20, 100, 500):
        tree = {"model.w": np.float32([step]), "lm_head": np.float32([1 / step])}
        save(tmp_path / f"checkpoint-{step}", tree)
    (tmp_path / "checkpoint-700").touch()  # no folder
    (tmp_path / "logs").mkdir()
    options = {"last": 2, "format": "safetensors"}
    out = files.average(tmp_path, tmp_path / "out", **options)
    got = load(out)
    np.testing.assert_allclose(got["model.w"], [300.0])
    np.testing.assert_allclose(got["lm_head"], [0.006])
    assert (out / "config.json").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"last": 4}, ("wanted 4 checkpoints", "3", "[1, 2, 4]")),
        ({"last": 0}, ("last: wanted >= 1",)),
        ({"last": 2, "weights": [1]}, ("weights: wanted 2, came 1",)),
        ({"last": 2, "weights": [1, -1]}, ("weights", "not 0")),
        ({"last": 2, "weights": [1, float("inf")]}, ("weights", "finite")),
        ({"last": 2, "parts": ["param"]}, ("parts: 'param'", "params, batch_stats")),
        ({"last": 2, "parts": [], "rest": "drop"}, ("nothing",)),
    ],
)
def test_what_cannot_be_averaged(tmp_path, options, words):
    for step in (1, 2, 4):
        tree = {f"{name}.w": np.ones(2) for name in ("params", "batch_stats", "opt")}
        save(tmp_path / str(step), tree)
    with pytest.raises(files.MergeError) as error:
        files.average(tmp_path, tmp_path / "out", **options)
    for word in words:
        assert word in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_broken_checkpoint_is_named(tmp_path):
    trees(tmp_path)
    state = tmp_path / "step_2" / "default"
    for path in state.rglob("d/*"):
        path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(files.MergeError, match=r"step_2.default: tensor \S+ is miss"):
        files.average(tmp_path, tmp_path / "out", last=3)
    (state / "_METADATA").write_text('{"tree_metadata": {"a": 3}}')
    with pytest.raises(files.MergeError, match="_METADATA: no tree of an orbax"):
        files.average(tmp_path, tmp_path / "out", last=3)
    assert not (tmp_path / "out").exists()


def test_neither_jax_nor_orbax_is_imported(tmp_path):
    trees(tmp_path)
    code = """
import sys
from jaxtricks._cli import main
assert main(["average", ".", "--last", "2"]) == 0
heavy = {"jax", "jaxlib", "orbax", "torch", "rich"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "average\n", "")
