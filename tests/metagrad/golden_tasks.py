"""MAML's family and self-tuning networks against the authors' and others' code."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtricks import metagrad
from tests import oracles as oracle
from tests.case import Golden
from tests.metagrad.golden_derivatives import row, wide

# Softmax regression from the oracles' parameters; three tasks.
_rng = np.random.default_rng(77)
SUPPORT_X = _rng.normal(size=(3, 5, 3)).astype(np.float32)
SUPPORT_Y = _rng.integers(0, 3, size=(3, 5))
QUERY_X = _rng.normal(size=(3, 4, 3)).astype(np.float32)
QUERY_Y = _rng.integers(0, 3, size=(3, 4))
# The value, its gradient in b and in w (and in Meta-SGD's rates, likewise), two steps
# at rate 0.4, three of Adam at 0.1 with eps
# 1e-14, one in the weighted case.
THEIRS = {
    # learn2learn at db5cee37, with torch 2.13.0 in float64
    "maml": """
    1.59873197177 0.0760018855037 -0.137316903222 0.0613150177183
    0.0569125849908 -0.179053787352 0.122141202362 -0.0283616747708
    -0.401530569319 0.42989224409 -0.0183874209451 -0.0357023376009
    0.054089758546
    """,
    "fomaml": """
    1.59873197177 0.0799254433453 -0.202841071625 0.12291562828 0.0752249477885
    -0.13841778444 0.0631928366517 -0.0476539214993 -0.452937461538
    0.500591383037 0.00129962131853 0.0573781922781 -0.0586778135966
    """,
    "metasgd": """
    1.59873197177 0.0760018855037 -0.137316903222 0.0613150177183
    0.0569125849908 -0.179053787352 0.122141202362 -0.0283616747708
    -0.401530569319 0.42989224409 -0.0183874209451 -0.0357023376009
    0.054089758546 0.0163543515939 0.0786318826534 -0.104268879661
    -0.0112636658662 -0.0742674032814 0.00211899247669 0.0493282920438
    0.16044834687 0.042340214419 -0.0134119937087 0.0148023011801
    0.00390664960352
    """,
    "weighted": """
    1.68483218357 0.142640470191 -0.179449681934 0.0368092117427 0.128720933296
    -0.202337479647 0.0736165463517 -0.0936535592128 -0.385328022953
    0.478981582166 -0.0401258889472 -0.0151346123073 0.0552605012544
    """,
    # higher 0.2.1
    "adam": """
    1.76028736303 0.205932972436 -0.175412865216 -0.0305201072205
    0.0429126093426 -0.239408842429 0.196496233087 0.0807548843897
    -0.365113422399 0.28435853801 -0.256832855006 -0.172175232189 0.429008087195
    """,
    # torch.autograd alone
    "anil": """
    1.51203136955 0.086951370803 -0.164138948933 0.0771875781297 0.0778251568246
    -0.17649370911 0.0986685522856 -0.0515413221958 -0.43253716956
    0.484078491756 0.0110764161466 0.0737014261343 -0.0847778422809
    """,
    "reptile": """
    1.59873197177 -0.150563158379 0.0752732504351 0.0752899079438 0.114707452192
    -0.131872353097 0.017164900905 0.00599740631625 0.0236237912339
    -0.0296211975501 0.135776229835 -0.16530127127 0.0295250414353
    """,
}
LEARN2LEARN = "learn2learn@db5cee37 with torch 2.13.0"


def loss(params, batch):
    x, y = batch
    return jnp.mean(
        optax.softmax_cross_entropy_with_integer_labels(
            jnp.asarray(x, params["w"].dtype) @ params["w"] + params["b"][None], y
        )
    )


def start():
    return {"b": wide(oracle.B), "w": wide(oracle.W)}


def tasks():
    return (wide(SUPPORT_X), SUPPORT_Y), (wide(QUERY_X), QUERY_Y)


CALL = (
    lambda w, c: (w - c) ** 2 / 2,
    1.0,
    (np.ones(2, np.float32), np.zeros(2, np.float32)),
)


def maml(name, origin, kwargs, papers, by_rate=False):
    expect = (oracle.numbers(THEIRS[name]),)
    settings = {"rate": 0.4, "steps": 2, **kwargs}

    def run():
        given = dict(settings)
        if "tx" in given:
            given["tx"] = optax.adam(0.1, eps=1e-14)
            del given["rate"]

        def f(params, rate):
            given["rate"] = rate
            return metagrad.maml(loss, params, tasks(), **given)

        rate = jax.tree.map(lambda p: jnp.full_like(p, 0.4), start())
        if not by_rate:
            rate = given.get("rate", 0.01)
            return jax.value_and_grad(f)(start(), rate)
        return jax.value_and_grad(f, argnums=(0, 1))(start(), rate)

    plain = {k: v for k, v in settings.items() if k != "mask"}
    args = (*CALL,)
    if "weights" in plain:
        args = (CALL[0], 1.0, (np.ones(3, np.float32), np.zeros(3, np.float32)))
        plain["weights"] = np.float32(plain["weights"])
    names = ", ".join(f"arXiv:{p}" for p in papers)
    return row(metagrad.maml, args, plain, expect, f"{origin}, {names}", run, 1e-10)


# Quadratic tasks: 0.5 (w - c)' A (w - c) on the support, B and d on the query.
_A = _rng.normal(size=(2, 3, 3))
CURVES = np.einsum("tij,tkj->tik", _A, _A) / 2
CENTRES, AIMS = _rng.normal(size=(2, 3)), _rng.normal(size=(2, 3))


def imaml():
    """w_i = (A + l I)^-1 (A c + l w); (I + A / l)^-1 (w_i - d) by five steps of CG."""
    draw, strength = np.random.default_rng(79), 0.5
    curves = draw.normal(size=(2, 8, 8)) / 3
    curves = np.einsum("tij,tkj->tik", curves, curves)
    centres, aims, theta = (draw.normal(size=s) for s in ((2, 8), (2, 8), 8))
    value, grads = 0.0, np.zeros(8)
    for a, c, d in zip(curves, centres, aims, strict=True):
        matrix = a + strength * np.eye(8)
        end = np.linalg.solve(matrix, a @ c + strength * theta)
        value += (end - d) @ (end - d) / 4
        left = along = end - d
        for _ in range(5):
            pull = matrix @ along / strength
            size = left @ left / (along @ pull)
            grads, before = grads + size * along / 2, left @ left
            left = left - size * pull
            along = left + left @ left / before * along

    def quadratic(w, batch):
        matrix, centre = batch
        return (w - centre) @ matrix @ (w - centre) / 2

    def run():
        support = wide(curves), wide(centres)
        query = jnp.broadcast_to(jnp.eye(8), (2, 8, 8)), wide(aims)

        def f(w):
            settings = {"rate": 0.3, "steps": 120, "policy": "none"}
            return metagrad.maml(
                quadratic,
                w,
                (support, query),
                variant="imaml",
                regularization=strength,
                **settings,
            )

        return jax.value_and_grad(f)(wide(theta))

    settings = {"variant": "imaml", "regularization": strength, "steps": 3}
    origin = "numpy f64 closed form and CG of arXiv:1909.04630"
    return row(metagrad.maml, CALL, settings, ([value], grads), origin, run, 1e-8)


def adapted(steps, rate, **kwargs):
    """w - c shrinks by 1 - rate a step, where the mask lets it."""
    expect = [3 + (1 - rate) ** steps * (1 - 3), 5.0 if "mask" in kwargs else None]
    if expect[1] is None:
        expect[1] = 3 + (1 - rate) ** steps * (5 - 3)
    args = (
        lambda w, c: ((w["a"] - c) ** 2 + (w["b"] - c) ** 2) / 2,
        {"a": 1.0, "b": 5.0},
        3.0,
    )
    settings = {"steps": steps, "rate": rate, **kwargs}
    papers = "arXiv:1703.03400, arXiv:1909.09157, arXiv:1707.09835"
    return Golden(
        metagrad.inner_adapt,
        args,
        settings,
        expect,
        f"by hand, {papers}",
        lambda w: np.array([w["a"], w["b"]]),
    )


# --- self-tuning networks -------------------------------------------------------------

_rng = np.random.default_rng(78)
LAYER = [
    _rng.normal(size=shape).astype(np.float32)
    for shape in ((3, 2), (2,), (3, 2), (2,), (2, 2), (2, 2))
]
LAYER_X = _rng.normal(size=(4, 3)).astype(np.float32)
LAYER_HYPER = _rng.normal(size=(4, 2)).astype(np.float32)
STN = "asteroidhouse/self-tuning-networks@3c420499, arXiv:1903.03088"
HYPERLINEAR = {  # HyperLinear in float64, its elem_scalar 1 and 0.7
    1.0: """
    -0.756599362642 -1.26158700428 0.344079834865 1.66333653947 0.249859993698
    2.94790398886 0.879606618668 0.569967576221
    """,
    0.7: """
    -0.66163343414 -1.10987864187 0.168397952849 1.32619000836 0.0897357916502
    3.13777081771 0.629878478141 0.369793697308
    """,
}


def layer(scale):
    params = metagrad.BestResponse(*map(jnp.asarray, LAYER), scale)
    return Golden(
        metagrad.best_response_linear,
        (LAYER_X, LAYER_HYPER, params),
        {},
        oracle.numbers(HYPERLINEAR[scale]),
        STN,
        np.ravel,
    )


def softplus(x):
    return np.log1p(np.exp(x))


def stn_row(**settings):
    """Three steps on w of mean (w - hyper)^2 / 2 + x w, two on the hypers, by hand."""
    examples, moves = 3, settings.get("tune_scale", True)
    w, hyper, scale, entropy = 0.5, 0.2, -0.4, settings.get("entropy", 1e-5)
    key = jax.random.key(8)
    with jax.enable_x64(True):
        first, second = jax.random.split(key)
        keys = [*jax.random.split(first, 3), *jax.random.split(second, 2)]
        noise = [np.asarray(jax.random.normal(k, (examples, 1)))[:, 0] for k in keys]
    data, targets = [0.1, -0.3, 0.2], [0.4, 0.7]
    for x, e in zip(data, noise, strict=False):
        drawn = hyper + softplus(scale) * e
        trained = np.mean((w - drawn) ** 2) / 2 + x * w
        w = w - 0.5 * (w - np.mean(drawn) + x)
    # the response w + h / 10 to each example's hyper
    for target, e in zip(targets, noise[3:], strict=True):
        e = e if moves else np.zeros(examples)
        away = w + (hyper + softplus(scale) * e) / 10 - target
        slope = 1 / (1 + np.exp(-scale))  # of softplus
        by_scale = np.mean(away * e) / 10 * slope - entropy * slope / softplus(scale)
        hyper = hyper - 0.5 * np.mean(away) / 10
        scale = scale - 0.5 * by_scale if moves else scale

    def train_loss(w, hyper, x):
        return jnp.mean((w - hyper) ** 2) / 2 + x * w

    def valid_loss(w, hyper, target):
        return jnp.mean((w + hyper / 10 - target) ** 2) / 2

    args = (train_loss, valid_loss, optax.sgd(0.5), optax.sgd(0.5))

    def run():
        tuner = metagrad.stn(*args, examples=examples, **settings)
        state = tuner.init(wide(0.5), wide([0.2]), wide([-0.4]))
        state, losses = tuner.step(state, (wide(data), wide(targets), key))
        return state.params, state.hyper, state.scale, losses

    expect = [w, hyper, scale, trained, np.mean(away**2) / 2]
    origin = "numpy f64 oracle of arXiv:1903.03088 alg. 1"
    kwargs = {"examples": examples, **settings}
    return row(metagrad.stn, args, kwargs, expect, origin, run, 1e-11)


# --- tasks ----------------------------------------------------------------------------


def landscape(rate):
    """Minima of quadratics by stacked least squares: their square roots, one a task."""
    optima, spectra = AIMS, CURVES
    after = [(np.eye(3) - rate * s) @ s @ (np.eye(3) - rate * s).T for s in spectra]

    def minimum(matrices):
        roots = [np.linalg.cholesky(m).T for m in matrices]
        sides = [r @ w for r, w in zip(roots, optima, strict=True)]
        return np.linalg.lstsq(np.concatenate(roots), np.concatenate(sides))[0]

    def risk(w):
        pairs = zip(after, optima, strict=True)
        return np.mean([(w - o) @ q @ (w - o) / 2 for q, o in pairs])

    nal, maml = minimum(spectra), minimum(after)
    expect = [*nal, *maml, risk(nal), risk(maml), risk(nal) / risk(maml)]
    args = np.float32(optima), np.float32(spectra)
    return Golden(
        metagrad.task_landscape,
        args,
        {"rate": rate},
        expect,
        "numpy f64 oracle, least squares of arXiv:2010.14672's risks",
        lambda found: np.concatenate([np.ravel(leaf) for leaf in found]),
        rtol=5e-5,
    )


def interpolated(weight, order=None):
    a = {"x": SUPPORT_X[0, :3, :2], "y": np.arange(3)}
    b = {"x": SUPPORT_X[1, :3, :2], "y": np.arange(3)}
    if order is None:
        a["y"], b["y"] = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[::-1]
    expect = {}
    for k in a:
        other = b[k] if order is None else b[k][np.asarray(order)]
        mixed = weight * np.float64(a[k]) + (1 - weight) * np.float64(other)
        expect[k] = a[k] if k == "y" and order is not None else mixed
    settings = {} if order is None else {"order": np.asarray(order)}

    def pick(task):
        return np.concatenate([np.ravel(task["x"]), np.ravel(task["y"])])

    return Golden(
        metagrad.interpolate_tasks,
        (a, b, weight),
        settings,
        pick(expect),
        "by hand, arXiv:2106.02695",
        pick,
    )


MIX = np.exp([0.5, -0.2, 1.0]) / np.sum(np.exp([0.5, -0.2, 1.0]))
MAML = ["1703.03400", "1912.06290", "1806.06927", "2305.19587", "1803.02999"]
ROWS = [
    maml("maml", LEARN2LEARN, {}, MAML),
    maml("fomaml", LEARN2LEARN, {"first_order": True}, MAML),
    maml("metasgd", LEARN2LEARN, {}, ["1707.09835"], by_rate=True),
    maml(
        "weighted",
        f"{LEARN2LEARN}, weights the softmax of 0.5, -0.2, 1",
        {"steps": 1, "weights": MIX},
        ["2305.19587"],
    ),
    maml("anil", "torch 2.13.0", {"mask": {"b": True, "w": False}}, ["1909.09157"]),
    maml("reptile", "torch 2.13.0", {"variant": "reptile"}, ["1803.02999"]),
    maml("adam", "higher 0.2.1", {"steps": 3, "tx": optax.adam(0.1)}, ["1703.03400"]),
    imaml(),
    adapted(2, 0.5),
    adapted(3, 0.25, mask={"a": True, "b": False}),
    adapted(0, 0.25),
    layer(1.0),
    layer(0.7),
    Golden(
        metagrad.perturbation_entropy,
        (np.array([-1.5, 0.3, 2.0], np.float32),),
        {},
        3.25168973096,
        STN,
    ),
    Golden(
        metagrad.perturb_hyper,
        (np.array([0.4, -1.0], np.float32), np.array([-1.5, 0.3], np.float32)),
        {"key": jax.random.key(4), "examples": 3},
        np.array([0.4, -1.0])
        + softplus(np.array([-1.5, 0.3]))
        * np.asarray(jax.random.normal(jax.random.key(4), (3, 2))),
        "numpy f64 oracle of arXiv:1903.03088",
    ),
    stn_row(),
    stn_row(entropy=0.3),
    stn_row(tune_scale=False),
    landscape(0.2),
    landscape(0.0),
    interpolated(0.7),
    interpolated(0.25, order=[2, 0, 1]),
]
