"""Meta-gradients: training itself as a function to differentiate.

`scan(step, init, xs) -> (carry, ys)` is `lax.scan` with a backward pass that replays
the training instead of storing it; everything after that is `jax.grad`, in example
weights, schedules, initial parameters or whatever the steps read.
"""

from ._scan import scan

__all__ = ["scan"]
