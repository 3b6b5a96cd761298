"""The screen, the files that rows go to, and the clock."""

import json
import math
import os
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from tensorboardX.proto import event_pb2

from experiments.config import BadInput, Config, Run, Training, Watch
from experiments.watch import screen, speed, writers

# Speed.


@pytest.mark.parametrize(
    ("kind", "bf16", "f32"),
    [
        ("TPU v4", 275e12, 275e12),
        ("TPU v5 lite", 197e12, 197e12),
        ("TPU v5", 459e12, 459e12),
        ("TPU v5p", 459e12, 459e12),
        ("TPU v6 lite", 918e12, 918e12),
        ("NVIDIA A100-SXM4-80GB", 312e12, 156e12),
        ("NVIDIA H100 80GB HBM3", 989.5e12, 494.5e12),
        ("NVIDIA H100 PCIe", 756.5e12, 378e12),
        ("NVIDIA H200", 989.5e12, 494.5e12),
        ("NVIDIA B200", 2250e12, 1100e12),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None, None),
        ("TPU v4 lite", None, None),
        ("NVIDIA A1000", None, None),
        ("TPU v99", None, None),
        ("cpu", None, None),
    ],
)
def test_a_device_has_the_peak_of_its_kind(kind, bf16, f32):
    assert speed.peak(kind, "bfloat16") == bf16
    assert speed.peak(kind, "float32") == f32


def test_an_unknown_dtype_has_no_peak():
    assert speed.peak("TPU v4", "int3") is None
    assert speed.peak("TPU v4", jnp.dtype("bfloat16")) == 275e12


def test_mfu_is_of_all_devices_and_none_where_one_is_unknown():
    a100, cpu = (SimpleNamespace(device_kind=k) for k in ("NVIDIA A100", "cpu"))
    found = speed.mfu(2e12, 0.01, [a100, a100], "bfloat16")
    assert found == pytest.approx(200 / 624)
    assert speed.mfu(2e12, 0.01, [a100, cpu], "bfloat16") is None
    assert speed.mfu(None, 0.01, [a100], "bfloat16") is None
    assert speed.mfu(2e12, 0.01, [], "bfloat16") is None
    assert speed.mfu(2e12, 0.01, jax.devices(), "float32") is None


def test_the_clock_times_what_is_in_its_laps(monkeypatch):
    ticks = iter([0, 1, 10, 12, 50, 59, 100, 104])
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    clock = speed.Clock(100.0, unit="images", mfu=lambda step_s: 1 / step_s)
    for _ in range(3):
        with clock.lap():
            pass
        clock.saw(30)
    reading = clock.read()
    wanted = {"train_s": 112.0, "step_s": 2, "images_per_s": 90 / 12, "mfu": 0.5}
    assert reading == wanted
    assert clock.read() == {"train_s": 112.0}  # nothing new
    with clock.lap(steps=4):
        pass
    assert clock.read() == {
        "train_s": 116.0,
        "step_s": 1.0,
        "images_per_s": 0.0,
        "mfu": 1.0,
    }


def traced_steps(steps, folder, said, *, session):
    step = jax.jit(lambda x: x @ x)
    x = jnp.ones((8, 8))
    with speed.profile(steps, folder, said.append) as traced:
        for i in range(session):
            with traced(i):
                step(x).block_until_ready()


def test_a_profile_holds_the_steps_after_the_first_ten(tmp_path, monkeypatch):
    calls = []
    for name in ("start_trace", "stop_trace"):
        monkeypatch.setattr(jax.profiler, name, lambda *a, n=name: calls.append(n))
    noted = []

    class Annotation:
        def __init__(self, name, step_num):
            noted.append(step_num)

        __enter__ = __exit__ = lambda self, *args: None

    monkeypatch.setattr(jax.profiler, "StepTraceAnnotation", Annotation)
    said = []
    traced_steps(3, tmp_path / "profile", said, session=20)
    assert calls == ["start_trace", "stop_trace"]
    assert noted == [10, 11, 12]
    assert "trace of 3 steps in" in said[0]
    assert f"xprof --port 8791 --logdir {tmp_path / 'profile'}" in said[1]
    said.clear()
    traced_steps(3, tmp_path / "profile", said, session=12)  # ends before its last
    assert calls == ["start_trace", "stop_trace"] * 2
    assert "trace of 2 steps" in said[0]
    said.clear()
    traced_steps(3, tmp_path / "profile", said, session=10)
    assert said == ["no trace: it begins after 10 steps, and this session did 10"]
    said.clear()
    traced_steps(0, tmp_path / "profile", said, session=20)
    assert calls == ["start_trace", "stop_trace"] * 2
    assert not said


