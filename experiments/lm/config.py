"""What can be asked of the program, what is refused, and what every flag means."""

import contextlib
import dataclasses
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path

ARMS = ("adamw", "wsd", "sam", "reweight", "all", "average")

# Where a run lives and what it is called do not change its numbers; the text in `data`
# is compared by content.
PLACE = ("name", "runs", "fresh", "data")


class BadInput(Exception):
    """What the user asked for cannot be done; the message is one line."""


@dataclass(frozen=True)
class Config:
    """Pretrain a small byte-level transformer once per arm, on the same tokens in the
    same order, and compare. The arms: adamw (AdamW + cosine), wsd (another schedule),
    sam (sharpness-aware gradients), reweight (loss-based weights), all (these three
    together), average (of the last checkpoints of `all`; no training). Killed at any
    moment, it continues when started again with the same flags. Everything is written
    to RUNS/NAME.
    """

    arms: tuple[str, ...] = ARMS
    """What to train, separated by spaces or commas. `average` needs `all`."""
    data: Path | None = None
    """A folder of text files, whose top-level folders and files are the domains. None:
    the running Python's own standard library."""
    name: str = "lm"
    """The run; the same name continues it."""
    runs: Path = Path("runs")
    """The folder that holds the runs, and the compilation cache in RUNS/.cache."""
    fresh: bool = False
    """Delete a run of this name first."""

    steps: int = 600
    """Updates per arm."""
    batch_size: int = 8
    """Windows in a batch."""
    seq_len: int = 128
    """Bytes in a window."""
    d_model: int = 64
    """Width of the transformer."""
    layers: int = 2
    """Blocks, each of attention and a perceptron of 4 times the width."""
    heads: int = 2
    """Attention heads; d_model / heads must be even, for the rotary positions."""
    tied: bool = True
    """The head is the transposed embedding; with --no-tied, a matrix of its own."""

    lr: float = 5e-3
    """Peak learning rate, of both schedules."""
    lr_end: float = 0.1
    """Where both schedules end, as a part of the peak."""
    warmup: float = 0.05
    """Part of the steps in which the learning rate rises, and reweighting comes in."""
    decay: float = 0.2
    """Part of the steps in which wsd decays at the end."""
    weight_decay: float = 0.1
    """Of AdamW, on matrices."""
    clip: float = 1.0
    """Largest norm of the gradient, after SAM."""
    rho: float = 0.05
    """Radius of SAM."""
    temperature: float = 1.0
    """Of the weights in reweight; large is uniform."""
    seed: int = 0
    """Of the parameters and of the order of the data."""

    valid_fraction: float = 0.05
    """Part of each domain's bytes, in whole files, held out for validation."""
    valid_windows: int = 512
    """Windows that are evaluated, as many of each domain."""
    valid_every: int = 75
    """Steps between evaluations."""
    log_every: int = 10
    """Steps between rows of metrics.jsonl."""
    save_every: int = 30
    """Steps between checkpoints."""
    keep: int = 3
    """Checkpoints kept per arm, and averaged by `average`."""

    def steps_saved(self) -> list[int]:
        """The steps of the checkpoints that a finished arm has kept."""
        steps = {*range(self.save_every, self.steps, self.save_every), self.steps}
        return sorted(steps)[-self.keep :]

    def numbers(self) -> dict:
        """The fields that a run's numbers depend on, as JSON has them."""
        fields = dataclasses.asdict(self)
        return {k: _jsonable(v) for k, v in fields.items() if k not in PLACE}


def _jsonable(value):
    return list(value) if isinstance(value, tuple) else value


def parse(argv: list[str]) -> Config:
    """The checked config; `--help` prints and leaves."""
    import tyro

    described = tyro.conf.configure(tyro.conf.FlagCreatePairsOff)(Config)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            config = tyro.cli(described, prog="python -m experiments.lm", args=argv)
    except SystemExit as leave:
        if leave.code:
            raise BadInput(_first_line(said.getvalue())) from None
        raise
    return check(config)


def _first_line(box: str) -> str:
    """What tyro's box of several lines says first, below its title."""
    lines = [
        re.sub(r"[^\x20-\x7e]", "", line).strip(" +-|") for line in box.split("\n")
    ]
    lines = [line for line in lines if line]
    return lines[1] if len(lines) > 1 else box.strip()


def check(config: Config) -> Config:
    """The config with its arms in order, or BadInput."""
    arms = [arm for group in config.arms for arm in group.split(",") if arm]
    for arm in arms:
        if arm not in ARMS:
            raise BadInput(f"--arms: unknown arm {arm!r}; there are {', '.join(ARMS)}")
    if not arms:
        raise BadInput(f"--arms: wanted one or more of {', '.join(ARMS)}")
    if "average" in arms and "all" not in arms:
        raise BadInput("--arms: average is of the checkpoints of all; add all")
    if not re.fullmatch(r"\w[\w.-]*", config.name):
        raise BadInput(f"--name: wanted letters, digits, . _ -, came {config.name!r}")
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise BadInput(f"{_flag(field.name)}: wanted a finite number, came {value}")
    at_least_one = "steps batch_size seq_len layers heads valid_windows valid_every"
    for name in (*at_least_one.split(), "log_every", "save_every", "keep"):
        _want(config, name, ">= 1", lambda x: x >= 1)
    for name in ("lr", "lr_end", "clip", "temperature"):
        _want(config, name, "> 0", lambda x: x > 0)
    for name in ("weight_decay", "rho", "seed", "warmup", "decay"):
        _want(config, name, ">= 0", lambda x: x >= 0)
    _want(config, "seed", "< 2^32", lambda x: x < 2**32)
    _want(config, "lr_end", "<= 1", lambda x: x <= 1)
    _want(config, "valid_fraction", "in (0, 1)", lambda x: 0 < x < 1)
    _want(config, "decay", "<= 1 - warmup", lambda x: x + config.warmup <= 1)
    even = f"a multiple of {2 * config.heads}, an even width for each of the heads"
    _want(config, "d_model", even, lambda x: x >= 1 and x % (2 * config.heads) == 0)
    return dataclasses.replace(config, arms=tuple(arm for arm in ARMS if arm in arms))


def _want(config: Config, name: str, wanted: str, holds) -> None:
    value = getattr(config, name)
    if not holds(value):
        raise BadInput(f"{_flag(name)}: wanted {wanted}, came {value}")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
