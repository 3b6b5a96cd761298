"""The flags, and what they may be."""

from dataclasses import dataclass
from pathlib import Path

from ..config import BadInput
from ..small import flags

METHODS = ("maml", "fomaml", "joint", "random")
PROBLEMS = ("sinusoid", "digits")


@dataclass(frozen=True)
class Maml:
    """Learn initialisations with `metagrad.maml`, to second and to first order, and by
    joint pretraining (no adaptation while training), and adapt them to new tasks: sine
    waves from a few points, and digits of classes never seen. Killed, it goes on when
    started again with the same flags.

    python -m experiments.maml --quick               a look, within two minutes
    python -m experiments.maml                       all
    python -m experiments.maml --shots 5 --seeds 5
    python -m experiments.maml --steps 5 --iterations 5000 --name five
    python -m experiments.maml --digits-iterations 0      waves alone
    python -m experiments.maml --replot runs/maml/results.json
    """

    quick: bool = False
    """One seed, few iterations and tasks."""
    iterations: int = 20000
    """Of meta-training on sine waves."""
    digits_iterations: int = 1000
    """Of meta-training on digits; 0 leaves them out."""
    seeds: int = 3
    """Of parameters and training tasks."""
    seed: int = 0
    """Where they begin."""
    tasks: int = 600
    """New tasks that each initialisation is adapted to; the same for all."""
    shots: int = 10
    """Points of a sine wave that are shown."""
    steps: int = 1
    """Of adaptation to a wave while training; 1 as in the paper."""
    test_steps: int = 10
    """Of adaptation to a new task, at most."""
    rate: float = 0.01
    """Of adaptation to a wave while training; 0.01 as in the paper. On new tasks each
    initialisation has the best of several, chosen on tasks like those of training."""
    meta_rate: float = 1e-3
    """Adam's, which learns the initialisation, at first, as in the paper; here it falls
    to 0 as a cosine."""
    meta_batch: int = 25
    """Tasks of an iteration; 25 as in the paper."""
    width: int = 40
    """Of two hidden layers; of the digits' too."""
    ways: int = 3
    """Classes of a task of digits: of six while training, of the other four after."""
    digits_shots: int = 1
    """Images of a class that are shown."""
    digits_steps: int = 5
    """Of adaptation to digits while training."""
    digits_rate: float = 0.1
    """Of adaptation to digits while training."""
    replot: Path | None = None
    """A results.json: write its table and picture again, beside it; train nothing."""
    save: bool = False
    """With --replot: put table and picture into this experiment's README.md, too."""
    name: str = "maml"
    """The run; the same name continues it."""
    runs: Path = Path("runs")
    """The folder that holds the runs."""
    fresh: bool = False
    """Delete a run of this name first."""

    @property
    def home(self) -> Path:
        return self.runs / self.name

    @property
    def problems(self) -> tuple[str, ...]:
        return PROBLEMS if self.digits_iterations else PROBLEMS[:1]

    def numbers(self) -> dict:
        """The flags that the results depend on."""
        names = (
            "iterations digits_iterations seeds seed tasks shots steps test_steps rate "
            "meta_rate meta_batch width ways digits_shots digits_steps digits_rate"
        )
        return {name: getattr(self, name) for name in names.split()}


BOUNDS = {
    ">= 1": (
        lambda x: x >= 1,
        "iterations seeds shots steps meta_batch width digits_shots digits_steps",
    ),
    ">= 2": (lambda x: x >= 2, "tasks ways"),
    ">= 5": (lambda x: x >= 5, "test_steps"),
    "> 0": (lambda x: x > 0, "rate meta_rate digits_rate"),
    ">= 0": (lambda x: x >= 0, "digits_iterations seed"),
    "<= 4": (lambda x: x <= 4, "ways"),
    "<= 50": (lambda x: x <= 50, "digits_shots"),
    "< 2^31": (lambda x: x < 2**31, "seed"),
}
QUICK = {
    "iterations": 2000,
    "digits_iterations": 200,
    "seeds": 1,
    "tasks": 100,
    "name": "maml-quick",
}


def parse(argv: list[str]) -> Maml:
    """The checked config; `--help` prints and leaves."""
    config = flags.parse(Maml, argv, "experiments.maml", BOUNDS, QUICK)
    if config.save and not config.replot:
        raise BadInput("--save: wanted with --replot, came alone")
    return config