def test_a_profile_is_on_disk_even_if_the_program_fails(tmp_path):
    said, step = [], jax.jit(lambda x: x + 1)

    def program():
        with speed.profile(5, tmp_path / "profile", said.append, after=1) as traced:
            for i in range(3):
                with traced(i):
                    step(jnp.float32(i)).block_until_ready()
                    1 / (2 - i)

    with pytest.raises(ZeroDivisionError):
        program()
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert "trace of" in said[0]


# Writers.


def config(**watch):
    return Config(run=Run(name="r"), watch=Watch(**watch))


def row(step, loss=1.5, **more):
    return {"step": step, "loss": loss, "timing": {"step_s": 0.1}} | more


def events(folder):
    """(tag, step, value, time) of every point, as the files have them."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            if event.HasField("session_log"):
                found.append(("START", event.step, None, None))
            for value in event.summary.value:
                point = value.tag, event.step, value.simple_value, event.wall_time
                found.append(point)
    return found


def test_rows_are_strict_json_of_plain_numbers(tmp_path):
    with writers.Log(tmp_path, config()) as log:
        log.rewind(0)
        mixed = {"a": jnp.float32(0.1), "b": float("inf"), "c": np.float64("nan")}
        mixed |= {"d": np.array([1, 2]), "e": True, "f": None, "g": (1.5, -math.inf)}
        log.write(row(1, jnp.nan, domains=mixed))
    text = (tmp_path / "metrics.jsonl").read_text()
    strict = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert strict["loss"] is None
    wanted = {"a": float(np.float32(0.1)), "b": None, "c": None, "d": [1, 2]}
    assert strict["domains"] == wanted | {"e": True, "f": None, "g": [1.5, None]}
    assert abs(strict["timing"]["at"] - time.time()) < 60


def test_a_killed_run_ends_with_the_same_rows(tmp_path):
    def session(home, begins, ends):
        with writers.Log(home, config(tensorboard=False)) as log:
            log.rewind(begins)
            for step in range(begins + 1, ends + 1):
                log.write(row(step, 1 / 3 * step))
        return [{k: r[k] for k in r if k != "timing"} for r in log.rows]

    homes = [tmp_path / name for name in ("whole", "killed")]
    for home in homes:
        home.mkdir()
    whole, killed = session(homes[0], 0, 9), homes[1]
    session(killed, 0, 7)
    with (killed / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "los')  # the kill
    assert session(killed, 4, 9) == whole  # its newest checkpoint was of step 4
    kept = writers.read(killed / "metrics.jsonl")
    assert [r["step"] for r in kept] == list(range(1, 10))
    assert [r["loss"] for r in kept] == [r["loss"] for r in whole]


@pytest.mark.parametrize(
    "text", ["", "\n\n", "[]\n3\n", '{"loss": 1}\n', '{"step": "x"}\n', "\x00\xff\n"]
)
def test_what_is_no_row_is_not_read(tmp_path, text):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text + '{"step": 3}\n{"step":', encoding="latin-1")
    assert writers.read(path) == [{"step": 3}]


def test_tensorboard_has_every_point_once_after_a_restore(tmp_path):
    def session(begins, ends):
        with writers.Log(tmp_path, config()) as log:
            log.rewind(begins)
            for step in range(begins + 1, ends + 1):
                valid = {"loss": step + 0.5, "domains": {"a b/c": step, "nan": None}}
                log.write(row(step, float(step), valid=valid))
        return log.rows

    session(0, 6)
    board = tmp_path / "tensorboard"
    first = {point[:2]: point[3] for point in events(board)}
    rows = session(3, 5)
    assert len(list(board.iterdir())) == 1
    points = events(board)
    assert points[0][:2] == ("START", 0)  # readers forget what they had from step 0 on
    tags = "loss", "valid/loss", "valid/domains/a_b/c", "timing/step_s"
    wanted = sorted((tag, r["step"]) for r in rows for tag in tags)
    assert sorted(point[:2] for point in points[1:]) == wanted
    values = {point[:2]: point[2] for point in points}
    assert values["valid/loss", 5] == 5.5
    assert values["loss", 2] == 2.0
    # Old points keep the time that they had.
    again = {point[:2]: point[3] for point in points}
    assert again["loss", 2] == pytest.approx(first["loss", 2], abs=2e-3)


def test_a_rewind_within_a_session_rewinds_all(tmp_path):
    with writers.Log(tmp_path, config()) as log:
        log.rewind(0)
        for step in (1, 2, 3):
            log.write(row(step, 1.0))
        log.rewind(1)
        log.write(row(2, 9.0))
    assert [(r["step"], r["loss"]) for r in log.rows] == [(1, 1.0), (2, 9.0)]
    assert writers.read(tmp_path / "metrics.jsonl") == log.rows
    points = [p[:3] for p in events(tmp_path / "tensorboard") if p[0] == "loss"]
    assert points == [("loss", 1, 1.0), ("loss", 2, 9.0)]


def test_only_the_first_process_writes(tmp_path):
    with writers.Log(tmp_path, config(tracker="wandb"), first=False) as log:
        log.rewind(0)
        log.write(row(1))
        log.write(row(2))
        log.rewind(1)
    assert not list(tmp_path.iterdir())
    assert [r["step"] for r in log.rows] == [1]


def test_tensorboard_can_be_left_out(tmp_path):
    with writers.Log(tmp_path, config(tensorboard=False)) as log:
        log.rewind(0)
        log.write(row(1))
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_full_disk_stops_the_program_and_does_not_hang_it(tmp_path):
    program = """
