"""Recipes of meta-gradients: their functions by hand, and that each shows its idea."""

import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import pages
from experiments.metagrad_recipes import __main__ as program
from experiments.metagrad_recipes import (
    hamiltonian,
    hyper_representation,
    in_context_tuning,
    inversion_landscape,
    mcmc_proposals,
    pixel_weights,
    procedural_biases,
    residual_forecasts,
    task_dpp,
    task_schedule,
    token_norms,
    universal_predictors,
    unsupervised_rule,
)
from experiments.metagrad_recipes.__main__ import PAGE, PROGRAM, main, names, recipe
from jaxtricks import metagrad
from tests.test_catalogue import titles

KNOWN = titles()


def test_every_recipe_is_listed_and_names_its_paper(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    assert len(names()) >= 14
    page = PAGE.read_text()
    for name in names():
        assert f"{name}: {recipe(name).title}\n" in said
        papers = re.findall(
            r'"(.+?)"(?:, \d{4})?(?:, arXiv:(\S+\d))?', recipe(name).source
        )
        assert papers, name
        for title, arxiv in papers:
            assert KNOWN[title] == arxiv, name
        assert recipe(name).shows.endswith(".")
        begin, end = pages.markers(f"{PROGRAM} {name}")
        shown = page.split(begin)[1].split(end)[0]
        assert f"### {name}\n\n{recipe(name).title}." in shown
        assert f"Source: {recipe(name).source}" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("nothing", "NAME: wanted one of"),
        ("task_dpp --all", "--all: wanted without a NAME"),
        ("task_dpp --quick --save", "--save: wanted without --quick"),
        ("--save", "NAME: wanted one or --all, came none"),
        ("task_dpp --slow", "--slow"),
    ],
)
def test_bad_input_is_one_line(words, said, capsys):
    assert main(words.split()) == 2
    found = capsys.readouterr()
    assert found.err.startswith("error: ")
    assert said in found.err
    assert found.err.count("\n") == 1
    assert not found.out


def test_a_recipe_prints_its_table_and_saves_it(tmp_path, capsys, monkeypatch):
    page = tmp_path / "README.md"
    monkeypatch.setattr(program, "PAGE", page)
    monkeypatch.setattr(task_dpp, "run", lambda quick: {"spread": 0.123456, "b": 2.0})
    assert main(["task_dpp"]) == 0
    said = capsys.readouterr().out
    assert (
        "| task_dpp | value |\n| --- | ---: |\n| spread | 0.1235 |\n| b | 2 |" in said
    )
    assert not page.exists()
    assert main(["task_dpp", "--save"]) == 0
    assert "| spread | 0.1235 |" in page.read_text()
    assert "Exploring intra-task relations" in page.read_text()


# --- one function each ----------------------------------------------------------------


def test_the_map_learns_from_points_that_are_not_differentiated_through():
    loss = lambda z: jnp.sum((z - 1.0) ** 2) / 2  # noqa: E731
    path = inversion_landscape.visited(loss, jnp.zeros(2), rate=0.5, steps=3)
    want = [[0.0] * 2, [0.5] * 2, [0.75] * 2, [0.875] * 2]
    np.testing.assert_allclose(path, want)


def test_a_dpp_draws_sets_as_often_as_their_determinants():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 3))
    kernel = jnp.asarray(x @ x.T + 0.1 * np.eye(5), jnp.float32)
    want = task_dpp.enumerated(np.asarray(kernel, np.float64), 2)
    keys = jax.random.split(jax.random.key(0), 20000)
    drawn = jax.jit(jax.vmap(lambda key: task_dpp.k_dpp(kernel, 2, key=key)))(keys)
    drawn = np.sort(drawn, axis=1)
    assert (drawn[:, 0] < drawn[:, 1]).all()
    for pair in itertools.combinations(range(5), 2):
        share = np.mean((drawn == pair).all(1))
        assert share == pytest.approx(want[pair], abs=0.02)
    table = task_dpp.elementary(jnp.array([2.0, 3.0, 5.0]), 2)
    np.testing.assert_allclose(table[-1], [1, 10, 31])
    chosen = task_dpp.greedy(kernel, 2)
    first = int(np.argmax(np.diag(kernel)))
    second = max((s for s in want if first in s), key=lambda s: want[s])
    assert tuple(np.flatnonzero(chosen)) == second


