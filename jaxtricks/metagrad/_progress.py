"""A bar for loops on the host, where `rich` is installed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax

Tick = Callable[[int, str], None]


@contextmanager
def bar(on: bool, total: Callable[[], int]) -> Iterator[Tick]:
    """(steps done, what is being done) -> None, which moves it."""
    if not on or jax.process_index() != 0:
        yield lambda steps, what: None
        return
    try:
        from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
    except ImportError:
        raise ValueError("progress: wants rich, which is not installed") from None
    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        task = progress.add_task("", total=total())

        def tick(steps: int, what: str) -> None:
            progress.update(task, advance=steps, description=what)

        yield tick
