"""Numbers for the losses: formulas in numpy f64, and the authors' code where it runs.

Inputs are multiples of 1/32, so that f32 and f64 hold the same numbers.
"""

import numpy as np

from jaxtricks import losses
from tests.case import Golden
from tests.oracles import log_softmax, numbers, one_hot

LOGITS = np.array(
    [
        [1.3125, -0.71875, 0.40625, 2.1875],
        [-0.15625, 0.90625, -1.84375, 0.53125],
        [2.71875, 0.21875, -0.46875, 1.09375],
        [-1.40625, -0.34375, -2.59375, -0.96875],
        [0.65625, 3.28125, 1.78125, -0.84375],
    ],
    np.float32,
)
LABELS = np.array([3, 0, 1, 1, 2], np.int32)
SOFT = np.array(
    [
        [0.125, 0.25, 0.125, 0.5],
        [0.375, 0.125, 0.1875, 0.3125],
        [0.0625, 0.625, 0.25, 0.0625],
        [0.0, 0.75, 0.125, 0.125],
        [0.5, 0.0, 0.375, 0.125],
    ],
    np.float32,
)
MULTI = np.array([[1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 1, 0]])
MULTI = MULTI.astype(np.float32)
LIVE = np.array([True, False, True, True, False])
# Classes ruled out, never the label's and never one with soft mass.
RULED_OUT = LOGITS.copy()
RULED_OUT[[0, 2, 3, 3, 4], [1, 3, 0, 2, 1]] = -np.inf
SOFT_RULED_OUT = np.where(np.isfinite(RULED_OUT), SOFT, 0)
IMPOSSIBLE = np.array([1, 0, 3, 2, 2])  # three of these labels are ruled out
# The largest power whose exponential f32 holds, and the next.
BRINK = np.array([[0.0, 88.5, 30.0], [0.0, 89.0, 30.0]], np.float32)


def log_p_y(logits, labels):
    return np.take_along_axis(log_softmax(logits), labels[..., None], -1)[..., 0]


def where_live(x, where=LIVE):
    return x if where is None else np.where(where, x, 0)


# --- cross entropy and its dials ------------------------------------------------------


def focal(logits, labels, gamma):
    log_p = log_p_y(logits, labels)
    return -((1 - np.exp(log_p)) ** gamma) * log_p


def cross_entropy(logits, targets, label_smoothing=0.0, z_loss=0.0):
    logits = np.asarray(logits, np.float64)
    if targets.ndim < logits.ndim:
        targets = one_hot(targets, logits.shape[-1])
    live = np.isfinite(logits)
    share = live / live.sum(-1, keepdims=True)
    q = (1 - label_smoothing) * targets + label_smoothing * share
    log_p = np.where(live, log_softmax(logits), 0)
    log_z = np.log(np.sum(np.exp(logits), -1))
    return -np.sum(q * log_p, -1) + z_loss * log_z**2


def comp_sum(logits, labels, tau):
    logits = np.asarray(logits, np.float64)
    own = np.take_along_axis(logits, labels[..., None], -1)
    u = np.sum(np.exp(logits - own), -1) - 1  # the label's own term is 1
    return np.log1p(u) if tau == 1 else ((1 + u) ** (1 - tau) - 1) / (1 - tau)


FOCAL = "arXiv:1708.02002, eq. 4"
SHANNON = "ShannonAI/dice_loss_for_NLP@d437bb9"
SMOOTHING = "numpy f64 oracle of arXiv:1512.00567, section 7"
Z_LOSS = "numpy f64 oracle of arXiv:2204.02311, section 5"
COMP_SUM = "numpy f64 oracle of arXiv:2304.07288, the comp-sum family"

