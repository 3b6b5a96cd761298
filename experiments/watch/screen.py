"""What the user sees: a bar on a terminal, a line per evaluation elsewhere."""

import math

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ..config import Config


class Screen:
    """Progress of a run; a context, so that the terminal is left clean. Processes other
    than the first show nothing."""

    def __init__(
        self,
        config: Config,
        *,
        unit: str = "tokens",
        first: bool = True,
        console: Console | None = None,
    ):
        self.console = console or Console(highlight=False, quiet=not first)
        self._unit, self._steps = unit, config.training.steps
        self._name, self._valid = config.run.name, ""
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}", markup=False),
            console=self.console,
            disable=not (first and self.console.is_terminal),
        )
        self._bar = self._bars.add_task(self._name, total=self._steps, said="")

    def __enter__(self) -> "Screen":
        self._bars.start()
        return self

    def __exit__(self, *exception) -> None:
        self._bars.stop()

    def say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, markup=False)

    def begin(self, step: int) -> None:
        """Before the first step of this session."""
        self._show(step, f"goes on from step {step}" if step else "compiles", True)

    def row(self, row: dict) -> None:
        """After a row of metrics; a line of its own where it has an evaluation."""
        said = [f"loss {_number(row.get('loss'))}"]
        timing = row.get("timing", {})
        rate, step_s = timing.get(f"{self._unit}_per_s"), timing.get("step_s")
        if rate is not None:
            said.append(f"{short(rate)} {self._unit}/s")
        if timing.get("mfu") is not None:
            said.append(f"MFU {100 * timing['mfu']:.1f}%")
        if step_s is not None:
            left = duration((self._steps - row["step"]) * step_s)
            said.append(f"ETA {left}")
        if row.get("skipped"):
            said.append(f"{row['skipped']} skipped")
        if "valid" in row:
            self._valid = f"valid {valid(row['valid'])}"
        shown = [*said, self._valid] if self._valid else said
        self._show(row["step"], "  ".join(shown), "valid" in row)

    def end(self, step: int, last: dict | None = None) -> None:
        """When the run is done, now or in an earlier session; `last` is its last
        evaluation."""
        said = f"done  valid {valid(last)}" if last else "done"
        self._show(step, said, True)

    def _show(self, step: int, said: str, line: bool) -> None:
        self._bars.update(self._bar, completed=step, said=said)
        if line and not self.console.is_terminal:
            width = len(str(self._steps))
            self.say(f"{self._name}  step {step:>{width}}/{self._steps}  {said}")


def valid(values: dict) -> str:
    """An evaluation in a few words."""
    if values.get("bits_per_byte") is not None:
        return f"{_number(values['bits_per_byte'])} bits/byte"
    if values.get("accuracy") is not None:
        return f"{100 * values['accuracy']:.1f}% loss {_number(values.get('loss'))}"
    return f"loss {_number(values.get('loss'))}"


def short(number: float) -> str:
    """12.3k, 4.5M: three digits and a letter."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.{1 if number < 100 * size else 0}f}{letter}"
    return f"{number:.{0 if number >= 100 else 1}f}"


def duration(seconds: float) -> str:
    """0:12, 3:04:05, 2d 3h."""
    if not math.isfinite(seconds):
        return "?"
    whole = max(0, round(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days}d {hours % 24}h"
    if hours:
        return f"{hours}:{minutes % 60:02}:{whole % 60:02}"
    return f"{minutes}:{whole % 60:02}"


def _number(value: float | None) -> str:
    return "not finite" if value is None or not math.isfinite(value) else f"{value:.3f}"
