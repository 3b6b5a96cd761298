"""Numbers for the classification losses: the authors' code, elsewhere, or numpy f64."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxtricks import losses
from jaxtricks.kernels import TokenStatistics
from tests.case import Golden
from tests.losses.golden import (
    IMPOSSIBLE,
    LABELS,
    LIVE,
    LOGITS,
    MULTI,
    RULED_OUT,
    SOFT,
    comp_sum,
    cross_entropy,
    focal,
    log_p_y,
    where_live,
)
from tests.oracles import log_softmax, numbers, one_hot, softmax

PEAK = LOGITS.astype(np.float64).max(-1)
LSE = PEAK + np.log(np.exp(LOGITS - PEAK[:, None]).sum(-1))
STATISTICS = TokenStatistics(
    LSE.astype(np.float32),
    np.take_along_axis(LOGITS, LABELS[:, None], -1)[:, 0],
    LOGITS.sum(-1),
    (softmax(LOGITS) * LOGITS).sum(-1).astype(np.float32),
)

# --- of statistics, and of the label's probability ------------------------------------

GCE = "numpy f64 oracle of arXiv:1805.07836, eq. 6"
SYMMETRIC = (
    "YisenWang/symmetric_cross_entropy_for_noisy_labels@235d93b, arXiv:1908.06112"
)
UNLIKELIHOOD = "torch.log(1 - p) in f64, arXiv:1908.04319, eq. 4"
ENTROPY = "torch.distributions.Categorical.entropy in f64, arXiv:1701.06548"

LABEL_ROWS = [
    *[
        Golden(
            losses.comp_sum,
            (LOGITS, LABELS),
            {"tau": 1 + q},
            (1 - np.exp(log_p_y(LOGITS, LABELS)) ** q) / q,
            GCE,
        )
        for q in (0.75, 0.25)
    ],
    Golden(
        losses.focal,
        (STATISTICS,),
        {"gamma": 1.5},
        focal(LOGITS, LABELS, 1.5),
        "numpy f64 oracle of arXiv:1708.02002, eq. 4",
    ),
    Golden(
        losses.comp_sum,
        (STATISTICS,),
        {"tau": 1.75, "where": LIVE},
        where_live(comp_sum(LOGITS, LABELS, 1.75)),
        "numpy f64 oracle of arXiv:2304.07288, the comp-sum family",
    ),
    *[
        Golden(
            losses.cross_entropy,
            (STATISTICS,),
            {"label_smoothing": smoothing, "z_loss": 0.0625, "classes": 4},
            cross_entropy(LOGITS, LABELS, smoothing, 0.0625),
            "numpy f64 oracle of arXiv:1512.00567, section 7",
        )
        for smoothing in (0.125, 1.0)
    ],
    *[
        Golden(
            losses.symmetric_cross_entropy,
            (LOGITS, LABELS),
            {**hyper, "log_zero": math.log(1e-4)},
            numbers(expect),
            SYMMETRIC,
        )
        for hyper, expect in (
            ({}, "3.643643875 7.872606194 8.915491356 4.641918664 7.820766182"),
            (
                {"alpha": 6.0, "beta": 0.125},
                "3.417339333 11.77903615 17.7467383 4.689156598 11.58355077",
            ),
        )
    ],
    Golden(
        losses.symmetric_cross_entropy,
        (STATISTICS,),
        {"where": LIVE},
        where_live(
            -0.1 * log_p_y(LOGITS, LABELS) + 4 * (1 - np.exp(log_p_y(LOGITS, LABELS)))
        ),
        "numpy f64 oracle of arXiv:1908.06112, eq. 6 and 7",
    ),
    # Without cross entropy a label ruled out costs the bound.
    *[
        Golden(
            losses.symmetric_cross_entropy,
            (RULED_OUT, IMPOSSIBLE),
            {"alpha": alpha, "beta": 0.5},
            np.where(
                [1, 0, 1, 1, 0],
                bound,
                2
                - 2 * np.exp(log_p_y(RULED_OUT, LABELS))
                - alpha * log_p_y(RULED_OUT, LABELS),
            ),
            "numpy f64 oracle of arXiv:1908.06112, eq. 6 and 7",
        )
        for alpha, bound in ((0.0, 2.0), (0.5, np.inf))
    ],
    Golden(
        losses.unlikelihood,
        (LOGITS, LABELS),
        {},
        numbers("0.9410120246 0.1801050824 0.06418958185 0.7000931281 0.1864540236"),
        UNLIKELIHOOD,
    ),
    Golden(
        losses.unlikelihood,
        (LOGITS, MULTI),
        {},
        numbers("1.234294851 0.6789747067 0 0.9457674613 0.1864540236"),
        UNLIKELIHOOD,
    ),
    Golden(
        losses.unlikelihood,
        (STATISTICS,),
        {"where": LIVE},
        where_live(
            numbers("0.9410120246 0.1801050824 0.06418958185 0.7000931281 0.1864540236")
        ),
        UNLIKELIHOOD,
    ),
    # 1 - p = e^-100 (2 others), beyond the digits of p.
    Golden(
        losses.unlikelihood,
        (np.float32([100, 0, 0]), 0),
        {},
        100 - math.log(2),
        "by hand, arXiv:1908.04319, eq. 4",
    ),
    Golden(
        losses.entropy,
        (LOGITS,),
        {},
        numbers("0.9969313881 1.12229436 0.7752789145 1.158936954 0.7222978276"),
        ENTROPY,
    ),
    Golden(
        losses.entropy,
        (STATISTICS,),
        {"where": LIVE},
        where_live(
            numbers("0.9969313881 1.12229436 0.7752789145 1.158936954 0.7222978276")
        ),
        ENTROPY,
    ),
]

# --- preferences ----------------------------------------------------------------------

CHOSEN = np.float32([-1.25, -3.5, -0.375, -7.75, -2.0])
REJECTED = np.float32([-2.75, -1.125, -0.625, -9.5, -0.0625])
REFERENCE = (
    np.float32([-1.5, -3.0, -0.875, -7.0, -2.5]),
    np.float32([-2.0, -1.75, -0.25, -8.0, -0.75]),
)
TRL = "huggingface/trl@f2cd577, "

PREFERENCE_ROWS = [
    Golden(fn, (CHOSEN, REJECTED, *more), hyper, numbers(expect), TRL + paper)
    for fn, more, hyper, expect, paper in (
        (
            losses.dpo,
            REFERENCE,
            {},
            "0.6443966601 0.7509783782 0.6503539067 0.6563501408 0.7025661252",
            "arXiv:2305.18290",
        ),
        (
            losses.dpo,
            REFERENCE,
            {"beta": 0.75},
            "0.3868710061 1.201490624 0.4179160495 0.4509372816 0.7659295703",
            "arXiv:2305.18290",
        ),
        (
            losses.dpo,
            REFERENCE,
            {"beta": 0.75, "label_smoothing": 0.25},
            "0.5743710061 0.9905531243 0.5819785495 0.5915622816 0.7307733203",
            "numpy f64 of the smoothed formula, arXiv:2305.18290",
        ),
        (
            losses.ipo,
            REFERENCE,
            {},
            "16 37.515625 17.015625 18.0625 26.91015625",
            "arXiv:2310.12036",
        ),
        (
            losses.ipo,
            REFERENCE,
            {"tau": 0.75},
            "0.1111111111 3.210069444 0.04340277778 0.006944444444 0.7296006944",
            "arXiv:2310.12036",
        ),
        (
            losses.simpo,
            (),
            {},
            "0.126928011 5.753177726 0.9740769842 0.07888973429 4.882606094",
            "arXiv:2405.14734",
        ),
        (
            losses.simpo,
            (),
            {"beta": 2.5, "gamma": 0.375},
            "0.03364569998 6.314311851 0.5759394199 0.01814992792 5.224149489",
            "arXiv:2405.14734",
        ),
        (
            losses.orpo,
            (),
            {},
            "1.265706769 3.779962685 0.4171361532 7.766017146 2.460580642",
            "arXiv:2403.07691",
        ),
        (
            losses.orpo,
            (),
            {"lam": 0.625},
            "1.348167309 5.249766782 0.6383509575 7.85010716 4.878629013",
            "arXiv:2403.07691",
        ),
    )
]

# --- direct coverage ------------------------------------------------------------------

COVERAGE = "numpy f64 oracle of arXiv:2502.07154, the DCO objective"
RARE = np.float32([-0.03125, -1.25, -4.5, -20.0, -1000.0])


def coverage(log_p, n):
    """(loss, factor), in f64; -log p - log n where p underflows."""
    log_p = np.asarray(log_p, np.float64)
    tail = log_p < -30
    log_miss = np.log(-np.expm1(np.where(tail, -1, log_p)))
    hit = -np.expm1(n * log_miss)
    loss = np.where(tail, -log_p - np.log(n), -np.log(hit))
    factor = n * np.exp(log_p + (n - 1) * log_miss) / hit
    return loss, np.where(tail, 1, factor)


COVERAGE_ROWS = [
    *[
        Golden(
            fn, (RARE,), {"n": n}, coverage(RARE, n)[i], COVERAGE, rtol=5e-6, atol=1e-30
        )
        for i, fn in enumerate((losses.direct_coverage, losses.coverage_factor))
        for n in (1.0, 4.0, 64.0)
    ],
    *[
        Golden(
            losses.pass_at_k,
            (np.array([0, 1, 3, 7, 10]), np.array([10, 10, 5, 9, 10])),
            {"k": k},
            [
                1 - math.comb(n - c, k) / math.comb(n, k)
                for c, n in ((0, 10), (1, 10), (3, 5), (7, 9), (10, 10))
            ],
            "binomial coefficients of arXiv:2107.03374, eq. 1",
        )
        for k in (1, 4)
    ],
]

# --- temperatures ---------------------------------------------------------------------

TEMPNET = "zhqiu/TempNet@3559645, arXiv:2404.04575"
TAU = np.float32([0.5, 0.75, 1.0, 1.75, 3.0])


def fill(start, *shape):
    """Multiples of 1/32, the same for the authors' network."""
    values = 32 * np.cos(start + np.arange(int(np.prod(shape))))
    return (np.round(values) / 32).astype(np.float32).reshape(shape)


