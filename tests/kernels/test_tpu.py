"""TPU kernels: interpreted against float64 with race detection, lowered, compiled.

Interpreted memory starts as NaN, so that what a ragged tile reads beyond its array
shows. The compiler is libtpu's where it is installed; it needs no TPU.
"""

import contextlib
import importlib.util
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxtricks.kernels.tpu import _logits, _tiles, norms, softmax, statistics
from tests.inputs import rng

pytestmark = pytest.mark.kernels

F16, BF16, F32 = jnp.float16, jnp.bfloat16, jnp.float32
EPS = {F32: 2.0**-23, BF16: 2.0**-7, F16: 2.0**-10}


@contextlib.contextmanager
def interpreted(cores=1):
    """Kernels run on the CPU; several cores share what the grid calls parallel."""
    from jax._src.pallas.mosaic.interpret import interpret_pallas_call as state

    params = pltpu.InterpretParams(
        detect_races=True,
        uninitialized_memory="nan",
        out_of_bounds_reads="raise",
        num_cores_or_threads=cores,
        random_seed=3,
    )
    try:
        with pltpu.force_tpu_interpret_mode(params):
            yield
            assert not state.races.races_found
    finally:
        pltpu.reset_tpu_interpret_mode_state()


def run(f, *args, cores=1, **kwargs):
    """f's arrays, of a kernel interpreted, as float64."""
    with interpreted(cores):
        out = jax.block_until_ready(f(*args, **kwargs))
    return jax.tree.map(wide, out)


def wide(x):
    return np.asarray(x, np.float64)


def close(got, want, atol, what=""):
    """Equal where not finite, within atol (one number or one an entry) elsewhere."""
    got, want = wide(got), wide(want)
    assert got.shape == want.shape, what
    odd = ~np.isfinite(want)
    np.testing.assert_array_equal(got[odd], want[odd], err_msg=what)
    error = np.abs(np.where(odd, 0, got) - np.where(odd, 0, want))
    worst = error - np.broadcast_to(atol, error.shape)
    assert (worst <= 0).all(), f"{what}: off by {error.max()}, {worst.max()} too many"


# --- token statistics -----------------------------------------------------------------


def problem(n, d, v, dtype=F32, layout="dv", options=(), spread=1.0, seed=0):
    """(hidden, weight, labels, bias, softcap, scale); labels that are none included."""
    r = rng(seed)
    hidden = jnp.asarray(spread * r.normal(size=(n, d)), dtype)
    weight = jnp.asarray(r.normal(size=(d, v)) / d**0.5, dtype)
    labels = r.integers(0, v, size=n).astype(np.int32)
    for at, label in enumerate((-1, v, 10**6)):
        labels[3 * at + 2 : 3 * at + 3] = label
    bias = r.normal(size=v).astype(np.float32) if "bias" in options else None
    if bias is not None and v > 3:
        bias[[0, v - 1]] = -np.inf
        labels[:1] = 0  # ruled out
    return (
        hidden,
        weight if layout == "dv" else weight.T,
        jnp.asarray(labels),
        None if bias is None else jnp.asarray(bias),
        1.5 if "softcap" in options else None,
        jnp.float32(0.7) if "scale" in options else None,
    )


