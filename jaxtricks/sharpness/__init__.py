"""Sharpness-aware training: the gradient somewhere near the weights, not at them.

A trick is `name(<hyper>) -> optax.GradientTransformationExtraArgs`, to stand before any
optimizer in `optax.chain`. It takes the second gradient from a function of the
parameters: `tx.update(grads, state, params, grad_fn=grad_fn)`.
"""

from .._tree import complete
from ._sam import sam

__all__ = ["complete", "sam"]
