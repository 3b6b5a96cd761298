"""Leaf by leaf merges of three small models: mergekit's numbers, and oracles."""

import numpy as np

from jaxtricks import merging
from tests import oracles as oracle
from tests.case import Golden
from tests.merging.golden import BASE, TREES, WEIGHTS, _f64, _stack, flat

_masks = np.random.default_rng(32)
MASKS = [
    {key: _masks.random(leaf.shape) < 0.6 for key, leaf in BASE.items()} for _ in TREES
]
ONES = (1.0, 1.0, 1.0)
MERGEKIT = "mergekit 0.1.5 merge_tensors in float64"
SHOEMAKE = "Animating rotation with quaternion curves"
# Sums of a few entries near 2, each rounded to f32.
ROUNDING = 5e-7

# Leaf "a" of seven entries, then "b" of eight.
NUMBERS = {
    "arcee_fusion": [
        *(1.162008166, -0.9377563596, 1.776099682, 1.202389836, -0.5999578238),
        *(0.6601663232, 0.4447673857, -0.5698776245, 0.2639148831, 0.6071282625),
        *(-0.9721598029, 0.7676642537, 0.2550581098, 0.782979846, 0.2724182308),
    ],
    "breadcrumbs": [
        *(1.306930184, -1.673383415, 1.215411782, 0.8545858264, -0.5999578238),
        *(0.6601663232, 0.1982449442, -0.9219410419, -0.1964626387, 0.1681335866),
        *(-0.7197629809, 0.8947556019, 0.2550581098, 0.9215331674, 0.2724182308),
    ],
    "breadcrumbs_ties": [
        *(1.277962908, -0.9377563596, 1.71295352, 0.994888175, -0.2955182957),
        *(0.4574848821, 0.1893366229, -0.7041971605, -0.03719378235, 0.4521160653),
        *(-0.7507101035, 0.9509569727, 0.1074568967, 0.868492239, 0.1019671533),
    ],
    "dare_l1": [
        *(1.282686052, -0.9545491559, 1.692055692, 1.110176251, -0.5589109021),
        *(-0.1360672024, 0.5116490212, -0.8741940147, -0.1330590652, 0.3224737699),
        *(-0.9794132579, 0.7991605979, 0.0275092873, 0.782979846, 0.07643001154),
    ],
    "dare_ties_l1": [
        *(1.294621227, -0.9857357778, 1.535973996, 1.014198846, -0.3067655265),
        *(-0.2148155731, 0.5812605194, -0.7753748794, -0.2038540565, 0.3812119986),
        *(-1.006597873, 0.9926381409, -0.04045984149, 0.782979846, 0.00411388278),
    ],
    "della_l1": [
        *(1.294621227, -0.9857357778, 1.535973996, 1.014198846, -0.3067655265),
        *(-0.2148155731, 0.5812605194, -0.7753748794, -0.2038540565, 0.3812119986),
        *(-1.006597873, 0.9926381409, -0.04045984149, 0.782979846, 0.00411388278),
    ],
    "della_linear_l1": [
        *(1.282686052, -0.9545491559, 1.692055692, 1.110176251, -0.5589109021),
        *(-0.1360672024, 0.5116490212, -0.8741940147, -0.1330590652, 0.3224737699),
        *(-0.9794132579, 0.7991605979, 0.0275092873, 0.782979846, 0.07643001154),
    ],
    "della_none": [
        *(1.315435708, -0.9646269679, 1.641618609, 1.119006991, -0.4726499319),
        *(0.5213049948, 0.5188882649, -0.6111584107, 0.003965310752, 0.4607967039),
        *(-0.9436117411, 0.9549942613, 0.0410822928, 0.782979846, 0.07814697921),
    ],
    "karcher": [
        *(1.219529284, -1.199135846, 1.602013491, 1.083194904, -0.5805633594),
        *(0.6043238765, 0.4168964495, -0.6242441339, 0.1110587626, 0.4688235486),
        *(-0.900332661, 0.8939614533, 0.1713124538, 0.8629768915, 0.2332047545),
    ],
    "karcher_one": [
        *(1.219529284, -1.199135846, 1.602013491, 1.083194904, -0.5805633594),
        *(0.6043238765, 0.4168964495, -0.6242441339, 0.1110587626, 0.4688235486),
        *(-0.900332661, 0.8939614533, 0.1713124538, 0.8629768915, 0.2332047545),
    ],
    "model_stock": [
        *(1.182785554, -1.042716712, 1.696996608, 1.149050284, -0.5890412756),
        *(0.6337103675, 0.4312387212, -0.5343924883, 0.1650308587, 0.512837038),
        *(-0.9171859483, 0.8398331049, 0.2006790725, 0.8259510975, 0.2463176041),
    ],
    "model_stock_rows": [
        *(1.182785554, -1.042716712, 1.696996608, 1.149050284, -0.5890412756),
        *(0.6337103675, 0.4312387212, -0.5683493694, 0.1408899143, 0.4898173519),
        *(-0.9037649658, 0.7184657713, 0.2921290354, 0.7536857624, 0.2902113812),
    ],
    "multislerp": [
        *(1.219463763, -1.199113334, 1.60210595, 1.083165049, -0.580597887),
        *(0.6043148206, 0.4168401609, -0.6239369402, 0.1112608328, 0.4688130493),
        *(-0.9004684933, 0.8938901531, 0.1715275484, 0.8630002078, 0.2334559742),
    ],
    "multislerp_base": [
        *(1.042903107, -1.495745604, 1.521220904, 0.7473617088, -0.6351842857),
        *(0.4803658107, 0.2005300974, -1.070455627, -0.07853879364, 0.2356976473),
        *(-0.7452177712, 0.9551090956, -0.0271408432, 0.9012903301, 0.1147272188),
    ],
    "nearswap": [
        *(1.161908166, -0.9378563596, 1.775999682, 1.202289836, -0.6000578238),
        *(0.6602663232, 0.4448673857, -0.3954012824, 0.2640148831, 0.6070282625),
        *(-0.9722598029, 0.7675642537, 0.2549581098, 0.783079846, 0.2725182308),
    ],
    "nearswap_far": [
        *(1.062008166, -0.9646269679, 1.676099682, 1.102389836, -0.6346532106),
        *(0.7456963658, 0.5078530312, -0.4953012824, 0.3234364986, 0.5485883355),
        *(-0.99716115, 0.7074255943, 0.2122497112, 0.7901533246, 0.2820901573),
    ],
    "nuslerp": [
        *(1.244243033, -1.160980552, 1.507598315, 1.127866682, -0.5580350841),
        *(0.6671167887, 0.5229965408, -0.5459465996, 0.223818953, 0.497753409),
        *(-0.9755529746, 0.8356354536, 0.2367125327, 0.8603999244, 0.3104391806),
    ],
    "nuslerp_axis": [
        *(1.348216514, -1.290299317, 1.354742035, 1.112366943, -0.5072887783),
        *(0.6283953833, 0.5450106899, -0.5665172149, 0.09100800059, 0.4707081539),
        *(-0.958632086, 0.8954218685, 0.2071041234, 0.8834500697, 0.3339554326),
    ],
    "nuslerp_rows": [
        *(1.348216514, -1.290299317, 1.354742035, 1.112366943, -0.5072887783),
        *(0.6283953833, 0.5450106899, -0.555036086, 0.1768088566, 0.4570862004),
        *(-0.9596145058, 0.9452995774, 0.2276312431, 0.9526792663, 0.3544256319),
    ],
    "peft_dare": [
        *(1.273320079, -0.9601485332, 1.664032121, 1.083262364, -0.5575218598),
        *(0.274172922, 0.5257241279, -1.226541708, -0.4265059394, 0.109067594),
        *(-0.9834782382, 0.8301075896, -0.1372308812, 0.782979846, -0.06271846344),
    ],
    "peft_dare_ties": [
        *(1.217664123, -0.9601485332, 1.664032121, 1.1428261, -0.5575218598),
        *(0.4671696226, 0.4852457568, -0.6723814242, -0.1060962013, 0.4411080397),
        *(-0.9626437823, 0.8301075896, -0.1372308812, 0.782979846, -0.08374573042),
    ],
    "peft_prune": [
        *(1.084050596, -1.385741776, 1.62361778, 1.202389836, -0.5999578238),
        *(0.6601663232, 0.1735927001, -0.8698592126, -0.1503376104, 0.5740318656),
        *(-0.6945232987, 0.7750109255, 0.2550581098, 0.782979846, 0.2724182308),
    ],
    "peft_ties": [
        *(1.222175598, -1.161749068, 1.699858731, 1.049220976, -0.5744962454),
        *(0.4449922562, 0.1735927001, -0.5615493675, 0.0419082325, 0.5075161288),
        *(-0.6945232987, 0.8051302552, 0.1266693128, 0.8106905103, 0.2724182308),
    ],
    "peft_ties_frequency": [
        *(1.041673303, -1.04134762, 1.805392762, 1.049220976, -0.6159509987),
        *(0.5690012634, 0.4435075745, -0.5373630424, 0.08453348242, 0.5406125257),
        *(-0.8390511632, 0.845097369, 0.1266693128, 0.7275585175, 0.2622198522),
    ],
    "peft_ties_negative": [
        *(1.041673303, -1.04134762, 1.805392762, 1.049220976, -0.6508809805),
        *(0.5690012634, 0.1735927001, -0.5373630424, 0.08453348242, 0.5406125257),
        *(-0.8390511632, 0.845097369, 0.1266693128, 0.7275585175, 0.05871985406),
    ],
    "peft_ties_none": [
        *(1.162008166, -0.9377563596, 1.776099682, 1.202389836, -0.5999578238),
        *(0.6601663232, 0.4447673857, -0.4825894535, -0.1516815849, 0.6071282625),
        *(-0.9721598029, 0.8051302552, 0.2550581098, 0.782979846, 0.2724182308),
    ],
    "ram": [
        *(1.21232148, -1.191922247, 1.584548275, 1.073225876, -0.5735229452),
        *(0.5961021185, 0.412007158, -0.6111584107, 0.1104557092, 0.4607967039),
        *(-0.8868452907, 0.8796638648, 0.1706667008, 0.8496673902, 0.2319123894),
    ],
    "ram_epsilon": [
        *(1.234469175, -1.305569887, 1.495755732, 1.028487831, -0.4726499319),
        *(0.464553535, 0.1982449442, -0.6111584107, 0.003965314478, 0.4169008881),
        *(-0.7197629809, 0.965783, 0.04108229652, 0.9215331674, 0.07814697921),
    ],
    "ramplus": [
        *(1.234469175, -1.305569887, 1.495755732, 1.028487831, -0.4497345029),
        *(0.42934322, 0.1538708883, -0.6111584107, 0.003965314478, 0.4169008881),
        *(-0.6743315361, 0.965783, 0.002566635853, 0.9464727745, 0.04317814096),
    ],
    "ramplus_default": [
        *(1.468862063, -1.305569887, 1.341368726, 1.202389836, -0.5999578238),
        *(0.6601663232, 0.4447673857, -0.7473646998, -0.1139000878, 0.6071282625),
        *(-0.7197629809, 0.7676642537, 0.2550581098, 0.782979846, 0.2724182308),
    ],
    "sce": [
        *(1.3571397, -1.283488254, 1.510663279, 1.095766832, -0.4726499319),
        *(0.5373606803, 0.1982449442, -0.6940866196, -0.06837227664, 0.4112644984),
        *(-0.7629959563, 0.9724043779, 0.05466534709, 0.8494565749, 0.07814697921),
    ],
    "sce_select": [
        *(1.462595005, -0.9377563596, 1.389485316, 1.202389836, -0.5999578238),
        *(0.6601663232, 0.4447673857, -0.3953012824, -0.07071255358, 0.6071282625),
        *(-0.7607736414, 0.9726185937, 0.2550581098, 0.782979846, 0.2724182308),
    ],
    "slerp": [
        *(1.244243033, -1.160980552, 1.507598315, 1.127866682, -0.5580350841),
        *(0.6671167887, 0.5229965408, -0.5459465996, 0.223818953, 0.497753409),
        *(-0.9755529746, 0.8356354536, 0.2367125327, 0.8603999244, 0.3104391806),
    ],
    "slerp_third": [
        *(1.166852675, -1.097409094, 1.555015408, 1.112282129, -0.5846110416),
        *(0.6945390599, 0.5188525344, -0.5545799328, 0.2573409431, 0.5153119813),
        *(-0.9839174, 0.7938170172, 0.2288245689, 0.8379621578, 0.3013407179),
    ],
    "task_arithmetic": [
        *(1.157664113, -1.117197751, 1.710826682, 1.080171666, -0.6024952349),
        *(0.5867320379, 0.35820047, -0.5892573817, 0.1028166912, 0.4909141065),
        *(-0.8668310195, 0.8598872725, 0.1554809332, 0.8183947202, 0.1961003212),
    ],
    "ties_l1": [
        *(0.9979195875, -1.248328511, 1.564513694, 1.024035924, -0.5999578238),
        *(0.6601663232, 0.2229199706, -0.7071088911, -0.1059020852, 0.432213922),
        *(-0.6963902525, 0.9435451301, 0.2550581098, 0.9130651426, 0.2724182308),
    ],
}


