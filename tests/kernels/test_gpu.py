"""The Hopper kernels: values and races in interpret mode, and their lowering for cuda.

Oracles are dense float64 numpy. What a device alone can tell (time, and whether what is
lowered compiles) is not tested here.
"""

import contextlib
import functools
import inspect
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh
from jax.sharding import PartitionSpec as P

pytest.importorskip("absl")

from jax._src.pallas.mosaic_gpu.interpret import (
    gpu_callbacks,
    interpret_pallas_call,
    params,
)

from jaxtricks.kernels.gpu import _tiles, norms, softmax, statistics

pytestmark = pytest.mark.kernels

BF16, F16, F32 = jnp.bfloat16, jnp.float16, jnp.float32
OLD = jax.__version_info__ < (0, 11)
FORMS = ("softmax", "log_softmax", "two_pass_softmax", "logsumexp")


@contextlib.contextmanager
def hopper(cores=132):
    """An H100 to lower for, of so many multiprocessors."""
    device = AbstractDevice(
        device_kind="NVIDIA H100 80GB HBM3", platform="gpu", num_cores=cores
    )
    with jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=device)):
        yield


@contextlib.contextmanager
def interpreted():
    """Kernels run on the CPU; a race is an error, what is not there is NaN."""
    # jax 0.10 raises where a copy reaches past an array, which hardware fills with 0.
    options = {"out_of_bounds_reads": "uninitialized"} if OLD else {}
    mode = params.InterpretGPUParams(
        detect_races=True, uninitialized_memory="nan", **options
    )
    interpret_pallas_call.reset_gpu_interpret_mode_state()
    try:
        with params.force_gpu_interpret_mode(mode):
            yield
        if OLD:  # later ones raise
            assert not interpret_pallas_call.get_races().races_found
    finally:
        interpret_pallas_call.reset_gpu_interpret_mode_state()


def run(f, *args, cores=3):
    """f(*args) by as few blocks, so that each has several pieces of work."""
    with interpreted(), hopper(cores):
        return jax.tree.map(np.asarray, jax.block_until_ready(jax.jit(f)(*args)))


def lowered(f, *args) -> str:
    """For cuda."""
    with hopper():
        traced = jax.jit(f).trace(*args)
        return traced.lower(lowering_platforms=("cuda",)).as_text()


def normal(*shape, dtype=F32, seed=0):
    """Normal numbers, rounded to the dtype."""
    rng = np.random.default_rng([seed, *shape])
    return jnp.asarray(rng.normal(size=shape), dtype)


def spec(*shape, dtype=F32):
    return jax.ShapeDtypeStruct(shape, dtype)


def assert_close(got, want, dtype=F32, scale=1.0):
    """To a few roundings of dtype, of each number or of `scale`."""
    eps = float(jnp.finfo(dtype).eps)
    got, want = np.float64(got), np.float64(want)
    np.testing.assert_allclose(got, want, rtol=4 * eps, atol=4 * eps * scale)


# --- statistics -----------------------------------------------------------------------


def statistics_oracle(hidden, weight, labels, bias, softcap, scale):
    """All of them, relative to the peak."""
    u = np.float64(hidden) @ np.float64(weight)
    if bias is not None:
        u = u + np.float64(bias)
    there = u > -np.inf
    cap = softcap * np.tanh(u / softcap) if softcap is not None else u
    z = np.where(there, scale * cap, -np.inf)
    peak = z.max(axis=1, keepdims=True)
    peak = np.where(peak == -np.inf, 0, peak)
    e, z = np.exp(z - peak), z - peak
    total, live = e.sum(axis=1), np.where(there, z, 0)
    at = labels[:, None] == np.arange(z.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "peak": peak[:, 0],
            "lse": np.log(total),
            "target": np.where(at, z, -np.inf).max(axis=1),
            "total": live.sum(axis=1),
            "mean": (e * live).sum(axis=1) / np.where(total == 0, 1, total),
            "square": np.log((e * e).sum(axis=1)),
            "argmax": z.argmax(axis=1),
        }


def head(n, d, v, dtype, layout="dv", with_bias=False):
    """(hidden, weight, labels, bias) with a class in five ruled out."""
    hidden, weight = normal(n, d, dtype=dtype), normal(d, v, dtype=dtype) / d**0.5
    labels = (np.arange(n) * 7919 - 1) % (v + 2) - 1  # -1 and v are out of range
    bias = normal(v) if with_bias else None
    if with_bias:
        bias = jnp.where(np.arange(v) % 5 == 3, -np.inf, bias)
    weight = weight if layout == "dv" else weight.T
    return hidden, weight, jnp.asarray(labels, jnp.int32), bias


