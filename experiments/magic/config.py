"""The flags, and what they may be."""

from dataclasses import dataclass
from pathlib import Path

from ..config import BadInput
from ..small import flags

TRAINERS = ("smooth", "unsmooth")
METHODS = ("magic", "influence function", "trak", "gradient product")


@dataclass(frozen=True)
class Magic:
    """Predict how the loss on single images changes when a part of the training images
    is left out, by `metagrad.magic`, influence functions, TRAK and products of
    gradients; then train without them, and show how well each ordered the outcomes
    (the linear datamodeling score). Once with a trainer that is smooth, once with one
    that is not, which `metagrad.check` says. Killed, it goes on when started again with
    the same flags.

    python -m experiments.magic --quick              a look: one seed, a small network
    python -m experiments.magic                      all
    python -m experiments.magic --drop 0.01 0.1 --seeds 5 --subsets 100
    python -m experiments.magic --replot runs/magic/results.json --save
    """

    quick: bool = False
    """One seed, few subsets and targets, short training."""
    drop: tuple[float, ...] = (0.01, 0.05)
    """Parts of the training images that are left out."""
    subsets: int = 40
    """Trainings without that part, for each of --drop."""
    targets: int = 8
    """Held-out images whose losses are predicted."""
    seeds: int = 3
    """Of parameters, order, targets and what is left out."""
    seed: int = 0
    """Where they begin."""
    per_class: int = 100
    """Training images of each class."""
    width: int = 128
    """Of two hidden layers."""
    updates: int = 256
    """Of every training."""
    batch_size: int = 100
    """Images in a batch."""
    rate: float = 1e-3
    """Adam's peak, of the smooth trainer: a warmup of a tenth, then a cosine."""
    rough_rate: float = 2e-2
    """Adam's, of the unsmooth trainer: from the first step to the last, with relu."""
    dampings: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
    """Of influence functions, and of TRAK in mean eigenvalues: the best is shown."""
    products: int = 50
    """Dimensions of the space in which an influence function is solved for."""
    projections: int = 512
    """Dimensions of TRAK."""
    models: int = 5
    """Of TRAK: the one itself and others, from other parameters in another order."""
    replot: Path | None = None
    """A results.json: write its table and picture again, beside it; train nothing."""
    save: bool = False
    """Write the table and the picture into this folder's README.md too."""
    name: str = "magic"
    """The run; the same name continues it."""
    runs: Path = Path("runs")
    """The folder that holds the runs."""
    fresh: bool = False
    """Delete a run of this name first."""

    @property
    def home(self) -> Path:
        return self.runs / self.name

    def numbers(self) -> dict:
        """The flags that the numbers depend on, as JSON gives them back."""
        names = (
            "drop subsets targets seeds seed per_class width updates batch_size rate "
            "rough_rate dampings products projections models"
        )
        found = {name: getattr(self, name) for name in names.split()}
        return {k: [*v] if isinstance(v, tuple) else v for k, v in found.items()}


BOUNDS = {
    ">= 1": (
        lambda x: x >= 1,
        "targets seeds per_class width updates batch_size products projections models",
    ),
    ">= 3": (lambda x: x >= 3, "subsets"),
    "> 0": (lambda x: x > 0, "rate rough_rate dampings"),
    ">= 0": (lambda x: x >= 0, "seed"),
    "< 2^32": (lambda x: x < 2**32, "seed"),
    "in (0, 1)": (lambda x: 0 < x < 1, "drop"),
    "<= 100": (lambda x: x <= 100, "per_class"),
}
QUICK = {
    "seeds": 1,
    "subsets": 10,
    "targets": 3,
    "updates": 64,
    "per_class": 30,
    "width": 32,
    "batch_size": 50,
    "projections": 64,
    "products": 10,
    "models": 2,
    "name": "magic-quick",
}


def parse(argv: list[str]) -> Magic:
    """The checked config; `--help` prints and leaves."""
    config = flags.parse(Magic, argv, "experiments.magic", BOUNDS, QUICK)
    if not config.drop:
        raise BadInput("--drop: wanted one part or more, came none")
    if not config.dampings:
        raise BadInput("--dampings: wanted one or more, came none")
    flags.distinct(config, "drop")
    images = 10 * config.per_class
    for part in config.drop:
        if not 1 <= round(part * images) < images:
            raise BadInput(f"--drop: {part:g} of {images} images is none, or all")
    if config.batch_size > images:
        said = f"wanted at most the {images} images, came {config.batch_size}"
        raise BadInput(f"--batch-size: {said}")
    return config
