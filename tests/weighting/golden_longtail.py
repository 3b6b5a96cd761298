"""Numbers for label tools and weightings: cleanlab's, the authors', and f64 oracles."""

import itertools

import jax
import numpy as np

from jaxtricks import weighting
from tests.case import Golden
from tests.oracles import numbers

# --- confident learning ---------------------------------------------------------------

P = (
    np.array(
        numbers(
            """
            1900 301 1518 378 239 132 222 3503 1802 247 1557 490 434 1184 346 2132 174
            1551 156 2215 1701 150 465 1780 1023 648 534 1890 1324 1741 123 909 2373 619
            131 974 761 2068 225 1042 783 1944 578 791 2133 998 520 444 139 2604 207
            1146 760 1230 1195 911 1999 639 1040 417 1233 574 1717 572 96 851 541 2609
            377 2950 632 137 3389 229 270 208 1137 765 1195 999 53 155 3158 730 200 1675
            113 2107 700 2776 476 143 160 584 1032 2319 77 123 1938 1959 1197 719 788
            1392 269 732 559 2536 185 3249 603 59 146 269 3302 380 995 343 247 2511 2079
            1388 366 264 423 1250 472 1951 3076 274 693 53 466 204 3049 377 1908 176
            1028 983 674 555 2274 593 1256 100 2568 172 56 1170 733 2137 2735 340 617
            404 2664 450 759 222
            """
        ),
        np.float32,
    ).reshape(40, 4)
    / 4096
)
GIVEN = np.array(
    numbers(
        "0 3 2 1 2 0 2 1 2 1 3 2 1 1 0 3 3 1 0 3 "
        "3 3 0 2 0 0 3 1 3 3 1 3 0 2 0 0 0 3 3 0"
    )
).astype(int)
# compute_confident_joint(calibrate=False)
COUNTED = np.array([[6, 1, 2, 2], [1, 4, 1, 1], [3, 0, 1, 3], [1, 0, 4, 7]])
# find_label_issues(filter_by=...), and what it takes back: label and argmax agree.
PRUNED = [3, 4, 6, 8, 11, 15, 20, 22, 23, 24, 25, 28, 30, 35, 38]
OFF_DIAGONAL = [2, 3, 4, 5, 6, 8, 11, 15, 19, 20, 22, 23, 24, 28, 30, 35, 36, 38]
DISAGREE = P.argmax(1) != GIVEN


def where_true(flagged):
    return np.flatnonzero(np.asarray(flagged) & DISAGREE)


def calibrated(counts, given):
    rows = counts / counts.sum(1, keepdims=True)
    return rows * np.bincount(given, minlength=4)[:, None] / len(given)


PERVASIVE = "arXiv:2103.14749, section 3"
CONFIDENT = "arXiv:1911.00068"
CLEANLAB = f"cleanlab 2.9.0, {PERVASIVE}; {CONFIDENT}"

ERROR_ROWS = [
    Golden(
        weighting.confident_joint,
        (P, GIVEN),
        {},
        COUNTED,
        CLEANLAB,
        pick=lambda found: found.counts,
    ),
    Golden(
        weighting.confident_joint,
        (P, GIVEN),
        {},
        calibrated(COUNTED, GIVEN),
        f"numpy f64 oracle of {PERVASIVE}, counts of cleanlab 2.9.0",
        pick=lambda found: found.joint,
    ),
    Golden(
        weighting.confident_joint,
        (P, GIVEN),
        {},
        [P[c == GIVEN, c].astype(np.float64).mean() for c in range(4)],
        f"numpy f64 oracle of {PERVASIVE}",
        pick=lambda found: found.thresholds,
    ),
    Golden(
        weighting.find_label_errors,
        (P, GIVEN),
        {},
        PRUNED,
        CLEANLAB,
        pick=where_true,
    ),
    Golden(
        weighting.find_label_errors,
        (P, GIVEN),
        {"method": "confident"},
        OFF_DIAGONAL,
        CLEANLAB,
        pick=where_true,
    ),
]

