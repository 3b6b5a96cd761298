"""The election of signs in place: `combine` for parts of files, without its copies."""

import numpy as np


def elected(
    changes: np.ndarray, weights: np.ndarray, *, normalize: bool = True
) -> np.ndarray:
    """What `combine(np, changes, weights, normalize=normalize)` gives; uses up changes.

    Changes are turned so that the elected sign is +; then those that agree are what is
    above 0, and the rest of the formula needs no case.
    """
    w = weights[:, None]
    changes *= w
    sign = (np.add.reduce(changes, 0) >= 0).astype(changes.dtype)
    sign *= 2
    sign -= 1
    changes *= sign
    np.maximum(changes, 0, out=changes)  # NaN stays: it is against nobody
    total = np.add.reduce(changes, 0)
    if normalize:
        agreeing = (changes > 0).astype(changes.dtype)
        agreeing *= w
        share = np.add.reduce(agreeing, 0)
        share += share == 0
        total /= share
    total *= sign
    return total
