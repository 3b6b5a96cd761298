"""The long tail: what is counted, what is found, what is minimised, what is kept."""

import inspect
import json
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float, Integer

from experiments.config import BadInput
from experiments.longtail import (
    asked,
    config,
    found,
    objective,
    report,
    training,
)
from experiments.longtail.__main__ import main
from experiments.longtail.config import Longtail
from experiments.small import network, sets, tables
from jaxtricks import calibration, losses, weighting

FAMILIES = {"losses": losses, "calibration": calibration, "weighting": weighting}
SMALL = "--seeds 2 --epochs 3 --width 8 --batch-size 128 --reach 0"


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("sklearn")
    return sets.load("digits")


# --- sets -----------------------------------------------------------------------------


def test_the_counts_of_a_tail():
    """Those of CIFAR-10-LT, and the total of CIFAR-100-LT, as they are published."""
    ten = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert sets.tail(5000, 10, 100).tolist() == ten
    assert sets.tail(500, 100, 100).sum() == 10847
    assert sets.tail(100, 10, 100).tolist() == [100, 59, 35, 21, 12, 7, 4, 2, 1, 1]
    assert sets.tail(10, 3, 1).tolist() == [10, 10, 10]
    assert sets.tail(3, 4, 1000).min() == 1
    assert sets.even(242, 10).tolist() == [24] * 10


def test_digits_are_held_out_evenly(digits):
    assert np.bincount(digits.labels).tolist() == [100] * 10
    assert np.bincount(digits.held_out_labels).tolist() == [74] * 10
    both = np.concatenate([digits.images, digits.held_out])
    assert len(np.unique(both.reshape(len(both), -1), axis=0)) == 1740


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_exactly_that_part_of_the_labels_is_wrong(digits, noise):
    sizes = sets.tail(digits.largest, digits.classes, 100)
    drawn = sets.draw(digits, sizes, noise=noise, seeds=3, seed=5)
    true = digits.labels[drawn.index]
    assert [np.bincount(of).tolist() for of in true] == [sizes.tolist()] * 3
    assert all(len(set(of)) == sizes.sum() for of in drawn.index)
    assert ((drawn.labels != true).sum(1) == round(noise * sizes.sum())).all()
    assert set(drawn.labels.ravel()) <= set(range(10))
    counts = [np.bincount(of, minlength=10) for of in drawn.labels]
    np.testing.assert_array_equal(drawn.counts, counts)
    assert len({of.tobytes() for of in drawn.index}) == 3
    again = sets.draw(digits, sizes, noise=noise, seeds=2, seed=5)
    np.testing.assert_array_equal(again.labels, drawn.labels[:2])
    clean = sets.draw(digits, sizes, noise=0.0, seeds=3, seed=5)
    np.testing.assert_array_equal(clean.index, drawn.index)


