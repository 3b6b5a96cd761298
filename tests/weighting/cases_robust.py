"""Cases: worst-case weights, ranks, classes and groups, what comes from outside."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxtricks import weighting
from tests.case import Case, Inputs
from tests.inputs import losses, rng

OWN = "tests/weighting/test_robust.py"
GROUPS = 3
COUNTS = np.array([100.0, 7.0, 30.0], np.float32)


def beside(*make, batched=True, labels=None) -> Inputs:
    """The losses, and what `make` gives for their batch beside them."""

    def all_of(data, batch):
        return (*data, *[f(batch) for f in make])

    return Inputs(
        make=lambda batch: all_of(losses.make(batch), batch),
        batched=(True, *[batched] * len(make)),
        edges=lambda: {k: all_of(v, (8,)) for k, v in losses.edges().items()},
        labels=labels,
    )


def ids(batch):
    return rng(21, *batch).integers(0, GROUPS, size=batch).astype(np.int32)


def unit(batch):
    return rng(22, *batch).random(size=batch).astype(np.float32)


def maps(batch):
    return rng(23, *batch).normal(size=(*batch, 4)).astype(np.float32)


def bits(batch):
    return rng(24, *batch).random(size=batch) < 0.4


def net_params(batch):
    del batch
    return rng(25).normal(size=6).astype(np.float32)


def net(theta, x):
    """One hidden layer of two, and a sigmoid."""
    hidden = jnp.tanh(x * theta[:2].reshape((1,) * (x.ndim - 1) + (2,)))
    out = jnp.sum(hidden * theta[2:4].reshape((1,) * (x.ndim - 1) + (2,)), axis=-1)
    return jax.nn.sigmoid(out * theta[4] + theta[5])[..., None]


def naming(*names):
    """Passes the data after the losses by keyword."""

    def call(fn, data, kwargs):
        return fn(data[0], **dict(zip(names, data[1:], strict=True)), **kwargs)

    return call


def counted(fn, data, kwargs):
    return naming("labels")(fn, data, {**kwargs, "counts": jnp.asarray(COUNTS)})


def shared(fn, data, kwargs):
    alpha = jnp.asarray(kwargs.pop("alpha"))
    shares = jnp.stack([alpha, 0.8 - alpha, jnp.full_like(alpha, 0.2)])
    return naming("segments")(fn, data, {**kwargs, "shares": shares})


def of_batch(kwargs):
    return {k: kwargs.pop(k) for k in ("where", "axis_name") if k in kwargs}


def second_update(group_dro, data, kwargs):
    """The weights of an update that meets the memory of another batch."""
    batch = of_batch(kwargs)
    init, update = group_dro(GROUPS, **{"counts": COUNTS, **kwargs})
    x, groups = jnp.asarray(data[0]), data[1]
    _, state = update(jnp.sqrt(jnp.abs(x)), init(), groups=groups, **batch)
    return update(x, state, groups=groups, **batch)[0]


def _directions(batch):
    x = rng(26, *batch).normal(size=(*batch, 3, 5))
    x = x + 0.9 * x[..., :1, :]
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def _embeddings(batch):
    """Image, text and caption of length 1, somewhat alike."""
    x = _directions(batch)
    return x[..., 0, :], x[..., 1, :], x[..., 2, :]


embeddings = Inputs(
    make=_embeddings,
    batched=(True, True, True),
    edges=lambda: {
        "alike": (_embeddings((8,))[0],) * 3,
        "zero": (np.zeros((8, 5), np.float32),) * 3,
        "opposite": (_embeddings((8,))[0], *[-x for x in _embeddings((8,))[:2]]),
    },
)


def gates(alip, data, kwargs):
    """Both weights of the second batch, mixed; batches of any rank in a line."""
    batch = of_batch(kwargs)
    init, update = alip(**kwargs)
    shape = data[0].shape[:-1]
    x, t, c = (jnp.reshape(e, (-1, e.shape[-1])) for e in data)
    if batch.get("where") is not None:
        batch["where"] = jnp.reshape(batch["where"], -1)
    blank = jnp.zeros((*x.shape[:1], 2), x.dtype)
    given = {"image": x, "text": t, "caption": c, **batch}
    _, state = update(blank, init(), **given)
    weights, _ = update(blank, state, **given)
    return jnp.reshape(weights[:, 0] + 0.3 * weights[:, 1], shape)


def product(chain, data, kwargs):
    """A function, one that takes a keyword, and a pair with memory."""
    batch = of_batch(kwargs)
    temperature = kwargs["temperature"]
    init, update = chain(
        functools.partial(weighting.linupper, temperature=temperature),
        functools.partial(weighting.inverse_frequency, counts=COUNTS),
        weighting.kl_dro_moving(temperature=temperature, beta=0.4),
    )
    x = jnp.asarray(data[0])
    _, state = update(x / 2, init(), labels=data[1], **batch)
    return update(x, state, labels=data[1], **batch)[0]


def uniform(x, *rest):
    del rest
    return jnp.full_like(x, 1 / x.size)


def ones(x, *rest):
    del rest
    return jnp.ones_like(x)


def worst(x):
    return (x == np.max(x)).astype(np.float32)


CASES = [
    Case(
        weighting.cvar,
        losses,
        {"fraction": 0.3},
        coupled=True,
        smooth=("fraction",),
        limits=[
            ("1 is the mean", uniform, {"fraction": 1.0}),
            ("1 / n is the worst", worst, {"fraction": 0.125}),
            ("and so is less", worst, {"fraction": 0.01}),
        ],
        bad=[{"fraction": 0.0}, {"fraction": 1.5}],
    ),
    Case(
        weighting.quantile_window,
        losses,
        {"low": 0.2, "high": 0.7},
        coupled=True,
        smooth=("low", "high"),
        limits=[
            ("all", ones, {"low": 0.0, "high": 1.0}),
            ("the worst", worst, {"low": 0.875, "high": 1.0}),
            (
                "the worst fraction is cvar",
                lambda x: 2.4 * weighting.cvar(x, fraction=0.3),
                {"low": 0.7, "high": 1.0},
            ),
        ],
        bad=[{"low": -0.1}, {"high": 1.1}],
    ),
    Case(
        weighting.keep_ratio,
        hyper={"noise_rate": 0.3, "ramp": 7.5, "exponent": 1.25},
        kind="schedule",
        steps=tuple(range(14)),
        bad=[{"noise_rate": 1.2}, {"ramp": 0.0}, {"exponent": 0.0}],
    ),
    Case(
        weighting.curriculum,
        beside(unit),
        {"progress": 0.3, "start": 0.1, "power": 1.5},
        call=naming("difficulty"),
        smooth=(),
        limits=[("at the end all count", ones, {"progress": 1.0})],
        bad=[{"start": 1.5}, {"power": 0.0}],
        tests=OWN,
    ),
    Case(
        weighting.chi2_dro,
        losses,
        {"radius": 0.4},
        coupled=True,
        smooth=("radius",),
        limits=[
            ("no radius is the mean", uniform, {"radius": 0.0}),
            ("a large one is the worst", worst, {"radius": 3.5}),
            ("a larger one too", worst, {"radius": 50.0}),
        ],
        bad=[{"radius": -1.0}],
    ),
    Case(
        weighting.chi2_dro,
        losses,
        {"penalty": 0.6},
        coupled=True,
        smooth=("penalty",),
        limits=[
            ("a high price is the mean", uniform, {"penalty": 1e7}),
            ("a low one is the worst", worst, {"penalty": 1e-4}),
        ],
        bad=[{"penalty": 0.0}],
        name="penalty",
    ),
    Case(
        weighting.tilted,
        losses,
        {"t": 0.8},
        coupled=True,
        smooth=("t",),
        limits=[
            ("0 is the mean", uniform, {"t": 0.0}),
            ("kl_dro", lambda x: weighting.kl_dro(x, temperature=1.25), {}),
            ("the best", lambda x: (x == x.min()).astype(np.float32), {"t": -1e4}),
        ],
        tests=OWN,
    ),
    *[
        Case(
            weighting.self_paced,
            losses,
            {"threshold": 0.9, **({"inner": 0.4} if rule == "mixture" else {})},
            {"rule": rule},
            smooth=() if rule == "hard" else ("threshold", "inner"),
            bad=[{"threshold": 0.0}, {"rule": "soft"}, *bad],
            name=rule,
        )
        for rule, bad in (
            ("hard", ()),
            ("linear", ()),
            ("log", ({"threshold": 1.0},)),
            ("mixture", ({"inner": 0.0}, {"inner": None}, {"inner": 0.9})),
        )
    ],
    Case(
        weighting.focal_factor,
        losses,
        {"gamma": 2.0},
        smooth=("gamma",),
        limits=[("0 weighs all alike", ones, {"gamma": 0.0})],
        bad=[{"gamma": -1.0}],
    ),
    Case(
        weighting.class_balanced,
        beside(ids, labels=1),
        {"beta": 0.99},
        call=counted,
        smooth=("beta",),
        limits=[
            (
                "1 is inverse frequency",
                lambda x, y: weighting.inverse_frequency(x, labels=y, counts=COUNTS),
                {"beta": 1.0},
            ),
            ("0 weighs all alike", ones, {"beta": 0.0}),
        ],
        bad=[{"beta": -0.1}, {"beta": 1.1}],
    ),
    Case(
        weighting.inverse_frequency,
        beside(ids, labels=1),
        {"power": 0.5},
        call=counted,
        smooth=("power",),
        limits=[("0 weighs all alike", ones, {"power": 0.0})],
        bad=[{"power": -1.0}],
    ),
    Case(
        weighting.group_dro,
        beside(ids, labels=1),
        {"step_size": 0.2, "adjustment": 1.5},
        call=second_update,
        coupled=True,
        smooth=("step_size", "adjustment"),
        bad=[{"step_size": -1.0}, {"adjustment": -1.0}, {"counts": None}],
        tests=OWN,
    ),
    Case(
        weighting.segment_balanced,
        beside(ids, labels=1),
        {"alpha": 0.5},
        call=shared,
        coupled=True,
        smooth=("alpha",),
    ),
    Case(
        weighting.error_bound,
        beside(ids, labels=1),
        {"gamma": 0.7},
        {"number": GROUPS},
        call=naming("groups"),
        coupled=True,
        smooth=("gamma",),
        limits=[("0 scales all alike", lambda x, g: 0 * x + np.tanh(1), {"gamma": 0})],
        bad=[{"gamma": -1.0}],
        tests=OWN,
    ),
    Case(
        weighting.bias,
        beside(maps),
        {"alpha": 0.4, "beta": 0.2},
        call=naming("features"),
        coupled=True,
        smooth=("alpha", "beta"),
        limits=[("no alpha", lambda x, f: 0 * x + 0.8, {"alpha": 0.0})],
    ),
    Case(
        weighting.uncertainty,
        beside(unit),
        {"threshold": 0.6},
        call=naming("uncertain"),
        smooth=(),
        bad=[{"threshold": 1.5}],
    ),
    Case(
        weighting.fault_aware,
        beside(bits),
        {"emphasis": 1.7},
        call=naming("faults"),
        smooth=("emphasis",),
        limits=[("1 is the plain mean", ones, {"emphasis": 1.0})],
    ),
    Case(weighting.diff_tokens, kind="own", tests=OWN),
    Case(
        weighting.meta_weight_net,
        Inputs(
            make=lambda batch: (*losses.make(batch), net_params(batch)),
            batched=(True, False),
            edges=lambda: {k: (*v, net_params(())) for k, v in losses.edges().items()},
        ),
        static={"apply": net},
        coupled=True,
        smooth=(1,),
    ),
    Case(
        weighting.truncate,
        losses,
        {"power": 0.1},
        coupled=True,
        limits=[("n times the mean cuts nothing", lambda x: x, {"power": 1.0})],
        bad=[{"power": -1.0}],
    ),
    Case(
        weighting.truncate,
        losses,
        {"ceiling": 1.4},
        coupled=True,
        limits=[("nothing is left", lambda x: 0 * x, {"ceiling": 0.0})],
        bad=[{"ceiling": -1.0}],
        name="ceiling",
    ),
    Case(
        weighting.alip,
        embeddings,
        {"momentum": 0.3, "gamma": 2.0},
        call=gates,
        coupled=True,
        smooth=("momentum", "gamma"),
        bad=[{"momentum": 1.5}, {"gamma": -1.0}],
        tests=OWN,
    ),
    Case(
        weighting.chain,
        beside(ids, labels=1),
        {"temperature": 0.7},
        call=product,
        coupled=True,
        smooth=("temperature",),
        tests=OWN,
    ),
]