def _both(name, kwargs, expect, origin, count=3, base=True):
    """Rows of a merge and of its leaf function, on leaf "b"."""
    trees, b = TREES[:count], np.stack([tree["b"] for tree in TREES[:count]])
    of_leaf = dict(kwargs)
    if "mask" in kwargs:
        of_leaf["mask"] = np.stack([mask["b"] for mask in kwargs["mask"]])
    if "base" in kwargs:
        of_leaf["base"] = BASE["b"]
    args = (BASE, trees) if base else (trees,)
    leaf_args = (BASE["b"], b) if base else (b,)
    if count == 1:
        args, leaf_args = (BASE, trees[0]), (BASE["b"], b[0])
    fn, leaf = getattr(merging, name), getattr(merging, f"{name}_leaf")
    b_only = np.reshape(expect[7:], (2, 4))
    return [
        Golden(fn, args, kwargs, expect, origin, flat, atol=ROUNDING),
        Golden(leaf, leaf_args, of_leaf, b_only, origin, atol=ROUNDING),
    ]


def _mergekit(numbers, method, paper, name, kwargs, count=3, base=True):
    origin = f"{MERGEKIT} {method}, {paper}"
    return _both(name, kwargs, NUMBERS[numbers], origin, count, base)


def _peft(numbers, paper, name, kwargs):
    origin = f"peft 0.21.2 merge_utils in float64, {paper}"
    return _both(name, kwargs, NUMBERS[numbers], origin)


