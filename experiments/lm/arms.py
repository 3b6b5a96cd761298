"""What each arm is: flags of the training program."""

import dataclasses

from ..config import Config, Run
from .config import Demo


def config(arm: str, demo: Demo) -> Config:
    """The run of an arm: what the demo's flags say, and its tricks."""
    given, steps = demo.compare, demo.training.steps
    wsd = {"schedule": ("wsd", f"decay_steps={max(1, int(given.decay * steps))}")}
    sam = {"sharpness": ("sam", f"rho={given.rho}")}
    reweight = {"weighting": ("linupper", f"temperature={given.temperature}")}
    tricks = {
        "adamw": {},
        "wsd": wsd,
        "sam": sam,
        "reweight": reweight,
        "all": wsd | sam | reweight,
    }
    sections = {
        section.name: getattr(demo, section.name)
        for section in dataclasses.fields(Config)
    }
    sections["training"] = dataclasses.replace(demo.training, **tricks[arm])
    sections["run"] = Run(name=arm, runs=demo.home, fresh=demo.run.fresh)
    return Config(**sections)
