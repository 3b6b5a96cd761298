"""Checkpoints: what is read back is what was saved, or it is not read back."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lm import data
from experiments.lm.checkpoints import Checkpoints, Unreadable
from tests.experiments import corpus


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    folder = corpus.write(tmp_path_factory.mktemp("text"))
    return data.load(folder, length=16, valid_fraction=0.1, valid_windows=8).train


def state_at(step):
    grid = np.random.default_rng(step).normal(size=(64, 64)).astype(np.float32)
    return {"w": jnp.asarray(grid), "step": jnp.int32(step)}


@pytest.fixture
def saved(tmp_path, windows):
    """A folder with checkpoints 2, 3, 4, and what the stream gives after each."""
    stream, after = data.batches(windows, batch_size=2, seed=0), {}
    with Checkpoints(tmp_path, keep=3, say=print) as checkpoints:
        for step in range(1, 5):
            after[step] = next(stream)["id"]
            checkpoints.save(step, state_at(step), stream)
    ids = [next(stream)["id"]]
    return tmp_path, {step: after.get(step + 1, ids[0]) for step in after}


def restored(folder, windows):
    """(step, state, ids of the next batch, what was said)."""
    said, stream = [], data.batches(windows, batch_size=2, seed=0)
    with Checkpoints(folder, keep=3, say=said.append) as checkpoints:
        step, state = checkpoints.restore(state_at(0), stream)
    return step, state, next(stream)["id"], said


def largest(folder):
    """The file with the arrays."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return max(files, key=lambda path: path.stat().st_size)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_newest_comes_back_with_its_stream(saved, windows):
    folder, after = saved
    assert sorted(int(path.name) for path in folder.iterdir()) == [2, 3, 4]
    step, state, ids, said = restored(folder, windows)
    assert (step, said) == (4, [])
    np.testing.assert_array_equal(state["w"], state_at(4)["w"])
    assert state["step"].dtype == jnp.int32
    np.testing.assert_array_equal(ids, after[4])


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip(largest(folder)),
        lambda folder: largest(folder).write_bytes(b""),
        lambda folder: largest(folder).unlink(),
        lambda folder: next(folder.glob("stream/*.json")).write_text("{"),
        lambda folder: (folder / "check" / "metadata").unlink(),
    ],
    ids=["flipped bit", "empty file", "lost file", "stream", "checksum"],
)
def test_a_broken_one_falls_back_to_the_one_before(saved, windows, damage):
    folder, after = saved
    damage(folder / "4")
    step, state, ids, said = restored(folder, windows)
    assert step == 3
    np.testing.assert_array_equal(state["w"], state_at(3)["w"])
    np.testing.assert_array_equal(ids, after[3])
    assert len(said) == 1
    assert said[0].startswith("checkpoint 4 is broken (")
    assert said[0].endswith("; back to checkpoint 3")
    assert not (folder / "4").exists()


def test_all_broken_is_the_start(saved, windows):
    folder, _ = saved
    for step in (2, 3, 4):
        flip(largest(folder / str(step)))
    step, state, ids, said = restored(folder, windows)
    assert step == 0
    np.testing.assert_array_equal(state["w"], state_at(0)["w"])
    fresh = data.batches(windows, batch_size=2, seed=0)
    np.testing.assert_array_equal(ids, next(fresh)["id"])
    assert len(said) == 3
    assert said[-1].endswith("; back to the start")


def test_a_half_written_one_is_forgotten(saved, windows):
    folder, _ = saved
    (folder / "5.orbax-checkpoint-tmp-1" / "state").mkdir(parents=True)
    assert restored(folder, windows)[0] == 4
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3", "4"]


def test_what_is_missing_is_unreadable_and_can_be_saved_again(saved, windows):
    folder, _ = saved
    stream = data.batches(windows, batch_size=2, seed=0)
    with Checkpoints(folder, keep=3, say=print) as checkpoints:
        with pytest.raises(Unreadable):
            checkpoints.read(7, state_at(0), stream)
        checkpoints.drop(3)
        checkpoints.save(3, state_at(33), stream)
        checkpoints.save(4, state_at(44), stream)
    step, state, _, _ = restored(folder, windows)
    assert (step, int(state["step"])) == (4, 44)
