"""The flags, and what they may be."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..config import BadInput
from ..small import flags


@dataclass(frozen=True)
class Rebasin:
    """Train pairs of networks that differ by their seeds, permute one of each pair to
    match the other, and show the barrier on the line between them and how accurate
    their merges are: the average, the average with REPAIR, and PLeaS at equal size.
    Killed, it goes on when started again with the same flags.

    python -m experiments.rebasin --quick          a look, within a minute
    python -m experiments.rebasin
    python -m experiments.rebasin --models mlp --width 64 --name narrow
    python -m experiments.rebasin --replot runs/rebasin/results.json
    """

    models: tuple[Literal["mlp", "convnet"], ...] = ("mlp", "convnet")
    """Two hidden layers, or three convolutions."""
    quick: bool = False
    """Two pairs of narrower networks, trained shorter."""
    pairs: int = 4
    """Of networks of each model, whose seeds all differ; more continue a run."""
    seed: int = 0
    """Where the seeds begin."""
    data: str = "digits"
    """`digits` of scikit-learn, or a folder of CIFAR-10 or CIFAR-100 binaries."""
    width: int = 512
    """Of the perceptron's hidden layers."""
    channels: int = 32
    """Of the first convolution; the next have twice and four times as many."""
    epochs: int = 20
    """Times that each image is seen."""
    batch_size: int = 50
    """Images in a batch."""
    lr: float = 3e-3
    """AdamW's highest; a cosine to zero."""
    weight_decay: float = 3.0
    """AdamW's. What is left of the first parameters is noise that no order matches."""
    apart: float = 0.5
    """Share of the units that the wider merges keep from both networks."""
    calibration: int = 1000
    """Training images, at most, that units are matched and layers fitted on."""
    points: int = 25
    """On the line between two networks, ends included."""
    replot: Path | None = None
    """A results.json: write its table and picture again, beside it; train nothing."""
    name: str = "rebasin"
    """The run; the same name continues it."""
    runs: Path = Path("runs")
    """The folder that holds the runs."""
    fresh: bool = False
    """Delete a run of this name first."""

    @property
    def home(self) -> Path:
        return self.runs / self.name

    def numbers(self) -> dict:
        """The flags that the numbers of every pair depend on."""
        names = "seed width channels epochs batch_size lr weight_decay apart "
        names += "calibration points"
        return {name: getattr(self, name) for name in names.split()}


BOUNDS = {
    ">= 1": (lambda x: x >= 1, "pairs width channels epochs calibration"),
    ">= 2": (lambda x: x >= 2, "batch_size"),
    ">= 3": (lambda x: x >= 3, "points"),
    "> 0": (lambda x: x > 0, "lr"),
    ">= 0": (lambda x: x >= 0, "weight_decay"),
    "in (0, 1]": (lambda x: 0 < x <= 1, "apart"),
    "in [0, 2^31)": (lambda x: 0 <= x < 2**31, "seed"),
}
QUICK = {
    "pairs": 2,
    "width": 128,
    "channels": 8,
    "epochs": 10,
    "name": "rebasin-quick",
}


def parse(argv: list[str]) -> Rebasin:
    """The checked config; `--help` prints and leaves."""
    config = flags.parse(Rebasin, argv, "experiments.rebasin", BOUNDS, QUICK)
    if not config.models:
        raise BadInput("--models: wanted one or more, came none")
    flags.distinct(config, "models")
    return config
