"""The folder of a run: one config, one process, nothing half-written."""

import json

import pytest

from experiments import files
from experiments.config import BadInput


def claim(home, text="a", said=lambda line: None, fresh=False, **numbers):
    about = {"sources": [{"digest": text}]}
    numbers = {"steps": 5, "seed": 0} | numbers
    with files.claim(home, numbers, about, fresh=fresh, say=said):
        return home


def test_a_run_is_one_config(tmp_path):
    home = claim(tmp_path / "runs" / "x")
    assert json.loads((home / "config.json").read_text())["steps"] == 5
    assert "jax" in json.loads((home / "env.json").read_text())
    (home / "kept").touch()
    claim(home)
    assert (home / "kept").exists()
    with pytest.raises(BadInput, match=r"steps was 5, is 6; seed was 0, is 1.*--fresh"):
        claim(home, steps=6, seed=1)
    with pytest.raises(BadInput, match=r"data had the digest \['a'\], has \['b'\]"):
        claim(home, "b")
    assert (home / "kept").exists()
    claim(home, steps=6, fresh=True)
    assert not (home / "kept").exists()
    assert sorted(p.name for p in home.parent.iterdir()) == ["x"]


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "lm").mkdir()
    (tmp_path / "lm" / "thesis.txt").touch()
    for fresh in (False, True):
        with pytest.raises(BadInput, match="is no run of this program"):
            claim(tmp_path / "lm", fresh=fresh)
    assert (tmp_path / "lm" / "thesis.txt").exists()


def test_a_run_belongs_to_one_process(tmp_path):
    home, about = tmp_path / "x", {"sources": []}
    with files.claim(home, {}, about), pytest.raises(BadInput, match="in use"):
        claim(home)
    with files.claim(home, {}, about):
        pass


def test_another_version_of_a_package_is_mentioned(tmp_path):
    lines = []
    env = claim(tmp_path / "x") / "env.json"
    env.write_text(json.dumps(json.loads(env.read_text()) | {"numpy": "1.0"}))
    claim(tmp_path / "x", said=lines.append)
    assert len(lines) == 1
    assert "numpy 1.0 -> " in lines[0]
