"""Methods with one gradient: losses with a memory, and perturbations of weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtricks import sharpness
from tests.case import Case, Inputs
from tests.inputs import CLASSES, logits_and_labels, rng
from tests.losses.cases import logits_labels_index

CROSS_ENTROPY = optax.softmax_cross_entropy_with_integer_labels


def _with_past(data):
    """Logits, labels and the logits of an earlier model."""
    shape = np.shape(data[0])
    return *data, rng(7, *shape).normal(size=shape).astype(np.float32)


logits_labels_past = Inputs(
    make=lambda batch: _with_past(logits_and_labels.make(batch)),
    batched=(True, True, True),
    edges=lambda: {k: _with_past(v) for k, v in logits_and_labels.edges().items()},
    labels=1,
    sharded=(("model",), (), ("model",)),
)
logits_past = Inputs(
    make=lambda batch: logits_labels_past.make(batch)[::2],
    batched=(True, True),
    edges=lambda: {k: v[::2] for k, v in logits_labels_past.edges().items()},
    sharded=(("model",), ("model",)),
)


def eighth_epoch(saf, data, kwargs):
    """The losses once the outputs of every example are known."""
    batch = {key: kwargs.pop(key) for key in ("where", "axis_name") if key in kwargs}
    init, update = saf(**kwargs)
    start = init(20, CLASSES)
    past = rng(43).normal(size=start.logits.shape).astype(np.float32)
    state = sharpness.SafState(
        start.logits + past, jnp.zeros_like(start.epoch) + jnp.array([[4, 5, 6, 7]])
    )
    return update(*data[:2], state, index=data[2], epoch=8, **batch)[0]


def second_model(mesa, data, kwargs):
    logits, labels, past = data
    where = kwargs.pop("where", None)
    init, update = mesa(**kwargs)

    def forward(v):
        return v["scale"] * past

    return update(
        logits,
        labels,
        init({"scale": np.float32(2)}),
        params={"scale": jnp.float32(1)},
        forward=forward,
        epoch=8,
        where=where,
    )[0]


CASES = [
    Case(
        sharpness.trajectory,
        logits_past,
        {"temperature": 2.0},
        smooth=(0, "temperature"),
        bad=[{"temperature": 0.0}],
    ),
    Case(
        sharpness.saf,
        logits_labels_index,
        {"lam": 0.3, "temperature": 5.0, "start": 5.0, "stop": 9.0},
        call=eighth_epoch,
        smooth=(0, "lam", "temperature"),
        limits=[
            ("cross entropy", lambda x, y, _: CROSS_ENTROPY(x, y), {"lam": 0.0}),
            ("before", lambda x, y, _: CROSS_ENTROPY(x, y), {"start": 8.0}),
            ("after", lambda x, y, _: CROSS_ENTROPY(x, y), {"stop": 8.0}),
        ],
        bad=[{"lam": -1.0}, {"temperature": 0.0}, {"lag": 0}],
    ),
    Case(
        sharpness.mesa,
        logits_labels_past,
        {"lam": 0.3, "temperature": 2.0, "beta": 0.75, "start": 5.0, "stop": 9.0},
        call=second_model,
        smooth=(0, "lam", "temperature"),
        limits=[
            ("cross entropy", lambda x, y, _: CROSS_ENTROPY(x, y), {"lam": 0.0}),
            ("before", lambda x, y, _: CROSS_ENTROPY(x, y), {"start": 8.0}),
            ("after", lambda x, y, _: CROSS_ENTROPY(x, y), {"stop": 8.0}),
        ],
        bad=[{"lam": -1.0}, {"temperature": 0.0}, {"beta": 1.5}],
    ),
    Case(
        sharpness.bsam,
        kind="transform",
        tests="tests/sharpness/test_single.py",
        hyper={
            "learning_rate": 0.2,
            "rho": 0.1,
            "examples": 50.0,
            "beta1": 0.8,
            "beta2": 0.9,
            "prior_precision": 2.0,
            "damping": 0.1,
            "init_scale": 0.7,
        },
        static={"key": jax.random.key(3)},
        limits=(
            (
                "without all of it, plain descent",
                optax.sgd(0.2),
                {
                    "rho": 0.0,
                    "examples": np.inf,
                    "beta1": 0.0,
                    "beta2": 1.0,
                    "prior_precision": 0.0,
                    "init_scale": 1.0,
                },
            ),
        ),
        bad=(
            {"rho": -0.1},
            {"examples": 0.0},
            {"beta1": 1.5},
            {"beta2": -1.0},
            {"prior_precision": -1.0},
            {"damping": -1.0},
            {"init_scale": 0.0},
        ),
    ),
    *(
        Case(fn, kind="own", tests="tests/sharpness/test_single.py")
        for fn in (
            sharpness.lora_mgpo,
            sharpness.lora_ggpo,
            sharpness.bim_attack,
            sharpness.transfer_success,
        )
    ),
]
