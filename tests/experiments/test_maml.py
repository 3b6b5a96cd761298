"""MAML: what is adapted to, what is learnt, what is counted, what is shown."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.config import BadInput
from experiments.maml import config, problems, report, training
from experiments.maml.__main__ import main

SMALL = "--iterations 3 --digits-iterations 2 --seeds 2 --tasks 4 --meta-batch 2 "
SMALL += "--width 4 --digits-steps 1 --test-steps 5"


def test_a_wave_is_one_wave_and_new_ones_are_measured_at_more_points():
    flags = config.parse(["--shots", "7"])
    of = problems.sinusoid(flags)
    (x, y), (x_new, y_new) = of.draw(jax.random.key(0), kind="new")
    assert x.shape == y.shape == (7, 1)
    assert x_new.shape == (problems.QUERY, 1)
    assert np.abs(x_new).max() <= 5
    # a sin(x - p) = u sin x + v cos x, found on the query, holds on the support.
    basis = lambda x: np.concatenate([np.sin(x), np.cos(x)], axis=1)  # noqa: E731
    u = np.linalg.lstsq(basis(x_new), y_new)[0]
    np.testing.assert_allclose(basis(x) @ u, y, atol=1e-4)
    assert 0.1 <= np.hypot(*u[:, 0]) <= 5
    assert of.draw(jax.random.key(0), kind="training")[1][0].shape == (7, 1)


def test_new_digits_are_of_classes_never_seen():
    pytest.importorskip("sklearn")
    flags = config.parse(["--digits-shots", "2"])
    of = problems.digits(flags)
    data = problems.sets.load("digits")
    known = {
        np.rot90(image[..., 0].T if mirrored else image[..., 0], k).tobytes(): (
            int(label),
            mirrored or k > 0,
        )
        for image, label in zip(data.images, data.labels, strict=True)
        for mirrored in (True, False)
        for k in range(4)
    }
    kinds = {"training": range(6), "choice": range(6, 10), "new": range(6, 10)}
    for kind, digits in kinds.items():
        draw = jax.jit(jax.vmap(lambda key, kind=kind: of.draw(key, kind=kind)))
        (xs, ys), (xs_new, ys_new) = draw(jax.random.split(jax.random.key(1), 5))
        assert xs.shape == (5, 6, 64)
        assert xs_new.shape == (5, 3 * problems.HELD, 64)
        for x, y, x_new, y_new in zip(xs, ys, xs_new, ys_new, strict=True):
            assert y.tolist() == [0, 0, 1, 1, 2, 2]
            first = [known[row.tobytes()] for row in np.asarray(x)]
            after = [known[row.tobytes()] for row in np.asarray(x_new)]
            assert {digit for digit, _ in first} <= set(digits)
            assert len({digit for digit, _ in first}) == 3
            turned = {how for _, how in first}
            assert kind == "training" or turned == {kind == "choice"}
            by_label = dict(zip(y.tolist(), first, strict=True))
            assert [by_label[k] for k in y_new.tolist()] == after
            shown = {row.tobytes() for row in np.asarray(x)}
            assert not shown & {row.tobytes() for row in np.asarray(x_new)}


def test_steps_of_001_descend_from_the_first_parameters_of_waves():
    """The largest curvature is below 2 / 0.01, which He's initialisation is not."""
    flags = config.parse([])
    of = problems.sinusoid(flags)
    params = of.init(jax.random.key(0))
    for w, b in params:
        assert float(jnp.abs(w).max()) <= len(w) ** -0.5
        assert float(jnp.abs(b).max()) <= len(w) ** -0.5
        assert len(set(np.ravel(w).tolist())) == w.size
    he = problems.network.init(jax.random.key(0), "mlp", (1,), flags.width, 1)
    support, _ = of.draw(jax.random.key(5), kind="new")

    @jax.jit
    def curvature(params):
        """By power iteration."""
        gradient = jax.grad(lambda p: of.loss(p, support))

        def step(v, _):
            _, hv = jax.jvp(gradient, (params,), (v,))
            size = optax.tree.norm(hv)
            return jax.tree.map(lambda x: x / size, hv), size

        first = jax.tree.map(jnp.ones_like, params)
        return jax.lax.scan(step, first, length=50)[1][-1]

    assert 10 < float(curvature(params)) < 100
    assert float(curvature(he)) > 2 / flags.rate


