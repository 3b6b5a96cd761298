"""Domain weights from the domains' own losses: --mix-by, a weighting of the library."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from . import tricks
from .config import Trick


class Driver(NamedTuple):
    """init: the weighting's memory, as JSON; update(losses, memory) -> both anew.

    Losses are f64[domains], nan where a domain had none; such a domain counts with the
    mean of the others. Weights multiply those of --mix.
    """

    init: list
    update: Callable[[np.ndarray, list], tuple[np.ndarray, list]]


def driver(trick: Trick, base: np.ndarray) -> Driver | None:
    """None if none is asked for. `base`: f64[domains], what the weights multiply."""
    weighting = tricks.weights(trick, "--mix-by")
    if weighting is None:
        return None
    leaves, structure = jax.tree.flatten(weighting.init())
    dtypes = [leaf.dtype for leaf in leaves]

    def update(losses, memory):
        known = np.isfinite(losses)
        if not known.any():
            return base, memory
        losses = np.where(known, losses, losses[known].mean()).astype(np.float32)
        state = [np.array(x, d) for x, d in zip(memory, dtypes, strict=True)]
        state = jax.tree.unflatten(structure, state)
        weights, state = weighting.update(losses, state, where=base > 0)
        weights = base * np.asarray(weights, np.float64)
        total = weights.sum()
        mixed = weights / total if total > 0 and np.isfinite(total) else base
        return mixed, [np.asarray(x).tolist() for x in jax.tree.leaves(state)]

    return Driver([np.asarray(leaf).tolist() for leaf in leaves], update)
