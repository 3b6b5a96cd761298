"""The variants: which functions of `jaxtricks.sharpness` there are, and their settings.

A name of the table is looked up in the library when it is asked for; what the library
has and the table lacks is said, and so is the reverse.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxtyping import PyTree

from jaxtricks import sharpness

from ..config import BadInput
from ..tricks import members, there_are

BASE = "base"  # the optimizer by itself


class Run(NamedTuple):
    """What a setting may depend on."""

    steps: int  # updates
    epoch: int  # updates in which every example is seen
    batch: int  # images in one
    examples: int  # of the training set
    rate: Callable[[Any], Any]  # the learning rate's schedule over its peak: 0 to 1
    peak: Any  # that rate
    decay: float  # the optimizer's weight decay
    key: Any  # of this training
    base: Any = None  # the optimizer, its rate included


class Setting(NamedTuple):
    """One line of the table."""

    fn: str  # in jaxtricks.sharpness.__all__
    hyper: Callable[[Run], Mapping[str, Any]] = lambda run: {}
    why: str = "the defaults"
    quick: bool = False  # trained with --quick
    whole: bool = False  # an optimizer, which stands alone


def parts(batch: int) -> int:
    """A number of equal parts, five if that goes."""
    return next(n for n in (5, 4, 3, 2, 1) if batch % n == 0)


def head(params: PyTree) -> PyTree:
    """Which parameters are the classifier's: the last layer, or what is named so."""
    if isinstance(params, list):
        return [False] * (len(params) - 1) + [True]
    return {name: name == "head" for name in params}


# Radii are the sources' for images of 32 by 32 and kept for others: none is tuned here.
TABLE: dict[str, Setting] = {
    "sam": Setting("sam", quick=True),
    "sam p=inf": Setting(
        "sam", lambda run: {"p": float("inf"), "rho": 1e-3}, "a box about as large"
    ),
    "m-sam": Setting(
        "sam",
        lambda run: {"split": parts(run.batch)},
        "m-sharpness: fifths of a batch perturb for themselves",
    ),
    "asam": Setting(
        "sam",
        lambda run: {"adaptive": True, "rho": 0.5},
        "the source's radius, ten times SAM's",
        quick=True,
    ),
    "gsam": Setting(
        "gsam",
        lambda run: {
            "rho": sharpness.proportional_rho(run.rate, rho_max=0.1, lr_max=1.0)
        },
        "the radius falls with the learning rate, from twice SAM's",
    ),
    "wsam": Setting(
        "wsam",
        lambda run: {
            "base": run.base,
            "learning_rate": lambda step: run.peak * run.rate(step),
        },
        "decoupled as the source has it; unlike its code without clipping",
        whole=True,
    ),
    "gnp": Setting("gnp"),
    "friendly_sam": Setting("friendly_sam"),
    "looksam": Setting("looksam", quick=True),
    "esam": Setting("esam", lambda run: {"key": run.key}),
    "fisher_sam": Setting("fisher_sam"),
    "bsam": Setting(
        "bsam",
        lambda run: {
            "learning_rate": lambda step: 10 * run.peak * run.rate(step),
            "rho": 0.01,
            "key": run.key,
            "examples": run.examples,
            "prior_precision": run.decay * run.examples,
        },
        "the source's radius for CIFAR; ten times the rate, as its momentum is a mean; "
        "the base's weight decay",
        whole=True,
    ),
    "awp": Setting("awp"),
    "fad": Setting("fad"),
    "udim": Setting(
        "udim",
        lambda run: {"head": head, "inputs": "image", "rate": 1.0},
        "a tenth of the source's rate, as pixels lie in [-1, 1]",
    ),
    "adasap": Setting("adasap"),
    "rwp": Setting("rwp", lambda run: {"key": run.key}, "half of the loss is smoothed"),
    "lpf_sgd": Setting(
        "rwp",
        lambda run: {"key": run.key, "alpha": 1.0, "samples": 4},
        "the smoothed loss alone, of four draws",
    ),
    "saf": Setting("saf"),
    "mesa": Setting(
        "mesa",
        lambda run: {"beta": 1 - 1 / (3 * run.epoch)},
        "averages over saf's three epochs; the source's 0.9998 would outlast this run",
    ),
}
# What of the family trains nothing.
ELSEWHERE = {
    "adaptive_rho": "is the radii of adasap",
    "bim_attack": "attacks inputs",
    "channel_scores": "is the scores of adasap",
    "complete": "fills in the parameters that optax.masked leaves out",
    "gradient_inconsistency": "is the penalty of udim",
    "hessian_top_eigenvalue": "measures; here it does, too",
    "hessian_trace": "measures",
    "lora_ggpo": "is for adapters of low rank, and here is none",
    "lora_mgpo": "is for adapters of low rank, and here is none",
    "perturb_instances": "is the inputs of udim",
    "proportional_rho": "is the radius of gsam",
    "transfer_success": "measures",
    "trajectory": "is the term of saf and mesa",
    "worst_case_loss": "measures",
}


def there() -> dict[str, Setting]:
    """The table's settings whose function the library has."""
    found = members(sharpness)
    return {name: of for name, of in TABLE.items() if of.fn in found}


def without_settings() -> list[str]:
    """What the library has and the table does not name."""
    used = {of.fn for of in TABLE.values()} | set(ELSEWHERE)
    return sorted(set(members(sharpness)) - used)


def missing() -> list[str]:
    """What the table names and the library does not have."""
    return sorted({of.fn for of in TABLE.values()} - set(members(sharpness)))


def chosen(names: tuple[str, ...], quick: bool) -> list[str]:
    """The base first, then what is asked for, or all."""
    known = there()
    unknown = [name for name in names if name not in known and name != BASE]
    if unknown:
        known_too = [BASE, *known]
        said = f"unknown {unknown[0]!r}{there_are(unknown[0], known_too)}"
        raise BadInput(f"--variants: {said}")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise BadInput(f"--variants: {twice[0]} came twice")
    usual = [name for name, of in known.items() if of.quick or not quick]
    return [BASE, *(name for name in names or usual if name != BASE)]


def made(name: str, run: Run) -> Any:
    """What the library's function gives with the table's settings."""
    of = TABLE[name]
    return members(sharpness)[of.fn](**of.hyper(run))
