"""The command line: what is understood, and what gets one line and exit status 2."""

import json
import os
import subprocess
import sys

import pytest

from experiments.lm import files
from experiments.lm.config import ARMS, BadInput, Config
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
        "print(c.steps, c.tied, c.fresh, c.lr, c.name)\n"
    )
    done = python("-c", code)
    assert done.stdout.splitlines() == [
        "True",
        "('adamw', 'sam') ('adamw', 'sam')",
        "7 False True 0.1 a-b",
    ], done.stderr
    assert Config().arms == ARMS


def test_the_last_checkpoints_are_known_beforehand():
    assert Config(steps=40, save_every=8, keep=3).steps_saved() == [24, 32, 40]
    assert Config(steps=41, save_every=8, keep=2).steps_saved() == [40, 41]
    assert Config(steps=5, save_every=8).steps_saved() == [5]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--arms adamm", "--arms: unknown arm 'adamm'; there are adamw, wsd, sam"),
        ("--arms", "--arms: wanted one or more of adamw"),
        ("--arms adamw average", "average is of the checkpoints of all; add all"),
        ("--steps 0", "--steps: wanted >= 1, came 0"),
        ("--steps many", "Error parsing --steps"),
        ("--lr nan", "--lr: wanted a finite number, came nan"),
        ("--d-model 10 --heads 4", "--d-model: wanted a multiple of 8"),
        ("--warmup 0.9", "--decay: wanted <= 1 - warmup, came 0.2"),
        ("--valid-fraction 1", "--valid-fraction: wanted in (0, 1), came 1"),
        ("--name ../up", "--name: wanted letters, digits, . _ -, came '../up'"),
        ("--colour red", "Unrecognized options: --colour"),
        ("--data nowhere", "--data: nowhere is not a folder"),
        ("--data empty", "--data: no text in empty"),
        ("--data broken", "--data: cannot read broken/gone.txt: No such file"),
        ("--data text --batch-size 100000", "--batch-size: wanted <= "),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(tmp_path, flags, said):
    corpus.write(tmp_path / "text")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "gone.txt").symlink_to("nothing")
    env = os.environ | {"PYTHONPATH": os.getcwd()}
    done = python("-m", "experiments.lm", *flags.split(), cwd=tmp_path, env=env)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def claim(config, text, said=lambda line: None):
    with files.claim(config, {"files": 2, "bytes": 3, "digest": text}, said) as home:
        return home


def test_a_run_is_one_config(tmp_path):
    config = Config(runs=tmp_path / "runs", steps=5)
    home = claim(config, "a")
    assert json.loads((home / "config.json").read_text())["steps"] == 5
    assert "jax" in json.loads((home / "env.json").read_text())
    (home / "kept").touch()
    claim(config, "a")
    assert (home / "kept").exists()
    other = Config(runs=tmp_path / "runs", steps=6, seed=1)
    with pytest.raises(BadInput, match=r"steps was 5, is 6; seed was 0, is 1.*--fresh"):
        claim(other, "a")
    with pytest.raises(BadInput, match="text was 2 files, 3 bytes, digest a"):
        claim(config, "b")
    assert (home / "kept").exists()
    claim(Config(runs=tmp_path / "runs", steps=6, fresh=True), "a")
    assert not (home / "kept").exists()
    assert sorted(p.name for p in home.parent.iterdir()) == ["lm"]


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "lm").mkdir()
    (tmp_path / "lm" / "thesis.txt").touch()
    for fresh in (False, True):
        with pytest.raises(BadInput, match="is no run of this program"):
            claim(Config(runs=tmp_path, fresh=fresh), "a")
    assert (tmp_path / "lm" / "thesis.txt").exists()


def test_a_run_belongs_to_one_process(tmp_path):
    config, about = Config(runs=tmp_path), {"files": 2, "bytes": 3, "digest": "a"}
    with files.claim(config, about, print), pytest.raises(BadInput, match="in use"):
        claim(config, "a")
    claim(config, "a")


def test_another_version_of_a_package_is_mentioned(tmp_path):
    config, lines = Config(runs=tmp_path), []
    env = claim(config, "a") / "env.json"
    env.write_text(json.dumps(json.loads(env.read_text()) | {"numpy": "1.0"}))
    claim(config, "a", lines.append)
    assert len(lines) == 1
    assert "numpy 1.0 -> " in lines[0]


def test_metrics_survive_a_torn_line_and_are_rewound(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"arm": "sam", "step": 1}\n{"arm": "adamw", "step": 2}\n{"arm": "a'
    )
    metrics = files.Metrics(path, ("adamw", "sam"))
    metrics.rewind("adamw", 1)
    metrics.append({"arm": "adamw", "step": 2, "loss": 0.1})
    metrics.rewind("adamw", 2)
    assert path.read_text() == (
        '{"arm": "adamw", "step": 2, "loss": 0.1}\n{"arm": "sam", "step": 1}\n'
    )


def test_help_explains_every_flag_and_starts_no_jax():
    code = (
        "import sys; from experiments.lm.__main__ import main\n"
        "try: main(['--help'])\n"
        "finally: assert 'jax' not in sys.modules"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    for name in Config.__dataclass_fields__:
        assert f"-{name.replace('_', '-')}" in done.stdout