def test_cifar_binaries(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("data_batch_1.bin", "test_batch.bin"):
        records = rng.integers(0, 256, (60, 3073), np.uint8)
        records[:, 0] = np.arange(60) % 10
        records.tofile(tmp_path / name)
    data = sets.load(str(tmp_path))
    assert (data.images.shape, data.held_out.shape) == ((60, 32, 32, 3),) * 2
    assert (data.largest, data.classes) == (6, 10)
    drawn = sets.draw(data, sets.tail(6, 10, 3), noise=0.0, seeds=1, seed=0)
    assert drawn.counts[0].tolist() == [6, 5, 4, 4, 3, 3, 2, 2, 2, 2]


# --- what is found --------------------------------------------------------------------


def test_names_are_those_of_the_families():
    names = {f"{k}.{name}" for k, m in FAMILIES.items() for name in m.__all__}
    listed = asked.read([*config.DEFAULT, *config.OPEN])
    assert {name for one in listed for name, *_ in one} <= names
    assert set(found.ELSEWHERE) <= names
    assert set(found.found()) <= names
    assert config.DEFAULT[0] == config.PLAIN
    wanting = {name for name, fn in found.found().items() if found.wanted(fn)}
    assert {name for one in asked.read(config.OPEN) for name, *_ in one} <= wanting


def test_what_fits_is_found_by_its_signature():
    said = {name: found.misfit(name) for name in found.every()}
    fits = """
        losses.focal losses.ldam losses.elr losses.aldr_kl losses.asymmetric
        losses.lovasz_softmax losses.bi_tempered losses.forward_correction
        calibration.dca weighting.drw weighting.group_dro weighting.cvar
    """
    assert {said[name] for name in fits.split()} == {""}
    no_loss = "is no function of logits [*batch, classes]"
    assert said["losses.dpo"] == said["losses.coral"] == no_loss
    assert said["losses.lovasz_hinge"] == said["losses.sbcl"] == no_loss
    assert said["losses.entropy"] == "takes no labels after the logits"
    numberless = "gives no number for an example or for the batch"
    assert said["losses.label_correction"] == numberless
    assert said["weighting.meta_weight_net"] == "wants params, apply"
    assert said["weighting.normalize"] == "is no function of losses [*batch]"
    assert said["weighting.alip"] == "is no function of losses [*batch]"
    assert said["losses.unlikelihood"].startswith("is for labels")


def test_the_rule(monkeypatch):
    Logits, Batch = Float[Array, "*batch classes"], Float[Array, "*batch"]
    Labels = Integer[Array, "*batch"]

    def good(logits: Logits, labels: Labels, *, counts, power: float) -> Batch: ...
    def real(logits: Logits, targets: Batch) -> Batch: ...
    def foreign(logits: Logits, labels: Labels, *, teacher: Logits) -> Batch: ...
    def vector(logits: Logits, labels: Labels) -> Logits: ...
    def nothing() -> Batch: ...

    fake = {f.__name__: f for f in (good, real, foreign, vector, nothing)}
    good.__annotations__["power"] = Float[Array, ""]
    monkeypatch.setattr(
        found, "every", lambda: {f"losses.{k}": f for k, f in fake.items()}
    )
    assert {name: found.misfit(f"losses.{name}") for name in fake} == {
        "good": "",
        "real": "takes no labels [*batch]",
        "foreign": "wants teacher",
        "vector": "gives no number for an example or for the batch",
        "nothing": "is no function of logits [*batch, classes]",
    }
    assert [p.name for p in found.wanted(good)] == ["power"]


# --- what is minimised ----------------------------------------------------------------


def some_facts(noise=0.2):
    sizes = objective.known_sizes(4, 6)
    return objective.facts(
        jnp.array([0, 1, 1, 3]),
        jnp.array([5, 0, 2, 1]),
        counts=jnp.array([3.0, 1, 0, 2]),
        noise=jnp.float32(noise),
        key=jax.random.key(0),
        step=jnp.int32(9),
        steps=10,
        sizes=sizes,
    )


def test_the_experiment_knows_what_it_says():
    known = some_facts()
    assert {*known} == {*found.ARRAYS, "sizes"}
    assert {*known["sizes"]} == {*found.SIZES}
    assert (known["start"], float(known["progress"])) == (8, 1.0)
    np.testing.assert_allclose(known["transition"].sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.diag(known["transition"]), 0.8, rtol=1e-6)
    np.testing.assert_allclose(known["difficulty"], [0.5, 1, 1, 5 / 6], rtol=1e-6)


def test_everything_found_can_be_minimised():
    """On shapes alone; and its state keeps its structure, as scan wants it."""
    flags = Longtail(full=True)
    logits = jnp.zeros((4, 4))
    chosen = asked.of(flags)
    trained = {name for one in chosen for name, *_ in one}
    wanting = {name for name, fn in found.found().items() if found.wanted(fn)}
    assert set(found.found()) - wanting <= trained
    for one in chosen:
        (value, after), before = jax.eval_shape(partial(minimised, one), logits)
        assert (value.shape, value.dtype) == ((), "float32"), one
        assert jax.tree.structure(before) == jax.tree.structure(after), one
        assert [*map(kind, jax.tree.leaves(before))] == [
            *map(kind, jax.tree.leaves(after))
        ], one


def minimised(one, logits):
    made, known = objective.objective(one), some_facts()
    state = made.init(known["sizes"])
    return made.value(logits, known, state), state


def kind(x):
    return x.shape, x.dtype


def value(words, logits):
    (found, _), _ = minimised(asked.read([words])[0], logits)
    return float(found)


def test_the_objective():
    z = jax.random.normal(jax.random.key(1), (4, 4))
    y, counts = some_facts()["labels"], np.array([3.0, 1, 0, 2])
    nll = np.asarray(losses.cross_entropy(z, y))
    inverse = 1 / counts[np.asarray(y)]
    relative = (inverse * nll).sum() / inverse.sum()
    assert value("weighting.inverse_frequency", z) == pytest.approx(relative, rel=1e-6)
    focal = np.asarray(losses.focal(z, y, gamma=1.0))
    both = (inverse * focal).sum() / inverse.sum() + float(calibration.dca(z, y))
    words = "losses.focal gamma=1 + weighting.inverse_frequency + calibration.dca"
    assert value(words, z) == pytest.approx(both, rel=1e-6)
    pair = weighting.group_dro(4)
    absolute = pair.update(jnp.asarray(nll), pair.init(), groups=y)[0] @ nll
    assert value("weighting.group_dro", z) == pytest.approx(float(absolute), rel=1e-6)
    one_hot = losses.asymmetric(z, jax.nn.one_hot(y, 4)).mean()
    assert value("losses.asymmetric", z) == pytest.approx(float(one_hot), rel=1e-6)
    whole = losses.lovasz_softmax(z, y)
    assert value("losses.lovasz_softmax", z) == pytest.approx(float(whole), rel=1e-6)


def test_measures():
    logits = jnp.log(jnp.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]]))
    kept = training.measures(logits, jnp.array([0, 1, 1]), 2)
    np.testing.assert_allclose(kept["accuracy"], [1, 0.5])
    gaps = (0.2 + 0.6 + 0.1) / 3
    np.testing.assert_allclose(kept["ece"], gaps, rtol=1e-6)