def oracle(hidden, weight, labels, bias, softcap, scale, layout, cotangents=None):
    """The statistics in float64; with cotangents also those of hidden @ weight."""
    h, w = wide(hidden), wide(weight) if layout == "dv" else wide(weight).T
    with np.errstate(all="ignore"):
        u = h @ w + (0 if bias is None else wide(bias))
        live = u > -np.inf
        t = np.tanh(u / softcap) if softcap is not None else u
        z = softcap * t if softcap is not None else t
        z = np.where(live, z if scale is None else float(scale) * z, -np.inf)
        peak = z.max(1, keepdims=True)
        peak[peak == -np.inf] = 0
        z = z - peak
        e = np.exp(z)
        s = e.sum(1, keepdims=True)
        p = np.where(s == 0, 0, e / s)
        finite = np.where(live, z, 0)
        column = np.arange(z.shape[1])
        hit = (wide(labels)[:, None] == column) & live
        square = np.log((e * e).sum(1))
        found = {
            "peak": peak[:, 0],
            "lse": np.log(s[:, 0]),
            "target": np.where(
                hit.any(1), np.where(hit, z, 0).sum(1, where=hit), -np.inf
            ),
            "total": finite.sum(1),
            "live": live.sum(1),
            "mean": (p * finite).sum(1),
            "square": square,
            "argmax": z.argmax(1),
        }
        if cotangents is None:
            return found
        g = {k: wide(x)[:, None] for k, x in cotangents.items()}
        zero = np.zeros((len(z), 1))
        dz = g.get("lse", zero) * p + g.get("target", zero) * hit
        dz = dz + g.get("total", zero) * live
        dz = dz + g.get("mean", zero) * p * (1 + finite - found["mean"][:, None])
        p2 = np.where(s == 0, 0, e * e / (e * e).sum(1, keepdims=True))
        dz = dz + 2 * g.get("square", zero) * p2
        slope = (1 if softcap is None else 1 - t * t) * (1 if scale is None else scale)
        return found, np.where(live, dz * slope, 0)


def tiled(monkeypatch):
    """Tiles so small that little arrays take several along every axis."""

    def heuristic(n, d, v, dtype, kernel="forward"):
        features = 128 if kernel == "forward" else d
        return statistics.Tiles(128, 128, min(features, d))

    monkeypatch.setattr(statistics, "heuristic", heuristic)


ALL = ("bias", "softcap", "scale")
PROBLEMS = [
    # n, d, v, dtype, layout, options
    (1, 7, 13, F32, "dv", ()),
    (1, 1, 1, F32, "vd", ("scale",)),
    (131, 5, 257, F32, "vd", ALL),
    (257, 131, 131, F32, "dv", ("bias", "softcap")),
    (128, 256, 256, BF16, "dv", ("scale",)),
    (131, 200, 257, BF16, "vd", ALL),
    (13, 7, 131, F16, "dv", ALL),
]
SOME = ("target", "total", "mean", "square", "argmax")


@pytest.mark.parametrize("case", PROBLEMS, ids=str)
def test_statistics_equal_the_oracle(case, monkeypatch):
    n, d, v, dtype, layout, options = case
    args = problem(n, d, v, dtype, layout, options)
    want = oracle(*args, layout)
    if d > 1:
        tiled(monkeypatch)
    cores = 1 + (n > 128)
    got = run(statistics.forward, *args, cores=cores, layout=layout, stats=SOME)
    assert got.keys() == want.keys()
    # A logit is off by the rounding of d products added, and the statistics by a few.
    size = np.abs(wide(args[0])).sum(1).max() * np.abs(wide(args[1])).max() + 1
    off = EPS[F32] * max(4.0, d**0.5) * size
    for name, x in want.items():
        atol = off * (v if name == "total" else 4)
        close(got[name], x, 0 if name in ("live", "argmax") else atol, name)


@pytest.mark.parametrize("case", PROBLEMS, ids=str)
def test_gradients_equal_the_oracle(case, monkeypatch):
    n, d, v, dtype, layout, options = case
    args = problem(n, d, v, dtype, layout, options, seed=1)
    r = rng(2)
    given = _logits.COTANGENTS if v != 131 else ("lse", "target")
    cotangents = {k: r.normal(size=n).astype(np.float32) for k in given}
    saved, dz = oracle(*args, layout, cotangents)
    saved = {k: jnp.asarray(x, jnp.float32) for k, x in saved.items()}
    if d > 1:
        tiled(monkeypatch)
    cotangents = {k: jnp.asarray(x) for k, x in cotangents.items()}
    args = (*args, saved, cotangents)
    got = run(statistics.backward, *args, cores=1 + (n > 128), layout=layout)
    h, w = wide(args[0]), wide(args[1]) if layout == "dv" else wide(args[1]).T
    by_weight = h.T @ dz, np.abs(h).T @ np.abs(dz)
    if layout == "vd":
        by_weight = by_weight[0].T, by_weight[1].T
    wanted = [(dz @ w.T, np.abs(dz) @ np.abs(w).T), by_weight]
    # dz is rounded to bfloat16 where the inputs are, by half its eps; sums are of f32.
    off = EPS[BF16] / 2 if dtype == BF16 else 0
    for what, x, (expect, size) in zip(
        ("hidden", "weight"), got[:2], wanted, strict=True
    ):
        close(x, expect, off * size + 2e-5 * (size.max() + 1), what)
    if args[3] is None:
        assert got[2] is None
    else:
        close(got[2], dz.sum(0), 2e-5 * np.abs(dz).sum(0).max(), "bias")