def check_statistics(
    hidden, weight, labels, bias, softcap, scale, layout, stats=statistics.STATISTICS
):
    f = functools.partial(statistics.forward, layout=layout, stats=stats)
    got = run(f, hidden, weight, labels, bias, softcap, scale)
    weight = weight if layout == "dv" else weight.T
    want = statistics_oracle(hidden, weight, np.asarray(labels), bias, softcap, scale)
    assert set(got) == {"peak", "lse", *stats}
    # Errors are of a logit's rounding; those of `total` add up, and so does its size.
    logit = np.abs(np.where(np.isfinite(want["peak"]), want["peak"], 0)).max() + 4
    for name, value in got.items():
        assert value.dtype == (jnp.int32 if name == "argmax" else F32)
        scale = logit * (weight.shape[1] ** 0.5 if name == "total" else 1)
        assert_close(value, want[name], scale=scale)
    return got


@pytest.mark.parametrize(
    ("n", "d", "v", "dtype", "layout", "with_bias", "softcap"),
    [
        (130, 72, 263, BF16, "dv", True, 2.0),  # two tiles of each, ragged
        (37, 128, 512, F16, "vd", False, None),  # whole tiles: nothing is ruled out
        (1, 64, 61, BF16, "vd", False, 1.0),
        (3, 8, 1, F16, "dv", True, None),
    ],
)
def test_statistics(n, d, v, dtype, layout, with_bias, softcap):
    interpreter = inspect.getsource(gpu_callbacks)
    if layout == "vd" and "TransposeTransform" not in interpreter:
        pytest.skip("this jax interprets no wgmma of a transposed operand")
    args = head(n, d, v, dtype, layout, with_bias)
    check_statistics(*args, softcap, 1.5, layout)


def test_statistics_where_all_is_ruled_out_or_large():
    """A tile of no class beside one that has some; logits up to 1e4, with ties."""
    hidden, weight, labels, _ = head(5, 64, 300, BF16)
    bias = jnp.where(np.arange(300) < 256, -jnp.inf, 0.0)
    hidden = (hidden * 1000).at[0].set(0)
    got = check_statistics(hidden, weight, labels, bias, None, 3.0, "dv")
    assert got["argmax"][0] == 256
    assert got["lse"][0] == pytest.approx(np.log(44))
    nothing = jnp.full(64, -jnp.inf)
    got = check_statistics(hidden, weight[:, :64], labels, nothing, None, 3.0, "dv")
    assert (got["peak"] == 0).all()
    assert (got["lse"] == -np.inf).all()


def test_statistics_of_a_token_that_is_nan():
    """Its own are NaN, the others' are not."""
    hidden, weight, labels, _ = head(3, 64, 70, BF16)
    f = functools.partial(statistics.forward, layout="dv", stats=("argmax",))
    got = run(f, hidden.at[1].set(jnp.nan), weight, labels, None, None, 1.0)
    assert np.isnan(got["lse"]).tolist() == [False, True, False]
    assert (got["argmax"] < 70).all()


@pytest.mark.parametrize("layout", ["dv", "vd"])
@pytest.mark.parametrize(
    ("n", "d", "v", "with_bias"),
    [(8192, 2304, 256000, False), (4096, 4096, 128256, True), (1, 100, 257, True)],
)
def test_statistics_are_lowered_without_the_logits(layout, n, d, v, with_bias):
    weight = (d, v) if layout == "dv" else (v, d)
    f = functools.partial(
        statistics.forward, layout=layout, stats=statistics.STATISTICS
    )
    text = lowered(
        f,
        spec(n, d, dtype=BF16),
        spec(*weight, dtype=BF16),
        spec(n, dtype=jnp.int32),
        spec(v) if with_bias else None,
        spec(),
        spec(),
    )
    assert "mosaic_gpu_v2" in text
    assert "dot_general" not in text
    for a, b in ((n, v), (v, n)):
        assert f"<{a}x{b}xf32" not in text
    # The weight goes in as it came where it consists of whole tiles.
    assert ("stablehlo.pad" in text) == (n == 1)


