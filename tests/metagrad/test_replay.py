"""metagrad.replay gives scan's gradient, from any kill on, and names what is wrong."""

import dataclasses
import errno
import itertools
import json
import shutil
import signal
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from jaxtricks.metagrad import replay, scan
from jaxtricks.metagrad._lazy import again, kept
from tests.experiments import processes
from tests.free.common import assert_close
from tests.metagrad import runs

OPTIONS = {"segment": 3, "branching": 2}


def run(batches=runs.X, **kwargs):
    state, wrt = runs.start()
    kwargs = OPTIONS | kwargs
    return replay(runs.step, state, batches, runs.objective, wrt, **kwargs)


@pytest.fixture(scope="module")
def plain():
    """The run in memory."""
    return run()


# --- the tree -------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3, 4, 7])
def test_what_the_tree_stores_and_runs_again(k):
    for leaves in (1, 2, 5, 16, 64, 99, 243):
        depth = 0
        while k**depth < leaves:
            depth += 1
        for leaf in range(leaves):
            there = kept(leaf, leaves, k)
            assert len(there) <= (k - 1) * depth + 1
            assert max(there) == leaf
            assert 0 in there
        walk = again(leaves, k)
        assert [leaf for leaf, _ in walk] == list(reversed(range(leaves)))
        assert sum(leaf - start for leaf, start in walk) <= leaves * max(depth - 1, 0)
    assert sorted(kept(13, 16, 2)) == [0, 8, 12, 13]
    assert again(4, 2) == [(3, 3), (2, 2), (1, 0), (0, 0)] if k == 2 else True


# --- the gradient ---------------------------------------------------------------------


def test_it_is_the_gradient_of_scan(plain):
    state, wrt = runs.start()

    def final(w, wrt):
        init = state | {"w": w}
        last, _ = scan(lambda s, x: runs.step(s, x, wrt), init, runs.X)
        return runs.objective(last, wrt), last

    run = jax.jit(jax.value_and_grad(final, argnums=(0, 1), has_aux=True))
    (value, last), (by_start, by_wrt) = run(state["w"], wrt)
    assert_close(plain.value, value, rtol=1e-6)
    assert_close(plain.grad, by_wrt, rtol=1e-5)
    assert_close(plain.grad_state["w"], by_start, rtol=1e-5)
    assert_close(plain.state["w"], last["w"], rtol=1e-6)
    assert plain.state["n"] == runs.STEPS
    assert plain.grad_state["n"] == 0  # no float: as it was
    assert jax.random.key_data(plain.state["key"]).tolist() == (
        jax.random.key_data(last["key"]).tolist()
    )


