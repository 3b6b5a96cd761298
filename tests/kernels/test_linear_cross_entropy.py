"""linear_cross_entropy: every derivative, and what it holds on which device."""

import functools
import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxtricks.kernels import linear_cross_entropy
from jaxtricks.kernels._by_chunks import COPIES, chunk_count
from tests.free.common import as_users_see_it, assert_close, assert_finite
from tests.inputs import rng

pytestmark = pytest.mark.kernels

MB = 2**20
CHUNK_MB = MB / COPIES  # of a workspace_mb


def data(tokens, features, classes, seed=40):
    r = rng(seed)
    hidden = r.normal(size=(tokens, features)).astype(np.float32)
    weight = (r.normal(size=(features, classes)) / features**0.5).astype(np.float32)
    return hidden, weight, r.integers(0, classes, size=tokens).astype(np.int32)


def reference(hidden, weight, labels, *, bias, softcap, label_smoothing, z_loss):
    """The formula on all logits."""
    logits = softcap * jnp.tanh((hidden @ weight + bias[None, :]) / softcap)
    log_p = jax.nn.log_softmax(logits)
    nll = -jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
    even = -jnp.mean(log_p, axis=-1)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    return (1 - label_smoothing) * nll + label_smoothing * even + z_loss * log_z**2


def modes(loss, tangent):
    """Name -> function of the floats that differentiates the mean squared loss."""

    def f(*floats):
        return jnp.mean(jnp.square(loss(*floats)))

    argnums = tuple(range(len(tangent)))
    grad = jax.grad(f, argnums)

    def slope(g, *floats):
        return sum(jnp.vdot(x, t) for x, t in zip(g(*floats), tangent, strict=True))

    def forward(g):
        return lambda *floats: jax.jvp(g, floats, tangent)[1]

    def reverse(g):
        return jax.grad(functools.partial(slope, g), argnums)

    return {
        "value": loss,
        "gradient": grad,
        "jvp": forward(f),
        "forward over reverse": forward(grad),
        "reverse over reverse": reverse(grad),
        "forward over reverse over reverse": forward(reverse(grad)),
    }


# --- numbers --------------------------------------------------------------------------


@pytest.mark.parametrize("tokens_in_a_chunk", [3, 7])
def test_every_derivative_equals_the_reference(tokens_in_a_chunk):
    """7 tokens, in chunks of 3 (the last is filled up) and at once."""
    hidden, weight, labels = data(7, 5, 11)
    floats = (hidden, weight, np.cos(np.arange(11)), 3.0, 0.1, 0.01)
    with jax.enable_x64(True):
        floats = tuple(jnp.asarray(x, jnp.float64) for x in floats)
        tangent = tuple(jnp.cos(3 * x) for x in floats)

        def arguments(hidden, weight, bias, softcap, label_smoothing, z_loss):
            names = ("bias", "softcap", "label_smoothing", "z_loss")
            values = (bias, softcap, label_smoothing, z_loss)
            return (hidden, weight, labels), dict(zip(names, values, strict=True))

        def ours(*floats):
            args, kwargs = arguments(*floats)
            workspace = tokens_in_a_chunk * 11 * 8 / CHUNK_MB
            return linear_cross_entropy(*args, workspace_mb=workspace, **kwargs)

        def wanted(*floats):
            args, kwargs = arguments(*floats)
            return reference(*args, **kwargs)

        want = modes(wanted, tangent)
        for what, f in modes(ours, tangent).items():
            got = jax.jit(f)(*floats)
            assert_close(got, jax.jit(want[what])(*floats), rtol=1e-12, what=what)


def test_any_number_of_chunks_gives_the_same_loss():
    hidden, weight, labels = data(12, 5, 11)
    want = linear_cross_entropy(hidden, weight, labels)
    for tokens in (0, 1, 2, 5, 7, 12):
        workspace = (tokens + 0.5) * 11 * 4 / CHUNK_MB
        for n in (12, 11):
            got = linear_cross_entropy(
                hidden[:n], weight, labels[:n], workspace_mb=workspace
            )
            assert_close(got, want[:n], what=f"{n} tokens, {tokens} in a chunk")


def test_vmap_over_everything():
    hidden, weight, labels = data(6, 5, 11)
    both = (np.stack([hidden, 2 * hidden]), np.stack([weight, weight**2]))
    labels = np.stack([labels, labels[::-1]])
    f = functools.partial(linear_cross_entropy, workspace_mb=2 * 11 * 4 / CHUNK_MB)

    def total(hidden, weight, labels):
        return jnp.sum(jnp.square(f(hidden, weight, labels)))

    grad = jax.jit(jax.grad(total, argnums=(0, 1)))
    mapped = jax.jit(jax.vmap(grad))(*both, labels)
    for i in range(2):
        want = grad(both[0][i], both[1][i], labels[i])
        assert_close(jax.tree.map(lambda x, i=i: x[i], mapped), want)


