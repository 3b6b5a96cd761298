"""Fused operations: the signature of the plain loss, without the memory of its logits.

`linear_cross_entropy(hidden, weight, labels) -> f32[*batch]` takes what the head would
multiply and never holds more than a stated workspace of logits, at any order of
differentiation and on any mesh.
"""

from ._linear_cross_entropy import linear_cross_entropy

__all__ = ["linear_cross_entropy"]
