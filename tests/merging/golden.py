"""Merges of three small models: mergekit's and the authors' numbers, and oracles."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtricks import merging
from tests import oracles as oracle
from tests.case import Golden

_rng = np.random.default_rng(31)
BASE = {"b": _rng.normal(size=(2, 4)).astype(np.float32)}
BASE["a"] = _rng.normal(size=7).astype(np.float32)
TREES = [
    {
        key: (leaf + (0.1 + 0.1 * i) * _rng.normal(size=leaf.shape)).astype(np.float32)
        for key, leaf in BASE.items()
    }
    for i in range(3)
]
WEIGHTS = (0.5, 0.2, 1.1)
MERGEKIT = "mergekit 0.1.5 merge_state_dicts in float64"
# Where a sum of entries near 1 almost cancels, one rounding of them is left.
ROUNDING = 6e-8
AUTHORS = "prateeky2806/ties-merging@44e7891 ties_minimal, arXiv:2306.01708"


def flat(tree):
    """The leaves "a" then "b" as one vector."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def _f64(tree):
    return {key: np.asarray(leaf, np.float64) for key, leaf in tree.items()}


def _stack(key):
    """f64[3, n]: what each model changed in one leaf."""
    return np.stack([np.ravel(_f64(tree)[key] - _f64(BASE)[key]) for tree in TREES])


def _ties(scope="tensor", weights=(1.0, 1.0, 1.0), scale=1.0, **kwargs):
    density, rest = kwargs.get("density", 0.2), dict(kwargs)
    rest.pop("density", None)
    if scope == "global":
        changes = np.concatenate([_stack("a"), _stack("b")], axis=1)
        merged = oracle.ties(changes, weights, density, **rest)
    else:
        parts = [oracle.ties(_stack(key), weights, density, **rest) for key in "ab"]
        merged = np.concatenate(parts)
    given = {"scope": scope, "scale": scale, **kwargs}
    if weights != (1.0, 1.0, 1.0):
        given["weights"] = weights
    expect = flat(BASE).astype(np.float64) + scale * merged
    origin = "numpy f64 oracle of arXiv:2306.01708 alg. 1"
    return Golden(
        merging.ties, (BASE, TREES), given, expect, origin, flat, atol=ROUNDING
    )


def _outside(fn, args, kwargs, expect, origin):
    return Golden(fn, args, kwargs, expect, origin, flat, atol=ROUNDING)


def _leaf(large=1.0, **kwargs):
    weights = kwargs.get("weights", (1.0, 1.0, 1.0))
    density = kwargs.get("density", 0.2)
    rest = {k: v for k, v in kwargs.items() if k in ("sign", "normalize")}
    stack = (large * _stack("b")).astype(np.float32)
    expect = oracle.ties(stack, weights, density, **rest).reshape(2, 4)
    args = (np.zeros((2, 4), np.float32), stack.reshape(3, 2, 4))
    origin = "numpy f64 oracle of arXiv:2306.01708 alg. 1"
    return Golden(merging.ties_leaf, args, kwargs, expect, origin)


def _average(weights, normalize=True):
    total = sum(w * flat(_f64(t)) for w, t in zip(weights, TREES, strict=True))
    return total / sum(weights) if normalize else total


_A = np.stack([tree["a"] for tree in TREES])
_VECTORS = [jax.tree.map(np.subtract, tree, BASE) for tree in TREES]
SOUP = "numpy f64 oracle of arXiv:2203.05482"
TASKS = "numpy f64 oracle of arXiv:2212.04089"