def test_statistics_tiles_fit():
    for dtype in (BF16, F16):
        for d in (1, 64, 100, 2304, 16384):
            for v in (1, 64, 100, 256, 50257):
                tiles = statistics.heuristic(8, d, v, dtype)
                assert statistics.smem_bytes(tiles, dtype) <= 227 * 1024
                assert tiles.classes >= min(v, 256)
    assert statistics.heuristic(8192, 2304, 256000, BF16) == (64, 256, 64, 4, 8)


# --- softmax --------------------------------------------------------------------------


def softmax_oracle(x):
    """The four forms, of float64."""
    x = np.float64(x)
    peak = x.max(axis=1, keepdims=True)
    origin = np.where(peak == -np.inf, 0, peak)
    total = np.exp(x - origin).sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        log_total = np.log(total)
    shares = np.exp(x - origin) / np.where(total == 0, 1, total)
    logs = x - origin - np.where(total == 0, 0, log_total)
    return shares, logs, shares, (origin + log_total)[:, 0]


@pytest.mark.parametrize(
    ("rows", "n", "dtype", "size"),
    [(4, 200, BF16, 3), (3, 13001, F32, 1e4), (3, 128, F16, 1), (2, 8192, BF16, 30)],
)
def test_softmax(rows, n, dtype, size):
    """Of one span of a row and of several; with -inf, a row of nothing else."""
    x = (normal(rows, n) * size).astype(dtype)
    x = x.at[0, 1::2].set(-jnp.inf).at[1].set(-jnp.inf)
    got = run(lambda x: tuple(getattr(softmax, form)(x) for form in FORMS), x)
    for form, value, want in zip(FORMS, got, softmax_oracle(x), strict=True):
        assert value.dtype == (F32 if form == "logsumexp" else dtype), form
        # A result of up to 6e4 in a log has that rounding; shares are right to theirs.
        limit = np.abs(want[np.isfinite(want)]).max(initial=1)
        tiny = float(jnp.finfo(dtype).smallest_subnormal) if dtype == F16 else 1e-37
        scale = limit if "log" in form else 10 * tiny / float(jnp.finfo(dtype).eps)
        assert_close(value, want, dtype, scale=scale)


def test_softmax_of_infinity_and_nan_stays_in_its_row():
    x = normal(3, 200).at[0, 5].set(jnp.inf).at[1, 5].set(jnp.nan)
    shares, lse = run(lambda x: (softmax.softmax(x), softmax.logsumexp(x)), x)
    assert lse[0] == np.inf
    assert np.isnan(lse[1])
    assert np.isnan(shares[1]).all()
    assert_close(shares[2], softmax_oracle(x[2:])[0][0])


@pytest.mark.parametrize("form", FORMS)
def test_softmax_is_lowered(form):
    for rows, n, dtype in ((4096, 128256, BF16), (33, 50257, F32), (1, 130, F16)):
        text = lowered(getattr(softmax, form), spec(rows, n, dtype=dtype))
        assert "mosaic_gpu_v2" in text
        assert "exponential" not in text
        tiles = softmax.heuristic(rows, n, dtype)
        assert softmax.smem_bytes(tiles, dtype) <= 227 * 1024


# --- norms ----------------------------------------------------------------------------


def norms_oracle(kind, dtype, x, residual, scale, bias, eps, dy, dsummed):
    """What forward and backward give, in float64; the sum is rounded to dtype."""
    x, dy = np.float64(x), np.float64(dy)
    if residual is not None:
        x = np.float64(jnp.asarray(x + np.float64(residual)).astype(dtype))
    d = x.shape[1]
    mean = x.mean(axis=1) if kind == "layer" else np.zeros(x.shape[0])
    centred = x - mean[:, None]
    moment = np.mean(centred**2, axis=1)
    if kind == "crms":
        moment = (d * moment + x.sum(axis=1) ** 2) / (d + 1)
    moment = moment + eps
    rstd = np.where(moment == 0, 0, 1 / np.sqrt(np.where(moment == 0, 1, moment)))
    xhat, inverse = centred * rstd[:, None], rstd[:, None]
    gain = 1 if scale is None else np.float64(scale)
    y = xhat * gain + (0 if bias is None else np.float64(bias))
    g = dy * gain
    if kind == "crms":  # of RMS norm for all d + 1 features, by the chain rule
        whole = np.concatenate([xhat, -xhat.sum(axis=1, keepdims=True)], axis=1)
        g = np.concatenate([g, np.zeros((x.shape[0], 1))], axis=1)
        of_whole = g - whole * np.mean(g * whole, axis=1, keepdims=True)
        dx = inverse * (of_whole[:, :-1] - of_whole[:, -1:])
    else:
        dx = g - xhat * np.mean(g * xhat, axis=1, keepdims=True)
        if kind == "layer":
            dx = dx - g.mean(axis=1, keepdims=True)
        dx = inverse * dx
    if dsummed is not None:
        dx = dx + np.float64(dsummed)
    return (y, x, mean, rstd), (dx, (dy * xhat).sum(axis=0), dy.sum(axis=0))


