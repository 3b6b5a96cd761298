"""What holds for every schedule: exact ends, exact steps, traced counts, errors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks import schedules
from jaxtricks.schedules._phases import SHAPES
from tests.free.common import as_users_see_it, assert_close

# Values whose sums and products round, so that an end reached by luck does not pass.
PEAK, START, END = 0.0031415926, 0.00012345679, 0.00027182818


def f32(x):
    return np.float32(x)


def multipliers(x):
    """Shape -> value from 1 to 0 (to 0.2 for the two that need a positive end)."""
    cosine = (1 + np.cos(np.pi * x)) / 2
    root = 1 / np.sqrt(1 + 10 * x) - 1
    return {
        "cosine": cosine,
        "exponential": 0.2**x,
        "inverse": 1 / ((1 - x) + x / 0.2),
        "inverse_sqrt": 1 - root / (1 / np.sqrt(11) - 1),
        "linear": 1 - x,
        "lowered_linear": 0.7 * (1 - x),
        "mirror_cosine": 2 * (1 - x) - cosine,
        "sqrt": 1 - np.sqrt(x),
        "square": 1 - x**2,
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_a_decay_has_its_formula_and_starts_where_it_should(shape):
    end = 0.2 if shape in ("inverse", "exponential") else 0.0
    schedule = schedules.wsd(
        1.0, total_steps=50, warmup_steps=10, decay_steps=20, shape=shape, end=end
    )
    t = np.arange(55)
    want = np.where(t < 10, t / 10, 1.0)
    x = np.clip((t - 30) / 20, 0, 1)
    want = np.where(t >= 30, multipliers(x)[shape], want)
    assert_close(schedule(t), np.where(t >= 50, end, want))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("warmup", [0, 7])
def test_the_ends_of_every_phase_are_exact(shape, warmup):
    schedule = jax.jit(
        schedules.wsd(
            PEAK,
            total_steps=100,
            warmup_steps=warmup,
            decay_steps=30,
            shape=shape,
            start=START,
            end=END,
        )
    )
    stable = np.asarray(jax.vmap(schedule)(np.arange(warmup, 70)))
    assert (stable == f32(PEAK)).all()
    assert (np.asarray(schedule(np.array([100, 101, 10**9]))) == f32(END)).all()
    assert schedule(0) == f32(START if warmup else PEAK)
    if shape != "lowered_linear":
        assert schedule(70) == f32(PEAK)


def test_the_ends_of_the_others_are_exact():
    schedule = schedules.infinite(
        PEAK,
        warmup_steps=10,
        cooldown_steps=20,
        total_steps=90,
        anneal_steps=25,
        start=START,
        constant=0.0012345678,
        end=END,
    )
    for step, value in {0: START, 10: PEAK, 90: END, 10**9: END}.items():
        assert schedule(step) == f32(value)
    assert all(schedule(t) == f32(0.0012345678) for t in range(30, 66))
    schedule = schedules.rewarm(
        PEAK, budgets=(40, 90), warmup_steps=10, start=START, end=END
    )
    for step, value in {0: START, 10: PEAK, 40: END, 50: PEAK, 90: END}.items():
        assert schedule(step) == f32(value)
    schedule = schedules.uba(
        (PEAK, 0.002), budgets=(40, 90), warmup_steps=10, start=START, end=END
    )
    for step, value in {0: START, 10: PEAK, 40: 0.002, 90: END}.items():
        assert schedule(step) == f32(value)


def test_the_defaults_are_shares_of_the_budget_and_of_the_peak():
    t = np.arange(1010)
    got = schedules.wsd(PEAK, total_steps=1000)(t)
    spelled = {"warmup_steps": 10, "start": 0.0, "end": PEAK / 10}
    want = schedules.wsd(PEAK, total_steps=1000, decay_steps=100, **spelled)
    assert_close(got, want(t))
    got = schedules.wsd_s(PEAK, budgets=(1000, 1500))(t)
    want = schedules.wsd_s(
        PEAK, budgets=(1000, 1500), decay_steps=(100, 150), **spelled
    )
    assert_close(got, want(t))
    got = schedules.rewarm(PEAK, budgets=(600, 1000), warmup_steps=None)(t)
    first = schedules.rewarm(PEAK, budgets=600, **{**spelled, "warmup_steps": 6})
    second = {"warmup_steps": 4, "start": PEAK / 10, "end": PEAK / 10}
    second = schedules.rewarm(PEAK, budgets=400, **second)
    assert_close(got, np.where(t < 600, first(t), second(t - 600)))
    plain = {"warmup_steps": 10, "cooldown_steps": 100, "total_steps": 1000}
    got = schedules.infinite(PEAK, **plain)(t)
    spelled = {**spelled, "constant": 0.55 * PEAK, "anneal_steps": 100}
    assert_close(got, schedules.infinite(PEAK, **{**plain, **spelled})(t))


def test_a_run_may_be_one_step():
    for schedule in (
        schedules.wsd(PEAK, total_steps=1),
        schedules.rewarm(PEAK, budgets=1),
        schedules.uba(PEAK, budgets=1, end=PEAK / 10),
    ):
        assert schedule(0) == f32(PEAK)
        assert_close(schedule(1), PEAK / 10)


def test_long_runs_count_every_step():
    """At 1.6e9 steps, where f32 numbers are 128 apart, a decay still moves."""
    total = 1_600_000_000
    schedule = schedules.wsd(
        1.0, total_steps=total, warmup_steps=5, decay_steps=100, shape="linear", end=0.0
    )
    t = np.arange(total - 100, total + 1, dtype=np.int32)
    assert_close(schedule(t), (total - t) / 100)
    ten_million = schedules.wsd(
        1.0, total_steps=10**7, decay_steps=10**6, shape="linear", end=0.0
    )
    t = np.arange(10**7 - 10, 10**7 + 1, dtype=np.int32)
    assert np.abs(ten_million(t) - np.arange(10, -1, -1) / 1e6).max() < 1e-7


def families():
    return {
        "wsd": (
            lambda **kw: schedules.wsd(1.0, **kw),
            {"total_steps": 60, "warmup_steps": 9, "decay_steps": 21},
        ),
        "wsd_s": (
            lambda first, last, **kw: schedules.wsd_s(1.0, budgets=(first, last), **kw),
            {"first": 31, "last": 60, "warmup_steps": 9, "decay_steps": 8},
        ),
        "infinite": (
            lambda **kw: schedules.infinite(1.0, **kw),
            {
                "total_steps": 60,
                "warmup_steps": 9,
                "cooldown_steps": 21,
                "anneal_steps": 12,
            },
        ),
        "rewarm": (
            lambda first, last, **kw: schedules.rewarm(
                1.0, budgets=(first, last), **kw
            ),
            {"first": 31, "last": 60, "warmup_steps": 9},
        ),
        "uba": (
            lambda first, last, **kw: schedules.uba(1.0, budgets=(first, last), **kw),
            {"first": 31, "last": 60, "warmup_steps": 9},
        ),
    }


@pytest.mark.parametrize("name", families())
def test_step_counts_may_be_traced(name):
    make, counts = families()[name]
    t = np.arange(70)
    want = make(**counts)(t)
    assert_close(jax.jit(lambda counts: make(**counts)(t))(counts), want)
    several = {key: jnp.array([n, n]) for key, n in counts.items()}
    assert_close(jax.vmap(lambda counts: make(**counts)(t))(several)[1], want)


@pytest.mark.parametrize("name", families())
def test_real_step_counts_have_derivatives(name):
    """Where to turn is a number too: at half steps, equal to central differences."""
    make, counts = families()[name]
    t = np.arange(70) + 0.5
    with jax.enable_x64(True):
        counts = {key: jnp.asarray(float(n)) for key, n in counts.items()}
        values = jax.jit(lambda counts: make(**counts)(t))
        slopes = jax.jacfwd(values)(counts)
        for key in counts:
            up = values({**counts, key: counts[key] + 1e-6})
            down = values({**counts, key: counts[key] - 1e-6})
            assert_close(slopes[key], (up - down) / 2e-6, rtol=1e-6, what=key)


@pytest.mark.parametrize("shape", SHAPES)
def test_zero_stays_zero_with_finite_derivatives(shape):
    def curve(peak):
        return schedules.wsd(peak, total_steps=40, decay_steps=20, shape=shape)(t)

    t = np.arange(45)
    assert (np.asarray(curve(0.0)) == 0).all()
    assert np.isfinite(jax.jacfwd(curve)(0.0)).all()
    assert np.isfinite(jax.jacfwd(jax.jacfwd(curve))(0.0)).all()
    endless = schedules.infinite(0.0, warmup_steps=5, cooldown_steps=9, total_steps=40)
    assert (np.asarray(endless(t)) == 0).all()


def test_a_shape_may_be_a_function():
    def schedule(shape):
        return schedules.wsd(1.0, total_steps=50, shape=shape, end=0.0)

    t = np.arange(60)
    assert_close(schedule(lambda x: 1 - x * x)(t), schedule("square")(t))
    slope = jax.grad(lambda c: schedule(lambda x: c * (1 - x))(46))(0.7)
    assert_close(slope, 0.8)


def test_wsd_s_resumes_the_peak_and_keeps_each_decay():
    schedule = schedules.wsd_s(
        1.0, budgets=(20, 50), warmup_steps=4, decay_steps=(5, 10), end=0.25
    )
    t = np.arange(50)
    first = schedules.wsd(1.0, total_steps=20, warmup_steps=4, decay_steps=5, end=0.25)
    second = schedules.wsd(
        1.0, total_steps=50, warmup_steps=0, decay_steps=10, end=0.25
    )
    assert_close(schedule(t), np.where(t < 20, first(t), second(t)))


def test_infinite_without_a_budget_never_ends():
    schedule = schedules.infinite(1.0, warmup_steps=10, cooldown_steps=20, constant=0.3)
    ended = schedules.infinite(
        1.0, warmup_steps=10, cooldown_steps=20, constant=0.3, total_steps=500
    )
    t = np.arange(451)
    assert_close(schedule(t), ended(t))
    assert schedule(10**9) == f32(0.3)


def test_uba_falls_the_earlier_the_larger_phi():
    curves = [
        np.asarray(schedules.uba(1.0, budgets=60, phi=phi)(np.arange(61)))
        for phi in (0.25, 1.0, 2.0, 10.0)
    ]
    for high, low in itertools.pairwise(curves):
        assert (high[1:-1] > low[1:-1]).all()
    assert all((np.diff(curve) < 0).all() for curve in curves)
    assert_close(np.stack(curves)[:, 30], 2 / (2 + np.array([0.25, 1, 2, 10])))


def test_errors_say_what_was_wanted_and_what_came():
    def refuses(what, fn, **kwargs):
        with as_users_see_it(), pytest.raises(ValueError, match=what):
            fn(1.0, **kwargs)

    wsd, wsd_s = schedules.wsd, schedules.wsd_s
    what = "decay_steps: wanted at most 90 steps, came 95"
    refuses(what, wsd, total_steps=100, warmup_steps=10, decay_steps=95)
    what = "end: wanted > 0 for shape inverse, came 0"
    refuses(what, wsd, total_steps=100, end=0)
    what = "shape: wanted one of 'cosine', .*'square', came 'cubic'"
    refuses(what, wsd, total_steps=100, shape="cubic")
    what = r"budgets: wanted positive and increasing, came \(9, 9\)"
    refuses(what, wsd_s, budgets=(9, 9))