import pathlib, resource, sys
from experiments.config import Config, Failed
from experiments.watch import writers
resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000))
try:
    with writers.Log(pathlib.Path(sys.argv[1]), Config()) as log:
        log.rewind(0)
        for step in range(1, 9999):
            log.write({"step": step, "loss": 1.0, "domains": dict.fromkeys("abc", 1.0)})
except Failed as error:
    print(error)
"""
    words = [sys.executable, "-c", program, str(tmp_path)]
    env = os.environ | {"PYTHONPATH": str(Path(writers.__file__).parents[2])}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    said = f"cannot write the rows of {tmp_path} (File too large)"
    assert done.stdout == f"{said}; the checkpoints remain\n"
    rows = writers.read(tmp_path / "metrics.jsonl")
    assert len(rows) > 100
    with writers.Log(tmp_path, config()) as log:
        log.rewind(100)
    assert [r["step"] for r in log.rows] == list(range(1, 101))


FAKE = """
import json, pathlib
out = pathlib.Path(__file__).with_suffix(".calls")
def record(**call):
    with out.open("a") as file:
        file.write(json.dumps(call) + chr(10))
def init(**kwargs):
    record(init=kwargs)
def log(values, step):
    record(log=values, step=step)
def finish():
    record(finish=True)
"""


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_gets_each_step_once(tmp_path, monkeypatch, name):
    modules, home = tmp_path / "modules", tmp_path / "run-7"
    modules.mkdir()
    home.mkdir()
    (modules / f"{name}.py").write_text(FAKE)
    monkeypatch.syspath_prepend(modules)
    monkeypatch.delitem(sys.modules, name, raising=False)
    for begins, ends in ((0, 4), (2, 6)):  # killed at 4, restored at 2
        with writers.Log(home, config(tracker=name, tensorboard=False)) as log:
            log.rewind(begins)
            for step in range(begins + 1, ends + 1):
                log.write(row(step, step / 4, valid={"domains": {"a": 1.0, "b": None}}))
    monkeypatch.delitem(sys.modules, name)
    calls = list(map(json.loads, (modules / f"{name}.calls").read_text().splitlines()))
    begun = [call["init"] for call in calls if "init" in call]
    assert len(begun) == 2
    assert begun[0] == begun[1]
    assert begun[0]["name"] == "run-7"
    assert begun[0]["project"] == "jaxtricks"
    assert begun[0]["resume"] == "allow"
    assert begun[0]["config"]["d_model"] == 64
    assert begun[0].get("id") == {"wandb": "run-7", "trackio": None}[name]
    logged = [call for call in calls if "log" in call]
    assert [call["step"] for call in logged] == [1, 2, 3, 4, 5, 6]
    wanted = {"loss": 0.25, "valid/domains/a": 1.0, "timing/step_s": 0.1}
    assert logged[0]["log"] == wanted
    assert sum("finish" in call for call in calls) == 2


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_that_is_missing_is_one_line(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(writers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=f"--tracker {name}: not .* pip install {name}$"):
        writers.Log(tmp_path, config(tracker=name))
    assert not list(tmp_path.iterdir())
    writers.check(Watch())


# The screen.


def shown(*rows, terminal=False, first=True, name="try", steps=600):
    console = Console(
        width=110, record=True, force_terminal=terminal, quiet=not first, file=None
    )
    asked = Config(run=Run(name=name), training=Training(steps=steps))
    with screen.Screen(asked, unit="tokens", first=first, console=console) as seen:
        seen.begin(0)
        for one in rows:
            seen.row(one)
        seen.end(steps, rows[-1].get("valid"))
        seen.say("[b]a line[/b]")
    return console.export_text()


TIMING = {"step_s": 0.5, "tokens_per_s": 12345.6, "mfu": 0.4312}


def test_elsewhere_there_is_a_line_an_evaluation(capsys):
    valid = {"loss": 1.9, "bits_per_byte": 2.7411, "domains": {}}
    text = shown(
        {"step": 10, "loss": 3.0, "timing": TIMING},
        {"step": 75, "loss": 2.5, "timing": TIMING, "valid": valid, "skipped": 2},
    )
    assert text.splitlines() == [
        "try  step   0/600  compiles",
        "try  step  75/600  loss 2.500  12.3k tokens/s  MFU 43.1%  ETA 4:22  2 skipped"
        "  valid 2.741 bits/byte",
        "try  step 600/600  done  valid 2.741 bits/byte",
        "[b]a line[/b]",
    ]


def test_on_a_terminal_there_is_a_bar(capsys):
    text = shown(
        {"step": 10, "loss": None, "timing": TIMING}, terminal=True, name="[x]"
    )
    assert "[x]" in text
    assert "━" in text
    assert "600/600" in text


def test_processes_other_than_the_first_are_silent(capsys):
    assert not shown({"step": 10, "loss": 3.0}, first=False).strip()
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"loss": 1.5, "bits_per_byte": 2.25}, "2.250 bits/byte"),
        ({"loss": 0.25, "accuracy": 0.9312}, "93.1% loss 0.250"),
        ({"loss": 1.5}, "loss 1.500"),
        ({"loss": None}, "loss not finite"),
        ({}, "loss not finite"),
    ],
)
def test_an_evaluation_in_a_few_words(values, said):
    assert screen.valid(values) == said


@pytest.mark.parametrize(
    ("number", "said"),
    [(0.54, "0.5"), (321.4, "321"), (12345, "12.3k"), (4.56e8, "456M"), (2e9, "2.0G")],
)
def test_numbers_are_short(number, said):
    assert screen.short(number) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        *[(0, "0:00"), (59.6, "1:00"), (3725, "1:02:05"), (100000, "1d 3h")],
        *[(-5, "0:00"), (math.nan, "?"), (math.inf, "?")],
    ],
)
def test_durations_are_short(seconds, said):
    assert screen.duration(seconds) == said