def test_no_class_at_all():
    """Every class is ruled out: no NaN, and nothing is pulled."""
    layout = "vd"
    args = list(problem(5, 7, 131, F32, layout, ALL))
    args[3] = jnp.full(131, -jnp.inf)
    got = run(statistics.forward, *args, layout=layout, stats=SOME)
    want = {"peak": 0, "lse": -np.inf, "target": -np.inf, "square": -np.inf}
    for name, x in got.items():
        np.testing.assert_array_equal(x, np.full(5, want.get(name, 0)), err_msg=name)
    saved = {k: jnp.asarray(x, jnp.float32) for k, x in got.items()}
    ones = {k: jnp.ones(5) for k in _logits.COTANGENTS}
    for x in run(statistics.backward, *args, saved, ones, layout=layout):
        assert (x == 0).all()


def test_logits_of_1e4_keep_their_digits():
    """The column that a one-hot hidden state picks, to the last bit."""
    v, r = 300, rng(5)
    hidden = jnp.eye(3, dtype=F32)
    weight = (1e4 + np.round(64 * r.normal(size=(3, v))) / 64).astype(np.float32)
    labels = jnp.arange(3, dtype=jnp.int32)
    args = (hidden, jnp.asarray(weight), labels, None, None, None)
    got = run(statistics.forward, *args, layout="dv", stats=SOME)
    want = oracle(*args, "dv")
    for name in ("peak", "argmax", "live"):
        close(got[name], want[name], 0, name)
    for name in ("lse", "target", "mean", "square"):
        close(got[name], want[name], 1e-5, name)
    close(got["total"], want["total"], 1e-6 * np.abs(want["total"]), "total")


def test_what_is_not_asked_for_is_not_there():
    args = problem(3, 5, 7)
    got = run(statistics.forward, *args, layout="dv")
    assert got.keys() == {"peak", "lse"}


def test_nan_is_not_hidden():
    hidden, *rest = problem(3, 5, 131, options=("bias",))
    hidden = hidden.at[1, 2].set(jnp.nan)
    got = run(statistics.forward, hidden, *rest, layout="dv", stats=("target",))
    assert np.isnan(got["lse"]).tolist() == [False, True, False]


def test_vmap_over_everything(monkeypatch):
    # Interpret mode has no vmap of a grid that says which axes are parallel.
    anyhow = pltpu.CompilerParams()
    monkeypatch.setattr(pltpu, "CompilerParams", lambda **_: anyhow)
    both = [problem(3, 5, 131, options=ALL, seed=seed) for seed in (0, 1)]
    stacked = [
        jnp.stack([jnp.asarray(x) for x in xs]) for xs in zip(*both, strict=True)
    ]
    cotangents = {"lse": jnp.ones(3), "target": -jnp.ones(3)}

    def f(*args):
        token = statistics.forward(*args, layout="dv", stats=("target",))
        return token, statistics.backward(*args, token, cotangents, layout="dv")

    got = run(jax.vmap(f), *stacked)
    for i, args in enumerate(both):
        token, dz = oracle(*args, "dv", cotangents)
        close(got[0]["lse"][i], token["lse"], 1e-5)
        close(got[1][0][i], dz @ wide(args[1]).T, 1e-5)
        close(got[1][1][i], wide(args[0]).T @ dz, 1e-5)
        close(got[1][2][i], dz.sum(0), 1e-5)


