"""Checkpoints: what is read back is what was saved, on any devices, or it is not."""

import os
import re
import subprocess
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.checkpoints import CheckpointError, Checkpoints
from experiments.checksums import checksum, checksums, raw
from tests.experiments import processes

CHILD = ("-m", "tests.experiments.child")


class State(NamedTuple):
    params: Any
    opt: Any
    extra: Any
    step: jax.Array


def mesh(data, model):
    kinds = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((data, model), ("data", "model"), axis_types=kinds)


def state_at(step, over=None, side=64):
    """Every kind of leaf that a run may have, the large ones split over all devices."""
    rng = np.random.default_rng(step)
    here = mesh(*(over or (jax.device_count(), 1)))
    split, whole = NamedSharding(here, P("data")), NamedSharding(here, P())

    def put(array, dtype, sharding=whole):
        array = np.asarray(array).astype(dtype)
        return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)

    w = put(rng.normal(size=(side, side)), np.float32, split)
    blocks = [put(rng.normal(size=16), jnp.bfloat16, split)]
    params = {"w": w, "blocks": blocks}
    only_w = optax.masked(optax.adam(0.1), {"w": True, "blocks": [False]})
    opt = optax.chain(optax.clip(1.0), only_w).init(params)
    opt = jax.tree.map(lambda x: put(rng.normal(size=x.shape), x.dtype), opt)
    extra = {
        "seen": put(rng.integers(0, 2, 8), bool),
        "count": put(rng.integers(-100, 100, 8), np.int8),
        "key": jax.random.wrap_key_data(put([step, 7], np.uint32)),
        "none": (),
    }
    return State(params, opt, extra, put(step, np.int32))


def like(step, over=None):
    """What a restore is told: shapes, dtypes, shardings."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        state_at(step, over),
    )


def equal(a, b):
    """Bit by bit, on whatever devices: this process's parts."""
    same = jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        same &= x.dtype == y.dtype and x.sharding == y.sharding
        parts = zip(raw(x).addressable_shards, raw(y).addressable_shards, strict=True)
        same &= all(np.array_equal(p.data, q.data) for p, q in parts)
    return same


@pytest.fixture
def saved(tmp_path):
    """A folder with checkpoints 2, 3, 4."""
    with Checkpoints(tmp_path / "saved", keep=3, say=print) as checkpoints:
        for step in range(1, 5):
            checkpoints.save(step, state_at(step), {"at": step}, {"loss": 0.1 * step})
    return tmp_path / "saved"


def test_one_out_of_turn_is_kept_until_the_next(tmp_path):
    seen = {}
    rule = {"keep": 2, "every": 10}
    with Checkpoints(tmp_path, **rule, say=print) as checkpoints:
        for step in (10, 20, 30, 34, 40, 43):
            checkpoints.save(step, state_at(step), {}, {})
            checkpoints.wait()
            seen[step] = checkpoints.steps()
    assert seen == {
        10: [10],
        20: [10, 20],
        30: [20, 30],
        34: [20, 30, 34],
        40: [30, 40],
        43: [30, 40, 43],
    }