# Leaf "a" of seven entries, then "b" of eight.
_LINEAR = [1.155802376, -1.194101204, 1.68285254, 1.02779245, -0.603582697]
_LINEAR += [0.555260201, 0.321100363, -0.672381424, 0.033774609, 0.44110804]
_LINEAR += [-0.821690112, 0.899411423, 0.112805, 0.833572523, 0.163392646]
_ARITHMETIC = [1.069954466, -1.148376179, 1.777946194, 0.993509734, -0.640171373]
_ARITHMETIC += [0.550975373, 0.265103226, -0.710561406, 0.013721704, 0.444277737]
_ARITHMETIC += [-0.79056145, 0.881213285, 0.074808396, 0.80793169, 0.117383089]
_TIES_HALF = [1.462845325, -1.305569887, 1.495755732, 1.028487831, -0.599957824]
_TIES_HALF += [0.660166323, 0.198244944, -0.658621162, 0.003965314, 0.460796704]
_TIES_HALF += [-0.719762981, 0.954994261, 0.25505811, 0.921533167, 0.272418231]
_TIES_WEIGHTED = [1.107437867, -1.251346151, 1.669362351, 0.987953432, -0.599957824]
_TIES_WEIGHTED += [0.660166323, 0.254945106, -0.727491834, -0.046894428, 0.397942782]
_TIES_WEIGHTED += [-0.77781425, 0.793890455, 0.25505811, 0.802377311, 0.272418231]
_TIES_SEVERAL = [1.006093025, -1.282360526, 1.68285254, 0.981663644, -0.472649932]
_TIES_SEVERAL += [0.464553535, 0.198244944, -0.691899989, -0.07763381, 0.399769464]
_TIES_SEVERAL += [-0.719762981, 0.973252127, 0.041082297, 0.921533167, 0.078146979]
_TIES_FIFTH = [1.006093025, -1.272045255, 1.349892855, 1.202389836, -0.599957824]
_TIES_FIFTH += [0.660166323, 0.444767386, -0.569877625, -0.113900088, 0.607128263]
_TIES_FIFTH += [-0.972159803, 0.954994261, 0.25505811, 0.782979846, 0.272418231]
_GLOBAL = [1.462845325, -1.305569887, 1.495755732, 1.028487831, -0.599957824]
_GLOBAL += [0.745696366, 0.198244944, -0.658621162, 0.003965314, 0.416900888]
_GLOBAL += [-0.719762981, 0.954994261, 0.25505811, 0.921533167, 0.272418231]
_GLOBAL_SUM = [1.462845325, -1.673383415, 1.215411782, 0.854585826, -0.472649932]
_GLOBAL_SUM += [0.464553535, 0.198244944, -1.042872667, -0.255984254, 0.168133587]
_GLOBAL_SUM += [-0.719762981, 1.163901746, -0.001726102, 0.921533167, 0.272418231]

# Elected by counts: three entries differ from the election by sums.
_FREQUENCY = [1.462845325, -1.305569887, 1.584548275, 1.028487831, -0.623959452]
_FREQUENCY += [0.521304995, 0.518888265, -0.611158411, 0.003965314, 0.460796704]
_FREQUENCY += [-0.831687361, 0.965783, 0.126666004, 0.921533167, 0.308795094]

_EQUAL = np.array([[1, -1, 1, -1, 1, -1, 1], [-2, 2, -2, 2, -2, 2, -2]], np.float32)
_ZEROS = {"a": np.zeros(7, np.float32), "b": np.zeros((2, 4), np.float32)}
_ONES = jax.tree.map(np.ones_like, _ZEROS)
_CLOSE = np.array([[1.0, 1 + 1e-12, -1 - 2e-12, 1 - 1e-12, 1e-300]])


def _close_in_f64(_):
    with jax.enable_x64(True):
        got = merging.ties_leaf(jnp.zeros(5), jnp.asarray(_CLOSE), density=0.4)
        return np.asarray(got)