def _on_base(change, scale=1.0):
    """base + scale * change(key), leaf by leaf."""
    parts = [np.ravel(_f64(BASE)[key]) + scale * change(key) for key in "ab"]
    return np.concatenate(parts)


def _masked(key):
    return np.stack([np.ravel(mask[key]) for mask in MASKS])


def _dare(density, weights=ONES, scale=1.0):
    def change(key):
        return np.asarray(weights) @ (_masked(key) * _stack(key)) / density

    return _on_base(change, scale)


def _della(density, epsilon, weights=ONES):
    def change(key):
        rows = _stack(key).reshape(3, *((2, 4) if key == "b" else (1, 7)))
        rank = np.argsort(np.argsort(np.abs(rows), axis=2), axis=2)
        chance = density - epsilon + 2 * epsilon * rank / (rows.shape[2] - 1)
        kept = _masked(key) * np.reshape(rows / chance, (3, -1))
        return oracle.ties(kept, weights, 1.0)

    return _on_base(change)


TASKS, TIES = "arXiv:2212.04089", "arXiv:2306.01708"
DARE, DELLA = "arXiv:2311.03099", "arXiv:2406.11617"
CRUMBS, SCE = "arXiv:2312.06795", "arXiv:2408.07990"
RAM, STOCK = "arXiv:2601.13572", "arXiv:2403.19522"
KARCHER = "arXiv:2603.04972"
SUM = _on_base(lambda key: _stack(key).sum(0))
W = {"weights": WEIGHTS}
MEAN = {"weights": WEIGHTS, "normalize": True}
VOTES = {**MEAN, "consensus": "ties", "divisor": "count"}
ALL = {"gamma": 0.0}

