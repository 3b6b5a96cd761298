"""Token statistics and the losses on them: float64 oracles, and torch's numbers."""

import numpy as np

from jaxtricks import kernels
from tests import oracles as oracle
from tests.case import Golden

_rng = np.random.default_rng(911)
FEATURES, CLASSES = 4, 7
HIDDEN = _rng.normal(size=(2, 3, FEATURES)).astype(np.float32)
WEIGHT = _rng.normal(size=(FEATURES, CLASSES)).astype(np.float32)
BIAS = _rng.normal(size=CLASSES).astype(np.float32)
LABELS = np.array([[0, 6, 3], [2, 2, 4]], np.int32)
LIVE = np.array([[True, False, True], [True, True, False]])
TEACHER_HIDDEN = _rng.normal(size=(2, 3, 5)).astype(np.float32)
TEACHER_WEIGHT = _rng.normal(size=(5, CLASSES)).astype(np.float32)
TEACHER_BIAS = _rng.normal(size=CLASSES).astype(np.float32)
CLASS_WEIGHTS = _rng.gamma(2.0, size=CLASSES).astype(np.float32)
WEIGHTS = _rng.normal(size=(2, 3)).astype(np.float32)  # of tokens
WIDE = (0.5 * _rng.normal(size=(FEATURES, 1100))).astype(np.float32)
RULED_OUT = np.where(np.arange(CLASSES) == 5, -np.inf, BIAS).astype(np.float32)
TEACHER_RULED_OUT = np.where(np.arange(CLASSES) == 1, -np.inf, TEACHER_BIAS)
TEACHER_RULED_OUT = TEACHER_RULED_OUT.astype(np.float32)
BOTH_RULED_OUT = np.where(np.arange(CLASSES) == 5, -np.inf, TEACHER_BIAS)
BOTH_RULED_OUT = BOTH_RULED_OUT.astype(np.float32)
TEACHER = (TEACHER_HIDDEN, TEACHER_WEIGHT, TEACHER_BIAS)
FOUR_TOKENS = 2 * 4 * CLASSES * 4 / 2**20  # which the six do not fill evenly
STATS = ("total", "mean", "square", "argmax")
ORIGIN = "numpy f64 oracle of arXiv:2411.09009 sec. 4"
TORCH = "torch 2.13.0 in float64, of arXiv:2411.09009's logits"
HEAD = ("bias", "softcap", "scale", "layout")


def _turned(weight, kwargs):
    """The weight as the layout has it."""
    return weight.T.copy() if kwargs.get("layout") == "vd" else weight


def _of(kwargs, *names):
    return {name: kwargs[name] for name in names if name in kwargs}


def _live(x, kwargs):
    return np.where(kwargs.get("where", True), x, 0)


def _flat(*parts):
    return np.concatenate([np.ravel(part) for part in parts])


def _statistics(**kwargs):
    """All fields of token_statistics, in alphabetical order of those there are."""
    weight = _turned(WEIGHT, kwargs)
    z, _ = oracle.head(HIDDEN, weight, **_of(kwargs, *HEAD))
    t = None
    if "teacher" in kwargs:
        h, w, b = kwargs["teacher"]
        w = _turned(w, kwargs)
        kwargs["teacher"] = (h, w, b)
        shared = _of(kwargs, "softcap", "scale", "layout")
        t, _ = oracle.head(h, w, b, **shared)
    fields = oracle.statistics(z, LABELS, t)
    expect = np.stack([_live(fields[name], kwargs) for name in sorted(fields)])

    def pick(token):
        found = {k: v for k, v in token._asdict().items() if v is not None}
        assert sorted(found) == sorted(fields)
        return np.stack([np.asarray(found[name]) for name in sorted(found)])

    kwargs = {"stats": STATS, **kwargs}
    return Golden(
        kernels.token_statistics,
        (HIDDEN, weight, LABELS),
        kwargs,
        expect,
        ORIGIN,
        pick,
        atol=2e-6,
    )