def test_the_rule_is_local_and_the_order_of_units_does_not_matter():
    meta = unsupervised_rule.rule(jax.random.key(0))
    layers = unsupervised_rule.start(jax.random.key(1), [3, 4, 2])
    x = jax.random.normal(jax.random.key(2), (5, 3))
    order = jnp.array([2, 0, 3, 1])
    first, last = layers
    turned = [
        first._replace(forward=first.forward[:, order], backward=first.backward[order]),
        last._replace(forward=last.forward[order], backward=last.backward[:, order]),
    ]
    update = jax.jit(unsupervised_rule.update)
    want, found = update(meta, layers, x), update(meta, turned, x)
    np.testing.assert_allclose(found[0].forward, want[0].forward[:, order], rtol=1e-4)
    np.testing.assert_allclose(found[1].forward, want[1].forward[order], rtol=1e-4)
    y = jax.random.normal(jax.random.key(3), (5, 2))
    assert float(unsupervised_rule.few_shot(x, x, x, x, 1e-6)) < 1e-3
    assert 0 < float(unsupervised_rule.few_shot(x[:2], y[:2], x[2:], y[2:])) < 2


def test_with_every_bias_off_it_is_maml():
    meta = procedural_biases.start(jax.random.key(0), loss_on=0.0)
    tasks = jax.jit(procedural_biases.draw, static_argnums=1)(jax.random.key(1), 3)

    def loss(theta, batch):
        x, y = batch
        return jnp.mean((procedural_biases.predict(theta, meta, x) - y) ** 2)

    settings = {"rate": 0.05, "steps": 3, "policy": "none"}
    maml = jax.jit(lambda theta: metagrad.maml(loss, theta, tasks, **settings))
    want = maml(meta["theta"])
    found = jax.jit(procedural_biases.outer)(meta, tasks)
    np.testing.assert_allclose(found, want, rtol=1e-5)
    omega = jnp.array([[1.0, 2.0], [0.0, 3.0]])
    grads = procedural_biases.preconditioned(jnp.array([[1.0], [0.0]]), omega)
    np.testing.assert_allclose(grads, [[1.0], [2.0]])


def test_context_tree_weighting_is_the_mixture():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, 9)

    def by_tree(leaves):
        total = 0.0
        for leaf in leaves:
            at = [t for t in range(2, 9) if tuple(bits[:t][::-1][: len(leaf)]) == leaf]
            ones = int(sum(bits[t] for t in at))
            total += universal_predictors.kt(len(at) - ones, ones)
        return total

    trees = {  # the leaves of every tree of depth two, and its prior
        ((),): 1 / 2,
        ((0,), (1,)): 1 / 8,
        ((0, 0), (0, 1), (1,)): 1 / 8,
        ((0,), (1, 0), (1, 1)): 1 / 8,
        ((0, 0), (0, 1), (1, 0), (1, 1)): 1 / 8,
    }
    want = math.log(sum(p * math.exp(by_tree(t)) for t, p in trees.items()))
    assert universal_predictors.ctw(bits, 2) == pytest.approx(want, rel=1e-9)
    # Beta(1/2, 1/2) one bit at a time: 1/2, 1.5/2, 0.5/3
    assert universal_predictors.kt(2, 1) == pytest.approx(math.log(0.5 * 0.75 / 6))


def test_a_string_is_of_a_tree_of_variable_order():
    keys = jax.random.split(jax.random.key(0), 400)
    bits, truth = jax.jit(jax.vmap(universal_predictors.string))(keys)
    depth, length = universal_predictors.DEPTH, universal_predictors.LENGTH
    assert bits.shape == (400, depth + length)
    assert set(np.unique(bits)) == {0, 1}
    assert (truth <= 0).all()
    # A bit costs its leaf's entropy, 2 log 2 - 1 nats under Beta(1/2, 1/2), and less as
    # strings stay longer where they are sure.
    assert 0.15 < float(-truth.mean() / length) < 2 * math.log(2) - 1
    # No predictor knows more than the source: the mixture's regret is above 0, and
    # at most that of the largest tree, its prior and half a log of the counts each.
    regret = [
        float(t) - universal_predictors.ctw(np.asarray(b), depth)
        for b, t in zip(bits[:50], truth[:50], strict=True)
    ]
    assert 0 < np.mean(regret) < 12