ANSWERS = np.array([[0, 1, 2, 1, 0, 2, 1, 0, 2], [0, 2, 2, 0, 0, 1, 2, 1, 1]])
TOLD = np.array([0, 1, 2, 0, 0, 2, 2, 1, 0])
TRUE = np.array([0, 1, 2, 0, 0, 2, 1, 0, 2])


def curve_by_removal(removed):
    """Accuracies by given and true labels, over all ways to remove right examples."""
    right = np.flatnonzero(TOLD == TRUE)
    by_given, by_true = [], []
    for gone in itertools.combinations(right, removed):
        rest = np.setdiff1d(np.arange(9), gone)
        by_given.append((ANSWERS[:, rest] == TOLD[rest]).mean(1))
        by_true.append((ANSWERS[:, rest] == TRUE[rest]).mean(1))
    return [3 / (9 - removed), *np.mean(by_given, 0), *np.mean(by_true, 0)]


CURVE_ROWS = [
    Golden(
        weighting.corrected_accuracy_curve,
        (ANSWERS, TOLD, TRUE),
        {"points": 9},  # prevalence 1/3, 5/12, 1/2, ..., 3/4, ..., 1
        [curve_by_removal(n) for n in (0, 3, 5, 6)],
        f"by hand from {PERVASIVE}: all subsets",
        pick=lambda c: np.concatenate([[c.prevalence], c.given, c.corrected]).T[
            [0, 2, 5, 8]
        ],
    ),
    Golden(
        weighting.corrected_accuracy_curve,
        (ANSWERS, TOLD, TRUE),
        {"points": 2},
        [[np.nan, np.nan], [np.nan, np.nan]],
        f"by hand from {PERVASIVE}: the first is always better",
        pick=lambda c: c.swap,
    ),
    Golden(
        weighting.corrected_accuracy_curve,
        (
            np.array([[0, 0, 1, 1], [0, 1, 0, 1]]),
            np.zeros(4, int),
            np.array([0, 0, 1, 0]),
        ),
        {},
        [[np.nan, np.nan], [np.nan, np.nan]],
        f"by hand from {PERVASIVE}: 2/3 (1 - v) + v over 1/3 (1 - v)",
        pick=lambda c: c.swap,
    ),
    Golden(
        weighting.corrected_accuracy_curve,
        (
            np.array([[0, 0, 0, 1], [0, 1, 0, 0]]),
            np.array([0, 0, 0, 1]),
            np.zeros(4, int),
        ),
        {},
        [[np.nan, 0.25], [0.25, np.nan]],  # 1 - v and 2/3 (1 - v) + v
        f"by hand from {PERVASIVE}",
        pick=lambda c: c.swap,
    ),
]

# --- draws ----------------------------------------------------------------------------

LOSSES = np.array([[2.25, 0.5, 0.625, 1.0], [0.25, 0.375, 3.0, 0.3125]], np.float32)
ALLOWED = np.array([[True, False, True, True], [False, False, False, False]])


def softmin(losses, temperature):
    p = np.exp(-np.asarray(losses, np.float64) / temperature)
    return p / p.sum(-1, keepdims=True)


KEY = jax.random.key(7)
PLD = "numpy f64 oracle of arXiv:2502.00348; Kaike-Zhang/PLD@dd7b14f has the defaults"
STATISTIC = np.array(  # one lies between the first edges of curvatures 5 and 7.5
    [-1.75, -1.5, 5.75, -1.0, 0.0, 0.25, 2.25, 0.375, 1.25, 1.5, 2.375, 4.25],
    np.float32,
)


def official_ranges(x, groups=5, curvature=5):
    """Each example's share of draws that take as many from every range."""
    edges = np.log1p(np.linspace(0, 1, groups + 1) * curvature) / np.log1p(curvature)
    edges = x.min() + (x.max() - x.min()) * edges
    group = np.minimum(np.searchsorted(edges, x, side="right") - 1, groups - 1)
    sizes = np.bincount(group, minlength=groups)
    return 1 / sizes[group] / (sizes > 0).sum()


HAS = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]], bool)
HEAD_TAIL = "numpy f64 oracle of the repeat factor, arXiv:2503.12821"

