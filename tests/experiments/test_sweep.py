"""Sweeps: what a grid means, going on after a kill, and what the table says."""

import json
import math
import os
import signal
import statistics
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from experiments import config as flags_of_train
from experiments import sweep as package
from experiments.config import BadInput
from experiments.sweep import __main__ as command
from experiments.sweep import grid, programs, table
from experiments.sweep.flags import Sweep

ROOT = Path(package.__file__).parents[2]

# Writes what the training program writes, and a line to calls; fails where told.
PROGRAM = """
import argparse, json, os, pathlib, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0)
parser.add_argument("--seed", type=int)
parser.add_argument("--name")
parser.add_argument("--runs", type=pathlib.Path)
parser.add_argument("--sharpness", nargs="*", default=[])
parser.add_argument("--sleep-at", default="")
args = parser.parse_args()
with open("calls", "a") as file:
    print(os.getpid(), args.name, file=file)
if args.lr > 5 and args.seed == 1:
    sys.exit("usual words\\nbad: the lr is too high")
home = args.runs / args.name
home.mkdir(parents=True, exist_ok=True)
if args.name == args.sleep_at and not (home / "once").exists():
    (home / "once").touch()
    time.sleep(60)
rho = float(args.sharpness[1][4:]) if args.sharpness else 0
valid = {"loss": args.lr + args.seed + rho, "domains": {"a": 1.0}}
done = {"step": 5, "valid": valid, "timing": {"step_s": 0.25, "train_s": 9.0}}
(home / "results.json").write_text(json.dumps(done))
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with program.py in it, which is where we are."""
    monkeypatch.chdir(tmp_path)
    Path("program.py").write_text(PROGRAM)
    return tmp_path


def calls():
    path = Path("calls")
    found = [line.split()[1] for line in path.read_text().splitlines()]
    path.unlink()
    return found


def run(*argv):
    return command.main([str(word) for word in argv])


# What a grid means.


def test_all_combinations_the_last_name_changing_fastest():
    points = grid.points(["lr=1e-3,3e-4", "sharpness.rho=0,0.05"])
    assert [point.label for point in points] == [
        "lr=1e-3 sharpness.rho=0",
        "lr=1e-3 sharpness.rho=0.05",
        "lr=3e-4 sharpness.rho=0",
        "lr=3e-4 sharpness.rho=0.05",
    ]
    assert points[1].run(4) == "lr-1e-3_rho-0.05_seed4"
    assert [point.run(2) for point in grid.points([])] == ["seed2"]


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ("1,2", ["1", "2"]),
        ("[1,2],(3,4)", ["[1,2]", "(3,4)"]),
        ("'a,b',c d", ["'a,b'", "c d"]),
        ("1,", ["1", ""]),
    ],
)
def test_commas_inside_brackets_and_quotes_do_not_split(values, parts):
    assert grid.split(values) == parts


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("7", 7),
        ("True", True),
        ("None", None),
        ("(1, 2)", (1, 2)),
        ("cosine", "cosine"),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
        ("(" * 5000, "(" * 5000),
        ("a\x00b", "a\x00b"),
    ],
)
def test_values_are_literals_or_texts_and_never_run(text, value):
    assert grid.value(text) == value


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lr"], "wanted NAME=VALUE,VALUE, came 'lr'"),
        (["=3"], "wanted NAME=VALUE"),
        (["a.b.c=3"], "wanted NAME=VALUE"),
        (["--lr=3"], "wanted NAME=VALUE"),
        (["lr="], "lr: wanted different values, came ''"),
        (["lr=1,1"], "lr: wanted different values, came '1,1'"),
        (["lr=1", "lr=2"], "lr came twice"),
        (["seed=1,2"], "seed is not for a grid"),
        (["a.rho=1,2", "b.rho=1", "c=x y"], None),
    ],
)
def test_a_grid_that_is_none_is_one_line(words, said):
    if said is None:
        assert len(grid.points(words)) == 2
    else:
        with pytest.raises(BadInput, match="--grid: ") as error:
            grid.points(words)
        assert said in str(error.value)