@pytest.mark.parametrize("layout", ["dv", "vd"])
def test_what_does_not_fit_is_said(layout):
    def lacks(n, d, v, dtype=BF16, other=None):
        shape = (d, v) if layout == "dv" else (v, d)
        hidden = jax.ShapeDtypeStruct((n, d), dtype)
        return statistics.lacks(
            hidden, jax.ShapeDtypeStruct(shape, other or dtype), layout=layout
        )

    assert lacks(8192, 2304, 256000) is None
    assert lacks(1, 8192, 128256) is None
    assert lacks(1, 3072, 7, F32) is None
    assert "features" in lacks(8192, 16384, 128256)
    assert "features" in lacks(8192, 8192, 128256, F32)
    assert "float64" in lacks(8, 8, 8, np.float64)
    assert "bfloat16" in lacks(8, 8, 8, BF16, F32)
    assert "empty" in lacks(0, 8, 8)
    assert "classes" in lacks(8, 8, 2**24 + 1)


@pytest.mark.parametrize("kernel", ["forward", "d_hidden", "d_weight"])
def test_tiles_of_statistics_fit_in_the_limit(kernel):
    for n in (1, 100, 8192):
        for d in (1, 131, 768, 2304, 3584, 8192):
            for v in (1, 1000, 50257, 256000):
                for dtype in (F32, BF16, F16):
                    tiles = statistics.heuristic(n, d, v, dtype, kernel)
                    held = statistics.scratch_bytes(tiles, d, dtype, kernel)
                    fits = kernel == "forward" or d < 8192 or dtype == BF16
                    assert (held <= _tiles.VMEM_BYTES == 16 * 2**20) == fits
                    assert tiles.tokens % 128 == tiles.classes % 128 == 0
                    assert tiles.tokens < n + 256
                    assert tiles.classes < v + 256


# --- softmax --------------------------------------------------------------------------

SOFTMAX = {
    "softmax": softmax.softmax,
    "log_softmax": softmax.log_softmax,
    "two_pass_softmax": softmax.two_pass_softmax,
    "logsumexp": softmax.logsumexp,
}


def softmax_oracle(name, x):
    x = wide(x)
    with np.errstate(all="ignore"):
        peak = x.max(1, keepdims=True)
        peak = np.where(peak == -np.inf, 0, peak)
        e = np.exp(x - peak)
        total = e.sum(1, keepdims=True)
        if name == "logsumexp":
            return (peak + np.log(total))[:, 0]
        total = np.where(total == 0, 1, total)  # of nothing, all shares are 0
        return x - peak - np.log(total) if name == "log_softmax" else e / total


