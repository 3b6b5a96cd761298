"""Matching two models: Git Re-Basin's and scipy's numbers, and numpy oracles."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtricks import merging
from tests.case import Golden

REBASIN = "samuela/git-re-basin@ef40098 weight_matching.py, arXiv:2209.04836"
REPAIR = "numpy f64 oracle of arXiv:2211.08403 sec. 4"
PLEAS = "SewoongLab/PLeaS-Merging@8662119 build_partial_merge_model in numpy"
_rng = np.random.default_rng(47)


def _params():
    found = {}
    for i, (n, m) in enumerate([(3, 6), (6, 5), (5, 4)]):
        kernel = _rng.normal(size=(n, m)).astype(np.float32)
        bias = _rng.normal(size=m).astype(np.float32)
        found[f"Dense_{i}"] = {"kernel": kernel, "bias": bias}
    return found


A, B = _params(), _params()
Z = _rng.normal(size=(7, 5)).astype(np.float32)
Y = Z[:, _rng.permutation(5)] + 0.3 * _rng.normal(size=(7, 5))
Y = Y.astype(np.float32)
SPEC = {
    "Dense_0": {"kernel": "_ P_0", "bias": "P_0"},
    "Dense_1": {"kernel": "P_0 P_1", "bias": "P_1"},
    "Dense_2": {"kernel": "P_1 _", "bias": "_"},
}
# What no permutation changes, which its objective leaves out.
LAST = np.vdot(np.float64(A["Dense_2"]["bias"]), np.float64(B["Dense_2"]["bias"]))
ORDERS = {"P_0": [5, 1, 0, 4, 2, 3], "P_1": [4, 0, 3, 1, 2]}


def both(found):
    """The permutations and the objective, as one vector."""
    parts = [np.ravel(v) for _, v in sorted(found.permutation.items())]
    return np.concatenate([*parts, [found.objective]])


def axes(spec):
    """Which axes share a name: for each axis the first one of its name, or -1."""
    words = [w for leaf in jax.tree.leaves(spec) for w in leaf.split()]
    return [-1 if w == "_" or w.isdigit() else words.index(w) for w in words]


def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def _permuted(p, q):
    """B with its layers' units in the orders p and q."""
    d = [B[f"Dense_{i}"] for i in range(3)]
    return {
        "Dense_0": {"kernel": d[0]["kernel"][:, p], "bias": d[0]["bias"][p]},
        "Dense_1": {"kernel": d[1]["kernel"][p][:, q], "bias": d[1]["bias"][q]},
        "Dense_2": {"kernel": d[2]["kernel"][q], "bias": d[2]["bias"]},
    }


def mlp(params, x):
    for i in range(3):
        layer = params[f"Dense_{i}"]
        x = x @ layer["kernel"] + layer["bias"].reshape(1, -1)
        x = jax.nn.relu(x) if i < 2 else x
    return x


def _hidden(params, x):
    """f64: what every layer of `mlp` sees."""
    seen = []
    for i in range(3):
        seen.append(x)
        layer = {k: np.float64(v) for k, v in params[f"Dense_{i}"].items()}
        x = x @ layer["kernel"] + layer["bias"]
        x = np.maximum(x, 0) if i < 2 else x
    return seen, x


X = _rng.normal(size=(40, 3)).astype(np.float32)
MATCHED = merging.Matching(
    {k: np.array(v) for k, v in ORDERS.items()},
    np.asarray(0.0),
    {"P_0": np.array([3.0, 1, 2, 6, 5, 4]), "P_1": np.array([1.0, 5, 2, 4, 3])},
)
# The pairs above the median of their scores.
MERGED = {"P_0": [3, 4, 5], "P_1": [1, 3, 4]}