CROSS_ENTROPY_ROWS = [
    Golden(
        losses.focal,
        (LOGITS, LABELS),
        {},
        numbers("0.0753303244 1.257587578 2.443163155 0.1691954394 1.219978976"),
        f"{SHANNON}, {FOCAL}",
    ),
    Golden(
        losses.focal,
        (LOGITS, LABELS),
        {"gamma": 0.75},
        numbers("0.2442391331 1.575112374 2.64727432 0.4059260106 1.540182868"),
        f"{SHANNON}, {FOCAL}",
    ),
    Golden(
        losses.focal,
        (RULED_OUT, LABELS),
        {"gamma": 3.5, "where": LIVE},
        where_live(focal(RULED_OUT, LABELS, 3.5)),
        f"numpy f64 oracle of {FOCAL}",
    ),
    Golden(
        losses.focal,
        (RULED_OUT, IMPOSSIBLE),
        {},
        np.where([1, 0, 1, 1, 0], np.inf, focal(RULED_OUT, LABELS, 2.0)),
        f"numpy f64 oracle of {FOCAL}",
    ),
    Golden(
        losses.cross_entropy,
        (LOGITS, LABELS),
        {},
        -log_p_y(LOGITS, LABELS),
        SMOOTHING,
    ),
    *[
        Golden(
            losses.cross_entropy,
            (logits, targets),
            {"label_smoothing": smoothing, "z_loss": z_loss, "where": where},
            where_live(
                cross_entropy(logits, targets, smoothing, z_loss),
                where,
            ),
            origin,
        )
        for logits, targets, smoothing, z_loss, where, origin in (
            (LOGITS, LABELS, 0.125, 0.0, None, SMOOTHING),
            (RULED_OUT, LABELS, 1.0, 0.0, None, SMOOTHING),
            (LOGITS, SOFT, 0.375, 0.0, LIVE, SMOOTHING),
            (RULED_OUT, LABELS, 0.25, 0.0, None, SMOOTHING),
            (RULED_OUT, SOFT_RULED_OUT, 0.25, 0.5, LIVE, SMOOTHING),
            (LOGITS[0], LABELS[0], 0.125, 0.0, None, SMOOTHING),
            (RULED_OUT[3], SOFT_RULED_OUT[3], 0.375, 0.125, None, SMOOTHING),
            (LOGITS, LABELS, 0.0, 1e-4, None, Z_LOSS),
            (LOGITS, SOFT, 0.0, 0.625, None, Z_LOSS),
        )
    ],
    Golden(
        losses.cross_entropy,
        (LOGITS * np.float32(2.0**100), LABELS),
        {},
        -log_p_y(LOGITS * 2.0**100, LABELS),
        SMOOTHING,
    ),
    Golden(
        losses.cross_entropy,
        (RULED_OUT, SOFT),
        {},
        np.where(
            np.any(np.isinf(RULED_OUT) & (SOFT > 0), -1),
            np.inf,
            cross_entropy(RULED_OUT, SOFT_RULED_OUT),
        ),
        SMOOTHING,
    ),
    Golden(
        losses.cross_entropy,
        (RULED_OUT, IMPOSSIBLE),
        {},
        np.where([1, 0, 1, 1, 0], np.inf, -log_p_y(RULED_OUT, LABELS)),
        "by hand from arXiv:1512.00567: -log 0",
    ),
    Golden(losses.comp_sum, (LOGITS, LABELS), {}, -log_p_y(LOGITS, LABELS), COMP_SUM),
    *[
        Golden(
            losses.comp_sum,
            (logits, LABELS),
            {"tau": tau, "where": where},
            where_live(comp_sum(logits, LABELS, tau), where),
            COMP_SUM,
        )
        for logits, tau, where in (
            (LOGITS, 0.0, None),
            (LOGITS, 0.5, LIVE),
            (LOGITS, 0.875, None),
            (LOGITS, 1.0 + 2**-10, None),
            (LOGITS, 1.3125, None),
            (RULED_OUT, 1.6875, LIVE),
            (LOGITS, 2.0, None),
            (RULED_OUT, 3.25, None),
        )
    ],
    # p_y = 0: 1 / (tau - 1) where the loss is bounded, else infinite.
    *[
        Golden(
            losses.comp_sum,
            (RULED_OUT[:1], np.array([1])),
            {"tau": tau},
            [limit],
            COMP_SUM,
        )
        for tau, limit in ((0.5, np.inf), (1.0, np.inf), (1.5, 2.0), (3.0, 0.5))
    ],
    Golden(
        losses.comp_sum,
        (BRINK, np.array([0, 0])),
        {"tau": 0.0},
        [comp_sum(BRINK[:1], np.array([0]), 0.0)[0], np.inf],  # e^89 exceeds f32
        COMP_SUM,
    ),
]


# --- label-distributionally robust ----------------------------------------------------