def test_the_transformers_loss_is_of_the_bits_after_the_free_ones():
    @jax.jit
    def of_a_model_that_knows_nothing(bits):
        params = universal_predictors.tuning.start(jax.random.key(0), 103)
        params |= {"read": 0 * params["read"]}
        return universal_predictors.log_loss(params, bits)

    found = of_a_model_that_knows_nothing(jnp.arange(103) % 2)
    assert float(found) == pytest.approx(100 * math.log(2), rel=1e-5)


def test_weights_of_one_are_plain_maml():
    task, _ = jax.jit(pixel_weights.draw)(jax.random.key(0))
    meta = pixel_weights.start()
    (x, y), _ = task
    np.testing.assert_array_equal(pixel_weights.mask(meta["omega"], x, y), 1)

    def loss(theta, batch):
        return jnp.mean(jnp.abs(batch[1] - pixel_weights.predict(theta, batch[0])))

    tasks = jax.tree.map(lambda leaf: leaf[None], task)
    maml = jax.jit(lambda theta: metagrad.maml(loss, theta, tasks, rate=1.0))
    found = jax.jit(pixel_weights.outer)(meta, task)
    np.testing.assert_allclose(found, maml(meta["theta"]), rtol=1e-5)


def test_forecasts():
    truth = jnp.array([[1.0, -2.0, 0.0]])
    assert float(residual_forecasts.smape(truth, truth)[0]) == 0
    np.testing.assert_allclose(
        residual_forecasts.smape(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0])), 50
    )
    params = residual_forecasts.start(jax.random.key(0))
    x = jnp.arange(24.0) / 24
    _, ahead = residual_forecasts.block(params, x)
    np.testing.assert_allclose(residual_forecasts.stack([params], x), ahead)
    still = params | {"back": 0 * params["back"]}
    np.testing.assert_allclose(
        residual_forecasts.stack([still] * 3, x), 3 * ahead, rtol=1e-5
    )


def test_only_the_query_is_asked():
    examples, labels = jnp.array([[5, 6], [7, 8]]), jnp.array([2, 1])
    tokens, mask = in_context_tuning.pack(examples, labels, jnp.array([9, 10]))
    assert tokens.tolist() == [0, 5, 6, 2, 7, 8, 1, 9, 10]
    assert mask.tolist() == [False] * 8 + [True]
    logits = jax.random.normal(jax.random.key(0), (9, 19))
    gradient = jax.jit(jax.grad(in_context_tuning.tuning_loss))
    slope = gradient(logits, jnp.int32(2), mask)
    np.testing.assert_array_equal(slope[:-1], 0)
    assert np.count_nonzero(slope[-1]) == 2
    start = jax.jit(in_context_tuning.start, static_argnums=1)
    params, model = start(jax.random.key(1), 9), jax.jit(in_context_tuning.model)
    before, after = model(params, tokens), model(params, tokens.at[-1].set(3))
    np.testing.assert_allclose(before[:-1], after[:-1], rtol=1e-5)


def test_a_springs_field_and_its_energy():
    energy = lambda s: jnp.sum(s**2) / 2  # noqa: E731
    field = hamiltonian.symplectic_field(energy)
    np.testing.assert_allclose(field(jnp.array([0.3, -0.7])), [-0.7, -0.3])
    path = hamiltonian.leapfrog(energy, jnp.array([1.0, 0.0]), dt=0.1, steps=200)
    np.testing.assert_allclose(jax.vmap(energy)(path), 0.5, rtol=0.01)