def test_names_of_runs_are_names_the_training_program_takes():
    odd = ["schedule=wsd decay_steps=100,cosine", "mix=a=1/b,ü", "x=" + "9" * 200]
    names = [point.run(0) for point in grid.points(odd)]
    assert len(set(names)) == 4
    for name in names:
        flags_of_train.parse(["--name", name])
        assert len(name) < 100


def config(*words):
    return grid.config(grid.points(words)[0])


def test_a_function_gets_a_nested_config():
    assert config("lr=1e-3", "sharpness.rho=0") == {"lr": 1e-3, "sharpness": {"rho": 0}}
    wanted = {"sharpness": {"name": "sam", "rho": 0.1, "adaptive": True}}
    found = config("sharpness.rho=0.1", "sharpness=sam", "sharpness.adaptive=True")
    assert found == wanted


@pytest.mark.parametrize(
    ("words", "constants", "flags"),
    [
        (["lr=1e-3"], "", "--lr 1e-3"),
        (["batch_size=8"], "--lr 3", "--lr 3 --batch-size 8"),
        (["lr=1e-3"], "--lr 3 --steps=9", "--lr 1e-3 --steps 9"),
        (["sharpness.rho=0.1"], "", "--sharpness sam rho=0.1"),
        (
            ["sharpness.rho=0.1"],
            "--sharpness asam eta=1",
            "--sharpness asam eta=1 rho=0.1",
        ),
        (["sharpness.rho=0.1"], "--sharpness sam rho=9", "--sharpness sam rho=0.1"),
        (["sharpness.rho=1", "sharpness=asam"], "", "--sharpness asam rho=1"),
        (["optimizer.b1=0.5"], "", "--optimizer adamw b2=0.99 weight_decay=0.1 b1=0.5"),
        (["optimizer.b2=0.5"], "", "--optimizer adamw weight_decay=0.1 b2=0.5"),
        (["tied=False"], "", "--no-tied"),
        (["tied=True"], "--no-tied", ""),
        (["deterministic=True"], "", "--deterministic"),
        (["deterministic=False"], "", ""),
        (["schedule=wsd decay_steps=9"], "", "--schedule wsd decay_steps=9"),
        ([], "word --data a b", "word --data a b"),
        (["lr=-1"], "--x -2", "--x -2 --lr -1"),
    ],
)
def test_a_program_gets_flags(words, constants, flags):
    (point,) = grid.points(words)
    assert grid.flags(point, constants.split()) == flags.split()


@pytest.mark.parametrize(
    "words", [["lr=3e-4", "tied=False"], ["sharpness.rho=0.1", "optimizer.b1=0.5"]]
)
def test_the_training_program_takes_these_flags(words):
    (point,) = grid.points(words)
    parsed = flags_of_train.parse(grid.flags(point, ["--steps", "9"]))
    assert parsed.training.steps == 9
    assert parsed.model.tied == ("tied=False" not in words)


def test_a_hyperparameter_of_no_trick_is_one_line():
    (point,) = grid.points(["weighting.temperature=1"])
    with pytest.raises(BadInput, match=r"of which trick\? Add -- --weighting NAME"):
        grid.flags(point, [])


# Programs.


def test_a_program_runs_at_every_point_and_seed(here, capsys):
    argv = ["program.py", "--grid", "lr=2,4", "sharpness.rho=0,0.5", "--seeds=2"]
    assert run(*argv) == 0
    assert calls() == [
        f"lr-{lr}_rho-{rho}_seed{s}"
        for lr in (2, 4)
        for rho in (0, 0.5)
        for s in (0, 1)
    ]
    kept = json.loads(Path("runs/program-sweep/sweep.json").read_text())["runs"]
    assert kept["lr-4_rho-0.5_seed1"] == {"measured": {"loss": 5.5, "step_s": 0.25}}
    text = capsys.readouterr().out
    # Student's t of one degree of freedom: 12.7062; 0 and 1 deviate by sqrt(1/2).
    half = 12.706205 * math.sqrt(0.5) / math.sqrt(2)
    assert f"2.50 ± {half:.2f}" in text
    assert "Best: lr=2 sharpness.rho=0, by the lowest mean loss." in text
    assert "python -m experiments.compare runs/program-sweep" in text
    lines = Path("runs/program-sweep/table.md").read_text().split("\n")
    assert lines[0] == "| lr | sharpness.rho | loss | step_s |"
    assert (
        lines[2] == f"| **2** | **0** | **2.50 ± {half:.2f}** | **0.2500 ± 0.0000** |"
    )
    assert lines[3].startswith("| 2 | 0.5 | 3.00 ± ")