NET = losses.TempNet(
    *(fill(1, 4, 3), fill(2, 3), fill(3, 3, 3), fill(4, 3)),
    *(np.float32(0.25), fill(5, 3), np.float32(0.125)),
)


def temperature(logits, rho, low, high):
    """Bisection in f64 for KL(softmax(h / tau), uniform) = rho."""

    def kl(h, tau):
        p = softmax(h / tau)
        return np.sum(p * np.log(np.maximum(p, 1e-300) * len(h)))

    found = []
    for h in np.asarray(logits, np.float64):
        left, right = low, high
        for _ in range(100):
            middle = (left + right) / 2
            left, right = (middle, right) if kl(h, middle) > rho else (left, middle)
        found.append((left + right) / 2)
    return found


TEMPERATURE_ROWS = [
    *[
        Golden(
            losses.dro_temperature,
            (LOGITS, LABELS, TAU),
            {"rho": rho},
            numbers(expect),
            TEMPNET,
            rtol=5e-6,
        )
        for rho, expect in (
            (0.5, "-0.3498527504 0.8690810148 1.891543114 0.0671538437 1.308681612"),
            (1.125, "-0.03735275038 1.337831015 2.516543114 1.160903844 3.183681612"),
        )
    ],
    *[
        Golden(
            losses.optimal_temperature,
            (LOGITS,),
            {"rho": rho, **bounds},
            temperature(LOGITS, rho, *(bounds.values() or (0.5, 5.0))),
            "numpy f64 oracle of arXiv:2404.04575, KL = rho",
            rtol=1e-5,
        )
        for rho, bounds in ((0.5, {}), (0.25, {"low": 1.0, "high": 1.5}))
    ],
    Golden(
        losses.tempnet,
        (LOGITS, NET),
        {},
        numbers("3.210788063 3.210062818 3.214667012 3.209755325 3.219111434"),
        TEMPNET,
    ),
    Golden(
        losses.tempnet,
        (LOGITS, NET),
        {"low": 0.01, "high": 2.0},
        numbers("1.208770721 1.208450002 1.210486079 1.208314022 1.212451501"),
        TEMPNET,
    ),
    Golden(
        losses.tempnet_init,
        (),
        {"key": jax.random.key(0), "classes": 5, "width": 3},
        [[5, 3], [3, 0], [3, 3], [3, 0], [0, 0], [3, 0], [0, 0]],
        "shapes of zhqiu/TempNet@3559645, arXiv:2404.04575",
        pick=lambda net: [[*np.shape(x), 0, 0][:2] for x in net],
    ),
]