def test_a_layer_of_descent_goes_against_the_gradient():
    target = jax.random.normal(jax.random.key(0), (4, 3))
    loss = lambda x: jnp.sum((x - target) ** 2) / 2  # noqa: E731
    layers = [lambda x: x - 0.1 * (x - target)] * 2 + [lambda x: x]
    found = token_norms.token_norms(layers, loss, jnp.ones((4, 3)))
    np.testing.assert_allclose(found.cosine, [-1, -1, 0], atol=1e-5)
    assert found.update[2] == 0
    np.testing.assert_allclose(found.mean[2], found.mean[3])
    np.testing.assert_allclose(found.mean[0], np.sqrt(3), rtol=1e-6)


def test_schedules_of_tasks():
    sizes = [int(task_schedule.curriculum(e)) for e in range(0, 300, 10)]
    assert sizes[0] == 50
    assert sizes[-1] == 200
    assert all(a <= b and b % 5 == 0 for a, b in itertools.pairwise(sizes))
    weights = task_schedule.task_weights(jnp.array([0.0, math.log(3.0)]))
    np.testing.assert_allclose(weights, [0.25, 0.75], rtol=1e-6)


def test_a_perfect_proposal_is_always_accepted():
    rho, x = 0.6, jnp.array([0.4, -1.0])
    spread = math.sqrt(1 - rho**2)
    target = lambda x: -(x @ x - 2 * rho * x[0] * x[1]) / (2 * spread**2)  # noqa: E731

    def draw(x, key):
        return rho * x[1] + spread * jax.random.normal(key)

    def log_q(value, x):
        return -(((value - rho * x[1]) / spread) ** 2) / 2

    keys = jax.random.split(jax.random.key(0), 20)
    step = lambda key: mcmc_proposals.block_step(target, draw, log_q, x, 0, key=key)  # noqa: E731
    _, chance = jax.jit(jax.vmap(step))(keys)
    np.testing.assert_allclose(chance, 1, rtol=1e-5)
    phi = mcmc_proposals.start(jax.random.key(1))
    grid = jnp.linspace(-30, 30, 6001)
    seen = jnp.array([0.5, 0.2])
    density = jax.jit(jax.vmap(mcmc_proposals.log_density, (None, 0, None)))
    log_p = density(phi, grid, seen)
    np.testing.assert_allclose(jnp.sum(jnp.exp(log_p)) * 0.01, 1, rtol=1e-3)


def test_the_last_layer_alone_is_fitted():
    representation = hyper_representation.start(jax.random.key(0))
    tasks = jax.jit(procedural_biases.draw, static_argnums=1)(jax.random.key(1), 2)
    support = jax.tree.map(lambda leaf: leaf[0], tasks[0])
    w = hyper_representation.inner(representation, support, rate=0.1, steps=1)
    x, y = support
    z = hyper_representation.features(representation, x)
    np.testing.assert_allclose(w, 0.1 * 2 * z.T @ y / 10, rtol=1e-4, atol=1e-6)


# --- that each shows its idea ---------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "pairs"),
    [
        (hamiltonian, ["MAML: after < joint: after"]),
        (hyper_representation, ["learnt < random"]),
        (in_context_tuning, ["untrained < tuned"]),
        (inversion_landscape, ["learnt < plain"]),
        (
            mcmc_proposals,
            ["-log q learnt < -log q before", "accepted before < accepted learnt"],
        ),
        (
            pixel_weights,
            [
                "weight where spoilt < weight where right",
                "loss, with the map < loss, start alone",
            ],
        ),
        (procedural_biases, ["all learnt < MAML"]),
        (residual_forecasts, []),
        (
            task_dpp,
            ["uniform: kinds < dpp: kinds", "dpp: variance < uniform: variance"],
        ),
        (task_schedule, ["worst by gaps < worst alike"]),
        (token_norms, []),
        (universal_predictors, ["ctw < order 3", "ctw < learnt", "learnt < untrained"]),
        (unsupervised_rule, ["learnt < before"]),
    ],
    ids=lambda value: getattr(value, "__name__", "").rpartition(".")[2] or None,
)
def test_a_recipe_shows_its_idea(module, pairs):
    found = module.run(quick=True)
    assert all(math.isfinite(value) for value in found.values())
    for pair in pairs:
        less, more = pair.split(" < ")
        assert found[less] < found[more], found
