"""The flags, and what they may be."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..config import BadInput
from ..small import flags

# What is tried where --rates is not given, for each optimizer.
RATES = {
    "sgd": (0.005, 0.01, 0.02, 0.05, 0.1),
    "adamw": (5e-4, 1e-3, 2e-3, 5e-3, 1e-2),
}


@dataclass(frozen=True)
class Sharpness:
    """Train a small network with every variant of `jaxtricks.sharpness`, all seeds and
    all levels of label noise of one at once, and show test accuracy beside the flatness
    of where it ends: the top eigenvalue of the Hessian, and m-sharpness. Every variant
    makes as many updates, and its learning rate is chosen from the same few. Killed, it
    goes on when started again with the same flags.

    python -m experiments.sharpness --quick          a look, within a minute
    python -m experiments.sharpness                  all variants
    python -m experiments.sharpness --variants sam asam --seeds 10 --noise 0.4
    python -m experiments.sharpness --data cifar-10-batches-bin --per-class 400
    python -m experiments.sharpness --replot runs/sharpness/results.json
    """

    variants: tuple[str, ...] = ()
    """Some of --list; none is all. The optimizer by itself is always among them."""
    list: bool = False
    """Print the variants with their settings, and what the library has besides; train
    nothing."""
    quick: bool = False
    """A few variants, two seeds, a quarter of the updates, one learning rate."""
    noise: tuple[float, ...] = (0.0, 0.2, 0.4)
    """Part of the training labels that are wrong, one or more levels."""
    seeds: int = 5
    """Of images, wrong labels, parameters and order."""
    seed: int = 0
    """Where they begin."""
    data: str = "digits"
    """`digits` of scikit-learn, or a folder of CIFAR-10 or CIFAR-100 binaries."""
    per_class: int = 50
    """Images of each class that are trained on."""
    net: Literal["convnet", "mlp", "vit"] = "convnet"
    """Three convolutions, two hidden layers, or a small vision transformer."""
    width: int = 8
    """Of the first convolution's channels; of the mlp's layers and the ViT times 8."""
    updates: int = 400
    """Of every variant, however many gradients it takes for one."""
    batch_size: int = 50
    """Images in a batch."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum 0.9, or AdamW; a cosine after a warmup of a twentieth."""
    rates: tuple[float, ...] = ()
    """Learning rates to choose from; one is taken as it is. None is five of the
    optimizer's: the best on validation images, with a seed that is not measured."""
    weight_decay: float = 5e-4
    """The optimizer's, for every variant."""
    m: int = 10
    """Images of a part in m-sharpness."""
    rho: float = 0.05
    """Radius in m-sharpness."""
    products: int = 20
    """Hessian-vector products for the top eigenvalue, by power iteration."""
    rounds: int = 9
    """In which the variants take turns to be timed; 0 times nothing."""
    replot: Path | None = None
    """A results.json: write its table and picture again, beside it; train nothing."""
    name: str = "sharpness"
    """The run; the same name continues it."""
    runs: Path = Path("runs")
    """The folder that holds the runs."""
    fresh: bool = False
    """Delete a run of this name first."""

    @property
    def home(self) -> Path:
        return self.runs / self.name

    @property
    def tried(self) -> tuple[float, ...]:
        return self.rates or RATES[self.optimizer]

    def numbers(self) -> dict:
        """The flags that every variant's numbers depend on."""
        names = (
            "noise seeds seed per_class net width updates batch_size optimizer tried "
            "weight_decay m rho products"
        )
        found = {name: getattr(self, name) for name in names.split()}
        # As JSON gives them back.
        return {k: [*v] if isinstance(v, tuple) else v for k, v in found.items()}


BOUNDS = {
    ">= 1": (lambda x: x >= 1, "seeds per_class width updates m products"),
    ">= 2": (lambda x: x >= 2, "batch_size"),
    "> 0": (lambda x: x > 0, "rates rho"),
    ">= 0": (lambda x: x >= 0, "weight_decay seed rounds"),
    "< 2^32": (lambda x: x < 2**32, "seed"),
    "in [0, 1)": (lambda x: 0 <= x < 1, "noise"),
}
QUICK = {"seeds": 2, "updates": 100, "rounds": 5, "name": "sharpness-quick"}


def parse(argv: list[str]) -> Sharpness:
    """The checked config; `--help` prints and leaves."""
    config = flags.parse(Sharpness, argv, "experiments.sharpness", BOUNDS, short)
    flags.distinct(config, "noise", "rates")
    if not config.noise:
        raise BadInput("--noise: wanted one level or more, came none")
    images = config.per_class * (100 if "100" in Path(config.data).name else 10)
    if config.m > images:
        raise BadInput(f"--m: wanted at most the {images} images, came {config.m}")
    return config


def short(config: Sharpness) -> dict:
    """What --quick says."""
    return QUICK | {"rates": (RATES[config.optimizer][3],)}
