"""softmax, log_softmax, logsumexp, ext_exp, ext_add: derivatives, memory, meshes."""

import functools
import importlib
import itertools
import re
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxtricks.kernels import (
    _extended,
    ext_add,
    ext_exp,
    log_softmax,
    logsumexp,
    softmax,
)
from tests.free.common import as_users_see_it, assert_close, assert_finite, mesh, put
from tests.inputs import rng

pytestmark = pytest.mark.kernels

two_pass_softmax = functools.partial(softmax, two_pass=True)
FORMS = {
    "softmax": softmax,
    "two_pass_softmax": two_pass_softmax,
    "log_softmax": log_softmax,
    "logsumexp": logsumexp,
}
each_form = pytest.mark.parametrize("name", FORMS)


def rows(*shape, seed=50):
    return 3 * rng(seed).normal(size=shape).astype(np.float32)


def plain(name, x):
    """JAX's own."""
    if name == "logsumexp":
        return jax.nn.logsumexp(x, axis=-1)
    return jax.nn.log_softmax(x) if name == "log_softmax" else jax.nn.softmax(x)


def modes(f, args, tangent):
    """Name -> every kind of derivative of the mean squared cosine of f's results."""

    def loss(*args):
        found = (jnp.where(y > -jnp.inf, y, 0) for y in jax.tree.leaves(f(*args)))
        return sum(jnp.mean(jnp.square(jnp.cos(y.astype(jnp.float64)))) for y in found)

    argnums = tuple(range(len(args)))
    grad = jax.grad(loss, argnums)

    def forward(g):
        return lambda *args: jax.jvp(g, args, tangent)[1]

    def reverse(g):
        def slope(*args):
            leaves = zip(
                jax.tree.leaves(g(*args)), jax.tree.leaves(tangent), strict=True
            )
            return sum(jnp.vdot(a, b) for a, b in leaves)

        return jax.grad(slope, argnums)

    every = {
        "gradient": grad,
        "jvp": forward(loss),
        "forward over forward": forward(forward(loss)),
        "forward over reverse": forward(grad),
        "reverse over forward": jax.grad(forward(loss), argnums),
        "reverse over reverse": reverse(grad),
        "third": forward(reverse(grad)),
        "third, reverse": reverse(reverse(grad)),
    }
    return {what: jax.jit(g)(*args) for what, g in every.items()}


def stored(f, *args):
    """The sizes of the arrays that reverse mode keeps of f, largest first."""
    _, pull = jax.vjp(f, *args)
    kept = {id(leaf): jnp.size(leaf) for leaf in jax.tree.leaves(pull)}
    return sorted(kept.values(), reverse=True)


# --- numbers --------------------------------------------------------------------------


@each_form
def test_every_derivative_equals_that_of_the_plain_formula(name):
    with jax.enable_x64(True):
        x = jnp.asarray(rows(4, 9), jnp.float64)
        want = modes(functools.partial(plain, name), (x,), (jnp.cos(x),))
        for form in ("xla", "reference"):
            f = functools.partial(FORMS[name], implementation=form)
            got = modes(f, (x,), (jnp.cos(x),))
            assert_close(got, want, rtol=1e-11, what=form)


@each_form
def test_classes_that_take_no_part_are_not_there(name):
    """NaN under the mask: value, gradient and HVP are those of the other classes."""
    x = rows(3, 9)
    live = np.ones(9, bool)
    live[[0, 4, 5]] = False
    f = functools.partial(FORMS[name], where=np.tile(live, (3, 1)))
    spoiled = jnp.where(live, x, jnp.nan)

    def derivatives(f, x):
        def loss(x):
            y = f(x)
            y = jnp.where(y > -jnp.inf, y, 0)
            return jnp.sum(jnp.square(y)), f(x)

        grad = jax.grad(loss, has_aux=True)
        g, hvp, y = jax.jvp(grad, (x,), (jnp.cos(jnp.ones_like(x)),), has_aux=True)
        return y, g, hvp

    y, *moved = derivatives(f, spoiled)
    want_y, *want = derivatives(FORMS[name], x[:, live])
    if y.ndim == 2:
        assert (np.asarray(y)[:, ~live] == (-np.inf if "log" in name else 0)).all()
        y = y[:, live]
    assert_close(y, want_y)
    for got, expected in zip(moved, want, strict=True):
        assert (np.asarray(got)[:, ~live] == 0).all()
        assert_close(got[:, live], expected, rtol=5e-6)