def test_random_learns_nothing_and_a_path_is_descent():
    flags = config.parse(SMALL.split())
    of = problems.sinusoid(flags)
    first = of.init(jax.random.key(3))
    found = training.learn("random", of, flags, jnp.array([3]))
    jax.tree.map(lambda f, p: np.testing.assert_array_equal(f[0], p), found, first)
    support, _ = jax.jit(lambda key: of.draw(key, kind="new"))(jax.random.key(0))
    path = jax.jit(lambda p: training.path(of, p, support, rate=0.02, steps=2))(first)
    grads = jax.jit(jax.grad(of.loss))(first, support)
    once = jax.tree.map(lambda p, g: p - 0.02 * g, first, grads)
    jax.tree.map(
        lambda p, q: np.testing.assert_allclose(p[1], q, rtol=1e-5), path, once
    )
    jax.tree.map(lambda p, q: np.testing.assert_array_equal(p[0], q), path, first)


def test_joint_pretraining_on_waves_is_maml_without_steps():
    flags = config.parse(SMALL.split())
    of = problems.sinusoid(flags)
    params, key = of.joint_init(jax.random.key(3)), jax.random.key(4)
    keys = jax.random.split(key, flags.meta_batch)
    tasks = jax.vmap(lambda key: of.draw(key, kind="training"))(keys)
    want = training.metagrad.maml(of.loss, params, tasks, steps=0)
    np.testing.assert_allclose(of.joint_loss(params, key), want, rtol=1e-6)
    assert of.joint_end(params) is params


def test_joint_pretraining_on_digits_tells_all_classes_apart():
    pytest.importorskip("sklearn")
    flags = config.parse([])
    of = problems.digits(flags)
    params = of.joint_init(jax.random.key(0))
    assert params[-1][0].shape == (40, 6 * 8)
    assert float(of.joint_loss(params, jax.random.key(1))) > 1
    end = of.joint_end(params)
    assert end[:-1] == params[:-1]
    assert end[-1][0].shape == (40, 3)
    x = jnp.ones((2, 64))
    np.testing.assert_array_equal(of.apply(end, x), 0)


def test_the_rate_is_the_best_of_those_tried():
    """Of made-up problems, at rates of which one is best, and some not finite."""
    flags = config.parse(SMALL.split())

    def of(higher):
        known = {"rate": 0.01, "steps": 1, "iterations": 0, "higher": higher}
        others = dict.fromkeys(set(problems.Problem._fields) - set(known))
        return problems.Problem(**others | known | {"init": jax.random.normal})

    def measure(values):
        tried = lambda starts, rates: jnp.array(values)  # noqa: E731
        curves = lambda starts, rate: jnp.full((2, 4, 6), rate)  # noqa: E731
        return training.Measured(tried, curves, None)

    values = [-np.inf, 3.0, 2.0, np.nan, 4.0, 5.0, np.inf]
    found = training.run("random", of(True), flags, measure(values))
    assert found["rate"] == pytest.approx(0.01 * 3)
    assert np.shape(found["curves"]) == (4, 6)
    assert np.shape(found["seeds"]) == (2, 6)
    np.testing.assert_allclose(found["curves"], 0.03)


def made_up(ours=0.1):
    flags = config.parse([]).numbers()
    tasks = np.linspace(0.5, 1.5, flags["tasks"])[:, None]

    def curves(level, start):
        return (tasks * np.linspace(start, level, 11)).tolist()

    fit = {"x": [0, 1], "y": [0, 1], "support_x": [0.5], "support_y": [0.5]}
    fit |= {k: [0.0, 1.0] for k in ("0", "1", "10")}
    levels = {"maml": (ours, 4.0), "fomaml": (0.2, 4.0), "joint": (2.0, 3.0)}
    found = {k: curves(*v) for k, v in {**levels, "random": (3.0, 5.0)}.items()}
    sinusoid = {
        k: {"curves": v, "seeds": [np.mean(v, 0).tolist()], "fit": fit, "rate": 0.01}
        for k, v in found.items()
    }
    digits = {
        k: {"curves": (np.array(v) / 10).tolist(), "rate": 0.1}
        for k, v in found.items()
    }
    return {"flags": flags, "problems": {"sinusoid": sinusoid, "digits": digits}}


