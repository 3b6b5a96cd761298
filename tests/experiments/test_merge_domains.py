"""Merging domains: what is trained on and merged, what is measured, what is shown."""

import csv
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import pages
from experiments.merge_domains import (
    config,
    evidence,
    methods,
    report,
    text,
    training,
)
from experiments.merge_domains.__main__ import main
from experiments.merge_domains.run import scaled
from experiments.merge_domains.text import NAMES
from jaxtricks import merging

SMALL = "--seeds 2 --text 40000 --d-model 8 --layers 1 --heads 1 --seq-len 16 --tune 2"
SMALL += " --batch-size 3 --pretrain 3 --test 4 --valid 3 --probe 3 --steps 2"
SMALL += " --scales 0.5 1"


# --- what is trained on ---------------------------------------------------------------


def test_code_and_what_it_says():
    source = '''"""Of the module,
two lines."""
# A comment.
x = 1  # kept


class A:
    """Of the class."""

    def f(self):
        "Of the function."
        return """no docstring"""
'''
    code, prose = text.code_and_prose(source)
    assert prose == "Of the module,\ntwo lines.\n\nOf the class.\n\nOf the function.\n"
    assert code.split("\n") == [
        *("x = 1  # kept", "", "", "class A:", "", "    def f(self):"),
        *('        return """no docstring"""', ""),
    ]


def test_whole_documents_are_held_out():
    documents = [(str(i), bytes([i]) * 100) for i in range(40)]
    parts = text.split(documents)
    assert [len(parts[k]) for k in ("test", "valid", "train")] == [4, 2, 34]
    assert [*parts["test"], *parts["valid"], *parts["train"]] == documents


def test_windows_start_anew_in_every_document():
    windows = text.cut([b"abcde", b"xy"], 3)
    assert windows.targets.tolist() == [[97, 98, 99], [100, 101, 0], [120, 121, 0]]
    assert windows.inputs[:, 0].tolist() == [0, 0, 0]
    assert windows.mask.sum(1).tolist() == [3, 2, 2]
    assert len(windows.full().mask) == 1
    assert windows.some(2).mask.sum(1).tolist() == [3, 2]


@pytest.fixture(scope="module")
def task():
    flags = config.parse(SMALL.split())
    return training.task(flags, text.load(flags.text, flags.seq_len))


def test_three_domains(task):
    texts = task.texts
    for i, name in enumerate(NAMES):
        assert 30_000 < texts.about[f"{name} bytes"] <= 40_000
        held_out = [part[i].mask.sum() for part in (texts.test, texts.valid)]
        whole = texts.about[f"{name} bytes"]
        assert sum(held_out) + texts.train[i].mask.sum() == whole
        assert min(held_out) >= text.LEAST
    said = [bytes(windows.targets[windows.mask]) for windows in texts.train]
    assert b"def " in said[0]
    assert b'"""' not in said[1]
    assert b"#define" in said[2]
    # A list of tables of characters would be no Python to speak of.
    assert all(len(set(words)) < 130 for words in said)


def test_domains_take_turns_and_every_window_is_seen():
    stage = training.Stage("some", (0, 2), 6, 1.0, None)
    rows = training.order([4, 5, 3], stage, 2, np.random.default_rng(0))
    assert rows.shape == (6, 2)
    assert sorted(rows[:4, 0]) == [0, 1, 2, 3]
    assert sorted(rows[:3, 1]) == sorted(rows[3:, 1]) == [9, 10, 11]


def test_the_multi_task_model_has_as_many_updates_as_all_fine_tunes():
    base, *tuned, many = training.stages(config.parse(["--tune", "7"]))
    assert base.domains == many.domains == (0, 1, 2)
    assert [stage.domains for stage in tuned] == [(0,), (1,), (2,)]
    assert many.updates == sum(stage.updates for stage in tuned) == 21
    rates = np.asarray(training.schedule(many)(np.arange(21)))
    assert rates[0] == 0
    assert rates.max() == pytest.approx(many.lr)
    assert rates[-1] < 0.12 * many.lr


# --- what is merged -------------------------------------------------------------------