def _start():
    """The authors' blocks, [in, out]: merged to separate whole, back again half."""
    found = {}
    for i in range(3):
        w = [np.float64(t[f"Dense_{i}"]["kernel"]) for t in (A, B)]
        b = [np.float64(t[f"Dense_{i}"]["bias"]) for t in (A, B)]
        rows, columns = _blocks(f"P_{i - 1}", w[0], 0), _blocks(f"P_{i}", w[0], 1)
        size = [sum(map(len, (r[0], r[2], r[3]))) for r in (rows, columns)]
        kernel, bias = np.zeros(size), np.zeros(size[1])
        (r1, r2, s1, s2), (c1, c2, d1, d2) = rows, columns
        a1, a2 = len(r1), len(r1) + len(s1)
        e1, e2 = len(c1), len(c1) + len(d1)
        kernel[:a1, :e1] = (w[0][np.ix_(r1, c1)] + w[1][np.ix_(r2, c2)]) / 2
        kernel[:a1, e1:e2] = w[0][np.ix_(r1, d1)]
        kernel[:a1, e2:] = w[1][np.ix_(r2, d2)]
        kernel[a1:a2, :e1] = w[0][np.ix_(s1, c1)] / 2
        kernel[a2:, :e1] = w[1][np.ix_(s2, c2)] / 2
        kernel[a1:a2, e1:e2] = w[0][np.ix_(s1, d1)]
        kernel[a2:, e2:] = w[1][np.ix_(s2, d2)]
        # What is not permuted is a mean as well, so that own units give it half.
        bias[:e1] = (b[0][c1] + b[1][c2]) / 2
        bias[e1:e2], bias[e2:] = b[0][d1], b[1][d2]
        found[f"Dense_{i}"] = {"kernel": kernel, "bias": bias}
    return found


def _blocks(name, w, axis):
    """(merged of A, of B, separate of A, of B)."""
    if name not in MERGED:
        here = np.arange(w.shape[axis])
        return here, here, here[:0], here[:0]
    m = np.array(MERGED[name])
    u = np.setdiff1d(np.arange(w.shape[axis]), m)
    p = np.array(ORDERS[name])
    return m, p[m], u, p[u]


def _fitted():
    """The last layer of all merged units: ridge regression towards the average."""
    seen_a, seen_b = _hidden(A, X)[0], _hidden(B, X)[0]
    q = ORDERS["P_1"]
    z = (seen_a[2] + seen_b[2][:, q]) / 2
    last = [np.float64(t["Dense_2"]["kernel"]) for t in (A, B)]
    t = [s @ w for s, w in zip((seen_a[2], seen_b[2]), last, strict=True)]
    start = (last[0] + last[1][q]) / 2
    gram = z.T @ z
    lift = 0.01 * np.trace(gram) / 5
    return np.linalg.solve(
        gram + lift * np.eye(5), z.T @ (t[0] + t[1]) / 2 + lift * start
    )


def _barrier(points):
    """Of the sum of squares of the logits' sines: not convex."""
    ts = np.linspace(0, 1, points)
    losses = []
    for t in ts:
        mixed = jax.tree.map(
            lambda a, b, t=t: (1 - t) * np.float64(a) + t * np.float64(b), A, B
        )
        losses.append(np.mean(np.sin(_hidden(mixed, X)[1])))
    chord = (1 - ts) * losses[0] + ts * losses[-1]
    return max(np.max(losses - chord), 0)


def _alignment(threshold, weighted):
    a, b = (np.float64(t["Dense_1"]["kernel"]) for t in (A, B))
    pairs = [np.linalg.svd(x, full_matrices=False) for x in (a, b)]
    total = 0.0
    weights = [
        np.where(s >= threshold * s[0], s if weighted else 1.0, 0.0)
        for _, s, _ in pairs
    ]
    (u, _, v), (p, _, q) = pairs
    for i in range(5):
        for j in range(5):
            total += weights[0][i] * weights[1][j] * (u[:, i] @ p[:, j]) * (v[i] @ q[j])
    squares = [np.sqrt(np.sum(w**2)) for w in weights]
    return total / squares[0] / squares[1]


def _repair(weight):
    a, b, c = (np.float64(x) for x in (Z, Y, 0.5 * Z[:, ::-1]))
    scale = ((1 - weight) * a.std(0) + weight * b.std(0)) / c.std(0)
    shift = (1 - weight) * a.mean(0) + weight * b.mean(0) - scale * c.mean(0)
    return np.stack([scale, shift])


def _loss(params, x):
    return jnp.mean(jnp.square(mlp(params, x)))


def _ste(found):
    return np.concatenate([found.permutation["P_0"], found.permutation["P_1"]])


