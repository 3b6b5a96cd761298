"""One line for each schedule, and its known relatives in optax as limits."""

import jax.numpy as jnp
import optax

from jaxtricks import schedules
from tests.case import Case

RATES = {"peak": 3e-3, "start": 2e-4, "end": 3e-4}

OWN = "tests/schedules/test_phases.py"

CASES = [
    Case(
        schedules.wsd,
        kind="schedule",
        tests=OWN,
        hyper=RATES,
        static={"total_steps": 90, "warmup_steps": 10, "decay_steps": 30},
        limits=(
            (
                "a linear decay alone",
                optax.linear_schedule(3e-3, 3e-4, 90),
                {"warmup_steps": 0, "decay_steps": 90, "shape": "linear"},
            ),
            (
                "no decay",
                lambda t: jnp.where(t < 90, 3e-3, 3e-4),
                {"warmup_steps": 0, "decay_steps": 0},
            ),
        ),
        bad=(
            {"total_steps": 0},
            {"warmup_steps": 91},
            {"warmup_steps": -1},
            {"decay_steps": 81},
            {"decay_steps": -1},
            {"shape": "cubic"},
            {"end": 0.0},
            {"end": -1.0, "shape": "exponential"},
        ),
    ),
    Case(
        schedules.wsd,
        kind="schedule",
        tests=OWN,
        hyper={**RATES, "end": 0.0},
        static={"total_steps": 90, "shape": "sqrt"},
        limits=(
            (
                "a cosine decay alone",
                optax.cosine_decay_schedule(3e-3, 90),
                {"warmup_steps": 0, "decay_steps": 90, "shape": "cosine"},
            ),
        ),
        name="sqrt",
    ),
    Case(
        schedules.wsd_s,
        kind="schedule",
        tests=OWN,
        hyper=RATES,
        static={"budgets": (40, 60, 90), "warmup_steps": 5, "decay_steps": (10, 4, 9)},
        limits=(
            (
                "one budget is wsd",
                schedules.wsd(3e-3, total_steps=90, start=2e-4, end=3e-4),
                {"budgets": 90, "warmup_steps": None, "decay_steps": None},
            ),
        ),
        bad=(
            {"budgets": ()},
            {"budgets": (40, 40, 90)},
            {"budgets": (0, 60, 90)},
            {"warmup_steps": 41},
            {"decay_steps": (10, 21, 9)},
            {"decay_steps": (36, 4, 9)},
            {"decay_steps": (10, 4)},
            {"shape": "cubic"},
            {"end": 0.0},
        ),
    ),
    Case(
        schedules.infinite,
        kind="schedule",
        tests=OWN,
        hyper={**RATES, "constant": 1e-3},
        static={
            "total_steps": 90,
            "warmup_steps": 10,
            "cooldown_steps": 30,
            "anneal_steps": 20,
        },
        limits=(
            (
                "no constant phase: warmup and exponential decay",
                optax.warmup_exponential_decay_schedule(
                    2e-4, 3e-3, 10, 80, 0.1, end_value=3e-4
                ),
                {"cooldown_steps": 0, "anneal_steps": 80, "constant": 3e-3},
            ),
        ),
        bad=(
            {"warmup_steps": -1},
            {"cooldown_steps": -1},
            {"anneal_steps": 51},
            {"total_steps": 39, "anneal_steps": 0},
            {"anneal_steps": 3, "total_steps": None},
            {"shape": "cubic"},
            {"constant": 0.0},
            {"end": 0.0},
        ),
    ),
    Case(
        schedules.infinite,
        kind="schedule",
        tests=OWN,
        hyper={"peak": 3e-3},
        static={"warmup_steps": 10, "cooldown_steps": 60, "shape": "inverse_sqrt"},
        name="endless",
    ),
    Case(
        schedules.rewarm,
        kind="schedule",
        tests=OWN,
        hyper=RATES,
        static={"budgets": (50, 90), "warmup_steps": 8},
        limits=(
            (
                "one data set is optax's",
                optax.warmup_cosine_decay_schedule(2e-4, 3e-3, 8, 90, 3e-4),
                {"budgets": 90},
            ),
            (
                "no warmup is optax's cosine",
                optax.cosine_decay_schedule(3e-3, 90, alpha=0.1),
                {"budgets": (90,), "warmup_steps": 0},
            ),
        ),
        bad=({"budgets": (90, 50)}, {"warmup_steps": 41}, {"warmup_steps": -1}),
    ),
    Case(
        schedules.uba,
        kind="schedule",
        tests=OWN,
        hyper={**RATES, "phi": 0.6},
        static={"budgets": (50, 90), "warmup_steps": 8},
        limits=(
            (
                "phi 2 is cosine",
                optax.cosine_decay_schedule(3e-3, 90, alpha=0.1),
                {"budgets": 90, "warmup_steps": 0, "phi": 2.0},
            ),
            (
                "phi 0 drops at the end",
                lambda t: jnp.where(t < 90, 3e-3, 3e-4),
                {"budgets": 90, "warmup_steps": 0, "phi": 0.0},
            ),
        ),
        bad=(
            {"budgets": (50, 50)},
            {"warmup_steps": 51},
            {"phi": -1},
            {"peak": (1.0, 2.0, 3.0)},
        ),
    ),
]