def softplus(x):
    return np.logaddexp(0, x)


def normalized(logits, how):
    """On the live classes, as (f, live)."""
    live = np.isfinite(logits)
    f = np.where(live, np.asarray(logits, np.float64), 0)
    f = np.where(live, softplus(f), 0) if how == "softplus" else f
    scale = np.sum(np.abs(f), -1, keepdims=True) / live.sum(-1, keepdims=True)
    return (f if how == "none" else f / scale), live


def worst_case(f, live, labels, lam, margin):
    rival = 1 - one_hot(labels, f.shape[-1])
    delta = f - np.take_along_axis(f, labels[..., None], -1) + margin * rival
    lam = np.broadcast_to(lam, f.shape[:-1])
    mean = np.sum(live * np.exp(delta / lam[..., None]), -1) / live.sum(-1)
    return lam * np.log(mean)


def ldr_kl(logits, labels, lam=1.0, margin=2.0, normalize="softplus"):
    return worst_case(*normalized(logits, normalize), labels, lam, margin)


def ldr_kl_by_search(logits, labels, lam, margin):
    """The definition: the maximum over the simplex, by mirror ascent."""
    delta = np.asarray(logits, np.float64)
    delta = delta - np.take_along_axis(delta, labels[..., None], -1)
    delta = delta + margin * (1 - one_hot(labels, 4))
    p = np.full_like(delta, 0.25)
    for _ in range(400):
        p = p * np.exp(0.1 * (delta - lam * np.log(4 * p)))
        p = p / p.sum(-1, keepdims=True)
    return np.sum(p * delta - lam * p * np.log(4 * p), -1)


def aldr_kl(logits, labels, before, lam, alpha, margin, normalize):
    """(losses, the new temperatures), from the official update."""
    f, live = normalized(logits, normalize)
    classes = live.sum(-1)
    p = live * np.exp(log_softmax(np.where(live, f / before[:, None], -np.inf)))
    p = live * (p + 1e-5)
    p = p / p.sum(-1, keepdims=True)
    kl = np.sum(p * np.log(np.where(live, classes[:, None] * p, 1)), -1)
    now = lam - lam * kl / (alpha * np.log(classes))
    price = alpha * np.log(classes) / (2 * lam) * (now - lam) ** 2
    return worst_case(f, live, labels, now, margin) - price, now


EXAMPLES = 7
INDEX = np.array([4, 0, 6, 2, 5], np.int32)
STEPS = (LOGITS, LOGITS * 1.5 - 0.25, LOGITS[[2, 4, 0, 1, 3]] * 0.75)


def three_steps(loss):
    """Losses of the third step, then the whole memory after the first and the third."""
    state = loss.init(EXAMPLES)
    memories = []
    for logits in STEPS:
        values, state = loss.update(logits, LABELS, state, index=INDEX)
        memories.append(state.lam)
    return np.concatenate([values, memories[0], memories[2]])


def three_steps_oracle(lam=1.0, alpha=1.0, margin=1.0, normalize="l1"):
    memory, memories = np.full(EXAMPLES, lam, np.float64), []
    for logits in STEPS:
        values, memory[INDEX] = aldr_kl(
            logits, LABELS, memory[INDEX], lam, alpha, margin, normalize
        )
        memories.append(memory.copy())
    return np.concatenate([values, memories[0], memories[2]])


# A masked example, one out of range, one below it, and one that is there twice.
ODD_INDEX = np.array([3, 1, 9, -2, 1], np.int32)
ODD_LIVE = np.array([False, True, True, True, True])


def odd_places(loss):
    start = loss.init(4)._replace(lam=np.array([0.5, 0.75, 0.875, 0.625], np.float32))
    values, state = loss.update(
        RULED_OUT, LABELS, start, index=ODD_INDEX, where=ODD_LIVE
    )
    return np.concatenate([values, state.lam])


def odd_places_oracle(lam, alpha, margin, normalize):
    before = np.full(5, 0.75)
    values, now = aldr_kl(RULED_OUT, LABELS, before, lam, alpha, margin, normalize)
    values = [0, values[1], np.nan, np.nan, values[4]]
    return np.concatenate([values, [0.5, max(now[1], now[4]), 0.875, 0.625]])


