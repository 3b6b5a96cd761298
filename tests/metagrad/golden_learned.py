"""Learned optimizers against the authors' code, transport and its kin by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtricks import metagrad
from tests import oracles as oracle
from tests.case import Golden
from tests.metagrad.golden_derivatives import row, wide
from tests.metagrad.learned import GRADS, LOSSES, MLP, PARAMS, VELO, single

CODE = "google/learned_optimization@32186aa4"
# The parameters after three steps in float64, exp_mult 0.1 and step_mult 0.01.
THEIRS = {
    "mlp": """
    0.53812705173 1.35413732129 -0.138917380765 -1.37177478005 -0.0545813554374
    0.173895643792 -0.538220519389 0.581324629585 0.19359860751 1.63248942308
    0.740764311015 1.00556093207 -1.26069974594 -0.898126861489 1.41314974085
    -0.849463896594 -0.191046224476 -0.785561992773 1.7025172927 -1.7742743812
    0.545803444923 0.660006230406 1.11921457322 -0.511799814737 0.607720337641
    -1.25491151519 0.172603815646 -1.96208317269 1.21049563275 -0.469544481755
    -0.411425222719 -1.01928418812 0.051795325252 -0.776294171614
    -0.217989031982 0.935293885851 0.114835538961 0.500706134961 0.499351372438
    0.0854164333159
    """,
    "velo": """
    0.559393400146 1.35879325082 -0.14123410026 -1.37477541924 -0.0518965841308
    0.185159716947 -0.539955625554 0.598175982096 0.191211881654 1.63004903244
    0.749582440126 1.02194207597 -1.28058508816 -0.908633650569 1.40694943258
    -0.851968537221 -0.182268325381 -0.788556460519 1.71300456711 -1.76186923688
    0.541616232077 0.651641496756 1.12371543065 -0.50946398969 0.606460739139
    -1.24392924309 0.168802271973 -1.96424494286 1.22007324796 -0.467971252951
    -0.415266896673 -1.01845738953 0.0543441003892 -0.764399438901
    -0.214798233247 0.935091045941 0.124156640133 0.494545297817 0.494894274546
    0.0750931987421
    """,
}


def trained(fn, name, meta, papers, **kwargs):
    """Three steps from PARAMS; each update is the step itself."""
    settings = {"exp_mult": 0.1, "step_mult": 0.01, **kwargs}

    @jax.jit
    def run():
        tx = fn(jax.tree.map(wide, meta), **settings)
        params = jax.tree.map(wide, PARAMS)
        state = tx.init(params)
        for grads, loss in zip(GRADS, LOSSES, strict=True):
            grads = jax.tree.map(wide, grads)
            updates, state = tx.update(grads, state, params, value=loss)
            params = optax.apply_updates(params, updates)
        return params

    expect = (oracle.numbers(THEIRS[name]),)
    origin = f"{CODE}, {papers}"
    return row(fn, (single(meta),), settings, expect, origin, run, rtol=RTOL[name])


RTOL = {"mlp": 1e-9, "velo": 1e-6}  # of VeLO some averages are in float32


def first_step():
    """One step by hand: gradient 2 of one number 3, a network that is one layer."""
    g, p, rate = 2.0, 3.0, 1 - np.array([0.9, 0.99, 0.999])
    m, rms, v = rate * g, rate[2:] * g * g, rate * g * g
    inverse = 1 / np.sqrt(rms + 1e-6)
    parts = [[g], [p], m, rms, m * inverse, inverse]
    parts += [g / np.sqrt(v + 1e-9), v, v, (v + 1e-8) ** -0.5, (v + 1e-8) ** -0.5]
    parts += [m / np.sqrt(v + 1e-6)]
    x = np.concatenate(parts)
    x = x / np.sqrt(x * x + 1e-5)
    x = np.concatenate([x, np.full(11, np.tanh(-1.0))])
    weight = np.cos(np.arange(78.0)).reshape(39, 2).astype(np.float32)
    d, mag = x @ weight.astype(np.float64) + 0.1
    meta = {
        "decays": {"mean": np.zeros(3), "square": np.zeros(1), "factor": np.zeros(3)},
        "layers": [(weight, np.full(2, 0.1))],
    }

    def pick(tx):
        params = jnp.float32(p)
        return tx.update(jnp.float32(g), tx.init(params), params)[0]

    return Golden(
        metagrad.learned_optimizer,
        (single(meta),),
        {},
        -1e-3 * d * np.exp(1e-3 * mag),
        f"numpy f64 oracle of {CODE}'s features, arXiv:2203.11860, arXiv:2211.09760",
        pick,
        rtol=5e-5,
    )


def scaled(base_width):
    updates = {"i": np.ones((3, 4)), "h": np.ones((2, 5, 4)), "b": np.ones(4)}
    roles = {"i": "input", "h": "hidden", "b": "bias"}
    expect = [1.0, base_width / 10, 1.0]

    def pick(tx):
        found, _ = tx.update(single(updates), tx.init(None))
        return np.array([np.ravel(found[k])[0] for k in ("i", "h", "b")])

    origin = "by hand; bentherien/mu_learned_optimization@e160d548, arXiv:2406.00153"
    settings = {"base_width": base_width}
    return Golden(metagrad.scale_by_mup, (roles,), settings, expect, origin, pick)


def sizes(fn, expect, origin, **kwargs):
    """How many numbers every array holds."""
    settings = {"key": jax.random.key(3), **kwargs}

    def pick(meta):
        return np.sort([leaf.size for leaf in jax.tree.leaves(meta)])

    return Golden(fn, (), settings, np.sort(expect), origin, pick)


# --- in context -----------------------------------------------------------------------


def etf(classes, dimension=None, key=None):
    expect = (classes * np.eye(classes) - 1) / (classes - 1)
    settings = {"dimension": dimension, "key": key}
    origin = "by hand: the Gram matrix of a simplex, arXiv:2310.10971"
    return Golden(
        metagrad.simplex_etf,
        (classes,),
        settings,
        expect,
        origin,
        lambda e: np.float64(e) @ np.float64(e).T,
        rtol=1e-5,
        atol=1e-6,
    )


_rng = np.random.default_rng(92)
X = _rng.normal(size=(2, 4, 3)).astype(np.float32)
Y = np.array([[0, 2, 1, 2], [1, 1, 0, 2]])
CODES = _rng.normal(size=(3, 2)).astype(np.float32)
UNKNOWN = np.array([0.5, -0.25], np.float32)


def caml(labels):
    expect = [
        [[*X[t, 0], *UNKNOWN], *([*X[t, i], *CODES[labels[t][i]]] for i in range(4))]
        for t in range(2)
    ]
    args = (X, labels, X[:, 0], CODES, UNKNOWN)
    origin = "by hand, arXiv:2310.10971"
    return Golden(metagrad.caml_sequence, args, {}, np.array(expect), origin)


def tasks(index):
    """The projections and permutations of jax.random, applied by numpy."""
    key, x = jax.random.key(5), X.reshape(8, 3)
    y, rows = Y.reshape(8), np.array([[0, 5, 2], [7, 1, 1]])
    found = []
    for number, of in zip(index, rows, strict=True):
        by_task, by_label = jax.random.split(jax.random.fold_in(key, number))
        matrix = np.float64(jax.random.normal(by_task, (3, 3))) / np.sqrt(3)
        order = np.asarray(jax.random.permutation(by_label, 3))
        found += [*(np.float64(x[of]) @ matrix.T).ravel(), *order[y[of]]]

    def pick(pair):
        both = zip(*pair, strict=True)
        return np.concatenate([np.concatenate([a.ravel(), b]) for a, b in both])

    return Golden(
        metagrad.gpicl_tasks,
        (x, y, np.asarray(index), rows),
        {"key": key, "classes": 3},
        np.array(found),
        "numpy f64 oracle of arXiv:2212.04458",
        pick,
        rtol=1e-5,
    )


READ = _rng.normal(size=(6, 3)).astype(np.float32)


def in_context(masked):
    where = np.array([[True, False, True, True]] * 2) if masked else None
    tokens = np.zeros((2, 4, 6))
    tokens[..., :3] = X
    for t in range(2):
        for j in range(1, 4):
            tokens[t, j, 3 + Y[t, j - 1]] = 1
    scores = oracle.log_softmax(tokens @ READ.astype(np.float64))
    expect = -np.take_along_axis(scores, Y[..., None], axis=-1)[..., 0]
    expect = np.where(where, expect, 0) if masked else expect
    return Golden(
        metagrad.gpicl_loss,
        (lambda tokens: tokens @ READ, X, Y),
        {"classes": 3, "where": where},
        expect,
        "numpy f64 oracle of arXiv:2212.04458",
    )


# --- optimal transport ----------------------------------------------------------------

F = _rng.normal(size=4).astype(np.float32)
G = _rng.normal(size=3).astype(np.float32)
MASS = (_rng.dirichlet(np.ones(4)).astype(np.float32), np.float32([0.5, 0.2, 0.3]))
COST = _rng.uniform(size=(4, 3)).astype(np.float32)
META_OT = "numpy f64 oracle of arXiv:2206.05262"


def half_step(f, b, epsilon):
    inside = np.exp((np.float64(f)[:, None] - COST) / epsilon).sum(0)
    return epsilon * (np.log(np.float64(b)) - np.log(inside))


def dual(f, g, epsilon):
    plan = np.exp((np.float64(f)[:, None] + np.float64(g) - COST) / epsilon)
    return (
        f @ np.float64(MASS[0]) + g @ np.float64(MASS[1]) - epsilon * (plan.sum() - 1)
    )


def transport(epsilon):
    f, b = np.float64(F), MASS[1]
    g = half_step(f, b, epsilon)
    settings = {"epsilon": epsilon}
    return [
        Golden(metagrad.dual_potential, (F, b, COST), settings, g, META_OT, rtol=1e-5),
        Golden(
            metagrad.sinkhorn_dual,
            (F, G, *MASS, COST),
            settings,
            dual(f, np.float64(G), epsilon),
            META_OT,
            rtol=1e-4,
        ),
        Golden(
            metagrad.meta_ot,
            (F, *MASS, COST),
            settings,
            -dual(f, g, epsilon),
            META_OT,
            rtol=1e-5,
        ),
    ]


def solved(epsilon, start=None):
    """The plan by alternating scaling of e^(-C / epsilon), to the end."""
    kernel = np.exp(-COST.astype(np.float64) / epsilon)
    a, b = map(np.float64, MASS)
    v = np.ones(3)
    for _ in range(5000):
        u = a / (kernel @ v)
        v = b / (kernel.T @ u)
    return Golden(
        metagrad.sinkhorn_potentials,
        (*MASS, COST),
        {"epsilon": epsilon, "start": start, "steps": 300, "tolerance": 1e-6},
        u[:, None] * kernel * v,
        META_OT,
        lambda found: found.plan,
        rtol=1e-4,
        atol=1e-6,
    )


# --- models that adapt ----------------------------------------------------------------

V = _rng.normal(size=(6, 3)).astype(np.float32)
OFFSET = _rng.normal(size=6).astype(np.float32)
TARGET = _rng.normal(size=6).astype(np.float32)
CAMEL = "numpy f64 oracle of arXiv:2312.00477"


def adapted(ridge, where=None, offset=None):
    v = V if where is None else V[where]
    y = TARGET.astype(np.float64) - (0 if offset is None else offset)
    y = y if where is None else y[where]
    v = v.astype(np.float64)
    expect = np.linalg.inv(v.T @ v + ridge * np.eye(3)) @ v.T @ y
    settings = {"ridge": ridge, "where": where, "offset": offset}
    args = V, TARGET
    return Golden(metagrad.camel_adapt, args, settings, expect, CAMEL, rtol=1e-4)


def waves(omega):
    net = [single(layer) for layer in MLP["layers"]]
    x = _rng.normal(size=(4, 39)).astype(np.float32) / 30
    h = x.astype(np.float64)
    for i, (w, b) in enumerate(net):
        h = h @ w + b
        h = np.sin(omega * h) if i < 2 else h
    origin = "numpy f64 oracle of arXiv:2006.09661, arXiv:2012.02189"

    def run():
        return metagrad.siren(jax.tree.map(wide, net), wide(x), omega=omega)

    args = (net, x)
    return row(metagrad.siren, args, {"omega": omega}, (h,), origin, run, 1e-10)


def counted(sharpness, tolerance):
    r = np.array([[4.0, 2.0, 1.2, 0.7, 1.5], [3.0, 3.5, 2.5, 2.0, 1.9]], np.float32)
    stop = [next((k for k in range(5) if x[k] <= tolerance), 5) for x in r]
    terms = 1 / (1 + np.exp(-sharpness * (r.astype(np.float64) - tolerance)))
    expect = [terms[i, :k].sum() for i, k in enumerate(stop)]
    settings = {"tolerance": tolerance, "sharpness": sharpness}
    origin = "numpy f64 oracle of arXiv:2206.08594"
    return Golden(metagrad.iteration_count, (r,), settings, expect, origin)


ROWS = [
    trained(
        metagrad.learned_optimizer, "mlp", MLP, "arXiv:2203.11860, arXiv:2211.09760"
    ),
    first_step(),
    trained(metagrad.velo, "velo", VELO, "arXiv:2211.09760", total_steps=50),
    scaled(1.0),
    scaled(4.0),
    sizes(
        metagrad.init_learned_optimizer,
        [3, 1, 3, 39 * 4, 4, 16, 4, 8, 2],
        f"{CODE}, its arrays, arXiv:2203.11860",
    ),
    sizes(
        metagrad.init_learned_optimizer,
        [3, 1, 3, 39 * 32, 32, 64, 2],
        f"{CODE}, its arrays, arXiv:2203.11860",
        hidden=32,
        layers=1,
    ),
    sizes(
        metagrad.init_velo,
        # small networks, recurrent state, two layers in, gates, controls, rate
        [60 * 3, 6, 18, 6, 12, 4, 3, 3, 90, 3, 90, 3, 72, 12, 6, 2, 3, 1],
        f"{CODE}, its arrays but those that are not used, arXiv:2211.09760",
        lstm=3,
        bank=2,
        hidden=3,
    ),
    etf(2),
    etf(5),
    etf(4, dimension=3),
    etf(4, dimension=6, key=jax.random.key(2)),
    caml(Y),
    caml(2 - Y),
    tasks([0, 1]),
    tasks([7, 0]),
    in_context(False),
    in_context(True),
    *transport(0.5),
    *transport(0.1),
    *(
        Golden(fn, args, {}, expect, META_OT, rtol=1e-4)
        for fn, args, expect in (
            (metagrad.dual_potential, (F, MASS[1], COST), half_step(F, MASS[1], 0.01)),
            (
                metagrad.meta_ot,
                (F, *MASS, COST),
                -dual(np.float64(F), half_step(F, MASS[1], 0.01), 0.01),
            ),
        )
    ),
    solved(0.2),
    solved(0.05, F),
    adapted(0.0),
    adapted(0.7, where=np.array([True, True, False, True, True, False])),
    adapted(0.0, offset=OFFSET),
    Golden(metagrad.camel_head, (V, F[:3]), {}, np.float64(V) @ F[:3], CAMEL),
    Golden(
        metagrad.camel_head,
        (V, V[::-1].copy(), OFFSET),
        {},
        OFFSET + (np.float64(V) * V[::-1]).sum(1),
        CAMEL,
    ),
    waves(30.0),
    waves(2.0),
    sizes(
        metagrad.init_siren,
        [2 * 8, 8, 64, 8, 24, 3],
        "by hand, arXiv:2006.09661",
        inputs=2,
        outputs=3,
        hidden=8,
        layers=3,
    ),
    counted(4.0, 1.0),
    counted(30.0, 2.2),
]
