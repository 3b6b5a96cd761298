"""What the GPU kernels share: Pallas, the shape of a launch, types of results."""

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AbstractDevice

from ..._compat import varying_like

if TYPE_CHECKING:
    import jax.experimental.pallas.mosaic_gpu as plgpu
    from jax.experimental import pallas as pl
else:

    class _Lazy:
        """A module that loads when it is used: what a kernel lacks needs none."""

        def __init__(self, module):
            self._module = module

        def __getattr__(self, name):
            try:
                return getattr(importlib.import_module(self._module), name)
            except ModuleNotFoundError as error:
                if not (error.name or "").startswith("absl"):
                    raise
                raise ImportError(
                    "the GPU kernels need absl-py, which Pallas imports: "
                    "pip install absl-py"
                ) from error

    pl = _Lazy("jax.experimental.pallas")
    plgpu = _Lazy("jax.experimental.pallas.mosaic_gpu")

LANES = 128  # threads of a warpgroup
SMEM_BYTES = 227 * 1024  # that a block of an H100 or H200 may use
ALIGNMENT = 16  # bytes that every row must be a multiple of for an asynchronous copy


def up(size: int, unit: int) -> int:
    """`size` rounded up to a multiple of `unit`."""
    return -(-size // unit) * unit


def padded(x, *sizes: int, value: float = 0):
    """`x` with `value` appended to each axis up to `sizes`; x itself where it fits."""
    widths = [(0, to - was) for to, was in zip(sizes, x.shape, strict=True)]
    if not any(after for _, after in widths):
        return x
    return jnp.pad(x, widths, constant_values=value)


def alike(*xs) -> Any:
    """The arrays, each varying over all manual mesh axes that any varies over."""
    for like in [x for x in xs if x is not None]:
        xs = [x if x is None else varying_like(x, like) for x in xs]
    return xs


def result(shape: tuple[int, ...], dtype, like) -> jax.ShapeDtypeStruct:
    """The type of a kernel's result that varies over the mesh axes that `like` does."""
    axes = jax.typeof(like).manual_axis_type
    return jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=axes)


def launch(body, out_type, blocks: int, warpgroups: int | None = None):
    """The kernel `body` on `blocks` blocks, axis "block", of so many warpgroups."""
    threads = {}
    if warpgroups is not None:
        threads = {"num_threads": warpgroups, "thread_name": "warpgroup"}
    kernel = plgpu.kernel(
        body,
        out_type=out_type,
        grid=(blocks,),
        grid_names=("block",),
        compiler_params=plgpu.CompilerParams(
            lowering_semantics=plgpu.LoweringSemantics.Warpgroup
        ),
        **threads,
    )

    def run(x, *args):
        # Results do not come with the mesh axes that their types name.
        return jax.tree.map(lambda out: varying_like(out, x), kernel(x, *args))

    return run


def cores() -> int:
    """Multiprocessors of the GPU lowered for; of an H100 where that is not known."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    if isinstance(device, AbstractDevice) and device.num_cores:
        return device.num_cores
    try:
        return jax.local_devices(backend="cuda")[0].core_count
    except RuntimeError:
        return 132


def f32(x) -> Any:
    return None if x is None else x.astype(jnp.float32)


def aligned(x) -> Any:
    """x with its last axis padded to whole copies, if it is not that already."""
    if x is None:
        return None
    width = up(x.shape[-1], ALIGNMENT // x.dtype.itemsize)
    return padded(x, *x.shape[:-1], width)


class Row(NamedTuple):
    """A row of `size` entries in shared memory, a chunk of it in registers at a time.

    For blocks of one warpgroup: a chunk is spread over its threads, and so is a sum.
    """

    size: int
    chunk: int

    def smem(self, dtype, *slots: int):
        return plgpu.SMEM((*slots, up(self.size, self.chunk)), dtype)

    def live(self, part, x, value=0.0):
        """The chunk x with `value` past the row's end."""
        if not isinstance(part.start, int) or part.start + self.chunk <= self.size:
            return x
        at = lax.broadcasted_iota(jnp.int32, (self.chunk,), 0)
        return jnp.where(at < self.size - part.start, x, value)

    def over(self, step, carry=None):
        """carry = step(part, carry) for each chunk; the last may go past the end."""
        whole, rest = divmod(self.size, self.chunk)

        def numbered(i, carry):
            return step(pl.ds(i * self.chunk, self.chunk), carry)

        carry = numbered(0, carry)  # has the layout that the loop keeps
        if whole > 1:
            carry = lax.fori_loop(1, whole, numbered, carry)
        return numbered(whole, carry) if whole and rest else carry

    def sum(self, term):
        """The sum over the row of term(part), which is 0 past the end."""

        def step(part, total):
            return term(part) if total is None else total + term(part)

        return jnp.sum(self.over(step))

    def load(self, ref, smem, barrier):
        """Begins to copy a row of memory to shared memory."""
        there = smem.at[pl.ds(0, ref.shape[0])]
        mode = plgpu.OOBFillMode.PROMISE_IN_BOUNDS  # one copy for the whole row
        plgpu.copy_gmem_to_smem(ref, there, barrier, oob_mode=mode)

    def load_once(self, refs, smem, barrier):
        """Copies a row each of refs to smem."""
        for ref, there in zip(refs, smem, strict=True):
            self.load(ref, there, barrier)
        if refs:
            plgpu.barrier_wait(barrier)

    def store(self, smem, ref):
        """Begins to copy a row of shared memory, committed before, to memory."""
        plgpu.copy_smem_to_gmem(smem.at[pl.ds(0, ref.shape[0])], ref)

    def each(self, rows: int, blocks: int, refs, smem, barrier):
        """Calls what it decorates with (at, slot) for each of this block's rows.

        While it works on slot `slot` of smem, the other one is filled from refs.
        """
        first = lax.axis_index("block")
        steps = lax.div(rows - first + blocks - 1, jnp.int32(blocks))

        def fetch(step):
            slot = lax.rem(step, jnp.int32(2))
            for ref, there in zip(refs, smem, strict=True):
                row = ref.at[first + step * blocks]
                self.load(row, there.at[slot], barrier.at[slot])

        def run(body):
            fetch(jnp.int32(0))

            @pl.loop(0, steps)
            def _(step):
                pl.when(step + 1 < steps)(lambda: fetch(step + 1))
                slot = lax.rem(step, jnp.int32(2))
                plgpu.barrier_wait(barrier.at[slot])
                body(first + step * blocks, slot)

        return run
