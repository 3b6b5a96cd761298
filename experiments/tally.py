"""What the host remembers of past steps: for spikes, for rows, and for the mixture.

It is part of the checkpoint, so that a run that was killed goes on with the same
numbers.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import add

import numpy as np

RECENT = 50  # losses that a spike is compared with
ENOUGH = 100  # steps skipped in a row: nothing will come of it


@dataclass
class Tally:
    """Sums since the last row and since the mixture was last set, and recent losses."""

    domains: int
    losses: list[float] = field(default_factory=list)  # of applied steps, newest last
    skipped: int = 0  # since the last row
    idle: int = 0  # skipped in a row
    rewinds: int = 0
    memory: list = field(default_factory=list)  # of --mix-by
    row: list[list[float]] = field(default_factory=list)  # sums, counts by domain
    mix: list[list[float]] = field(default_factory=list)  # the same, for the mixture

    def __post_init__(self):
        empty = [[0.0] * self.domains, [0.0] * self.domains]
        self.row, self.mix = self.row or empty, self.mix or empty

    def add(self, metrics: dict) -> None:
        """A step's metrics, on the host."""
        if metrics["skipped"]:
            self.skipped += 1
            self.idle += 1
            return
        self.idle = 0
        self.losses = [*self.losses, float(metrics["loss"])][-RECENT:]
        count = np.asarray(metrics["domain_count"], np.float64)
        total = np.asarray(metrics["domain_loss"], np.float64) * count
        new = [total.tolist(), count.tolist()]
        for name in ("row", "mix"):
            before = getattr(self, name)
            sums = [list(map(add, *two)) for two in zip(before, new, strict=True)]
            setattr(self, name, sums)

    def means(self, name: str) -> np.ndarray:
        """f64[domains]: the mean loss of each since `clear(name)`; nan of none."""
        total, count = np.array(getattr(self, name))
        return np.divide(total, count, where=count > 0, out=np.full(len(count), np.nan))

    def clear(self, name: str) -> None:
        setattr(self, name, [[0.0] * self.domains, [0.0] * self.domains])

    def limit(self, spike: float) -> float:
        """The loss above which the next step counts as a spike."""
        if not spike or len(self.losses) < RECENT // 5:
            return math.inf
        return spike * statistics.median(self.losses)

    def notes(self) -> dict:
        """As JSON, for the checkpoint."""
        return dataclasses.asdict(self)


def by_name(names: Sequence[str], values: np.ndarray) -> dict[str, float]:
    """The domains that have a value."""
    return {n: float(v) for n, v in zip(names, values, strict=True) if v == v}


def trouble(metrics: dict, limit: float) -> str:
    """Why a step has left the state as it was."""
    loss, norm = float(metrics["loss"]), float(metrics["grad_norm"])
    if loss > limit and math.isfinite(loss):
        return f"the loss is {loss:.4g}, a spike above {limit:.4g}"
    if math.isfinite(loss) and math.isfinite(norm):
        return "the update is not finite, though the loss and the gradient are"
    return f"the loss is {loss:.4g}, the gradient's norm {norm:.4g}"
