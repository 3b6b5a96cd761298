"""STORM from its authors' formulas, TGeo-KD from the paper's, in float64."""

from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtricks import metagrad
from tests import oracles as oracle
from tests.case import Golden
from tests.metagrad.golden_derivatives import row, wide

STORM = "numpy f64 oracle of storm-public's Results and Filter, arXiv:2412.12955"
TGEO = "numpy f64 oracle, arXiv:2312.15112"
_rng = np.random.default_rng(95)


def passes(count=3, n=6, classes=3):
    """Logits of several passes, their losses, and labels."""
    logits = _rng.normal(size=(count, n, classes)).astype(np.float32) * 2
    labels = _rng.integers(0, classes, size=n)
    losses = -oracle.log_softmax(logits)[:, np.arange(n), labels]
    return losses.astype(np.float32), logits, labels


BATCHES = [passes(), passes()]
ALONE = passes(1)


def _told(losses, logits, labels):
    """Each example's (loss mean, std, confidence mean, std), and its agreement."""
    hits = logits.argmax(-1) == labels
    agreed = hits.mean(0) > 0.5
    agreed = np.where(hits.mean(0) == 0.5, hits[0], agreed)
    found = []
    for x in (np.float64(losses), oracle.softmax(logits).max(-1)):
        spread = x.std(0, ddof=1) if len(x) > 1 else np.zeros(x.shape[1])
        found += [x.mean(0), spread]
    return np.stack(found, axis=1), agreed


def _moments(x):
    return [np.mean(x), np.std(x, ddof=1) if len(x) > 1 else 1e-8]


def _kl(mean, std, centre, width):
    if std == 0 or width == 0:
        return 0.0
    return np.log(width / std) + (std**2 + (mean - centre) ** 2) / (2 * width**2) - 0.5


def _overlap(mean, std, centre, width):
    own = NormalDist(mean, max(std, 1e-8))
    return own.overlap(NormalDist(centre, max(width, 1e-8)))


def features(batches, recent, separate):
    """Of the last batch, after those before it."""
    held = []
    for losses, logits, labels in batches:
        stats, agreed = _told(losses, logits, labels)
        held += zip(labels if separate else 0 * labels, stats, agreed, strict=True)
        kept = []
        for label in range(3):
            kept += [h for h in held if h[0] == label][-recent:]
        held = kept
    found = []
    for label, own, agrees in zip(labels, stats, agreed, strict=True):
        label = label if separate else 0
        group = np.array([s for k, s, a in held if k == label and a == agrees])
        means = [_moments(column) for column in group.T]
        centre, width = means[0][0], means[1][0]
        line = [x for k in range(4) for x in (own[k], *means[k])]
        for measure in (_kl, _overlap):
            others = [measure(s[0], s[1], centre, width) for s in group]
            line += [measure(own[0], own[1], centre, width), *_moments(others)]
        found.append([*line, float(agrees)])
    return np.array(found)


def features_row(batches, recent, labels):
    def pick(result):
        found, memory = result
        for batch in batches[1:]:
            found, memory = metagrad.storm_features(*batch, memory)
        return found

    empty = metagrad.StormMemory(
        np.zeros((labels, recent, 4), np.float32),
        *(np.zeros((labels, recent), bool) for _ in range(2)),
    )
    return Golden(
        metagrad.storm_features,
        (*batches[0], jax.tree.map(np.asarray, empty)),
        {},
        features(batches, recent, labels > 1),
        STORM,
        pick,
        rtol=2e-4,
        atol=2e-5,
    )


# --- the rescaler ---------------------------------------------------------------------

NETS = [
    _rng.normal(size=(3, *shape)).astype(np.float32)
    for shape in ((19, 19), (19,), (19, 2), (2,))
]
SEEN = _rng.normal(size=(5, 19)).astype(np.float32)
SEEN_LABELS = np.array([0, 2, 1, 1, 0])


def weights_row(count):
    def norm(x):
        return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)

    out = []
    for w, b, v, c in zip(*(np.float64(x[:count]) for x in NETS), strict=True):
        z = norm(np.maximum(norm(SEEN @ w + b), 0) @ v + c)
        out.append(oracle.softmax(z)[:, 1])
    labels = SEEN_LABELS if count > 1 else 0 * SEEN_LABELS
    args = metagrad.StormRescaler(*(x[:count] for x in NETS)), SEEN, SEEN_LABELS
    expect = np.array(out)[labels, np.arange(5)]
    return Golden(metagrad.storm_weights, args, {}, expect, STORM, rtol=2e-5)


# Two steps: params; meta losses; weights of both; of the last rescaler the first
# weights of its outer and inner layer.
_rng = np.random.default_rng(2024)
STEPS = {
    "w": _rng.normal(size=(2, 2)),
    "x": _rng.normal(size=(2, 3, 6, 2)),  # [steps, passes, n, inputs]
    "other": _rng.normal(size=(2, 3, 6, 2)),
    "y": _rng.integers(0, 2, (2, 6)),
    "other_y": _rng.integers(0, 2, (2, 6)),
    "inner": _rng.normal(size=(2, 19, 19)) * 0.4,
    "inner_bias": _rng.normal(size=(2, 19)) * 0.3,
    "outer": _rng.normal(size=(2, 19, 2)) * 0.4,
    "outer_bias": _rng.normal(size=(2, 2)),
}
STEPS = {k: np.float32(v) if v.dtype == float else v for k, v in STEPS.items()}
THEIRS = {  # by labels: separate rescalers and no sum preserved; one, and preserved
    2: """
    1.17739924522 1.49337771801 0.988859752682 -0.81531969693 2.75402414263
    2.27313838648 0.750757310555 0.499198163474 0.709613576816 0.224345791419
    0.879333072352 0.243635018081 0.695385164793 0.121461011637 0.108498529169
    0.531238399427 0.786880542893 0.802980795101 0.557551089226 0.342297897921
    0.360120891744 0.593695365494 0.473712719122 -0.144282553484 -0.137280591838
    0.200497784109 0.506602988432
    """,
    1: """
    1.16807677058 1.50270019265 1.05080892003 -0.87726886428 7.57997480968
    3.31534430019 0.836917879368 0.245382025716 0.810949009078 0.160397225485
    0.651522664196 0.281157225011 0.145386441996 0.118210424448 0.237679977394
    0.610194250625 0.900669928836 0.908325890976 0.0700200797385 -1.01574464833
    0.913062745674 -0.489793939443 0.236055945409 -0.222981888795 0.978110377486
    0.618436295436 0.386321134893
    """,
}


