"""Whether a platform has a kernel for an operation on a shape."""

import importlib

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from .._check import one_of

NORMS = ("layer_norm", "rms_norm", "crms_norm")
SOFTMAX = ("softmax", "two_pass_softmax", "log_softmax", "logsumexp")


def supported(
    operation: str, shape: tuple[int, ...], *, dtype: DTypeLike, platform: str
) -> bool:
    """Whether "auto" takes a kernel of ours for an operation there, rather than XLA.

    Args:
      operation: "token_statistics" (and all `linear_*` functions on it), "softmax",
        "two_pass_softmax", "log_softmax", "logsumexp", "layer_norm", "rms_norm" or
        "crms_norm".
      shape: (tokens, features, classes) of the first; (rows, features) of the others.
      dtype: of the data; of hidden states and weight alike.
      platform: "tpu", or "gpu" for Hopper GPUs: all others take XLA.
    Returns:
      Whether the kernel takes that shape and dtype, as far as it alone is concerned: a
      teacher, class weights, or a program that the compiler partitions take XLA too.
    Gradient: none.
    Cost: none; imports Pallas.
    Raises: ValueError for an unknown operation or platform, or a shape of another rank.
    Source: definition.
    Example:
      >>> supported("softmax", (8, 50257), dtype="bfloat16", platform="tpu")
      True
      >>> supported("softmax", (8, 50257), dtype="float64", platform="tpu")
      False
    """
    one_of("operation", operation, ("token_statistics", *SOFTMAX, *NORMS))
    one_of("platform", platform, ("tpu", "gpu"))
    rank = 3 if operation == "token_statistics" else 2
    if len(shape) != rank:
        raise ValueError(f"shape: wanted {rank} sizes for {operation}, came {shape}")

    def kernel(name):
        return importlib.import_module(f".{platform}.{name}", __package__)

    def array(*sizes, of=dtype):
        # Not canonicalized, so that float64 is not taken for float32.
        return jax.ShapeDtypeStruct(sizes, jnp.dtype(of))

    if operation == "token_statistics":
        n, d, v = shape
        args = array(n, d), array(d, v), array(n, of="int32"), None, None, 1.0
        return kernel("statistics").lacks(*args, layout="dv", stats=()) is None
    if operation in SOFTMAX:
        return kernel("softmax").lacks(array(*shape)) is None
    kind = operation.removesuffix("_norm")
    return kernel("norms").lacks(array(*shape), None, kind=kind) is None