def test_every_function_has_a_setting_or_a_reason():
    names = set(merging.__all__)
    assert {of.fn for of in methods.TABLE.values()} <= names
    assert set(methods.ELSEWHERE) | set(methods.BESIDE.split()) <= names
    assert not {of.fn for of in methods.TABLE.values()} & set(methods.ELSEWHERE)
    assert set(config.QUICK["methods"]) <= set(methods.TABLE)


def work_of(base, trees, steps=1):
    """What a merge may take, but for data."""
    n = len(trees)
    none = [None] * n
    key, metrics = jax.random.key(0), jnp.ones(n)
    return evidence.Work(base, trees, key, none, none, none, {}, metrics)


@pytest.mark.parametrize("name", ["task_arithmetic", "ties", "breadcrumbs", "iso"])
def test_the_scale_is_the_methods_own(name):
    rng = np.random.default_rng(0)
    base, *trees = (jnp.asarray(rng.normal(size=(4, 3)), jnp.float32) for _ in range(4))
    of = methods.TABLE[name]
    assert of.scale is not None
    once = of.merge(work_of(base, trees), None)
    hyper = {"density": 0.14} if name == "breadcrumbs" else {}
    own = getattr(merging, name)(base, trees, scale=0.3, **hyper)
    np.testing.assert_allclose(scaled(base, once, 0.3), own, atol=1e-6)


def test_by_turns_all_count_alike():
    mean = methods.by_turns(lambda a, b, t: (1 - t) * a + t * b, [3.0, 6.0, 12.0])
    assert mean == pytest.approx(7.0)