def _divergence(origin=ORIGIN + ", of arXiv:2306.13649", expect=None, **kwargs):
    temperature = kwargs.get("temperature", 1.0)
    shared = {"scale": 1 / temperature, **_of(kwargs, "softcap", "layout")}
    weight, teacher = (_turned(w, kwargs) for w in (WEIGHT, TEACHER_WEIGHT))
    z, _ = oracle.head(HIDDEN, weight, kwargs.get("bias"), **shared)
    t, _ = oracle.head(TEACHER_HIDDEN, teacher, kwargs.get("teacher_bias"), **shared)
    if expect is None:
        expect = oracle.divergence(z, t, **_of(kwargs, "direction", "beta"))
    return Golden(
        kernels.linear_kl,
        (HIDDEN, weight, TEACHER_HIDDEN, teacher),
        kwargs,
        _live(expect, kwargs),
        origin,
        rtol=5e-6,
        atol=3e-7,
    )


def _logprob(origin=ORIGIN, expect=None, **kwargs):
    weight = _turned(WEIGHT, kwargs)
    scale = 1 / kwargs.get("temperature", 1.0)
    shared = _of(kwargs, "bias", "softcap", "layout")
    z, _ = oracle.head(HIDDEN, weight, scale=scale, **shared)
    token = oracle.statistics(z, LABELS)
    if expect is None:
        expect = token["target"] - token["lse"], token["lse"] - token["mean"]
    return Golden(
        kernels.linear_logprob,
        (HIDDEN, weight, LABELS),
        kwargs,
        np.stack([_live(x, kwargs) for x in expect]),
        origin,
        lambda token: np.stack([token.log_prob, token.entropy]),
        atol=3e-7,
    )


FORMULA = ("class_weights", "label_smoothing", "z_loss")


def _cross_entropy(origin=ORIGIN, expect=None, **kwargs):
    weight = _turned(WEIGHT, kwargs)
    z, _ = oracle.head(HIDDEN, weight, **_of(kwargs, *HEAD))
    if expect is None:
        expect, _ = oracle.token_cross_entropy(z, LABELS, **_of(kwargs, *FORMULA))
    return Golden(
        kernels.linear_cross_entropy,
        (HIDDEN, weight, LABELS),
        kwargs,
        _live(expect, kwargs),
        origin,
        atol=3e-7,
    )


