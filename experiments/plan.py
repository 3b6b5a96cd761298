"""What a step of the transformer moves and holds on a mesh, on paper.

For a decoder of width d with L blocks of 12 d^2 weights and V classes, N tokens a step
on `data` x `model` devices. Sums are sent by rings: an all-reduce of n bytes among k
devices sends 2 n (k - 1) / k from each, a gather or a reduce-scatter half of that.
"""

from typing import NamedTuple

QUERIES = 1024  # whose scores exist at a time, as in models/transformer.py


class Shape(NamedTuple):
    """A model and its step."""

    d_model: int
    layers: int
    classes: int
    tokens: int  # of a step, over all devices
    length: int  # of a window
    itemsize: int = 2  # bytes of a number in the forward and backward pass
    features: int = 128  # of a head

    @property
    def parameters(self) -> int:
        """With a tied head."""
        norms = (2 * self.layers + 1) * self.d_model
        return 12 * self.layers * self.d_model**2 + self.classes * self.d_model + norms

    @property
    def flops(self) -> float:
        """6 for each weight and token, 12 for each pair of positions and feature."""
        pairs = 12 * self.layers * self.d_model * self.length
        return self.tokens * (6.0 * self.parameters + pairs)


def sends(shape: Shape, *, data: int, model: int, gathers: int = 2) -> dict[str, float]:
    """Bytes that each device sends in a step, at least.

    `gathers`: how often weights that are split over `data` are gathered: once if the
    forward pass keeps them for the backward pass, else twice.
    """
    own = shape.parameters / model
    rows = shape.tokens / data * shape.d_model  # of one activation on a device
    ring, sums = (data - 1) / data, 2 * (model - 1) / model
    return {
        "weights": gathers * ring * own * shape.itemsize,
        "gradients": ring * own * 4,
        # Two sums in each block forward and two backward, and one for the embedding.
        "activations": (4 * shape.layers + 1) * sums * rows * shape.itemsize,
        # dX of the vocabulary's parts in f32, and lse and target of each token.
        "head": sums * (rows * 4 + 2 * shape.tokens / data * 4),
    }


def holds(
    shape: Shape, *, data: int, model: int, remat: bool = True, workspace: int = 2**28
) -> dict[str, float]:
    """Bytes on each device at the peak of a step, about.

    f32 weights and the two moments of Adam, split over all devices; gradients likewise.
    Activations: the input of each block, or without `remat` 16 of its width (the normed
    inputs, q, k, v, what attention gives and the perceptron's two sides); blockwise
    cross entropy holds `workspace` instead of N x V logits. Of the scores of 1024
    queries there are four in f32, with the softmax and both gradients, as compiled for
    CPUs.
    """
    own = shape.parameters / (data * model)
    rows = shape.tokens / data * shape.d_model
    block = rows * (2 + 14 / model) * shape.itemsize
    gathered = (
        2 * 12 * shape.d_model**2 / model * shape.itemsize
    )  # two blocks at a time
    pairs = shape.tokens / data * min(shape.length, QUERIES)
    heads = shape.d_model / shape.features / model
    kept = shape.layers * (rows * shape.itemsize if remat else block)
    return {
        "weights": 4 * own,
        "moments": 8 * own,
        "gradients": 4 * own,
        "activations": kept + block,
        "scores": 4 * pairs * heads * 4,
        "gathered weights": gathered if data > 1 else 0.0,
        "logits": float(
            min(workspace, shape.tokens / data * shape.classes / model * 4)
        ),
    }
