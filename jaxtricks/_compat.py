"""What differs between versions of jax (0.10 to 0.12), or is asked of its insides."""

import contextlib

import jax
from jax import lax
from jax.sharding import AbstractDevice, ManualAxisType, NamedSharding
from jax.sharding import PartitionSpec as P

__all__ = [
    "NamedSharding",
    "P",
    "device_kind",
    "partitioned",
    "struct",
    "suits",
    "target",
    "unvaried",
    "varying_like",
]


def varying_like(x, *like):
    """`x` varying over the manual mesh axes (shard_map, pmap) that `like` vary over.

    Its cotangent is then summed over those axes once, here, instead of at every use.
    """
    axes = tuple(_varying(*like) - _varying(x))
    return lax.pcast(x, axes, to="varying") if axes else x


def struct(shape, dtype, *like):
    """The type of an array that varies over the manual axes that `like` vary over."""
    varying = ManualAxisType(varying=_varying(*like))
    return jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=varying)


def _varying(*xs) -> frozenset:
    return frozenset().union(*(jax.typeof(x).manual_axis_type.varying for x in xs))


def unvaried(x, like):
    """`x` summed over the manual mesh axes that it varies over and `like` does not."""
    here = jax.typeof(x).manual_axis_type.varying
    axes = tuple(here - jax.typeof(like).manual_axis_type.varying)
    return lax.psum(x, axes) if axes else x


def suits(platform: str) -> bool:
    """Whether our kernels run on what is lowered for: any TPU, and Hopper GPUs.

    That is the device of the abstract mesh or one of this machine; if there is neither,
    any TPU will do, while a GPU may be of any make.
    """
    mesh = jax.sharding.get_abstract_mesh()
    kind = device_kind(platform)
    if platform == "tpu":
        return kind is not None or mesh.empty
    return any(name in (kind or "") for name in ("H100", "H200", "H800", "H20"))


def target(platform: str | None):
    """Names a TPU to lower for where there is none, as Pallas insists; the smallest."""
    mesh = jax.sharding.get_abstract_mesh()
    if platform != "tpu" or not mesh.empty or device_kind(platform) is not None:
        return contextlib.nullcontext()
    device = AbstractDevice(device_kind="TPU v5e", platform="tpu", num_cores=1)
    return jax.sharding.use_abstract_mesh(mesh.update(abstract_device=device))


def device_kind(platform: str) -> str | None:
    """Of the abstract mesh, else of this machine's first device, if it has any."""
    mesh = jax.sharding.get_abstract_mesh()
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