def test_what_is_done_is_not_done_again(here, capsys):
    argv = ["program.py", "--grid", "lr=2,4", "--name=mine"]
    assert run(*argv, "--seeds=1") == 0
    assert len(calls()) == 2
    assert run(*argv, "--seeds=1") == 0
    assert not Path("calls").exists()
    assert "* 2" in capsys.readouterr().out.split("┡")[-1]
    assert run("program.py", "--grid", "lr=2,4,6", "--name=mine", "--seeds=2") == 1
    assert calls() == ["lr-2_seed1", "lr-4_seed1", "lr-6_seed0", "lr-6_seed1"]
    assert run(*argv, "--seeds=1", "--fresh") == 0
    assert len(calls()) == 2


def test_failures_are_listed_and_tried_again(here, capsys):
    argv = ["program.py", "--grid", "lr=2,9", "--seeds=2"]
    assert run(*argv) == 1
    text = capsys.readouterr().out
    log = "runs/program-sweep/logs/lr-9_seed1.log"
    assert f"failed: lr=9 seed 1: bad: the lr is too high ({log})" in text
    assert "9.0000 (1 of 2)" in text
    assert Path(log).read_text() == "usual words\nbad: the lr is too high\n"
    calls()
    assert run(*argv) == 1
    assert calls() == ["lr-9_seed1"]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("print('bye')", "ended without its results.json: bye"),
        ("raise ValueError('of\\nlines')", "lines"),
        ("import sys; sys.exit(7)", "exit status 7"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL"),
        ("print('\\x1b[2Jx'); raise SystemExit(3)", "?[2Jx"),
    ],
)
def test_why_a_run_failed(here, capsys, program, said):
    Path("program.py").write_text(program)
    assert run("program.py", "--seeds=1") == 1
    out = capsys.readouterr().out
    assert f"seed 0: {said} (runs" in out
    assert "experiments.compare" not in out  # of which it has nothing


def start(*argv):
    words = [sys.executable, "-m", "experiments.sweep", *argv]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(words, env=env, stdout=pipe, stderr=pipe, text=True)


def wait_for(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def is_gone(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0]
    except OSError:
        return True
    return state == "Z"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc, prctl")
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_sweep_that_was_stopped_goes_on(here, by, capsys):
    argv = ["program.py", "--grid", "lr=2,4", "--seeds=2"]
    argv += ["--", "--sleep-at", "lr-2_seed1"]
    process = start(*argv)
    home = Path("runs/program-sweep")
    wait_for((home / "lr-2_seed1" / "once").exists)
    child = int(Path("calls").read_text().split()[-2])
    process.send_signal(by)
    _, error = process.communicate(timeout=60)
    wait_for(lambda: is_gone(child))
    if by == signal.SIGKILL:
        assert process.returncode == -9
    else:
        assert process.returncode == 128 + by
        wanted = f"stopped by {by.name}; to continue: python -m experiments.sweep "
        assert error == f"{wanted}{' '.join(argv)}\n"
    assert calls() == ["lr-2_seed0", "lr-2_seed1"]
    assert run(*argv) == 0
    assert calls() == ["lr-2_seed1", "lr-4_seed0", "lr-4_seed1"]


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_sweep_of_a_function(here, by, capsys):
    lines = ["import pathlib, time", "def run(config, seed):"]
    lines += ["    first = int(seed) == 1 and not pathlib.Path('once').exists()"]
    lines += ["    if first: pathlib.Path('once').touch(); time.sleep(60)"]
    lines += ["    return {'loss': float(seed)}"]
    Path("function.py").write_text("\n".join(lines))
    process = start("function.py", "--seeds=3")
    wait_for(Path("once").exists)
    process.send_signal(by)
    out, error = process.communicate(timeout=30)
    assert process.returncode == 128 + by
    assert error.startswith(f"stopped by {by.name}; to continue: ")
    assert "1/3" in out
    assert "2/3" not in out  # it is no failure of that seed
    assert run("function.py", "--seeds=3") == 0
    assert "2/3  seed 1: loss 1" in capsys.readouterr().out


def test_a_program_of_a_package_is_a_module_from_anywhere(here, monkeypatch):
    package = here / "elsewhere" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "program.py").touch()
    file = str(package / "program.py")
    assert programs.find(file)[1][1:] == [file]  # nothing could import it
    monkeypatch.syspath_prepend(package.parent)
    assert programs.find(file)[1][1:] == ["-m", "package.program"]