def one_example(loss):
    value, state = loss.update(RULED_OUT[2], LABELS[2], loss.init(2), index=1)
    return np.array([value, *state.lam])


def one_example_oracle(lam, alpha, margin, normalize):
    before = np.array([lam])
    value, now = aldr_kl(
        RULED_OUT[2:3], LABELS[2:3], before, lam, alpha, margin, normalize
    )
    return np.array([value[0], lam, now[0]])


def alone(loss):
    """One class left: no distribution but the uniform one."""
    values, state = loss.update(ALONE, np.array([2]), loss.init(1), index=np.array([0]))
    return np.concatenate([values, state.lam])


LDR = "arXiv:2112.14869"
LDR_CODE = f"Optimization-AI/ICML2023_LDR@732fc85, {LDR}"
LOW = np.array(
    [[-13.5, -15.5, -16.25], [-30.0, -33.5, -31.25], [-20.0, -18.5, -100.0]], np.float32
)
LOW_LABELS = np.array([1, 0, 1], np.int32)
ALONE = np.array([[-np.inf, -np.inf, 1.25]], np.float32)
ALDR_SETTINGS = {"lam": 0.75, "alpha": 2.5, "margin": 0.5}
SOFTPLUS_SETTINGS = {
    "lam": 1.5,
    "alpha": 1.75,
    "margin": 1.25,
    "normalize": "softplus",
}
NONE_SETTINGS = {"lam": 2.0, "alpha": 3.0, "margin": 0.25, "normalize": "none"}