# --- margins --------------------------------------------------------------------------


def ldr_k(logits, labels, k, margin):
    f = np.asarray(logits, np.float64)
    delta = f - np.take_along_axis(f, labels[:, None], -1)
    delta += margin * (1 - one_hot(labels, f.shape[-1]))
    top = np.sort(delta, -1)[:, -k:]
    return np.nanmean(np.where(np.isfinite(top), top, np.nan), -1)


def spherical(logits, labels, a, b):
    o = np.asarray(logits, np.float64)
    z = (o - o.mean(-1, keepdims=True)) / o.std(-1, keepdims=True)
    return np.logaddexp(0, a * (b - z[np.arange(len(o)), labels])) / a


HIDDEN = LOGITS[:, :3]
HEAD = LOGITS[:3, :].copy()
MARGIN_ROWS = [
    *[
        Golden(
            losses.ldr_k,
            (logits, LABELS),
            {"k": k, **margin},
            ldr_k(logits, LABELS, k, *(margin.values() or (1.0,))),
            "numpy f64 oracle of arXiv:2112.14869, the LDR-k loss",
            atol=1e-7,
        )
        for logits in (LOGITS, RULED_OUT)
        for k, margin in ((1, {}), (2, {"margin": 0.375}), (3, {}), (4, {}))
    ],
    *[
        Golden(
            losses.spherical_z,
            (LOGITS, LABELS),
            {"a": a, "b": b},
            spherical(LOGITS, LABELS, a, b),
            "numpy f64 oracle of arXiv:1604.08859",
        )
        for a, b in ((0.125, 10.0), (2.0, 1.25))
    ],
    Golden(
        losses.spherical_statistics,
        (HIDDEN, HEAD, LABELS),
        {},
        [
            (HIDDEN.astype(np.float64) @ HEAD)[np.arange(5), LABELS]
            - (HIDDEN.astype(np.float64) @ HEAD).mean(-1),
            (HIDDEN.astype(np.float64) @ HEAD).var(-1),
        ],
        "numpy f64 oracle of arXiv:1604.08859",
        pick=np.stack,
        rtol=5e-6,
    ),
    Golden(
        losses.spherical_z,
        (
            losses.SphericalStatistics(
                np.float32([0.5, -1.25]), np.float32([0.25, 4.0])
            ),
        ),
        {"a": 1.5, "b": 0.75},
        np.logaddexp(0, 1.5 * (0.75 - np.array([1.0, -0.625]))) / 1.5,
        "numpy f64 oracle of arXiv:1604.08859",
    ),
]

