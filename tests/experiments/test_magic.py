"""Magic: what is left out, what is predicted of it by hand, what is shown."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.magic import baselines, config, report, run, training
from experiments.magic.__main__ import main
from experiments.magic.config import METHODS, TRAINERS
from experiments.small import network, sets, smooth

SMALL = "--seeds 2 --targets 2 --subsets 3 --per-class 3 --width 4 --updates 6"
SMALL += " --batch-size 10 --drop 0.1 --projections 8 --products 3 --models 2"


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("sklearn")
    return sets.load("digits")


def small(extra=""):
    return config.parse(f"{SMALL} {extra}".split())


def test_a_seed_has_its_own_images_order_and_targets(digits):
    flags = small("--updates 7")
    one, same, two = (training.task(digits, flags, seed) for seed in (0, 0, 1))
    assert one.order.shape == (7, 10)
    assert one.images.shape == (30, 8, 8, 1)
    assert np.bincount(one.labels).tolist() == [3] * 10
    assert np.sort(np.ravel(one.order[:3])).tolist() == list(range(30))
    for a, b in zip(one[:5], same[:5], strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(one[:3:2], two[:3:2], strict=True):
        assert np.any(np.asarray(a) != b)


def test_what_is_left_out():
    flags = small("--subsets 5")
    weights = training.left_out(flags, 0.1, 0, 30)
    assert weights.shape == (5, 30)
    assert (weights == 0).sum(1).tolist() == [3] * 5
    assert len({row.tobytes() for row in weights}) == 5
    assert np.any(training.left_out(flags, 0.1, 1, 30) != weights)


@pytest.mark.parametrize(
    "name", ["smooth", pytest.param("unsmooth", marks=pytest.mark.slow)]
)
def test_influence_is_that_of_retraining(digits, name):
    """Every weight a little less and more than 1, and the loss on each target; in
    float64, as in f32 a difference of losses holds three digits."""
    flags = small()
    of = training.trainer(name, flags)
    with jax.enable_x64(True):
        task = training.task(digits, flags, 0)
        found = jax.jit(lambda: training.influence(of, flags, task))()
        run = jax.jit(lambda w: training.retrained(of, flags, task, w))
        by = 1e-5 * jnp.concatenate([jnp.eye(30), -jnp.eye(30)])
        more, less = jnp.split(run(1 + by), 2)
        want = np.asarray((more - less).T) / 2e-5
        np.testing.assert_allclose(found.by_weight, want, rtol=1e-5, atol=1e-9)


def test_baselines_by_hand(digits):
    """Dense Gauss-Newton matrix and gradients of a linear model."""
    flags = small("--products 60 --dampings 0.3 0.1")
    of, task = training.trainer("smooth", flags), training.task(digits, flags, 0)
    rng = np.random.default_rng(0)
    w = rng.normal(size=(64, 10)) / 8
    params = [(jnp.asarray(w, jnp.float32), jnp.zeros(10))]
    none = jax.tree.map(lambda x: jnp.zeros((0, *x.shape)), params)
    got = jax.jit(lambda p: baselines.baselines(of, flags, task, p, none))(params)
    x = np.asarray(task.images, np.float64).reshape(30, 64)
    x = np.concatenate([x, np.ones((30, 1))], axis=1)
    z = x[:, :64] @ np.asarray(params[0][0], np.float64)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)

    def flat(by):  # [n, 65, 10] as ravel_pytree lays it
        return np.concatenate([by[:, :64].reshape(len(by), -1), by[:, 64]], axis=1)

    error = p - np.eye(10)[np.asarray(task.labels)]
    each = flat(x[:, :, None] * error[:, None])
    t = np.asarray(task.target_images, np.float64).reshape(2, 64)
    t = np.concatenate([t, np.ones((2, 1))], axis=1)
    zt = t[:, :64] @ np.asarray(params[0][0], np.float64)
    pt = np.exp(zt) / np.exp(zt).sum(1, keepdims=True)
    slopes = flat(
        t[:, :, None] * (pt - np.eye(10)[np.asarray(task.target_labels)])[:, None]
    )
    np.testing.assert_allclose(
        got["gradient product"][0], -slopes @ each.T / 30, rtol=1e-3, atol=1e-6
    )
    jac = np.stack([flat(x[:, :, None] * np.eye(10)[c][None, None]) for c in range(10)])
    bent = np.einsum("nc,cd->ncd", p, np.eye(10)) - p[:, :, None] * p[:, None]
    matrix = np.einsum("cni,ncd,dnj->ij", jac, bent, jac) / 30
    for damping, influence in zip((0.3, 0.1), got["influence function"], strict=True):
        inverse = np.linalg.inv(matrix + damping * np.eye(650))
        want = -slopes @ inverse @ each.T / 30
        np.testing.assert_allclose(influence, want, rtol=2e-3, atol=1e-5)
    # TRAK's signs: right-labelled examples of the target's class help.
    assert got["trak"].shape == (4, 2, 30)
    np.testing.assert_allclose(got["trak"][:2], got["trak"][2:], rtol=1e-5)
    for k, label in enumerate(np.asarray(task.target_labels)):
        own = np.asarray(task.labels) == label
        for trak in np.asarray(got["trak"])[:, k]:
            assert trak[own].mean() < trak[~own].mean()


def test_trak_by_hand(digits):
    """Of two linear models, of whose gradients every entry is kept."""
    flags, task = small("--dampings 0.5"), training.task(digits, small(), 0)
    of = training.trainer("smooth", flags)
    w = np.random.default_rng(1).normal(size=(2, 64, 10)) / 8
    models = [(jnp.asarray(w, jnp.float32), jnp.zeros((2, 10)))]
    got = jax.jit(lambda m: baselines.trak(of, flags, task, m, jnp.eye(650)))(models)

    def features(images, labels, w):
        x = np.asarray(images, np.float64).reshape(len(images), 64)
        z, right = x @ w, np.eye(10)[np.asarray(labels)]
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        rest = np.sum(p * (1 - right), axis=1)  # 1 - p of the label
        by = (right - p) / rest[:, None]  # the gradient of log p / (1 - p)
        of_w = (x[:, :, None] * by[:, None]).reshape(-1, 640)
        return np.concatenate([of_w, by], axis=1), rest

    each = []
    for of_model in w:
        f, wrong = features(task.images, task.labels, of_model)
        to, unsure = features(task.target_images, task.target_labels, of_model)
        gram = f.T @ f
        solved = np.linalg.solve(gram + 0.5 * np.trace(gram) / 650 * np.eye(650), f.T)
        each.append((to @ solved, wrong, unsure))
    means = [np.mean(of, axis=0) for of in zip(*each, strict=True)]
    for slopes, (found, wrong, unsure) in zip(got, (each[0], means), strict=True):
        want = -found * wrong * unsure[:, None]
        np.testing.assert_allclose(slopes, want, rtol=1e-3, atol=1e-5)


def test_the_network(digits):
    params = network.init(jax.random.key(0), "mlp", (8, 8, 1), 4, 10)
    x, y = jnp.asarray(digits.images[:5]), jnp.asarray(digits.labels[:5])
    want = network.apply(params, x, "mlp")
    np.testing.assert_allclose(smooth.apply(params, x, "relu"), want, rtol=1e-6)
    each = optax.softmax_cross_entropy_with_integer_labels(want, y)
    np.testing.assert_allclose(smooth.each(params, x, y, "relu"), each, rtol=1e-5)
    apart = smooth.margins(params, x, y, "relu")
    np.testing.assert_allclose(jax.nn.softplus(-apart), each, rtol=1e-5)
    sure = [(w, b + 60 * jax.nn.one_hot(y[0], len(b))) for w, b in params[-1:]]
    loss = jax.nn.softplus(-smooth.margins(sure, x[:1, :2, :2], y[:1], "relu"))
    assert 0 < loss[0] < 1e-20
    broken = [(w * jnp.nan, b) for w, b in params]
    assert np.isnan(smooth.accuracy(broken, x, y, "gelu"))


# --- the tables -----------------------------------------------------------------------


def made_up(seeds=3):
    flags = config.parse([]).numbers() | {"seeds": seeds, "subsets": 2}

    def part(score):
        return {
            "actual": [[0.5, 0.7]],
            "setting": dict.fromkeys(METHODS, 0),
            "predicted": {m: [[0.4, 0.6]] for m in METHODS},
            "scores": {m: [score - 0.2 * i] for i, m in enumerate(METHODS)},
        }

    def seed(score, s):
        parts = [part(score + 0.01 * s), part(score - 0.05 + 0.01 * s)]
        return {"values": [0.6], "accuracy": 0.9, "parts": parts}

    def check(advice):
        return {"error": 0.01, "smoothness": [0.98, 0.97], "advice": advice}

    return {
        "flags": flags,
        "checks": {"smooth": check([]), "unsmooth": check(["lower the rate"])},
        "results": {
            "smooth": [seed(0.94, s) for s in range(seeds)],
            "unsmooth": [seed(0.3, s) for s in range(seeds)],
        },
    }


def test_the_table_from_made_up_results():
    kept = made_up()
    lines = report.table(kept).splitlines()
    assert len(lines) == 2 + len(TRAINERS) * len(METHODS)
    assert lines[2] == "| smooth | magic | 0.950 ± 0.025 | 0.900 ± 0.025 |"
    assert "| unsmooth | magic | 0.310 ± 0.025 |" in lines[6]
    said = " ".join(report.verdict(kept))
    assert "At 1 % magic's score is at least 0.9." in said
    assert "At 5 % magic's score is at least 0.85." in said
    assert "The unsmooth trainer is flagged." in said
    assert "cannot be told" not in said
    assert "0.980, 0.970" in report.trainers(kept)
    assert "lower the rate" in report.trainers(kept)


def test_what_fails_is_said():
    kept = made_up()
    for seed in kept["results"]["smooth"]:
        for part in seed["parts"]:
            part["scores"] = {m: [0.5] for m in METHODS}
    kept["checks"]["unsmooth"]["advice"] = []
    kept["checks"]["smooth"]["advice"] = ["do better"]
    said = " ".join(report.verdict(kept))
    assert "At 1 % magic's score is below 0.9." in said
    assert "At 5 % trak cannot be told from magic." in said
    assert "The unsmooth trainer is not flagged. The smooth trainer is flagged" in said


def test_one_seed_tells_no_interval():
    said = " ".join(report.verdict(made_up(1)))
    assert "One seed tells no interval." in said
    assert "cannot be told" not in said


def test_the_best_setting_is_taken():
    """Of three slopes the one whose order is right; a constant's score is 0."""
    weights = np.float32([[1, 0, 1], [0, 1, 1], [1, 1, 0]])
    slopes = np.float32([[[0, 0, 0]], [[3, 2, 1]], [[1, 2, 3]]])
    values, actual = np.float32([7]), np.float64([[1, 2, 0]])
    best = run.best(values, slopes, weights, actual)
    assert best["setting"] == 2
    np.testing.assert_allclose(best["predicted"], [[5, 6, 4]])
    np.testing.assert_allclose(best["scores"], [1])