@each_form
@pytest.mark.parametrize("implementation", ["xla", "reference"])
def test_a_row_where_nothing_lives(name, implementation):
    """All -inf, all masked, or no class at all: 0, -inf and -inf, and no slope."""
    f = functools.partial(FORMS[name], implementation=implementation)
    nothing = -np.inf if "log" in name else 0
    x = np.where(np.arange(3)[:, None] == 1, -np.inf, rows(3, 5)).astype(np.float32)

    def loss(x):
        y = f(x)
        return jnp.sum(jnp.square(jnp.where(y > -jnp.inf, y, 0))), y

    grad = jax.grad(loss, has_aux=True)
    g, hvp, y = jax.jvp(grad, (x,), (np.ones_like(x),), has_aux=True)
    assert (np.asarray(y)[1] == nothing).all()
    assert_finite((np.asarray(y)[[0, 2]], g, hvp))
    assert (np.asarray(g)[1] == 0).all()
    masked = f(x * np.nan, where=np.zeros(x.shape, bool))
    assert (np.asarray(masked) == nothing).all()
    assert f(np.zeros((3, 0), np.float32)).shape == (3, 0)[: y.ndim]
    assert f(np.zeros((0, 3), np.float32)).shape == (0, 3)[: y.ndim]
    if y.ndim == 1:
        assert (np.asarray(f(np.zeros((3, 0), np.float32))) == -np.inf).all()


@each_form
def test_gradients_with_respect_to_a_result_that_is_minus_infinity(name):
    """A cotangent of a class that takes no part goes nowhere."""
    x = np.array([1.0, 2.0, -np.inf], np.float32)
    live = np.array([True, True, False])
    y, pull = jax.vjp(functools.partial(FORMS[name], where=live), x)
    (g,) = pull(jnp.ones_like(y))
    want, pull = jax.vjp(FORMS[name], x[:2])
    assert_close(g[:2], pull(jnp.ones_like(want))[0])
    assert g[2] == 0


def test_a_single_class():
    x = np.array([[7.0], [-1e4], [3e4]], np.float32)
    for two_pass in (False, True):
        assert (np.asarray(softmax(x, two_pass=two_pass)) == 1).all()
    assert (np.asarray(log_softmax(x)) == 0).all()
    assert (np.asarray(logsumexp(x)) == x[:, 0]).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@each_form
def test_types(name, dtype):
    x = jnp.asarray(rows(2, 5), dtype)
    with jax.numpy_dtype_promotion("strict"):
        y, pull = jax.vjp(FORMS[name], x)
        (g,) = pull(jnp.ones_like(y))
    assert y.dtype == (jnp.float32 if name == "logsumexp" else dtype)
    assert g.dtype == dtype


def test_small_shares_of_many_classes_are_summed_in_f32():
    """Of 2^14 equal classes, each has 2^-14; a bf16 sum would stall at 2^8."""
    x = jnp.zeros((1, 2**14), jnp.bfloat16)
    for two_pass in (False, True):
        assert (np.asarray(softmax(x, two_pass=two_pass)) == 2.0**-14).all()
    assert_close(logsumexp(x), np.log([2.0**14]))


@each_form
def test_vmap(name):
    x = rows(3, 4, 9)
    f = FORMS[name]
    grad = jax.grad(lambda x: jnp.sum(jnp.square(f(x))))
    for mapped, whole in ((jax.vmap(f), f), (jax.vmap(grad), grad)):
        assert_close(mapped(x), whole(x), rtol=5e-6)
    along = jax.vmap(f, in_axes=-1, out_axes=-1)
    assert_close(along(x), jnp.moveaxis(f(jnp.moveaxis(x, -1, 0)), 0, -1))


