"""What tests of training share: small configs, batches of given facts, some steps."""

import dataclasses

import jax
import numpy as np

from experiments import mesh, step
from experiments.config import Config, check
from experiments.models import Facts

TOKENS = Facts("tokens", ("a", "b"), 32)
IMAGES = Facts("images", ("a", "b"), 10, (8, 8, 3))

SMALL = {
    "d_model": 16,
    "heads": 2,
    "layers": 1,
    "patch": 4,
    "seq_len": 12,
    "batch_size": 8,
    "steps": 10,
    "warmup": 0.2,
    "mesh_data": 1,
    "mesh_model": 1,
}


def config(**flags) -> Config:
    """A small config on one device; flags are fields of any section."""
    flags = SMALL | flags
    sections = {
        s.name: dataclasses.replace(
            section,
            **{
                f.name: flags.pop(f.name)
                for f in dataclasses.fields(section)
                if f.name in flags
            },
        )
        for s in dataclasses.fields(Config)
        for section in [getattr(Config(), s.name)]
    }
    assert not flags, flags
    return check(Config(**sections))


def tokens(seed: int = 0, rows: int = 8, length: int = 12) -> dict[str, np.ndarray]:
    """Windows of one document each, padded to ragged lengths, one of them empty."""
    rng = np.random.default_rng(seed)
    ids = np.arange(rows, dtype=np.int32)
    live = np.arange(length)[None] < rng.integers(1, length + 1, (rows, 1))
    live[rows // 2] = False
    words = rng.integers(0, TOKENS.classes, (2, rows, length), dtype=np.int32)
    return {
        "id": ids,
        "domain": ids % 2,
        "inputs": words[0],
        "targets": words[1],
        "mask": live,
        "segments": live.astype(np.int32),
        "positions": np.tile(np.arange(length, dtype=np.int32), (rows, 1)),
    }


def images(seed: int = 0, rows: int = 8, mixed: bool = False) -> dict[str, np.ndarray]:
    """Noise, the last of it no example at all."""
    rng = np.random.default_rng(seed)
    ids = np.arange(rows, dtype=np.int32)
    labels = rng.integers(0, IMAGES.classes, (2, rows), dtype=np.int32)
    more = {"labels_b": labels[1], "share": rng.random(rows, dtype=np.float32)}
    return {
        "id": ids,
        "domain": ids % 2,
        "image": rng.normal(size=(rows, *IMAGES.image)).astype(np.float32),
        "labels": labels[0],
        "mask": ids < rows - 1,
        **(more if mixed else {}),
    }


def train(flags: Config, batches: list[dict], facts: Facts = TOKENS):
    """(program, its state after all batches, what each step said)."""
    program = step.build(flags, facts, mesh.make(flags.mesh))
    state, said = program.init(), []
    for batch in batches:
        state, metrics = program.step(state, batch, np.inf)
        said.append(jax.device_get(metrics))
    return program, state, said


def flat(tree) -> np.ndarray:
    """All its numbers in a row."""
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(jax.device_get(tree))])