DRAW_ROWS = [
    *[
        Golden(
            weighting.personal_resample,
            (LOSSES,),
            {"key": KEY, **hyper},
            softmin(LOSSES, hyper.get("temperature", 0.1)),
            PLD,
            pick=lambda drawn: drawn.probabilities,
        )
        for hyper in ({}, {"temperature": 0.75})
    ],
    Golden(
        weighting.personal_resample,
        (LOSSES,),
        {"key": KEY, "where": ALLOWED, "temperature": 0.5},
        [np.insert(softmin(LOSSES[0, [0, 2, 3]], 0.5), 1, 0), np.zeros(4)],
        PLD,
        pick=lambda drawn: drawn.probabilities,
    ),
    *[
        Golden(
            weighting.group_balanced,
            (STATISTIC,),
            hyper,
            official_ranges(STATISTIC, **hyper),
            "numpy f64 oracle of dqj5182/HACO_RELEASE@b2cc3c1, arXiv:2505.11152",
        )
        for hyper in ({}, {"groups": 3, "curvature": 2})
    ],
    *[
        Golden(
            weighting.keep_by_entity,
            (HAS,),
            {"frequencies": np.float32([0.5, 0.125, 2.0]), "tau": tau},
            [
                min(1, (tau / 0.5) ** 0.5),
                min(1, (tau / 0.125) ** 0.5),
                min(1, (tau / 2) ** 0.5),
                1,
            ],
            HEAD_TAIL,
        )
        for tau in (0.0625, 0.25, 1.5)
    ],
]

CLASS = np.array([0, 1, 2, 0])
TRAIN = np.array([100.0, 10.0, 1000.0], np.float32)


def effective(labels, beta):
    v = (1 - beta) / (1 - beta ** TRAIN.astype(np.float64))
    return (v / v.sum() * 3)[labels]


DRW = "numpy f64 oracle of arXiv:1906.07413, algorithm 1; arXiv:2212.13827"
DRW_ROWS = [
    Golden(
        weighting.drw,
        (np.zeros(4, np.float32),),
        {"labels": CLASS, "counts": TRAIN, "step": step, "start": 160, **hyper},
        effective(CLASS, hyper.get("beta", 0.9999)) if step >= 160 else np.ones(4),
        DRW,
        rtol=5e-6,
    )
    for step, hyper in ((159, {}), (160, {}), (199, {"beta": 0.99}))
]

# --- class Gaussians ------------------------------------------------------------------

Z = np.array(
    numbers(
        """
        0.5 1.25 0.75 0.875 1.5 0.25 9.0 -7.5 0.125 0.625
        -3.25 2.0 -2.5 2.75 -3.0 1.5 -2.25 2.5 4.5 4.0 5.25 3.5 -3.5 3.125
        """
    ),
    np.float32,
).reshape(12, 2)
OF = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 1])


def gaussians(trim):
    means, spreads = [], []
    for c in range(3):
        z = Z[c == OF].astype(np.float64)
        order = np.argsort(((z - z.mean(0)) ** 2).sum(1))
        z = z[order[: int(np.ceil((1 - trim) * len(z)))]]
        means.append(z.mean(0))
        spreads.append(np.cov(z.T))
    return np.array(means), np.array(spreads)


def leaning(trim, q, share, alpha):
    """Class 2 is the tail."""
    mean, spread = gaussians(trim)
    near = np.argsort(((mean[:2] - mean[2]) ** 2).sum(1))[:q]
    mean[2] = share * mean[2] + (1 - share) * mean[near].mean(0)
    spread[2] = np.mean([*spread[near], spread[2]], 0) + alpha * np.eye(2)
    return np.concatenate([mean.ravel(), spread.ravel()])


def moments(g):
    return np.concatenate([np.ravel(g.mean), np.ravel(g.covariance)])