def rows_of_softmax(rows, n, dtype):
    """Generic rows, then edges as far as there are rows."""
    r = rng(rows, n)
    x = 3 * r.normal(size=(rows, n))
    lowest = float(jnp.finfo(dtype).min)
    for at, row in enumerate(
        (
            np.where(np.arange(n) % 3 == 0, -np.inf, x[0]),
            np.full(n, -np.inf),
            np.where(np.arange(n) == n - 1, x[0], -np.inf),
            np.round(1e4 + x[0]),
            np.round(-1e4 + x[0]),
            np.full(n, lowest),
            np.where(np.arange(n) < n // 2, lowest, x[0]),
            np.full(n, 3.0),
        )
    ):
        x[2 * at + 1 : 2 * at + 2] = row
    return jnp.asarray(x, dtype)


@pytest.mark.parametrize("name", SOFTMAX)
@pytest.mark.parametrize(
    ("rows", "n", "dtype"),
    [(1, 1, F16), (17, 131, F32), (19, 300, BF16)],
)
def test_softmax_equals_the_oracle(name, rows, n, dtype, monkeypatch):
    monkeypatch.setattr(softmax, "heuristic", lambda *_: softmax.Tiles(16, 128))
    x = rows_of_softmax(rows, n, dtype)
    with interpreted(cores=1 + (dtype == BF16)):
        got = SOFTMAX[name](x)
    assert got.dtype == (F32 if name == "logsumexp" else dtype)
    want = softmax_oracle(name, x)
    # Half a unit of the result's last place, and what f32 rounds on the way.
    size = np.where(np.isfinite(want), np.abs(want), 0)
    off = 8 * EPS[F32] * (1 + size if "log" in name else size) + 1e-37
    if name != "logsumexp":
        off = off + size * EPS[dtype] / 2 + float(jnp.finfo(dtype).smallest_subnormal)
    close(got, want, off, name)


def test_the_two_pass_softmax_is_right_up_to_its_bound():
    """Far from 0, where float32 itself is coarse, ratios are still those of exp."""
    steps = np.arange(-64, 65) / 8.0
    x = np.stack([centre + steps for centre in (-45000.0, 30000.0, 45000.0)])
    got = run(softmax.two_pass_softmax, jnp.asarray(x, jnp.float32))
    want = softmax_oracle("softmax", x.astype(np.float32))
    close(got, want, 2e-6 * want)


@pytest.mark.parametrize("name", SOFTMAX)
def test_infinity_and_nan_spoil_a_row_and_no_other(name):
    x = np.zeros((4, 5), np.float32)
    x[1, 2], x[2, 2] = np.nan, np.inf
    got = run(SOFTMAX[name], jnp.asarray(x))
    spoilt = [bool(np.isnan(row).any()) for row in got]
    assert spoilt == [False, True, name != "logsumexp", False]
    if name == "logsumexp":
        assert got[2] == np.inf


def test_tiles_of_softmax_fit_in_the_limit():
    for rows in (1, 100, 4096):
        for n in (1, 1000, 8192, 256000):
            for dtype in (F32, BF16):
                tiles = softmax.heuristic(rows, n, dtype)
                assert softmax.scratch_bytes(tiles, dtype) <= _tiles.VMEM_BYTES
    assert softmax.lacks(jax.ShapeDtypeStruct((3, 4), F16)) is None
    assert "int32" in softmax.lacks(jax.ShapeDtypeStruct((3, 4), jnp.int32))
    assert "empty" in softmax.lacks(jax.ShapeDtypeStruct((3, 0), F32))


# --- norms ----------------------------------------------------------------------------


def norm_oracle(x, eps, kind):
    """(x^, rstd, the Jacobian d x^ / d x of each row), all three kinds as RMS(A x)."""
    d = x.shape[1]
    a = {
        "layer": np.eye(d) - 1 / d,
        "rms": np.eye(d),
        "crms": np.concatenate([np.eye(d), -np.ones((1, d))]),
    }[kind]
    z = x @ a.T
    rstd = ((z * z).mean(1) + eps) ** -0.5
    z = z * rstd[:, None]
    outer = z[:, :, None] * z[:, None, :] / len(a)
    jacobian = rstd[:, None, None] * (np.eye(len(a)) - outer) @ a
    return z[:, :d], rstd, jacobian[:, :d]


NORMS = [
    # rows, d, dtype, residual, scale, bias
    (1, 1, F32, False, True, True),
    (17, 131, F32, True, False, True),
    (37, 131, BF16, True, True, True),
    (17, 40, F16, True, True, False),
]


@pytest.mark.parametrize("kind", norms.KINDS)
@pytest.mark.parametrize("case", NORMS, ids=str)
def test_norms_equal_the_oracle(case, kind, monkeypatch):
    rows, d, dtype, *has = case
    monkeypatch.setattr(norms, "heuristic", lambda *_: norms.Tiles(16))
    r = rng(rows, d)
    has_residual, has_scale, has_bias = has
    x = jnp.asarray(2 + r.normal(size=(rows, d)), dtype)
    residual = jnp.asarray(r.normal(size=(rows, d)), dtype) if has_residual else None
    scale = jnp.asarray(r.normal(size=d), jnp.float32) if has_scale else None
    bias = jnp.asarray(r.normal(size=d), jnp.float32) if has_bias else None
    dy, dsummed = (jnp.asarray(r.normal(size=(rows, d)), dtype) for _ in range(2))
    dsummed = dsummed if has_residual else None
    with interpreted(cores=1 + (dtype == BF16)):
        y, summed, mean, rstd = norms.forward(
            x, residual, scale, bias, jnp.float32(1e-3), kind=kind
        )
        dx, dscale, dbias = norms.backward(
            dy, dsummed, summed, scale, mean, rstd, kind=kind, has_bias=has_bias
        )
    assert y.dtype == summed.dtype == dx.dtype == dtype
    assert mean.dtype == rstd.dtype == F32
    exact = wide(x) + (0 if residual is None else wide(residual))
    close(summed, exact, EPS[dtype] / 2 * np.abs(exact), "summed")
    x, factor = wide(summed), 1 if scale is None else wide(scale)
    hat, want_rstd, jacobian = norm_oracle(x, 1e-3, kind)
    close(rstd, want_rstd, 4e-6 * want_rstd, "rstd")
    close(mean, x.mean(1) if kind == "layer" else np.zeros(rows), 2e-6, "mean")
    want = hat * factor + (0 if bias is None else wide(bias))
    close(y, want, EPS[dtype] * np.abs(want) + 2e-5, "y")
    want = np.einsum("ri,rij->rj", wide(dy) * factor, jacobian)
    want = want + (0 if dsummed is None else wide(dsummed))
    close(dx, want, EPS[dtype] * np.abs(want) + 1e-4 * want_rstd[:, None], "dx")
    assert (dscale is None, dbias is None) == (not has_scale, not has_bias)
    if has_scale:
        close(dscale, (wide(dy) * hat).sum(0), 1e-4, "dscale")
    if has_bias:
        close(dbias, wide(dy).sum(0), 1e-5, "dbias")


def test_tiles_of_norms_fit_in_the_limit():
    for rows in (1, 8192):
        for d in (1, 768, 8192, 16384):
            for dtype in (F32, BF16):
                tiles = norms.heuristic(rows, d, dtype)
                assert norms.scratch_bytes(tiles, d, dtype) <= _tiles.VMEM_BYTES
    assert norms.lacks(jax.ShapeDtypeStruct((3, 4), F16)) is None
    assert "features" in norms.lacks(jax.ShapeDtypeStruct((3, 10**6), F32))
    assert "int32" in norms.lacks(jax.ShapeDtypeStruct((3, 4), jnp.int32))
    assert "empty" in norms.lacks(jax.ShapeDtypeStruct((0, 4), F32))
    x = jax.ShapeDtypeStruct((3, 4), F32)
    assert "residual" in norms.lacks(x, jax.ShapeDtypeStruct((3, 4), BF16))


# --- lowering and compiling -----------------------------------------------------------


def programs(spec=jax.ShapeDtypeStruct):
    """Name -> (function, arguments, kernels in it), at sizes that people train at."""
    found = {}

    def statistics_of(name, n, d, v, dtype, layout, extra):
        shape = (d, v) if layout == "dv" else (v, d)
        bias = spec((v,), F32) if extra else None
        cap = spec((), F32) if extra else None
        args = (
            spec((n, d), dtype),
            spec(shape, dtype),
            spec((n,), jnp.int32),
            bias,
            cap,
        )
        stats = SOME if extra else ("target",)
        given = _logits.COTANGENTS if extra else ("lse", "target")

        def forward(h, w, y, b, c):
            return statistics.forward(h, w, y, b, c, c, layout=layout, stats=stats)

        def backward(h, w, y, b, c, x):
            saved = dict.fromkeys(("peak", "lse", "mean", "square"), x)
            cotangents = dict.fromkeys(given, x)
            return statistics.backward(
                h, w, y, b, c, c, saved, cotangents, layout=layout
            )

        found[f"statistics {name}"] = forward, args, 1
        found[f"statistics {name} backward"] = backward, (*args, spec((n,), F32)), 2

    statistics_of("gemma", 8192, 2304, 256000, BF16, "dv", False)
    statistics_of("gemma tied", 8192, 2304, 256000, BF16, "vd", True)
    statistics_of("tiled features", 1000, 8192, 50257, BF16, "dv", True)
    statistics_of("f32", 100, 300, 1000, F32, "vd", True)
    statistics_of("f16", 1, 7, 13, F16, "dv", False)
    for name, f in SOFTMAX.items():
        found[name] = f, (spec((4096, 256000), BF16),), 1
        found[f"{name} small"] = f, (spec((1, 7), F16),), 1
    x, few = spec((8192, 2304), BF16), spec((2304,), F32)
    for kind in norms.KINDS:

        def forward(x, scale, kind=kind):
            return norms.forward(x, x, scale, scale, 1e-6, kind=kind)

        def backward(x, scale, mean, kind=kind):
            args = (x, x, x, scale, mean, mean)
            return norms.backward(*args, kind=kind, has_bias=True)

        found[kind] = forward, (x, few), 1
        found[f"{kind} backward"] = backward, (x, few, spec((8192,), F32)), 1
    return found


@contextlib.contextmanager
def a_tpu(kind, axes=()):
    device = jax.sharding.AbstractDevice(device_kind=kind, platform="tpu", num_cores=1)
    mesh = jax.sharding.AbstractMesh(
        (4,) * len(axes),
        axes,
        axis_types=(AxisType.Auto,) * len(axes),
        abstract_device=device,
    )
    with jax.sharding.use_abstract_mesh(mesh):
        yield mesh


def lowered(f, *args):
    return jax.jit(f).trace(*args).lower(lowering_platforms=("tpu",))


@pytest.mark.parametrize("kind", ["TPU v5e", "TPU v5p"])
def test_lowers_for_a_tpu(kind):
    for name, (f, args, kernels) in programs().items():
        with a_tpu(kind):
            text = lowered(f, *args).as_text()
        assert text.count("@tpu_custom_call") == kernels, name
        assert "dot_general" not in text, name
        if "gemma" in name:
            assert not re.search(r"tensor<(8192x256000|256000x8192)x", text), name


def test_holds_nothing_of_64_bits():
    """Where the user enabled them: Mosaic would refuse, after lowering."""
    for name, (f, args, _) in programs().items():
        with a_tpu("TPU v5e"), jax.enable_x64(True):
            program = jax.make_jaxpr(f)(*args)
        for eqn in program.eqns:
            if eqn.primitive.name == "pallas_call":
                maps = eqn.params["grid_mapping"].block_mappings
                inside = [eqn.params["jaxpr"], *(m.index_map_jaxpr for m in maps)]
                assert not re.search(r"\b[if]64\[", str(inside)), name


def test_lowers_under_vmap():
    """Over all arguments, traced scalars included."""
    for name, (f, args, kernels) in programs().items():
        if "tied" in name or "gemma" not in name:
            twice = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct((2, *x.shape), x.dtype), list(args)
            )
            axes = [None if x is None else 0 for x in args]
            with a_tpu("TPU v5e"):
                text = lowered(jax.vmap(f, in_axes=axes), *twice).as_text()
            assert text.count("@tpu_custom_call") == kernels, name


