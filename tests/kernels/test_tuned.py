"""Tile sizes from a file: read for the device, and refused where they do not fit."""

import json
from typing import NamedTuple

import jax
import pytest
from jax.sharding import AbstractDevice, AbstractMesh

from jaxtricks.kernels import _tuned
from jaxtricks.kernels.tpu import statistics

pytestmark = pytest.mark.kernels


class Tiles(NamedTuple):
    rows: int = 8
    columns: int = 128


@pytest.fixture
def tiles_file(tmp_path, monkeypatch):
    """Writes what it is given as the file of tiles."""
    path = tmp_path / "tiles.json"

    def write(content):
        path.write_text(json.dumps(content))
        monkeypatch.setenv(_tuned.VARIABLE, str(path))

    return write


def on_tpu(kind):
    device = AbstractDevice(device_kind=kind, platform="tpu", num_cores=1)
    return jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=device))


def test_the_file_replaces_what_it_names(tiles_file):
    entry = {"64x300 float32": {"rows": 32}}
    tiles_file({"TPU v5e": {"softmax": entry}})

    def ask(kernel="softmax", shape=(64, 300), dtype="float32"):
        return _tuned.tuned("tpu", kernel, shape, dtype, Tiles())

    with on_tpu("TPU v5e"):
        assert ask() == Tiles(32, 128)
        assert ask(shape=(64, 301)) == ask(dtype="bfloat16") == ask("norms") == Tiles()
        tiles_file({"TPU v5e": {"softmax": {"64x300 float32": {"columns": 256}}}})
        assert ask() == Tiles(8, 256)
    with on_tpu("TPU v5p"):
        assert ask() == Tiles()


def test_without_a_file_nothing_changes(monkeypatch):
    monkeypatch.delenv(_tuned.VARIABLE, raising=False)
    assert _tuned.tuned("tpu", "softmax", (8, 8), "float32", Tiles()) == Tiles()


def test_unknown_sizes_and_a_missing_file_are_said(tiles_file, monkeypatch):
    tiles_file({"TPU v5e": {"softmax": {"8x8 float32": {"lines": 3}}}})
    with on_tpu("TPU v5e"), pytest.raises(ValueError, match=r"lines.* wanted some of"):
        _tuned.tuned("tpu", "softmax", (8, 8), "float32", Tiles())
    monkeypatch.setenv(_tuned.VARIABLE, "/no/such/file.json")
    with pytest.raises(ValueError, match="JAXTRICKS_TILES: cannot read /no/such"):
        _tuned.tuned("tpu", "softmax", (8, 8), "float32", Tiles())


def test_kernels_take_tuned_tiles(tiles_file):
    """The tiles show in what is lowered."""
    n, d, v = 256, 64, 512
    tiles = {"tokens": 128, "classes": 128, "features": d}
    entry = {f"{n}x{d}x{v} float32": tiles}
    tiles_file({"TPU v5e": {"statistics_forward": entry}})

    def problem():
        shapes = [jax.ShapeDtypeStruct(s, "float32") for s in ((n, d), (d, v))]
        labels = jax.ShapeDtypeStruct((n,), "int32")
        return jax.make_jaxpr(
            lambda h, w, y: statistics.forward(h, w, y, None, None, 1.0, layout="dv")
        )(*shapes, labels)

    with on_tpu("TPU v5e"):
        assert "grid=(2, 4, 1)" in str(problem()).replace(" ", "").replace(",", ", ")