@pytest.mark.parametrize(("segment", "branching"), [(1, 2), (3, 2), (16, 4)])
def test_how_often_a_step_runs(segment, branching):
    """Forward, to the segments again, twice in each, and once to check the first."""
    seen, length = [], 20

    def step(w, t, rate):
        jax.debug.callback(lambda t: seen.append(int(t)), t)
        return w - rate * w, None

    got = replay(
        step,
        1.0,
        range(length),
        lambda w, _: w,
        0.1,
        segment=segment,
        branching=branching,
    )
    jax.effects_barrier()
    leaves = -(-length // segment)
    size = [min(segment, length - i * segment) for i in range(leaves)]
    forward = sum(sum(size[a:b]) for b, a in again(leaves, branching))
    expected = size[0] + length + forward + sum(n if n == 1 else 2 * n for n in size)
    assert got.evaluations == expected
    assert len(seen) == expected
    assert_close(got.grad, jnp.float32(-20 * 0.9**19), rtol=1e-5)


def test_f32_sums_and_dtypes_of_bf16():
    def step(w, x, rate):
        return (w - rate * w).astype(w.dtype), x

    w, rate = jnp.ones(3, jnp.bfloat16), jnp.bfloat16(0.125)
    got = replay(step, w, [0] * 5, lambda w, rate: jnp.sum(w), rate)
    assert got.grad.dtype == got.state.dtype == got.grad_state.dtype == jnp.bfloat16
    assert_close(got.grad.astype(jnp.float32), jnp.float32(-15 * 0.875**4), rtol=1e-2)


def test_any_source_and_shape_of_batches(plain):
    class Source:  # what grain calls a random access source
        def __len__(self):
            return len(runs.X)

        def __getitem__(self, index):
            return runs.X[index]

    class Endless:
        __getitem__ = Source.__getitem__

    function = Endless().__getitem__
    for batches in (Source(), Endless(), list(runs.X), jnp.asarray(runs.X), function):
        got = run(batches, length=runs.STEPS)
        assert runs.bits(got) == runs.bits(plain)

    def step(w, x, rate):
        return w - rate * jnp.mean(x) * w, None

    ragged = [np.ones(n, np.float32) for n in (4, 4, 2)]
    got = replay(step, 1.0, ragged, lambda w, _: w, 0.1, segment=1)
    assert_close(got.grad, jnp.float32(-3 * 0.81), rtol=1e-5)
    with pytest.raises(ValueError, match=r"batches: .* steps 0 to 2, .* segment=1"):
        replay(step, 1.0, ragged, lambda w, _: w, 0.1)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_on_a_mesh_it_is_one_devices(kind, plain, tmp_path):
    """Parameters over `model`, examples and their weights over `data`."""
    mesh, put = runs.on_mesh(kind)
    one = jnp.float32(1)  # on one device
    with jax.set_mesh(mesh):
        state, wrt = runs.start(put)
        args = (runs.step, state, lambda t: put(runs.X[t], "data"), runs.objective, wrt)
        more = {
            "directory": tmp_path,
            "save_every": 20,
            "length": runs.STEPS,
            **OPTIONS,
        }
        got = replay(*args, **more)
        assert got.grad["weights"].sharding.spec == wrt["weights"].sharding.spec
        assert got.state["w"].sharding.spec == state["w"].sharding.spec
        assert got.grad_state["m"].sharding.spec == state["m"].sharding.spec
        same = replay(*args, **more)
        assert same.evaluations == 0
        assert runs.bits(same) == runs.bits(got)
        alone = small(  # batches alone are sharded
            lambda w, x, rate: (w - rate * jnp.mean(x) * w, None),
            state=one,
            batches=lambda t: put(runs.ONES, "data"),
            length=3,
            segment=1,
        )
        assert_close(alone.grad, jnp.float32(-3 * 0.81), rtol=1e-5)
    assert_close(got.grad, plain.grad, rtol=1e-5)
    assert_close(got.value, plain.value, rtol=1e-5)


# --- killed and resumed ---------------------------------------------------------------


class Killed(Exception):
    pass


def killed_at(calls):
    """Batches that fail when one is asked for so often."""
    counter = itertools.count(1)

    def batch(t):
        if next(counter) == calls:
            raise Killed
        return runs.X[t]

    return batch


@pytest.mark.parametrize("every", [6, 10**6])
def test_a_killed_run_goes_on_to_the_same_bits(every, plain, tmp_path):
    """Killed again and again: on the way forward and on the way back."""
    options = {"directory": tmp_path, "save_every": every, "in_memory": 1}
    options |= {"length": runs.STEPS}
    ways, calls = set(), 20 if every == 6 else 90
    for _ in range(9):
        try:
            got = run(killed_at(calls), **options)
            break
        except Killed:
            names = {path.name.split("-")[0] for path in tmp_path.iterdir()}
            ways.add("back" in names)
            states = [p for p in tmp_path.iterdir() if p.name.startswith("state")]
            assert len(states) <= 1 + 5 + 2 + 1  # the tree's, to go on from, the last
            calls += 40
    assert runs.bits(got) == runs.bits(plain)
    if every == 6:
        assert ways == {True, False}
    again = run(**options)
    assert again.evaluations == 0
    assert runs.bits(again) == runs.bits(plain)
    assert again.state["n"] == runs.STEPS


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_processes_that_are_killed(tmp_path):
    def child(kill, directory=tmp_path / "run"):
        words = ("-m", "tests.metagrad.runs", directory, kill)
        ((status, out, err),) = processes.ends([processes.start(*words, devices=8)])
        return status, processes.said(out), err

    for kill in (20, 25, 60):
        status, said, err = child(kill)
        assert (status, said) == (-signal.SIGKILL, []), err
    status, (said,), err = child(0)
    assert status == 0, err
    _, (whole,), _ = child(0, "-")
    assert said.split(" ", 1)[1] == whole.split(" ", 1)[1]
    _, (again,), _ = child(0)
    assert again.split(" ", 1) == ["0", whole.split(" ", 1)[1]]


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_two_processes(plain, tmp_path):
    """Two of four devices; both are killed, and go on."""

    def both(kill):
        address = f"127.0.0.1:{processes.free_port()}"
        words = ("-m", "tests.metagrad.runs", tmp_path / "run", kill, address)
        return processes.ends([processes.start(*words, i, devices=4) for i in range(2)])

    assert [status for status, _, _ in both(40)] == [-signal.SIGKILL] * 2
    found = both(0)
    assert [status for status, _, _ in found] == [0, 0], found
    said = [processes.said(out)[0].split() for _, out, _ in found]
    assert said[0] == said[1]
    got = [np.frombuffer(bytes.fromhex(x), np.float32) for x in said[0][1:]]
    want = [
        np.frombuffer(bytes.fromhex(x), np.float32) for x in runs.bits(plain).split()
    ]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.max(np.abs(b)))


