"""Meshes and rules: what fits, what is covered, and which rows a process holds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from experiments import mesh
from experiments.config import BadInput, Mesh
from tests.experiments import small

SHAPES = {
    "embed": {"embedding": jax.ShapeDtypeStruct((32, 16), jnp.float32)},
    "norm": {"scale": jax.ShapeDtypeStruct((16,), jnp.float32)},
    "up": {"kernel": jax.ShapeDtypeStruct((16, 6), jnp.float32)},
}
RULES = (("embedding$", ("model", "data")), ("scale$", ()), ("up", ("data", "model")))


def flags(data=2, model=4, **more) -> Mesh:
    return Mesh(mesh_data=data, mesh_model=model, **more)


def test_axes_come_from_the_flags():
    for data, model, shape in ((0, 1, (8, 1)), (0, 4, (2, 4)), (2, 2, (2, 2))):
        made = mesh.make(flags(data, model))
        assert tuple(made.shape.items()) == (("data", shape[0]), ("model", shape[1]))
        assert set(made.axis_types) == {AxisType.Auto}
    for data, model, said in (
        (0, 3, "--mesh-model: wanted a divisor of the 8 devices, came 3"),
        (5, 2, "--mesh-data 5 --mesh-model 2: that is 10 devices, but there are 8"),
    ):
        with pytest.raises(BadInput, match=said):
            mesh.make(flags(data, model))


def test_the_first_rule_that_is_found_counts():
    made = mesh.make(flags())
    specs = mesh.specs(SHAPES, RULES, made, flags())
    assert specs["embed"]["embedding"] == P("model", "data")
    assert specs["norm"]["scale"] == P()
    assert specs["up"]["kernel"] == P("data")  # 6 columns are not 4 parts
    replicated = mesh.specs(SHAPES, RULES, made, flags(sharding="replicated"))
    assert replicated["embed"]["embedding"] == P("model")
    assert replicated["up"]["kernel"] == P()
    own = flags(shard=("kernel=-,data", "embed=data+model"))
    specs = mesh.specs(SHAPES, RULES, made, own)
    assert specs["up"]["kernel"] == P(None, "data")
    assert specs["embed"]["embedding"] == P(("data", "model"))


def test_the_table_says_what_each_device_holds():
    rows = mesh.table(SHAPES, RULES, mesh.make(flags()), flags())
    assert [(r.path, r.spec, r.bytes) for r in rows] == [
        ("embed/embedding", "model, data", 4 * 32 * 16 // 8),
        ("norm/scale", "whole", 4 * 16),
        ("up/kernel", "data", 4 * 16 * 6 // 2),
    ]
    assert [r.note for r in rows] == ["", "", "6 is no multiple of model = 4"]
    shown = mesh.show(rows, 3 * 2**20).splitlines()
    assert shown[0].startswith("parameter        shape  dtype    split over ")
    assert shown[1].startswith("embed/embedding  32x16  float32  model, data")
    assert shown[1].endswith("256 B")
    assert shown[-2].split() == ["all", "parameters", "512", "B"]
    assert shown[-1].split() == ["optimizer", "state", "3.0", "MiB"]
    assert len({len(line[: line.index("B")]) for line in shown[1:4]}) == 1


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (RULES[:2], "no rule is for up/kernel"),
        (RULES[1:], "no rule is for embed/embedding$"),
        (
            (*RULES[:1], ("scale", ("data", "model")), RULES[2]),
            "at most 1 axes for norm",
        ),
    ],
)
def test_rules_that_do_not_cover_are_refused(rules, said):
    with pytest.raises(BadInput, match=f"^--shard: .*{said}"):
        mesh.specs(SHAPES, rules, mesh.make(flags()), flags())


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("kernel", "wanted 'REGEX=AXIS,AXIS'"),
        ("kernel=rows", "wanted 'REGEX=AXIS,AXIS'"),
        ("kernel=data,data", "each of data and model at most once"),
        ("=data", "wanted 'REGEX=AXIS,AXIS'"),
        ("ke(=data", r"'ke\(' is no regex"),
        ("kernal=data", "no parameter's path has 'kernal' in it"),
    ],
)
def test_bad_rules_of_the_user_are_refused(rule, said):
    with pytest.raises(BadInput, match=f"^--shard: .*{said}") as error:
        mesh.specs(SHAPES, RULES, mesh.make(flags()), flags(shard=(rule,)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "tx",
    [
        optax.adamw(1.0),
        optax.adafactor(1.0, min_dim_size_to_factor=4),
        optax.contrib.muon(1.0),
        optax.chain(
            optax.clip(1.0),
            optax.masked(optax.adam(1.0), {"embed": True, "norm": False, "up": True}),
        ),
        optax.lamb(1.0),
    ],
    ids=["adamw", "adafactor", "muon", "masked", "lamb"],
)
def test_moments_lie_as_their_parameters(tx):
    """By path and shape, in whatever wrapper; what is factored or a count is whole."""
    made = mesh.make(flags())
    specs = mesh.specs(SHAPES, RULES, made, flags())
    state = jax.eval_shape(tx.init, SHAPES)
    placed = mesh.like_params(state, SHAPES, specs)
    assert jax.tree.structure(placed, is_leaf=lambda x: isinstance(x, P)) == (
        jax.tree.structure(state)
    )
    for (path, x), spec in zip(
        mesh.leaves(state),
        jax.tree.leaves(placed, is_leaf=lambda x: isinstance(x, P)),
        strict=True,
    ):
        for end in ("embed/embedding", "up/kernel", "norm/scale"):
            group, name = end.split("/")
            if path.endswith(end) and x.shape == SHAPES[group][name].shape:
                assert spec == specs[group][name], path
                break
        else:
            assert spec == P(), path


def test_batches_become_global_by_rows():
    made = mesh.make(flags(4, 2))
    batch = small.tokens()
    put = mesh.put(batch, made)
    for name, x in put.items():
        assert x.sharding.spec == P("data")
        np.testing.assert_array_equal(x, batch[name])
    assert {s.data.shape for s in put["inputs"].addressable_shards} == {(2, 12)}
    with pytest.raises(BadInput, match="--batch-size: wanted a multiple of 4"):
        mesh.put(small.tokens(rows=6), made)


class Device:
    """What `share` asks of one."""

    def __init__(self, process_index):
        self.process_index = process_index


class Devices:
    """What `share` asks of a mesh of several processes."""

    def __init__(self, processes):
        self.devices = np.vectorize(Device, otypes=[object])(np.array(processes))
        self.shape = dict(zip(mesh.AXES, self.devices.shape, strict=True))
        self.local_mesh = self.devices[:1]


@pytest.mark.parametrize(
    ("processes", "wanted"),
    [
        ([[0], [0], [1], [1]], (0, 2)),  # each has rows of its own
        ([[1], [1], [0], [0]], (1, 2)),  # the parts go by rows, not by processes
        ([[0, 1], [0, 1]], (0, 1)),  # both have all rows: they load the same
        ([[0, 1], [2, 3]], (0, 2)),
        ([[2, 3], [1, 0]], (1, 2)),
        ([[1], [0], [1], [0]], (1, 2)),  # rows in turn
        ([[0, 0], [0, 1], [1, 1]], None),  # the middle row is of both
    ],
)
def test_the_part_of_the_batch_that_a_process_loads(processes, wanted):
    """This process is 0."""
    if wanted:
        assert mesh.share(Devices(processes)) == wanted
    else:
        with pytest.raises(BadInput, match="--mesh-model: 2 devices do not fit"):
            mesh.share(Devices(processes))


def test_activations_are_split_where_there_is_a_mesh_that_divides_them():
    x = jnp.ones((4, 3))
    assert mesh.constrain(x, "data") is x
    made = mesh.make(flags(4, 2))
    with jax.set_mesh(made):
        out = jax.jit(lambda x: mesh.constrain(x, "data", "model"))(x)
        assert out.sharding.spec == P("data")  # 3 is no multiple of 2
    own = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(own):
        assert jax.jit(lambda x: mesh.constrain(x, "data"))(x).shape == x.shape


def test_sizes_are_readable():
    found = [mesh.size(n) for n in (0, 1023, 1024, 3 * 2**19, 5 * 2**30, 2**52)]
    assert found == ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "5.0 GiB", "4096.0 TiB"]
