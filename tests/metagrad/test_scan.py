"""metagrad.scan is lax.scan, with derivatives that need less memory and more steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtricks import metagrad
from tests.free.common import as_users_see_it, assert_close, mesh
from tests.inputs import rng

POLICIES = ("none", "step", "sqrt", "replay")
STORED_LESS = POLICIES[1:]


def assert_same(got, want):
    """Equal trees, dtypes and values, up to two ulp of 1, the size of what they sum."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=2.0**-22)


# --- a drop-in for lax.scan -----------------------------------------------------------


def noisy(carry, x):
    """A step with a key, a counter and a nested result."""
    key, sub = jax.random.split(carry["key"])
    w = jnp.tanh(0.9 * carry["w"] + x["a"] + 0.1 * jax.random.normal(sub, (3,)))
    carry = {"w": w, "key": key, "count": carry["count"] + 1}
    return carry, (jnp.sum(w), {"order": x["i"], "key": sub, "w": w[None]})


@pytest.mark.parametrize(
    ("steps", "reverse"), [(0, False), (1, True), (4, True), (11, False), (29, True)]
)
@pytest.mark.parametrize("policy", STORED_LESS)
def test_equals_lax_scan(policy, steps, reverse):
    init = {"w": jnp.ones(3), "key": jax.random.key(0), "count": 0}
    xs = {
        "a": np.sin(np.arange(steps * 3.0)).reshape(steps, 3).astype(np.float32),
        "i": np.arange(steps),
    }
    run = functools.partial(metagrad.scan, noisy, policy=policy, branching=2)
    got = jax.jit(functools.partial(run, reverse=reverse))(init, xs)
    assert_same(got, lax.scan(noisy, init, xs, reverse=reverse))


@pytest.mark.parametrize("policy", POLICIES)
def test_without_xs_and_unrolled(policy):
    def step(carry, x):
        assert x is None
        return carry * 0.5 + 1, carry

    for unroll in (1, 2, True):
        run = functools.partial(metagrad.scan, step, policy=policy, unroll=unroll)
        got = jax.jit(functools.partial(run, length=9))(1.0)
        assert_same(got, lax.scan(step, 1.0, length=9))
    got = metagrad.scan(step, 1, length=9, policy=policy)  # a weak int becomes a float
    assert_same(got, lax.scan(step, 1, length=9))


@pytest.mark.parametrize("budget", [None, 1.0])
@pytest.mark.parametrize("policy", POLICIES)
def test_mistakes_are_told_in_lax_scans_words(policy, budget):
    run = functools.partial(metagrad.scan, policy=policy, budget_mb=budget)

    def step(carry, x):
        return carry + x, None

    def same_message(step, init, *args, **kwargs):
        with as_users_see_it():
            with pytest.raises((ValueError, TypeError)) as want:
                lax.scan(step, init, *args, **kwargs)
            with pytest.raises(type(want.value)) as got:
                run(step, init, *args, **kwargs)
        assert str(got.value) == str(want.value)

    same_message(step, 0.0, (jnp.ones(3), jnp.ones(4)))
    same_message(step, 0.0, jnp.ones(3), length=4)
    same_message(step, 0.0)
    same_message(step, jnp.int32(0), jnp.ones(3))  # float32 out
    same_message(lambda c, x: ((c, c), None), 0.0, jnp.ones(3))


def test_mistakes_of_ours():
    for keywords, message in (
        ({"policy": "treeverse"}, "policy: wanted one of 'none', 'step', 'sqrt', 'rep"),
        ({"branching": 1}, "branching: wanted >= 2, came 1"),
    ):
        with pytest.raises(ValueError, match=message):
            metagrad.scan(lambda c, x: (c, x), 0.0, jnp.ones(3), **keywords)


# --- derivatives ----------------------------------------------------------------------


def train(weights, w, *, scale=1.0, **kwargs):
    """A loss after momentum steps on weighted examples, differentiable to any order."""
    run = metagrad.scan if "policy" in kwargs else lax.scan

    def step(carry, x):
        w, m = carry
        m = 0.9 * m + jax.grad(lambda w: jnp.sum(x * jnp.cos(w) * scale))(w)
        return (w - 0.1 * m, m), jnp.sum(w**2)

    (w, _), ys = run(step, (w, jnp.zeros_like(w)), weights, **kwargs)
    return jnp.sum(jnp.sin(w)) + jnp.sum(ys**2)