def test_a_sweep_is_for_one_process(here, capsys):
    argv = ["program.py", "--seeds=1", "--", "--sleep-at", "seed0"]
    process = start(*argv)
    try:
        wait_for(Path("runs/program-sweep/seed0/once").exists)
        assert run(*argv) == 2
        assert "is in use by another process" in capsys.readouterr().err
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_another_sweep_of_the_same_name_is_refused(here, capsys):
    assert run("program.py", "--name=s", "--seeds=1", "--", "--lr", "1") == 0
    assert run("program.py", "--name=s", "--seeds=1", "--", "--lr", "2") == 2
    assert "exists with another constants" in capsys.readouterr().err
    Path("runs/train").mkdir()
    Path("runs/train/config.json").write_text("{}")
    for fresh in ([], ["--fresh"]):
        assert run("program.py", "--name=train", "--seeds=1", *fresh) == 2
        assert "exists and is no sweep" in capsys.readouterr().err
    assert Path("runs/train/config.json").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "Missing from python -m experiments.sweep: PROGRAM"),
        (["nix.py"], "nix.py: wanted a file or a module, came no file"),
        (["no.such.module"], "came neither"),
        (["os;ls"], "came neither"),
        (["program.py", "--seeds=0"], "--seeds: wanted >= 1, came 0"),
        (["program.py", "--name=../up"], "--name: wanted letters"),
        (["program.py", "--grid", "lr"], "--grid: wanted NAME=VALUE"),
        (["program.py", "--runs=/proc/no"], "--runs: cannot write"),
        (["broken.py"], "broken.py: not a Python file"),
        (["function.py", "--", "--x"], "takes no flags after --"),
    ],
)
def test_bad_input_is_one_line(here, capsys, argv, said):
    Path("broken.py").write_text("def (")
    Path("function.py").write_text("def run(config, seed): return {}")
    assert run(*argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error
    assert not Path("runs").exists()


def test_a_dry_run_lists_and_starts_nothing(here, capsys):
    argv = [
        "program.py",
        "--grid",
        "lr=1e-3,3",
        "--seeds=2",
        "--dry-run",
        "--",
        "--x",
        "a b",
    ]
    assert run(*argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 points x 2 seeds in runs/program-sweep"
    assert lines[2] == (
        "python program.py --x 'a b' --lr 1e-3 --seed 1 --name lr-1e-3_seed1 "
        "--runs runs/program-sweep"
    )
    assert len(lines) == 5
    assert {path.name for path in here.iterdir()} == {"program.py"}


def test_a_program_is_a_file_a_file_of_a_package_or_a_module(here, monkeypatch):
    assert programs.find("program.py") == (None, [sys.executable, "program.py"])
    Path("pack").mkdir()
    Path("pack/main.py").write_text("")
    assert programs.find("pack/main.py")[1][1:] == ["pack/main.py"]
    Path("pack/__init__.py").write_text("")
    assert programs.find("pack/main.py")[1][1:] == ["-m", "pack.main"]
    assert programs.find("pack.main")[1][1:] == ["-m", "pack.main"]
    monkeypatch.chdir(ROOT)
    for name in ("experiments/train.py", "experiments.train"):
        wanted = [sys.executable, "-m", "experiments.train"]
        assert programs.find(name) == (None, wanted)


# Functions.

FUNCTION = """
import jax, jax.numpy as jnp

def run(config, seed):
    noise = jax.random.normal(jax.random.key(seed))
    loss = config["lr"] * noise + config["sharpness"]["rho"]
    return {"loss": loss, "steps": jnp.int32(3)}
"""
CONCRETE = """
import numpy as np

def run(config, seed):
    with open("calls", "a") as file:
        print("0", seed, file=file)
    length = int(np.random.default_rng(seed).integers(3, 9))
    if config["lr"] == 2 and seed == 1:
        raise ValueError("no good")
    return {"loss": length * config["lr"], "accuracy": np.float32(0.5)}
"""


def test_seeds_are_vmapped_where_they_can_be(here, capsys):
    import jax

    Path("function.py").write_text(FUNCTION)
    argv = ["function.py", "--grid", "lr=0.5,1", "sharpness.rho=0,9", "--seeds=3"]
    assert run(*argv) == 0
    text = capsys.readouterr().out
    assert text.count("all 3 seeds at once, by jax.vmap") == 1
    kept = json.loads(Path("runs/function-sweep/sweep.json").read_text())["runs"]
    for seed in range(3):
        noise = float(jax.random.normal(jax.random.key(seed)))
        measured = kept[f"lr-0.5_rho-9_seed{seed}"]["measured"]
        assert measured["loss"] == pytest.approx(9 + noise / 2, rel=1e-6)
        assert measured["steps"] == 3
    assert "experiments.compare" not in text
    assert run(*argv) == 0
    assert "jax.vmap" not in capsys.readouterr().out
    assert run(*argv[:-1], "--seeds=5") == 0
    assert "all 2 seeds at once" in capsys.readouterr().out


def test_seeds_go_one_by_one_where_they_must(here, capsys):
    Path("function.py").write_text(CONCRETE)
    argv = ["function.py", "--grid", "lr=1,2", "--seeds=3"]
    assert run(*argv) == 1
    text = capsys.readouterr().out
    assert text.count("one seed after the other: TypeError: ") == 1
    assert "failed: lr=2 seed 1: ValueError: no good" in text
    assert "Best: lr=1, by the highest mean accuracy." in text
    numbers = [name for name in calls() if name.isdigit()]
    assert numbers == ["0", "1", "2", "0", "1", "2"]
    assert run(*argv) == 1
    assert [name for name in calls() if name.isdigit()] == ["1"]


def test_a_function_that_changed_is_another_sweep(here, capsys):
    Path("function.py").write_text(CONCRETE)
    assert run("function.py", "--grid", "lr=1", "--seeds=1") == 0
    Path("function.py").write_text(CONCRETE + "\n")
    assert run("function.py", "--grid", "lr=1", "--seeds=1") == 2
    assert "exists with another digest" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 3", "run returned no dict; wanted one of scalars"),
        ("return {'a': seed * jnp.ones(2)}", "run returned no scalar as 'a'"),
        ("return {'a': config['nix']}", "KeyError: 'nix'"),
        ("return {'a': jnp.ones(2) @ jnp.ones(3)}", "TypeError: dot_general"),
    ],
)
def test_a_function_that_returns_no_scalars_failed(here, capsys, body, said):
    source = f"import jax.numpy as jnp\ndef run(config, seed):\n    {body}\n"
    Path("function.py").write_text(source)
    assert run("function.py", "--seeds=2") == 1
    text = capsys.readouterr().out
    assert text.count("failed: ") == 2
    assert said in text