def test_mistakes():
    x = rows(2, 5)
    live = np.ones((2, 5), bool)
    for f, kwargs, message in (
        (softmax, {"where": live[:, :4]}, "where: wanted"),
        (softmax, {"implementation": "triton"}, "implementation: wanted one of"),
        (
            logsumexp,
            {"implementation": "mosaic_tpu", "axis_name": "model"},
            "mosaic_tpu of logsumexp cannot take an axis_name",
        ),
        (
            softmax,
            {"implementation": "cuda", "axis_name": "model"},
            "implementation: wanted one of",
        ),
    ):
        with as_users_see_it(), pytest.raises(ValueError, match=message):
            f(x, **kwargs)


# --- exponentials as pairs ------------------------------------------------------------


EXACT = Context(prec=60, Emax=MAX_EMAX, Emin=MIN_EMIN)


def exactly(x) -> Decimal:
    return EXACT.exp(Decimal(float(x)))


def value(pair) -> Decimal:
    power = EXACT.power(2, int(pair[1]))
    return EXACT.multiply(Decimal(float(pair[0])), power)


def test_ext_exp_is_right_to_rounding():
    x = np.concatenate(
        [rows(200)[:200], rows(200, seed=51) * 1e3, [1e4, -1e4, 88.8, -104.0, 1e-30, 0]]
    ).astype(np.float32)
    mantissa, exponent = map(np.asarray, ext_exp(x))
    assert (mantissa >= 0.7071).all()
    assert (mantissa <= 1.4143).all()
    for a, m, n in zip(x, mantissa, exponent, strict=True):
        assert abs(EXACT.divide(value((m, n)), exactly(a)) - 1) < 3e-7, a
    with jax.enable_x64(True):
        mantissa, exponent = ext_exp(x.astype(np.float64))
        for a, m, n in zip(x, mantissa, exponent, strict=True):
            assert abs(EXACT.divide(value((m, n)), exactly(a)) - 1) < 5e-16, a


def test_ext_exp_further_out_is_that_of_a_neighbour():
    """Beyond 1e4 the error is less than that of moving x by its last digit."""
    x = np.array([123456.7, -98765.4, 3e6, -5e7], np.float32)
    mantissa, exponent = map(np.asarray, ext_exp(x))
    for a, m, n in zip(x, mantissa, exponent, strict=True):
        moved = EXACT.ln(value((m, n))) - Decimal(float(a))
        assert abs(float(moved)) < float(np.spacing(np.abs(a)))


def test_ext_exp_derivatives():
    x = np.array([0.3, -1000.0, -np.inf, 50.0], np.float32)
    pair, moved = jax.jvp(ext_exp, (x,), (np.ones_like(x),))
    assert_close(moved[0], pair[0])
    assert (np.asarray(moved[1]) == 0).all()
    assert np.asarray(pair[0])[2] == 0
    assert np.asarray(pair[1])[2] == -np.inf


def test_ext_add_is_exact_where_nothing_is_rounded():
    """Mantissas of few bits: any order gives the same pair, to the bit."""
    r = rng(52)
    m = r.integers(1, 64, size=(5, 50)).astype(np.float32) / 32
    n = r.integers(-8, 9, size=(5, 50)).astype(np.float32)
    want = np.sum(m.astype(np.float64) * 2.0**n, axis=0)
    for order in itertools.permutations(range(5)):
        pairs = [(m[i], n[i]) for i in order]
        got = functools.reduce(ext_add, pairs)
        assert (
            np.asarray(got[0], np.float64) * 2.0 ** np.asarray(got[1]) == want
        ).all()
        assert (np.asarray(got[1]) == n.max(axis=0)).all()
        first, *rest = pairs
        nested = ext_add(first, functools.reduce(lambda a, b: ext_add(b, a), rest))
        assert all((a == b).all() for a, b in zip(nested, got, strict=True))


def test_ext_add_at_its_ends():
    one, zero = (np.ones(1, np.float32),) * 2, (np.zeros(1), np.full(1, -np.inf))
    zero = tuple(z.astype(np.float32) for z in zero)
    for pair in ((one, zero), (zero, one), (zero, zero)):
        m, n = ext_add(*pair)
        assert (m[0], n[0]) == ((0, -np.inf) if pair[0] is pair[1] else (1, 1))
    for down, share in ((-126, 2.0**-126), (-127, 0.0), (-1e30, 0.0)):
        power = _extended.power_of_two(jnp.float32(down), jnp.float32(0))
        assert power == share
    with jax.enable_x64(True):
        for down, share in ((-1022, 2.0**-1022), (-1023, 0.0)):
            power = _extended.power_of_two(jnp.float64(down), jnp.float64(0))
            assert power == share