def test_what_the_kernels_see(task):
    params = task.init(jax.random.key(0))
    inputs = task.texts.train[0].inputs[:3].astype(np.int32)
    seen = jax.jit(lambda p, x: evidence.moments(task, p, {"inputs": x}))
    grams, means = seen(params, jnp.asarray(inputs))
    block = grams["blocks"][0]
    sizes = {name: block[name]["kernel"].shape for name in ("qkv", "up", "down")}
    assert sizes == {"qkv": (8, 8), "up": (8, 8), "down": (32, 32)}
    assert grams["embed"]["embedding"] is None
    # The first kernel sees the normed embedding.
    x = params["embed"]["embedding"][inputs].reshape(-1, 8)
    x = x / jnp.sqrt(jnp.mean(x**2, axis=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(block["qkv"]["kernel"], x.T @ x / len(x), atol=1e-4)
    seen = means["blocks"][0]["qkv"]["kernel"]
    np.testing.assert_allclose(seen, x.mean(0), atol=1e-5)


@pytest.fixture(scope="module")
def work(task):
    models = {
        stage.name: task.init(jax.random.key(i))
        for i, stage in enumerate(training.stages(task.flags))
    }
    return evidence.gatherer(task)(models, 0, np.ones(3))


def test_what_methods_look_at(work):
    for base, own in zip(jax.tree.leaves(work.base), work.fishers, strict=False):
        assert base.dtype == jnp.float32
        assert all(float(x.min()) >= 0 for x in jax.tree.leaves(own))
    assert work.batches["inputs"].shape == (2, 6, 16)


# One setting of every function.
SETTINGS = {of.fn: name for name, of in reversed(methods.TABLE.items())}


@pytest.mark.parametrize("name", SETTINGS.values())
def test_every_merge_is_a_model_like_the_base(name, work, task):
    """Traced alone: the numbers are other tests'."""
    of = methods.TABLE[name]
    if of.host:
        assert jax.tree.structure(of.host(work, lambda tree: 0.0))
        return
    found = jax.eval_shape(lambda work: of.merge(work, task), work)
    shapes = jax.eval_shape(lambda tree: tree, work.base)
    assert jax.tree.structure(found) == jax.tree.structure(shapes)
    assert jax.tree.leaves(found) == jax.tree.leaves(shapes)


def test_bits_per_byte_of_a_model_that_knows_nothing(task):
    params = jax.tree.map(jnp.zeros_like, task.init(jax.random.key(0)))
    measure = training.measure(task)
    np.testing.assert_allclose(measure.test(params), [8.0] * 3, rtol=1e-5)
    line = measure.line(params, params, [0.5, 1.0])
    np.testing.assert_allclose(line, np.full((2, 3), 8.0), rtol=1e-5)


# --- the table ------------------------------------------------------------------------


def made_up():
    """Three seeds; a merge that is better than the plain average, one that is not."""

    def one(seed):
        off = 0.01 * seed
        of = lambda *bits: [x + off for x in bits]  # noqa: E731
        return {
            "seed": seed,
            "models": {
                "base": of(3.0, 3.2, 2.8),
                "python": of(2.5, 3.4, 3.0),
                "english": of(3.1, 2.6, 3.1),
                "c": of(3.1, 3.5, 2.1),
                "multi-task": of(2.5, 2.7, 2.2),
            },
            "methods": {
                "linear": {"bits": of(2.8, 2.9, 2.5), "scale": None, "usual": None},
                "ties": {
                    "bits": of(2.7, 2.8, 2.4),
                    "scale": [1.0, 1.5, 1.5][seed],
                    "usual": of(2.9, 3.0, 2.6),
                },
                "karcher": {
                    "bits": [2.8 + off * (-1) ** seed, 2.9, 2.5],
                    "scale": None,
                    "usual": None,
                },
                "iso": {"bits": [None] * 3, "scale": 1.0, "usual": [None] * 3},
            },
        }

    flags = config.parse([]).numbers()
    return {"flags": flags, "about": {}, "seeds": [one(s) for s in range(3)]}


def test_the_table_from_made_up_results():
    trained, merges = report.rows(made_up())
    known = {row.name: row for row in [*trained, *merges]}
    assert known[report.EACH].bits[0] == [2.5, 2.6, 2.1]
    cells = report.table(trained, merges)
    first = [row[0] for row in cells]
    assert first[:3] == ["*each its own domain's*", "*multi-task*", "ties"]
    assert first[-1] == "iso"
    ties = cells[2]
    assert ties[1:5] == ["1 to 1.5", "2.710", "2.810", "2.410"]
    assert ties[5:7] == ["2.643 ± 0.025", "-0.100 ± 0.000"]
    assert ties[7] == "2.843 ± 0.025 (1)"
    assert cells[-1][5] == "not finite"
    said = " ".join(report.verdict(trained, merges))
    assert "Better than the plain average: ties." in said
    assert "No difference that the seeds can tell: karcher." in said
    assert "Not finite: iso." in said
    assert (
        "Of 4 merges beside the multi-task model: 0 better, 0 alike, 3 worse." in said
    )


def test_an_absent_effect_is_said_to_be_absent():
    kept = made_up()
    for one in kept["seeds"]:
        one["methods"] = {k: one["methods"][k] for k in ("linear", "karcher")}
    said = " ".join(report.verdict(*report.rows(kept)))
    assert "No merge is better than the plain average, beyond chance." in said


def test_replot_and_the_page(tmp_path, capsys):
    path, page = tmp_path / "results.json", tmp_path / "README.md"
    path.write_text(json.dumps(made_up()))
    begin, end = pages.markers(report.PROGRAM)
    page.write_text(f"# Title\n\n{begin}\nold\n{end}\n\nMore.\n")
    report.replot(path, save=True, page=page)
    table = (tmp_path / "table.md").read_text()
    assert table in capsys.readouterr().out
    words = page.read_text()
    assert words.startswith(f"# Title\n\n{begin}\n\n")
    assert words.endswith(f"\n\n{end}\n\nMore.\n")
    assert table.strip() in words
    assert "old" not in words
    for picture in ("picture.png", "domains.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "results.csv").open() as file:
        lines = [*csv.DictReader(file)]
    assert len(lines) == (6 + 4) * 3
    ties = next(line for line in lines if line["model"] == "ties")
    assert float(ties["average"]) == pytest.approx(7.9 / 3)


def test_the_readme_has_its_markers_and_all_methods():
    words = report.PAGE.read_text()
    begin, end = pages.markers(report.PROGRAM)
    assert words.count(begin) == words.count(end) == 1
    table = words.split(begin)[1].split(end)[0]
    shown = {line.split("|")[1].strip() for line in table.split("\n") if "|" in line}
    assert set(methods.TABLE) <= shown
    assert report.PAGE.with_name("domains.png").exists()


# --- the command ----------------------------------------------------------------------


@pytest.mark.slow
def test_it_runs_resumes_and_says_what_it_found(tmp_path, capsys, monkeypatch, task):
    monkeypatch.setattr(text, "load", lambda size, length: task.texts)
    argv = [*SMALL.split(), "--runs", str(tmp_path), "--methods"]
    assert main([*argv, "task_arithmetic", "greedy_soup"]) == 0
    home = tmp_path / "merge_domains"
    first = json.loads((home / "results.json").read_text())
    assert [one["seed"] for one in first["seeds"]] == [0, 1]
    for one in first["seeds"]:
        assert [*one["methods"]] == ["linear", "task_arithmetic", "greedy_soup"]
        assert np.isfinite([*one["models"].values()]).all()
        assert set(one["methods"]["task_arithmetic"]["tried"]) == {"0.3", "0.5", "1"}
    said = capsys.readouterr().out
    assert "4/4" in said
    assert "| task_arithmetic | " in said
    # A lost training and a lost measurement come back as they were, and another method
    # is added to what is there.
    (home / "seed-1-english.npz").unlink()
    (home / "seed-1.json").unlink()
    kept = (home / "seed-0-base.npz").read_bytes()
    assert main([*argv, "task_arithmetic", "greedy_soup", "karcher"]) == 0
    assert (home / "seed-0-base.npz").read_bytes() == kept
    then = json.loads((home / "results.json").read_text())
    for one, again in zip(first["seeds"], then["seeds"], strict=True):
        assert [*again["methods"]] == [*one["methods"], "karcher"]
        assert again["models"] == one["models"]
        assert again["methods"].items() >= one["methods"].items()
    assert main([*argv, "karcher", "--tune", "5"]) == 2
    assert "tune was 2, is 5" in capsys.readouterr().err
    (home / "seed-0-c.npz").write_bytes(b"nothing")
    assert main([*argv, "slerp"]) == 1
    assert "cannot be read; delete it" in capsys.readouterr().err


def test_list(capsys):
    assert main(["--list"]) == 0
    said = capsys.readouterr().out
    assert "task_arithmetic: the defaults; scale 0.3 at first\n" in said
    assert "regmean: the defaults; needs inputs\n" in said
    assert "ema: averages along one training\n" in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--methods tsw", "--methods: unknown 'tsw'; perhaps"),
        ("--methods ties ties", "--methods: ties came twice"),
        ("--seeds 0", "--seeds: wanted >= 1, came 0"),
        ("--scales 0", "--scales: wanted > 0, came 0.0"),
        ("--scales 1 1", "--scales: the same one came twice"),
        ("--lr nan", "--lr: wanted > 0, came nan"),
        ("--text 10", "--text: wanted >= 10000, came 10"),
        ("--d-model 6", "--d-model: wanted a multiple of twice --heads, 4, came 6"),
        ("--name a/b", "--name: wanted letters, digits, . _ -, came 'a/b'"),
        ("--save", "--save: wanted with --replot, came alone"),
        ("--replot nowhere.json", "--replot: cannot read nowhere.json"),
        ("--what", "--what"),
    ],
)
def test_bad_flags(flags, said, tmp_path, capsys):
    argv = [*flags.split(), "--runs", str(tmp_path / "runs")]
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert not (tmp_path / "runs").exists()


def test_no_results(tmp_path, capsys):
    path = tmp_path / "results.json"
    for words in ("{", "[]", "{}", '{"flags": {}, "seeds": []}'):
        path.write_text(words)
        assert main(["--replot", str(path)]) == 2
        assert "is no results.json of this program" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == [path]


def test_what_is_far_off_is_said_in_words(tmp_path):
    from experiments.merge_domains.picture import picture

    kept = made_up()
    kept["seeds"] = kept["seeds"][:1]
    kept["seeds"][0]["methods"]["ties"]["bits"] = [30.0, math.inf, 20.0]
    picture(*report.rows(kept), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000