def restored(folder, over=None):
    """(what restore gives, what was said)."""
    said = []
    with Checkpoints(folder, keep=3, say=said.append) as checkpoints:
        return checkpoints.restore(like(0, over)), said


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def largest(folder):
    """The file with the arrays."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return max(files, key=lambda path: path.stat().st_size)


def flip(path):
    """Some bits in the middle, as not every byte of such a file is read again."""
    content = bytearray(path.read_bytes())
    middle = slice(len(content) // 4, 3 * len(content) // 4, 64)
    content[middle] = bytes(byte ^ 1 for byte in content[middle])
    path.write_bytes(content)


@pytest.mark.parametrize("over", [(8, 1), (2, 4), (1, 1)])
def test_the_newest_comes_back_on_any_mesh(saved, over):
    assert names(saved) == ["2", "3", "4"]
    (step, state, stream, notes), said = restored(saved, over)
    assert (step, said) == (4, [])
    assert (stream, notes) == ({"at": 4}, {"loss": 0.4})
    assert equal(state, state_at(4, over))
    with Checkpoints(saved, keep=3, say=print) as checkpoints:
        step, params = checkpoints.params(like(0, over).params)
        assert step == 4
        assert equal(params, state_at(4, over).params)
        step, params = checkpoints.params(like(0, over).params, step=3)
        assert equal(params, state_at(3, over).params)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip(largest(folder)),
        lambda folder: largest(folder).write_bytes(b""),
        lambda folder: largest(folder).unlink(),
        lambda folder: (folder / "facts" / "metadata").write_text("{"),
        lambda folder: reworded(folder / "facts" / "metadata", '"at": 4', '"at": 5'),
        lambda folder: (folder / "facts" / "metadata").unlink(),
        lambda folder: (folder / "state" / "manifest.ocdbt").unlink(),
    ],
    ids=["bit", "empty", "lost", "torn json", "other json", "facts", "manifest"],
)
def test_a_broken_one_falls_back_to_the_one_before(saved, damage):
    damage(saved / "4")
    (step, state, stream, _), said = restored(saved)
    assert (step, stream) == (3, {"at": 3})
    assert equal(state, state_at(3))
    assert len(said) == 1
    assert re.fullmatch(
        r"checkpoint 4 is broken \(.+\); back to checkpoint 3", said[0], re.S
    )
    assert "\n" not in said[0]
    assert names(saved) == ["2", "3"]


def reworded(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_numbers_that_changed_inside_good_files_are_seen(saved):
    """A whole checkpoint of other numbers, with the facts of this one."""
    other = saved.parent / "other"
    with Checkpoints(other, keep=3, say=print) as checkpoints:
        state = state_at(4)
        w = state.params["w"].at[3, 5].add(1e-6)
        checkpoints.save(4, state._replace(params=state.params | {"w": w}), {}, {})
    facts = (saved / "4" / "facts" / "metadata").read_text()
    (other / "4" / "facts" / "metadata").write_text(facts)
    found, said = restored(other)
    assert found is None
    assert said == [
        "checkpoint 4 is broken (the checksum of params.w differs); back to the start"
    ]
    assert names(other) == []


def test_all_broken_is_the_start(saved):
    for step in (2, 3, 4):
        flip(largest(saved / str(step)))
    found, said = restored(saved)
    assert found is None
    assert [line.rpartition("; ")[2] for line in said] == [
        "back to checkpoint 3",
        "back to checkpoint 2",
        "back to the start",
    ]


def test_a_half_written_one_is_forgotten(saved):
    (saved / "5.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    assert restored(saved)[0][0] == 4
    assert names(saved) == ["2", "3", "4"]


def test_one_of_another_model_is_refused_and_kept(saved):
    now = like(0)
    small = jax.ShapeDtypeStruct((8,), jnp.float32, sharding=now.step.sharding)
    states = {
        r"it has params\.w as float32\[64, 64\], which is float32\[8\]": now._replace(
            params=now.params | {"w": small}
        ),
        r"it has no params\.more": now._replace(params=now.params | {"more": small}),
        r"it has extra\.count, which is unknown and 2 more": now._replace(extra=()),
    }
    with Checkpoints(saved, keep=3, say=print) as checkpoints:
        for wanted, other in states.items():
            with pytest.raises(CheckpointError, match=wanted):
                checkpoints.restore(other)
        with pytest.raises(CheckpointError, match=r"checkpoint 9 is broken"):
            checkpoints.params(now.params, step=9)
    assert names(saved) == ["2", "3", "4"]


def test_what_is_saved_is_not_saved_again_but_what_was_dropped_is(saved):
    with Checkpoints(saved, keep=3, say=print) as checkpoints:
        checkpoints.save(4, state_at(44), {"at": 44}, {})
        assert checkpoints.restore(like(0))[2] == {"at": 4}
        checkpoints.drop(3)
        assert checkpoints.steps() == [2]
        checkpoints.save(3, state_at(33), {"at": 33}, {})
        assert checkpoints.restore(like(0))[2] == {"at": 33}
    assert names(saved) == ["2", "3"]


def test_donated_buffers_may_be_overwritten_while_it_is_written(tmp_path):
    step = jax.jit(lambda x: jax.tree.map(jnp.zeros_like, x), donate_argnums=0)
    state = state_at(1, side=1024)
    numbers = {"w": state.params["w"]}
    with Checkpoints(tmp_path, keep=3, say=print) as checkpoints:
        checkpoints.save(1, numbers, {}, {})
        numbers = step(step(numbers))
    with Checkpoints(tmp_path, keep=3, say=print) as checkpoints:
        found = checkpoints.restore(numbers)[1]
    np.testing.assert_array_equal(found["w"], state_at(1, side=1024).params["w"])


def test_the_checksum_sees_every_bit_and_every_place():
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    base = int(checksum(x))
    assert base == independent(x)
    seen = {base}
    for bit in range(32):
        flipped = x.copy()
        flipped.view(np.uint32)[2, 3] ^= np.uint32(1 << bit)
        seen.add(int(checksum(flipped)))
    for moved in (x[::-1], x[:, ::-1], np.roll(x, 1), x.T.reshape(4, 6), -x):
        seen.add(int(checksum(np.ascontiguousarray(moved))))
    swapped = x.copy()
    swapped[0, 0], swapped[3, 5] = x[3, 5], x[0, 0]
    seen.add(int(checksum(swapped)))
    assert len(seen) == 1 + 32 + 5 + 1


@pytest.mark.parametrize(
    "dtype",
    [
        *("float32", "bfloat16", "float16", "float8_e4m3fn", "complex64", "bool"),
        *("int4", "int8", "uint8", "int16", "int32", "uint32"),
    ],
)
def test_the_checksum_of_every_dtype_is_that_of_its_bits(dtype):
    x = jnp.asarray(np.arange(-8, 8).reshape(2, 8) % 7).astype(dtype)
    other = x.at[1, 0].set(jnp.ones((), x.dtype))
    assert not bool(x[1, 0] == 1)
    assert int(checksum(x)) != int(checksum(other))
    if dtype not in ("int4", "complex64"):
        assert int(checksum(x)) == independent(np.asarray(x))


def test_the_checksum_is_the_same_on_any_mesh_and_in_64_bits():
    totals = [
        checksums({"w": state_at(1, over).params["w"]})
        for over in ((8, 1), (4, 2), (1, 1))
    ]
    assert totals[0] == totals[1] == totals[2]
    assert totals[0]["w"] == independent(np.asarray(state_at(1).params["w"]))
    with jax.enable_x64(True):
        x = jnp.asarray([1.0, 2.0**-40], jnp.float64)
        assert int(checksum(x)) != int(checksum(x.at[1].set(2.0**-41)))
    assert int(checksum(jnp.zeros((0, 3)))) == 0


def independent(x):
    """The formula with Python's own integers, one element at a time."""
    kinds = {1: np.uint8, 2: np.uint16, 4: np.uint32}
    bits = np.ascontiguousarray(x).view(kinds[x.dtype.itemsize]).ravel()

    def mix(n):
        n = (n ^ (n >> 16)) * 0x7FEB352D % 2**32
        n = (n ^ (n >> 15)) * 0x846CA68B % 2**32
        return n ^ (n >> 16)

    return sum(mix(int(b) ^ mix(i + 1)) for i, b in enumerate(bits)) % 2**32