ROWS = [
    *_both("task_arithmetic", {}, SUM, f"numpy f64 oracle of {TASKS}"),
    *_mergekit(
        *("task_arithmetic", "task_arithmetic", TASKS, "task_arithmetic"),
        {**MEAN, "scale": 0.7},
    ),
    *_mergekit(
        *("ties_l1", "ties rescale", TIES, "ties"),
        {**W, "density": 0.5, "rescale": "l1", "scale": 0.7},
    ),
    *_peft("peft_ties", TIES, "ties", {**W, "density": 0.7, "divisor": "count"}),
    *_peft(
        *("peft_ties_negative", TIES, "ties"),
        {"weights": (0.5, -0.4, 1.1), "density": 0.9, "divisor": "count"},
    ),
    *_peft(
        *("peft_ties_frequency", TIES, "ties"),
        {
            "weights": (0.5, -0.4, 1.1),
            "density": 0.9,
            "divisor": "count",
            "sign": "frequency",
        },
    ),
    # int(0.13 * 7) is 0: none of "a" is kept.
    *_peft("peft_ties_none", TIES, "breadcrumbs", {**VOTES, "density": 0.13, **ALL}),
    *_peft("peft_prune", TIES, "breadcrumbs", {**W, "density": 0.4, **ALL}),
    *_peft("peft_dare", DARE, "dare", {**W, "density": 0.6, "mask": MASKS}),
    *_peft("peft_dare_ties", DARE, "dare", {**VOTES, "density": 0.6, "mask": MASKS}),
    *_both(
        "dare",
        {"density": 0.6, "mask": MASKS},
        _dare(0.6),
        f"numpy f64 oracle of {DARE}",
    ),
    *_both(
        "dare",
        {**W, "density": 0.8, "mask": MASKS, "scale": 0.7},
        _dare(0.8, WEIGHTS, 0.7),
        f"numpy f64 oracle of {DARE}",
    ),
    *_mergekit(
        *("dare_l1", "dare_linear", DARE, "dare"),
        {**W, "density": 0.6, "mask": MASKS, "rescale": "l1", "scale": 0.7},
    ),
    *_mergekit(
        *("dare_ties_l1", "dare_ties", DARE, "dare"),
        {
            **MEAN,
            "density": 0.6,
            "mask": MASKS,
            "rescale": "l1",
            "consensus": "ties",
        },
    ),
    *_both(
        "della",
        {"density": 0.6, "mask": MASKS},
        _della(0.6, 0.15),
        f"numpy f64 oracle of {DELLA}",
    ),
    *_both(
        "della",
        {**W, "density": 0.5, "epsilon": 0.3, "mask": MASKS},
        _della(0.5, 0.3, WEIGHTS),
        f"numpy f64 oracle of {DELLA}",
    ),
    *_mergekit(
        *("della_l1", "della", DELLA, "della"),
        {**W, "density": 0.6, "mask": MASKS, "rescale": "l1"},
    ),
    *_mergekit(
        *("della_none", "della", DELLA, "della"),
        {"density": 0.6, "mask": MASKS, "rescale": None},
    ),
    *_mergekit(
        *("della_linear_l1", "della_linear", DELLA, "della"),
        {
            **W,
            "density": 0.6,
            "epsilon": 0.3,
            "mask": MASKS,
            "rescale": "l1",
            "consensus": "linear",
            "normalize": False,
            "scale": 0.7,
        },
    ),
    *_mergekit(
        *("breadcrumbs", "breadcrumbs", CRUMBS, "breadcrumbs"), {"density": 0.5}
    ),
    *_mergekit(
        *("breadcrumbs_ties", "breadcrumbs_ties", CRUMBS, "breadcrumbs"),
        {
            **MEAN,
            "density": (0.5, 0.3, 0.9),
            "gamma": (0.2, 0.3, 0.15),
            "rescale": "l1",
            "consensus": "ties",
            "scale": 0.7,
        },
    ),
    *_mergekit("sce", "sce", SCE, "sce", {}),
    *_mergekit("sce_select", "sce", SCE, "sce", {"select": 0.4}),
    *_mergekit("ram", "ram", RAM, "ram", {}),
    *_mergekit("ram_epsilon", "ram", RAM, "ram", {"epsilon": 0.1}),
    *_mergekit(
        "ramplus", "ramplus_tl", RAM, "ram", {"r": 0.3, "alpha": 0.6, "epsilon": 0.1}
    ),
    *_mergekit(
        "ramplus_default", "ramplus_tl", RAM, "ram", {"r": 0.1, "epsilon": 0.25}
    ),
    *_mergekit("slerp", "slerp", SHOEMAKE, "slerp", {}, 2, False),
    *_mergekit("slerp_third", "slerp", SHOEMAKE, "slerp", {"t": 1 / 3}, 2, False),
    *_mergekit("nuslerp", "nuslerp", "no paper", "nuslerp", {}, 2, False),
    *_mergekit(
        *("nuslerp_rows", "nuslerp", "no paper", "nuslerp"),
        {"base": BASE, "weights": (0.5, 1.1), "rows": True},
        *(2, False),
    ),
    *_mergekit(
        *("nuslerp_axis", "nuslerp", "no paper", "nuslerp"),
        {"base": BASE, "weights": (0.5, 1.1), "rows": 0},
        *(2, False),
    ),
    *_mergekit("multislerp", "multislerp", "no paper", "multislerp", {}, 3, False),
    *_mergekit(
        *("multislerp_base", "multislerp", "no paper", "multislerp"),
        {"base": BASE, **W, "normalize": False},
        *(3, False),
    ),
    *_mergekit("karcher", "karcher", KARCHER, "karcher", {}, 3, False),
    *_mergekit("karcher_one", "karcher", KARCHER, "karcher", {"max_iter": 1}, 3, False),
    *_mergekit("model_stock", "model_stock", STOCK, "model_stock", {}),
    *_mergekit("model_stock_rows", "model_stock", STOCK, "model_stock", {"rows": True}),
    *_mergekit("nearswap", "nearswap", "no paper", "nearswap", {}, 1),
    *_mergekit("nearswap_far", "nearswap", "no paper", "nearswap", {"t": 0.1}, 1),
    *_mergekit("arcee_fusion", "arcee_fusion", "no paper", "arcee_fusion", {}, 1),
]
