"""The flags, and which tricks are trained when none is named."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..config import BadInput
from ..small import flags

# What is central to the literature; hyperparameters stand where the source has no
# default, or where another value is another known trick.
DEFAULT = (
    "losses.cross_entropy",
    "losses.cross_entropy label_smoothing=0.1",
    "losses.focal",
    "losses.comp_sum tau=1.7",
    "losses.active_passive",
    "losses.symmetric_cross_entropy",
    "losses.bi_tempered t1=0.8 t2=1.2",
    "losses.taylor",
    "losses.bootstrap",
    "losses.peer",
    "losses.elr",
    "losses.ldr_kl",
    "losses.aldr_kl",
    "losses.dice",
    "losses.tversky",
    "losses.ldam scale=1",
    "losses.logit_adjusted",
    "losses.vector_scaling",
    "losses.seesaw",
    "losses.ldam scale=1 + weighting.drw",
    "losses.logit_adjusted + calibration.mdca",
    "calibration.mdca",
    "calibration.dca",
    "weighting.class_balanced",
    "weighting.inverse_frequency",
    "weighting.drw",
    "weighting.focal_factor",
    "weighting.kl_dro",
    "weighting.chi2_dro",
    "weighting.cvar",
    "weighting.tilted",
    "weighting.group_dro",
    "weighting.linupper",
    "weighting.extremes",
    "weighting.self_paced threshold=4",
)
# What else --full trains: found, but without a default of its own.
OPEN = ("losses.ldr_k k=1", "losses.spherical_z a=2 b=2")
PLAIN = "losses.cross_entropy"
SETTINGS = (0.0, 0.2)  # label noise


@dataclass(frozen=True)
class Longtail:
    """Train a small network on a few images, most of them of few classes, under every
    loss and weighting for classification, all seeds of one at once, and print balanced
    accuracy, worst-class accuracy and ECE on balanced held-out images. Killed, it goes
    on when started again with the same flags.
    """

    tricks: tuple[str, ...] = ()
    """Some tricks, as `losses.focal gamma=1 losses.ldam + weighting.drw`: a name, its
    hyperparameters, and + between a loss, a penalty of `calibration` and a weighting.
    None is a choice of the usual ones."""
    full: bool = False
    """Train all that wants no hyperparameter besides, without and with label noise."""
    list: bool = False
    """Print what is found in the library, and what is left out and why; train
    nothing."""
    data: str = "digits"
    """`digits` of scikit-learn, or a folder of CIFAR-10 or CIFAR-100 binaries."""
    imbalance: float = 100.0
    """Images of the most frequent class to those of the rarest."""
    noise: tuple[float, ...] = ()
    """Part of the training labels that are wrong, one or more settings; none is 0, with
    --full 0 and 0.2."""
    seeds: int = 20
    """Of images, wrong labels, parameters and order."""
    seed: int = 0
    """Where they begin."""
    model: Literal["mlp", "convnet"] = "mlp"
    """Two hidden layers, or three convolutions."""
    width: int = 64
    """Of the hidden layers; of the first convolution's channels."""
    epochs: int = 200
    """Times that each image is seen."""
    batch_size: int = 64
    """Images in a batch."""
    lr: float = 3e-3
    """AdamW's highest; a cosine after a warmup of a twentieth."""
    weight_decay: float = 0.01
    """AdamW's."""
    reach: float = 0.9
    """Accuracy that plain cross entropy must reach when it is trained as long on as
    many images, equally many of each class; else nothing else is trained."""
    name: str = "longtail"
    """The run; the same name continues it."""
    runs: Path = Path("runs")
    """The folder that holds the runs."""
    fresh: bool = False
    """Delete a run of this name first."""

    @property
    def home(self) -> Path:
        return self.runs / self.name

    @property
    def settings(self) -> tuple[float, ...]:
        return self.noise or (SETTINGS if self.full else SETTINGS[:1])

    def numbers(self) -> dict:
        """The flags that every trick's numbers depend on."""
        names = "imbalance seeds seed model width epochs batch_size lr weight_decay"
        return {name: getattr(self, name) for name in names.split()}


BOUNDS = {
    ">= 1": (lambda x: x >= 1, "imbalance seeds width epochs"),
    ">= 2": (lambda x: x >= 2, "batch_size"),
    "> 0": (lambda x: x > 0, "lr"),
    ">= 0": (lambda x: x >= 0, "weight_decay seed"),
    "< 2^32": (lambda x: x < 2**32, "seed"),
    "in [0, 1)": (lambda x: 0 <= x < 1, "reach noise"),
}


def parse(argv: list[str]) -> Longtail:
    """The checked config; `--help` prints and leaves."""
    config = flags.parse(Longtail, argv, "experiments.longtail", BOUNDS)
    flags.distinct(config, "noise")
    if config.full and config.tricks:
        raise BadInput("--full trains all tricks, --tricks names some: take one")
    return config
