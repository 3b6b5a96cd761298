"""Blockwise losses on meshes: what moves between devices, and what each computes."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtricks.kernels import linear_cross_entropy, linear_cross_entropy_value_and_grad
from jaxtricks.kernels._by_chunks import COPIES
from tests.free.common import assert_close, mesh
from tests.inputs import rng

pytestmark = pytest.mark.kernels

CHUNK_MB = 2**20 / COPIES  # of a workspace_mb
N, D, V = 64, 8, 16


def data(tokens=N, features=D, classes=V):
    r = rng(41)
    hidden = r.normal(size=(tokens, features)).astype(np.float32)
    weight = (r.normal(size=(features, classes)) / features**0.5).astype(np.float32)
    return hidden, weight, r.integers(0, classes, size=tokens).astype(np.int32)


def ramp(batch):
    return jnp.cos(jnp.arange(np.prod(batch), dtype=jnp.float32)).reshape(batch)


def total_gradient(batch, **kwargs):
    """The gradient of a weighted loss, of hidden [*batch, features] and weight."""

    def total(hidden, weight, labels):
        loss = linear_cross_entropy(hidden, weight, labels, **kwargs)
        return jnp.sum(ramp(batch) * loss)

    return jax.jit(jax.grad(total, argnums=(0, 1)))


def made(kind, shape):
    return jax.make_mesh(shape, ("data", "model"), axis_types=(kind,) * 2)


def put(on, arrays, specs):
    return [
        jax.device_put(x, NamedSharding(on, spec))
        for x, spec in zip(arrays, specs, strict=True)
    ]


def collectives(hlo: str) -> list[tuple[str, str, bool]]:
    """(what, its result's shape, whether in a loop) of every collective.

    One among groups of one device each does nothing.
    """
    found, in_loop = [], set(re.findall(r"body=%?([\w.-]+)", hlo))
    name = ""
    for line in hlo.splitlines():
        if head := re.match(r"(?:ENTRY )?%?([\w.-]+) .*\{$", line):
            name = head[1]
        op = re.search(
            r"= (\S+|\(.*?\)) (all-gather|all-reduce|all-to-all|collective-permute"
            r"|reduce-scatter)(?:-start)?\(",
            line,
        )
        if op and not _alone(line):
            for shape in re.findall(r"\w+\[[\d,]*\]", op[1]):
                found.append((op[2], shape, name in in_loop))
    return found


def _alone(line: str) -> bool:
    """Whether its groups have one device each: {{0},{1}}, [2,1]<=[2] or a mesh axis."""
    if axis := re.search(r"replica_groups=mesh\[(.*?)\] \{'(\w+)'\}", line):
        return f"'{axis[2]}'=1" in axis[1].split(",")
    return bool(re.search(r"replica_groups=(\{\{\d+\}|\[\d+,1\])", line))


def products(hlo: str) -> list[int]:
    """The multiplications in every matrix product of the program of one device."""
    types = dict(re.findall(r"%([\w.-]+) = (\w+\[[\d,]*\])", hlo))
    found = []
    for out, left, axes in re.findall(
        r"= \w+\[([\d,]*)\][^=]* dot\((?:\S+ )?%([\w.-]+),.*"
        r"lhs_contracting_dims=\{([\d,]*)\}",
        hlo,
    ):
        sizes = re.findall(r"\d+", types[left].split("[")[1])
        inner = [int(sizes[int(axis)]) for axis in axes.split(",")]
        found.append(int(np.prod([int(n) for n in out.split(",")] + inner)))
    return found


KINDS = [AxisType.Auto, AxisType.Explicit]
SHAPES = [(8, 1), (1, 8), (4, 2)]
LAYOUTS = {
    "split by class": P(None, "model"),
    "replicated": P(None, None),
    "split by class and feature": P("data", "model"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_statistics_and_gradients_travel(kind, shape, layout):
    """One chunk, so that the program shows every product and collective once."""
    arrays, weight = data(), LAYOUTS[layout]
    rows, columns = N // shape[0], V // shape[1]
    on = made(kind, shape)
    with jax.set_mesh(on):
        args = put(on, arrays, (P("data"), weight, P("data")))
        forward = jax.jit(linear_cross_entropy).lower(*args).compile().as_text()
        grad = total_gradient((N,)).lower(*args).compile()
        backward = grad.as_text()
        assert_close(grad(*args), total_gradient((N,))(*arrays), rtol=5e-6)

    # A weight whose features are split as well comes together first.
    own = f"f32[{D},{columns}]"
    gathered = [own] if weight[0] == "data" and shape[0] > 1 else []
    per_token = {f"f32[{rows}]", f"s32[{rows}]", f"pred[{rows}]"}
    found = collectives(forward)
    assert [s for what, s, _ in found if what != "all-reduce"] == gathered
    summed = {s for what, s, _ in found if what == "all-reduce"}
    assert summed <= per_token if shape[1] > 1 else summed == set()

    found = collectives(backward)
    large = [(what, s) for what, s, _ in found if s not in per_token]
    wanted = [("all-gather", s) for s in gathered]
    if shape[0] > 1:  # the weight's gradient over "data"
        wanted.append(("all-reduce", own))
    if shape[1] > 1:  # the hidden states' over "model"
        wanted.append(("all-reduce", f"f32[{rows},{D}]"))
        if kind == AxisType.Explicit and layout == "replicated":  # as its type says
            wanted.append(("all-gather", f"f32[{D},{V}]"))
    assert sorted(large) == sorted(wanted)

    each = N * D * V // 8
    assert sum(products(forward)) == each
    assert sum(products(backward)) == 3 * each


def test_classes_stay_on_any_axes_of_an_explicit_mesh():
    arrays, on = data(), made(AxisType.Explicit, (4, 2))
    for axes, devices in ((("data", "model"), 8), ("data", 4), ("model", 2)):
        with jax.set_mesh(on):
            args = put(on, arrays, (P(), P(None, axes), P()))
            compiled = jax.jit(linear_cross_entropy).lower(*args).compile()
            assert_close(compiled(*args), linear_cross_entropy(*arrays), rtol=5e-6)
        hlo = compiled.as_text()
        assert {what for what, *_ in collectives(hlo)} == {"all-reduce"}
        assert sum(products(hlo)) == N * D * V // devices


def test_the_count_of_products_sees_replication():
    """The check above fails for a computation that every device repeats."""
    arrays, on = data(), made(AxisType.Auto, (4, 2))

    def replicated(hidden, weight, labels):
        run = functools.partial(jax.shard_map, mesh=on, out_specs=P("data"))
        return run(linear_cross_entropy, in_specs=(P("data"), P(), P("data")))(
            hidden, weight, labels
        )

    args = put(on, arrays, (P("data"), P(None, "model"), P("data")))
    hlo = jax.jit(replicated).lower(*args).compile().as_text()
    assert sum(products(hlo)) == 2 * (N * D * V // 8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_chunks_do_not_add_to_what_travels(kind, shape):
    """In chunks of two tokens, no collective stands in a loop."""
    arrays, on = data(), made(kind, shape)
    workspace = 2 * (V // shape[1]) * 4 / CHUNK_MB
    grad = total_gradient((N,), workspace_mb=workspace)
    with jax.set_mesh(on):
        args = put(on, arrays, (P("data"), P(None, "model"), P("data")))
        compiled = grad.lower(*args).compile()
        assert_close(compiled(*args), grad(*arrays), rtol=5e-6)
    assert "while(" in compiled.as_text()
    assert not any(loop for *_, loop in collectives(compiled.as_text()))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("chunks", [1, 4])
def test_a_sharded_weight_alone_says_as_much(shape, chunks):
    """Plain jit, no mesh set: the compiler splits and adds up each chunk by itself."""
    arrays, on = data(), made(AxisType.Auto, shape)
    workspace = (N // chunks) * V * 4 / CHUNK_MB
    grad = total_gradient((N,), workspace_mb=workspace)
    loss = jax.jit(functools.partial(linear_cross_entropy, workspace_mb=workspace))
    args = put(on, arrays, (P("data"), P(None, "model"), P("data")))
    forward = loss.lower(*args).compile().as_text()
    backward = grad.lower(*args).compile().as_text()
    assert_close(grad(*args), grad(*arrays), rtol=5e-6)

    rows, columns = N // chunks // shape[0], V // shape[1]
    per_token = {f"f32[{rows}]", f"s32[{rows}]", f"pred[{rows}]"}
    found = collectives(forward)
    assert {what for what, *_ in found} <= {"all-reduce"}
    assert {s for _, s, _ in found} <= (per_token if shape[1] > 1 else set())
    wanted = [f"f32[{D},{columns}]"] * (shape[0] > 1)
    wanted += [f"f32[{rows},{D}]"] * (shape[1] > 1)
    large = [(what, s) for what, s, _ in collectives(backward) if s not in per_token]
    # The weight's gradient has its transpose's shape where XLA sums it as such.
    assert sorted((w, "".join(sorted(s))) for w, s in large) == sorted(
        ("all-reduce", "".join(sorted(s))) for s in wanted
    )
    # One chunk's logits serve the loss and its gradient; of several, none is kept.
    each = N * D * V // 8 // chunks
    assert sum(products(forward)) == each
    assert sum(products(backward)) == (3 if chunks == 1 else 4) * each


def test_a_replicated_weight_on_a_mesh_that_was_not_set():
    """Nothing is gathered; the weight's gradient is summed chunk by chunk."""
    arrays, on = data(), mesh(AxisType.Auto)
    grad = total_gradient((N,), workspace_mb=16 * V * 4 / CHUNK_MB)
    args = put(on, arrays, (P("data"), P(), P("data")))
    found = collectives(grad.lower(*args).compile().as_text())
    assert {what for what, _, _ in found} == {"all-reduce"}
    assert_close(grad(*args), grad(*arrays), rtol=5e-6)


@pytest.mark.parametrize(
    ("kind", "hidden", "weight"),
    [
        (AxisType.Explicit, P("data", None, None), P("model", "data")),
        (AxisType.Explicit, P("data", "model", None), P(None, "model")),
        (AxisType.Explicit, P(("data", "model"), None, None), P("model", None)),
        (AxisType.Explicit, P(None, "data", None), P(None, None)),
        (AxisType.Explicit, P(None, None, None), P(None, ("data", "model"))),
        (AxisType.Explicit, P("data", None, "model"), P("model", None)),
        (AxisType.Explicit, P(None, None, "model"), P("data", None)),
        (AxisType.Auto, P("data", "model", None), P("data", None)),
        (AxisType.Auto, P("model", None, None), P("model", "data")),
        (AxisType.Auto, P("data", None, "model"), P("model", None)),
        (AxisType.Auto, P(), P()),
    ],
    ids=str,
)
def test_any_layout_gives_the_same_gradient(kind, hidden, weight):
    """Batch, sequence and features split, and weights split over the same axes."""
    arrays = data(32, 4, 8)
    arrays = (arrays[0].reshape(8, 4, 4), arrays[1], arrays[2].reshape(8, 4))
    grad = total_gradient((8, 4), workspace_mb=3 * 8 * 4 / CHUNK_MB)
    want = grad(*arrays)
    on = mesh(kind)
    with jax.set_mesh(on):
        args = put(on, arrays, (hidden, weight, P()))
        got = grad(*args)
    assert_close(got, want, rtol=5e-6)
    if kind == AxisType.Explicit:
        assert [g.sharding.spec for g in got] == [x.sharding.spec for x in args[:2]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("batch", "layout"), [((7,), "dv"), ((7, 8), "vd")], ids=str)
def test_sizes_that_the_mesh_does_not_divide(kind, batch, layout):
    """Axes beside those that it splits may come out even."""
    hidden, weight, labels = data(int(np.prod(batch)), 6, 11)
    weight = weight if layout == "dv" else weight.T
    arrays = hidden.reshape(*batch, 6), weight, labels.reshape(batch)
    workspace = 2 * 11 * 4 / CHUNK_MB
    grad = total_gradient(batch, layout=layout, workspace_mb=workspace)
    want = grad(*arrays)
    with jax.set_mesh(mesh(kind)):
        assert_close(grad(*arrays), want, rtol=5e-6)


def test_in_shard_map_and_pmap():
    """Local tokens, the same weight everywhere; its gradient is the devices' sum."""
    arrays = data(16, 6, 10)
    want = total_gradient((16,))(*arrays)

    def total(hidden, weight, labels, ramp):
        loss = linear_cross_entropy(hidden, weight, labels, workspace_mb=1e-9)
        return jnp.sum(ramp * loss)

    grad = jax.grad(total, argnums=(0, 1))
    split = jax.shard_map(
        grad,
        mesh=mesh(AxisType.Auto),
        in_specs=(P("data"), P(), P("data"), P("data")),
        out_specs=(P("data"), P()),
    )
    weights = ramp((16,))
    compiled = jax.jit(split).lower(*arrays, weights).compile()
    assert_close(compiled(*arrays, weights), want, rtol=5e-6, what="shard_map")
    found = collectives(compiled.as_text())
    assert found == [("all-reduce", "f32[6,10]", False)]

    hidden, weight, labels = arrays
    parts = (hidden.reshape(8, 2, 6), weight, labels.reshape(8, 2))
    by_hidden, by_weight = jax.pmap(grad, "data", in_axes=(0, None, 0, 0))(
        *parts, weights.reshape(8, 2)
    )
    assert_close(by_hidden.reshape(16, 6), want[0], rtol=5e-6, what="pmap")
    assert_close(np.sum(by_weight, axis=0), want[1], rtol=5e-6, what="pmap")


@pytest.mark.parametrize("checked", [True, False])
def test_a_gradient_outside_shard_map(checked):
    """It is right also where JAX is told not to check what varies over devices."""
    arrays = data(16, 6, 8)
    layout = (P("data"), P(None, "model"), P("data"))
    losses = jax.shard_map(
        functools.partial(linear_cross_entropy, w_axis="model"),
        mesh=mesh(AxisType.Auto),
        in_specs=layout,
        out_specs=P("data"),
        check_vma=checked,
    )

    def total(hidden, weight, labels):
        return jnp.sum(ramp((16,)) * losses(hidden, weight, labels))

    got = jax.jit(jax.grad(total, argnums=(0, 1)))(*arrays)
    assert_close(got, total_gradient((16,))(*arrays), rtol=5e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_made_at_once_on_a_mesh(kind):
    """In every chunk statistics travel; the gradients are summed after all chunks."""
    arrays, on, weights = data(), mesh(kind), ramp((N,))
    bias = np.linspace(-1, 1, V, dtype=np.float32)

    @jax.jit
    def run(weights, *args):
        return linear_cross_entropy_value_and_grad(
            *args, weights=weights, bias=bias, workspace_mb=4 * V * 4 / CHUNK_MB
        )

    want = run(weights, *arrays)
    for spec in (P(None, "model"), P(None, None), P("model", "data")):
        with jax.set_mesh(on):
            args = put(on, (weights, *arrays), (P("data"), P("data"), spec, P("data")))
            compiled = run.lower(*args).compile()
            assert_close(compiled(*args), want, rtol=5e-6)
        loops = {s for _, s, loop in collectives(compiled.as_text()) if loop}
        assert loops
        assert all("," not in s for s in loops), loops