@pytest.mark.parametrize(
    ("policy", "reverse"), [("step", False), ("sqrt", False), ("replay", True)]
)
def test_derivatives_equal_those_of_lax_scan(policy, reverse):
    weights = rng(30).normal(size=(11, 3)).astype(np.float32)
    w = rng(31).normal(size=3).astype(np.float32)
    tangent = (jnp.cos(weights), jnp.cos(w))

    def everything(weights, w, **kwargs):
        f = functools.partial(train, reverse=reverse, **kwargs)
        grad = jax.grad(f, argnums=(0, 1))

        def slope(*primal):
            pairs = zip(grad(*primal), tangent, strict=True)
            return sum(jnp.vdot(g, t) for g, t in pairs)

        return {
            "closed over": jax.grad(lambda s: f(weights, w, scale=s))(1.5),
            "jvp": jax.jvp(f, (weights, w), tangent),
            "gradient, forward over reverse": jax.jvp(grad, (weights, w), tangent),
            "reverse over reverse": jax.grad(slope, argnums=(0, 1))(weights, w),
            "vmap": jax.vmap(grad, in_axes=(None, 0))(weights, jnp.stack([w, 2 * w])),
        }

    got = jax.jit(functools.partial(everything, policy=policy, branching=2))(weights, w)
    want = jax.jit(everything)(weights, w)
    for what in want:
        assert_close(got[what], want[what], rtol=1e-6, what=what)


def test_any_optimizer_and_a_learned_rate():
    """The loss after 50 steps of Adam, differentiated in its rate."""

    def loss(w):
        return jnp.sum(jnp.array([1.0, 3.0, 0.3]) * w**2)

    def final_loss(rate):
        tx = optax.adam(rate, eps_root=1e-8)
        w = jnp.array([1.0, -2.0, 0.5])

        def step(carry, _):
            w, state = carry
            updates, state = tx.update(jax.grad(loss)(w), state, w)
            return (optax.apply_updates(w, updates), state), None

        (w, _), _ = metagrad.scan(step, (w, tx.init(w)), length=50)
        return loss(w)

    with jax.enable_x64(True):
        rate = jnp.float64(0.01)
        slope = (final_loss(rate + 1e-6) - final_loss(rate - 1e-6)) / 2e-6
        np.testing.assert_allclose(jax.grad(final_loss)(rate), slope, rtol=1e-6)


# --- what it costs --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "steps", "in_gradient"),
    [
        ("none", 64, 64),
        ("step", 64, 2 * 64),
        ("sqrt", 64, 3 * 64),
        ("sqrt", 13, 2 * 12 + 12 + 2),  # 4 x 3 + 1
        ("replay", 64, 4 * 64),  # 4 x 4 x 4
        ("replay", 63, 2 * 63 + 7 * (8 + 8 + 1)),  # 7 x (4 x 2 + 1)
        ("replay", 7, 2 * 7),
    ],
)
def test_how_often_a_step_runs(policy, steps, in_gradient):
    runs = []

    def step(carry, x):
        jax.debug.callback(lambda _: runs.append(1), x)
        return jnp.sin(carry + x), None

    def f(xs):
        return metagrad.scan(step, 1.0, xs, policy=policy)[0]

    for g, expected in ((f, steps), (jax.grad(f), in_gradient)):
        runs.clear()
        jax.block_until_ready(jax.jit(g)(jnp.zeros(steps)))
        jax.effects_barrier()
        assert len(runs) == expected


def depth(jaxpr) -> int:
    """How many scans are nested in one another."""
    return max((levels(eqn) for eqn in jaxpr.eqns), default=0)


def levels(eqn) -> int:
    inside = [getattr(p, "jaxpr", p) for p in eqn.params.values()]
    inner = max((depth(p) for p in inside if hasattr(p, "eqns")), default=0)
    return inner + (eqn.primitive.name == "scan")


@pytest.mark.parametrize(
    ("steps", "branching", "expected"),
    [(7, 4, 1), (8, 4, 2), (32, 4, 3), (1024, 4, 5), (10**6 + 3, 4, 6), (10**6, 2, 6)],
)
def test_the_nesting_is_bounded(steps, branching, expected):
    def run(xs):
        return metagrad.scan(lambda c, x: (c + x, None), 0.0, xs, branching=branching)

    jaxpr = jax.make_jaxpr(run)(jax.ShapeDtypeStruct((steps,), jnp.float32))
    assert depth(jaxpr.jaxpr) == expected


def test_blocks_are_no_wider_than_the_nesting_needs():
    """2 * 2^6 <= 243 < 2 * 3^6, so blocks of three: 243 is 3^5."""
    step, xs = (lambda c, x: (c + x, None)), jnp.zeros(243)
    jaxpr = jax.make_jaxpr(lambda xs: metagrad.scan(step, 0.0, xs, branching=2))(xs)
    (outer,) = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "scan"]
    assert outer.params["length"] == 3