def test_a_full_disk_leaves_what_goes_on(plain, tmp_path, monkeypatch):
    """The error is one line; with room again the same call ends to the same bits."""
    import orbax.checkpoint as ocp

    save, calls = ocp.AsyncCheckpointer.save, itertools.count(1)

    def fails(self, path, **kwargs):
        if next(calls) >= 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(self, path, **kwargs)

    options = {"directory": tmp_path, "save_every": 6, "in_memory": 1}
    monkeypatch.setattr(ocp.AsyncCheckpointer, "save", fails)
    with pytest.raises(OSError, match="directory: cannot write state-") as error:
        run(**options)
    assert error.value.errno == errno.ENOSPC
    assert "the same call goes on" in str(error.value)
    monkeypatch.undo()
    got = run(**options)
    assert got.evaluations < plain.evaluations
    assert runs.bits(got) == runs.bits(plain)


def test_what_is_damaged_or_deleted(tmp_path):
    """The entry is named; without it the same call goes on to the same bits."""

    def again():
        return small(directory=tmp_path, segment=2, branching=2)

    want = small(segment=2, branching=2)
    again()
    for entry in ("back-0", "state-10"):
        about = tmp_path / entry / "_METADATA"
        about.write_bytes(about.read_bytes()[:20])
        with pytest.raises(ValueError, match=f"{entry} is damaged; delete it, and the"):
            again()
        shutil.rmtree(tmp_path / entry)
        got = again()
        assert 0 < got.evaluations < want.evaluations
        assert (got.value, got.grad, got.state) == (want.value, want.grad, want.state)
    assert again().evaluations == 0
    with pytest.raises(NotADirectoryError, match=r"directory: cannot write run\.json"):
        small(directory=tmp_path / "run.json" / "x")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"directory: .*run.json is damaged"):
        again()


def test_a_directory_of_another_run(tmp_path):
    def step(w, x, rate):
        return w - rate * x * w, None

    def last(w, rate):
        return w

    xs = np.ones(6, np.float32)
    args = {"step": step, "state": 1.0, "batches": xs, "objective": last, "wrt": 0.1}
    replay(**args, directory=tmp_path)
    for changed, message in (
        ({"batches": xs[:5]}, "length was 6, is 5"),
        ({"segment": 2}, "segment was 8, is 2"),
        ({"branching": 3}, "branching was 4, is 3"),
        ({"state": 2.0}, "another run: state differs"),
        ({"wrt": 0.2}, "another run: wrt differs"),
        ({"batches": 2 * xs}, "another run: batches differs"),
        ({"step": lambda w, x, r: (w - 2 * r * x * w, None)}, "run: step differs"),
        ({"objective": lambda w, r: w**3}, "another run: objective differs"),
    ):
        with pytest.raises(ValueError, match=message):
            replay(**(args | changed), directory=tmp_path)
    same = {"step": lambda w, x, rate: (w - rate * x * w, 7)}
    assert replay(**(args | same), directory=tmp_path).evaluations == 0
    begun = tmp_path / "begun"  # and killed before its first file was whole
    begun.mkdir()
    (begun / "run.part").write_text("{")
    assert replay(**args, directory=begun).evaluations > 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    for place in (tmp_path / "other", tmp_path / "other" / "thesis.tex"):
        with pytest.raises(ValueError, match="holds something that is no replay"):
            replay(**args, directory=place)
    assert (tmp_path / "other" / "thesis.tex").read_text() == "x"
    about = json.loads((tmp_path / "run.json").read_text())
    assert about["length"] == 6


# --- what is wrong --------------------------------------------------------------------


def decay(w, x, rate):
    return w - rate * x * w, None


def small(step=decay, state=1.0, batches=(1.0,) * 20, wrt=0.1, **kwargs):
    return replay(step, state, batches, lambda w, _: jnp.sum(w), wrt, **kwargs)