UNDO = np.concatenate([np.argsort(ORDERS["P_0"]), np.argsort(ORDERS["P_1"])])
MOVED = _permuted(ORDERS["P_0"], ORDERS["P_1"])
CONV = {
    f"Conv_{i}": {"kernel": np.ones((3, 3, n, m)), "bias": np.ones(m)}
    for i, (n, m) in enumerate([(1, 4), (4, 6)])
}
CONV |= {
    f"LayerNorm_{i}": {"scale": np.ones(m), "bias": np.ones(m)}
    for i, m in enumerate([4, 6])
}
CONV |= {"Dense_0": {"kernel": np.ones((6, 2)), "bias": np.ones(2)}}


def _resnet():
    def kernel(n, m, side=3):
        return {"kernel": np.ones((side, side, n, m))}

    def norm(n):
        return {"scale": np.ones(n)}

    blocks = [
        {"norm_in": norm(4), "first": kernel(4, 4), "second": kernel(4, 4)},
        {"first": kernel(4, 6), "second": kernel(6, 6), "skip": kernel(4, 6, 1)},
    ]
    head = {"kernel": np.ones((6, 2))}
    return {"stem": kernel(1, 4), "blocks": blocks, "norm": norm(6), "head": head}


def _gated():
    block = {
        "down": np.ones((7, 4)),
        "gate": np.ones((4, 7)),
        "norm": np.ones(4),
        "up": np.ones((4, 7)),
    }
    return {"blocks": [block], "head": np.ones((4, 3))}