def test_lowers_inside_shard_map():
    """Tokens on one axis, everything else whole; results vary over that axis."""
    for name, (f, args, kernels) in programs().items():
        rows = args[0].shape[0]
        if rows % 4:
            continue

        def spec(x, rows=rows):
            return P("data") if x is not None and x.shape[:1] == (rows,) else P()

        specs = tuple(spec(x) for x in args)
        with a_tpu("TPU v5e", ("data",)) as mesh:

            def local(*args, f=f):
                out = jax.tree.leaves(f(*args))
                assert all(
                    jax.typeof(x).manual_axis_type.varying == {"data"} for x in out
                )
                return [x[None] for x in out]

            split = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P("data"))
            text = lowered(split, *args).as_text()
        assert text.count("@tpu_custom_call") == kernels, name


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu")
@pytest.mark.parametrize("chip", ["v5e:2x2", "v5p:2x2x1"])
def test_compiles_for_a_tpu(chip, monkeypatch, tmp_path):
    """Within its VMEM, and with no room for logits in its HBM."""
    from jax.experimental import topologies

    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("TPU_LOG_DIR", str(tmp_path))
    chips = topologies.get_topology_desc(platform="tpu", topology_name=chip)
    place = jax.sharding.SingleDeviceSharding(chips.devices[0])

    def spec(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    for name, (f, args, _) in programs(spec).items():
        with a_tpu({"v5e": "TPU v5e", "v5p": "TPU v5p"}[chip[:3]]):
            program = lowered(f, *args)
        used = program.compile().memory_analysis()
        if "gemma" in name:
            assert used.temp_size_in_bytes < 2**24, name
