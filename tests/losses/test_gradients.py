"""Gradients of the authors' code, where something is held constant in them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks import losses
from tests.losses.golden import (
    ALDR_SETTINGS,
    EXAMPLES,
    INDEX,
    LABELS,
    LOGITS,
    SOFTPLUS_SETTINGS,
    STEPS,
)
from tests.oracles import numbers

# Optimization-AI/ICML2023_LDR@732fc85 in f64: the second example.


@pytest.mark.parametrize(
    ("settings", "expect"),
    [
        ({}, "-0.676050768 0.3490349576 -0.002756454355 0.1894485509"),
        (
            {"lam": 0.625, "margin": 0.75},
            "-0.6793130276 0.3950142554 -0.0176316814 0.1513926163",
        ),
    ],
)
def test_ldr_kl_differentiates_the_normalization(settings, expect):
    got = jax.grad(losses.ldr_kl)(jnp.asarray(LOGITS[1]), LABELS[1], **settings)
    np.testing.assert_allclose(got, numbers(expect), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("settings", "expect"),
    [
        ({}, "-1.102192645 0.3941185453 -0.1783689666 0.2988655804"),
        (ALDR_SETTINGS, "-1.070451574 0.3618797639 -0.1357009118 0.2882570436"),
        (
            SOFTPLUS_SETTINGS,
            "-0.4772193595 0.2118512069 0.07899499392 0.003273495614",
        ),
    ],
)
def test_aldr_kl_holds_the_temperature_constant(settings, expect):
    """The second example's gradient when it comes for the fourth time."""
    init, update = losses.aldr_kl(**settings)
    state = init(EXAMPLES)
    for logits in STEPS:
        _, state = update(logits, LABELS, state, index=INDEX)

    def loss(logits):
        return update(logits, LABELS[1], state, index=INDEX[1])[0]

    got = jax.grad(loss)(jnp.asarray(STEPS[-1][1]))
    np.testing.assert_allclose(got, numbers(expect), rtol=2e-6, atol=3e-7)
