"""Sharpness: what is trained on, what is measured, what is counted, what is shown."""

import csv
import json
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.benchmarks import sharpness as benchmark
from experiments.sharpness import config, data, flatness, report, training, variants
from experiments.sharpness.__main__ import main
from experiments.sharpness.variants import BASE
from experiments.small import sets, tables
from jaxtricks import sharpness

SMALL = "--variants sam --noise 0.2 --seeds 2 --updates 4 --net mlp --width 1"
SMALL += " --products 2 --rounds 2 --rates 0.02 0.05 --per-class 5"


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("sklearn")
    return sets.load("digits")


# --- what is trained on ---------------------------------------------------------------


def test_lanes_are_levels_of_noise_with_seeds(digits):
    words = "--noise 0 0.4 --seeds 3 --per-class 10 --batch-size 20 --updates 7"
    flags = config.parse(words.split())
    lanes = data.lanes(digits, flags, np.arange(3), [0.1, 0.2, 0.3])
    assert lanes.order.shape == (6, 7, 20)
    assert lanes.seed.tolist() == [0, 1, 2] * 2
    np.testing.assert_allclose(lanes.rate, [0.1, 0.2, 0.3] * 2)
    true = digits.labels[lanes.sets.index]
    wrong = (lanes.sets.labels != true).sum(1)
    assert wrong.tolist() == [0, 0, 0, 40, 40, 40]
    assert [np.bincount(of).tolist() for of in true] == [[10] * 10] * 6
    # A seed has its images and order at every level of noise.
    for leaf in (lanes.sets.index, lanes.order):
        np.testing.assert_array_equal(leaf[:3], leaf[3:])
        assert len({of.tobytes() for of in leaf}) == 3


def test_what_is_chosen_on_is_not_measured_on():
    pytest.importorskip("sklearn")
    split = data.load(config.parse([]))
    assert np.bincount(split.valid_labels).tolist() == [24] * 10
    assert np.bincount(split.images.held_out_labels).tolist() == [50] * 10
    every = [split.valid, split.images.held_out, split.images.images]
    pixels = np.concatenate([x.reshape(len(x), -1) for x in every])
    assert len(np.unique(pixels, axis=0)) == len(pixels)


# --- what is measured -----------------------------------------------------------------


def problem():
    rng = np.random.default_rng(3)
    params = {"w": rng.normal(size=(2, 3)), "b": rng.normal(size=3)}
    x, y = rng.normal(size=(12, 2)), rng.integers(0, 3, 12)
    params, x = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (params, x))

    def loss(params, part):
        logits = jnp.tanh(part[0] @ params["w"]) + params["b"][None]
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, part[1])
        return jnp.mean(nll)

    return loss, params, (x, jnp.asarray(y))


def test_m_sharpness_is_that_of_brute_force():
    loss, params, batch = problem()
    found = flatness.m_sharpness(loss, params, flatness.cut(batch, 5), 0.3)
    climbs = []
    for i in (0, 5):  # the last two of twelve fill no part
        part = tuple(x[i : i + 5] for x in batch)
        grads = jax.grad(loss)(params, part)
        norm = math.sqrt(sum(float((g**2).sum()) for g in grads.values()))
        there = {k: params[k] + 0.3 * grads[k] / norm for k in params}
        climbs.append(float(loss(there, part)) - float(loss(params, part)))
    assert float(found) == pytest.approx(sum(climbs) / 2, rel=1e-5)
    assert min(climbs) > 0


def test_m_sharpness_of_a_flat_loss():
    found = flatness.m_sharpness(
        lambda w, part: 0 * jnp.sum(w) + jnp.sum(part),
        jnp.ones(2),
        jnp.ones((2, 3)),
        1.0,
    )
    assert float(found) == 0


