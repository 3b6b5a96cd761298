"""Meta-parameters of learned optimizers, and what the authors' code was run on."""

import numpy as np

_rng = np.random.default_rng(2203)


def _normal(*shape):
    return _rng.normal(size=shape)


PARAMS = {"a": _normal(4, 3), "b": _normal(3), "c": _normal(), "d": _normal(2, 3, 4)}
GRADS = [{k: 0.3 * _normal(*v.shape) for k, v in PARAMS.items()} for _ in range(3)]
LOSSES = (2.0, 1.5, 9.0)
H, L, B = 3, 3, 2  # units of a small network, of the recurrent one, small networks


def _layer(*sizes, scale=1.0):
    """Of one layer, or of several side by side."""
    return scale * _normal(*sizes), 0.1 * _normal(*sizes[:-2], sizes[-1])


_layers = [_layer(39, H, scale=0.3), _layer(H, H), _layer(H, 2)]
_shifts = {k: 0.02 * _normal(n) for k, n in (("mean", 3), ("square", 1), ("factor", 3))}
MLP = {"decays": _shifts, "layers": _layers}
VELO = {
    "layers": [_layer(B, 30, H, scale=0.3), _layer(B, H, H), _layer(B, H, 2)],
    "hidden": 0.1 * _normal(1, L),
    "cell": 0.1 * _normal(1, L),
    "mix": _layer(30, L, scale=0.3),
    "into": _layer(30, L, scale=0.3),
    "lstm": _layer(2 * L, 4 * L),
    "controls": (0.03 * _normal(L, B), 0.03 * _normal(B)),  # times 100, as weights
    "rate": (_normal(L, 1), _normal(1)),
}


def single(tree):
    """In float32."""
    if isinstance(tree, dict):
        return {k: single(v) for k, v in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(map(single, tree))
    return np.asarray(tree, np.float32)
