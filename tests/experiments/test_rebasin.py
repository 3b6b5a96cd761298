"""The experiment on alignment: what it measures, refuses and shows; a tiny run."""

import json

import jax
import numpy as np
import pytest

from experiments.rebasin import config, report, training
from experiments.rebasin.__main__ import main
from experiments.small import sets

SMALL = "--pairs 1 --width 24 --channels 4 --epochs 2 --points 3"


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("sklearn")
    return sets.load("digits")


@pytest.mark.slow
def test_it_aligns_resumes_and_says_what_it_found(tmp_path, capsys, digits):
    argv = [*SMALL.split(), "--runs", str(tmp_path)]
    assert main(argv) == 0
    home = tmp_path / "rebasin"
    first = json.loads((home / "results.json").read_text())
    assert [*first["models"]] == ["mlp", "convnet"]
    for (pair,) in first["models"].values():
        # The ends are the networks themselves, however they are permuted.
        ends = np.array([pair["losses"][how] for how in training.MATCHED])[:, [0, -1]]
        np.testing.assert_allclose(ends, ends[:1].repeat(3, 0), rtol=1e-4)
        assert set(pair["merged"]) == {*training.MATCHED, "wider"}
        assert all(x >= 0 for x in pair["barrier"].values())
    assert "| PLeaS" in capsys.readouterr().out
    assert (home / "picture.png").read_bytes().startswith(b"\x89PNG")
    (home / "convnet-0.json").unlink()
    assert main(argv) == 0
    assert json.loads((home / "results.json").read_text()) == first
    assert main([*argv, "--epochs", "3"]) == 2
    assert "epochs was 2, is 3" in capsys.readouterr().err


def test_repair_gives_every_layer_the_spread_of_its_models(digits):
    flags = config.parse([*SMALL.split(), "--models", "convnet"])
    task = training.task("convnet", digits, flags)
    a, b = task.init(0), task.init(1)
    images, t = digits.images[:50], 0.5
    merged = jax.tree.map(lambda x, y: (x + y) / 2, a, b)
    got = training.repaired(merged, a, b, images, "convnet")
    for k in range(3):
        own, other, mean = (
            np.asarray(training._preactivations(p, k, images, "convnet")).reshape(
                -1, 4 * 2**k
            )
            for p in (a, b, got)
        )
        want = t * own.std(0) + t * other.std(0)
        np.testing.assert_allclose(mean.std(0), want, rtol=1e-3)
    # The preactivations of the last hidden layer are what the logits are made of.
    hidden = np.maximum(training._preactivations(a, 2, images, "convnet"), 0)
    logits = hidden.mean((1, 2)) @ a[-1][0]
    np.testing.assert_allclose(logits, task.apply(a, images), rtol=1e-4, atol=1e-5)


def made_up(pleas=0.96):
    """Of three pairs."""

    def pair(i):
        bent = {"nothing": [0.1, 2.1, 0.1], "weights": [0.1] * 3}
        bent["activations"] = [0.1, 0.2, 0.1]
        barrier = {how: x[1] - 0.1 + 0.001 * i for how, x in bent.items()}
        worth = {
            "average": {"accuracy": 0.95 + 0.01 * i, "loss": 0.2},
            "repaired": {"accuracy": 0.955, "loss": 0.2},
            "pleas": {"accuracy": pleas + 0.0101 * i, "loss": 0.1},
        }
        wider = {k: worth[k] for k in ("average", "pleas")}
        return {
            "each": [0.95, 0.97],
            "ensemble": 0.98,
            "losses": bent,
            "barrier": barrier,
            "training_barrier": barrier,
            "merged": {how: worth for how in training.MATCHED} | {"wider": wider},
        }

    flags = config.parse(["--models", "mlp"]).numbers() | {"data": "digits"}
    return {"flags": flags, "models": {"mlp": [pair(i) for i in range(3)]}}


def test_the_tables_from_made_up_results():
    text = report.markdown_of(made_up())
    assert "| as trained | 2.001 ± 0.002 | 2.001 ± 0.002 |" in text
    assert "| aligned by weights, 50 % kept apart | 1.5x |" in text
    assert "| 96.0 ± 2.5 | 95.5 ± 0.0 | 97.0 ± 2.5 | +1.0 ± 0.0 |" in text
    assert "is 96.0 ± 0.0 % accurate" in text
    assert "Second network aligned by weights: PLeaS is more accurate" in text
    assert "5.0 % of the barrier is left when aligned by activations" in text


def test_an_absent_effect_is_said_to_be_absent():
    text = report.markdown_of(made_up(pleas=0.9499))
    assert "PLeaS is neither more nor less, as far as the pairs can tell" in text
    one = made_up()
    one["models"]["mlp"] = one["models"]["mlp"][:1]
    assert "on too few pairs to say" in report.markdown_of(one)


def test_replot(tmp_path, capsys):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(made_up()))
    assert main(["--replot", str(path)]) == 0
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "table.md").read_text() in capsys.readouterr().out
    for text in ("{", "[]", "{}", '{"flags": {}, "models": {}}'):
        path.write_text(text)
        assert main(["--replot", str(path)]) == 2
        assert "is no results.json of this program" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--pairs 0", "--pairs: wanted >= 1, came 0"),
        ("--points 2", "--points: wanted >= 3, came 2"),
        ("--lr 0", "--lr: wanted > 0, came 0.0"),
        ("--apart 0", "--apart: wanted in (0, 1], came 0.0"),
        ("--seed -1", "--seed: wanted in [0, 2^31), came -1"),
        ("--models mlp mlp", "--models: the same one came twice"),
        ("--models", "--models"),
        ("--models vit", "--models"),
        ("--name ../x", "--name: wanted letters, digits, . _ -, came '../x'"),
        ("--data nowhere", "--data: wanted digits, or a folder of CIFAR-10"),
        ("--replot nowhere.json", "--replot: cannot read nowhere.json"),
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
