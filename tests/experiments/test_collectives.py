"""Reading HLO: what travels, among whom, how often; and the least on paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments import plan
from experiments.collectives import _groups, collectives


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def compiled(mesh, fn, *args, out=None):
    placed = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
        for shape, spec in args
    ]
    lowered = jax.jit(fn, out_shardings=NamedSharding(mesh, out or P())).lower(*placed)
    return collectives(lowered.compile().as_text(), dict(mesh.shape))


def test_a_sum_over_one_axis(mesh):
    (found,) = compiled(
        mesh,
        lambda x, w: x @ w,
        ((16, 32), P("data", "model")),
        ((32, 8), P("model")),
        out=P("data"),
    )
    assert (found.kind, found.group, found.axes) == ("all-reduce", 4, ("model",))
    assert (found.bytes, found.times) == (8 * 8 * 4, 1)
    assert found.sent == 2 * 3 / 4 * 8 * 8 * 4


def test_a_sum_over_all_devices_and_a_gather(mesh):
    found = compiled(mesh, jnp.sum, ((16, 32), P("data", "model")))
    assert {c.kind for c in found} == {"all-reduce"}
    assert {axis for c in found for axis in c.axes} == {"data", "model"}
    assert {(c.bytes, c.times) for c in found} == {(4, 1)}
    (found,) = compiled(mesh, lambda x: x * 2, ((16, 32), P("data")))
    assert (found.kind, found.axes, found.bytes) == ("all-gather", ("data",), 2048)
    assert found.sent == 1024


def test_a_loop_counts_as_often_as_it_runs(mesh):
    def fn(x, w):
        def body(x, w):
            total = jnp.tanh(x @ w)
            return jax.lax.with_sharding_constraint(
                total, NamedSharding(mesh, P("data", "model"))
            ), None

        return jax.lax.scan(body, x, w)[0]

    found = compiled(
        mesh,
        fn,
        ((16, 32), P("data", "model")),
        ((5, 32, 32), P(None, "model", None)),
        out=P("data", "model"),
    )
    assert {c.times for c in found} == {5}
    assert {c.axes for c in found} == {("model",)}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{{0,1},{2,3}}", [[0, 1], [2, 3]]),
        ("[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
        ("mesh['axis_0'=2,'axis_1'=2] {'axis_1'}", [[0, 1], [2, 3]]),
        ("mesh['axis_0'=2,'axis_1'=2] {'axis_0'}", [[0, 2], [1, 3]]),
        (
            "mesh['axis_0'=2,'axis_1'=2], device_ids=([2,2]T(1,0)) {'axis_1'}",
            [[0, 2], [1, 3]],
        ),
        ("{}", [[0, 1, 2, 3]]),
    ],
)
def test_every_way_to_write_groups(text, wanted):
    line = f"x = f32[] all-reduce(y), replica_groups={text}, to_apply=z"
    np.testing.assert_array_equal(_groups(line, 4), wanted)
    with pytest.raises(ValueError, match="unknown groups"):
        _groups("x = f32[] all-reduce(y), replica_groups=?", 4)


def test_on_paper_one_device_sends_nothing_and_each_axis_its_own():
    shape = plan.Shape(64, 2, 256, 1024, 128, 4)
    assert shape.parameters == 12 * 2 * 64**2 + 256 * 64 + 5 * 64
    assert set(plan.sends(shape, data=1, model=1).values()) == {0.0}
    data = plan.sends(shape, data=8, model=1)
    assert data["activations"] == data["head"] == 0
    assert data["gradients"] == 7 / 8 * shape.parameters * 4
    assert data["weights"] == 2 * data["gradients"]
    model = plan.sends(shape, data=1, model=8)
    assert model["weights"] == model["gradients"] == 0
    assert model["activations"] == 9 * 2 * 7 / 8 * 1024 * 64 * 4


def test_the_step_sends_what_the_paper_says():
    """The demo's model, one mesh of each kind; XLA on CPUs has no reduce-scatter."""
    from experiments import mesh as meshes
    from experiments import step
    from experiments.models import Facts
    from tests.experiments import small

    facts = Facts("tokens", ("a",), 256)
    ratios = {}
    for data, model in ((8, 1), (1, 8)):
        flags = small.config(
            d_model=64,
            heads=8,
            layers=2,
            seq_len=64,
            batch_size=8,
            mesh_data=data,
            mesh_model=model,
        )
        mesh = meshes.make(flags.mesh)
        batch = small.tokens(rows=8, length=64) | {"domain": np.zeros(8, np.int32)}
        lowered = step.build(flags, facts, mesh).lower(meshes.put(batch, mesh))
        found = collectives(lowered.compile().as_text(), dict(mesh.shape))
        assert {c.axes for c in found} == {("data",) if data > 1 else ("model",)}
        shape = plan.Shape(64, 2, 256, 8 * 64, 64, 4)
        least = sum(plan.sends(shape, data=data, model=model, gathers=1).values())
        ratios[data, model] = sum(c.sent for c in found) / least
    assert 1.0 <= ratios[1, 8] < 1.05
    assert 1.0 <= ratios[8, 1] < 2.0


@pytest.mark.slow
def test_of_scores_it_holds_what_the_paper_says():
    """What more heads of one width cost beside fewer is scores alone."""
    from experiments import costs, step
    from experiments import mesh as meshes
    from experiments.models import Facts, transformer
    from tests.experiments import small

    assert plan.QUERIES == transformer.QUERIES
    measured, paper = [], []
    for heads in (2, 16):
        flags = small.config(d_model=32, heads=heads, seq_len=512, batch_size=1)
        program = step.build(
            flags, Facts("tokens", ("a",), 256), meshes.make(flags.mesh)
        )
        batch = small.tokens(rows=1, length=512)
        measured.append(costs.temp_bytes(program.lower(batch)))
        shape = plan.Shape(32, 1, 256, 512, 512, 4, 32 // heads)
        paper.append(plan.holds(shape, data=1, model=1)["scores"])
    ratio = (measured[1] - measured[0]) / (paper[1] - paper[0])
    assert 0.7 < ratio < 1.2