def test_the_top_eigenvalue_is_the_hessians(digits):
    """Of one lane of the experiment's own measure, beside the dense Hessian."""
    words = "--net mlp --width 1 --per-class 5 --products 200 --noise 0.2 --seeds 1"
    flags = config.parse(words.split())
    split = data.load(flags)
    model = training.net(flags, split.images)
    lanes = data.lanes(split.images, flags, [0], [0.1])
    params = jax.vmap(lambda seed: model.init(jax.random.key(seed)))(lanes.seed)
    found = training.measures(flags, split).final(params, lanes)
    own = split.images.images[lanes.sets.index[0]], lanes.sets.labels[0]
    # All but the first layer's weights, of which the largest is a sum: its block alone.
    flat, shaped = jax.flatten_util.ravel_pytree(jax.tree.map(lambda x: x[0], params))

    def loss(x):
        z = model.apply(shaped(x), own[0])
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(z, own[1]))

    hessian = jax.jit(jax.hessian(loss))(flat)
    top = np.linalg.eigvalsh(np.asarray(hessian, np.float64))[-1]
    assert float(found["top_eigenvalue"][0]) == pytest.approx(top, rel=1e-3)


# --- the table of settings ------------------------------------------------------------


def test_every_setting_is_of_a_function_or_said_to_be_missing():
    names = set(sharpness.__all__)
    for name, of in variants.TABLE.items():
        assert (of.fn in names) == (name in variants.there())
        assert of.fn in names or of.fn in variants.missing()
    assert set(variants.ELSEWHERE) <= names
    assert not {of.fn for of in variants.TABLE.values()} & set(variants.ELSEWHERE)


def test_what_the_library_has_besides_is_said(monkeypatch, capsys):
    table = {"sam": variants.TABLE["sam"], "new": variants.Setting("not_there")}
    monkeypatch.setattr(variants, "TABLE", table)
    assert main(["--list"]) == 0
    said = capsys.readouterr().out
    assert "sam: sam(), the defaults" in said
    without = said.split("without a setting here:\n")[1].split("\n\n")[0]
    assert "gsam" in without.splitlines()
    assert "complete" not in without.splitlines()
    assert "not in the library:\nnot_there\n" in said


# --- the table of results -------------------------------------------------------------


def made_up():
    """Of three variants: alike, better, and not finite."""
    flags = config.parse(["--noise", "0", "0.4", "--seeds", "3"])

    def of(accuracy, rate, flat):
        seeds = [accuracy - 0.01, accuracy, accuracy + 0.01]
        return {
            "rate": rate,
            "tried": {},
            "accuracy": [seeds, [x - 0.2 for x in seeds]],
            "training_accuracy": [[1.0] * 3] * 2,
            "top_eigenvalue": [[flat, 2 * flat, 3 * flat]] * 2,
            "m_sharpness": [[flat / 100] * 3] * 2,
        }

    lost = of(0.5, 0.1, 1.0)
    lost["accuracy"] = [[None] * 3, lost["accuracy"][1]]
    return {
        "flags": flags.numbers() | {"data": "digits"},
        "times": {BASE: [1.0, 2.0, 4.0], "sam": [2.0, 4.1, 8.0], "lost": [3.0] * 3},
        "variants": {
            BASE: of(0.8, 0.05, 4.0),
            "sam": of(0.9, 0.02, 1.0),
            "lost": lost,
        },
    }


def test_the_table_from_made_up_results():
    kept = made_up()
    rows = report.rows(kept, 0)
    cells = report.table(report.ordered(rows), rows[0])
    assert [row[0] for row in cells] == ["sam", BASE, "lost"]
    assert cells[0][1:4] == ["0.02", "90.0 ± 2.5", "+10.0 ± 0.0"]
    assert cells[0][4:] == ["2.00 ± 2.48", "0.0100 ± 0.0000", "2.00x"]
    assert cells[1][3] == ""
    assert cells[1][6] == "1.00x"
    assert cells[2][2:4] == ["not finite"] * 2
    said = " ".join(report.verdict(rows))
    assert "More accurate than the base: sam." in said
    assert "Not finite: lost." in said
    assert "too few variants to say" in said
    text = report.markdown_of(kept)
    assert text.count("| --- |") == 2
    assert "### Clean labels" in text
    assert "### 40 % of the labels wrong" in text


