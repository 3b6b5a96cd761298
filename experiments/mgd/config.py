"""The flags, and what they may be."""

from dataclasses import dataclass
from pathlib import Path

from ..config import BadInput
from ..small import flags

RATES = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)  # of the grid
SHAPES = ("constant", "linear", "cosine", "warmup cosine", "step")
METHODS = (
    *("corrected", "all", "random", "loss", "held-out loss", "mgd", "right labels"),
)


@dataclass(frozen=True)
class Mgd:
    """Metagradient descent twice. Selection: of digits with wrong labels a part is kept
    and trained on, chosen by `metagrad.mgd` on data counts, at random, or by the loss
    under a model of all of them or of the validation images. Schedule: learning rates
    between key points are moved by the sign of their meta-gradient, and compared with a
    grid that costs as many step evaluations. Killed, it goes on when started again with
    the same flags.

    python -m experiments.mgd --quick                a look, in about a minute
    python -m experiments.mgd                        all
    python -m experiments.mgd --noise 0.2 0.6 --keep 0.4 --seeds 10
    python -m experiments.mgd --replot runs/mgd/results.json --save
    """

    quick: bool = False
    """Two seeds, short training, few rounds."""
    noise: tuple[float, ...] = (0.2, 0.4)
    """Parts of the training labels that are wrong, any digit being as likely."""
    planted: float = 0.6
    """In a setting of its own: the part of every even digit that is labelled as the
    next one; 0 leaves it out."""
    keep: float = 0.5
    """Part of the training images that every method keeps."""
    seeds: int = 5
    """Of images, wrong labels, parameters and order."""
    seed: int = 0
    """Where they begin."""
    per_class: int = 100
    """Training images of each class."""
    width: int = 128
    """Of two hidden layers."""
    updates: int = 300
    """Of every training for selection, with Adam."""
    batch_size: int = 50
    """Images in a batch."""
    rate: float = 1e-3
    """Adam's peak: a warmup of a tenth, then a cosine."""
    rounds: int = 8
    """Of selection: a training and its meta-gradient, another start in each."""
    p: float = 0.3
    """Part of the counts that a round may change."""
    relaxed: int = 6
    """Steps of a training at which every candidate has a weight."""
    tune_rounds: int = 10
    """Of the schedule: each costs four trainings."""
    tune_updates: int = 100
    """Of every training with a schedule: SGD with momentum 0.9."""
    points: int = 6
    """Key points of the schedule."""
    tune_rate: float = 0.5
    """What the logarithm of a rate moves by in the first round; 0.85 of it in each
    after."""
    replot: Path | None = None
    """A results.json: write its tables and picture again, beside it; train nothing."""
    save: bool = False
    """Write the tables and the picture into this folder's README.md too."""
    name: str = "mgd"
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
            "noise planted keep seeds seed per_class width updates batch_size rate "
            "rounds p relaxed tune_rounds tune_updates points tune_rate"
        )
        found = {name: getattr(self, name) for name in names.split()}
        return {k: [*v] if isinstance(v, tuple) else v for k, v in found.items()}

    @property
    def settings(self) -> list[str]:
        """Names of what is selected from."""
        planted = ["planted"] if self.planted else []
        return [*(f"{noise:g}" for noise in self.noise), *planted]


BOUNDS = {
    ">= 1": (
        lambda x: x >= 1,
        "seeds per_class width batch_size rounds tune_rounds points relaxed",
    ),
    ">= 10": (lambda x: x >= 10, "updates tune_updates"),
    "> 0": (lambda x: x > 0, "rate tune_rate"),
    ">= 0": (lambda x: x >= 0, "seed"),
    "< 2^32": (lambda x: x < 2**32, "seed"),
    "in [0, 1)": (lambda x: 0 <= x < 1, "noise planted"),
    "in (0, 1]": (lambda x: 0 < x <= 1, "keep p"),
    "<= 100": (lambda x: x <= 100, "per_class"),
}
QUICK = {
    "noise": (),
    "seeds": 2,
    "per_class": 30,
    "width": 32,
    "updates": 200,
    "rounds": 4,
    "tune_rounds": 4,
    "tune_updates": 50,
    "name": "mgd-quick",
}


def parse(argv: list[str]) -> Mgd:
    """The checked config; `--help` prints and leaves."""
    config = flags.parse(Mgd, argv, "experiments.mgd", BOUNDS, QUICK)
    if not config.noise and not config.planted:
        raise BadInput("--noise: wanted one part or more, came none")
    flags.distinct(config, "noise")
    kept = round(config.keep * 10 * config.per_class)
    if config.batch_size > kept:
        said = f"wanted at most the {kept} images that are kept"
        raise BadInput(f"--batch-size: {said}, came {config.batch_size}")
    if config.relaxed > config.updates:
        said = f"wanted at most the {config.updates} updates, came {config.relaxed}"
        raise BadInput(f"--relaxed: {said}")
    return config
