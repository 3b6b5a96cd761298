"""What differs between versions of jax (0.10 to 0.12), or is asked of its insides."""

import contextlib

import jax
from jax import lax
from jax.sharding import AbstractDevice, NamedSharding
from jax.sharding import PartitionSpec as P

__all__ = [
    "NamedSharding",
    "P",
    "partitioned",
    "suits",
    "target",
    "varying_like",
]


def varying_like(x, like):
    """`x` varying over the manual mesh axes (shard_map, pmap) that `like` varies over.

    Its cotangent is then summed over those axes once, here, instead of at every use.
    """
    there = jax.typeof(like).manual_axis_type.varying
    axes = tuple(there - jax.typeof(x).manual_axis_type.varying)
    return lax.pcast(x, axes, to="varying") if axes else x


def suits(platform: str) -> bool:
    """Whether our kernels run on what is lowered for: any TPU, and Hopper GPUs.

    That is the device of the abstract mesh or one of this machine; if there is neither,
    any TPU will do, while a GPU may be of any make.
    """
    mesh = jax.sharding.get_abstract_mesh()
    kind = _device_kind(platform, mesh)
    if platform == "tpu":
        return kind is not None or mesh.empty
    return any(name in (kind or "") for name in ("H100", "H200", "H800", "H20"))


def target(platform: str | None):
    """Names a TPU to lower for where there is none, as Pallas insists; the smallest."""
    mesh = jax.sharding.get_abstract_mesh()
    if platform != "tpu" or not mesh.empty or _device_kind(platform, mesh) is not None:
        return contextlib.nullcontext()
    device = AbstractDevice(device_kind="TPU v5e", platform="tpu", num_cores=1)
    return jax.sharding.use_abstract_mesh(mesh.update(abstract_device=device))


def _device_kind(platform, mesh) -> str | None:
    device, name = mesh.abstract_device, "gpu" if platform == "cuda" else platform
    if device is not None and device.platform == name:
        return device.device_kind
    try:
        return jax.local_devices(backend=platform)[0].device_kind
    except RuntimeError:
        return None


def partitioned(ctx) -> bool:
    """Whether the compiler will split what a lowering rule emits over devices."""
    axes = ctx.module_context.axis_context
    if hasattr(axes, "num_devices"):
        return axes.num_devices != 1
    manual = getattr(axes, "manual_axes", frozenset())
    return bool(manual) and manual != frozenset(axes.mesh.axis_names)
