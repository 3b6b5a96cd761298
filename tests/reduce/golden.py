"""Reductions by hand: sums of dyadic numbers, exact in f32."""

import numpy as np

from jaxtricks import reduce
from tests.case import Golden

X = np.array([[1.5, -2.25, 4.0], [0.75, 8.5, -3.125]], np.float32)
W = np.array([[0.5, 2.0, 0.25], [3.0, 1.25, 0.125]], np.float32)
LIVE = np.array([[True, False, True], [True, True, False]])
HAND = "by hand from the definition"

# w x: 0.75, -4.5, 1, 2.25, 10.625, -0.390625
ROWS = [
    Golden(reduce.mean, (X,), {}, 9.375 / 6, HAND),
    Golden(reduce.mean, (X,), {"weights": W}, 9.734375 / 7.125, HAND),
    Golden(reduce.mean, (X,), {"where": LIVE}, 14.75 / 4, HAND),
    Golden(reduce.mean, (X,), {"weights": W, "where": LIVE}, 14.625 / 5, HAND),
    Golden(reduce.total, (X,), {}, [9.375, 6], HAND),
    Golden(reduce.total, (X,), {"weights": W}, [9.734375, 7.125], HAND),
    Golden(reduce.total, (X,), {"where": LIVE}, [14.75, 4], HAND),
    Golden(reduce.total, (X,), {"weights": W, "where": LIVE}, [14.625, 5], HAND),
    # Weight 0 drops an infinite loss, and only that.
    Golden(
        reduce.total,
        (np.array([np.inf, 2.0, 3.0], np.float32),),
        {"weights": np.array([0.0, 0.5, 1.5], np.float32)},
        [5.5, 2],
        HAND,
    ),
    Golden(
        reduce.total,
        (np.array([np.inf, 2.0, 3.0], np.float32),),
        {"weights": np.array([1.0, 0.5, 1.5], np.float32)},
        [np.inf, 3],
        HAND,
    ),
]