ROWS = [
    _outside(merging.linear, (TREES,), {}, _average((1, 1, 1)), SOUP),
    _outside(
        merging.linear, (TREES,), {"normalize": False}, _average((1, 1, 1), False), SOUP
    ),
    _outside(
        merging.linear,
        (TREES,),
        {"weights": WEIGHTS},
        _LINEAR,
        f"{MERGEKIT} linear, arXiv:2203.05482",
    ),
    _outside(
        merging.linear,
        (TREES,),
        {"weights": WEIGHTS, "normalize": False},
        _average(WEIGHTS, False),
        SOUP,
    ),
    _outside(
        merging.linear,
        (TREES,),
        {"weights": np.array(WEIGHTS, np.float32), "where": {"a": True, "b": False}},
        np.concatenate([_average(WEIGHTS)[:7], np.ravel(TREES[0]["b"])]),
        SOUP,
    ),
    Golden(merging.linear_leaf, (_A,), {}, _average((1, 1, 1))[:7], SOUP),
    Golden(
        merging.linear_leaf,
        (_A,),
        {"weights": WEIGHTS, "normalize": False},
        _average(WEIGHTS, False)[:7],
        SOUP,
    ),
    Golden(
        merging.linear_leaf, (_A,), {"weights": WEIGHTS}, _average(WEIGHTS)[:7], SOUP
    ),
    _outside(
        merging.task_vector,
        (BASE, TREES[1]),
        {},
        flat(_f64(TREES[1])) - flat(_f64(BASE)),
        TASKS,
    ),
    _outside(
        merging.add_task_vectors,
        (BASE, _VECTORS),
        {"weights": (0.5, -0.2, 1.1), "scale": 0.7},
        _ARITHMETIC,
        f"{MERGEKIT} task_arithmetic, arXiv:2212.04089",
    ),
    _outside(
        merging.add_task_vectors,
        (BASE, _VECTORS),
        {},
        flat(_f64(BASE)) + sum(flat(_f64(vector)) for vector in _VECTORS),
        TASKS,
    ),
    _ties(),
    _ties(scope="global"),
    _ties(density=0.0),
    _ties(density=(0.3, 0.6, 0.9), weights=WEIGHTS, scale=0.7),
    _ties(density=0.9, weights=WEIGHTS, sign="frequency"),
    _ties(
        density=0.9, weights=WEIGHTS, sign="frequency", normalize=False, scope="global"
    ),
    _ties(density=1.0, weights=(1.0, -0.4, 0.8)),
    _outside(
        merging.ties,
        (BASE, TREES),
        {"density": 0.2},
        _TIES_FIFTH,
        f"{MERGEKIT} ties, arXiv:2306.01708",
    ),
    _outside(
        merging.ties,
        (BASE, TREES),
        {"density": 0.5},
        _TIES_HALF,
        f"{MERGEKIT} ties, arXiv:2306.01708",
    ),
    _outside(
        merging.ties,
        (BASE, TREES),
        {"density": 0.5, "weights": WEIGHTS, "normalize": False, "scale": 0.7},
        _TIES_WEIGHTED,
        f"{MERGEKIT} ties, arXiv:2306.01708",
    ),
    _outside(
        merging.ties,
        (BASE, TREES),
        {"density": np.array([0.3, 0.6, 0.9], np.float32), "weights": WEIGHTS},
        _TIES_SEVERAL,
        f"{MERGEKIT} ties, arXiv:2306.01708",
    ),
    _outside(
        merging.ties,
        (BASE, TREES),
        {"density": 0.9, "sign": "frequency"},
        _FREQUENCY,
        "peft 0.20.0 merge_utils.ties in float64, arXiv:2306.01708",
    ),
    # The authors keep one entry more than int(K d): 7 and 10 of 15 for K = 0.4 and 0.6.
    _outside(
        merging.ties,
        (BASE, TREES),
        {"density": 7.5 / 15, "scope": "global"},
        _GLOBAL,
        AUTHORS,
    ),
    _outside(
        merging.ties,
        (BASE, TREES),
        {"density": 10.5 / 15, "scope": "global", "normalize": False},
        _GLOBAL_SUM,
        AUTHORS,
    ),
    # Equal magnitudes: the first ones are kept, 3 of 7, and 9 of the 15 in both leaves.
    Golden(
        merging.ties_leaf,
        (0 * _EQUAL[0], _EQUAL[:1]),
        {"density": 0.5},
        [1, -1, 1, 0, 0, 0, 0],
        "by hand, arXiv:2306.01708",
    ),
    Golden(
        merging.ties_leaf,
        (0 * _EQUAL[0], _EQUAL),
        {"density": (1.0, 0.5)},
        [-2, 2, -2, -1, 1, -1, 1],
        "by hand, arXiv:2306.01708",
    ),
    Golden(
        merging.ties,
        (_ZEROS, [_ONES, _ONES]),
        {"density": 0.6, "scope": "global"},
        [1] * 9 + [0] * 6,
        "by hand, arXiv:2306.01708",
        flat,
    ),
    Golden(
        merging.ties_leaf,
        (np.zeros(5, np.float32), _CLOSE.astype(np.float32)),
        {"density": 0.4},
        [0, 1 + 1e-12, -1 - 2e-12, 0, 0],
        "by hand, arXiv:2306.01708",
        _close_in_f64,
        rtol=1e-15,
    ),
    _leaf(large=1e6),
    _leaf(),
    _leaf(density=0.05),
    _leaf(density=np.array([0.0, 0.05, 0.3], np.float32)),
    _leaf(density=(0.0, 0.05, 0.3)),
    _leaf(density=0.9, weights=WEIGHTS),
    _leaf(density=0.9, weights=WEIGHTS, sign="frequency"),
    _leaf(density=(0.3, 0.6, 0.9), weights=WEIGHTS, normalize=False),
]
