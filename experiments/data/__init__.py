"""What a run is trained on: sources, windows, mixtures, batches.

`load` reads the sources of the flags, `stream` draws training batches from them without
end, `validation` has the held-out examples in batches.
"""

from .dataset import Dataset, load, validation
from .streaming import Stream, stream

__all__ = ["Dataset", "Stream", "load", "stream", "validation"]
