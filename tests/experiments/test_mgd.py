"""MGD: what is kept, what is counted, what is shown."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.mgd import config, data, report, selection, training, tuning
from experiments.mgd.__main__ import main
from experiments.mgd.config import METHODS, RATES, SHAPES

SMALL = "--noise 0.3 --seeds 2 --per-class 4 --width 4 --updates 10 --batch-size 10"
SMALL += " --rounds 1 --relaxed 2 --tune-rounds 2 --tune-updates 10 --points 3"
SMALL += " --planted 0"


@pytest.fixture(scope="module")
def split():
    pytest.importorskip("sklearn")
    return data.load()


def small(extra=""):
    return config.parse(f"{SMALL} {extra}".split())


def lane(split, flags, setting="0.3"):
    return jax.tree.map(lambda x: x[0], data.lanes(split, flags, setting))


# --- data -----------------------------------------------------------------------------


def test_what_is_chosen_by_is_not_measured_on(split):
    assert np.bincount(split.valid[1]).tolist() == [24] * 10
    assert np.bincount(split.test[1]).tolist() == [50] * 10
    every = [split.data.images, split.valid[0], split.test[0]]
    pixels = np.concatenate([np.asarray(x).reshape(len(x), -1) for x in every])
    assert len(np.unique(pixels, axis=0)) == len(pixels)


def test_exactly_that_part_of_the_labels_is_wrong(split):
    flags = small("--seeds 3")
    found = data.lanes(split, flags, "0.3")
    assert (~found.right).sum(1).tolist() == [12] * 3
    assert found.images.shape == (3, 40, 8, 8, 1)
    assert data.lanes(split, flags, "0").right.all()
    flags = small("--seeds 3 --per-class 10 --planted 0.6")
    found = data.lanes(split, flags, "planted")
    for labels, right in zip(np.asarray(found.labels), found.right, strict=True):
        assert np.bincount(labels).tolist() == [4, 16] * 5
        assert np.bincount(labels[~right], minlength=10).tolist() == [0, 6] * 5


def test_an_epoch_sees_everything():
    rows = training.order(jax.random.key(0), 11, 8, 5)
    assert rows.shape == (8, 5)
    for epoch in np.asarray(rows).reshape(4, 10):
        assert len(set(epoch.tolist())) == 10
    assert rows.max() < 11


# --- selection ------------------------------------------------------------------------


def test_scores_of_what_needs_no_training(split):
    flags = small("--keep 0.5")
    one = lane(split, flags)
    found = selection.methods(flags, split)
    assert tuple(found) == METHODS
    assert (one.right == (one.labels == one.true)).all()
    right = found["right labels"](one)
    kept = jnp.argsort(-right)[:20]
    assert one.right[kept].all()
    assert (found["all"](one) == 0).all()
    assert len(np.unique(found["random"](one))) == 40


def test_slopes_of_counts_find_the_wrong_labels(split):
    """A few rounds, on a small network: the kept labels are right more often. No count
    moves at p = 0: scores are slopes alone, between 0.5 and 1.5."""
    flags = small("--per-class 10 --updates 40 --rounds 3 --keep 0.5 --width 16")
    one = lane(split, flags)
    scores = np.asarray(selection.by_mgd(flags, 0.5, one, split.valid))
    kept = np.argsort(-scores)[:50]
    assert np.asarray(one.right)[kept].mean() > 0.8
    assert scores.min() < 0.5
    slopes = np.asarray(selection.by_mgd(flags, 0.0, one, split.valid))
    assert slopes.min() >= 0.5
    assert slopes.max() <= 1.5
    assert len(np.unique(slopes)) > 90


# --- schedule -------------------------------------------------------------------------


def test_what_is_spent_is_equal(split):
    flags = small()
    one = lane(split, flags)
    # Each step forward, once more on the way back, and two for being pulled back.
    assert tuning.costs(flags, one) == (10, 40)
    assert tuning.equal(flags, one) == 8
    assert tuning.equal(small("--tune-rounds 30"), one) == len(RATES) * len(SHAPES)


def test_a_constant_of_key_points_is_the_grids(split):
    flags = small()
    one = lane(split, flags)

    def both(one):
        logs = jnp.full(3, np.log(0.1), jnp.float32)
        points = tuning.schedule(flags, logs)
        part = tuning.shape("constant", 10)
        return [
            tuning.outcome(flags, split, one, rate)["valid"]
            for rate in (points, lambda t: 0.1 * part(t))
        ]

    a, b = jax.jit(both)(one)
    np.testing.assert_allclose(a, b, rtol=1e-4)


def test_the_grid_is_every_shape_at_every_rate():
    flags = small("--tune-updates 20")
    table = np.asarray(tuning.rates(flags))
    assert table.shape == (len(RATES) * len(SHAPES), 20)
    np.testing.assert_allclose(
        table[: len(RATES)], np.array(RATES)[:, None] + 0 * table[0]
    )
    np.testing.assert_allclose(table[-1], 0.64 * np.repeat([1, 0.1], 10), rtol=1e-5)
    assert len(np.unique(table.round(7), axis=0)) == len(table)


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_begin_or_reach_their_peak(name):
    part = tuning.shape(name, 20)
    rates = np.array([part(t) for t in range(21)])
    assert rates.max() == pytest.approx(1)
    assert rates.min() >= 0
    last = {"constant": 1.0, "step": 0.1}
    assert rates[-1] == pytest.approx(last.get(name, 0.0), abs=1e-6)


def test_the_best_of_what_was_tried():
    valid = np.array([[3.0, np.nan, 1.0, 0.5], [2.0, 4.0, 3.0, 1.0]])
    found = {"valid": valid, "test": 10 * valid, "accuracy": -valid}
    best = tuning.best(found, 3)
    assert best == {"valid": [1, 2], "test": [10, 20], "accuracy": [-1, -2]}
    assert tuning.curve(valid).tolist() == [[3, 3, 1, 0.5], [2, 2, 2, 1]]


# --- the tables -----------------------------------------------------------------------


def made_up():
    flags = config.parse([]).numbers()
    wiggle = [-0.01, 0.0, 0.01, 0.0, 0.0]

    def of(accuracy, right):
        return {
            "accuracy": [accuracy + w for w in wiggle],
            "loss": [0.3] * 5,
            "right": [right] * 5,
        }

    level = {name: of(0.8, 0.6) for name in METHODS}
    level["mgd"] = of(0.9, 0.95)
    level["held-out loss"] = {
        "accuracy": [0.9, 0.91, 0.89, 0.9, 0.9],
        "loss": [0.3] * 5,
        "right": [0.9] * 5,
    }

    def search(valid, tried):
        rows = [[valid + w + 0.1 / (k + 1) for k in range(tried)] for w in wiggle]
        best = {key: [row[-1] for row in rows] for key in ("valid", "test", "accuracy")}
        found = {"valid": rows, "test": rows, "accuracy": rows, "curve": rows}
        rates = [[[0.1, 0.2, 0.05]] * tried] * 5
        return found | {"best": best, "rates": rates}

    return {
        "flags": flags,
        "selection": {"planted": level, "0.4": level},
        "schedule": {
            "training": 100,
            "round": 400,
            "tried": 40,
            "mgd": search(0.1, 10),
            "grid": search(0.2, 40),
        },
    }


def test_the_tables_from_made_up_results():
    kept = made_up()
    lines = report.selection_table(kept, "0.4").splitlines()
    assert len(lines) == 2 + len(METHODS)
    assert "| random | 80.0 ± 0.9 | +10.0 ± 0.0 | 60.0 ± 0.0 |" in lines
    said = " ".join(report.selection_verdict(kept, "0.4"))
    assert said == (
        "mgd wins against random, loss; it cannot be told from held-out loss."
    )
    table = report.schedule_table(kept)
    assert "| mgd | 10 | 4000 | 0.1100 ± 0.0088 |" in table
    assert "| grid | 40 | 4000 | 0.2025 ± 0.0088 |" in table
    assert "validation loss lower (-0.0925 ± 0.0000)" in report.schedule_verdict(kept)
    text = report.markdown_of(kept)
    assert "#### 40 % of the labels wrong" in text
    assert "#### 60 % of every even digit labelled as the next one" in text


def test_what_loses_is_said():
    kept = made_up()
    level = kept["selection"]["0.4"]
    level["mgd"], level["loss"] = level["loss"], level["mgd"]
    kept["schedule"]["mgd"], kept["schedule"]["grid"] = (
        kept["schedule"]["grid"],
        kept["schedule"]["mgd"],
    )
    said = " ".join(report.selection_verdict(kept, "0.4"))
    assert "loses to loss, held-out loss" in said
    assert "higher" in report.schedule_verdict(kept)


def test_replot(tmp_path, capsys):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(made_up()))
    assert main(["--replot", str(path)]) == 0
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "table.md").read_text() in capsys.readouterr().out
    with (tmp_path / "results.csv").open() as file:
        lines = [*csv.DictReader(file)]
    assert len(lines) == 2 * len(METHODS) * 5 + 5 * 50
    page = tmp_path / "page.md"
    report.replot(path, save=True, page=page)
    assert page.read_text().count("#### 40 % of the labels wrong") == 1
    assert (tmp_path / "mgd.png").read_bytes().startswith(b"\x89PNG")
    for text in ("{", "[]", "{}"):
        path.write_text(text)
        assert main(["--replot", str(path)]) == 2
        assert "is no results.json of this program" in capsys.readouterr().err


# --- the command ----------------------------------------------------------------------


@pytest.mark.slow
def test_it_runs_resumes_and_says_what_it_found(tmp_path, capsys, split):
    argv = [*SMALL.split(), "--runs", str(tmp_path)]
    assert main(argv) == 0
    home = tmp_path / "mgd"
    first = json.loads((home / "results.json").read_text())
    assert tuple(first["selection"]["0.3"]) == METHODS
    for found in first["selection"]["0.3"].values():
        assert np.isfinite(found["accuracy"]).all()
    assert first["selection"]["0.3"]["right labels"]["right"] == [1.0, 1.0]
    assert np.shape(first["schedule"]["mgd"]["rates"]) == (2, 2, 3)
    assert np.shape(first["schedule"]["grid"]["curve"]) == (2, 8)
    assert "8/8" in capsys.readouterr().out
    kept = (home / "mgd-0.3.json").read_bytes()
    (home / "schedule.json").unlink()
    assert main(argv) == 0
    assert json.loads((home / "results.json").read_text()) == first
    assert (home / "mgd-0.3.json").read_bytes() == kept
    assert main([*argv, "--keep", "0.6"]) == 2
    assert "keep was 0.5, is 0.6" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--noise 1.0", "--noise: wanted in [0, 1), came 1.0"),
        ("--noise 0.1 0.1", "--noise: the same one came twice"),
        ("--keep 0", "--keep: wanted in (0, 1], came 0.0"),
        ("--updates 9", "--updates: wanted >= 10, came 9"),
        ("--relaxed 301", "--relaxed: wanted at most the 300 updates, came 301"),
        ("--batch-size 501", "--batch-size: wanted at most the 500 images"),
        ("--name a/b", "--name: wanted letters, digits, . _ -, came 'a/b'"),
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