def storm_row(labels, **settings):
    """SGD at 0.05 with momentum 0.8, and at 0.3; passes see inputs of their own."""

    def forward(w, batch, key):
        x, y = batch
        logits = x @ w
        own = jax.nn.one_hot(y, 2, dtype=logits.dtype)[None]
        return -jnp.sum(jax.nn.log_softmax(logits) * own, axis=-1), logits, y

    def run():
        given = {k: v if v.dtype == int else wide(v) for k, v in STEPS.items()}
        tx = optax.sgd(0.05, momentum=0.8), optax.sgd(0.3)
        tuner = metagrad.storm(forward, *tx, labels=labels, recent=6, **settings)
        names = metagrad.StormRescaler._fields
        rescaler = metagrad.StormRescaler(*(given[k][:labels] for k in names))
        state = tuner.init(given["w"], jax.random.key(0))._replace(rescaler=rescaler)
        batches = (given["x"], given["y"]), (given["other"], given["other_y"])
        data = *batches, jax.random.split(jax.random.key(1), 2)
        state, (weights, meta) = jax.lax.scan(tuner.step, state, data)
        last = state.rescaler.outer[-1, :3], state.rescaler.inner[-1, 0, :3]
        return state.params, meta, weights, *last

    args = forward, optax.sgd(0.1), optax.sgd(0.5)
    kwargs = {"labels": labels, "recent": 6, **settings}
    origin = "storm-public's Results and Filter with torch 2.13.0"
    expect = (oracle.numbers(THEIRS[labels]),)
    origin = f"{origin}, arXiv:2412.12955"
    return row(metagrad.storm, args, kwargs, expect, origin, run, 1e-9)


# --- the trilateral geometry ----------------------------------------------------------

TEACHER = _rng.normal(size=(6, 3)).astype(np.float32)
STUDENT = _rng.normal(size=(6, 3)).astype(np.float32)
LABELS = np.array([0, 2, 0, 2, 2, 0])  # no example of class 1
RATIO = _rng.uniform(size=6).astype(np.float32)


def class_means(labels=LABELS):
    p = oracle.softmax(TEACHER)
    return np.array(
        [p[c == labels].mean(0) if c in labels else np.full(3, 1 / 3) for c in range(3)]
    )


def class_row(labels):
    args = np.float32(oracle.softmax(TEACHER)), labels
    return Golden(metagrad.class_predictions, args, {}, class_means(labels), TGEO)


def geometry():
    s, t, g = oracle.softmax(STUDENT), oracle.softmax(TEACHER), np.eye(3)[LABELS]
    m = class_means()[LABELS]
    edges = [(m - s) ** 2, (g - s) ** 2, (t - s) ** 2, (t - g) ** 2, (m - g) ** 2]
    args = s, t, LABELS, class_means()
    args = tuple(x if x is LABELS else np.float32(x) for x in args)
    expect = np.concatenate([s, t, g, m, *edges], axis=1)
    return Golden(metagrad.trilateral_geometry, args, {}, expect, TGEO, atol=2e-7)


def fused(**kwargs):
    t = kwargs.get("temperature", 4.0)
    log_p, log_q = oracle.log_softmax(TEACHER / t), oracle.log_softmax(STUDENT / t)
    kd = t**2 * (np.exp(log_p) * (log_p - log_q)).sum(-1)
    ce = -oracle.log_softmax(STUDENT)[np.arange(6), LABELS]
    args = STUDENT, TEACHER, LABELS, RATIO
    expect = RATIO * kd + (1 - RATIO) * ce
    return Golden(metagrad.fused_distillation, args, kwargs, expect, TGEO, rtol=5e-6)


ROWS = [
    features_row(BATCHES[:1], 6, 3),
    features_row(BATCHES, 3, 3),
    features_row(BATCHES, 8, 1),
    features_row([ALONE], 6, 3),
    weights_row(3),
    weights_row(1),
    storm_row(2),
    storm_row(1, preserve=True),
    Golden(
        metagrad.preserve_sum,
        (np.array([1.0, 2.0, 4.0], np.float32), np.array([0.5, 0.1, 0.2], np.float32)),
        {},
        np.array([0.5, 0.2, 0.8]) * 7 / 1.5,
        "by hand, arXiv:2412.12955",
    ),
    Golden(
        metagrad.storm_memory,
        (),
        {"labels": 2, "recent": 5},
        [2, 5, 4, 0],
        "by hand, arXiv:2412.12955",
        lambda m: np.array([*m.stats.shape, m.held.sum()]),
    ),
    class_row(LABELS),
    class_row(np.array([1, 2, 2, 2, 2, 2])),  # a single one of class 1
    geometry(),
    fused(),
    fused(temperature=1.5),
]