def _value_and_grad(weight=WEIGHT, eps=None, **kwargs):
    """Loss, and gradients in hidden, weight and bias, then what was dropped."""
    labels = LABELS * (weight.shape[1] // CLASSES)
    hidden, w = HIDDEN.astype(np.float64), weight.astype(np.float64)
    vd, shared = kwargs.get("layout") == "vd", _of(kwargs, "bias", "softcap", "scale")
    z, slope = oracle.head(HIDDEN, weight, **shared)
    loss, dz = oracle.token_cross_entropy(z, labels, **_of(kwargs, *FORMULA))
    weights = _live(kwargs.get("weights", np.ones((2, 3))), kwargs)
    dz = weights[..., None] * dz
    parts = [_live(loss, kwargs)]
    kept, dropped = (dz, None) if eps is None else oracle.filtered(dz, eps)
    kept = kept * slope
    by_weight = np.einsum("abd,abv->dv", hidden, kept)
    parts += [kept @ w.T, by_weight.T if vd else by_weight]
    if "bias" in kwargs:
        parts.append(kept.sum((0, 1)))
    if eps is not None:
        kwargs["filter_eps"] = eps
        parts.append(dropped)
    return Golden(
        kernels.linear_cross_entropy_value_and_grad,
        (HIDDEN, _turned(weight, kwargs), labels),
        kwargs,
        _flat(*parts),
        ORIGIN if eps is None else ORIGIN + ".3",
        lambda out: _flat(*(part for part in out if part is not None)),
        atol=3e-7 * max(1, np.abs(_flat(*parts)).max()),
    )


ALL = {"softcap": 1.5, "scale": 0.7, "bias": BIAS, "where": LIVE}

CAPPED = {"softcap": 1.5, "bias": BIAS}
RULED = {"bias": RULED_OUT, "teacher_bias": BOTH_RULED_OUT}
WEIGHTED = {"class_weights": CLASS_WEIGHTS, "label_smoothing": 0.15}

_TORCH_CROSS_ENTROPY = oracle.numbers("""
1.59154739968 1.79785107236 0.776113302532 0.855132388042 0.915706389064 12.6400673742
""")
_TORCH_GRADIENTS = oracle.numbers("""
0.0915329789006 0.00547076752008 0.0233016590145 -0.0192319975906 -0.000232570014008
0.000711431130736 0.0200136898361 0.0131751219994 -0.0110186314976 0.00547374161282
0.048242146614 0.0149811045352 0.327094395212 0.0579861044216 -0.226152936748
-0.0562490917429 -0.163812968743 0.0299863616921 0.0819371407071 0.0126868226663
1.87187958779 -1.77412995993 -1.58843723726 -0.208511774821
0.285114540226 0.0348882219252 0.146872232584 0.246130273582 -1.41402176323
0.219982017341 0.113888281987 -0.0393430979031 -0.0220925898979 -0.126485023565
-0.0968782222256 0.330875952303 -0.0166077331204 -0.0488952381016 0.101917295223
0.0272974005938 -0.0177136476564 0.121579832011 -0.520890438825 0.143699260899
0.0301468181498 0.719528976451 0.0211060722099 0.398109693937 0.435323211533
-3.60882532733 0.406431183676 0.325890292713
-0.371031323121 -0.0320754439375 0.00388477165226 -0.316943124915 1.94492079972
-0.249548909582 -0.185998800529
""")
_TORCH_DIVERGENCES = {
    "forward": """
0.405192696947 0.21019025812 0.23829903218 0.294028383805 0.398411367217 0.154128303837
""",
    "reverse": """
0.426533328327 0.222686956766 0.183473711444 0.321381855484 0.367046925845
0.155179746999
""",
    "jsd": """
0.0813567575618 0.0426617438338 0.0436431510441 0.0616940811544 0.0782455164068
0.0317582836842
""",
}
_TORCH_LOGPROB = oracle.numbers("""
-3.05066076825 -1.51636633177 -1.5693458531 -1.99127085725 -1.9544201129 -2.56288399554
1.80020752864 1.83684919774 1.77877917263 1.8886609272 1.8503583847 1.80455439821
""")
_TORCH_STATISTICS = oracle.numbers("""
2.16933918473 2.28151451915 2.31349912951 1.68469721052 2.04999696155 2.13390182937
2.63496719157 2.79586097417 2.9495823209 1.54459935305 2.32661610052 2.5713800761
0.369131656094 0.444665321416 0.534719956879 -0.203963716685 0.199638576849
0.329347431167
""")

ROWS = [
    _statistics(),
    _statistics(teacher=TEACHER),
    _statistics(teacher=TEACHER, layout="vd", bias=BIAS),
    _statistics(teacher=(*TEACHER[:2], None), softcap=1.5),
    _statistics(teacher=TEACHER, scale=2.5),
    _statistics(teacher=TEACHER, **ALL, workspace_mb=FOUR_TOKENS),
    _statistics(teacher=(*TEACHER[:2], BOTH_RULED_OUT), bias=RULED_OUT),
    _statistics(bias=RULED_OUT, layout="vd", softcap=2.0, scale=3.0),
    _statistics(bias=RULED_OUT, where=LIVE, workspace_mb=FOUR_TOKENS),
    _statistics(teacher=TEACHER, **ALL, implementation="reference"),
    Golden(
        kernels.token_statistics,
        (HIDDEN, WEIGHT, LABELS),
        {**CAPPED, "scale": 1 / 1.7, "stats": ("mean", "square")},
        np.reshape(_TORCH_STATISTICS, (3, 2, 3)),
        TORCH,
        lambda token: np.stack([token.lse, token.square, token.mean]),
    ),
    *(
        _divergence(direction=direction, **kwargs)
        for direction in ("forward", "reverse", "jsd")
        for kwargs in (
            {},
            {"temperature": 2.5, **CAPPED, "teacher_bias": TEACHER_BIAS},
            {"layout": "vd", "where": LIVE, "workspace_mb": FOUR_TOKENS},
            RULED,
        )
    ),
    *(_divergence(direction="jsd", beta=beta) for beta in (0.0, 0.2, 0.9, 1.0)),
    _divergence(direction="jsd", bias=RULED_OUT, teacher_bias=TEACHER_RULED_OUT),
    _divergence(direction="forward", bias=BIAS, teacher_bias=TEACHER_RULED_OUT),
    _divergence(direction="forward", bias=RULED_OUT),  # inf
    _divergence(direction="reverse", bias=RULED_OUT),
    _divergence(direction="reverse", teacher_bias=TEACHER_RULED_OUT),  # inf
    *(
        _divergence(
            f"{TORCH}: kl_div, arXiv:2306.13649",
            np.reshape(oracle.numbers(text), (2, 3)),
            direction=direction,
            beta=0.3,
            temperature=1.7,
            teacher_bias=TEACHER_BIAS,
            **CAPPED,
        )
        for direction, text in _TORCH_DIVERGENCES.items()
    ),
    _logprob(),
    _logprob(temperature=0.6, layout="vd"),
    _logprob(temperature=1.7, **CAPPED, where=LIVE, workspace_mb=FOUR_TOKENS),
    _logprob(bias=RULED_OUT, temperature=2.0),
    _logprob(
        f"{TORCH}: distributions.Categorical",
        np.reshape(_TORCH_LOGPROB, (2, 2, 3)),
        temperature=1.7,
        **CAPPED,
    ),
    _cross_entropy(scale=2.5),
    _cross_entropy(layout="vd"),
    _cross_entropy(class_weights=CLASS_WEIGHTS),
    _cross_entropy(**WEIGHTED),
    _cross_entropy(**WEIGHTED, **ALL, z_loss=0.05, workspace_mb=FOUR_TOKENS),
    _cross_entropy(**WEIGHTED, bias=RULED_OUT, layout="vd", scale=0.4),
    _cross_entropy(
        f"{TORCH}: F.cross_entropy",
        np.reshape(_TORCH_CROSS_ENTROPY, (2, 3)),
        scale=0.7,
        **CAPPED,
        **WEIGHTED,
    ),
    _value_and_grad(),
    _value_and_grad(weights=WEIGHTS, layout="vd"),
    _value_and_grad(weights=WEIGHTS, where=LIVE, bias=BIAS, scale=0.7),
    _value_and_grad(weights=WEIGHTS, **WEIGHTED, **ALL, z_loss=0.05),
    _value_and_grad(**ALL, z_loss=0.05, workspace_mb=FOUR_TOKENS),
    _value_and_grad(**WEIGHTED, bias=RULED_OUT, workspace_mb=FOUR_TOKENS),
    Golden(
        kernels.linear_cross_entropy_value_and_grad,
        (HIDDEN, WEIGHT, LABELS),
        {"weights": WEIGHTS, "scale": 0.7, **CAPPED, **WEIGHTED},
        np.array(_TORCH_CROSS_ENTROPY + _TORCH_GRADIENTS),
        f"{TORCH}: F.cross_entropy and autograd",
        lambda out: _flat(*out[:4]),
        atol=5e-7,
    ),
    *(
        _value_and_grad(WIDE, eps, weights=WEIGHTS, bias=WIDE[0], layout=layout)
        for layout in ("dv", "vd")
        for eps in (0.0, 0.02, 1.0, 10.0)  # drops 0, 1, 2 and 3 blocks
    ),
]
