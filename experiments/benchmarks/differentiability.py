"""Which optimizers can be differentiated through: all of them against differences.

`python -m experiments.benchmarks.differentiability` trains a small softmax regression
for a few steps with every optimizer of optax, optax.contrib, jaxtricks.optimizers,
jaxtricks.sharpness and jaxtricks.metagrad, in float64. It differentiates the loss
afterwards by the logarithms of the examples' weights (along one direction) and of the
learning rate, and compares with central finite differences: as the optimizer stands,
and inside `optimizers.differentiable`; on generic data, and with one column of inputs
that is zero, so that a row of weights has a gradient of exactly zero. It writes
docs/differentiability.md, or prints the lines of the optimizers named by `--only`.
"""

import functools
import importlib
import inspect
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from jaxtricks import metagrad, optimizers
from jaxtricks.optimizers import differentiable


@dataclass(frozen=True)
class Config:
    """Which optimizers can be differentiated through: all against differences."""

    only: tuple[str, ...] = ()
    """Names, as optax.adam or optax.contrib.muon, whose lines are printed; no page."""
    out: Path = Path("docs/differentiability.md")
    """The page to write."""
    steps: int = 8
    """Of training."""
    workers: int = 2
    """Programs compiled at once."""


COMMAND = "python -m experiments.benchmarks.differentiability"
FAMILIES = (
    "optax",
    "optax.contrib",
    "jaxtricks.optimizers",
    "jaxtricks.sharpness",
    "jaxtricks.metagrad",
)
RATE = 0.1
STEPS = 1e-5, 1e-3  # of the differences; galore computes in f32, which 1e-5 shows
ENOUGH, ROUNDING = 1e-3, 1e-9  # a relative and an absolute error that are none

# How those are made that want more than a learning rate.
MADE: dict[str, Callable] = {
    "optax.lbfgs(linesearch=None)": lambda rate: optax.lbfgs(
        10 * rate, linesearch=None
    ),
    "optax.noisy_sgd": lambda rate: optax.noisy_sgd(rate, key=0),
    "optax.rmsprop(eps_in_sqrt=False)": lambda rate: optax.rmsprop(
        rate, eps_in_sqrt=False
    ),
    "optax.contrib.dpsgd": lambda rate: optax.contrib.dpsgd(rate, 1.0, 0.1, 0),
    "optax.contrib.differentially_private_aggregate": lambda rate: optax.chain(
        optax.contrib.differentially_private_aggregate(1.0, 0.1, 0), optax.sgd(rate)
    ),
    "optax.contrib.galore": lambda rate: optax.contrib.galore(rate, rank=1),
    "optax.contrib.reduce_on_plateau": lambda rate: optax.chain(
        optax.sgd(rate), optax.contrib.reduce_on_plateau()
    ),
    "optax.contrib.sam": lambda rate: optax.contrib.sam(
        optax.sgd(rate),
        optax.chain(optax.contrib.normalize(), optax.sgd(0.05)),
        opaque_mode=True,
    ),
    "optax.contrib.schedule_free": lambda rate: optax.contrib.schedule_free(
        optax.sgd(rate), rate
    ),
    "jaxtricks.optimizers.frugal": lambda rate: optimizers.frugal(
        rate, key=jax.random.key(0)
    ),
    "jaxtricks.metagrad.learned_optimizer": lambda rate: metagrad.learned_optimizer(
        metagrad.init_learned_optimizer(key=jax.random.key(0)), step_mult=rate
    ),
    "jaxtricks.metagrad.velo": lambda rate: metagrad.velo(
        metagrad.init_velo(key=jax.random.key(0), lstm=4, bank=2),
        total_steps=20,
        step_mult=rate,
    ),
}
# What others take that has no default, and a key, by name, for a learning rate.
GIVEN: dict[str, Callable] = {
    "base_optimizer": optax.sgd,
    "beta": lambda _: 0.5,
    "compressor": lambda _: functools.partial(optimizers.rand_k, k=0.5),
    "examples": lambda _: 12,
    "head": lambda _: {"b": True, "w": False},
    "key": lambda _: jax.random.key(0),
    "pretrained": lambda _: start(),
    "rank": lambda _: 1,
    "roles": lambda _: {"b": "bias", "w": "hidden"},
    "tx": optax.sgd,
}
WRAPPED = {"base_optimizer", "tx"}
VARIANTS = tuple(name for name in MADE if "(" in name)
# What takes the gradients of single examples.
PER_EXAMPLE = (
    "optax.contrib.differentially_private_aggregate",
    "optax.contrib.dpsgd",
)
NOT_RUN = {
    "optax.lbfgs": "its line search has no derivative in reverse; refused",
    "optax.contrib.hutchinson_estimator_diag_hessian": "a measurement, run in sophia",
    "optax.contrib.schedule_free_eval_params": "a function of a state",
    "optax.contrib.split_real_and_imaginary": "for complex parameters only",
    "jaxtricks.optimizers.stay_on_grid": "rounds weights, which has no derivative",
}


