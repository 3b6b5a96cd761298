"""What the TPU kernels share: tile arithmetic, ragged edges, and one way to call.

A block that reaches past its array holds whatever was in memory there. Kernels blank
what they would add up of it (`inside`), and what they write there is dropped.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..._compat import struct, varying_like

LANES = 128
SUBLANES = 16  # of a bfloat16 tile; those of a float32 one are 8

# What a kernel may hold in VMEM if XLA is not told otherwise, on TPU v4, v5e and v5p
# (of 16, 128 and 64 MiB that they have; later ones grant more).
VMEM_BYTES = 16 * 2**20

DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)


class Block(NamedTuple):
    """How a kernel sees an array: a block's shape, and which one at a grid point.

    slow: it changes so rarely that one buffer will do, and leaves room for others.
    """

    shape: tuple[int, ...]
    at: Callable[..., tuple]
    slow: bool = False

    def spec(self) -> pl.BlockSpec:
        mode = pl.Buffered(1) if self.slow else None
        return pl.BlockSpec(self.shape, self.at, pipeline_mode=mode)


def call(
    body: Callable[[SimpleNamespace], None],
    grid: tuple[int, ...],
    *,
    name: str,
    inputs: dict[str, tuple[jax.Array, Block]],
    outputs: dict[str, tuple[tuple[int, ...], Any, Block]],
    scratch: dict[str, tuple[int, ...]] | None = None,
    scalars: dict[str, Any] | None = None,
    parallel: int = 1,
) -> dict[str, jax.Array]:
    """Runs `body` at each grid point on a namespace of references by name.

    scratch is f32 in VMEM, scalars are f32[1, 1] in SMEM; grid points differ
    independently in the first `parallel` axes and follow one another in the rest.
    """
    arrays = {k: x for k, (x, _) in inputs.items()}
    specs = {k: block.spec() for k, (_, block) in inputs.items()}
    for k, x in (scalars or {}).items():
        arrays[k] = jnp.asarray(x, jnp.float32).reshape(1, 1)
        specs[k] = pl.BlockSpec(
            (1, 1), lambda *_: (0, 0), memory_space=pltpu.MemorySpace.SMEM
        )
    varying = tuple(arrays.values())  # of as many mesh axes as any of them
    arrays = {
        k: _batched_in_front(varying_like(x, *varying)) for k, x in arrays.items()
    }

    scratch = scratch or {}

    def kernel(ins, outs, *held):
        held = dict(zip(scratch, held, strict=True))
        body(SimpleNamespace(**ins, **outs, **held))

    run = pl.pallas_call(
        kernel,
        out_shape={k: struct(s, d, *varying) for k, (s, d, _) in outputs.items()},
        grid_spec=pl.GridSpec(
            grid=grid,
            in_specs=[specs],
            out_specs={k: block.spec() for k, (*_, block) in outputs.items()},
            scratch_shapes=[pltpu.VMEM(s, jnp.float32) for s in scratch.values()],
        ),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel",) * parallel
            + ("arbitrary",) * (len(grid) - parallel)
        ),
        name=name,
    )
    with jax.enable_x64(False):  # Mosaic takes no 64-bit index or constant
        return run(arrays)


def _batched_in_front(x):
    """x; under vmap, with the batch axis in front, as blocks need their last two."""
    return lax.squeeze(lax.expand_dims(x, (0,)), (0,))


def widen(x: jax.Array) -> jax.Array:
    """float16 as float32, before the kernel: Mosaic loads no float16."""
    return x.astype(jnp.float32) if x.dtype == jnp.float16 else x


def inside(shape: tuple[int, ...], axis: int, start, size: int, tile: int):
    """Which entries of a block lie within the array along an axis; True if all do."""
    if size % tile == 0:
        return True
    return start + lax.broadcasted_iota(jnp.int32, shape, axis) < size


def keep(mask, x, other: float | int = 0):
    """x where the mask, `other` elsewhere."""
    return x if mask is True else jnp.where(mask, x, jnp.asarray(other, x.dtype))


def round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def padded(rows: int, columns: int, itemsize: int) -> int:
    """Bytes of a block in VMEM, where tiles are whole."""
    return round_up(rows, 32 // itemsize) * round_up(columns, LANES) * itemsize
