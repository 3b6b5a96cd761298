"""Full disks, kills, renames, paths: OUT is whole or it is not there."""

import concurrent.futures
import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxtricks._cli import main
from jaxtricks.merging import files
from jaxtricks.merging.files import _merge
from jaxtricks.merging.files._open import open_checkpoint
from tests.merging.files.small import models, save
from tests.merging.files.test_errors import fails
from tests.merging.files.test_merge import ROOT, recipe


def command(folder, *, limit=-1):
    """The command in a process of its own; `limit`: the largest file it may write."""
    code = f"""
import resource, sys
from jaxtricks._cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.exit(main(["merge", "c.yml", "out"]))
"""
    return subprocess.Popen(
        [sys.executable, "-Bc", code],  # a .pyc would be cut short, too
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )


def test_a_full_disk(tmp_path):
    models(tmp_path)
    (tmp_path / "c.yml").write_text(json.dumps(recipe(tmp_path)))
    process = command(tmp_path, limit=3000)
    out, err = process.communicate()
    assert (process.returncode, out) == (2, "")
    assert err.count("\n") == 1
    assert "no space" in err
    assert "model.safetensors: tensor model." in err
    assert not [x for x in tmp_path.iterdir() if "out" in x.name]


def test_a_disk_that_is_too_small_is_seen_before(tmp_path, monkeypatch):
    models(tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=999)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    fails(recipe(tmp_path), tmp_path / "out", "no space: wanted", "free are 999 B")


STRUCK = [
    ("kill", []),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (("kill", ["--overwrite"]), ("full", []), ("full", ["--overwrite"]))
    ),
]