def every() -> list[str]:
    """Every optimizer that there is, by family and name.

    Of optax what is made by a learning rate, the rest being parts; of the other
    families all transformations, less the optax.contrib.scale_by_* that are parts.
    """
    names = list(VARIANTS)
    for family in FAMILIES:
        module = importlib.import_module(family)
        # What optax is about to drop is missing in its __all__.
        public = dir(module) if family.startswith("optax") else module.__all__
        for name in public:
            f = getattr(module, name)
            part = name.startswith("scale_by_") and family.startswith("optax")
            if name.startswith("_") or part or not isinstance(f, FUNCTIONS):
                continue
            if family == "optax":
                optimizer = _first(f).endswith("learning_rate")
            else:  # annotations are missing here and there in optax.contrib
                returned = str(inspect.signature(f).return_annotation)
                ours = family.startswith("jaxtricks")
                optimizer = not ours or "GradientTransformation" in returned
            if optimizer:
                names.append(f"{family}.{name}")
    return sorted(names, key=_order)


FUNCTIONS = types.FunctionType, functools.partial


def _first(f: Callable) -> str:
    """The name of the first argument."""
    return next(iter(inspect.signature(f).parameters), "")


def _order(name: str) -> tuple:
    family, _, short = name.partition("(")[0].rpartition(".")
    return FAMILIES.index(family), short, name


class NotRun(Exception):
    """Says why there are no numbers."""


def made(name: str, rate: Any) -> optax.GradientTransformationExtraArgs:
    """The optimizer of that name: by its learning rate, around SGD, or before it."""
    if name in NOT_RUN:
        raise NotRun(NOT_RUN[name])
    if name in MADE:
        return optax.with_extra_args_support(MADE[name](rate))
    family, _, short = name.rpartition(".")
    f = getattr(importlib.import_module(family), short)
    by_rate = _first(f).endswith("learning_rate")
    needed = [
        p.name
        for p in inspect.signature(f).parameters.values()
        if (p.default is p.empty and p.kind is not p.VAR_KEYWORD) or p.name == "key"
    ]
    needed = [p for p in needed if not (by_rate and p == _first(f))]
    if unknown := ", ".join(p for p in needed if p not in GIVEN):
        raise NotRun(f"it wants {unknown}")
    given = {p: GIVEN[p](rate) for p in needed}
    tx = f(rate, **given) if by_rate else f(**given)
    if not by_rate and not WRAPPED.intersection(given):
        tx = optax.chain(tx, optax.sgd(rate))
    return optax.with_extra_args_support(tx)


# --- the problem ---------------------------------------------------------------------


class Theta(NamedTuple):
    """What is differentiated by."""

    weights: Any  # f64[examples], logarithms
    rate: Any  # f64[], a logarithm


def data(zero_column: bool) -> tuple:
    """Inputs and labels to train on, and to validate on."""
    rng = np.random.default_rng(0)
    x, valid = 4 * rng.normal(size=(12, 3)), rng.normal(size=(8, 3))
    if zero_column:
        x[:, 0] = 0
    y, valid_y = rng.integers(0, 4, 12), rng.integers(0, 4, 8)
    return jnp.asarray(x), jnp.asarray(y), jnp.asarray(valid), jnp.asarray(valid_y)


def start() -> dict:
    rng = np.random.default_rng(1)
    return {
        "b": jnp.asarray(rng.normal(size=4)),
        "w": jnp.asarray(rng.normal(size=(3, 4))),
    }


def losses(params, x, y):
    logits = x @ params["w"] + params["b"][None]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y)


def trained(
    name: str,
    wrap: Callable,
    steps: int,
    theta: Theta,
    data: tuple,
    scan: Callable = jax.lax.scan,
):
    """The validation loss after training with wrap(the optimizer)."""
    x, y, valid, valid_y = data
    batch = x, y, jnp.exp(theta.weights)
    plain = made(name, jnp.exp(theta.rate))
    tx, takes = wrap(plain), arguments(plain.update)

    def losses_fn(params, batch=batch):
        x, y, weights = batch
        return weights * losses(params, x, y)

    def value_fn(params, batch=batch):
        return jnp.mean(losses_fn(params, batch))

    def grad_fn(params, batch=batch):
        own = isinstance(batch, tuple)  # optax.contrib.sam passes a number instead
        return jax.grad(value_fn)(params, *([batch] if own else []))

    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(value_fn)(params)
        given = {
            "params": params,
            "grad_fn": grad_fn,
            "value_fn": value_fn,
            "losses_fn": losses_fn,
            "obj_fn": value_fn,
            "batch": batch,
            "value": value,
            "loss": value,
            "grad": grads,
        }
        if name in PER_EXAMPLE:
            alone = jax.tree.map(lambda a: a[:, None], batch)
            grads = jax.vmap(jax.grad(value_fn), (None, 0))(params, alone)
        given = {k: v for k, v in given.items() if takes is None or k in takes}
        updates, state = tx.update(grads, state, **given)
        return (optax.apply_updates(params, updates), state), None

    params = start()
    (params, _), _ = scan(step, (params, tx.init(params)), length=steps)
    return jnp.mean(losses(params, valid, valid_y))