@pytest.mark.parametrize("policy", ["offload", "replay"])
def test_no_barrier_keeps_xla_from_fusing(policy):
    def run(xs):
        step = lambda c, x: (jnp.sin(c + x), None)  # noqa: E731
        return metagrad.scan(step, 0.0, xs, policy=policy)[0]

    lowered = jax.jit(jax.grad(run)).lower(jnp.zeros(64))
    assert "optimization_barrier" not in lowered.as_text()


def example_weight_gradient(policy, steps):
    """(bytes, gradient) of a small network's loss after training, in its examples."""

    def loss(params, x, y, weights):
        logits = jax.nn.gelu(x @ params[0]) @ params[1]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return jnp.mean(weights * losses)

    def final_loss(weights, params, x, y, batches):
        def step(carry, i):
            params, m = carry
            grads = jax.grad(loss)(params, x[i], y[i], weights[i])
            m = jax.tree.map(lambda m, g: 0.9 * m + g, m, grads)
            return (jax.tree.map(lambda p, m: p - 0.05 * m, params, m), m), None

        init = (params, jax.tree.map(jnp.zeros_like, params))
        (params, _), _ = metagrad.scan(step, init, batches, policy=policy)
        return loss(params, x[:64], y[:64], jnp.ones(64))

    r = rng(32)
    f32 = functools.partial(np.asarray, dtype=np.float32)
    params = [f32(r.normal(size=(32, 64)) / 6), f32(r.normal(size=(64, 10)) / 8)]
    x, y = f32(r.normal(size=(256, 32))), r.integers(0, 10, size=256)
    args = (
        np.ones(256, np.float32),
        params,
        x,
        y,
        r.integers(0, 256, size=(steps, 64)),
    )
    compiled = jax.jit(jax.grad(final_loss)).lower(*args).compile()
    return compiled.memory_analysis().temp_size_in_bytes, compiled(*args)


@pytest.mark.slow
def test_memory_grows_with_the_logarithm():
    memory = {}
    for steps, policies in ((256, POLICIES), (1024, STORED_LESS)):
        want = None
        for policy in policies:
            memory[policy, steps], got = example_weight_gradient(policy, steps)
            want = got if want is None else want
            assert_close(got, want, rtol=1e-6, what=policy)
    parameters = 4 * (32 * 64 + 64 * 10)
    grown = {p: memory[p, 1024] - memory[p, 256] for p in STORED_LESS}
    assert grown["step"] == 768 * parameters  # momentum is linear, so not stored
    assert grown["sqrt"] < 64 * parameters  # 2 x (32 - 16) carries of 2 x parameters
    assert grown["replay"] < 20 * parameters  # 1 level more, of 4 or 5 carries
    assert memory["none", 256] > 80 * memory["replay", 1024]


# --- meshes ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_sharded_carries(kind):
    """Parameters over `model`, examples over `data`: one device's gradient."""
    r = rng(33)
    w = r.normal(size=(4, 6)).astype(np.float32)
    xs = r.normal(size=(9, 8, 4)).astype(np.float32)
    weights = np.ones((9, 8), np.float32)

    def final(weights, w, xs):
        def step(w, batch):
            x, weights = batch

            def loss(w):
                return jnp.mean(weights * jnp.sum(jnp.tanh(x @ w) ** 2, axis=-1))

            return w - 0.1 * jax.grad(loss)(w), loss(w)

        w, losses = metagrad.scan(step, w, (xs, weights), branching=2)
        return jnp.sum(w**2) + jnp.sum(losses)

    grad = jax.jit(jax.grad(final, argnums=(0, 1)))
    want = grad(weights, w, xs)
    specs = (P(None, "data"), P(None, "model"), P(None, "data"))
    with jax.set_mesh(mesh(kind)):
        args = [
            jax.device_put(x, NamedSharding(mesh(kind), spec))
            for x, spec in zip((weights, w, xs), specs, strict=True)
        ]
        got = grad(*args)
    assert got[1].sharding.spec == P(None, "model")
    assert_close(got, want, rtol=1e-5)


def test_inside_shard_map():
    """Every device trains on its own part; the carry varies over the mesh."""
    xs = rng(34).normal(size=(9, 8)).astype(np.float32)

    def step(carry, x):
        return jnp.sin(carry + x), None

    def final(xs):
        return jnp.sum(metagrad.scan(step, jnp.zeros_like(xs[0]), xs)[0])

    local, spec = jax.grad(final), P(None, "data")
    split = jax.shard_map(
        local, mesh=mesh(AxisType.Auto), in_specs=spec, out_specs=spec
    )
    assert_close(jax.jit(split)(xs), local(xs), rtol=1e-6)