# --- a random loss --------------------------------------------------------------------

MARGINS = np.float32([0.5, -2.25, 3.5, 1.125, -0.125, 0.875])
SIGNS = np.array([1, 0, 0, 1, 1, 0])
KEY = jax.random.key(11)


def derivatives(margins, lam):
    """arXiv:2409.00908, algorithm 1, for the normal numbers of KEY."""
    z = np.asarray(jax.random.normal(KEY, (len(margins),)), np.float64)
    with np.errstate(divide="ignore"):
        base = np.maximum(1 + lam * z, 0)
        draws = np.exp(z) if lam == 0 else base ** (1 / lam)
    draws = np.sort(np.maximum(-draws, -1))
    g = np.empty(len(margins))
    g[np.argsort(margins)] = draws
    return np.where(margins > 1, g / margins, g) - 1e-6


ENSLOSS = "numpy f64 oracle of arXiv:2409.00908, algorithm 1"
RANDOM_ROWS = [
    *[
        Golden(
            losses.random_calibrated_derivatives,
            (MARGINS,),
            {"key": KEY, "lam": lam},
            derivatives(MARGINS, lam),
            ENSLOSS,
            rtol=5e-6,
        )
        for lam in (0.0, 0.75, -0.75)
    ],
    *[
        Golden(
            losses.ensloss,
            (MARGINS * (2 * SIGNS - 1), SIGNS),
            {"key": KEY, "lam": lam},
            derivatives(MARGINS, lam) * MARGINS,
            ENSLOSS,
            rtol=5e-6,
        )
        for lam in (0.0, -0.5)
    ],
]

