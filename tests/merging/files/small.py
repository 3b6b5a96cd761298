"""Small checkpoints in every format, written without the readers that are tested."""

import json
import pathlib
import struct

import ml_dtypes
import numpy as np

NAMES = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float64": "F64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0",
    "complex64": "C64",
    **{f"int{n}": f"I{n}" for n in (8, 16, 32, 64)},
    **{f"uint{n}": f"U{n}" for n in (8, 16, 32, 64)},
    "bool": "BOOL",
}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 3,
    "torch_dtype": "float32",
}


def of_name(name):
    return np.dtype(getattr(ml_dtypes, name, None) or name)


def llama(seed, base=None, layers=3, h=4, inter=6, vocab=5, dtype=np.float32):
    """The tensors of a small Llama; with a base, a fine-tune of it."""
    rng, out = np.random.default_rng(seed), {}

    def normal(name, *shape):
        x = rng.normal(size=shape)
        out[name] = (x if base is None else base[name] + 0.1 * x).astype(dtype)

    normal("model.embed_tokens.weight", vocab, h)
    for i in range(layers):
        at = f"model.layers.{i}."
        for q in "qkvo":
            normal(f"{at}self_attn.{q}_proj.weight", h, h)
        for q in ("gate", "up"):
            normal(f"{at}mlp.{q}_proj.weight", inter, h)
        normal(f"{at}mlp.down_proj.weight", h, inter)
        normal(f"{at}input_layernorm.weight", h)
        normal(f"{at}post_attention_layernorm.weight", h)
    normal("model.norm.weight", h)
    normal("lm_head.weight", vocab, h)
    return out


def models(folder, count=3, **options):
    """base, m1, m2, ... as folders of one safetensors file each."""
    base = llama(0, **options)
    save(folder / "base", base)
    found = {"base": base}
    for i in range(1, count + 1):
        found[f"m{i}"] = llama(i, base, **options)
        save(folder / f"m{i}", found[f"m{i}"])
    return found


def encode(arrays):
    """The bytes of a safetensors file."""
    head, at, data = {"__metadata__": {"format": "pt"}}, 0, b""
    for name, x in arrays.items():
        x = np.asarray(x)
        head[name] = {
            "dtype": NAMES[x.dtype.name],
            "shape": list(x.shape),
            "data_offsets": [at, at + x.nbytes],
        }
        data += x.tobytes()
        at += x.nbytes
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def save(folder, arrays, *, shards=1, config=CONFIG, name="model"):
    """A folder with one file, or with shards and an index."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        (folder / f"{name}.safetensors").write_bytes(encode(arrays))
        return
    names, where = list(arrays), {}
    for i in range(shards):
        file = f"{name}-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = {k: arrays[k] for k in names[i::shards]}
        where |= dict.fromkeys(part, file)
        (folder / file).write_bytes(encode(part))
    index = {"metadata": {}, "weight_map": where}
    (folder / f"{name}.safetensors.index.json").write_text(json.dumps(index))


def load(folder):
    """name -> array of a folder that was written, by the format's definition."""
    found = {}
    types = {v: k for k, v in NAMES.items()}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        assert (8 + length) % 8 == 0  # so that what follows can be mapped
        head = json.loads(data[8 : 8 + length])
        head.pop("__metadata__")
        for name, facts in head.items():
            begin, end = facts["data_offsets"]
            kind = types[facts["dtype"]]
            dtype = of_name(kind)
            part = data[8 + length + begin : 8 + length + end]
            found[name] = np.frombuffer(part, dtype).reshape(facts["shape"])
    return found