def test_ext_add_derivatives():
    a, b = ((np.float32([1.25]), np.float32([n])) for n in (3, 1))
    moved = jax.jacobian(lambda m: ext_add((m, a[1]), b)[0])(a[0])
    assert moved == 1
    moved = jax.jacobian(lambda m: ext_add(a, (m, b[1]))[0])(b[0])
    assert moved == 0.25


@pytest.mark.parametrize("classes", [1, 127, 128, 129, 389])
def test_any_number_of_blocks_gives_the_same_sum(classes, monkeypatch):
    """Blocks of 128; parts added in any grouping; lax.reduce by ext_add."""
    monkeypatch.setattr(_extended, "_BLOCK", 1)
    x = rows(3, classes) * 20
    found = {"blocks": _extended.ext_sum(jnp.asarray(x))}
    zero = (np.float32(0), np.float32(-np.inf))
    found["reduce"] = lax.reduce(ext_exp(x), zero, ext_add, (1,))
    parts = np.array_split(np.arange(classes), 3)
    partial = [lax.reduce(ext_exp(x[:, p]), zero, ext_add, (1,)) for p in parts]
    found["parts"] = functools.reduce(ext_add, partial)
    for what, (mantissa, exponent) in found.items():
        for i in range(3):
            want = functools.reduce(EXACT.add, map(exactly, x[i]))
            got = value((mantissa[i], exponent[i]))
            assert abs(EXACT.divide(got, want) - 1) < 1e-6, what
    assert len({tuple(np.asarray(n)) for _, n in found.values()}) == 1
    sharp = softmax(x, two_pass=True)
    assert_close(sharp, jax.nn.softmax(jnp.asarray(x)), rtol=1e-6)


def test_blocks_of_rows_where_nothing_lives_at_first(monkeypatch):
    monkeypatch.setattr(_extended, "_BLOCK", 1)
    x = rows(2, 300)
    x[0, :290] = -np.inf
    x[1] = -np.inf
    want = np.zeros_like(x)
    want[0, 290:] = jax.nn.softmax(x[0, 290:])
    assert_close(softmax(x, two_pass=True), want)


# --- memory ---------------------------------------------------------------------------


@each_form
def test_what_derivatives_store(name):
    """One array, the result or the input, and two numbers a row; more orders, more."""
    f, x, few = FORMS[name], jnp.asarray(rows(4, 1000)), 10

    def orders():
        def dot(g, x):
            return jnp.vdot(g(x), jnp.cos(jnp.arange(4000.0)).reshape(4, 1000))

        one = lambda x: jnp.sum(f(x) * 3)  # noqa: E731
        if name != "logsumexp":
            one = functools.partial(dot, f)
        two = functools.partial(dot, jax.grad(one))
        three = functools.partial(dot, jax.grad(two))
        return one, two, three

    large = [sum(size >= 1000 for size in stored(jax.jit(g), x)) for g in orders()]
    assert large[0] <= 1 + (name != "logsumexp")  # its weights, too
    assert large[1] <= 4
    assert large[2] <= 9
    assert all(s <= few for s in stored(f, x)[1:])


@pytest.mark.slow
@each_form
def test_no_second_array_of_the_inputs_size(name):
    """Beside the result: nothing for a value, the result for a gradient."""
    x = rows(8, 2**15)

    def temporary(f, *args):
        return jax.jit(f).lower(*args).compile().memory_analysis().temp_size_in_bytes

    f = FORMS[name]
    blocks = 4 * 2**20  # a few blocks of the two-pass sum
    small = 2**14 + ("two" in name) * blocks
    assert temporary(f, x) <= small
    pull = lambda x, c: jax.vjp(f, x)[1](c)  # noqa: E731
    y = jax.eval_shape(f, x)
    assert temporary(pull, x, np.zeros(y.shape, y.dtype)) <= x.nbytes + small


