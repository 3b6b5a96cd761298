"""The demo's flags: those of the training program, and which arms to compare."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from ..config import BadInput, Config, Run, check, read

ARMS = ("adamw", "wsd", "sam", "reweight", "all", "average")


@dataclass(frozen=True)
class Arms:
    """What is compared."""

    arms: tuple[str, ...] = ARMS
    """What to train, separated by spaces or commas. `average` needs `all`."""
    decay: float = 0.2
    """Part of the steps in which wsd decays at the end."""
    rho: float = 0.05
    """Radius of SAM."""
    temperature: float = 1.0
    """Of the weights in reweight; large is uniform."""


@dataclass(frozen=True)
class Demo(Config):
    """Pretrain a small byte-level transformer once per arm, on the same tokens in the
    same order, and compare. The arms: adamw (AdamW + cosine), wsd (another schedule),
    sam (sharpness-aware gradients), reweight (loss-based weights), all (these three
    together), average (of the last checkpoints of `all`; no training). Killed at any
    moment, it continues when started again with the same flags. Each arm is a run in
    RUNS/NAME/ARM.
    """

    compare: Arms = field(default_factory=Arms)
    run: Run = field(default_factory=lambda: Run(name="lm"))

    @property
    def arms(self) -> tuple[str, ...]:
        return self.compare.arms

    @property
    def home(self) -> Path:
        return self.run.runs / self.run.name

    def steps_saved(self) -> list[int]:
        """The steps of the checkpoints that a finished arm has kept."""
        faults, steps = self.faults, self.training.steps
        saved = {*range(faults.save_every, steps, faults.save_every), steps}
        return sorted(saved)[-faults.keep :]


def parse(argv: list[str]) -> Demo:
    """The checked config; `--help` prints and leaves."""
    demo = read(Demo, argv, "python -m experiments.lm")
    check(demo)
    arms = [arm for group in demo.arms for arm in group.split(",") if arm]
    for arm in arms:
        if arm not in ARMS:
            raise BadInput(f"--arms: unknown arm {arm!r}; there are {', '.join(ARMS)}")
    if not arms:
        raise BadInput(f"--arms: wanted one or more of {', '.join(ARMS)}")
    if "average" in arms and "all" not in arms:
        raise BadInput("--arms: average is of the checkpoints of all; add all")
    if not 0 < demo.compare.decay <= 1 - demo.training.warmup:
        wanted = "wanted > 0 and <= 1 - warmup"
        raise BadInput(f"--decay: {wanted}, came {demo.compare.decay}")
    if not demo.compare.temperature > 0:
        raise BadInput(f"--temperature: wanted > 0, came {demo.compare.temperature}")
    if not demo.compare.rho >= 0:
        raise BadInput(f"--rho: wanted >= 0, came {demo.compare.rho}")
    if demo.model.model != "transformer":
        raise BadInput(f"--model: wanted transformer, came {demo.model.model}")
    ordered = tuple(arm for arm in ARMS if arm in arms)
    return dataclasses.replace(
        demo, compare=dataclasses.replace(demo.compare, arms=ordered)
    )
