"""Token statistics and the losses on them: every derivative, edge and mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtricks.kernels import (
    LossAndGrads,
    linear_cross_entropy,
    linear_cross_entropy_value_and_grad,
    linear_kl,
    linear_logprob,
    token_statistics,
)
from jaxtricks.kernels._by_chunks import COPIES
from tests import oracles as oracle
from tests.free.common import (
    as_users_see_it,
    assert_close,
    assert_finite,
    assert_no_nan,
    cast_floats,
)
from tests.inputs import rng
from tests.kernels.test_linear_cross_entropy import modes

pytestmark = pytest.mark.kernels

N, D, V = 7, 4, 11  # primes, so that nothing comes out even
STATS = ("total", "mean", "square", "argmax")
SMOOTH = ("lse", "target", "total", "mean", "square")
SMOOTH += ("teacher_lse", "teacher_gap", "student_gap")
DIRECTIONS = ("forward", "reverse", "jsd")
SECOND = ("value", "gradient", "forward over reverse")


def workspace(tokens, classes=V, itemsize=4):
    """The workspace_mb of so many tokens in a chunk."""
    return COPIES * tokens * classes * itemsize / 2**20


def data(tokens=N, features=D, classes=V, teacher_features=3, seed=60):
    """hidden, weight, teacher's hidden, teacher's weight, and labels."""
    r = rng(seed)
    floats = (
        r.normal(size=(tokens, features)),
        r.normal(size=(features, classes)),
        r.normal(size=(tokens, teacher_features)),
        r.normal(size=(teacher_features, classes)),
    )
    labels = r.integers(0, classes, size=tokens).astype(np.int32)
    return (*(x.astype(np.float32) for x in floats), labels)


def biases(*ruled_out, classes=V):
    """Of the student and of the teacher; -inf at the classes of either's tuple."""
    iota = np.arange(classes)
    both = np.cos(iota).astype(np.float32), np.sin(iota).astype(np.float32)
    ruled_out = ruled_out or ((), ())
    return [
        np.where(np.isin(iota, out), -np.inf, b).astype(np.float32)
        for b, out in zip(both, ruled_out, strict=True)
    ]


# --- the same by all logits, where every class is possible ----------------------------


def dense_logits(hidden, weight, bias, softcap, scale):
    z = hidden @ weight + bias[None, :]
    return scale * (z if softcap is None else softcap * jnp.tanh(z / softcap))


def dense(z, t, labels):
    """{field: [tokens]} of the smooth fields."""
    p, q = jax.nn.softmax(z), jax.nn.softmax(t)
    return {
        "lse": jax.nn.logsumexp(z, axis=-1),
        "target": jnp.take_along_axis(z, labels[:, None], axis=1)[:, 0],
        "total": jnp.sum(z, axis=-1),
        "mean": jnp.sum(p * z, axis=-1),
        "square": jax.nn.logsumexp(2 * z, axis=-1),
        "teacher_lse": jax.nn.logsumexp(t, axis=-1),
        "teacher_gap": jnp.sum(q * (z - t), axis=-1),
        "student_gap": jnp.sum(p * (z - t), axis=-1),
    }


def dense_divergence(z, t, direction, beta=0.5):
    p, q = jax.nn.softmax(z), jax.nn.softmax(t)
    kl = lambda a, b: jnp.sum(a * (jnp.log(a) - jnp.log(b)), axis=-1)  # noqa: E731
    if direction == "jsd":
        m = beta * q + (1 - beta) * p
        return beta * kl(q, m) + (1 - beta) * kl(p, m)
    return kl(q, p) if direction == "forward" else kl(p, q)


def dense_cross_entropy(z, labels, class_weights, label_smoothing, z_loss):
    log_p = jax.nn.log_softmax(z)
    each = -class_weights[None, :] * log_p
    hit = jnp.take_along_axis(each, labels[:, None], axis=1)[:, 0]
    even, lse = jnp.mean(each, axis=-1), jax.nn.logsumexp(z, axis=-1)
    return (1 - label_smoothing) * hit + label_smoothing * even + z_loss * lse**2


def compare(ours, wanted, floats, some=None, rtol=1e-11):
    """Every derivative, or some, of two functions of floats, in f64."""
    with jax.enable_x64(True):
        floats = tuple(jnp.asarray(x, jnp.float64) for x in floats)
        tangent = tuple(jnp.cos(3 * x) for x in floats)
        want = modes(wanted, tangent)
        for what, f in modes(ours, tangent).items():
            if some is None or what in some:
                got = jax.jit(f)(*floats)
                assert_close(got, jax.jit(want[what])(*floats), rtol=rtol, what=what)


@pytest.mark.parametrize(
    ("tokens", "softcap", "some"),
    [
        (3, 3.0, SECOND),
        (7, None, SECOND[::2]),
        pytest.param(3, 3.0, None, marks=pytest.mark.slow),
    ],
)
def test_every_derivative_of_every_statistic(tokens, softcap, some):
    """7 tokens, in chunks of 3 (the last is filled up) and at once."""
    *floats, labels = data()
    floats = (*floats, *biases(), 0.8, *(() if softcap is None else (softcap,)))

    def ours(h, w, th, tw, b, tb, scale, cap=None):
        token = token_statistics(
            *(h, w, labels),
            teacher=(th, tw, tb),
            bias=b,
            scale=scale,
            softcap=cap,
            stats=STATS,
            workspace_mb=workspace(tokens, itemsize=8),
        )
        return jnp.stack([getattr(token, name) for name in SMOOTH])

    def wanted(h, w, th, tw, b, tb, scale, cap=None):
        z, t = dense_logits(h, w, b, cap, scale), dense_logits(th, tw, tb, cap, scale)
        return jnp.stack([dense(z, t, labels)[name] for name in SMOOTH])

    compare(ours, wanted, floats, some)


@pytest.mark.parametrize(
    ("direction", "some"),
    [
        *((direction, SECOND) for direction in DIRECTIONS),
        pytest.param("jsd", None, marks=pytest.mark.slow),
    ],
)
def test_every_derivative_of_a_divergence(direction, some):
    *floats, _ = data()
    floats = (*floats, *biases(), 3.0, 1.4, 0.3)

    def ours(h, w, th, tw, b, tb, softcap, temperature, beta):
        return linear_kl(
            *(h, w, th, tw),
            direction=direction,
            beta=beta,
            temperature=temperature,
            bias=b,
            teacher_bias=tb,
            softcap=softcap,
            workspace_mb=workspace(3, itemsize=8),
        )

    def wanted(h, w, th, tw, b, tb, softcap, temperature, beta):
        z = dense_logits(h, w, b, softcap, 1 / temperature)
        t = dense_logits(th, tw, tb, softcap, 1 / temperature)
        return dense_divergence(z, t, direction, beta)

    # KLs are linear in the statistics, all of whose derivatives have been seen.
    compare(ours, wanted, floats, some)


