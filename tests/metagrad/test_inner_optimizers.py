"""Training runs under metagrad.scan with every optimizer of optax, and with our own.

`docs/differentiability.md` says which have a derivative under `lax.scan`; here the same
runs are replayed.
"""

import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.benchmarks import differentiability as bench
from jaxtricks import kernels, metagrad, sharpness
from jaxtricks.optimizers import differentiable
from tests.inputs import rng

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "differentiability.md"
ROW = re.compile(r"^\| `(optax\..+?)` \| .* \| (?:ok|zero), ok \|$", re.MULTILINE)
WORKING = ROW.findall(PAGE.read_text())
SOME = {"optax.adam", "optax.lion", "optax.radam", "optax.contrib.muon"}
SOME |= {"optax.contrib.prodigy", "optax.contrib.schedule_free_adamw"}
STEPS = 4  # two blocks of two
replay = functools.partial(metagrad.scan, policy="replay", branching=2)


def against_differences(after):
    """The slope of a run at 0, and its central differences: from one program."""
    shifts = np.array([0.0, *(side * h for h in bench.STEPS for side in (1, -1))])
    options = {"xla_backend_optimization_level": 0}  # compilation is the cost

    @functools.partial(jax.jit, compiler_options=options)
    def all_of(shifts):
        return jax.lax.map(jax.value_and_grad(after), shifts)

    ends, slopes = map(np.asarray, all_of(shifts))
    up, down = ends[1:].reshape(2, 2).T
    return float(slopes[0]), ((up - down) / (2 * np.array(bench.STEPS))).tolist()


def test_the_page_calls_nearly_all_of_them_ok():
    assert len(WORKING) > 50
    assert set(WORKING) >= SOME


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what optax drops
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in SOME else pytest.mark.slow)
        for name in WORKING
    ],
)
def test_every_optimizer_of_optax(name):
    """By the examples' weights and the rate at once; one input is always zero.

    That is what some have to be repaired for.
    """
    along = rng(120).normal(size=12)

    def after(shift):
        theta = bench.Theta(shift * along, jnp.log(bench.RATE) + shift)
        data = bench.data(zero_column=True)
        return bench.trained(name, differentiable, STEPS, theta, data, replay)

    with jax.enable_x64(True):
        slope, differences = against_differences(after)
    assert bench.verdict(differences, slope) == "ok"


# --- our own within a step ------------------------------------------------------------

HIDDEN = rng(121).normal(size=(6, 4))
LABELS = np.array([0, 3, 2, 4, 1, 1])
HEAD = rng(122).normal(size=(4, 5))


def after_sam(weights, dtype, scan):
    """The loss after four steps of SAM on a blockwise cross entropy."""
    tx = optax.chain(sharpness.sam(0.1), optax.adam(0.1, eps_root=1e-8))

    def losses(head, dtype):
        hidden = jnp.asarray(HIDDEN, dtype)
        return kernels.linear_cross_entropy(hidden, head.astype(dtype), LABELS)

    def step(carry, _):
        head, state = carry

        def grad_fn(head):
            return jax.grad(lambda h: jnp.mean(weights * losses(h, dtype)))(head)

        updates, state = tx.update(grad_fn(head), state, head, grad_fn=grad_fn)
        return (optax.apply_updates(head, updates), state), None

    head = jnp.asarray(HEAD, weights.dtype)
    (head, _), _ = scan(step, (head, tx.init(head)), length=STEPS)
    return jnp.mean(losses(head, weights.dtype))


def test_sam_on_a_blockwise_cross_entropy():
    along = rng(123).normal(size=6)

    def after(shift):
        return after_sam(1 + shift * along, jnp.float64, replay)

    with jax.enable_x64(True):
        slope, differences = against_differences(after)
    assert bench.verdict(differences, slope) == "ok"


def test_matmuls_in_bf16():
    """The gradient of f32, as nearly as bf16 has it."""

    def found(dtype):
        f = functools.partial(after_sam, dtype=dtype, scan=replay)
        return np.asarray(jax.jit(jax.grad(f))(jnp.ones(6)))

    low, wide = found(jnp.bfloat16), found(jnp.float32)
    assert low.dtype == np.float32
    assert 0 < np.linalg.norm(low - wide) < 0.05 * np.linalg.norm(wide)
