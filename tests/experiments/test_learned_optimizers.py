"""Learned optimizers: the networks they train, the learning, the command line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.learned_optimizers import __main__ as command
from experiments.learned_optimizers import training
from jaxtricks import metagrad


def test_at_width_16_maximal_update_differs_in_the_first_zeros_alone():
    plain, mup = (training.network(jax.random.key(0), 16, mup) for mup in (False, True))
    np.testing.assert_array_equal(mup["out"], 0)
    np.testing.assert_array_equal(mup["hidden"], plain["hidden"])
    x = jax.random.normal(jax.random.key(1), (5, training.INPUTS))
    np.testing.assert_array_equal(
        training.logits(plain, x), training.logits(plain, x, mup=True)
    )
    wide = training.network(jax.random.key(0), 64)
    np.testing.assert_allclose(
        training.logits(wide, x), 4 * training.logits(wide, x, mup=True), rtol=1e-6
    )


def test_a_run_cut_into_windows_is_the_run():
    arm = training.arms()["Adam"]
    rate = jnp.float32(0.01)
    first = training.begin(jax.random.key(0), arm, rate)
    whole, losses = training.go_on(first, arm, rate, 6)
    half, before = training.go_on(first, arm, rate, 3)
    again, after = training.go_on(half, arm, rate, 3)
    np.testing.assert_allclose(losses, np.concatenate([before, after]), rtol=1e-5)
    np.testing.assert_allclose(again.params["in"], whole.params["in"], rtol=1e-5)


def test_the_best_rate_is_finite():
    arm = training.arms()["SGD with momentum"]
    assert training.best(arm, [1e-6, 0.1, 1e30], tasks=2) == np.float32(0.1)


@pytest.mark.slow
def test_a_few_updates_teach_a_step_downhill():
    """Of one number: Adam's rate, from 0."""
    learnt = training.learn(training.Arm(training.adam, jnp.float32(0)), updates=40)
    assert 0.01 < float(learnt) < 0.3


@pytest.mark.slow
def test_the_command(capsys, monkeypatch):
    arms = {
        "Adam": training.arms()["Adam"],
        "learned": training.Arm(
            lambda meta: metagrad.learned_optimizer(meta, step_mult=0.03),
            metagrad.init_learned_optimizer(key=jax.random.key(0), layers=0),
        ),
    }
    monkeypatch.setattr(training, "arms", lambda: arms)
    assert command.main(["--quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-4] == "| optimizer | width 16 | width 32 | 200 steps |"
    assert [line.split(" | ")[0] for line in lines[-2:]] == ["| Adam", "| learned"]
    assert all(0 < float(cell) < 3 for cell in lines[-1].strip("| ").split(" | ")[1:])


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--updates", "0"], "--updates: wanted >= 1, came 0"),
        (["--quick", "--save"], "--save: wanted without --quick, came with it"),
    ],
)
def test_bad_input(argv, said, capsys):
    assert command.main(argv) == 2
    assert said in capsys.readouterr().err