# --- a learnt link --------------------------------------------------------------------


def potentials(blocks, dims, width, depth):
    """Filled in the order in which the authors' modules are."""
    found = []

    def linear(inputs, outputs, bias=True):
        nonlocal start
        start += 2
        weight = fill(start - 2, inputs, outputs)
        return (weight, fill(start - 1, outputs)) if bias else (weight,)

    for _ in range(blocks):
        start = 1
        first = linear(dims, width)
        layers = []
        for _ in range(depth - 1):
            parts = [
                array
                for inputs in (width, dims, dims)
                for array in linear(inputs, width // 2)
            ]
            shift, log_scale = fill(start, width // 2), fill(start + 1, width // 2)
            start += 2
            layers.append((*parts, shift, log_scale))
        last = *linear(width, 1, bias=False), *linear(dims, 1, bias=False)
        found.append((first, layers, last))
    like = losses.legendre_init(
        key=jax.random.key(0),
        classes=dims + 1,
        width=width,
        depth=depth,
        blocks=blocks,
    )
    return tuple(
        potential._replace(
            square=jnp.float32(0.25),
            network=jnp.float32(0.75),
            first=first[0],
            first_bias=first[1],
            layers=tuple(
                type(layer)(*new)
                for layer, new in zip(potential.layers, layers, strict=True)
            ),
            last=last[0],
            last_skip=last[1],
            log_scale=jnp.float32(0.5),
        )
        for potential, (first, layers, last) in zip(like, found, strict=True)
    )


LEGENDRE = "khflam/legendretron@b313840, arXiv:2301.11695"
LINK_ROWS = [
    Golden(
        losses.legendretron,
        (LOGITS[:, :3], LABELS, potentials(1, 3, 4, 3)),
        {},
        numbers("1.984960502 0.8695075116 6.935449656 3.226038572 1.133787332"),
        LEGENDRE,
        rtol=5e-6,
    ),
    Golden(
        losses.legendretron,
        (LOGITS[:, :3], LABELS, potentials(2, 3, 2, 2)),
        {},
        numbers("5.360426456 0.04144902186 6.032067927 3.597656429 6.520512835"),
        LEGENDRE,
        rtol=5e-6,
    ),
    Golden(
        losses.legendre_link,
        (LOGITS[:2, :3], potentials(1, 3, 4, 3)),
        {},
        [
            numbers("-0.2532360594 -6.7727540647 -2.4629321417 -1.9849605023"),
            numbers("-0.8695075116 -2.5152432858 -3.824153014 -0.7378058882"),
        ],
        LEGENDRE,
        rtol=5e-6,
    ),
    Golden(
        losses.log_softmax_plus,
        (LOGITS,),
        {},
        log_softmax(np.concatenate([LOGITS, np.zeros((5, 1))], -1)),
        "numpy f64 oracle of arXiv:2301.11695, softmax+",
    ),
    Golden(
        losses.legendre_init,
        (),
        {"key": jax.random.key(0), "classes": 3, "blocks": 2},
        [99, 99],  # 2 + 12 + 3 (10 + 6 + 6 + 2 + 2) + 4 + 2 + 1
        "number of parameters of khflam/legendretron@b313840, arXiv:2301.11695",
        pick=lambda params: [
            sum(x.size for x in jax.tree.leaves(potential)) for potential in params
        ],
    ),
]

# --- robust and multi-label -----------------------------------------------------------

BI_TEMPERED = "google/bi-tempered-loss@1c65c77 in f64, 300 iterations, arXiv:1906.03361"
ASYMMETRIC = "Alibaba-MIIL/ASL@8c9e0bd in f64, arXiv:2009.14119"
ROBUST_ROWS = [
    *[
        Golden(
            losses.bi_tempered,
            (LOGITS, y),
            {"t1": t1, "t2": t2},
            numbers(expect),
            BI_TEMPERED,
            rtol=1e-5,
        )
        for y, t1, t2, expect in (
            (
                LABELS,
                0.8,
                1.2,
                "0.4233177069 1.241318984 1.709484766 0.5625055952 1.252046057",
            ),
            (
                SOFT,
                0.8,
                1.2,
                "0.1266354365 0.2213302799 0.9497883664 0.2319133493 0.9039481359",
            ),
            (
                LABELS,
                0.25,
                1.5,
                "0.2708856981 0.5663356375 0.7061615016 0.3332054755 0.5919555677",
            ),
            (
                SOFT,
                0.5,
                2.5,
                "0.0697461741 0.04422447917 0.2491099117 0.2786745179 0.2096858023",
            ),
        )
    ],
    *[
        Golden(
            losses.asymmetric,
            (LOGITS, MULTI),
            hyper,
            numbers(expect),
            ASYMMETRIC,
            rtol=5e-6,
        )
        for hyper, expect in (
            ({}, "0.1364130711 1.929418452 1.700181198 4.301328551 1.860820465"),
            (
                {"gamma_neg": 2.0, "gamma_pos": 0.5, "clip": 0.125},
                "0.2984161801 2.257011155 1.613901061 4.704759739 1.565946266",
            ),
            (
                {"gamma_neg": 3.0, "gamma_pos": 0.0, "clip": 0.0},
                "0.5568556591 2.638739543 3.0441049 5.177683885 3.442486239",
            ),
        )
    ],
]

# --- sequences, attacks, decisions, samples -------------------------------------------

TOKEN_LOSSES = np.float32(LOGITS**2)
SAMPLES = np.array([[1, 2, 2], [1, 2, 0], [1, 2, 2], [0, 2, 2]])
SAMPLE_LOSSES = np.float32([0.5, 0.75, 0.5, 0.25])


def official_confidence(mean_losses, tokens):
    """n_u exp(-T l_u) of each different sample over their sum."""
    weight = {}
    for loss, text in zip(mean_losses, map(tuple, tokens), strict=True):
        likely = np.exp(-len(text) * np.float64(loss))
        weight[text] = weight.get(text, 0) + likely
    return [weight[tuple(text)] / sum(weight.values()) for text in tokens]


def adversarial(logits, attacked, labels, tau, rho, nu):
    change = np.asarray(attacked, np.float64) - logits
    change -= np.take_along_axis(change, labels[:, None], -1)
    norm = np.sqrt(np.sum(change**2, -1))
    return comp_sum(np.float64(logits) / rho, labels, tau) + nu * norm


ETHICIST = (
    "formula of thu-coai/Targeted-Data-Extraction@f775ed8 in f64, arXiv:2307.04401"
)
COMP_SUM = "numpy f64 oracle of arXiv:2304.07288, "
DETECTORS = "formula of ChenJoya/sampling-free@5f133dc in f64, arXiv:1909.04868"
REGRET = "numpy f64 oracle of arXiv:2403.16843, the regret"
BLACK_BOX = "by hand from arXiv:2211.03761"
POLICIES = softmax(LOGITS)[:, None, :].repeat(2, 1).astype(np.float32)
LINES = np.array([[0, 1], [1, 2], [2, 3], [3, 0], [1, 3], [4, 5], [3, 4], [5, 6]])
OPENED = np.array(
    [
        [[1, 0], [2, 3], [9, 9]],
        [[4, 3], [0, 6], [0, 1]],
        [[-1, -1], [-1, -1], [-1, -1]],
        [[1, 3], [3, 2], [5, 6]],
    ]
)
COSTS = np.stack([LOGITS, LOGITS[::-1]], 1)
REST_ROWS = [
    *[
        Golden(
            losses.topk_smoothing,
            (TOKEN_LOSSES,),
            hyper,
            TOKEN_LOSSES.mean(-1, dtype=np.float64)
            + alpha * np.sort(TOKEN_LOSSES.astype(np.float64))[:, -n:].mean(-1),
            ETHICIST,
        )
        for n, alpha, hyper in (
            (4, 0.7, {}),
            (2, 1.0, {"n": 2, "alpha": 1.0}),
        )
    ],
    Golden(
        losses.sequence_confidence,
        (SAMPLE_LOSSES, SAMPLES),
        {},
        official_confidence(SAMPLE_LOSSES, SAMPLES),
        ETHICIST,
    ),
    *[
        Golden(
            losses.smooth_adversarial_comp_sum,
            (LOGITS, LOGITS[::-1].copy(), LABELS),
            hyper,
            adversarial(LOGITS, LOGITS[::-1], LABELS, *settings),
            COMP_SUM + "smooth adversarial comp-sum losses",
        )
        for hyper, settings in (
            ({}, (1.0, 1.0, 1.0)),
            ({"tau": 1.5, "rho": 0.5, "nu": 0.25}, (1.5, 0.5, 0.25)),
        )
    ],
    *[
        Golden(
            losses.comp_sum_bound,
            (np.float32([0.0, 0.03125, 0.5]),),
            {"tau": tau, "classes": 3},
            expect(np.array([0.0, 0.03125, 0.5])),
            COMP_SUM + "the H-consistency bounds",
        )
        for tau, expect in (
            (0.5, lambda t: np.sqrt(2**0.5 * 1.5 * t)),
            (1.0, lambda t: np.sqrt(2 * t)),
            (1.5, lambda t: np.sqrt(2 * 3**0.5 * t)),
            (2.5, lambda t: 1.5 * 3**1.5 * t),
        )
    ],
    Golden(
        losses.guided,
        (np.float32([8.0, 0.5]), np.float32([2.0, 3.0])),
        {},
        [2.0, 3.0],
        DETECTORS,
    ),
    Golden(
        losses.prior_bias,
        (np.float32([0.0078125, 0.25, 0.75]),),
        {},
        -np.log((1 - np.array([0.0078125, 0.25, 0.75])) / [0.0078125, 0.25, 0.75]),
        DETECTORS,
    ),
    Golden(
        losses.regret,
        (POLICIES, COSTS),
        {},
        (POLICIES.astype(np.float64) * COSTS).sum((1, 2)) - COSTS.sum(1).min(-1),
        REGRET,
        rtol=5e-6,
    ),
    Golden(
        losses.radial_violations,
        (OPENED, LINES),
        {"nodes": 7},
        [[1, 0, 0], [1, 1, 1], [0, 2, 0], [0, 0, 1]],
        "networkx 3.6.1, cycle_basis and connected_components, arXiv:2501.14960",
        pick=lambda found: np.stack(found, -1),
    ),
    Golden(
        losses.black_box_squared,
        (np.array([0, 0, 1, 2]), np.array([0, 2, 2])),
        {},
        1 / 6 - 2 * 4 / 12 + 1 / 3,
        BLACK_BOX,
        atol=1e-7,
    ),
    Golden(
        losses.black_box_squared,
        (np.array([0, 0, 1, 2]), np.array([1])),
        {},
        1 / 6 - 2 / 4,
        BLACK_BOX,
    ),
    Golden(
        losses.monomial_estimate,
        (np.array([[4, 2, 1], [3, 3, 1]]), np.array([[2, 1, 0], [0, 1, 1]])),
        {"degree": 3},
        [4 * 3 * 2 / (7 * 6 * 5), 3 * 1 / (7 * 6)],
        BLACK_BOX,
    ),
]

ROWS = [
    *LABEL_ROWS,
    *PREFERENCE_ROWS,
    *COVERAGE_ROWS,
    *TEMPERATURE_ROWS,
    *MARGIN_ROWS,
    *RANDOM_ROWS,
    *LINK_ROWS,
    *ROBUST_ROWS,
    *REST_ROWS,
]