LDR_ROWS = [
    Golden(
        losses.ldr_kl,
        (LOGITS, LABELS),
        {},
        numbers("0.8534199156 2.145010789 2.515108408 0.7452232106 1.839155419"),
        LDR_CODE,
    ),
    Golden(
        losses.ldr_kl,
        (LOGITS, LABELS),
        {"lam": 0.625, "margin": 0.75},
        numbers("-0.1321473865 1.072431244 1.489653718 -0.2171249639 0.8521849446"),
        LDR_CODE,
        atol=2e-7,  # a logarithm near 0
    ),
    Golden(
        losses.ldr_kl,
        (LOGITS, LABELS),
        {"lam": 2.5, "margin": 0.0},
        numbers("-0.7177066492 0.2361953066 0.4953177214 -0.7957454534 -0.0694133049"),
        LDR_CODE,
        atol=2e-7,
    ),
    *[
        Golden(
            losses.ldr_kl,
            (logits, LABELS),
            {"where": where, **hyper},
            where_live(ldr_kl(logits, LABELS, **hyper), where),
            f"numpy f64 oracle of {LDR}",
        )
        for logits, where, hyper in (
            (LOGITS, LIVE, {"lam": 1.25, "margin": 0.5, "normalize": "l1"}),
            (RULED_OUT, None, {"lam": 0.5, "margin": 1.0, "normalize": "l1"}),
            (RULED_OUT, LIVE, {"lam": 1.5, "margin": 1.5, "normalize": "softplus"}),
            (RULED_OUT, None, {"lam": 0.25, "margin": 0.75, "normalize": "none"}),
            (LOGITS, None, {"lam": 4096.0, "margin": 0.5, "normalize": "none"}),
            (LOGITS, None, {"lam": 2**-6, "margin": 0.5, "normalize": "none"}),
        )
    ],
    Golden(
        losses.ldr_kl,
        (LOGITS, LABELS),
        {"lam": 1.5, "margin": 0.5, "normalize": "none"},
        ldr_kl_by_search(LOGITS, LABELS, 1.5, 0.5),
        f"numpy f64 search of the maximum in {LDR}, definition of LDR-KL",
    ),
    Golden(
        losses.ldr_kl,
        (LOW, LOW_LABELS),
        {"margin": 0.25},
        ldr_kl(LOW, LOW_LABELS, margin=0.25),
        f"numpy f64 oracle of {LDR}",
    ),
    # One class left: nothing to confuse it with.
    Golden(
        losses.ldr_kl,
        (ALONE, np.array([2])),
        {"lam": 0.5},
        [0.0],
        f"by hand from {LDR}",
    ),
    Golden(
        losses.aldr_kl,
        (),
        {"alpha": 2.0},
        [0.0, 1.0],
        f"by hand from {LDR}",
        pick=alone,
    ),
    *[
        Golden(
            losses.ldr_kl,
            (RULED_OUT[2], LABELS[2]),
            {"normalize": how},
            ldr_kl(RULED_OUT[2:3], LABELS[2:3], normalize=how)[0],
            f"numpy f64 oracle of {LDR}",
        )
        for how in ("l1", "softplus")
    ],
    *[
        Golden(
            losses.aldr_kl,
            (),
            settings,
            one_example_oracle(**settings),
            f"numpy f64 oracle of {LDR}",
            pick=one_example,
        )
        for settings in (SOFTPLUS_SETTINGS, ALDR_SETTINGS | {"normalize": "l1"})
    ],
    Golden(
        losses.ldr_kl,
        (RULED_OUT, np.array([1, 0, 3, 1, 2])),
        {"normalize": "none"},
        np.where([1, 0, 1, 0, 0], np.inf, ldr_kl(RULED_OUT, LABELS, normalize="none")),
        f"numpy f64 oracle of {LDR}: a label ruled out",
    ),
    Golden(
        losses.aldr_kl,
        (),
        {},
        numbers(
            "1.668318993 1.789386642 2.796749331 -0.06177856126 2.095027564 "
            "0.7733379155 1 0.8956745513 1 0.7729455053 0.7583848688 "
            "0.6289757603 0.5998598615 1 0.7455440628 1 0.348068521 "
            "0.7767268855 0.2028589625"
        ),
        LDR_CODE,
        pick=three_steps,
        atol=4e-7,  # a loss near 0 is a difference of ones
    ),
    Golden(
        losses.aldr_kl,
        (),
        ALDR_SETTINGS,
        numbers(
            "1.118225264 1.354950954 2.316919629 -0.3438796967 1.65793049 "
            "0.6590620981 0.75 0.7005088518 0.75 0.6477715043 0.6393269968 "
            "0.585345521 0.6163858364 0.75 0.6536843202 0.75 0.5476344211 "
            "0.68228064 0.5959195173"
        ),
        LDR_CODE,
        pick=three_steps,
    ),
    Golden(
        losses.aldr_kl,
        (),
        SOFTPLUS_SETTINGS,
        numbers(
            "1.123264703 1.492373982 1.765141031 0.4741036274 1.799295504 "
            "1.462913507 1.5 1.451575461 1.5 1.458493662 1.437845524 "
            "1.43503853 1.449488619 1.5 1.470469498 1.5 1.451414887 "
            "1.468168645 1.466313718"
        ),
        LDR_CODE,
        pick=three_steps,
    ),
    Golden(
        losses.aldr_kl,
        (),
        NONE_SETTINGS,
        three_steps_oracle(**NONE_SETTINGS),
        f"numpy f64 oracle of {LDR}",
        pick=three_steps,
    ),
    *[
        Golden(
            losses.aldr_kl,
            (),
            settings,
            odd_places_oracle(**settings),
            f"numpy f64 oracle of {LDR}",
            pick=odd_places,
        )
        for settings in (SOFTPLUS_SETTINGS, NONE_SETTINGS)
    ],
]


# --- dice -----------------------------------------------------------------------------


def probabilities(logits, activation):
    if activation == "sigmoid":
        return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    return np.exp(log_softmax(logits))


def dice(logits, targets, alpha=0.0, gamma=1.0, squared=False, activation="softmax"):
    """Per example, the sum over classes."""
    p = probabilities(logits, activation)
    y = one_hot(targets, p.shape[-1]) if targets.ndim < p.ndim else targets
    q = (1 - p) ** alpha * p
    mass = q**2 + y**2 if squared else q + y
    return np.sum(1 - (2 * q * y + gamma) / (mass + gamma), -1)


def tversky(logits, targets, alpha=0.5, beta=0.5, gamma=1.0, activation="softmax"):
    p = probabilities(logits, activation)
    y = one_hot(targets, p.shape[-1]) if targets.ndim < p.ndim else targets
    both = p * y + gamma
    return np.sum(1 - both / (both + alpha * p * (1 - y) + beta * (1 - p) * y), -1)