# --- meshes ---------------------------------------------------------------------------


def travelling(hlo: str) -> set[str]:
    """The shapes that collectives move."""
    ops = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
    found = re.findall(rf"= \(?(\w+\[[\d,]*\])[^=]* (?:{ops})(?:-start)?\(", hlo)
    return set(found)


def total(f, x, c, **kwargs):
    """A weighted sum of the results, and its gradient."""

    def loss(x):
        y = f(x, **kwargs)
        return jnp.sum(y * (c if y.ndim == x.ndim else jnp.ones_like(y))), y

    (_, y), g = jax.value_and_grad(loss, has_aux=True)(x)
    return y, g


@each_form
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_split_classes_on_a_mesh(name, kind):
    """Rows over "data", classes over "model": only numbers a row travel."""
    x = rows(8, 30)
    c = np.cos(np.arange(240, dtype=np.float32)).reshape(8, 30)
    f = jax.jit(functools.partial(total, FORMS[name]))
    want = f(x, c)
    with jax.set_mesh(mesh(kind)):
        args = [put(v, kind, "data", "model") for v in (x, c)]
        compiled = f.lower(*args).compile()
        assert_close(compiled(*args), want, rtol=5e-6)
    assert travelling(compiled.as_text()) <= {"f32[2]", "f32[2,1]"}


@each_form
def test_split_classes_in_shard_map(name):
    x = rows(8, 30)
    x[3] = -np.inf
    c = np.cos(np.arange(240, dtype=np.float32)).reshape(8, 30)
    want = jax.jit(functools.partial(total, FORMS[name]))(x, c)

    def local(x, c):
        return total(FORMS[name], x, c, axis_name="model")

    spec = P("data", "model")
    split = jax.shard_map(
        local,
        mesh=mesh(AxisType.Auto),
        in_specs=(spec, spec),
        out_specs=(P(*spec[: want[0].ndim]), spec),
    )
    compiled = jax.jit(split).lower(x, c).compile()
    y, g = compiled(x, c)
    assert_close(y, want[0], rtol=5e-6)
    assert_close(g, want[1], rtol=5e-6)
    assert travelling(compiled.as_text()) <= {"f32[2]", "f32[2,1]"}


@each_form
def test_split_classes_in_vmap_and_second_order(name):
    x = rows(5, 8)

    def hvp(f, x):
        def loss(x):
            return jnp.sum(jnp.square(jnp.where(f(x) > -jnp.inf, f(x), 0)))

        return jax.jvp(jax.grad(loss), (x,), (jnp.cos(x),))[1]

    f = functools.partial(FORMS[name], axis_name="model")
    parts = jnp.moveaxis(x.reshape(5, 2, 4), 1, 0)
    y = jax.vmap(f, axis_name="model")(parts)
    want = FORMS[name](x)
    if want.ndim == 1:
        assert_close(y, jnp.stack([want, want]))
        return
    assert_close(jnp.moveaxis(y, 0, 1).reshape(5, 8), want)
    split = jax.shard_map(
        functools.partial(hvp, f),
        mesh=jax.make_mesh((2,), ("model",), axis_types=(AxisType.Auto,)),
        in_specs=P(None, "model"),
        out_specs=P(None, "model"),
    )
    assert_close(
        jax.jit(split)(x), jax.jit(functools.partial(hvp, FORMS[name]))(x), 5e-6
    )


# --- kernels --------------------------------------------------------------------------


@each_form
@pytest.mark.parametrize("platform", ["tpu", "gpu"])
def test_kernels_by_name(name, platform):
    """Value and gradient, interpreted; a row where nothing lives, too."""
    interpreted = importlib.import_module(f"tests.kernels.test_{platform}").interpreted
    x = rows(2, 3, 200)
    x[1, 2] = -np.inf

    def both(implementation, x):
        f = functools.partial(FORMS[name], implementation=implementation)
        y, pull = jax.vjp(f, x)
        return y, pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    want = jax.jit(functools.partial(both, "xla"))(x)
    with interpreted():
        got = jax.jit(functools.partial(both, f"mosaic_{platform}"))(x)
        jax.block_until_ready(got)
    assert_close(got, want, rtol=5e-6)