def test_orders_show_every_example_once_an_epoch():
    found = sets.orders(np.zeros((2, 8)), 3, 4, 0)
    assert found.shape == (2, 6, 4)
    epochs = found.reshape(2, 3, 8)
    np.testing.assert_array_equal(
        np.sort(epochs, axis=-1), np.tile(np.arange(8), (2, 3, 1))
    )
    assert len({of.tobytes() for of in epochs.reshape(6, 8)}) == 6


@pytest.mark.parametrize("side", [7, 8])
def test_a_convolution_is_one_product(side):
    """That of lax, every second place, padded by one."""
    x = jax.random.normal(jax.random.key(0), (2, side, side, 3))
    w = jax.random.normal(jax.random.key(1), (3, 3, 3, 5))
    form = ("NHWC", "HWIO", "NHWC")
    whole = jax.lax.conv_general_dilated(
        x, w, (2, 2), ((1, 1), (1, 1)), dimension_numbers=form
    )
    product = network.patches(x) @ w.reshape(27, 5)
    np.testing.assert_allclose(product, whole, atol=1e-5)


@pytest.mark.parametrize(("model", "layers"), [("mlp", 3), ("convnet", 4)])
def test_networks(model, layers):
    x, key = jnp.zeros((5, 8, 8, 1)), jax.random.key(1)

    def logits(x):
        params = network.init(key, model, (8, 8, 1), 4, 3)
        assert len(params) == layers
        return network.apply(params, x, model)

    assert jax.eval_shape(logits, x).shape == (5, 3)


def test_many_images_are_looked_at_in_parts(monkeypatch):
    x = jax.random.normal(jax.random.key(0), (5, 2, 2, 1))
    params = network.init(jax.random.key(1), "mlp", (2, 2, 1), 4, 3)
    whole = network.predict(params, x, "mlp")
    monkeypatch.setattr(network, "MOST", 2)
    parts = network.predict(params, x, "mlp")
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)


# --- the command ----------------------------------------------------------------------