def dice_set(
    logits,
    targets,
    alpha=0.0,
    gamma=1e-4,
    squared=False,
    activation="softmax",
    ratio=None,
):
    """One set of positions: [positions, classes]."""
    p = probabilities(logits, activation)
    y = one_hot(targets, p.shape[-1]) if targets.ndim < p.ndim else targets
    q = (1 - p) ** alpha * p
    loss = 0.0
    for k in range(p.shape[-1]):
        a, b = q[:, k], np.asarray(y[:, k], np.float64)
        if ratio is not None:
            others = np.flatnonzero(b <= 0.5)
            keep = int(ratio * np.sum(b > 0.5))
            kept = others[np.argsort(-a[others])[:keep]]
            kept = np.concatenate([np.flatnonzero(b > 0.5), kept])
            a, b = a[kept], b[kept]
        mass = np.sum(a**2) + np.sum(b**2) if squared else np.sum(a) + np.sum(b)
        loss += 1 - (2 * np.sum(a * b) + gamma) / (mass + gamma)
    return loss


DICE = "arXiv:1911.02855"
DICE_CODE = f"{SHANNON}, {DICE}"
DICE_ORACLE = f"numpy f64 oracle of {DICE}, section 3"
BINARY = LOGITS[:, :1]
BINARY_TARGETS = np.array([[1.0], [0.0], [1.0], [0.0], [1.0]], np.float32)
P_OWN = np.exp(log_p_y(RULED_OUT[:1], LABELS[:1]))[0]
POSITIONS = np.array([True, False, True, True, True])