def run(count, *words, timeout=120, **where):
    """What so many processes of four devices say; none may fail."""
    if count == 1:
        started = [processes.start(*CHILD, *words, devices=8, **where)]
    else:
        started = processes.together(count, *CHILD, *words, **where)
    found = processes.ends(started, timeout)
    assert [(status, err) for status, _, err in found] == [(0, "")] * count
    return [processes.said(out) for _, out, _ in found]


@pytest.mark.slow
def test_two_processes_do_not_wait_for_each_other_in_different_sums():
    assert run(2, "sums", 40) == [["1 60"], ["1 60"]]


@pytest.mark.slow
def test_saved_on_two_processes_restored_on_one_and_back(tmp_path):
    """Among them is one with a flipped bit, that both must find broken."""
    run(2, "saves", tmp_path, 1, 2, 3)
    flip(largest(tmp_path / "3"))
    found = run(2, "restores", tmp_path)
    broken = "; back to checkpoint 2"
    assert found[0][0].startswith("checkpoint 3 is broken (")
    assert found[0][0].endswith(broken)
    assert found == [[found[0][0], "2 True 2"], ["2 True 2"]]
    assert run(1, "restores", tmp_path) == [["2 True 2"]]
    run(1, "saves", tmp_path, 5)
    assert run(2, "restores", tmp_path) == [["5 True 1"], ["5 True 1"]]


def full(folder, limit):
    child = processes.start(*CHILD, "fills", folder, limit, devices=8)
    ((status, out, err),) = processes.ends([child], 120)
    assert (status, processes.said(out)) == (1, []), err
    assert "Traceback" not in err
    found = re.search(
        r"error: NoSpace: no space left for checkpoint (\d+) in (.+); "
        r"checkpoint (\d+) is whole\n$",
        err,
    )
    assert found, err
    broken, at, whole = found.groups()
    assert (at, int(whole)) == (str(folder), int(broken) - 1)
    assert names(folder)[-1] == whole
    assert not [name for name in names(folder) if "tmp" in name]
    return whole


@pytest.mark.slow
def test_a_file_size_limit_inside_the_save_leaves_the_one_before(tmp_path):
    assert full(tmp_path, 2**20) == "1"
    assert run(1, "restores", tmp_path) == [["1 True 1"]]


@pytest.mark.slow
def test_a_full_disk_leaves_the_one_before(tmp_path):
    """A real one, of 24 MB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a tmpfs; RLIMIT_FSIZE is tested instead")
    try:
        folder = tmp_path / "checkpoints"
        whole = full(folder, 0)
        assert int(whole) > 1
        with Checkpoints(folder, keep=3, say=print) as checkpoints:
            assert checkpoints.restore(state_at(0, side=1024))[0] == int(whole)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
