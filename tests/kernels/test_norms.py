"""The norms: derivatives, what they store, identities between them, edges, meshes."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxtricks.kernels import (
    add_crms_norm,
    add_layer_norm,
    add_rms_norm,
    crms_norm,
    layer_norm,
    rms_norm,
)
from tests.free.common import as_users_see_it, assert_close, assert_finite, mesh, put
from tests.inputs import rng
from tests.kernels.test_softmax import modes, stored, travelling

pytestmark = pytest.mark.kernels

NORMS = {"layer": layer_norm, "rms": rms_norm, "crms": crms_norm}
ADDS = {"layer": add_layer_norm, "rms": add_rms_norm, "crms": add_crms_norm}
each_kind = pytest.mark.parametrize("kind", NORMS)


def rows(*shape, seed=60):
    return rng(seed).normal(size=shape).astype(np.float32) * 2 + 0.5


def parameters(kind, d, seed=61):
    """scale, and a bias if the norm has one."""
    scale, bias = rng(seed).normal(size=(2, d)).astype(np.float32)
    return (1 + scale / 2, bias) if kind == "layer" else (1 + scale / 2,)


def plain(kind, x, scale=None, bias=None, eps=1e-6):
    """The formulas, differentiated as they stand."""
    whole = x
    if kind == "layer":
        x = whole = x - jnp.mean(x, axis=-1, keepdims=True)
    if kind == "crms":
        whole = jnp.concatenate([x, -jnp.sum(x, axis=-1, keepdims=True)], axis=-1)
    square = jnp.mean(jnp.square(whole), axis=-1, keepdims=True)
    y = x / jnp.sqrt(square + eps)
    y = y if scale is None else y * jnp.expand_dims(scale, range(x.ndim - 1))
    return y if bias is None else y + jnp.expand_dims(bias, range(x.ndim - 1))


def double(*arrays):
    return tuple(jnp.asarray(x, jnp.float64) for x in arrays)


# --- numbers --------------------------------------------------------------------------


@each_kind
def test_every_derivative_equals_that_of_the_plain_formula(kind):
    """In x, scale, bias and eps, up to the third and in every order of modes."""
    with jax.enable_x64(True):
        args = double(rows(4, 5), 0.1, *parameters(kind, 5))
        tangent = tuple(jnp.cos(3 * x) for x in args)

        def ours(form, x, eps, *params):
            return NORMS[kind](x, *params, eps=eps, implementation=form)

        def wanted(x, eps, *params):
            return plain(kind, x, *params, eps=eps)

        want = modes(wanted, args, tangent)
        for form in ("xla", "reference"):
            got = modes(functools.partial(ours, form), args, tangent)
            assert_close(got, want, rtol=1e-11, what=form)


@each_kind
def test_every_derivative_through_the_sum(kind):
    """The same of both results, in x and the residual."""
    with jax.enable_x64(True):
        args = double(rows(3, 5), rows(3, 5, seed=62), *parameters(kind, 5))
        tangent = tuple(jnp.cos(3 * x) for x in args)

        def ours(form, *args):
            return ADDS[kind](*args, eps=0.1, implementation=form)

        def wanted(x, residual, *params):
            summed = x + residual
            return plain(kind, summed, *params, eps=0.1), summed

        want = modes(wanted, args, tangent)
        for form in ("xla", "reference"):
            got = modes(functools.partial(ours, form), args, tangent)
            assert_close(got, want, rtol=1e-11, what=form)


def test_crms_norm_is_the_norm_of_the_whole_vector():
    """The last feature is minus the sum of the others; then the mean is 0."""
    x = rows(4, 6)
    whole = np.concatenate([x, -x.sum(axis=-1, keepdims=True)], axis=-1)
    for norm in (rms_norm, layer_norm):
        assert_close(crms_norm(x, eps=0.01), norm(whole, eps=0.01)[:, :-1])


def test_a_pre_ln_block_is_a_pre_rms_block_is_a_pre_crms_block():
    """The paper's equivalence: the stream at mean 0, then one feature fewer.

    Two blocks x + W2 tanh(W1 norm(x)). With W2's columns at mean 0, RMSNorm will do;
    without the last row of W2, and W1 less its last column, so will CRMSNorm.
    """
    r = rng(63)
    d, inner, blocks = 6, 8, 2
    x = r.normal(size=(3, d))
    w1 = r.normal(size=(blocks, d, inner))
    w2 = r.normal(size=(blocks, inner, d))

    def run(norm, x, w1, w2):
        for into, out in zip(w1, w2, strict=True):
            x = x + jnp.tanh(norm(x) @ into) @ out
        return norm(x)

    with jax.enable_x64(True):
        want = run(layer_norm, jnp.asarray(x), w1, w2)
        x = jnp.asarray(x - x.mean(axis=-1, keepdims=True))
        w2 = w2 - w2.mean(axis=-1, keepdims=True)
        assert_close(run(rms_norm, x, w1, w2), want, rtol=1e-12)
        w1 = w1[:, :-1] - w1[:, -1:]
        got = run(crms_norm, x[:, :-1], w1, w2[:, :, :-1])
        assert_close(got, want[:, :-1], rtol=1e-12)


def test_layer_norm_is_blind_to_shift_and_stretch():
    x = rows(4, 64)
    want = layer_norm(x, eps=0.0)
    assert_close(layer_norm(4 * x - 8, eps=0.0), want, rtol=5e-6)
    _, pull = jax.vjp(layer_norm, jnp.asarray(x))
    (g,) = pull(jnp.asarray(rows(4, 64, seed=64)))
    assert np.abs(np.sum(np.asarray(g), axis=-1)).max() < 2e-5
    assert np.abs(np.sum(np.asarray(g) * x, axis=-1)).max() < 1e-4


def test_rms_norm_without_a_scale_has_a_mean_square_of_1():
    y = np.asarray(rms_norm(rows(4, 64), eps=0.0), np.float64)
    assert_close(np.mean(y * y, axis=-1), np.ones(4))


# --- edges ----------------------------------------------------------------------------


def derivatives(f, *args):
    """Value, gradient and HVP of a weighted sum."""

    def loss(*args):
        y = f(*args)
        return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    grad = jax.grad(loss, tuple(range(len(args))))
    g, hvp = jax.jvp(grad, args, tuple(map(jnp.ones_like, args)))
    return f(*args), g, hvp


@each_kind
@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_a_row_of_zeros(kind, eps):
    f = functools.partial(NORMS[kind], eps=eps)
    x = np.zeros((2, 5), np.float32)
    y, g, hvp = derivatives(f, x, *parameters(kind, 5))
    bias = parameters(kind, 5)[1:]
    assert (np.asarray(y) == (bias[0] if bias else 0)).all()
    assert_finite((g, hvp))
    if eps == 0:
        assert (np.asarray(g[0]) == 0).all()


@pytest.mark.parametrize("level", [3.0, 1e4, -7.5])
def test_equal_features_give_the_bias(level):
    """8 of them, so that their mean is exact."""
    scale, bias = parameters("layer", 8)
    x = np.full((2, 8), level, np.float32)
    for eps in (0.0, 1e-6):
        f = functools.partial(layer_norm, eps=eps)
        y, g, hvp = derivatives(f, x, scale, bias)
        assert (np.asarray(y) == bias).all()
        assert_finite((g, hvp))


@each_kind
def test_one_feature(kind):
    x = np.array([[3.0], [-2.0], [1e4]], np.float32)
    y, g, hvp = derivatives(functools.partial(NORMS[kind], eps=0.0), x)
    assert_finite((g, hvp))
    # Of layer norm nothing is left; of crms, (x, -x) / |x|.
    assert_close(y, np.zeros_like(x) if kind == "layer" else np.sign(x))


@each_kind
def test_sizes(kind):
    """1e18 is exact; what f32 cannot square is 0; nothing is NaN."""
    params = parameters(kind, 5)
    x = rows(3, 5)
    want = NORMS[kind](x, *params, eps=0.0)
    for size, close in ((1e18, True), (1e4, True), (1e-18, True), (1e30, False)):
        f = functools.partial(NORMS[kind], eps=0.0)
        y, g, hvp = derivatives(f, x * np.float32(size), *params)
        if close:
            assert_close(y, want, rtol=5e-6, what=f"{size}")
        assert_finite((y, g, hvp), f"{size}")


@each_kind
def test_empty(kind):
    params = parameters(kind, 5)
    y, g, _ = derivatives(NORMS[kind], np.zeros((0, 5), np.float32), *params)
    assert y.shape == (0, 5)
    assert all((np.asarray(v) == 0).all() for v in g[1:])
    assert NORMS[kind](np.zeros((2, 0), np.float32)).shape == (2, 0)


@each_kind
def test_types(kind):
    """y as x, the sum as the wider of the two, gradients as what they are of."""
    low, wide = jnp.bfloat16, jnp.float32
    params = parameters(kind, 6)
    with jax.numpy_dtype_promotion("strict"):
        x = jnp.asarray(rows(4, 6), low)
        y, pull = jax.vjp(NORMS[kind], x, *params)
        assert y.dtype == low
        assert [g.dtype for g in pull(y)] == [low, *(wide,) * len(params)]
        residual = jnp.asarray(rows(4, 6, seed=65), wide)
        (y, summed), pull = jax.vjp(ADDS[kind], x, residual, *params)
        assert (y.dtype, summed.dtype) == (low, wide)
        assert [g.dtype for g in pull((y, summed))][:2] == [low, wide]
    assert_close(summed, np.asarray(x, np.float32) + np.asarray(residual))


def test_gradients_of_low_precision_parameters_are_summed_in_f32():
    """4096 rows that all pull the same way: a bf16 sum would stall at 256."""
    x = np.tile(np.array([1, -1], np.float32), (4096, 1))
    one, none = jnp.ones(2, jnp.bfloat16), jnp.zeros(2, jnp.bfloat16)

    def total(scale, bias):
        y = layer_norm(x, scale, bias, eps=0.0)
        return jnp.sum(y * np.array([1, -1], np.float32)[None])

    dscale, dbias = jax.grad(total, (0, 1))(one, none)
    assert (np.asarray(dscale, np.float32) == 4096).all()
    assert (np.asarray(dbias, np.float32) == [4096, -4096]).all()


@each_kind
def test_vmap(kind):
    """Over rows, and over parameters too."""
    x, params = rows(3, 4, 5), parameters(kind, 5)
    f = NORMS[kind]

    def grad(x, *params):
        return jax.grad(lambda *a: jnp.sum(jnp.sin(f(*a))), (0, 1))(x, *params)

    stacked = tuple(np.stack([p, 2 * p, p * p]) for p in params)
    for g in (f, grad):
        got = jax.vmap(g)(x, *stacked)
        for i in range(3):
            want = g(x[i], *(p[i] for p in stacked))
            picked = jax.tree.map(lambda v, i=i: v[i], got)
            assert_close(picked, want, rtol=5e-6)


def test_mistakes():
    x, scale = rows(2, 5), np.ones(5, np.float32)
    for f, args, kwargs, message in (
        (layer_norm, (x, scale[:4]), {}, r"scale: wanted shape \(5,\), came \(4,\)"),
        (layer_norm, (x, scale, scale[:1]), {}, r"bias: wanted shape \(5,\)"),
        (add_rms_norm, (x, x[:1]), {}, r"residual: wanted shape \(2, 5\)"),
        (rms_norm, (x,), {"eps": -1e-6}, "eps: wanted >= 0"),
        (crms_norm, (x,), {"implementation": "triton"}, "implementation: wanted one"),
    ):
        with as_users_see_it(), pytest.raises(ValueError, match=message):
            f(*args, **kwargs)


# --- memory ---------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("with_residual", [False, True])
def test_what_derivatives_store(kind, with_residual):
    """x, or the sum, and numbers a row; at higher orders their tangents too."""
    x, params = jnp.asarray(rows(8, 1000)), parameters(kind, 1000)
    added, given = ADDS[kind], (x, jnp.cos(x)) if with_residual else (x,)
    stack = stored(jax.jit(added if with_residual else NORMS[kind]), *given, *params)
    assert stack.count(8000) == 1
    assert stack.count(1000) <= len(params) + 2

    def f(x):
        if with_residual:
            return added(2 * x, x, *params)[0]
        return NORMS[kind](x, *params)

    def dot(g, x):
        return jnp.vdot(g(x), jnp.cos(jnp.arange(8000.0)).reshape(8, 1000))

    two = functools.partial(dot, jax.grad(functools.partial(dot, f)))
    three = functools.partial(dot, jax.grad(two))
    assert sum(size >= 8000 for size in stored(jax.jit(two), x)) <= 4
    assert sum(size >= 8000 for size in stored(jax.jit(three), x)) <= 9


# --- meshes ---------------------------------------------------------------------------


def total(f, x, c, *params):
    """The gradient of a weighted sum."""

    def loss(x, *params):
        return jnp.sum(f(x, *params) * c)

    return jax.grad(loss, tuple(range(1 + len(params))))(x, *params)


@each_kind
@pytest.mark.parametrize("split", [None, "model"])
@pytest.mark.parametrize("axes", [AxisType.Auto, AxisType.Explicit])
def test_rows_on_a_mesh_stay_where_they_are(kind, split, axes):
    """Only sums over rows, and over split features sums of rows, travel."""
    x, c, params = rows(8, 6), np.cos(rows(8, 6)), parameters(kind, 6)
    f = jax.jit(functools.partial(total, NORMS[kind]))
    want = f(x, c, *params)
    with jax.set_mesh(mesh(axes)):
        args = [put(v, axes, "data", split) for v in (x, c)]
        args += [put(v, axes, split) for v in params]
        compiled = f.lower(*args).compile()
        assert_close(compiled(*args), want, rtol=5e-6)
    of_rows = {"f32[2]", "f32[2,1]"} if split else set()
    features = {"f32[3]"} if split else {"f32[6]"}
    assert travelling(compiled.as_text()) <= of_rows | features


@each_kind
def test_in_shard_map_and_pmap(kind):
    """Local rows, the same parameters everywhere; their gradients are summed once."""
    x, c, params = rows(8, 6), np.cos(rows(8, 6)), parameters(kind, 6)
    grad = functools.partial(total, NORMS[kind])
    want = jax.jit(grad)(x, c, *params)
    same = (P(),) * len(params)
    split = jax.shard_map(
        grad,
        mesh=mesh(AxisType.Auto),
        in_specs=(P("data"), P("data"), *same),
        out_specs=(P("data"), *same),
    )
    compiled = jax.jit(split).lower(x, c, *params).compile()
    assert_close(compiled(x, c, *params), want, rtol=5e-6)
    assert travelling(compiled.as_text()) == {"f32[6]"}
    x, c = (v.reshape(4, 2, 6) for v in (x, c))
    axes = (0, 0, *(None,) * len(params))
    dx, *rest = jax.pmap(grad, "data", in_axes=axes)(x, c, *params)
    assert_close(dx.reshape(8, 6), want[0], rtol=5e-6)
    assert_close([np.sum(g, axis=0) for g in rest], list(want[1:]), rtol=5e-6)


# --- kernels --------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("platform", ["tpu", "gpu"])
@pytest.mark.parametrize("with_residual", [False, True])
def test_kernels_by_name(kind, platform, with_residual):
    """Value and gradient, each by its kernel, interpreted."""
    interpreted = importlib.import_module(f"tests.kernels.test_{platform}").interpreted
    norm, given = NORMS[kind], (rows(2, 3, 200),)
    if with_residual:
        norm, given = ADDS[kind], (*given, rows(2, 3, 200, seed=62))

    def both(implementation, *args):
        y, pull = jax.vjp(functools.partial(norm, implementation=implementation), *args)
        return y, pull(jax.tree.map(jnp.cos, y))

    args = (*given, *parameters(kind, 200))
    want = jax.jit(functools.partial(both, "xla"))(*args)
    with interpreted():
        got = jax.jit(functools.partial(both, f"mosaic_{platform}"))(*args)
        jax.block_until_ready(got)
    assert_close(got, want, rtol=5e-6)