@pytest.mark.parametrize(
    ("kind", "rows", "d", "dtype", "full"),
    [
        ("layer", 7, 200, BF16, True),  # three rows a block
        ("crms", 3, 129, F32, True),  # of no whole number of 16 bytes
        ("rms", 4, 64, F16, False),
        ("rms", 1, 2100, F32, True),  # more than two chunks
        ("layer", 2, 1024, F32, False),
    ],
)
def test_norms(kind, rows, d, dtype, full):
    x, dy, residual, dsummed = (normal(rows, d, dtype=dtype, seed=i) for i in range(4))
    scale, bias = normal(d, seed=5), normal(d, seed=6)
    if not full:
        residual = dsummed = scale = bias = None
    forward = functools.partial(norms.forward, kind=kind)
    got = run(forward, x, residual, scale, bias, 0.1)
    backward = functools.partial(norms.backward, kind=kind, has_bias=full)
    back = run(backward, dy, dsummed, got[1], scale, got[2], got[3])
    args = (x, residual, scale, bias, 0.1, dy, dsummed)
    want, want_back = norms_oracle(kind, dtype, *args)
    for value, wanted in zip(got[:2], want[:2], strict=True):
        assert value.dtype == dtype
        assert_close(value, wanted, dtype)
    for value, wanted in zip(got[2:], want[2:], strict=True):
        assert value.dtype == F32
        assert_close(value, wanted)
    assert back[0].dtype == dtype
    assert_close(back[0], want_back[0], dtype, scale=4)
    if not full:
        assert back[1:] == (None, None)
        return
    for value, wanted in zip(back[1:], want_back[1:], strict=True):
        assert value.dtype == F32
        assert_close(value, wanted, scale=4)


@pytest.mark.parametrize("kind", ["layer", "rms", "crms"])
def test_norms_of_zeros_are_zero(kind):
    x = jnp.zeros((2, 64))
    forward = functools.partial(norms.forward, kind=kind)
    y, _, mean, rstd = run(forward, x, None, None, None, 0.0)
    for value in (y, mean, rstd):
        assert not value.any()


def test_norms_are_lowered():
    for kind, rows, d, dtype, full in (
        ("layer", 8192, 4096, BF16, True),
        ("rms", 8192, 8192, BF16, False),
        ("crms", 37, 129, F32, True),
    ):
        x, v, row = spec(rows, d, dtype=dtype), spec(d), spec(rows)
        residual, vector = (x, v) if full else (None, None)
        forward = functools.partial(norms.forward, kind=kind)
        backward = functools.partial(norms.backward, kind=kind, has_bias=full)
        text = lowered(forward, x, residual, vector, vector, spec())
        assert "mosaic_gpu_v2" in text
        text = lowered(backward, x, residual, x, vector, row, row)
        assert "mosaic_gpu_v2" in text


def test_norms_tiles_fit():
    for dtype, most in ((BF16, 8192), (F16, 8192), (F32, 5120)):
        for d in (1, 100, 1024, 4096, most):
            chunk, blocks = norms.heuristic(8, d, dtype)
            assert blocks * norms.smem_bytes(d, chunk, dtype) <= 227 * 1024
    assert norms.heuristic(8, 4096, BF16).blocks == 2


# --- what is asked of all -------------------------------------------------------------


