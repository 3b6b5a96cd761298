"""What the user sees while runs are made: a bar, or lines."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ..runs import clean
from ..watch.screen import duration


class Board:
    """A bar on a terminal, a line per run elsewhere."""

    def __init__(self, console: Console):
        self._console, self._lasted, self._left, self._total = console, [], 0, 0
        self._said = ""
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar = self._bars.add_task("runs", total=None, said="")

    def __enter__(self) -> "Board":
        self._bars.start()
        return self

    def __exit__(self, *exception) -> None:
        self._bars.stop()

    def begin(self, total: int) -> None:
        self._left = self._total = total
        self._bars.update(self._bar, total=total)

    def say(self, line: str) -> None:
        self._console.print(clean(line), soft_wrap=True, markup=False)

    def say_once(self, line: str) -> None:
        """Unless it was said last."""
        if line != self._said:
            self.say(line)
        self._said = line

    def show(self, name: str) -> None:
        """What is being run."""
        self._bars.update(self._bar, said=f"{name}  {self._eta()}")

    def skip(self) -> None:
        """One that was done before."""
        self._left -= 1
        self._bars.update(self._bar, advance=1)

    def done(self, line: str, seconds: float) -> None:
        """One that took so long."""
        self._left -= 1
        self._lasted.append(seconds)
        self._bars.update(self._bar, advance=1, said=self._eta())
        at = f"{self._total - self._left}/{self._total}"
        self.say(f"{at}  {line}  {duration(self._lasted[-1])}  {self._eta()}".rstrip())

    def _eta(self) -> str:
        if not self._lasted or not self._left:
            return ""
        mean = sum(self._lasted) / len(self._lasted)
        return f"ETA {duration(self._left * mean)}"


def brief(outcome: dict) -> str:
    kept = list(outcome["measured"].items())[:3]
    return "  ".join(
        f"{clean(k)} {'not finite' if v is None else f'{v:.4g}'}" for k, v in kept
    )