def arguments(update: Callable) -> set[str] | None:
    """The names that an update takes; None for all."""
    takes = inspect.signature(update).parameters
    every = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    return None if every else set(takes)


# --- the comparison ------------------------------------------------------------------


def program(name: str, steps: int) -> tuple[Callable, bool]:
    """data -> differences and derivatives, jax's and ours; and whether there are ours.

    Each by the weights, along one direction, and by the rate.
    """
    theta = Theta(jnp.zeros(12), jnp.log(RATE))
    along = jnp.asarray(np.random.default_rng(2).normal(size=12))

    def derivatives(wrap, data):
        after = functools.partial(trained, name, wrap, steps, data=data)
        grads = jax.grad(after)(theta)
        return jnp.stack([grads.weights @ along, grads.rate])

    try:
        jax.eval_shape(differentiable(made(name, RATE)).init, start())
        ours = True
    except ValueError as error:
        if "right derivative" not in str(error):
            raise
        ours = False

    def plain(tx):
        return tx

    @jax.jit
    def compare(data):
        sides = jnp.array([side * h for h in STEPS for side in (1, -1)])
        still = jnp.zeros_like(sides)
        shifted = Theta(
            jnp.concatenate([sides, still])[:, None] * along[None],
            jnp.concatenate([still, sides]) + theta.rate,
        )
        ends = jax.lax.map(
            lambda theta: trained(name, plain, steps, theta, data), shifted
        )
        ends = ends.reshape(2, len(STEPS), 2)  # by what, which step, which side
        differences = (ends[..., 0] - ends[..., 1]) / (2 * jnp.array(STEPS)[None])
        results = [differences, derivatives(plain, data)]
        return [*results, derivatives(differentiable, data)] if ours else results

    return compare, ours


def verdict(differences: Sequence[float], derivative: float) -> str:
    """One word for a derivative beside its finite differences, the nearest of them."""
    if not np.all(np.isfinite(differences)):
        return "training fails"
    if not np.isfinite(derivative):
        return "NaN"
    nearest = min(differences, key=lambda difference: abs(difference - derivative))
    if nearest == derivative == 0:
        return "zero"
    error = abs(derivative - nearest)
    relative = error / max(abs(derivative), abs(nearest))
    if relative <= ENOUGH or error < ROUNDING:
        return "ok"
    return f"wrong ({100 * relative:.2g} %)"


def line(name: str, steps: int) -> str:
    """A row of the table."""
    with jax.enable_x64(True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made(name, RATE)
            compare, ours = program(name, steps)
            results = [compare(data(zero_column)) for zero_column in (False, True)]
        except NotRun as reason:
            return f"| `{name}` | not run: {reason} | | | |"
        except Exception as error:  # one optimizer's, which is worth a line
            said = str(error).strip().splitlines()[:1]
            words = " ".join([type(error).__name__, *said]).replace("|", "/")
            return f"| `{name}` | fails: {words} | | | |"
    cells = [
        ", ".join(map(verdict, result[0].tolist(), result[kind].tolist()))
        for kind in ((1, 2) if ours else (1,))
        for result in results
    ]
    return f"| `{name}` | " + " | ".join(cells + ["refused"] * (4 - len(cells))) + " |"


HEAD = """\
| optimizer | generic data | a zero column | inside `differentiable` | a zero column |
|---|---|---|---|---|
"""

PAGE = f"""\
# Which optimizers can be differentiated through

Made by `{COMMAND}`, with optax {{optax}} and jax {{jax}}.

Eight steps of training a softmax regression in float64, with every optimizer of optax
and of this library; then the derivative of the validation loss, in reverse through all
of training, beside central finite differences. The first word is for the logarithms of
the examples' weights (along one direction), the second for the logarithm of the
learning rate. "A zero column": one input is always 0, so that a row of the parameters
has a gradient of exactly 0, as unused rows of an embedding and dead units have.

- *ok*: equal to the differences, to {ENOUGH:g} of them.
- *NaN*: though training itself is finite.
- *zero*: both are exactly 0, by construction: a sign, or a clipped entry, does not
  change with the gradient.
- *wrong*: finite, and this far from the differences.
- *refused*: `optimizers.differentiable` raises ValueError.

The columns on the right are the same optimizers inside `optimizers.differentiable`,
where training gives the same numbers.

{HEAD}"""


def table(names: Sequence[str], steps: int, workers: int) -> Iterator[str]:
    """The rows, in order, as they are ready."""
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(functools.partial(line, steps=steps), names)


def main(config: Config) -> None:
    # The programs are small, and cost what their compilation costs.
    jax.config.update("jax_disable_most_optimizations", True)
    lines = []
    for row in table(config.only or every(), config.steps, config.workers):
        print(row, flush=True)
        lines.append(row)
    if not config.only:
        page = PAGE.format(optax=optax.__version__, jax=jax.__version__)
        config.out.write_text(page + "\n".join(lines) + "\n")
        print(f"wrote {config.out}")


if __name__ == "__main__":
    main(tyro.cli(Config))
