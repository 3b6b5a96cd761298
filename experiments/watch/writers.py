"""Where rows of metrics go: a file, TensorBoard, and a tracker where one is wanted.

What was measured by the clock is in a row's "timing"; all else is the same, to the last
bit, however often the run was killed.
"""

import contextlib
import importlib
import importlib.util
import json
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path

from ..config import BadInput, Config, Failed, Watch
from ..files import plain, write


def check(watch: Watch) -> None:
    """BadInput where a tracker is wanted that is not installed."""
    name = watch.tracker
    if name != "none" and importlib.util.find_spec(name) is None:
        raise BadInput(f"--tracker {name}: not installed; pip install {name}")


class Log:
    """Everything that a row goes to; on processes other than the first, nothing.

    A context, so that all is flushed. `rows` are those of the file and the new ones.
    """

    def __init__(self, home: Path, config: Config, *, first: bool = True):
        self.rows, self._metrics, self._board, self._tracker = [], None, None, None
        self._home = home
        if not first:
            return
        check(config.watch)
        self._metrics = Metrics(home / "metrics.jsonl")
        self.rows = self._metrics.rows
        if config.watch.tensorboard:
            self._board = TensorBoard(home / "tensorboard")
        if config.watch.tracker != "none":
            sent = self.rows[-1]["step"] if self.rows else -1
            self._tracker = Tracker(config.watch.tracker, home, config.numbers(), sent)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *exception) -> None:
        with self._writing(), contextlib.ExitStack() as stack:
            if isinstance(exception[1], Failed):  # a full disk is still full
                stack.enter_context(contextlib.suppress(OSError))
            for writer in filter(None, (self._board, self._tracker)):
                stack.callback(writer.close)

    def rewind(self, step: int) -> None:
        """Forgets what came after `step`. Called once before the first row as well, and
        whenever the run goes back to a checkpoint."""
        with self._writing():
            if self._metrics:
                self._metrics.rewind(step)
            self.rows[:] = [row for row in self.rows if row["step"] <= step]
            if self._board:
                self._board.rewind(self.rows)

    def write(self, row: dict) -> dict:
        """The row to all of them, as JSON has it and with the time in its timing."""
        row = plain(row)
        row["timing"] = {**row.get("timing", {}), "at": round(time.time(), 3)}
        self.rows.append(row)
        with self._writing():
            for writer in (self._metrics, self._board, self._tracker):
                if writer:
                    writer.write(row)
        return row

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """An error of the disk becomes one line."""
        try:
            yield
        except OSError as error:
            said = f"cannot write the rows of {self._home} ({error.strerror or error})"
            raise Failed(f"{said}; the checkpoints remain") from None


class Metrics:
    """metrics.jsonl: one row a line, in the order of the steps."""

    def __init__(self, path: Path):
        self._path, self.rows = path, read(path)

    def rewind(self, step: int) -> None:
        """Forgets what came after `step`, and what came of a torn line."""
        self.rows[:] = [row for row in self.rows if row["step"] <= step]
        write(self._path, "".join(map(_line, self.rows)))

    def write(self, row: dict) -> None:
        with self._path.open("a") as file:
            file.write(_line(row))


def read(path: Path) -> list[dict]:
    """The rows of a file, without a torn last line or what else is no row."""
    rows = []
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    for line in lines:
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                rows.append(row)
    return rows


class TensorBoard:
    """Event files in a folder; always one, which holds every row once."""

    def __init__(self, folder: Path):
        self._folder, self._file = folder, None

    def rewind(self, rows: list[dict]) -> None:
        """Writes these rows anew, at the times that they had.

        Readers that have old points in memory forget them, from step 0 on.
        """
        # Not its SummaryWriter, which writes in a thread: where that dies of a full
        # disk, the program waits for it forever.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        self.close()
        self._folder.mkdir(exist_ok=True)
        old = list(self._folder.glob("events.out.tfevents.*"))
        suffix = f".{time.time_ns()}"  # a name of its own, also within one second
        self._file = EventsWriter(str(self._folder / "events"), suffix)
        self._add(0, time.time(), session_log=SessionLog(status=SessionLog.START))
        for row in rows:
            self.write(row)
        self._file.flush()
        for path in old:
            path.unlink(missing_ok=True)

    def write(self, row: dict) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        if self._file is None:
            self.rewind([])
        at = row.get("timing", {}).get("at") or time.time()
        points = [
            Summary.Value(tag=re.sub(r"[^\w./-]", "_", name), simple_value=value)
            for name, value in scalars(row)
        ]
        self._add(row["step"], at, summary=Summary(value=points))
        self._file.flush()

    def _add(self, step: int, at: float, **what) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._file.write_event(Event(step=step, wall_time=at, **what))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class Tracker:
    """Weights & Biases or trackio, which take the same calls.

    A run is continued under its name. What was sent cannot be taken back, so rows up to
    the last one sent are not sent again: after a kill they are the same.
    """

    def __init__(self, name: str, home: Path, config: dict, sent: int = -1):
        self._module, self._sent = importlib.import_module(name), sent
        about = {"project": "jaxtricks", "name": home.name, "config": config}
        if name == "wandb":
            about |= {"id": home.name, "dir": str(home)}
        self._module.init(**about, resume="allow")

    def write(self, row: dict) -> None:
        if row["step"] > self._sent:
            self._sent = row["step"]
            self._module.log(dict(scalars(row)), step=row["step"])

    def close(self) -> None:
        self._module.finish()


def scalars(row: dict, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Names like valid/domains/os and their finite numbers; the step is left out."""
    for name, value in row.items():
        if isinstance(value, dict):
            yield from scalars(value, f"{prefix}{name}/")
        elif name in ("step", "at") or not isinstance(value, int | float):
            continue
        elif math.isfinite(value):
            yield prefix + name, value


def _line(row: dict) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