def test_the_table_from_made_up_results():
    kept = made_up()
    text = report.markdown_of(kept)
    head = "| initialisation | rate | before | after 1 step | 5 steps | 10 steps |"
    assert head in text
    assert "| MAML | 0.01 | 4.000 ± 0.093 |" in text
    said = (
        "MAML's error is 0.820 of joint pretraining's (95 % interval over tasks 0.820"
    )
    assert said in text  # (4.0 + 0.1) / 2 of 2.5, in every task
    assert "; by seed 0.820): not surely at most 0.2." in text
    assert "accuracy differs from first order by -0.5 ± 0.0, joint by -4.5" in text
    kept["problems"]["sinusoid"]["joint"]["curves"] = [[99.0] * 11] * 600
    assert ": at most 0.2." in report.waves(kept)
    found = report.ratio(np.full((10, 2), 1.0), np.full((10, 2), 4.0))
    assert found == (0.25, 0.25, 0.25)
    rng = np.random.default_rng(1)
    ours, theirs = rng.gamma(2.0, size=400), 3 * rng.gamma(2.0, size=400)
    found = report.ratio(ours, theirs)
    assert found.low < 1 / 3 < found.high
    assert found.high - found.low < 0.15


def test_what_is_not_finite_is_said():
    kept = made_up()
    kept["problems"]["sinusoid"]["maml"]["curves"][3][5:] = [None] * 6
    assert report.waves(kept) == "After 5 steps an error is not finite."
    (row,) = (
        row for row in report.table(kept, "sinusoid").split("\n") if "MAML" in row
    )
    assert row.count("not finite") == 2


def test_replot_saves_table_and_picture_on_a_page(tmp_path, capsys):
    page, kept = tmp_path / "page" / "README.md", tmp_path / "results.json"
    page.parent.mkdir()
    page.write_text("# A page\n")
    kept.write_text(json.dumps(made_up()))
    report.replot(kept, save=True, page=page)
    assert (page.with_name("curves.png")).stat().st_size > 10_000
    assert (tmp_path / "table.md").read_text().strip() in page.read_text()
    assert page.read_text().startswith("# A page\n\n<!-- python -m experiments.maml")
    capsys.readouterr()
    kept.write_text("{}")
    assert main(["--replot", str(kept)]) == 2
    assert "is no results.json of this program" in capsys.readouterr().err
    assert main(["--replot", str(tmp_path / "none")]) == 2
    assert "cannot read" in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_is_run_continued_and_shown_again(tmp_path, capsys):
    pytest.importorskip("sklearn")
    words = [*SMALL.split(), "--runs", str(tmp_path)]
    assert main(words) == 0
    home = tmp_path / "maml"
    kept = json.loads((home / "results.json").read_text())
    assert set(kept["problems"]) == {"sinusoid", "digits"}
    found = np.array(kept["problems"]["digits"]["fomaml"]["curves"])
    assert found.shape == (4, 6)
    assert ((found >= 0) & (found <= 1)).all()
    assert (home / "picture.png").stat().st_size > 10_000
    before = (home / "results.json").read_bytes()
    (home / "digits-maml.json").unlink()  # one is done again, to the digit
    assert main(words) == 0
    assert (home / "results.json").read_bytes() == before
    (home / "table.md").unlink()
    assert main(["--replot", str(home / "results.json")]) == 0
    assert "digits never seen" in (home / "table.md").read_text()


def test_quick_leaves_what_was_asked_for():
    flags = config.parse(["--quick", "--seeds", "2"])
    assert (flags.seeds, flags.tasks, flags.name) == (2, 100, "maml-quick")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--tasks 1", "--tasks: wanted >= 2, came 1"),
        ("--rate 0", "--rate: wanted > 0, came 0"),
        ("--ways 5", "--ways: wanted <= 4, came 5"),
        ("--test-steps 4", "--test-steps: wanted >= 5, came 4"),
        ("--save", "--save: wanted with --replot, came alone"),
        ("--rate nan", "--rate: wanted > 0, came nan"),
        ("--name a/b", "--name: wanted letters"),
    ],
)
def test_bad_input(words, said):
    with pytest.raises(BadInput, match=said):
        config.parse(words.split())