RCAL = "numpy f64 oracle of arXiv:2211.10955"
TAIL = np.array([False, False, True])
RCAL_ROWS = [
    *[
        Golden(
            weighting.class_gaussian_recovery,
            (Z, OF),
            {"classes": 3, **hyper},
            np.concatenate([x.ravel() for x in gaussians(hyper.get("trim", 0.0))]),
            RCAL,
            pick=moments,
            atol=1e-6,
        )
        for hyper in ({}, {"trim": 0.25})
    ],
    *[
        Golden(
            weighting.class_gaussian_recovery,
            (Z, OF),
            {"classes": 3, "tail": TAIL, **dict(zip(WORDS, values, strict=True))},
            leaning(*values),
            RCAL,
            pick=moments,
            atol=1e-6,
        )
        for WORDS in [("trim", "q", "share", "alpha")]
        for values in ((0.0, 1, 0.5, 0.0), (0.25, 2, 0.25, 0.125))
    ],
    Golden(
        weighting.rcal_sample_features,
        (
            weighting.ClassGaussians(
                np.float32([[1, 2], [-3, 0.5]]),
                np.zeros((2, 2, 2), np.float32),
                np.float32([5, 3]),
            ),
        ),
        {"key": KEY, "samples": 3},
        [[[1, 2]] * 3, [[-3, 0.5]] * 3],
        "by hand from arXiv:2211.10955: no spread",
        pick=lambda drawn: drawn.features,
    ),
    Golden(
        weighting.rcal_sample_features,
        (
            weighting.ClassGaussians(
                np.float32([[1, 2], [-3, 0.5]]),
                np.float32([[[2.0, 0.5], [0.5, 1.0]], [[0.25, 0.0], [0.0, 4.0]]]),
                np.float32([5, 3]),
            ),
        ),
        {"key": KEY, "samples": 40000},
        [[1, 2, 2.0, 0.5, 1.0], [-3, 0.5, 0.25, 0.0, 4.0]],
        "by hand from arXiv:2211.10955: its own moments",
        pick=lambda drawn: [
            [*x.mean(0), *np.cov(np.asarray(x).T)[np.triu_indices(2)]]
            for x in drawn.features
        ],
        atol=0.06,  # about three standard errors of 40000 draws
    ),
]

# --- mixture proportions --------------------------------------------------------------

F = np.array([0.5, 1.25, -0.75, 2.0, 1.5, 0.0, 2.5, 0.25, 3.0, 1.0], np.float32)
H = np.array([1.125, 2.25, 1.75, 2.75, 0.875], np.float32)


def mixture_proportion(f, h, mass):
    ratios = [
        (f >= t).mean() / (h >= t).mean() for t in h if (h >= t).mean() >= mass - 1e-9
    ]
    return min(ratios)


MPE = "numpy f64 oracle of arXiv:2306.01253"
KEPT = np.array([1, 1, 0, 1, 1, 0, 1, 1, 0, 1], np.float32)

MPE_ROWS = [
    *[
        Golden(
            weighting.mixture_proportion,
            (F, H),
            {"mass": mass},
            mixture_proportion(F, H, mass),
            f"{MPE}, eq. 2",
        )
        for mass in (0.15, 0.5, 0.75)
    ],
    Golden(
        weighting.mixture_proportion,
        (F, H),
        {"mass": 0.3, "where": KEPT > 0},
        mixture_proportion(F[KEPT > 0], H, 0.3),
        f"{MPE}, eq. 2",
    ),
    Golden(
        weighting.subsampling_mpe,
        (
            KEPT,
            lambda keep: weighting.mixture_proportion(F, H, mass=0.3, where=keep),
        ),
        {"key": KEY},
        0.7 * mixture_proportion(F[KEPT > 0], H, 0.3),
        f"{MPE}, algorithm 1",
    ),
    Golden(
        weighting.subsampling_mpe,
        (
            np.ones(10, np.float32),
            lambda keep: weighting.mixture_proportion(F, H, mass=0.5, where=keep),
        ),
        {"key": KEY},
        mixture_proportion(F, H, 0.5),
        f"{MPE}, algorithm 1",
    ),
]

ROWS = [*ERROR_ROWS, *CURVE_ROWS, *DRAW_ROWS, *DRW_ROWS, *RCAL_ROWS, *MPE_ROWS]