ROWS = [
    Golden(
        merging.weight_matching,
        (SPEC, A, B),
        {},
        [3, 0, 4, 1, 2, 5, 0, 2, 4, 1, 3, 30.134613899707183 - LAST],
        f"{REBASIN}, the better of its orders",
        both,
    ),
    Golden(
        merging.weight_matching,
        (SPEC, A, B),
        {"orders": 1},
        [3, 0, 4, 2, 1, 5, 0, 1, 2, 3, 4, 28.95090530425626 - LAST],
        f"{REBASIN}, P_0 first",
        both,
    ),
    Golden(
        merging.activation_matching,
        ({"h": Z}, {"h": Y}),
        {},
        [1, 4, 2, 0, 3, 4.854059441965902],
        "numpy corrcoef and scipy, arXiv:2211.08403, arXiv:2209.04836",
        both,
    ),
    Golden(
        merging.activation_matching,
        ({"h": Z}, {"h": Y}),
        {"statistic": "product"},
        [1, 4, 2, 0, 3, 42.704733675715964],
        "numpy and scipy, arXiv:2209.04836 sec. 3.1",
        both,
    ),
    Golden(
        merging.apply_permutation,
        (SPEC, ORDERS, B),
        {},
        flat(MOVED),
        "numpy indexing, arXiv:2209.04836",
        flat,
    ),
    Golden(
        merging.mlp_permutation_spec,
        (A,),
        {},
        # biases and kernels of the three layers, layer by layer
        [0, -1, 0, 3, 0, 3, -1, 3, -1],
        f"{REBASIN}, mlp_permutation_spec(2)",
        axes,
    ),
    Golden(
        merging.convnet_permutation_spec,
        (CONV,),
        {},
        [0, -1, -1, -1, 0, 5, -1, -1, 0, 5, -1, 5, -1, 0, 0, 5, 5],
        f"{REBASIN}, vgg16_permutation_spec",
        axes,
    ),
    Golden(
        merging.resnet_permutation_spec,
        (_resnet(),),
        {},
        # first, norm_in, second; first, second, skip; head, norm, stem
        [
            *[-1, -1, 2, 3, 2, -1, -1, 3, 2],
            *[-1, -1, 2, 12, -1, -1, 12, 16, -1, -1, 2, 16],
            *[16, -1, 16, -1, -1, -1, 2],
        ],
        "numpy: a name an axis, as resnet20_permutation_spec, arXiv:2209.04836",
        axes,
    ),
    Golden(
        merging.transformer_permutation_spec,
        (_gated(),),
        {"heads": 2},
        [0, 1, 1, 0, 1, 1, 0, 1, -1],
        "by hand: down, gate, norm, up, head, arXiv:2209.04836",
        axes,
    ),
    Golden(
        merging.permutation_spec,
        (mlp, A, X),
        {},
        [0, -1, 0, 3, 0, 3, -1, 3, -1],
        f"{REBASIN}, mlp_permutation_spec(2)",
        axes,
    ),
    Golden(
        merging.permutation_spec_from_labels,
        (SPEC, A),
        {},
        [0, -1, 0, 3, 0, 3, -1, 3, -1],
        f"{REBASIN}, mlp_permutation_spec(2)",
        axes,
    ),
    Golden(
        merging.label_activations,
        (mlp, SPEC, A, X),
        {},
        np.concatenate([np.ravel(x) for x in _hidden(A, X)[0][1:]]),
        "numpy f64 oracle, arXiv:2209.04836 sec. 3.1",
        flat,
        rtol=1e-5,
        atol=1e-6,
    ),
    Golden(
        merging.ste_matching,
        (_loss, SPEC, B, MOVED, [X, X]),
        {},
        UNDO,
        "by construction: the model itself, permuted, arXiv:2209.04836",
        _ste,
    ),
    Golden(
        merging.sinkhorn_matching,
        (SPEC, B, MOVED),
        {},
        UNDO,
        "by construction: the model itself, permuted, arXiv:2212.12042",
        _ste,
    ),
    Golden(
        merging.partial_matching,
        (MATCHED,),
        {"separate": 0.5},
        [*MERGED["P_0"], *[4, 2, 3], *MERGED["P_1"], *[0, 1, 2]],
        "numpy quantile, as get_blocks of SewoongLab/PLeaS-Merging@8662119, "
        "arXiv:2407.02447",
        lambda found: np.concatenate(
            [x for _, b in sorted(found.items()) for x in (b.merged, b.merged_other)]
        ),
    ),
    Golden(
        merging.pleas,
        (mlp, SPEC, A, B, X),
        {"matching": MATCHED, "separate": 0.5, "least_squares": False},
        flat(_start()),
        f"{PLEAS}, arXiv:2407.02447; own units give the fixed outputs half",
        flat,
        atol=1e-7,
    ),
    Golden(
        merging.pleas,
        (mlp, SPEC, A, B, X),
        {"matching": MATCHED, "ridge": 0.01},
        _fitted(),
        "numpy f64 oracle of arXiv:2407.02447 sec. 3, the last kernel",
        lambda tree: tree["Dense_2"]["kernel"],
        rtol=1e-4,
        atol=1e-5,
    ),
    Golden(
        merging.interpolation_barrier,
        (lambda p: jnp.mean(jnp.sin(mlp(p, X))), A, B),
        {},
        _barrier(11),
        "numpy f64 oracle of arXiv:2402.04051 def. 2.1, arXiv:2209.04836",
        lambda found: found.barrier,
        rtol=1e-4,
    ),
    Golden(
        merging.interpolation_barrier,
        (lambda p: jnp.mean(jnp.sin(mlp(p, X))), A, B),
        {"points": 5},
        _barrier(5),
        "numpy f64 oracle of arXiv:2402.04051 def. 2.1, arXiv:2209.04836",
        lambda found: found.barrier,
        rtol=1e-4,
    ),
    Golden(
        merging.singular_vector_alignment,
        (A["Dense_1"]["kernel"], B["Dense_1"]["kernel"]),
        {},
        _alignment(0.0, False),
        "numpy f64 oracle of arXiv:2402.04051 sec. 4",
        rtol=1e-5,
    ),
    Golden(
        merging.singular_vector_alignment,
        (A["Dense_1"]["kernel"], B["Dense_1"]["kernel"]),
        {"threshold": 0.4, "weighted": True},
        _alignment(0.4, True),
        "numpy f64 oracle of arXiv:2402.04051 sec. 4",
        rtol=1e-5,
    ),
    Golden(
        merging.repair,
        (Z, Y, 0.5 * Z[:, ::-1]),
        {},
        _repair(0.5),
        REPAIR,
        np.stack,
        rtol=1e-5,
        atol=1e-6,
    ),
    Golden(
        merging.repair,
        (Z, Y, 0.5 * Z[:, ::-1]),
        {"weight": 0.2},
        _repair(0.2),
        REPAIR,
        np.stack,
        rtol=1e-5,
        atol=1e-6,
    ),
    Golden(
        merging.fold_repair,
        (Z, Y[0], merging.Correction(jnp.asarray(Z[1]), jnp.asarray(Z[2]))),
        {},
        np.concatenate([np.float64(Z) * Z[1], [np.float64(Y[0]) * Z[1] + Z[2]]]),
        REPAIR,
        lambda found: np.concatenate([found[0], found[1][None]]),
        atol=1e-7,
    ),
]
