"""Schedules at every step of a short run, against oracles and the sources' codes."""

import numpy as np

from jaxtricks import schedules
from tests import oracles as oracle
from tests.case import Golden

WSD = "numpy f64 oracle of arXiv:2410.05192 and arXiv:2508.01483"
PEAK = 0.03
EVERY = np.arange(0, 70)
FAR = np.array([0, 1, 7, 8, 9, 100, 1000, 10**6, 2**31 - 1])


def at(steps):
    """The values at `steps`, of one length for all rows, so that little is compiled."""
    padded = np.resize(np.asarray(steps), EVERY.shape)
    return lambda schedule: schedule(padded)[: len(steps)]


def _wsd(origin=WSD, expect=None, steps=EVERY, **kwargs):
    total = kwargs["total_steps"]
    if expect is None:
        warmup = kwargs.get("warmup_steps", total // 100)
        decay = kwargs.get("decay_steps", total // 10)
        rest = {k: v for k, v in kwargs.items() if not k.endswith("_steps")}
        expect = oracle.wsd_s(steps, PEAK, [total], warmup, [decay], **rest)
    args = (schedules.wsd, (PEAK,), kwargs, expect, origin, at(steps))
    return Golden(*args)


def _wsd_s(budgets, warmup, decays, steps=EVERY, **kwargs):
    rest = {k: v for k, v in kwargs.items() if not k.endswith("_steps")}
    expect = oracle.wsd_s(steps, PEAK, budgets, warmup, decays, **rest)
    kwargs = {"budgets": budgets, **kwargs}
    return Golden(schedules.wsd_s, (PEAK,), kwargs, expect, WSD, at(steps))


def _infinite(total, anneal, steps=EVERY, **kwargs):
    phases = kwargs["warmup_steps"], kwargs["cooldown_steps"], total, anneal
    rest = {k: v for k, v in kwargs.items() if not k.endswith("_steps")}
    expect = oracle.infinite(steps, PEAK, *phases, **rest)
    origin = "numpy f64 oracle of arXiv:2403.08763"
    args = (schedules.infinite, (PEAK,), kwargs, expect, origin, at(steps))
    return Golden(*args)


def _rewarm(budgets, warmups, steps=EVERY, **kwargs):
    rest = {k: v for k, v in kwargs.items() if k in ("start", "end")}
    marks = budgets if isinstance(budgets, tuple) else (budgets,)
    expect = oracle.rewarm(steps, PEAK, marks, warmups, **rest)
    kwargs = {"budgets": budgets, **kwargs}
    origin = "numpy f64 oracle of arXiv:2308.04014 and arXiv:2403.08763"
    return Golden(schedules.rewarm, (PEAK,), kwargs, expect, origin, at(steps))


def _uba(peaks, budgets, steps=EVERY, warmup_steps=0, **kwargs):
    marks = budgets if isinstance(budgets, tuple) else (budgets,)
    each = peaks if isinstance(peaks, tuple) else (peaks,) * len(marks)
    expect = oracle.uba(steps, each, marks, warmup=warmup_steps, **kwargs)
    kwargs = {"budgets": budgets, "warmup_steps": warmup_steps, **kwargs}
    origin = "numpy f64 oracle of arXiv:2505.24452"
    # x is rounded, so 1 - x near 0, and what is left of the peak, has lost digits.
    args = (schedules.uba, (peaks,), kwargs, expect, origin, at(steps))
    return Golden(*args, atol=2e-8 * PEAK)


def _outside(fn, args, kwargs, table, origin):
    """Rows of {step: value} printed by somebody else's code."""
    return Golden(fn, args, kwargs, list(table.values()), origin, at(list(table)))


# Steps, then what the sources' codes give there.
_DECAY = [26, 27, 30, 33, 39, 40, 45]
_LEVANTER = {6: 0.002, 25: 0.002, 27: 0.0012173913043478262, 28: 0.000875}
_LEVANTER |= {33: 0.00036363636363636367, 39: 0.00021374045801526718, 40: 0.0002}
_CYCLES = {4: 0.0016, 11: 0.002, 13: 0.0009411764705882353, 19: 0.00022535211267605634}
_CYCLES |= {20: 0.002, 28: 0.002, 30: 0.0009411764705882353, 31: 0.0006153846153846154}
_CYCLES |= {36: 0.00022535211267605634, 37: 0.002, 51: 0.002, 57: 0.0003018867924528302}
_CYCLES |= {59: 0.00022535211267605634, 60: 0.0002, 63: 0.0002}
_EPFML = {
    "linear": [0.9357142857142857, 0.7428571428571429, 0.55, 0.16428571428571426],
    "cosine": [0.9887175604818206, 0.8305704108364301, 0.55, 0.11128243951817933],
    "mirror_cosine": [
        0.8827110109467509,
        0.6551438748778556,
        0.55,
        0.21728898905324917,
    ],
    "square": [0.9954081632653061, 0.926530612244898, 0.775, 0.2239795918367347],
    "sqrt": [
        0.759464882278818,
        0.5189297645576361,
        0.36360389693210715,
        0.13273829950651164,
    ],
    "exponential": [
        0.848342898244072,
        0.5179474679231212,
        0.31622776601683794,
        0.11787686347935873,
    ],
}
_COSINE_INFINITE = {0: 0, 1: 0.0004, 5: 0.002, 6: 0.00199487455585}
_COSINE_INFINITE |= {13: 0.00169828741674, 29: 0.00070512544415, 30: 0.0007}
_ANNEALING = {80: 0.0007, 81: 0.00063510149933, 90: 0.00026457513111}
_ANNEALING |= {99: 0.00011021860297, 100: 0.0001}
_SQRT_INFINITE = {6: 0.00171180710339, 13: 0.00104699246378, 21: 0.00082301524977}
_SQRT_INFINITE |= {29: 0.00071048990264, 30: 0.0007, 31: 0.0007}
_OPTAX = {0: 0.001, 1: 0.00583333333333, 5: 0.02516666666667, 6: 0.03}
_OPTAX |= {7: 0.02994027846813, 20: 0.01983128186101, 39: 0.00205972153187, 40: 0.002}
_OPTAX_COSINE = {0: 0.03, 1: 0.0299583840054, 10: 0.02604594154602, 20: 0.0165}
_OPTAX_COSINE |= {39: 0.0030416159946, 40: 0.003, 41: 0.003}
MAE = "Pauljanson002/MAE-1@36ed451 infinite_lr, arXiv:2403.08763"
MAE_PHASES = {"warmup_steps": 5, "cooldown_steps": 25}
MAE_PHASES |= {"total_steps": 100, "anneal_steps": 20, "constant": 7e-4, "end": 1e-4}

ROWS = [
    _wsd(total_steps=60),
    _wsd(
        total_steps=300, steps=np.array([0, 1, 2, 3, 4, 269, 270, 271, 299, 300, 301])
    ),
    *(
        _wsd(total_steps=60, warmup_steps=7, decay_steps=20, shape=shape, end=0.004)
        for shape in ("inverse", "exponential", *oracle.SHAPES)
    ),
    _wsd(total_steps=60, warmup_steps=7, decay_steps=53, shape="linear", end=0.0),
    _wsd(total_steps=60, warmup_steps=0, decay_steps=0),
    _wsd(total_steps=60, warmup_steps=5, decay_steps=20, start=0.011),
    Golden(
        schedules.wsd,
        (PEAK,),
        {"total_steps": 60, "decay_steps": 20, "shape": lambda x: (1 - x) ** 3},
        [PEAK, 0.003 + 0.027 * 0.125, 0.003 + 0.027 * 0.05**3, 0.003],
        WSD,
        at([40, 50, 59, 60]),
    ),
    _outside(
        schedules.wsd,
        (0.002,),
        {"total_steps": 40, "warmup_steps": 6, "decay_steps": 14},
        _LEVANTER,
        "marin-community/levanter@9263f81 inv from the second step, arXiv:2410.05192",
    ),
    *(
        _outside(
            schedules.wsd,
            (1.0,),
            {"total_steps": 40, "warmup_steps": 6, "decay_steps": 14, "shape": shape},
            dict(zip(_DECAY, [1.0, *values, 0.1, 0.1], strict=True)),
            "epfml/schedules-and-scaling@17e78d6, arXiv:2508.01483",
        )
        for shape, values in _EPFML.items()
    ),
    _wsd_s((20, 37, 60), 0, [2, 3, 6]),
    _wsd_s((20, 37, 60), 5, [8, 8, 8], warmup_steps=5, decay_steps=8, start=0.002),
    _wsd_s(
        (20, 37, 60),
        3,
        [4, 17, 1],
        warmup_steps=3,
        decay_steps=(4, 17, 1),
        shape="sqrt",
        end=0.007,
    ),
    _wsd_s(
        (250, 400),
        2,
        [25, 40],
        steps=np.array([0, 1, 2, 3, 224, 225, 226, 249, 250, 359, 360, 361, 399, 400]),
    ),
    _outside(
        schedules.wsd_s,
        (0.002,),
        {"budgets": (20, 37, 60), "warmup_steps": 5, "decay_steps": 8},
        _CYCLES,
        "marin-community/levanter@9263f81 inv with cycles, arXiv:2410.05192",
    ),
    _infinite(None, 0, warmup_steps=6, cooldown_steps=20),
    _infinite(None, 0, warmup_steps=6, cooldown_steps=20, steps=FAR, constant=0.002),
    _infinite(60, 6, warmup_steps=6, cooldown_steps=20, total_steps=60, start=0.004),
    *(
        _infinite(
            60,
            13,
            warmup_steps=6,
            cooldown_steps=20,
            total_steps=60,
            anneal_steps=13,
            shape=shape,
            constant=0.011,
            end=0.0004,
        )
        for shape in ("cosine", "inverse_sqrt", "linear", "inverse")
    ),
    _infinite(
        60, 34, warmup_steps=0, cooldown_steps=26, total_steps=60, anneal_steps=34
    ),
    _outside(
        schedules.infinite,
        (0.002,),
        MAE_PHASES,
        _COSINE_INFINITE | _ANNEALING,
        MAE,
    ),
    _outside(
        schedules.infinite,
        (0.002,),
        {**MAE_PHASES, "shape": "inverse_sqrt"},
        _SQRT_INFINITE | _ANNEALING,
        MAE,
    ),
    _rewarm(60, [0]),
    _rewarm((20, 60), [5, 5], warmup_steps=5, start=0.001, end=0.002),
    _rewarm((20, 37, 60), [0, 0, 0], warmup_steps=0),
    _rewarm(
        (200, 700),
        [2, 5],
        steps=np.array([0, 1, 2, 3, 199, 200, 201, 204, 205, 206, 500, 699, 700, 701]),
    ),
    _outside(
        schedules.rewarm,
        (0.03,),
        {"budgets": 40, "warmup_steps": 6, "start": 0.001, "end": 0.002},
        _OPTAX,
        "optax 0.2.8 warmup_cosine_decay_schedule, arXiv:2308.04014",
    ),
    _uba(PEAK, 60),
    _uba(PEAK, 60, phi=0.25, warmup_steps=9, start=0.004, end=0.001),
    _uba(PEAK, (20, 37, 60), phi=5.0),
    _uba((0.03, 0.02, 0.05), (20, 37, 60), phi=0.7, warmup_steps=4, end=0.0005),
    _uba(PEAK, 60, phi=0.0),
    _outside(
        schedules.uba,
        (0.03,),
        {"budgets": 40, "phi": 2.0, "end": 0.003},
        _OPTAX_COSINE,
        "optax 0.2.8 cosine_decay_schedule is phi = 2 of arXiv:2505.24452",
    ),
]