def test_a_file_that_cannot_be_imported_is_one_line(here, capsys):
    Path("function.py").write_text("import nix\ndef run(config, seed): return {}")
    assert run("function.py") == 2
    assert "ModuleNotFoundError: No module named 'nix'" in capsys.readouterr().err


# The table.


def tabled(measured, *, seeds, **flags):
    """The table of points a, b, ..., each with the measured values of its seeds."""
    points = grid.points([f"x={','.join(measured)}"])
    results = {
        point.run(seed): {
            "measured": value if isinstance(value, dict) else {"m": value}
        }
        for point, values in zip(points, measured.values(), strict=True)
        for seed, value in enumerate(values)
    }
    asked = Sweep(program="p", seeds=seeds, **flags)
    return table.table(points, asked, results)


def test_differences_are_told_apart_seed_by_seed():
    # The points differ by less than the seeds do, but by the same at every seed.
    noise = (0.0, 5.0, -3.0, 1.0)
    measured = {
        "a": [1.0 + n for n in noise],
        "b": [1.1 + n + 0.001 * i for i, n in enumerate(noise)],
        "c": [1.2 + n * 1.5 for n in noise],
    }
    head, rows, best, notes = tabled(measured, seeds=4)
    assert head == ["x", "m"]
    assert best == 0
    mean, deviation = statistics.fmean(measured["a"]), statistics.stdev(measured["a"])
    assert rows[0] == ["a", f"{mean:.2f} ± {3.182446 * deviation / 2:.2f}"]
    assert notes[1] == "Best: x=a, by the lowest mean m."
    assert notes[2].endswith("holds 0): x=c.")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([2.5], "2.5000"),
        ([1234.5], "1234.5"),
        ([0.0], "0.0000"),
        ([-3e-5], "-0.0000"),
        ([7.4, 9.1], "8.25 ± 10.80"),
        ([0.1, 0.1001], "0.10005 ± 0.00064"),
        ([1e6, 2e6], "1500000 ± 6353102"),
        ([4, 4], "4.0000 ± 0.0000"),
    ],
)
def test_a_cell_has_the_digits_that_mean_something(values, said):
    assert table.cell(dict(enumerate(values)), len(values)) == said