DICE_ROWS = [
    # The official loss of one example at a time, summed over classes.
    Golden(
        losses.dice,
        (LOGITS, LABELS),
        {},
        numbers("0.477602475 0.9851599136 1.045862668 0.6092144277 0.8795050796"),
        DICE_CODE,
    ),
    Golden(
        losses.dice,
        (LOGITS, LABELS),
        {"gamma": 0.5, "squared": True},
        numbers("0.2186689216 0.9481417489 1.163697788 0.3301193123 0.9943702627"),
        DICE_CODE,
    ),
    Golden(
        losses.dice,
        (BINARY, BINARY_TARGETS),
        {"activation": "sigmoid"},
        numbers("0.07606672815 0.3155451641 0.02105969163 0.1644567967 0.1284909159"),
        DICE_CODE,
        atol=1e-7,  # one minus a number near 1
    ),
    Golden(
        losses.self_adjusting_dice,
        (LOGITS, LABELS),
        {"alpha": 1.5, "gamma": 0.5},
        numbers("0.971303694 1.123292532 1.005416195 1.039505264 0.8008876617"),
        DICE_CODE,
    ),
    Golden(
        losses.self_adjusting_dice,
        (LOGITS, LABELS),
        {"alpha": 0.75, "gamma": 0.25, "squared": True},
        numbers("0.5459234363 1.027730473 0.990186787 0.6154592116 0.7947167482"),
        DICE_CODE,
    ),
    Golden(
        losses.self_adjusting_dice,
        (BINARY, BINARY_TARGETS),
        {"alpha": 1.5, "gamma": 0.5, "activation": "sigmoid"},
        numbers("0.5853397037 0.2673166087 0.6507760646 0.2207909215 0.5323836656"),
        DICE_CODE,
    ),
    *[
        Golden(
            fn,
            (logits, targets),
            {**hyper, **({"where": LIVE} if masked else {})},
            where_live(
                oracle(logits, targets, **defaults, **hyper), LIVE if masked else None
            ),
            DICE_ORACLE,
        )
        for fn, oracle, defaults, logits, targets, hyper, masked in (
            (losses.dice, dice, {}, LOGITS, SOFT, {"gamma": 0.25}, True),
            (losses.dice, dice, {}, RULED_OUT, LABELS, {"squared": True}, False),
            (
                losses.dice,
                dice,
                {},
                LOGITS,
                MULTI,
                {"gamma": 0.5, "activation": "sigmoid"},
                True,
            ),
            (
                losses.self_adjusting_dice,
                dice,
                {"alpha": 1.0},
                LOGITS,
                LABELS,
                {},
                False,
            ),
            (
                losses.self_adjusting_dice,
                dice,
                {},
                RULED_OUT,
                SOFT_RULED_OUT,
                {"alpha": 2.5, "gamma": 0.125},
                True,
            ),
            *[
                (fn, dice, {}, LOGITS[3], SOFT[3], {"gamma": 0.5, **hyper}, False)
                for fn, hyper in (
                    (losses.dice, {}),
                    (losses.self_adjusting_dice, {"alpha": 0.5}),
                )
            ],
            (losses.tversky, tversky, {}, LOGITS[3], LABELS[3], {"gamma": 2}, False),
            (losses.tversky, tversky, {}, LOGITS, LABELS, {}, False),
            (
                losses.tversky,
                tversky,
                {},
                LOGITS,
                SOFT,
                {"alpha": 0.25, "beta": 0.875, "gamma": 0.5},
                True,
            ),
            (
                losses.tversky,
                tversky,
                {},
                LOGITS,
                MULTI,
                {"alpha": 0.75, "beta": 0.375, "activation": "sigmoid"},
                False,
            ),
        )
    ],
    # gamma 0: a class with no mass at all counts as lost, not as NaN.
    Golden(
        losses.dice,
        (RULED_OUT[:1], LABELS[:1]),
        {"gamma": 0.0},
        [4 - 2 * P_OWN / (P_OWN + 1)],
        DICE_ORACLE,
    ),
    # The official loss over the set of positions: sigmoid of one class, then softmax,
    # class by class.
    *[
        Golden(
            losses.dice_set,
            (BINARY, BINARY_TARGETS),
            {"activation": "sigmoid", **hyper},
            expect,
            DICE_CODE,
        )
        for hyper, expect in (
            ({}, 0.21073860804672773),
            ({"gamma": 1.0}, 0.18081698235444044),
            ({"gamma": 0.5, "alpha": 1.5}, 0.7663249994393477),
            ({"gamma": 0.5, "squared": True}, 0.07329919526544915),
            ({"positions": POSITIONS}, 0.1455465745525658),
            ({"positions": POSITIONS, "gamma": 1.0}, 0.12343361147429166),
        )
    ],
    *[
        Golden(losses.dice_set, (LOGITS, LABELS), hyper, sum(expect), DICE_CODE)
        for hyper, expect in (
            ({}, (0.8629383006508, 0.7052457415183, 0.7547728677752, 0.4850813054065)),
            (
                {"gamma": 0.5, "alpha": 1.5},
                (0.6353849253806, 0.6817592299707, 0.5847988819152, 0.6251063525152),
            ),
            (
                {"gamma": 0.25, "alpha": 0.75, "squared": True},
                (0.6174788901987, 0.613836164655, 0.5753304627015, 0.4174711510398),
            ),
        )
    ],
    Golden(
        losses.dice_set,
        (
            np.stack([LOGITS, LOGITS[::-1] * 0.5, LOGITS]),
            np.stack([LABELS, LABELS, LABELS]),
        ),
        {"gamma": 0.5, "where": np.array([True, True, False])},
        [
            dice_set(LOGITS, LABELS, gamma=0.5),
            dice_set(LOGITS[::-1] * 0.5, LABELS, gamma=0.5),
            0,
        ],
        DICE_ORACLE,
    ),
    *[
        Golden(
            losses.dice_set,
            (LOGITS, targets),
            {"hard_negatives": ratio, **hyper},
            dice_set(LOGITS, targets, ratio=ratio, **hyper),
            DICE_ORACLE,
        )
        for targets, ratio, hyper in (
            (LABELS, 1.0, {}),
            (SOFT, 1.0, {"gamma": 0.5}),
            (SOFT, 2.0, {"gamma": 0.5}),
            (LABELS, 2.0, {"gamma": 0.5}),
            (LABELS, 1.5, {"gamma": 0.5, "alpha": 0.5}),
            (MULTI, 0.5, {"gamma": 0.25, "activation": "sigmoid", "squared": True}),
            (MULTI, 0.0, {"activation": "sigmoid"}),
        )
    ],
    Golden(
        losses.dice_set,
        (LOGITS, MULTI),
        {"hard_negatives": 1.0, "activation": "sigmoid", "positions": POSITIONS},
        dice_set(LOGITS[POSITIONS], MULTI[POSITIONS], activation="sigmoid", ratio=1.0),
        DICE_ORACLE,
    ),
]

ROWS = [*CROSS_ENTROPY_ROWS, *LDR_ROWS, *DICE_ROWS]
