"""What the user sees: bars on a terminal, a line per evaluation elsewhere."""

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from .arms import TRICKS
from .config import Config
from .data import Bits, Text


class Screen:
    """Progress of all arms; a context, so that the terminal is left clean."""

    def __init__(self, config: Config):
        self.console = Console(highlight=False)
        self._steps = config.steps
        self._left = {arm: config.steps for arm in config.arms if arm in TRICKS}
        self._bars = Progress(
            TextColumn("{task.description:8}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._tasks = {
            arm: self._bars.add_task(arm, total=config.steps, said="", visible=False)
            for arm in config.arms
        }

    def __enter__(self) -> "Screen":
        self._bars.start()
        return self

    def __exit__(self, *exception) -> None:
        self._bars.stop()

    def say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, markup=False)

    def introduce(self, text: Text, baselines: dict[str, Bits], home: Path) -> None:
        about = text.about
        size, held_out = about["bytes"] / 1e6, about["valid_bytes"] / 1e6
        self.say(f"run   {home}; killed, it continues when started again")
        self.say(
            f"text  {about['files']} files of {about['root']}: {size:.1f} MB in "
            f"{len(text.domains)} domains, {held_out:.2f} MB held out"
        )
        if about["binary_files_left_out"]:
            self.say(f"      {about['binary_files_left_out']} binary files left out")
        counted = ", ".join(f"{k} {bits.overall:.3f}" for k, bits in baselines.items())
        self.say(f"      {counted} bits/byte, by counting")

    def begin(self, arm: str, step: int) -> None:
        self._line(arm, step, f"goes on from step {step}" if step else "compiles")

    def update(self, row: dict) -> None:
        """After a row of metrics."""
        arm, step, timing = row["arm"], row["step"], row["timing"]
        self._left[arm] = self._steps - step
        # A step of SAM is two gradients; the time left is reckoned in gradients.
        left = sum(steps * _gradients(other) for other, steps in self._left.items())
        eta = round(left * timing["step_s"] / _gradients(arm))
        said = (
            f"loss {row['loss']:.3f}  {timing['tokens_per_s'] / 1000:.1f}k tokens/s  "
            f"ETA {eta // 60}:{eta % 60:02}"
        )
        if "valid" in row:
            valid = f"valid {row['valid']['bits_per_byte']:.3f} bits/byte"
            self._line(arm, step, f"{said}  {valid}")
        self._bars.update(self._tasks[arm], completed=step, said=said)

    def end(self, arm: str, valid: float) -> None:
        """When an arm is done, now or in an earlier session."""
        self._left[arm] = 0
        said = f"valid {valid:.3f} bits/byte"
        self._bars.update(
            self._tasks[arm], completed=self._steps, said=said, visible=True
        )

    def _line(self, arm: str, step: int, said: str) -> None:
        self._bars.update(self._tasks[arm], completed=step, said=said, visible=True)
        if not self.console.is_terminal:
            self.say(f"{arm:8}  step {step:>5}/{self._steps}  {said}")


def _gradients(arm: str) -> int:
    return 2 if "sam" in TRICKS.get(arm, ()) else 1