def test_an_absent_effect_is_said_to_be_absent():
    kept = made_up()
    kept["variants"]["sam"] = kept["variants"][BASE] | {
        "accuracy": [[0.80, 0.79, 0.81], [0.6, 0.6, 0.6]]
    }
    said = " ".join(report.verdict(report.rows(kept, 0)))
    assert "No difference that the seeds can tell: sam." in said
    assert "No variant is more accurate than the base beyond its interval." in said


def test_correlation():
    rows = [
        report.Row(str(i), 0.1, [0.5 + 0.01 * i], [1.0], [10.0 - i], [1.0], 1.0)
        for i in range(6)
    ]
    assert report.correlation(rows, "eigenvalue").startswith("-1.00 (p = 0")
    assert report.correlation(rows[:3], "eigenvalue") == "too few variants to say"
    mixed = [
        rows[k]._replace(eigenvalue=[x]) for k, x in enumerate([1, 5, 2, 6, 3, 1.5])
    ]
    assert "none to speak of" in report.correlation(mixed, "eigenvalue")


def test_numbers():
    assert report.number([10.0, 10.0]) == "10.0 ± 0.0"
    assert report.number([0.012]) == "0.0120"
    assert report.number([1000.0]) == "1000"
    assert report.number([0.0]) == "0"
    assert report.number([math.nan, 1.0]) == "not finite"
    assert tables.percent([0.5], "+") == "+50.0"


def test_replot(tmp_path, capsys):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(made_up()))
    assert main(["--replot", str(path)]) == 0
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "table.md").read_text() in capsys.readouterr().out
    with (tmp_path / "results.csv").open() as file:
        lines = [*csv.DictReader(file)]
    assert len(lines) == 2 * 3 * 3
    assert lines[3]["variant"] == "sam"
    assert float(lines[3]["accuracy"]) == pytest.approx(0.89)
    assert [lines[i]["seed"] for i in range(3)] == ["0", "1", "2"]
    assert lines[-1]["noise"] == "0.4"


# --- the command ----------------------------------------------------------------------


@pytest.mark.slow
def test_it_runs_resumes_and_says_what_it_found(tmp_path, capsys, digits):
    argv = [*SMALL.split(), "--runs", str(tmp_path)]
    assert main(argv) == 0
    home = tmp_path / "sharpness"
    first = json.loads((home / "results.json").read_text())
    assert [*first["variants"]] == [BASE, "sam"]
    for found in first["variants"].values():
        assert np.shape(found["accuracy"]) == (1, 2)
        assert np.isfinite(found["top_eigenvalue"]).all()
        assert set(found["tried"]) == {"0.02", "0.05"}
        assert found["rate"] in (0.02, 0.05)
    assert {k: len(v) for k, v in first["times"].items()} == {BASE: 2, "sam": 2}
    said = capsys.readouterr().out
    assert "3/3" in said
    assert "| sam | " in said
    kept = (home / "base.json").read_bytes()
    (home / "sam.json").unlink()
    assert main(argv) == 0
    assert json.loads((home / "results.json").read_text()) == first
    assert (home / "base.json").read_bytes() == kept
    assert main([*argv, "--updates", "5"]) == 2
    assert "updates was 4, is 5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--variants samm", "--variants: unknown 'samm'; perhaps"),
        ("--variants sam sam", "--variants: sam came twice"),
        ("--noise 1", "--noise: wanted in [0, 1), came 1.0"),
        ("--noise 0.1 0.1", "--noise: the same one came twice"),
        ("--seeds 0", "--seeds: wanted >= 1, came 0"),
        ("--rates 0", "--rates: wanted > 0, came 0.0"),
        ("--m 501", "--m: wanted at most the 500 images, came 501"),
        ("--per-class 101", "--per-class: wanted at most 100"),
        ("--net gru", "--net"),
        ("--name a/b", "--name: wanted letters, digits, . _ -, came 'a/b'"),
        ("--data nowhere", "--data: wanted digits, or a folder of CIFAR-10"),
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
    for text in ("{", "[]", "{}", '{"flags": {"noise": [0]}, "times": {}}'):
        path.write_text(text)
        assert main(["--replot", str(path)]) == 2
        assert "is no results.json of this program" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == [path]