def test_nan_on_the_way_forward_and_back():
    def bad(w, x, rate):
        return jnp.where(x == 13, jnp.log(-jnp.abs(w)), w * rate), None

    def infinite_slope(w, x, rate):
        return w - rate * jnp.sqrt(jnp.where(x == 5, 0 * w, w)), None

    steps = np.arange(20, dtype=np.float32)
    with pytest.raises(FloatingPointError, match="after step 13 of 20, on the way fo"):
        small(bad, batches=steps)
    with pytest.raises(FloatingPointError, match=r"at step 5 of 20, .*differentiable"):
        small(infinite_slope, batches=steps, state=9.0)
    with pytest.raises(FloatingPointError, match="in the objective"):
        replay(decay, 1.0, [1.0], lambda w, _: jnp.log(-w), 0.1)


def test_what_is_not_deterministic():
    counter = itertools.count()

    def noise(x):
        return np.float32(next(counter))

    def step(w, x, rate):
        return w + rate * jax.pure_callback(noise, jnp.float32(0), x), None

    with pytest.raises(
        ValueError, match=r"step: wanted a deterministic one, .* 0 to 7 "
    ):
        small(step)
    assert small(step, exact=False).grad > 0
    with pytest.raises(ValueError, match=r"batches: wanted the same batch .* 0 to 7"):
        small(batches=lambda t: np.float32(next(counter)), length=20)

    def changes(t):  # only later
        return np.float32(next(counter) if t == 7 else 1)

    with pytest.raises(ValueError, match=r"step: .* after step 7 when steps 6 to 7"):
        small(batches=changes, length=20, segment=2, branching=2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batches": [1.0], "length": 2}, "batches: wanted 2, as length says, came 1"),
        ({"batches": lambda t: 1.0}, "length: wanted a number of steps"),
        ({"batches": iter([1.0])}, "batches: wanted a function of the index or a seq"),
        ({"batches": {"x": [1.0]}}, "batches: .* came dict"),
        ({"length": 0}, "length: wanted >= 1, came 0"),
        ({"segment": 0}, "segment: wanted >= 1, came 0"),
        ({"branching": 1}, "branching: wanted >= 2, came 1"),
        ({"in_memory": 0}, "in_memory: wanted >= 1, came 0"),
        ({"save_every": 0}, "save_every: wanted >= 1, came 0"),
        ({"wrt": {"k": 3}}, r"wrt: wanted floats, came int32 at \['k'\]"),
        ({"step": lambda w, x, r: w}, r"step: wanted \(state, anything\) of it"),
        (
            {"step": lambda w, x, r: (w.astype(jnp.bfloat16), None)},
            r"step: wanted a state of the same types; float32\[\] became bfloat16\[\]",
        ),
        ({"step": lambda w, x, r: ((w, w), None)}, "step: its new state: "),
        (
            {"step": lambda w, x, r: (w[None], None)},
            r"types; float32\[\] became float32\[1\]",
        ),
    ],
)
def test_mistakes(wrong, message):
    with pytest.raises(ValueError, match=message):
        small(**wrong)


@dataclasses.dataclass
class NoHash:
    fn: Callable

    def __call__(self, *args):
        return self.fn(*args)


def test_more_mistakes():
    with pytest.raises(
        ValueError, match=r"objective: wanted float\[\], came float32\[2"
    ):
        replay(decay, jnp.ones(2), [1.0], lambda w, _: w, 0.1)
    for aux in (lambda w, _: (w, w), lambda w, _: {"w": w}, lambda w, _: None):
        with pytest.raises(ValueError, match=r"objective: wanted float\[\], came "):
            replay(decay, 1.0, [1.0], aux, 0.1)
    for name, fn in (("step", decay), ("objective", lambda w, _: w)):
        given = {"step": decay, "objective": lambda w, _: w, name: NoHash(fn)}
        with pytest.raises(ValueError, match=f"{name}: .* a hash.* came NoHash .*wrap"):
            replay(state=1.0, batches=[1.0], wrt=0.1, **given)
    with pytest.raises(ValueError, match="came tracers"):
        jax.jit(lambda rate: small(wrt=rate).value)(0.1)
    with pytest.raises(ValueError, match="came tracers"):
        jax.grad(lambda w: small(state=w).value)(1.0)


def test_its_bar(capsys):
    small(progress=True, segment=3)
    said = capsys.readouterr().out
    assert "backward" in said
    assert "100%" in said