def test_bf16_gradients_are_summed_in_f32():
    """4096 tokens that all pull the same way: a bf16 sum over 64 chunks would stall."""
    hidden, weight, _ = data(4096, 8, 16)
    hidden, labels = np.abs(hidden), np.zeros(4096, np.int32)
    low = [jnp.asarray(x, jnp.bfloat16) for x in (hidden, weight)]

    def total(hidden, weight):
        workspace = 64 * 16 * 4 / CHUNK_MB
        loss = linear_cross_entropy(hidden, weight, labels, workspace_mb=workspace)
        return jnp.sum(loss)

    got = jax.jit(jax.grad(total, argnums=(0, 1)))(*low)
    hidden, weight = (np.asarray(x, np.float64) for x in low)
    logits = hidden @ weight
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    p[:, 0] -= 1
    for g, want in zip(got, (p @ weight.T, hidden.T @ p), strict=True):
        assert g.dtype == jnp.bfloat16
        # Rounded once, at the end: so most are the bf16 next to the truth.
        assert np.mean(g == want.astype(g.dtype)) > 0.99
        g = np.asarray(g, np.float64)
        np.testing.assert_allclose(g, want, rtol=2**-8, atol=1e-5 * np.abs(want).max())


def test_a_class_ruled_out_is_a_class_that_is_not_there():
    hidden, weight, labels = data(9, 5, 11)
    labels, bias = labels % 10, np.sin(np.arange(11)).astype(np.float32)
    bias[10] = -np.inf
    options = {"label_smoothing": 0.2, "z_loss": 0.1, "softcap": 2.0}
    options["workspace_mb"] = 2 * 11 * 4 / CHUNK_MB

    def run(classes):
        def f(hidden, weight, bias):
            return linear_cross_entropy(
                hidden, weight[:, :classes], labels, bias=bias[:classes], **options
            )

        tangent = (jnp.cos(hidden), jnp.cos(weight), jnp.ones(11))
        every = modes(f, tangent)
        some = ("value", "gradient", "forward over reverse")
        return {k: jax.jit(every[k])(hidden, weight, bias) for k in some}

    assert_close(run(11), run(10), rtol=3e-6)


def test_a_label_ruled_out_costs_infinity_and_pulls_nothing():
    hidden, weight, labels = data(4, 5, 11)
    labels[:] = [3, 3, 0, 1]
    bias = np.where(np.arange(11) == 3, -np.inf, 0).astype(np.float32)
    for smoothing in (0.0, 0.3, 1.0):
        f = functools.partial(
            linear_cross_entropy, labels=labels, bias=bias, label_smoothing=smoothing
        )
        grads, hvp, loss = jax.jvp(
            jax.grad(
                lambda h, f=f: (jnp.sum(f(h, weight)), f(h, weight)), has_aux=True
            ),
            (hidden,),
            (np.ones_like(hidden),),
            has_aux=True,
        )
        assert np.isinf(loss[:2]).all()
        assert_finite((loss[2:], grads, hvp))
        assert (np.asarray(grads)[:2] == 0).all()


def test_unsigned_labels_strict_promotion_and_one_chunk():
    hidden, weight, labels = data(4, 5, 11)
    want = linear_cross_entropy(hidden, weight, labels)
    with jax.numpy_dtype_promotion("strict"):
        low = [jnp.asarray(x, jnp.bfloat16) for x in (hidden, weight)]
        got = linear_cross_entropy(*low, labels, softcap=30.0, bias=jnp.zeros(11))
        assert got.dtype == jnp.float32
        got = linear_cross_entropy(
            hidden, weight, labels.astype(np.uint8), workspace_mb=np.inf
        )
    assert_close(got, want)


def test_mistakes():
    hidden, weight, labels = data(4, 5, 11)
    for args, kwargs, message in (
        ((hidden, weight.T, labels), {}, r"weight: wanted .* came \(11, 5\)"),
        ((hidden, weight[0], labels), {}, r"weight: wanted .* came \(11,\)"),
        ((hidden, weight, labels[:3]), {}, r"labels: .*\(4,\).* came int32\[3\]"),
        ((hidden, weight, hidden[:, 0]), {}, "labels: wanted integers .* float32"),
        ((hidden, weight, labels), {"bias": np.ones(5)}, r"bias: .*\(11,\), came \(5"),
        (
            (hidden, weight, labels),
            {"implementation": "triton"},
            "wanted one of 'auto'",
        ),
    ):
        with as_users_see_it(), pytest.raises(ValueError, match=message):
            linear_cross_entropy(*args, **kwargs)


