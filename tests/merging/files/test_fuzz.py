"""Files of any bytes and recipes of any text end in one line, or are read."""

import json
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxtricks.merging import files
from jaxtricks.merging.files import _recipe, _yaml
from jaxtricks.merging.files._open import open_checkpoint
from jaxtricks.merging.files._tensors import DTYPES
from tests.merging.files.small import encode

FEW = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


MANY = settings(FEW, max_examples=2_000)


BYTES = encode({"w": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32)})


def readers_survive(folder, data, place, change, suffix):
    """Whatever the bytes are: tensors that can be read, or one line."""
    data = bytearray(data)
    data[place % len(data) : place % len(data) + 1] = change
    path = folder / f"x{suffix}"
    path.write_bytes(bytes(data))
    said = None
    try:
        checkpoint = open_checkpoint(path)
        for name, tensor in checkpoint.tensors.items():
            checkpoint.read(name).reshape(tensor.shape)
        checkpoint.digests()
        checkpoint.close()
    except files.MergeError as error:
        said = str(error)
    assert said is None or "\n" not in said


def recipes_survive(text):
    said = None
    try:
        _recipe.check(_yaml.parse(text, "c.yml"))
    except files.MergeError as error:
        said = str(error)
    assert said is None or (said.startswith("c.yml:") and "\n" not in said)


NUMBERS = st.lists(st.one_of(st.integers(0, 9), st.integers(-1, 2**64)), max_size=4)


KINDS = st.sampled_from([*DTYPES, "F4", "", None, 3])


FACTS = {"dtype": KINDS, "shape": NUMBERS, "data_offsets": NUMBERS}


ENTRY = st.one_of(st.fixed_dictionaries(FACTS), st.none(), NUMBERS, st.text())


HEADERS = st.dictionaries(st.text(max_size=4), ENTRY, max_size=3)


def headers_survive(folder, header, data, length):
    text = json.dumps(header).encode()
    size = struct.pack("<Q", max(0, len(text) + length) if length < 9 else length)
    whole = size + text + data
    readers_survive(folder, whole, 0, whole[:1], ".safetensors")


HEADER = {
    "header": HEADERS,
    "data": st.binary(max_size=40),
    "length": st.one_of(st.just(0), st.integers(-8, 8), st.integers(0, 2**63)),
}


PLACE = {"place": st.integers(0, 500), "change": st.binary(max_size=4)}


LINES = r"""merge_method: linear
models:
- model: a
  parameters: {weight: 1}
slices:
modules:
- sources:
  layer_range: [0, 2]
base_model: a
dtype: float16
&a
*a
<<: *a
!!x
---
? [
parameters: {t: [0, 1]}
- filter: x
  value: 1e-5
tokenizer: {}
2001-01-01
0x1g
.inf
%
!!binary x
1:2:3"""


WORDS = st.sampled_from([*LINES.split("\n"), "\t", "\0", "'", '"', "|", "\ud800", "="])


TEXTS = st.one_of(st.lists(WORDS, max_size=9).map("\n".join), st.text(max_size=60))


KEY = st.one_of(st.none(), st.text(max_size=3), st.integers(), st.just("../x"))
KEYS = st.lists(st.one_of(st.none(), st.fixed_dictionaries({"key": KEY})), max_size=2)
KIND = st.dictionaries(
    st.sampled_from(["value_type", "skip_deserialize"]),
    st.one_of(st.none(), st.just([]), st.sampled_from(["None", "np.ndarray"])),
)
LEAF = {"key_metadata": KEYS, "value_metadata": st.one_of(st.none(), KIND)}
METADATA = st.one_of(
    st.none(),
    st.dictionaries(
        st.text(max_size=3),
        st.one_of(st.none(), st.fixed_dictionaries(LEAF)),
        max_size=3,
    ),
)


@FEW
@given(**PLACE)
def test_safetensors_of_any_bytes(tmp_path, place, change):
    readers_survive(tmp_path, BYTES, place, change, ".safetensors")


@FEW
@given(**HEADER)
def test_safetensors_of_any_header(tmp_path, header, data, length):
    headers_survive(tmp_path, header, data, length)


@FEW
@given(data=st.binary(max_size=80))
def test_msgpack_of_any_bytes(tmp_path, data):
    readers_survive(tmp_path, data + b"\x80", 0, data[:1], ".msgpack")


@FEW
@given(said=METADATA)
def test_orbax_of_any_metadata(tmp_path, said):
    pytest.importorskip("tensorstore")
    folder = tmp_path / "state"
    folder.mkdir(exist_ok=True)
    (folder / "_METADATA").write_text(json.dumps({"tree_metadata": said}))
    with pytest.raises(files.MergeError) as error:
        open_checkpoint(tmp_path)
    assert "\n" not in str(error.value)


@FEW
@given(text=TEXTS)
def test_recipes_of_any_text(text):
    recipes_survive(text)


@pytest.mark.slow
@MANY
@given(**PLACE)
def test_safetensors_of_many_bytes(tmp_path, place, change):
    readers_survive(tmp_path, BYTES, place, change, ".safetensors")


@pytest.mark.slow
@MANY
@given(**HEADER)
def test_safetensors_of_many_headers(tmp_path, header, data, length):
    headers_survive(tmp_path, header, data, length)


@pytest.mark.slow
@MANY
@given(text=TEXTS)
def test_many_recipes(text):
    recipes_survive(text)