# --- the benchmark --------------------------------------------------------------------


def counted(name):
    small = benchmark.counted_on(20)
    return benchmark.executed(benchmark.methods([name], 20)[name], *small)


@pytest.mark.parametrize(
    ("name", "gradients"),
    [
        (BASE, 1),
        (benchmark.OPTAX, 2),
        ("sam", 2),
        ("bsam", 2),
        ("looksam", Fraction(6, 5)),
    ],
)
def test_executed_gradients_are_exact(name, gradients):
    assert counted(name) == (gradients, 0, 0)


def test_a_plain_gradient_that_nobody_reads_is_not_counted():
    """m-sharpness takes both of its gradients part by part."""
    assert counted("m-sam") == (2, 0, 0)


@pytest.mark.parametrize(("name", "forwards"), [("saf", 0), ("mesa", 1)])
def test_a_loss_with_memory_takes_one_gradient(name, forwards):
    assert counted(name) == (1, 0, forwards)


def test_what_is_counted():
    """Half a batch is half a gradient, a loss alone a forward pass, and a gradient that
    is differentiated again, either way, is a product with the Hessian."""
    x = jnp.arange(4.0)

    def run(f):
        with benchmark.counting() as (count, seen):
            jax.block_until_ready(jax.jit(lambda w: f(w, count))(jnp.float32(1)))
        return seen["gradient"], seen["second"], seen["forward"]

    def loss(w, count, rows=slice(None)):
        return jnp.sum(count(jnp.sin(w * x[rows])[:, None]))

    assert run(lambda w, c: loss(w, c)) == (0, 0, 4)
    assert run(lambda w, c: jax.grad(loss)(w, c)) == (4, 0, 0)
    assert run(lambda w, c: jax.grad(loss)(w, c, slice(2))) == (2, 0, 0)
    taken = lambda w, c: jax.lax.cond(w > 5, lambda: jax.grad(loss)(w, c), lambda: w)  # noqa: E731
    assert run(taken) == (0, 0, 0)
    each = lambda w, c: jax.vmap(lambda k: jax.grad(loss)(w * k, c))(x)  # noqa: E731
    assert run(each) == (16, 0, 0)

    def forward(w, c):
        return jax.jvp(lambda w: jax.grad(loss)(w, c), (w,), (w,))[1]

    def reverse(w, c):
        return jax.grad(lambda w: jax.grad(loss)(w, c) ** 2)(w)

    assert run(forward)[1] == run(reverse)[1] == 4


def test_the_benchmarks_table():
    found = {
        BASE: benchmark.Cost(
            benchmark.Count(Fraction(1), Fraction(0), Fraction(0)), 10, 8
        ),
        "looksam": benchmark.Cost(
            benchmark.Count(Fraction(6, 5), Fraction(0), Fraction(1, 3)), 18, 16
        ),
    }
    laps = (
        {BASE: [1.0, 2.0, 1.0], "looksam": [1.2, 2.6, 1.1]},
        {BASE: [1.0, 1.0, 2.0], "looksam": [2.0, 3.0, 4.0]},
    )
    rows = benchmark.rows(found, laps, 8)
    assert rows[0] == [BASE, "1", "0", "0", "1.00x", "1.00x", "0", "0"]
    assert rows[1][1:] == [
        "1.2",
        "0",
        "0.333",
        "1.20x (1.10 to 1.30)",
        "2.00x (2.00 to 3.00)",
        "+1.00",
        "+1.00",
    ]


def test_the_interval_of_a_median():
    """Order statistics 3 and 8 of 10 hold the median 89 times in 100, 2 and 9 do 98."""
    assert benchmark.interval([*map(float, range(1, 11))]) == (5.5, 2, 9)
    assert benchmark.interval([3.0]) == (3, 3, 3)
    assert benchmark.interval([1.0, 2.0, 3.0, 4.0, 5.0]) == (3, 1, 5)