def test_a_point_with_a_seed_missing_or_not_finite_is_not_the_best():
    nan = math.nan
    measured = {"a": [0.1, None], "b": [0.2], "c": [3.0, 4.0], "d": [nan, nan]}
    _, rows, best, _ = tabled(measured, seeds=2)
    assert best == 2
    assert [row[1] for row in rows[:2]] == ["0.1000 (1 of 2)", "0.2000 (1 of 2)"]
    assert rows[3][1] == "not finite"
    _, _, best, _ = tabled({"a": [None], "b": []}, seeds=1)
    assert best is None


def test_the_best_is_by_the_metric_asked_for():
    measured = {
        "a": [{"loss": 1.0, "speed": 5.0}],
        "b": [{"loss": 2.0, "speed": 9.0}],
    }
    assert tabled(measured, seeds=1)[2] == 0
    assert tabled(measured, seeds=1, metric="speed")[2] == 0
    assert tabled(measured, seeds=1, metric="speed", maximize=True)[2] == 1
    with pytest.raises(BadInput, match="--metric: wanted one of loss, speed, came x"):
        tabled(measured, seeds=1, metric="x")
    assert "One seed tells no point" in tabled(measured, seeds=1)[3][-1]


@pytest.mark.slow
def test_the_training_program_is_swept(tmp_path, monkeypatch):
    """A point and two seeds of experiments.train, then their comparison."""
    corpus = tmp_path / "text"
    for name in ("a", "b"):
        (corpus / name).mkdir(parents=True)
        for i in range(4):
            words = textwrap.fill(" ".join([name * (i + 1)] * 200))
            (corpus / name / f"{i}.txt").write_text(words)
    monkeypatch.chdir(ROOT)
    tiny = "--steps 4 --batch-size 8 --seq-len 16 --d-model 8 --layers 1 --heads 1"
    tiny += " --valid-examples 8 --valid-every 2 --log-every 2 --save-every 2"
    argv = ["experiments/train.py", "--grid", "sharpness.rho=0.05", "--seeds=2"]
    argv += [f"--runs={tmp_path}", "--name=swept", "--", *tiny.split()]
    assert run(*argv, "--data", corpus) == 0
    lines = (tmp_path / "swept" / "table.md").read_text().split("\n")
    assert lines[0].startswith("| sharpness.rho | loss | bits_per_byte |")
    from experiments import runs

    found = runs.groups(runs.find([tmp_path / "swept"]))
    assert [(group.name, len(group.runs)) for group in found] == [("rho-0.05", 2)]
    assert all(run.done for group in found for run in group.runs)
