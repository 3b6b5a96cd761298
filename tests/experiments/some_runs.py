"""Folders of runs as the training program leaves them, for what reads them."""

import json
import math
import time
from pathlib import Path

DOMAINS = ("os", "json", "small folders")


def write(
    home: Path,
    *,
    level: float = 2.5,
    seed: int = 0,
    steps: int = 600,
    upto: int | None = None,
    age: float = 0.0,
    step_s: float = 0.012,
    metric: str = "bits_per_byte",
    domains: tuple[str, ...] = DOMAINS,
    config: dict | None = None,
    env: dict | None = None,
) -> Path:
    """A run whose validation falls to `level`, cut off `age` seconds ago if `upto`."""
    home.mkdir(parents=True)
    about = {"digest": "ab12", "files": 812}
    flags = {"data": ["stdlib"], "steps": steps, "lr": 1e-3, "seed": seed}
    flags |= {"sharpness": [], "about": about, **(config or {})}
    versions = {"python": "3.11.2", "jax": "0.10.2", "devices": {"cpu": 8}}
    (home / "config.json").write_text(json.dumps(flags))
    (home / "env.json").write_text(json.dumps(versions | (env or {})))
    last = steps if upto is None else upto
    ended, valid = time.time() - age, None
    with (home / "metrics.jsonl").open("w") as file:
        for step in range(20, last + 1, 20):
            value = level + 3 * math.exp(-step / 120) - 3 * math.exp(-steps / 120)
            at = ended - (last - step) * step_s
            timing = {"train_s": step * step_s, "step_s": step_s, "at": at}
            wave = 0.05 * math.sin(step + level)
            row = {"step": step, "loss": 0.7 * value + wave, "timing": timing}
            if step % 60 == 0 or step == last:
                valid = {"loss": 0.7 * value, metric: value}
                valid["domains"] = {d: value + i / 10 for i, d in enumerate(domains)}
                row["valid"] = valid
            file.write(json.dumps(row) + "\n")
    if upto is None:
        done = {"step": last, "valid": valid, "timing": timing}
        (home / "results.json").write_text(json.dumps(done))
    return home