def test_one_program_for_all_platforms():
    """Nothing asks which device there is: cpu, tpu and cuda are lowered together."""
    hidden, weight, labels = data(8, 4, 16)
    f = jax.jit(jax.grad(lambda h, w: jnp.sum(linear_cross_entropy(h, w, labels))))
    exported = jax.export.export(f, platforms=("cpu", "tpu", "cuda"))(hidden, weight)
    assert_close(exported.call(hidden, weight), f(hidden, weight))


# --- chunks ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "bytes_each", "workspace_mb", "copies", "backend", "chunks"),
    [
        # What fits by workspace_mb is 256 tokens at once.
        (1024, 1024, 1, 4, "cpu", 4),
        (1025, 1024, 1, 4, "cpu", 5),
        (1000, 1024, 1, 4, "cpu", 4),
        (257, 1024, 1, 4, "cpu", 2),
        (1022, 1024, 1, 4, "cpu", 7),  # comes out even; 4, 5 and 6 do not
        (909, 1024, 1, 4, "cpu", 4),  # 9 would, but is more than twice as many
        (256, 1024, 0.5, 4, "cpu", 2),
        (8, 2**30, 1, 2, "cpu", 8),  # not one fits
        (0, 1024, 1, 4, "cpu", 1),
        (1024, 1024, np.inf, 4, "gpu", 1),
        # By default 32 MiB, or 64 tokens of more classes; 256 MiB and 1024 elsewhere.
        (16384, 1024, None, 2, "cpu", 1),
        (16385, 1024, None, 2, "cpu", 2),
        (650, 2**20, None, 2, "cpu", 13),  # at least 11
        (64, 2**20, None, 2, "cpu", 1),
        (131072, 1024, None, 2, "gpu", 1),
        (131073, 1024, None, 2, "tpu", 3),  # at least 2, which is no divisor
        (2050, 2**20, None, 2, "gpu", 5),  # at least 3
        (2050, 2**20, None, 4, "gpu", 5),
    ],
)
def test_how_many_chunks(
    monkeypatch, tokens, bytes_each, workspace_mb, copies, backend, chunks
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert chunk_count(tokens, bytes_each, workspace_mb, copies) == chunks


@pytest.mark.parametrize("options", [{}, {"softcap": 30.0}, {"label_smoothing": 0.1}])
def test_a_chunk_holds_what_is_counted(options):
    """16 tokens of 64 classes, in f32, twice or four times."""
    hidden, weight, labels = data(32, 5, 64)
    loss = functools.partial(linear_cross_entropy, workspace_mb=2**-7, **options)
    jaxpr = jax.make_jaxpr(loss)(hidden, weight, labels)
    assert re.findall(r"length=(\d+)", str(jaxpr)) == ["4" if options else "2"]


DOT = r"dot_general .*: \(tensor<(.*)>, tensor<(.*)>\)"
SHORT = {"bfloat16": "bf16", "float16": "f16", "float32": "f32", "float64": "f64"}


@pytest.mark.parametrize(
    ("hidden_dtype", "weight_dtype", "products"),
    [
        ("bfloat16", "bfloat16", "bfloat16"),
        ("float16", "float16", "float16"),
        ("bfloat16", "float16", "float32"),
        ("bfloat16", "float32", "float32"),
        ("float32", "float32", "float32"),
        ("float32", "float64", "float64"),
        ("float64", "float64", "float64"),
    ],
)
def test_what_is_multiplied(hidden_dtype, weight_dtype, products):
    """Low precision multiplies in itself, which is what its units are for."""
    with jax.enable_x64(True):
        hidden, weight, labels = data(8, 5, 11)
        inputs = (hidden.astype(hidden_dtype), weight.astype(weight_dtype), labels)
        lowered = jax.jit(linear_cross_entropy).lower(*map(jnp.asarray, inputs))
    name = SHORT[products]
    assert re.findall(DOT, lowered.as_text()) == [(f"8x5x{name}", f"5x11x{name}")]


@pytest.mark.parametrize(
    ("dtype", "platform", "products"),
    [
        ("bfloat16", "cpu", "f32"),
        ("bfloat16", "cuda", "bf16"),
        ("bfloat16", "tpu", "bf16"),
        ("float16", "cuda", "f32"),  # a cotangent of 1e-8 would be 0
        ("float32", "cuda", "f32"),
    ],
)
def test_what_a_gradient_multiplies(dtype, platform, products):
    hidden, weight, labels = data(8, 5, 11)

    def total(hidden, weight):
        return jnp.sum(linear_cross_entropy(hidden, weight, labels))

    inputs = (hidden.astype(dtype), weight.astype(dtype))
    grad = jax.jit(jax.grad(total, (0, 1)))
    text = jax.export.export(grad, platforms=[platform])(*inputs).mlir_module()
    of_gradient = [
        two for two in re.findall(DOT, text) if any("8x11" in x for x in two)
    ]
    assert len(of_gradient) == 2
    dtypes = {operand.rpartition("x")[2] for two in of_gradient for operand in two}
    assert dtypes == {products}


# --- memory ---------------------------------------------------------------------------

CHUNKS_HELD = {
    "value": 4,
    "gradient": 4,
    "jvp": 8,
    "forward over reverse": 8,
    "reverse over reverse": 8,
    "forward over reverse over reverse": 15,
}


def temporary(f, *args) -> int:
    """Bytes that the compiled function needs beside its arguments and results."""
    return jax.jit(f).lower(*args).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.slow
@pytest.mark.parametrize("inside_a_scan", [False, True])
def test_no_derivative_holds_more_than_its_chunks(inside_a_scan):
    """4096 tokens by 4096 classes are 64 MiB of logits; the chunks, 2 MiB."""
    hidden, weight, labels = data(4096, 32, 4096)
    tangent = (np.cos(hidden), np.cos(weight))

    def loss(hidden, weight, workspace_mb):
        f = functools.partial(
            linear_cross_entropy,
            labels=labels,
            label_smoothing=0.1,
            z_loss=0.1,
            softcap=9.0,
            workspace_mb=workspace_mb,
        )
        if not inside_a_scan:
            return f(hidden, weight)
        step = lambda carry, _: (jnp.sin(carry), f(hidden * carry, weight))  # noqa: E731
        return lax.scan(step, 1.0, length=2)[1][1]

    chunked = modes(functools.partial(loss, workspace_mb=2 * COPIES), tangent)
    whole = modes(functools.partial(loss, workspace_mb=np.inf), tangent)
    # Chunks aside: the hidden states in chunks, the weight in f32, and their tangents.
    rest = 12 * (hidden.nbytes + weight.nbytes)
    for what, chunks in CHUNKS_HELD.items():
        held = temporary(chunked[what], hidden, weight)
        assert held <= chunks * 2 * MB + rest, f"{what}: {held / MB:.1f} MiB"
    assert temporary(whole["gradient"], hidden, weight) > 64 * MB


def dense(hidden, weight, labels):
    return optax.softmax_cross_entropy_with_integer_labels(hidden @ weight, labels)


def held(loss, mode, tokens, features, classes) -> int:
    """Temporary bytes of the mean loss and its gradient, or of its HVP."""
    floats = [
        jax.ShapeDtypeStruct(shape, np.float32)
        for shape in ((tokens, features), (features, classes))
    ]
    labels = np.zeros(tokens, np.int32)

    def mean(hidden, weight):
        return jnp.mean(loss(hidden, weight, labels))

    gradient = jax.value_and_grad(mean, argnums=(0, 1))
    if mode == "gradient":
        return temporary(gradient, *floats)
    grad = jax.grad(mean, argnums=(0, 1))
    return temporary(lambda *x: jax.jvp(grad, x, x)[1], *floats)


@pytest.mark.parametrize("mode", ["gradient", "hvp"])
def test_the_default_takes_a_seventh_of_the_memory(mode):
    """Gradients and HVPs of 2048 tokens by 32768 classes; nothing runs."""
    sizes = (2048, 256, 32768)
    ours, logits = (held(loss, mode, *sizes) for loss in (linear_cross_entropy, dense))
    assert logits > 2048 * 32768 * 4
    assert ours <= logits / 7, f"{ours / MB:.0f} of {logits / MB:.0f} MiB"


@pytest.mark.parametrize("mode", ["gradient", "hvp"])
def test_more_classes_cost_what_the_weight_costs(mode):
    """Four times the classes in the same workspace."""
    loss = functools.partial(linear_cross_entropy, workspace_mb=16)
    few, many = (held(loss, mode, 1024, 64, classes) for classes in (4096, 16384))
    buffers = {"gradient": 2, "hvp": 4}[mode]
    assert many - few <= buffers * 64 * (16384 - 4096) * 4 + MB


def test_a_frozen_weight_costs_no_product():
    """A gradient that nobody asks for is not computed."""
    hidden, weight, labels = data(8, 5, 11)

    def total(hidden, weight):
        return jnp.sum(linear_cross_entropy(hidden, weight, labels))

    def products(argnums):
        f = jax.jit(jax.grad(total, argnums))
        hlo = f.lower(hidden, weight).compile().as_text()
        return len(re.findall(r"= .* dot\(", hlo))

    # Of one chunk the compiler keeps the logits.
    assert products(0) == 2
    assert products((0, 1)) == 3