def test_what_is_lacking():
    def of_statistics(hidden, weight):
        labels = spec(hidden.shape[0], dtype=jnp.int32)
        args = (hidden, weight, labels, None, None, 1.0)
        return statistics.lacks(*args, layout="dv", stats=())

    assert of_statistics(spec(4, 8, dtype=BF16), spec(8, 9, dtype=BF16)) is None
    assert "float32" in of_statistics(spec(4, 8), spec(8, 9))
    mixed = of_statistics(spec(4, 8, dtype=F16), spec(8, 9, dtype=BF16))
    assert "weight of bfloat16" in mixed
    assert "empty" in of_statistics(spec(0, 8, dtype=F16), spec(8, 9, dtype=F16))
    assert softmax.lacks(spec(2, 128)) is None
    assert "int32" in softmax.lacks(spec(2, 128, dtype=jnp.int32))
    assert "fewer" in softmax.lacks(spec(2, 127))
    assert "empty" in softmax.lacks(spec(0, 128))
    lacks = functools.partial(norms.lacks, kind="rms")
    assert lacks(spec(2, 8), None, None, None, 0.1) is None
    assert "bfloat16 beside" in lacks(spec(2, 8), spec(2, 8, dtype=BF16))
    assert "float64" in lacks(spec(2, 8, dtype=np.float64), None)
    assert "features" in lacks(spec(2, 10**6), None)
    assert "empty" in lacks(spec(2, 0), None)


def everything():
    """(a function of arrays, its arguments, which of them hold rows)."""
    x, v, row = normal(4, 130, dtype=BF16), normal(130), normal(4)
    hidden, weight, labels, bias = head(4, 64, 70, BF16, with_bias=True)
    return {
        "softmax": (softmax.softmax, (x,), (0,)),
        "logsumexp": (softmax.logsumexp, (x,), (0,)),
        "forward": (
            functools.partial(norms.forward, kind="layer"),
            (x, x, v, v, jnp.float32(0.1)),
            (0, 1),
        ),
        "backward": (
            functools.partial(norms.backward, kind="layer", has_bias=True),
            (x, x, x, v, row, row),
            (0, 1, 2, 4, 5),
        ),
        "statistics": (
            functools.partial(statistics.forward, layout="dv", stats=("target",)),
            (hidden, weight, labels, bias, jnp.float32(9), jnp.float32(2)),
            (0, 2),
        ),
    }


@pytest.mark.parametrize("name", everything())
def test_under_vmap_and_x64(name):
    """One more axis is one more axis of the grid; 64 bits are nowhere asked for."""
    f, args, _ = everything()[name]
    two = jax.tree.map(lambda x: jnp.stack([x, x]), args)
    assert "mosaic_gpu_v2" in lowered(jax.vmap(f), *two)
    with jax.enable_x64(True):
        assert "mosaic_gpu_v2" in lowered(f, *args)


def test_vmap_is_a_loop():
    f, (x,), _ = everything()["softmax"]
    two = jnp.stack([x, 2 * x])
    got = run(jax.vmap(f), two)
    np.testing.assert_array_equal(got, np.stack([run(f, two[0]), run(f, two[1])]))


@pytest.mark.parametrize("name", everything())
def test_in_shard_map(name):
    """Rows over two devices: results vary over them, the sums for a weight too.

    Lowered alone: the interpreters of several devices get in each other's way.
    """
    f, args, of_rows = everything()[name]
    auto, devices = (jax.sharding.AxisType.Auto,), jax.devices()[:2]
    mesh = jax.make_mesh((2,), ("data",), axis_types=auto, devices=devices)

    def local(*args):
        out = f(*args)
        for x in jax.tree.leaves(out):
            assert jax.typeof(x).manual_axis_type.varying == {"data"}
        return out

    split = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=tuple(P("data") if i in of_rows else P() for i in range(len(args))),
        out_specs=P("data"),
    )
    traced = jax.jit(split).trace(*args)
    with hopper():
        device = jax.sharding.get_abstract_mesh().abstract_device
    on_hopper = mesh.abstract_mesh.update(abstract_device=device)
    with jax.sharding.use_abstract_mesh(on_hopper):
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "mosaic_gpu_v2" in text


def test_cores_are_those_of_the_device_lowered_for():
    with hopper(78):
        assert _tiles.cores() == 78
    assert _tiles.cores() == 132


def test_without_absl_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['absl'] = None;"
        "from jaxtricks.kernels.gpu import _tiles, norms, softmax, statistics;"
        "assert 'jax.experimental.pallas.mosaic_gpu' not in sys.modules;"
        "_tiles.plgpu.kernel"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    # Newer versions of Pallas do without.
    said = "ImportError: the GPU kernels need absl-py" in done.stderr
    assert said or done.returncode == 0
    assert said or not OLD
