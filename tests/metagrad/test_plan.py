"""What a gradient will cost is told before, and kept: plan, budgets, offloading."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtricks import metagrad
from tests import oracles as oracle
from tests.free.common import assert_close, mesh
from tests.inputs import rng
from tests.metagrad.test_scan import train

POLICIES = ("none", "step", "offload", "sqrt", "replay")


def step(w, x):
    """Nothing in it is linear."""
    return jnp.tanh(w * jnp.sin(w) + x), jnp.sum(w)


# --- plan -----------------------------------------------------------------------------


def test_steps_run_as_often_as_planned():
    runs, steps = [], 21

    def counted(w, x):
        jax.debug.callback(lambda _: runs.append(1), x)
        return step(w, x)

    xs = jnp.zeros(steps)
    found = metagrad.plan(counted, 1.0, xs, branching=(2,))
    assert tuple(c.policy for c in found.costs) == POLICIES
    for c in found.costs:
        options = {"policy": c.policy, "branching": c.branching or 4}
        run = partial(metagrad.scan, counted, **options)
        grad = jax.jit(jax.grad(lambda xs, run=run: run(1.0, xs)[0]))
        runs.clear()
        jax.block_until_ready(grad(xs))
        jax.effects_barrier()
        assert len(runs) == c.evaluations, options


@pytest.mark.slow
def test_compiled_temporaries_are_near_what_is_planned():
    r = rng(40)
    x = jnp.asarray(r.normal(size=(256, 32)), jnp.float32)
    params = (
        r.normal(size=(32, 128)).astype(np.float32) / 6,
        r.normal(size=(128, 10)).astype(np.float32) / 12,
    )

    def update(carry, rows):
        def loss(params):
            return jnp.mean(jnp.tanh(jnp.tanh(x[rows] @ params[0]) @ params[1]) ** 2)

        w, m = carry
        m = jax.tree.map(lambda m, g: 0.9 * m + g, m, jax.grad(loss)(w))
        return (jax.tree.map(lambda w, m: w - 0.1 * m, w, m), m), None

    init = (params, jax.tree.map(np.zeros_like, params))
    rows = jax.ShapeDtypeStruct((256, 64), jnp.int32)
    found = metagrad.plan(update, init, rows, branching=[4, 64], compiled=True)
    for c in found.costs:
        planned = c.bytes + c.host  # one memory on a CPU
        assert 1 / 2 < c.compiled / planned < 2, c
    assert "compiled MB" in str(found)


def test_its_table():
    found = metagrad.plan(step, jnp.zeros(1000), jnp.zeros((100, 1000)), branching=[4])
    said = str(found).splitlines()
    assert said[0].startswith("100 steps; a carry takes 0.00 MB, a step stores 0.0")
    heads, *rows = (line.split() for line in said[1:])
    assert heads[:4] == ["policy", "carries", "steps", "run"]
    assert rows[1][:4] == ["step", "100", "200", "2.00x"]
    assert rows[2][5] == "0.40"  # 100 carries of 4000 bytes, on the host
    assert rows[4][:2] == ["replay,", "k=4"]
    assert len({len(line) for line in said[1:]}) == 1
    assert "compiled" not in said[1]


def test_only_shapes_are_needed():
    shape = jax.ShapeDtypeStruct
    found = metagrad.plan(step, shape((3,), "float32"), shape((8, 3), "float32"))
    with_arrays = metagrad.plan(step, jnp.ones(3), jnp.ones((8, 3)))
    assert found == with_arrays


# --- budgets --------------------------------------------------------------------------


def test_a_budget_chooses_what_runs_the_fewest_steps():
    init, xs = jnp.zeros(1000), jnp.zeros((64, 1))
    cost = {
        (c.policy, c.branching): c
        for c in metagrad.plan(step, init, xs, branching=(2, 4, 8)).costs
    }
    for policy, k in (("none", None), ("step", None), ("replay", 8), ("replay", 4)):
        budget = cost[policy, k].bytes / 1e6
        chosen = metagrad.plan(step, init, xs, budget_mb=budget).chosen
        assert chosen.bytes <= budget * 1e6
        assert chosen.evaluations <= cost[policy, k].evaluations
        if policy != "replay":
            assert chosen == cost[policy, k]
        options = {"policy": chosen.policy, "branching": chosen.branching or 4}
        by_budget, as_chosen = (
            oracle.scans(jax.make_jaxpr(partial(metagrad.scan, step, **how))(init, xs))
            for how in ({"budget_mb": budget}, options)
        )
        assert by_budget == as_chosen


def test_a_budget_that_nothing_keeps_says_the_least():
    init, xs = jnp.zeros(1000), jnp.zeros((64, 1))
    message = r"budget_mb: wanted >= 0\.\d+ MB, what 64 steps take at the least "
    with pytest.raises(ValueError, match=message + r"\(policy \"replay\"") as error:
        metagrad.scan(step, init, xs, budget_mb=0.001)
    least = float(str(error.value).split(">= ")[1].split(" MB")[0])
    assert metagrad.plan(step, init, xs, budget_mb=least).chosen.policy == "replay"
    with pytest.raises(ValueError, match="budget_mb: wanted >= 0, came -1"):
        metagrad.plan(step, init, xs, budget_mb=-1)
    with pytest.raises(ValueError, match="branching: wanted >= 2, came 1"):
        metagrad.plan(step, init, xs, branching=[1])


def test_no_steps():
    found = metagrad.plan(step, jnp.zeros(3), jnp.zeros((0, 3)), budget_mb=0)
    assert found.chosen.policy == "none"
    assert {(c.carries, c.evaluations) for c in found.costs} == {(0, 0)}
    keys = jax.random.split(jax.random.key(0), 0)
    got, _ = metagrad.scan(lambda w, x: (w, None), 2.0, keys, budget_mb=1)
    assert got == 2
    with pytest.raises(ValueError, match="length: wanted >= 0, came -1"):
        metagrad.scan(lambda w, x: (w, None), 2.0, length=-1)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_a_budget_on_a_mesh(kind):
    """It is that of whole arrays; types carry their shardings there."""
    with jax.set_mesh(mesh(kind)):
        where = NamedSharding(mesh(kind), P(None, "model"))
        init = jax.device_put(jnp.ones((3, 8)), where)
        noise = jax.device_put(0.1 * jnp.ones((3, 8)), where)

        def final(w, budget):
            def update(w, x):
                return jnp.tanh(w * jnp.sin(w) + noise) * x, None

            return jnp.sum(metagrad.scan(update, w, jnp.ones(32), budget_mb=budget)[0])

        tight, ample = (jax.jit(jax.grad(final), static_argnums=1) for _ in range(2))
        got = tight(init, 0.003)
        assert got.sharding.spec == P(None, "model")
        assert_close(got, ample(init, 10.0), rtol=1e-6)


# --- carries in the host's memory -----------------------------------------------------


def test_offloaded_derivatives_equal_those_of_lax_scan():
    """All but reverse over reverse, which jax has no rule for."""
    weights = rng(41).normal(size=(7, 3)).astype(np.float32)
    w = rng(42).normal(size=3).astype(np.float32)
    tangent = (jnp.cos(weights), jnp.cos(w))

    def everything(weights, w, **kwargs):
        f = partial(train, **kwargs)
        grad = jax.grad(f, argnums=(0, 1))
        return {
            "value": f(weights, w),
            "jvp": jax.jvp(f, (weights, w), tangent),
            "gradient, forward over reverse": jax.jvp(grad, (weights, w), tangent),
            "vmap": jax.vmap(grad, in_axes=(None, 0))(weights, jnp.stack([w, 2 * w])),
        }

    got = jax.jit(partial(everything, policy="offload"))(weights, w)
    want = jax.jit(everything)(weights, w)
    for what in want:
        assert_close(got[what], want[what], rtol=1e-6, what=what)


@pytest.mark.parametrize("platform", ["tpu", "cuda", "cpu"])
def test_where_offloaded_carries_lie(platform):
    """In pinned host memory, by the program that is lowered; a CPU has no other."""

    def noisy(carry, x):
        w, key, n = carry
        w = jnp.tanh(w + x + jax.random.normal(jax.random.fold_in(key, n), w.shape))
        return (w, key, n + 1), None

    def final(w, xs):
        init = (w, jax.random.key(0), 0)
        return jnp.sum(metagrad.scan(noisy, init, xs, policy="offload")[0][0])

    grad = jax.grad(final)
    xs = jnp.zeros((6, 3))
    assert "f32<host>[6,3]" in str(jax.make_jaxpr(grad)(xs[0], xs))
    lowered = jax.jit(grad).trace(xs[0], xs).lower(lowering_platforms=(platform,))
    assert ("pinned_host" in lowered.as_text()) == (platform != "cpu")
    if platform == "cpu":
        lowered.compile()