def test_replot(tmp_path, capsys):
    path, page = tmp_path / "results.json", tmp_path / "README.md"
    path.write_text(json.dumps(made_up()))
    assert main(["--replot", str(path)]) == 0
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "table.md").read_text() in capsys.readouterr().out
    with (tmp_path / "results.csv").open() as file:
        lines = [*csv.DictReader(file)]
    assert len(lines) == 2 * 3 * 2 * 1 * 2
    assert lines[1]["gradient_product"] == "0.6"
    page.write_text("before")
    report.replot(path, save=True, page=page)
    assert (tmp_path / "table.md").read_text().strip() in page.read_text()
    assert page.read_text().startswith("before")
    assert page.with_name("magic.png").read_bytes().startswith(b"\x89PNG")
    for text in ("{", "[]", "{}"):
        path.write_text(text)
        assert main(["--replot", str(path)]) == 2
        assert "is no results.json of this program" in capsys.readouterr().err


# --- the command ----------------------------------------------------------------------


@pytest.mark.slow
def test_it_runs_resumes_and_says_what_it_found(tmp_path, capsys, digits):
    argv = [*SMALL.split(), "--runs", str(tmp_path)]
    assert main(argv) == 0
    home = tmp_path / "magic"
    first = json.loads((home / "results.json").read_text())
    assert [len(first["results"][name]) for name in TRAINERS] == [2, 2]
    for seeds in first["results"].values():
        for seed in seeds:
            (part,) = seed["parts"]
            assert np.shape(part["actual"]) == (2, 3)
            assert set(part["scores"]) == set(METHODS)
            assert np.isfinite(part["scores"]["magic"]).all()
    assert set(first["checks"]) == set(TRAINERS)
    assert "6/6" in capsys.readouterr().out
    kept = (home / "smooth-0.json").read_bytes()
    (home / "smooth-1.json").unlink()
    assert main(argv) == 0
    assert json.loads((home / "results.json").read_text()) == first
    assert (home / "smooth-0.json").read_bytes() == kept
    assert main([*argv, "--updates", "7"]) == 2
    assert "updates was 6, is 7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--drop 1", "--drop: wanted in (0, 1), came 1.0"),
        ("--drop 0.1 0.1", "--drop: the same one came twice"),
        ("--drop 0.0001", "--drop: 0.0001 of 1000 images is none, or all"),
        ("--subsets 2", "--subsets: wanted >= 3, came 2"),
        ("--seeds 0", "--seeds: wanted >= 1, came 0"),
        ("--dampings 0.1 0", "--dampings: wanted > 0, came 0.0"),
        ("--batch-size 1001", "--batch-size: wanted at most the 1000 images"),
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