@pytest.mark.parametrize(("how", "more"), STRUCK)
def test_struck_at_every_call_that_changes_the_disk(tmp_path, how, more):
    for i in (1, 2, 3):
        w = np.full((9, 9), i, np.float32)
        save(tmp_path / f"m{i}", {"w": w, "scalar": w[0, 0], "none": w[:0], "b": w[0]})
    old = recipe(tmp_path, names=("m1", "m2"))
    (tmp_path / "old.yml").write_text(json.dumps(old))
    (tmp_path / "c.yml").write_text(json.dumps(recipe(tmp_path, names=("m2", "m3"))))
    done = subprocess.run(
        [sys.executable, "-Bm", "tests.merging.files.faults", how, *more],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    count, left = json.loads(done.stdout)
    assert count > 25
    assert set(left) <= {"absent", "new", *(["old"] if more else [])}


@pytest.mark.slow
def test_killed_at_any_moment_leaves_nothing_or_all(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("m1", "m2"):
        save(tmp_path / name, {f"w{i}": rng.normal(size=99_999) for i in range(9)})
    (tmp_path / "c.yml").write_text(json.dumps(recipe(tmp_path)))
    out, half = tmp_path / "out", tmp_path / ".out.partial"
    for wait in (*rng.uniform(0, 0.1, 20), 9.0):
        process = command(tmp_path)
        while process.poll() is None and not half.exists():
            time.sleep(0.0005)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if out.exists():
            assert set(open_checkpoint(out).tensors) == {f"w{i}" for i in range(9)}
            assert (out / "merge.json").exists()
            shutil.rmtree(out)
    assert not half.exists()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal(tmp_path, monkeypatch, capsys, signum):
    models(tmp_path)
    (tmp_path / "c.yml").write_text(json.dumps(recipe(tmp_path)))
    before = signal.getsignal(signum)

    def stopped(*args, **kwargs):
        signal.raise_signal(signum)

    monkeypatch.setattr(_merge, "run", stopped)
    argv = ["merge", str(tmp_path / "c.yml"), str(tmp_path / "out")]
    assert main(argv) == 128 + signum
    assert capsys.readouterr().err == "jaxtricks: stopped; nothing is left of it\n"
    assert not [x for x in tmp_path.iterdir() if "out" in x.name]
    assert signal.getsignal(signum) is before


def test_in_another_thread(tmp_path):
    """Where no signal can be waited for."""
    models(tmp_path)
    (tmp_path / "c.yml").write_text(json.dumps(recipe(tmp_path)))
    argv = ["merge", str(tmp_path / "c.yml"), str(tmp_path / "out")]
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        assert threads.submit(main, argv).result() == 0


def test_killed_between_two_renames(tmp_path):
    models(tmp_path)
    out = files.merge(recipe(tmp_path), tmp_path / "out")
    (out / "kept").touch()
    out.rename(tmp_path / ".out.old")
    with pytest.raises(files.MergeError, match="exists already"):
        files.merge(recipe(tmp_path), tmp_path / "out")
    assert (out / "kept").exists()
    files.merge(recipe(tmp_path), out, overwrite=True)
    assert not (out / "kept").exists()
    assert not [x for x in tmp_path.iterdir() if x.name.startswith(".")]


def test_only_a_merge_is_replaced(tmp_path):
    models(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    files.merge(recipe(tmp_path), out)  # an empty folder is as good as none
    fails(recipe(tmp_path), out, str(out), "exists already")
    shutil.rmtree(out)
    out.mkdir()
    (out / "a thesis").touch()
    fails(recipe(tmp_path), out, "no merge.json", overwrite=True)
    shutil.rmtree(out)
    out.write_text("a file")
    fails(recipe(tmp_path), out, "exists", overwrite=True)
    out.unlink()
    out.symlink_to(tmp_path / "nowhere")
    fails(recipe(tmp_path), out, "exists")
    with pytest.raises(files.MergeError, match="no: no such folder"):
        files.merge(recipe(tmp_path), tmp_path / "no" / "out")


@pytest.mark.parametrize("place", ["m1", "m1/out", ".", "m1/model.safetensors"])
def test_the_result_is_apart_from_the_inputs(tmp_path, place):
    folder = tmp_path / "a"
    models(folder)
    (folder / "merge.json").touch()
    (folder / "m1" / "merge.json").touch()
    config = recipe(folder)
    with pytest.raises(files.MergeError, match="apart from the inputs") as error:
        files.merge(config, folder / place, overwrite=True)
    assert str(folder / "m1") in str(error.value)
    assert sorted(x.name for x in (folder / "m1").iterdir()) == [
        "config.json",
        "merge.json",
        "model.safetensors",
    ]


def test_paths_are_a_shells(tmp_path, monkeypatch):
    models(tmp_path / "my models ü")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "my models ü")
    config = {"merge_method": "linear", "parameters": {"weight": 1}}
    config["models"] = [{"model": "~/my models ü/m1"}, {"model": "m2"}, {"model": "x"}]
    (tmp_path / "c.yml").write_text(json.dumps(config))
    found = files.merge("~/c.yml", "~/out ü", models={"x": "~/my models ü/m3"})
    assert found == tmp_path / "out ü"
    one = tmp_path / "my models ü" / "m1"
    assert set(open_checkpoint(found).tensors) == set(open_checkpoint(one).tensors)
    models(tmp_path / "模型😀")
    files.merge(recipe(tmp_path / "模型😀"), "~/out 😀")
    for place in ("~no-one/out", "a\0b"):
        with pytest.raises(files.MergeError, match=r"OUT: .* is no path"):
            files.merge("~/c.yml", place, models={"x": "m3"})
    for name in ("~no-one/m", "m" * 5000):
        config["models"][1]["model"] = name
        with pytest.raises(files.MergeError, match="is not on this machine"):
            files.merge(config, "out", models={"x": "m3"})


def test_links_and_pipes(tmp_path):
    models(tmp_path)
    blob = tmp_path / "m1" / "model.safetensors"
    blob.rename(tmp_path / "blob")
    blob.symlink_to("../blob")  # as the cache of Hugging Face has them
    files.merge(recipe(tmp_path), tmp_path / "out")
    blob.unlink()
    blob.symlink_to(blob)
    fails(recipe(tmp_path), tmp_path / "o", str(blob), "symbolic links")
    blob.unlink()
    os.mkfifo(blob)
    fails(recipe(tmp_path), tmp_path / "o", str(blob), "is no regular file")
    blob.unlink()
    blob.mkdir()
    fails(recipe(tmp_path), tmp_path / "o", str(blob), "is no regular file")


def test_what_may_not_be_read_or_written(tmp_path, monkeypatch):
    models(tmp_path)

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(args[0]))

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", refuse)
        with pytest.raises(files.MergeError, match="partial: Permission denied"):
            files.merge(recipe(tmp_path), tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "iterdir", refuse)
        with pytest.raises(files.MergeError, match="m1: Permission denied"):
            files.merge(recipe(tmp_path), tmp_path / "out")


def test_two_at_once(tmp_path):
    import fcntl

    models(tmp_path)
    half = tmp_path / ".out.partial"
    half.mkdir()
    held = os.open(half, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(files.MergeError, match="another merge"):
        files.merge(recipe(tmp_path), tmp_path / "out")
    os.close(held)
    files.merge(recipe(tmp_path), tmp_path / "out")
