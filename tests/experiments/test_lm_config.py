"""The command lines: what is understood, and what gets one line and exit status 2."""

import dataclasses
import os
import subprocess
import sys

import pytest

from experiments.config import Config
from experiments.lm.config import ARMS, Demo
from tests.experiments import corpus


def python(*words, **where):
    """A process of its own, as a user has it: tyro's caches are the interpreter's."""
    where = {"capture_output": True, "text": True, "timeout": 600} | where
    return subprocess.run([sys.executable, *words], **where)


def test_flags():
    code = (
        "from experiments.lm.config import parse\n"
        "def arms(*words): return parse(['--arms', *words]).arms\n"
        "print(parse([]).arms == parse(['--arms', 'sam', *parse([]).arms]).arms)\n"
        "print(arms('sam,adamw'), arms('sam', 'adamw,sam'))\n"
        "c = parse('--steps 7 --no-tied --fresh --lr=0.1 --name=a-b'.split())\n"
        "t = c.training\n"
        "print(t.steps, c.model.tied, c.run.fresh, t.lr, c.run.name)\n"
        "c = parse('--sharpness sam rho=0.1 --data a=b c --loss focal'.split())\n"
        "print(c.training.sharpness, c.data.data, c.training.loss)\n"
    )
    done = python("-c", code)
    assert done.stdout.splitlines() == [
        "True",
        "('adamw', 'sam') ('adamw', 'sam')",
        "7 False True 0.1 a-b",
        "('sam', 'rho=0.1') ('a=b', 'c') ('focal',)",
    ], done.stderr
    assert Demo().arms == ARMS


@pytest.mark.parametrize(
    ("program", "flags", "said"),
    [
        (
            "lm",
            "--arms adamm",
            "--arms: unknown arm 'adamm'; there are adamw, wsd, sam",
        ),
        ("lm", "--arms", "--arms: wanted one or more of adamw"),
        ("lm", "--arms adamw average", "average is of the checkpoints of all; add all"),
        ("lm", "--decay 0.99", "--decay: wanted > 0 and <= 1 - warmup, came 0.99"),
        ("lm", "--rho=-1", "--rho: wanted >= 0, came -1.0"),
        ("lm", "--data empty", "--data: no text in empty"),
        ("train", "--steps 0", "--steps: wanted >= 1, came 0"),
        ("train", "--lr nan", "--lr: wanted a finite number, came nan"),
        ("train", "--lr x", "--lr"),
        ("train", "--what 1", "Unrecognized options: --what"),
        ("train", "--d-model 10 --heads 4", "--d-model: wanted a multiple of 8"),
        ("train", "--name ../x", "--name: wanted letters, digits, . _ -"),
        ("train", "--coordinator=a:1", "--coordinator, --processes and --process go"),
        ("train", "--data nowhere", "which does not exist"),
        ("train", "--data broken", "--data: cannot read broken/gone.txt: No such file"),
        ("train", "--data text --sharpness sma", "unknown 'sma'; perhaps sam"),
        ("train", "--data text --microbatches 3", "--batch-size: wanted a multiple"),
        ("train", "--data text --mesh-data 3000", "but there are"),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(tmp_path, program, flags, said):
    corpus.write(tmp_path / "text")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "gone.txt").symlink_to("nothing")
    env = os.environ | {"PYTHONPATH": os.getcwd()}
    words = ["-m", f"experiments.{program}", *flags.split()]
    done = python(*words, cwd=tmp_path, env=env)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("program", ["lm", "train"])
def test_help_explains_every_flag_and_starts_no_jax(program):
    code = (
        f"import sys; from experiments.{program}{'.__main__' * (program == 'lm')} "
        "import main\n"
        "try: main(['--help'])\n"
        "finally: assert 'jax' not in sys.modules"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    for section in dataclasses.fields(Config):
        for name in section.default_factory.__dataclass_fields__:
            assert f"-{name.replace('_', '-')}" in done.stdout
