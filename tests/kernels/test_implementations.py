"""What a user asks for by `implementation=`, and what "auto" takes where."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh
from jax.sharding import PartitionSpec as P

from jaxtricks import kernels
from jaxtricks.kernels import _atomic
from tests.free.common import assert_close, raises
from tests.inputs import rng
from tests.kernels import test_gpu, test_tpu

pytestmark = pytest.mark.kernels

N, D, V = 9, 16, 150
HIDDEN = rng(50).normal(size=(N, D)).astype(np.float32)
WEIGHT = rng(51).normal(size=(D, V)).astype(np.float32) / 4
LABELS = rng(52).integers(0, V, size=N).astype(np.int32)
BIAS = np.where(np.arange(V) == 7, -np.inf, np.sin(np.arange(V))).astype(np.float32)
ROWS = rng(53).normal(size=(3, 2, 200)).astype(np.float32)
GAIN = 1 + rng(54).normal(size=200).astype(np.float32) / 8


def statistics(hidden, weight, **kwargs):
    token = kernels.token_statistics(
        hidden,
        weight,
        LABELS,
        bias=BIAS,
        softcap=4.0,
        scale=1.5,
        stats=("total", "mean", "square"),
        **kwargs,
    )
    return jnp.stack(token[:5])


def cross_entropy(hidden, weight, **kwargs):
    options = {"bias": BIAS, "label_smoothing": 0.1, "z_loss": 0.01}
    return kernels.linear_cross_entropy(hidden, weight, LABELS, **options, **kwargs)


# name -> (function of floats, those floats, whether the GPU kernel takes f32)
OPERATIONS = {
    "token_statistics": (statistics, (HIDDEN, WEIGHT), False),
    "linear_cross_entropy": (cross_entropy, (HIDDEN, WEIGHT), False),
    "softmax": (kernels.softmax, (ROWS,), True),
    "two_pass_softmax": (
        functools.partial(kernels.softmax, two_pass=True),
        (ROWS,),
        True,
    ),
    "log_softmax": (kernels.log_softmax, (ROWS,), True),
    "logsumexp": (kernels.logsumexp, (ROWS,), True),
    "layer_norm": (kernels.layer_norm, (ROWS, GAIN, GAIN - 1), True),
    "rms_norm": (kernels.rms_norm, (ROWS, GAIN), True),
    "crms_norm": (kernels.crms_norm, (ROWS, GAIN), True),
    "add_rms_norm": (kernels.add_rms_norm, (ROWS, ROWS[::-1], GAIN), True),
}
MODES = {"mosaic_tpu": test_tpu.interpreted, "mosaic_gpu": test_gpu.interpreted}


def value_and_gradient(f, floats, implementation):
    """The result, and the gradient of a generic combination of it."""

    def total(*floats):
        out = f(*floats, implementation=implementation)
        leaves = jax.tree.leaves(out)
        parts = [jnp.sum(jnp.cos(jnp.arange(x.size)) * x.ravel()) for x in leaves]
        return sum(parts), out

    argnums = tuple(range(len(floats)))
    grad = jax.jit(jax.grad(total, argnums, has_aux=True))
    return jax.block_until_ready(grad(*map(jnp.asarray, floats)))


@pytest.mark.parametrize("implementation", MODES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_kernel_gives_value_and_gradient(name, implementation):
    f, floats, _ = OPERATIONS[name]
    if implementation == "mosaic_gpu" and not OPERATIONS[name][2]:
        floats = [jnp.asarray(x, jnp.bfloat16) for x in floats]
    with MODES[implementation]():
        got = value_and_gradient(f, floats, implementation)
    for other in ("reference", "xla", "auto"):
        want = value_and_gradient(f, floats, other)
        low = jax.tree.leaves(got)[0].dtype == jnp.bfloat16
        assert_close(got, want, rtol=2**-7 if low else 5e-6, what=other)


DERIVED = ("linear_cross_entropy", "log_softmax", "rms_norm")


@pytest.mark.parametrize("implementation", MODES)
@pytest.mark.parametrize("name", DERIVED)
def test_a_kernel_differentiates_on(name, implementation):
    """Forward mode, and Hessian-vector products in both orders."""
    f, floats, takes_f32 = OPERATIONS[name]
    low = implementation == "mosaic_gpu" and not takes_f32
    floats = [jnp.asarray(x, jnp.bfloat16 if low else jnp.float32) for x in floats]
    along = [jnp.cos(3 * x) for x in floats]

    def products(implementation):
        def total(*floats):
            out = f(*floats, implementation=implementation)
            return jnp.sum(jnp.sin(out.astype(jnp.float32)))

        grad = jax.grad(total, tuple(range(len(floats))))

        def slope(*floats):
            parts = zip(grad(*floats), along, strict=True)
            return sum(jnp.vdot(g.astype(jnp.float32), t) for g, t in parts)

        @jax.jit
        def run(floats, along):
            forward = jax.jvp(total, floats, along)
            return forward, jax.jvp(grad, floats, along)[1], jax.grad(slope)(*floats)

        return jax.block_until_ready(run(tuple(floats), tuple(along)))

    with MODES[implementation]():
        got = products(implementation)
    rtol = 2**-5 if low else 2e-5
    assert_close(got, products("reference"), rtol=rtol, what=name)


@pytest.mark.parametrize("implementation", ["xla", "reference", *MODES])
def test_rows_that_nothing_takes_part_in(implementation):
    """0, -inf and -inf, in every form."""
    x = np.where(np.arange(3)[:, None] == 1, -np.inf, ROWS[:, 0])
    mode = MODES.get(implementation, functools.partial(jax.debug_nans, False))
    with mode():
        softmax, two_pass, log_softmax, logsumexp = (
            np.asarray(jax.jit(functools.partial(f, implementation=implementation))(x))
            for f in (
                kernels.softmax,
                functools.partial(kernels.softmax, two_pass=True),
                kernels.log_softmax,
                kernels.logsumexp,
            )
        )
    assert (softmax[1] == 0).all()
    assert (two_pass[1] == 0).all()
    assert (log_softmax[1] == -np.inf).all()
    assert logsumexp[1] == -np.inf
    assert_close(softmax[::2], jax.nn.softmax(x[::2]), rtol=1e-6)


def on_device(kind, platform, cores):
    device = AbstractDevice(device_kind=kind, platform=platform, num_cores=cores)
    mesh = AbstractMesh((), (), abstract_device=device)
    return jax.sharding.use_abstract_mesh(mesh)


H100 = ("NVIDIA H100 80GB HBM3", "gpu", 132)


@pytest.mark.parametrize("name", OPERATIONS)
def test_auto_takes_the_kernel_of_the_platform(name):
    """On a TPU and on Hopper, not on a CPU, on other GPUs or where nobody knows."""
    f, floats, takes_f32 = OPERATIONS[name]
    low = [jnp.asarray(x, jnp.bfloat16) for x in floats]

    def lowered(platform, floats):
        traced = jax.jit(f).trace(*floats)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert "custom_call @tpu" in lowered("tpu", floats)
    with on_device("TPU v5p", "tpu", 2):
        assert "custom_call @tpu" in lowered("tpu", low)
    with on_device(*H100):
        assert "mosaic_gpu" in lowered("cuda", low)
        assert ("mosaic_gpu" in lowered("cuda", floats)) == takes_f32
    for kind in ("NVIDIA A100-SXM4-80GB", "NVIDIA B200"):
        with on_device(kind, "gpu", 108):
            assert "mosaic_gpu" not in lowered("cuda", low)
    assert "mosaic_gpu" not in lowered("cuda", low)
    assert "custom_call @tpu" not in lowered("cpu", floats)


def test_one_artifact_for_all_platforms():
    """cpu, tpu and cuda from one export, each by its own form."""

    def loss(hidden, weight):
        hidden = kernels.rms_norm(hidden)
        total = kernels.linear_cross_entropy(hidden, weight, LABELS).sum()
        return total + kernels.logsumexp(hidden).sum()

    f = jax.jit(jax.grad(loss))
    unchecked = [
        jax.export.DisabledSafetyCheck.custom_call(name)
        for name in ("tpu_custom_call", "mosaic_gpu_v2")
    ]
    run = functools.partial(jax.export.export, disabled_checks=unchecked)
    exported = run(f, platforms=("cpu", "tpu", "cuda"))(HIDDEN, WEIGHT)
    assert "tpu_custom_call" in exported.mlir_module()
    assert_close(exported.call(HIDDEN, WEIGHT), f(HIDDEN, WEIGHT))


def test_the_choice_is_said_once(caplog):
    _atomic._say.cache_clear()
    with caplog.at_level(logging.INFO, logger="jaxtricks.kernels"):
        for _ in range(2):
            traced = jax.jit(lambda x: kernels.softmax(x)).trace(ROWS)
            traced.lower(lowering_platforms=("tpu",))
            traced.lower(lowering_platforms=("cuda",))
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "softmax on tpu: its kernel",
        "softmax on cuda: XLA, as the device is not known to run the kernel",
    ]


def test_inside_shard_map():
    """Every device runs the kernel on its own rows and classes."""
    device = AbstractDevice(device_kind="TPU v5p", platform="tpu", num_cores=2)
    explicit = (jax.sharding.AxisType.Explicit,) * 2
    mesh = AbstractMesh(
        (4, 2), ("data", "model"), axis_types=explicit, abstract_device=device
    )
    with jax.sharding.use_abstract_mesh(mesh):
        specs = [
            jax.ShapeDtypeStruct(
                shape, dtype, sharding=jax.sharding.NamedSharding(mesh, spec)
            )
            for shape, dtype, spec in (
                ((64, 32), jnp.float32, P("data")),
                ((32, 512), jnp.float32, P(None, "model")),
                ((64,), jnp.int32, P("data")),
            )
        ]
        traced = jax.jit(kernels.linear_cross_entropy).trace(*specs)
        text = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert "custom_call @tpu" in text


def test_what_a_kernel_cannot_take_is_said():
    with jax.enable_x64(True):
        wide = ROWS.astype(np.float64)
        for f in (kernels.softmax, kernels.rms_norm):
            for implementation in MODES:
                wanted = f"implementation: {implementation} of .* cannot take .*float64"
                raises(f, wide, implementation=implementation, naming=wanted)
    f = functools.partial(kernels.linear_cross_entropy, HIDDEN, WEIGHT, LABELS)
    raises(f, implementation="mosaic_gpu", naming="cannot take .*float32")
    raises(
        f,
        implementation="mosaic_tpu",
        class_weights=np.ones(V, np.float32),
        naming="cannot take class weights",
    )
    raises(f, implementation="triton", naming="wanted one of 'auto'")


def test_supported_says_what_an_explicit_kernel_would():
    """True where the kernel runs, False where asking for it raises."""
    for platform in ("tpu", "gpu"):
        implementation = f"mosaic_{platform}"
        for dtype in (jnp.float32, jnp.bfloat16, jnp.float16, jnp.float64):
            for shape in ((4, 200), (0, 200), (3, 7), (2, 2**20)):
                with jax.enable_x64(True):
                    x = jax.ShapeDtypeStruct(shape, dtype)
                    for name in ("logsumexp", "rms_norm"):
                        f = functools.partial(
                            getattr(kernels, name), implementation=implementation
                        )
                        can = kernels.supported(
                            name, shape, dtype=dtype, platform=platform
                        )
                        if can:
                            jax.eval_shape(f, x)
                        else:
                            with pytest.raises(ValueError, match="cannot take"):
                                jax.eval_shape(f, x)
    for bad, naming in (
        (("conv", (2, 3)), "operation: wanted one of"),
        (("softmax", (2, 3, 4)), "shape: wanted 2 sizes for softmax"),
    ):
        raises(
            lambda bad=bad: kernels.supported(*bad, dtype="float32", platform="tpu"),
            naming=naming,
        )