def test_derivatives_of_log_probability_and_entropy():
    hidden, weight, _, _, labels = data()
    floats = (hidden, weight, biases()[0], 3.0, 1.4)

    def ours(h, w, b, softcap, temperature):
        token = linear_logprob(
            *(h, w, labels),
            bias=b,
            softcap=softcap,
            temperature=temperature,
            workspace_mb=workspace(3, itemsize=8),
        )
        return jnp.stack(token)

    def wanted(h, w, b, softcap, temperature):
        log_p = jax.nn.log_softmax(dense_logits(h, w, b, softcap, 1 / temperature))
        found = jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
        return jnp.stack([found, -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)])

    compare(ours, wanted, floats, SECOND)


WEIGHTED = ("bias", "softcap", "scale", "class_weights", "label_smoothing", "z_loss")


def weighted_case():
    """(hidden, weight), and values of WEIGHTED."""
    class_weights = rng(61).gamma(2.0, size=V).astype(np.float32)
    return data()[:2], (biases()[0], 3.0, 0.8, class_weights, 0.1, 0.01)


def dense_weighted(labels, h, w, bias, softcap, scale, *rest):
    return dense_cross_entropy(dense_logits(h, w, bias, softcap, scale), labels, *rest)


@pytest.mark.parametrize(
    "some", [SECOND, pytest.param(None, marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_every_derivative_of_a_weighted_cross_entropy(some):
    labels = data()[-1]
    arrays, hyper = weighted_case()

    def ours(h, w, *hyper):
        options = dict(zip(WEIGHTED, hyper, strict=True))
        some = workspace(3, itemsize=8)
        return linear_cross_entropy(h, w, labels, **options, workspace_mb=some)

    wanted = functools.partial(dense_weighted, labels)
    compare(ours, wanted, (*arrays, *hyper), some)


@pytest.mark.parametrize("layout", ["dv", "vd"])
def test_gradients_made_at_once_and_their_derivatives(layout):
    labels = data()[-1]
    arrays, hyper = weighted_case()
    weights = np.cos(np.arange(N))

    def flat(loss, grads):
        return jnp.concatenate([loss, *(jnp.ravel(g) for g in grads)])

    def ours(h, w, weights, *hyper):
        out = linear_cross_entropy_value_and_grad(
            *(h, w.T if layout == "vd" else w, labels),
            weights=weights,
            layout=layout,
            workspace_mb=workspace(3, itemsize=8),
            **dict(zip(WEIGHTED, hyper, strict=True)),
        )
        by_weight = out.weight.T if layout == "vd" else out.weight
        return flat(out.loss, (out.hidden, by_weight, out.bias))

    def wanted(h, w, weights, bias, *hyper):
        def total(h, w, bias):
            loss = dense_weighted(labels, h, w, bias, *hyper)
            return jnp.sum(weights * loss), loss

        grads, loss = jax.grad(total, (0, 1, 2), has_aux=True)(h, w, bias)
        return flat(loss, grads)

    some = SECOND if layout == "dv" else ("value",)
    compare(ours, wanted, (*arrays, weights, *hyper), some)


# --- gradients made at once -----------------------------------------------------------


@pytest.mark.parametrize("layout", ["dv", "vd"])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_made_at_once_are_those_of_the_loss(layout, masked):
    hidden, weight, _, _, labels = data()
    weight = weight.T.copy() if layout == "vd" else weight
    weights = rng(62).normal(size=N).astype(np.float32)
    options = {
        "layout": layout,
        "scale": 0.7,
        "softcap": 4.0,
        "label_smoothing": 0.2,
        "z_loss": 0.03,
        "class_weights": rng(61).gamma(2.0, size=V).astype(np.float32),
        "workspace_mb": workspace(2),
    }
    where = np.arange(N) % 3 != 1 if masked else np.ones(N, bool)
    spoilt = np.where(where[:, None], hidden, np.nan)

    def total(hidden, weight, bias):
        loss = linear_cross_entropy(
            hidden, weight, labels, bias=bias, where=where, **options
        )
        return jnp.sum(weights * loss), loss

    bias = biases((10,), ())[0]  # a class ruled out
    labels = np.where(labels == 10, 0, labels)
    got = linear_cross_entropy_value_and_grad(
        *(spoilt, weight, labels),
        weights=np.where(where, weights, np.nan),
        where=where,
        bias=bias,
        **options,
    )
    grads, loss = jax.grad(total, (0, 1, 2), has_aux=True)(hidden, weight, bias)
    assert_close(got[:4], (loss, *grads))
    assert got.dropped is None
    assert (np.asarray(got.hidden)[~where] == 0).all()


def test_the_filter_drops_what_it_says():
    """600 classes, the first 512 certain to stay; in chunks of 4 of 8 tokens."""
    hidden, weight, _, _, labels = data(8, D, 600)
    weights = np.linspace(0.5, 1.5, 8, dtype=np.float32)
    options = {"weights": weights, "bias": np.zeros(600, np.float32)}
    options["bias"][512:] = -6  # the last 88 are improbable
    labels = labels % 512
    run = functools.partial(linear_cross_entropy_value_and_grad, hidden, weight, labels)
    exact = run(**options)
    z = hidden.astype(np.float64) @ weight + options["bias"]
    _, dz = oracle.token_cross_entropy(z, labels)
    dz = weights[:, None] * dz

    none = run(filter_eps=0.0, **options)
    assert_close(none[:4], exact[:4])
    assert (np.asarray(none.dropped) == 0).all()

    every = jax.jit(lambda eps: run(filter_eps=eps, **options))(1e3)  # traced
    assert_close(every.loss, exact.loss)
    assert not np.asarray(every.hidden).any()
    assert not np.asarray(every.weight).any()
    assert_close(every.dropped, np.abs(dz).sum(-1))

    eps = np.abs(dz[:, 512:]).max() * 1.01
    some = run(filter_eps=eps, **options)
    kept, dropped = oracle.filtered(dz, eps)
    assert (dropped > 0).all()
    assert_close(some.dropped, dropped)
    assert_close(some.hidden, kept @ weight.T.astype(np.float64))
    assert_close(some.weight, hidden.T.astype(np.float64) @ kept)

    # In two chunks, of the even and of the odd tokens, each has blocks of its own.
    eps = np.abs(dz[::2, 512:]).max() * 1.001
    assert np.abs(dz[1::2, 512:]).max() > eps or np.abs(dz[1::2]).max() > eps
    some = run(filter_eps=eps, workspace_mb=workspace(4, 600), **options)
    parts = [oracle.filtered(dz[i::2], eps) for i in range(2)]
    kept, dropped = np.zeros_like(dz), np.zeros(8)
    for i, (k, d) in enumerate(parts):
        kept[i::2], dropped[i::2] = k, d
    assert_close(some.dropped, dropped)
    assert_close(some.weight, hidden.T.astype(np.float64) @ kept)


def test_the_filter_looks_at_logits_and_weights():
    """It is d loss / d z that is compared and reported, z after scale, and weighted."""
    hidden, weight, _, _, labels = data()
    weights = np.linspace(0.5, 1.5, N, dtype=np.float32)
    out = linear_cross_entropy_value_and_grad(
        hidden, weight, labels, weights=weights, scale=0.1, filter_eps=1e3
    )
    z, _ = oracle.head(hidden, weight, scale=0.1)
    _, dz = oracle.token_cross_entropy(z, labels)
    assert_close(out.dropped, np.abs(weights[:, None] * dz).sum(-1))


# --- dtypes ---------------------------------------------------------------------------


def everything(h, w, th, tw, labels, bias=None, teacher_bias=None, **options):
    """{name: [tokens]} of every function here."""
    token = token_statistics(
        *(h, w, labels),
        teacher=(th, tw, teacher_bias),
        bias=bias,
        stats=STATS,
        **options,
    )
    found = {name: x for name, x in token._asdict().items() if name != "argmax"}
    kl = functools.partial(
        linear_kl, h, w, th, tw, bias=bias, teacher_bias=teacher_bias, **options
    )
    found |= {direction: kl(direction=direction) for direction in DIRECTIONS}
    found["log_prob"], found["entropy"] = linear_logprob(
        h, w, labels, bias=bias, **options
    )
    found["cross entropy"] = linear_cross_entropy(
        *(h, w, labels),
        bias=bias,
        label_smoothing=0.1,
        z_loss=0.01,
        class_weights=1 + jnp.cos(jnp.arange(w.shape[1], dtype=float)),
        **options,
    )
    return found


one_program = jax.jit(everything)


def expected(h, w, th, tw, labels, bias=None, teacher_bias=None):
    """The same, in numpy's float64."""
    z, _ = oracle.head(h, w, bias)
    t, _ = oracle.head(th, tw, teacher_bias)
    found = oracle.statistics(z, labels, t)
    del found["argmax"]
    found |= {name: oracle.divergence(z, t, name) for name in DIRECTIONS}
    found["log_prob"] = found["target"] - found["lse"]
    found["entropy"] = found["lse"] - found["mean"]
    weights = 1 + np.cos(np.arange(w.shape[1]))
    found["cross entropy"], _ = oracle.token_cross_entropy(
        z, labels, weights, 0.1, 0.01
    )
    return found


def total(found):
    """A generic number of all."""
    return sum(
        (1 + i / 7) * jnp.sum(x * jnp.cos(jnp.arange(x.size, dtype=x.dtype)))
        for i, (_, x) in enumerate(sorted(found.items()))
    )


@jax.jit
def values_and_gradients(floats, labels, bias=None, where=None, softcap=None):
    """`everything`, and the gradients of its total in the four floats."""
    options = {"where": where, "workspace_mb": workspace(3), "softcap": softcap}

    def f(floats):
        found = everything(*floats, labels, bias, bias, **options)
        return total(found), found

    grads, found = jax.grad(f, has_aux=True)(tuple(floats))
    return found, grads


def usual(floats, labels, bias=None, where=None):
    """One program for all of the usual shape and dtype, whatever is ruled out."""
    bias = np.zeros(V, np.float32) if bias is None else bias
    where = np.ones(N, bool) if where is None else where
    return values_and_gradients(tuple(floats), labels, bias, where)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes_come_in_and_f32_comes_out(dtype):
    *floats, labels = data()
    low = [jnp.asarray(x, dtype) for x in floats]
    same = [x.astype(jnp.float32) for x in low]
    found, grads = usual(low, labels)
    want, want_grads = usual(same, labels)
    assert {x.dtype for x in found.values()} == {jnp.dtype("float32")}
    exact = expected(*(np.asarray(x, np.float64) for x in same), labels)
    for name, x in exact.items():
        assert_close(found[name], x, rtol=5e-6, what=name)
        assert_close(want[name], x, rtol=5e-6, what=name)
    assert {g.dtype for g in grads} == {jnp.dtype(dtype)}
    rounding = {"float32": 1e-6, "bfloat16": 2**-8, "float16": 2**-11}
    assert_close(
        [g.astype(jnp.float32) for g in grads], want_grads, rtol=rounding[dtype]
    )


def test_float64_stays_and_nothing_else_widens():
    *floats, labels = data()
    with jax.enable_x64(True):
        wide = cast_floats(tuple(floats), jnp.float64)
        found = everything(*wide, labels, workspace_mb=workspace(3, itemsize=8))
        for name, x in expected(*floats, labels).items():
            assert found[name].dtype == jnp.float64
            assert_close(found[name], x, rtol=1e-13, what=name)
        narrow = jax.eval_shape(everything, *floats, labels)
        assert {x.dtype for x in narrow.values()} == {jnp.dtype("float32")}
        beta = np.float64(0.3)
        jsd = linear_kl(*floats, direction="jsd", beta=beta)
        assert jsd.dtype == jnp.float32


def test_strict_promotion():
    *floats, labels = data()
    h, w, th, tw = floats
    mixed = (
        jnp.asarray(h, jnp.bfloat16),
        w,
        *(jnp.asarray(x, jnp.float16) for x in (th, tw)),
    )
    with jax.numpy_dtype_promotion("strict"):
        everything(*mixed, labels.astype(np.uint8), softcap=3, bias=jnp.zeros(V))
        linear_kl(*mixed, temperature=2, direction="jsd", beta=0.5)
        linear_logprob(h, w, labels.astype(np.int8), temperature=jnp.float32(2))
        linear_cross_entropy_value_and_grad(
            *(mixed[0], w, labels),
            scale=2,
            filter_eps=1e-3,
            label_smoothing=0.1,
            z_loss=1,
            weights=jnp.ones(N, jnp.bfloat16),
        )


def test_an_integer_is_a_beta():
    assert not np.asarray(linear_kl(*data()[:4], direction="jsd", beta=1)).any()


def test_numpy_scalars_are_hyperparameters_too():
    hidden, weight, _, _, labels = data()
    got = linear_cross_entropy(hidden, weight, labels, label_smoothing=np.float64(0.1))
    want = linear_cross_entropy(hidden, weight, labels, label_smoothing=0.1)
    assert_close(got, want)


# --- edges ----------------------------------------------------------------------------


def test_one_token_and_none():
    h, w, th, tw, labels = data(1)
    found = one_program(h, w, th, tw, labels)
    for name, x in expected(h, w, th, tw, labels).items():
        assert_close(found[name], x, rtol=5e-6, what=name)
    h, w, th, tw, labels = data(0)
    found = one_program(h, w, th, tw, labels)
    assert {x.shape for x in found.values()} == {(0,)}
    out = linear_cross_entropy_value_and_grad(h, w, labels, filter_eps=0.1)
    assert out.loss.shape == out.dropped.shape == (0,)
    assert not np.asarray(out.weight).any()
    scalar = token_statistics(np.ones(D, np.float32), w, np.int32(2), stats=STATS)
    assert scalar.lse.shape == scalar.argmax.shape == ()


@pytest.mark.parametrize("softcap", [None, 20.0])
def test_logits_of_ten_thousand(softcap):
    """Statistics keep their digits relative to the largest logit."""
    *floats, labels = data()
    h, w, th, tw = (np.sign(x) for x in floats)
    iota = np.arange(V) / 2**11  # exact in f32, so that logits differ by little
    floats = [5e3 * h, w + iota, 5e3 * th, tw - iota]
    floats = tuple(x.astype(np.float32) for x in floats)
    if softcap is None:
        found, grads = usual(floats, labels)
    else:
        found, grads = values_and_gradients(floats, labels, softcap=softcap)
    assert_finite((found, grads))
    z, _ = oracle.head(*floats[:2], softcap=softcap)
    t, _ = oracle.head(*floats[2:], softcap=softcap)
    for name, x in oracle.statistics(z, labels, t).items():
        if name != "argmax":
            assert_close(found[name], x, what=name)
    log_p, log_q = oracle.log_softmax(z), oracle.log_softmax(t)
    forward = (np.exp(log_q) * (log_q - log_p)).sum(-1)
    reverse = (np.exp(log_p) * (log_p - log_q)).sum(-1)
    assert_close(found["forward"], forward, what="forward")
    assert_close(found["reverse"], reverse, what="reverse")
    assert_close(found["jsd"], oracle.divergence(z, t, "jsd"), what="jsd", rtol=1e-5)


def test_nothing_counts_under_the_mask():
    *floats, labels = data()
    where = np.arange(N) % 3 != 1
    want = expected(*floats, labels)
    spoilt = [
        np.where(where[:, None], x, np.nan) if i % 2 == 0 else x
        for i, x in enumerate(floats)
    ]
    labels = np.where(where, labels, -1)
    found, grads = usual(spoilt, labels, where=where)
    for name, x in want.items():
        assert_close(found[name], np.where(where, x, 0), rtol=5e-6, what=name)
        assert (np.asarray(found[name])[~where] == 0).all()
    assert_finite(grads)
    for g in grads[::2]:
        assert (np.asarray(g)[~where] == 0).all()
    nothing = [np.nan * x if i % 2 == 0 else x for i, x in enumerate(floats)]
    labels = np.full(N, -1, np.int32)
    found, grads = usual(nothing, labels, where=np.zeros(N, bool))
    assert not any(np.asarray(x).any() for x in (*found.values(), *grads))


def test_labels_out_of_range():
    h, w, _, _, labels = data()

    def run(labels):
        token = token_statistics(h, w, labels, stats=STATS)
        found = {name: x for name, x in token._asdict().items() if x is not None}
        found["log_prob"], found["entropy"] = linear_logprob(h, w, labels)
        found["cross entropy"] = linear_cross_entropy(h, w, labels)
        return found

    want = run(labels)
    for bad in (
        np.array([-1, V, 10_000, -(2**31), 2**31 - 1, *labels[5:]], np.int32),
        np.array([V, 255, 200, 100, 50, *labels[5:]], np.uint8),
        np.array([-1, V, 100, -128, 127, *labels[5:]], np.int8),
        np.array([2**32 - 1, 2**31, 2**31 + 5, V, 50, *labels[5:]], np.uint32),
    ):
        for name, x in run(bad).items():
            x = np.asarray(x)
            if name in ("target", "log_prob", "cross entropy"):
                assert np.isnan(x[:5]).all(), name
                assert_close(x[5:], want[name][5:])
            else:
                assert_close(x, want[name], what=name)


def test_the_first_of_the_largest_is_found():
    ones = np.ones((3, 1), np.float32)
    weight = np.array([[0, 2, 1, 2, 2, 1.0]], np.float32)
    bias = np.array([0, -np.inf, 0, 0, 0, 0], np.float32)
    find = functools.partial(
        token_statistics, labels=np.zeros(3, int), stats=("argmax",)
    )
    assert (find(ones, weight).argmax == 1).all()
    assert (find(ones, weight, bias=bias).argmax == 3).all()
    assert (find(-ones, weight).argmax == 0).all()
    assert find(ones, weight).argmax.dtype == jnp.int32


def test_a_class_ruled_out_is_a_class_that_is_not_there():
    h, w, th, tw, labels = data()
    labels = labels % (V - 1)
    bias = biases((V - 1,), ())[0]
    got, grads = usual((h, w, th, tw), labels, bias)
    fewer = (h, w[:, :-1], th, tw[:, :-1])
    want, want_grads = values_and_gradients(fewer, labels, bias[:-1])
    # The weights of classes here are 1 + cos(class), so that one more changes nothing.
    for name, x in want.items():
        assert_close(got[name], x, rtol=3e-6, what=name)
    assert_close(grads[::2], want_grads[::2], rtol=5e-6)
    for g, want in zip(grads[1::2], want_grads[1::2], strict=True):
        assert_close(g[:, :-1], want, rtol=5e-6)
        assert (np.asarray(g)[:, -1] == 0).all()


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_ruled_out_target_pulls_nothing(scale):
    hidden, weight, *_ = data()
    labels, bias = np.full(N, 3, np.int32), biases((3,), ())[0]

    def target(hidden):
        token = token_statistics(hidden, weight, labels, bias=bias, scale=scale)
        return jnp.sum(token.target)

    value, grad = jax.value_and_grad(target)(hidden)
    assert value == -np.inf
    assert (np.asarray(grad) == 0).all()


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("who", ["student", "teacher", "each another"])
def test_a_class_that_one_head_alone_rules_out(direction, who):
    h, w, th, tw, _ = data()
    out = {"student": ((2,), ()), "teacher": ((), (2,)), "each another": ((2,), (5,))}
    bias, teacher_bias = biases(*out[who])

    def f(*floats):
        options = {"bias": bias, "teacher_bias": teacher_bias}
        loss = linear_kl(*floats, direction=direction, **options)
        return jnp.sum(loss), loss

    grads, loss = jax.grad(f, argnums=(0, 1, 2, 3), has_aux=True)(h, w, th, tw)
    z, _ = oracle.head(h, w, bias)
    t, _ = oracle.head(th, tw, teacher_bias)
    assert_close(loss, oracle.divergence(z, t, direction), rtol=1e-5)
    assert_no_nan(grads)
    if np.isfinite(loss).all():
        step = 1e-6

        def moved(by):
            there = h.astype(np.float64), th.astype(np.float64)
            z, _ = oracle.head(there[0] + by * np.cos(h), w, bias)
            t, _ = oracle.head(there[1] + by * np.sin(th), tw, teacher_bias)
            return oracle.divergence(z, t, direction).sum()

        slope = (moved(step) - moved(-step)) / (2 * step)
        got = np.vdot(grads[0], np.cos(h)) + np.vdot(grads[2], np.sin(th))
        assert_close(got, slope, rtol=1e-4)


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_the_ends_of_beta(beta):
    """There the mean is one of the two, and the divergence 0 with a slope in beta."""
    h, w, th, tw, _ = data()
    run = functools.partial(linear_kl, h, w, th, tw, direction="jsd")
    assert_close(run(beta=beta), np.zeros(N), rtol=0)
    z, t = h @ w, th @ tw
    # d/d beta at 0 is KL(q, p), at 1 it is -KL(p, q).
    want = oracle.divergence(z, t, "forward" if beta == 0 else "reverse").sum()
    slope = jax.grad(lambda beta: jnp.sum(run(beta=beta)))(beta)
    assert_close(slope, want if beta == 0 else -want, rtol=1e-5)


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_the_ends_of_beta_with_classes_ruled_out(beta):
    h, w, th, tw, _ = data()
    bias, teacher_bias = biases((2,), (5,))
    loss = linear_kl(
        *(h, w, th, tw),
        direction="jsd",
        beta=beta,
        bias=bias,
        teacher_bias=teacher_bias,
    )
    assert_close(loss, np.zeros(N), rtol=0)


def test_what_fills_the_last_chunk_adds_nothing():
    """A bias far above 0 is as good as any other, in chunks that do not fill too."""
    h, w, th, tw, _ = data()

    def grad(bias, **options):
        f = functools.partial(linear_kl, direction="jsd", bias=bias, **options)
        return jax.grad(lambda w: jnp.sum(f(h, w, th, tw)))(w)

    far = np.full(V, 100, np.float32)
    want = grad(np.zeros(V, np.float32))
    assert_close(grad(far), want, rtol=3e-5)
    assert_close(grad(far, workspace_mb=workspace(3)), want, rtol=3e-5)


def test_all_classes_ruled_out():
    h, w, _, _, labels = data()
    nothing = np.full(V, -np.inf, np.float32)

    def f(h, w, label_smoothing, z_loss):
        loss = linear_cross_entropy(
            *(h, w, labels),
            bias=nothing,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
        )
        return jnp.sum(loss), loss

    grads, loss = jax.grad(f, argnums=(0, 1, 2, 3), has_aux=True)(h, w, 0.1, 0.1)
    assert (loss == np.inf).all()
    assert_finite(grads[:2])
    token = token_statistics(h, w, labels, bias=nothing, stats=STATS)
    assert_no_nan(token)
    assert (token.lse == -np.inf).all()
    assert (token.argmax == 0).all()
    out = linear_cross_entropy_value_and_grad(
        h, w, labels, bias=nothing, label_smoothing=0.1, z_loss=0.1
    )
    assert (out.loss == np.inf).all()
    assert_finite(out[1:3])


def test_all_classes_ruled_out_and_hyperparameters():
    h, w, _, _, labels = data()
    nothing = np.full(V, -np.inf, np.float32)

    def f(label_smoothing, z_loss):
        options = {"label_smoothing": label_smoothing, "z_loss": z_loss}
        return jnp.sum(linear_cross_entropy(h, w, labels, bias=nothing, **options))

    assert_no_nan(jax.grad(f, argnums=(0, 1))(0.1, 0.1))


def test_all_classes_ruled_out_of_an_action():
    h, w, _, _, labels = data()
    token = linear_logprob(h, w, labels, bias=np.full(V, -np.inf, np.float32))
    assert (token.log_prob == -np.inf).all()
    assert (token.entropy == 0).all()


# --- what must hold of any numbers ----------------------------------------------------


@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0, 30.0, 1e4])
def test_bounds(size):
    h, w, th, tw, labels = data(40)
    found = one_program(h, size * w, th, size * tw, labels)
    found = {k: np.asarray(x) for k, x in found.items()}
    rounding = 4e-7
    assert (found["log_prob"] <= 0).all()
    assert (found["entropy"] >= 0).all()
    assert (found["entropy"] <= np.log(V) + rounding).all()
    for name in DIRECTIONS:
        assert (found[name] >= -rounding * max(1, size)).all(), name
    assert (found["jsd"] <= np.log(2) + rounding).all()
    probability = np.exp(found["square"] - 2 * found["lse"])  # sum p^2
    assert size > 100 or (probability <= 1 + rounding).all()
    assert size > 100 or (probability >= 1 / V - rounding).all()


def test_equal_heads_do_not_diverge():
    h, w, *_ = data()
    for direction in DIRECTIONS:

        def f(h, w, direction=direction):
            return jnp.sum(linear_kl(h, w, *data()[:2], direction=direction, beta=0.3))

        assert abs(f(h, w)) < 1e-6
        grads = jax.grad(f, (0, 1))(h, w)
        assert all(np.abs(g).max() < 2e-6 for g in grads)


def test_jensen_shannon_is_symmetric():
    h, w, th, tw, _ = data()
    run = functools.partial(linear_kl, direction="jsd")
    assert_close(run(h, w, th, tw), run(th, tw, h, w))
    assert_close(run(h, w, th, tw, beta=0.2), run(th, tw, h, w, beta=0.8))


def test_torch_divides_by_the_sum_of_label_weights():
    """class_weights that are all 2 double the loss: its scale is the caller's."""
    h, w, _, _, labels = data()
    two = np.full(V, 2, np.float32)
    options = {"label_smoothing": 0.3}
    got = linear_cross_entropy(h, w, labels, class_weights=two, **options)
    assert_close(got, 2 * linear_cross_entropy(h, w, labels, **options))


# --- transformations ------------------------------------------------------------------


def one_number(h, w, th, tw, labels):
    options = {
        "workspace_mb": workspace(3),
        "bias": jnp.cos(jnp.arange(V, dtype=float)),
    }
    token = token_statistics(
        h, w, labels, teacher=(th, tw, None), stats=("total", "mean"), **options
    )
    found = {name: x for name, x in token._asdict().items() if x is not None}
    found["jsd"] = linear_kl(h, w, th, tw, direction="jsd", beta=0.3, **options)
    return total(found)


def test_vmap_over_hidden_states_and_over_all():
    *floats, labels = data()
    grad = jax.grad(one_number, argnums=(0, 1, 2, 3))
    h, w, th, tw = floats
    over = (jnp.stack([h, 2 * h]), w, th, tw, labels)
    by_all = (*(jnp.stack([x, x**2]) for x in floats), np.stack([labels, labels[::-1]]))
    plain = jax.jit(grad)
    for args, axes in ((over, (0, None, None, None, None)), (by_all, 0)):
        mapped = jax.jit(jax.vmap(grad, in_axes=axes))(*args)
        for i in range(2):
            one = [x[i] if axes == 0 or axes[j] == 0 else x for j, x in enumerate(args)]
            got = jax.tree.map(lambda x, i=i: x[i], mapped)
            assert_close(got, plain(*one), rtol=1e-5)


def test_vmap_of_gradients_made_at_once():
    h, w, _, _, labels = data()
    run = functools.partial(
        linear_cross_entropy_value_and_grad, filter_eps=0.05, workspace_mb=workspace(3)
    )
    mapped = jax.jit(jax.vmap(lambda h: run(h, w, labels)))(jnp.stack([h, 2 * h]))
    assert_close(jax.tree.map(lambda x: x[1], mapped), run(2 * h, w, labels))


def test_inside_scan_and_checkpoint():
    *floats, labels = data()
    grad = jax.jit(jax.grad(one_number, argnums=(0, 1, 2, 3)))
    floats = tuple(floats)
    want, tangent = grad(*floats, labels), tuple(jnp.cos(x) for x in floats)

    @jax.checkpoint
    def step(carry, part):
        return carry + one_number(*part, labels), None

    def summed(*floats):
        parts = tuple(jnp.stack([x, x]) for x in floats)
        return lax.scan(step, jnp.zeros(()), parts)[0] / 2

    scanned = jax.grad(summed, argnums=(0, 1, 2, 3))
    got, hvp = jax.jit(lambda *f: jax.jvp(scanned, f, tangent))(*floats)
    assert_close(got, want, rtol=1e-5)
    plain = lambda *f: jax.jvp(lambda *f: grad(*f, labels), f, tangent)[1]  # noqa: E731
    assert_close(hvp, jax.jit(plain)(*floats), rtol=1e-5)


def test_the_reference_is_the_same():
    *floats, labels = data()
    got = everything(*floats, labels, implementation="reference")
    want = everything(*floats, labels, implementation="xla", workspace_mb=workspace(2))
    assert_close(got, want, rtol=5e-6)


# --- meshes ---------------------------------------------------------------------------

TOKENS, CLASSES = 8, 16
SHAPES = ((4, 2), (1, 8))
ROWS, COLUMNS = P("data"), P(None, "model")


@functools.cache
def mesh(shape, kind=AxisType.Auto):
    return jax.make_mesh(shape, ("data", "model"), axis_types=(kind, kind))


def mesh_data():
    """Floats, labels, biases with a class ruled out, weights of tokens, a mask."""
    *floats, labels = data(TOKENS, D, CLASSES)
    bias = biases((3,), (3,), classes=CLASSES)
    labels = np.where(labels == 3, 4, labels)
    weights = np.cos(np.arange(TOKENS, dtype=np.float32))
    return tuple(floats), labels, tuple(bias), weights, np.arange(TOKENS) % 4 != 2


def on_devices(floats, labels, bias, weights, where, **options):
    """Every value; gradients of their weighted sum; gradients made at once."""
    options = {"workspace_mb": workspace(1, CLASSES), "where": where, **options}

    def f(floats, bias):
        b, tb = bias
        h, w, th, tw = floats
        token = token_statistics(
            *(h, w, labels), teacher=(th, tw, tb), bias=b, stats=STATS, **options
        )
        fields = list(token._asdict().values())
        fields.append(
            linear_kl(
                *(h, w, th, tw),
                direction="jsd",
                bias=b,
                teacher_bias=tb,
                temperature=1.5,
                **options,
            )
        )
        fields.append(
            linear_cross_entropy(
                *(h, w, labels),
                bias=b,
                class_weights=jnp.where(jnp.isfinite(b), jnp.abs(b), 1),
                label_smoothing=0.1,
                z_loss=0.01,
                **options,
            )
        )
        some = [x for x in fields if jnp.issubdtype(x.dtype, jnp.floating)]
        whole = sum((1 + i / 7) * jnp.sum(weights * x) for i, x in enumerate(some))
        return whole, tuple(fields)

    grads, fields = jax.grad(f, argnums=(0, 1), has_aux=True)(floats, bias)
    once = linear_cross_entropy_value_and_grad(
        *(floats[0], floats[1], labels),
        weights=weights,
        bias=bias[0],
        label_smoothing=0.1,
        filter_eps=1e-4,
        **options,
    )
    return fields, grads, once


@functools.cache
def on_one_device():
    return jax.jit(on_devices)(*mesh_data())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_split_classes_in_shard_map(shape):
    floats = (ROWS, COLUMNS, ROWS, COLUMNS)
    biased = (P("model"),) * 2
    fields, grads, once = on_one_device()
    run = jax.shard_map(
        functools.partial(on_devices, w_axis="model"),
        mesh=mesh(shape),
        in_specs=(floats, ROWS, biased, ROWS, ROWS),
        out_specs=(
            (ROWS,) * len(fields),
            (floats, biased),
            LossAndGrads(ROWS, ROWS, COLUMNS, P("model"), ROWS),
        ),
    )
    got_fields, got_grads, got_once = jax.jit(run)(*mesh_data())
    assert_close(got_fields, fields, rtol=5e-6)
    assert_close(got_grads, grads, rtol=2e-5)
    # Blocks of classes are each device's own, so that less is kept together there.
    assert_close(got_once.loss, once.loss, rtol=5e-6)
    assert_close(got_once[1:4], once[1:4], rtol=2e-3)


@pytest.mark.parametrize(
    ("kind", "weight"),
    [
        (AxisType.Auto, P(None, "model")),
        (AxisType.Auto, P()),
        (AxisType.Explicit, P(None, "model")),
        (AxisType.Explicit, P("data", None)),
    ],
    ids=str,
)
def test_any_mesh_gives_the_same(kind, weight):
    where = mesh((4, 2), kind)
    put = lambda x, spec: jax.device_put(x, NamedSharding(where, spec))  # noqa: E731
    floats, labels, bias, weights, live = mesh_data()
    h, w, _, _ = floats
    th, tw = h[:, ::-1], w[::-1]  # the features of 3 would not split over "data"
    want = jax.jit(on_devices)((h, w, th, tw), labels, bias, weights, live)
    with jax.set_mesh(where):
        rows = [put(x, P("data", None)) for x in (h, th)]
        heads = [put(x, weight) for x in (w, tw)]
        floats = (rows[0], heads[0], rows[1], heads[1])
        labels, weights, live = (put(x, ROWS) for x in (labels, weights, live))
        bias = tuple(put(x, P(None)) for x in bias)
        got = jax.jit(on_devices)(floats, labels, bias, weights, live)
    assert_close(got[0], want[0], rtol=5e-6)
    assert_close(got[1], want[1], rtol=2e-5)
    assert_close(got[2].loss, want[2].loss, rtol=5e-6)
    assert_close(got[2][1:4], want[2][1:4], rtol=2e-3)


def test_gradients_made_at_once_lie_where_their_arguments_do():
    (h, w, *_), labels, *_ = mesh_data()
    where = mesh((4, 2), AxisType.Explicit)
    put = lambda x, spec: jax.device_put(x, NamedSharding(where, spec))  # noqa: E731
    for hidden, weight in (
        (P("data", None), P("model", None)),
        (P("data", "model"), P(None, None)),
    ):
        with jax.set_mesh(where):
            args = put(h, hidden), put(w, weight), put(labels, ROWS)
            out = jax.jit(linear_cross_entropy_value_and_grad)(*args)
        assert out.hidden.sharding.spec == hidden
        assert out.weight.sharding.spec == weight


def in_shard_map(f, *specs, out=ROWS, **options):
    shape = options.pop("shape", (4, 2))
    return jax.jit(
        jax.shard_map(f, mesh=mesh(shape), in_specs=specs, out_specs=out, **options)
    )


def test_gradients_made_at_once_in_shard_map_without_weights():
    (h, w, *_), labels, *_ = mesh_data()
    run = linear_cross_entropy_value_and_grad
    got = in_shard_map(
        lambda *args: run(*args)[:3], ROWS, P(), ROWS, out=(ROWS, ROWS, P())
    )(h, w, labels)
    assert_close(got, run(h, w, labels)[:3])


def test_a_shard_of_no_probability():
    """The student rules half the classes out, the teacher has e^-10000 there."""
    (h, w, th, tw), _, *_ = mesh_data()
    late = np.arange(CLASSES) >= CLASSES // 2
    bias = np.where(late, -np.inf, 0).astype(np.float32)
    teacher_bias = np.where(late, -1e4, 0).astype(np.float32)

    def run(h, w, th, tw, b, tb, **options):
        return linear_kl(h, w, th, tw, bias=b, teacher_bias=tb, **options)

    specs = (ROWS, COLUMNS, ROWS, COLUMNS, P("model"), P("model"))
    split = in_shard_map(functools.partial(run, w_axis="model"), *specs)
    args = (h, w, th, tw, bias, teacher_bias)
    assert_close(split(*args), run(*args), rtol=5e-6)


def test_classes_that_one_head_rules_out_on_a_shard():
    """They count where the other gives them probability, however little in all."""
    (h, w, th, tw), *_ = mesh_data()
    late = np.arange(CLASSES) >= CLASSES // 2
    first = np.arange(CLASSES) == 0
    rare = np.where(late, -1e4, 0)  # e^-10000 of the probability: none in f32
    last = np.arange(CLASSES) == CLASSES - 1
    cases = {  # what the student rules out, the teacher's bias, finite gaps
        "one": (first, 0 * rare, 1),
        "one of a shard without probability": (last, rare, 2),
        "a shard": (late, 0 * rare, 1),
        "all": (first | True, 0 * rare, 1),
    }

    def run(h, w, th, tw, b, tb, **options):
        labels = jnp.zeros(h.shape[:1], jnp.int32)
        token = token_statistics(h, w, labels, teacher=(th, tw, tb), bias=b, **options)
        return token.teacher_gap, token.student_gap, token.teacher_lse

    specs = (ROWS, COLUMNS, ROWS, COLUMNS, P("model"), P("model"))
    split = in_shard_map(
        functools.partial(run, w_axis="model"), *specs, out=(ROWS,) * 3
    )
    for name, (out, teacher_bias, finite) in cases.items():
        b = np.where(out, -np.inf, 0).astype(np.float32)
        tb = teacher_bias.astype(np.float32)
        for args in ((h, w, th, tw, b, tb), (th, tw, h, w, tb, b)):
            want = run(*args)
            assert_close(split(*args), want, rtol=5e-6, what=name)
            assert np.isfinite(want[:2]).all(axis=1).sum() == finite, name


def test_an_axis_that_is_manual_beside_one_that_is_not():
    (h, w, *_), labels, *_ = mesh_data()

    def run(h, w, labels):
        return linear_cross_entropy(h, w, labels, w_axis="model")[None]

    split = in_shard_map(
        run, P(), COLUMNS, P(), out=P("model"), axis_names={"model"}, check_vma=True
    )
    want = linear_cross_entropy(h, w, labels)
    assert_close(split(h, w, labels), np.stack([want, want]))


def test_shards_of_classes_ruled_out():
    (h, w, *_), labels, *_ = mesh_data()

    def run(h, w, labels, bias, **options):
        token = token_statistics(h, w, labels, bias=bias, stats=STATS, **options)
        return jax.tree.leaves(token)

    split = in_shard_map(
        functools.partial(run, w_axis="model"), *(ROWS, COLUMNS, ROWS, P("model"))
    )
    bias = np.full(CLASSES, -np.inf, np.float32)
    assert_close(split(h, w, labels, bias), run(h, w, labels, bias))
    for far in (0, -1e4):  # a shard without classes has no largest, not even one of 0
        bias[-1] = far
        assert_close(split(0 * h, w, labels, bias), run(0 * h, w, labels, bias))


def test_wide_labels_of_split_classes_and_strict_promotion():
    (h, w, *_), labels, *_ = mesh_data()
    want = linear_cross_entropy(h, w, labels)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        run = functools.partial(linear_cross_entropy, w_axis="model")
        got = in_shard_map(run, ROWS, COLUMNS, ROWS)(h, w, labels.astype(np.int64))
    assert_close(got, want)


def test_labels_out_of_range_of_split_classes():
    (h, w, *_), labels, *_ = mesh_data()
    labels = labels.copy()
    labels[:5] = [-1, CLASSES, -(2**31), 2**31 - 1, 10_000]

    def run(h, w, labels, **options):
        token = token_statistics(h, w, labels, **options)
        return token.lse, token.target

    split = in_shard_map(
        functools.partial(run, w_axis="model"), ROWS, COLUMNS, ROWS, out=(ROWS, ROWS)
    )
    got = split(h, w, labels)
    assert_close(got, run(h, w, labels))
    assert np.isnan(np.asarray(got[1])).tolist() == [True] * 5 + [False] * 3


# --- mistakes -------------------------------------------------------------------------


def test_mistakes():
    h, w, th, tw, labels = data()
    bad = np.ones(3, np.float32)
    teacher = {"teacher": (th, tw, None)}
    for f, args, kwargs, message in (
        (token_statistics, (h, w, labels), {"layout": "vv"}, "^layout: .*'dv', 'vd'"),
        (token_statistics, (h, w, labels), {"layout": "vd"}, "^weight: .*classes, fea"),
        (
            token_statistics,
            (h, w, labels),
            {"stats": ("entropy",)},
            "^stats: .*'total'",
        ),
        (token_statistics, (h, w, labels), {"scale": 0}, "^scale: wanted > 0"),
        (token_statistics, (h, w, labels), {"softcap": 0}, "^softcap: wanted > 0"),
        (token_statistics, (h, w, labels), {"bias": bad}, r"^bias: wanted shape \(11,"),
        (token_statistics, (h, w, labels), {"where": labels[:2] > 0}, "^where: "),
        (token_statistics, (h, w, labels), {"teacher": (th, tw)}, "^teacher: wanted "),
        (
            token_statistics,
            (h, w, labels),
            {"teacher": (th[:3], tw, None)},
            r"^teacher: wanted hidden states for \(7,\)",
        ),
        (
            token_statistics,
            (h, w, labels),
            {"teacher": (th, tw[:, :5], None)},
            "^teacher: wanted .* 11 classes",
        ),
        (
            token_statistics,
            (h, w, labels),
            {"teacher": (h, tw, None)},
            "^teacher weight",
        ),
        (token_statistics, (h, w, labels), {"teacher": (th, tw, bad)}, "^teacher bias"),
        (token_statistics, (h, w[0], labels), teacher, "^weight: wanted"),
        (token_statistics, (h, w, labels[:3]), {}, r"^labels: .*\(7,\).*int32\[3\]"),
        (token_statistics, (h, w, h[:, 0]), {}, "^labels: wanted integers"),
        (
            token_statistics,
            (h, w, labels),
            {"implementation": "mosaic_gpu"},
            "^implementation: ",
        ),
        (linear_kl, (h, w, th, tw), {"direction": "both"}, "^direction: .*'forward'"),
        (linear_kl, (h, w, th, tw), {"beta": -0.1}, r"^beta: wanted in \[0, 1\]"),
        (linear_kl, (h, w, th, tw), {"temperature": 0}, "^temperature: wanted > 0"),
        (linear_kl, (h, w, th, tw), {"teacher_bias": bad}, "^teacher[_ ]bias"),
        (linear_kl, (h, w, h, tw), {}, "^teacher[_ ]weight: wanted"),
        (linear_kl, (h, w, th[:3], tw), {}, "^teacher: wanted hidden states"),
        (linear_logprob, (h, w, labels), {"temperature": -1}, "^temperature: "),
        (
            linear_cross_entropy,
            (h, w, labels),
            {"class_weights": bad},
            r"^class_weights: wanted shape \(11,\), came \(3,\)",
        ),
        (
            linear_cross_entropy_value_and_grad,
            (h, w, labels),
            {"weights": bad},
            r"^weights: wanted shape \(7,\), came \(3,\)",
        ),
        (
            linear_cross_entropy_value_and_grad,
            (h, w, labels),
            {"filter_eps": -1.0},
            "^filter_eps: wanted >= 0",
        ),
    ):
        with as_users_see_it(), pytest.raises(ValueError, match=message):
            f(*args, **kwargs)


def test_an_axis_that_is_not_there():
    h, w, _, _, labels = data()
    with as_users_see_it(), pytest.raises(ValueError, match="w_axis"):
        linear_cross_entropy(h, w, labels, w_axis="model")