def test_it_runs_resumes_and_says_what_it_found(tmp_path, monkeypatch, capsys, digits):
    words = f"{SMALL} --noise 0 0.2 --tricks losses.ldam + weighting.drw"
    argv = [*words.split(), "--runs", str(tmp_path)]
    assert main(argv) == 0
    home = tmp_path / "longtail"
    first = json.loads((home / "results.json").read_text())
    assert {*first} == {"even", "noise-0", "noise-0.2"}
    names = ["losses.cross_entropy", "losses.ldam + weighting.drw"]
    for setting in ("noise-0", "noise-0.2"):
        assert [*first[setting]] == names
        for kept in first[setting].values():
            assert np.shape(kept["accuracy"]) == (2, 10)
            assert np.isfinite(kept["ece"]).all()
    assert "| losses.ldam + weighting.drw | " in (home / "table.md").read_text()
    for name in ("picture.png", "picture-noise-0.2.png"):
        assert (home / name).read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert "5/5" in said
    assert "20 % of the labels wrong" in said

    gone = home / "noise-0.2" / "losses.ldam+weighting.drw.json"
    gone.unlink()
    calls, run = [], training.run
    monkeypatch.setattr(training, "run", lambda *a: calls.append(1) or run(*a))
    assert main(argv) == 0
    assert len(calls) == 1
    assert json.loads((home / "results.json").read_text()) == first

    assert main([*argv, "--width", "4"]) == 2
    assert "width was 8, is 4" in capsys.readouterr().err
    shutil.rmtree(home)
    assert main([*argv, "--reach", "0.99"]) == 1
    assert "stopped: cross entropy reached" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            "--tricks losses.focl",
            "--tricks: unknown 'losses.focl'; perhaps losses.focal",
        ),
        ("--tricks losses.dpo", "losses.dpo is no function of logits"),
        ("--tricks losses.bi_tempered t1=0.8", "bi_tempered: wanted t2=..., came none"),
        ("--tricks losses.focal gama=1", "losses.focal: unknown 'gama'; perhaps gamma"),
        ("--tricks losses.focal + losses.dice", "wanted one of losses, came 2"),
        ("--tricks losses.dice_set + weighting.focal_factor", "is of the whole batch"),
        ("--tricks losses.focal gamma=-1", "losses.focal gamma=-1: gamma: wanted >= 0"),
        ("--tricks gamma=1", "--tricks: wanted a name before gamma=1"),
        ("--tricks losses.focal +", "--tricks: wanted a name after +"),
        ("--tricks losses.focal losses.focal", "--tricks: losses.focal came twice"),
        ("--full --tricks losses.focal", "take one"),
        ("--noise 1", "--noise: wanted in [0, 1), came 1.0"),
        ("--noise 0.1 0.1", "--noise: the same one came twice"),
        ("--seeds 0", "--seeds: wanted >= 1, came 0"),
        ("--imbalance nan", "--imbalance: wanted >= 1, came nan"),
        ("--name a/b", "--name: wanted letters, digits, . _ -, came 'a/b'"),
        ("--data nowhere", "--data: wanted digits, or a folder of CIFAR-10"),
        ("--what", "--what"),
    ],
)
def test_bad_flags(flags, said, tmp_path, capsys):
    argv = [*flags.split(), "--runs", str(tmp_path)]
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert not any(tmp_path.iterdir())


def test_the_list(capsys):
    assert main(["--list"]) == 0
    listed, left_out = capsys.readouterr().out.split("\nleft out:\n")
    assert "losses.bi_tempered t1=... t2=..." in listed.splitlines()
    assert "weighting.meta_weight_net wants params, apply" in left_out
    assert len(listed.splitlines()) + len(left_out.splitlines()) == len(found.every())


def test_a_trick_is_read():
    words = ["losses.ldam scale=1 +", "weighting.drw", "losses.focal", "gamma=1"]
    read = asked.read(words)
    assert read == [
        (("losses.ldam", "scale=1"), ("weighting.drw",)),
        (("losses.focal", "gamma=1"),),
    ]
    assert [*map(asked.label, read)] == [
        "losses.ldam scale=1 + weighting.drw",
        "losses.focal gamma=1",
    ]
    with pytest.raises(BadInput, match="unknown 'nothing'"):
        asked.parts((("nothing",),))
    assert "labels" in inspect.signature(asked.parts(read[1])[0].fn).parameters


def test_rows_are_sorted_and_what_is_not_finite_is_last(tmp_path):
    def row(name, *accuracies):
        one = [[a, a] for a in accuracies]
        return report.row(name, {"accuracy": one, "ece": [0.1, 0.2]})

    none = report.row("none", {"accuracy": [[None, None]] * 2, "ece": [None, None]})
    low, high = row("low", 0.5, 0.6), row("high", 0.9, 0.8)
    rows = report.ordered([none, low, high])
    assert [r.name for r in rows] == ["high", "low", "none"]
    head, cells = report.table(rows, low)
    assert cells[0][1:] == [
        "85.0 ± 63.5",
        "+30.0 ± 127.1",
        "85.0 ± 63.5",
        "15.0 ± 63.5",
    ]
    assert cells[1][2] == ""
    assert cells[2][1:] == ["not finite"] * 4
    assert tables.markdown(head, cells).count("\n") == 4
