"""Models as pure functions: parameters are a nested dict of f32 arrays.

`apply(params, batch) -> (hidden, head)`, never logits: the loss takes both, so that no
array of [tokens, vocabulary] need exist. `hidden @ head` are the logits.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from flax import nnx
from jaxtyping import Array, Float, Key, PyTree

from .. import config
from ..config import BadInput
from ..mesh import Rules


class Facts(NamedTuple):
    """What a model and a step need to know of the data; a Dataset says it as well."""

    kind: str  # "tokens" or "images"
    domains: tuple[str, ...]
    classes: int  # or the size of the vocabulary
    image: tuple[int, int, int] | None = None  # height, width, channels


class Functions(NamedTuple):
    """A model."""

    init: Callable[[Key[Array, ""]], PyTree]  # traceable, in f32
    apply: Callable[[PyTree, dict[str, Any]], tuple[Float[Array, "..."], Array]]
    rules: Rules  # how it is split over a mesh
    flops: Callable[[int], float]  # of one example's forward pass, by its length


def build(flags: config.Model, facts: Facts) -> Functions:
    """The model that --model names, for these data."""
    kind = "tokens" if flags.model == "transformer" else "images"
    if facts.kind != kind:
        fits = "transformer" if facts.kind == "tokens" else "vit or resnet"
        said = f"wanted {fits}, as the data are {facts.kind}"
        raise BadInput(f"--model: {said}, came {flags.model}")
    match flags.model:
        case "transformer":
            from . import transformer as module
        case "vit":
            from . import vit as module
        case "resnet":
            from . import resnet as module
    init, apply = pure(lambda rngs: module.make(flags, facts, rngs))
    return Functions(
        init, apply, module.RULES, lambda length: module.flops(flags, facts, length)
    )


def pure(make: Callable[[nnx.Rngs], nnx.Module]) -> tuple[Callable, Callable]:
    """(init, apply) of a module whose variables are all parameters."""
    graph = nnx.graphdef(nnx.eval_shape(lambda: make(nnx.Rngs(0))))

    def init(key):
        return nnx.to_pure_dict(nnx.state(make(nnx.Rngs(key)), nnx.Param))

    def apply(params, batch):
        return nnx.merge(graph, params)(batch)

    return init, apply
