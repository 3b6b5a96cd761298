"""Merging files: checkpoints of any size, streamed tensor by tensor on the host.

Reads safetensors (one file or shards), orbax checkpoints and flax's msgpack; writes
safetensors or orbax; takes mergekit's recipes. Neither jax nor orbax is imported.
"""

import importlib
from typing import TYPE_CHECKING

__all__ = ["MergeError", "average", "merge"]

if TYPE_CHECKING:
    from ._average import average
    from ._merge import merge
    from ._tensors import MergeError
else:
    _MODULE = {"MergeError": "_tensors", "average": "_average", "merge": "_merge"}

    def __getattr__(name):
        if name in _MODULE:
            return getattr(importlib.import_module(f"{__name__}.{_MODULE[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return __all__
