"""The flags, and what they may be."""

from dataclasses import dataclass
from pathlib import Path

from ..config import BadInput
from ..small import flags


@dataclass(frozen=True)
class Domains:
    """Pretrain a small byte-level transformer on Python, English and C mixed, fine-tune
    it on each alone, merge the three fine-tunes by every method of `jaxtricks.merging`,
    and show bits per byte on held-out files of each domain, beside the fine-tunes and
    the model that is trained on all three. Killed, it goes on when started again with
    the same flags.

    python -m experiments.merge_domains --quick       a look, within a minute
    python -m experiments.merge_domains               all methods
    python -m experiments.merge_domains --methods linear ties tsv --seeds 10
    python -m experiments.merge_domains --tune 400 --tune-lr 4e-3 --name further
    python -m experiments.merge_domains --replot runs/merge_domains/results.json
    """

    methods: tuple[str, ...] = ()
    """Some of --list; none is all. The plain average is always among them."""
    list: bool = False
    """Print the methods with their settings, and what of the library is left out; train
    nothing."""
    quick: bool = False
    """A few methods, two seeds, a quarter of the updates, less text."""
    seeds: int = 5
    """Of parameters, of the order of the data, and of what is random in a merge."""
    seed: int = 0
    """Where they begin."""
    text: int = 1_000_000
    """Bytes of each domain, at most; 15 % of them are held out."""
    seq_len: int = 128
    """Bytes in a window."""
    d_model: int = 64
    """Width of the model."""
    layers: int = 2
    """Its blocks."""
    heads: int = 2
    """Its attention heads."""
    batch_size: int = 8
    """Windows in a batch."""
    pretrain: int = 600
    """Updates of the base model, on all domains in turn."""
    tune: int = 150
    """Updates of each fine-tune; the multi-task model has as many for each domain."""
    lr: float = 5e-3
    """Peak learning rate of pretraining: AdamW, warmup, then a cosine to a tenth."""
    tune_lr: float = 2e-3
    """The same of the fine-tunes and of the multi-task model."""
    scales: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)
    """Where a method has a scaling coefficient: the ones to choose from, on validation
    windows."""
    test: int = 64
    """Windows of each domain's test files that all is measured on."""
    valid: int = 24
    """Windows of each domain's validation files that coefficients are chosen on."""
    probe: int = 96
    """Training windows of each domain that methods may look at: Fisher information,
    inputs of layers, coefficients by gradient."""
    steps: int = 60
    """Of the coefficients that are found by gradient."""
    replot: Path | None = None
    """A results.json: write its table and picture again, beside it; train nothing."""
    save: bool = False
    """With --replot: put table and picture into this experiment's README.md, too."""
    name: str = "merge_domains"
    """The run; the same name continues it."""
    runs: Path = Path("runs")
    """The folder that holds the runs."""
    fresh: bool = False
    """Delete a run of this name first."""

    @property
    def home(self) -> Path:
        return self.runs / self.name

    def numbers(self) -> dict:
        """The flags that every number depends on; --seeds only says how many there
        are, --methods which."""
        names = (
            "seed text seq_len d_model layers heads batch_size pretrain tune lr "
            "tune_lr scales test valid probe steps"
        )
        found = {name: getattr(self, name) for name in names.split()}
        # As JSON gives them back.
        return {k: [*v] if isinstance(v, tuple) else v for k, v in found.items()}


BOUNDS = {
    ">= 1": (
        lambda x: x >= 1,
        "seeds d_model layers heads batch_size pretrain tune test valid probe steps",
    ),
    ">= 2": (lambda x: x >= 2, "seq_len"),
    ">= 10000": (lambda x: x >= 10_000, "text"),
    "> 0": (lambda x: x > 0, "lr tune_lr scales"),
    "in [0, 2^31)": (lambda x: 0 <= x < 2**31, "seed"),
}
QUICK = {
    "methods": ("linear", "task_arithmetic", "ties", "tsv", "fisher", "karcher"),
    "seeds": 2,
    "text": 300_000,
    "pretrain": 150,
    "tune": 40,
    "test": 24,
    "valid": 12,
    "probe": 24,
    "name": "merge_domains-quick",
}


def parse(argv: list[str]) -> Domains:
    """The checked config; `--help` prints and leaves."""
    config = flags.parse(Domains, argv, "experiments.merge_domains", BOUNDS, QUICK)
    if not config.scales:
        raise BadInput("--scales: wanted one or more, came none")
    flags.distinct(config, "scales")
    if config.d_model % (2 * config.heads):
        wanted = f"a multiple of twice --heads, {2 * config.heads}"
        raise BadInput(f"--d-model: wanted {wanted}, came {config.d_model}")
    if config.save and not config.replot:
        raise BadInput("--save: wanted with --replot, came alone")
    return config
