"""Runs of a program: one process after the other."""

import ast
import contextlib
import importlib.util
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..config import BadInput
from ..runs import clean
from .board import Board, brief
from .grid import Point
from .stop import Stopped
from .store import Results, keep

# Dies with the sweep, also when that is killed: the run continues when it is restarted.
BOUND = """
import ctypes, os, signal, sys
try:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
except (AttributeError, OSError):
    pass  # not Linux
os.execv(sys.argv[1], sys.argv[1:])
"""


def find(program: str) -> tuple[Path | None, list[str]]:
    """The file, if it defines run(config, seed); and the words that start it."""
    path = Path(program)
    if path.suffix == ".py" or "/" in program:
        if not path.is_file():
            raise BadInput(f"{program}: wanted a file or a module, came no file")
        module = _module(path)
        words = [sys.executable, *(["-m", module] if module else [str(path)])]
        return (path if _defines_run(path) else None), words
    spec = None
    if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", program):
        with contextlib.suppress(ImportError, ValueError), on_path(Path.cwd()):
            spec = importlib.util.find_spec(program)
    if spec is None:
        raise BadInput(f"{program}: wanted a file or a module, came neither")
    path = Path(spec.origin or "")
    is_function = path.suffix == ".py" and _defines_run(path)
    return (path if is_function else None), [sys.executable, "-m", program]


def _module(path: Path) -> str | None:
    """experiments.train for .../experiments/train.py; None for a file of no package, or
    of one that cannot be imported from here."""
    names, folder = [path.stem], path.resolve().parent
    while (folder / "__init__.py").is_file():
        names, folder = [folder.name, *names], folder.parent
    found = {Path(entry).resolve() for entry in (Path.cwd(), *sys.path)}
    return ".".join(names) if names[1:] and folder in found else None


def _defines_run(path: Path) -> bool:
    """Whether the file, which is not run for this, defines run(config, seed)."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise BadInput(f"{path}: not a Python file: {error}") from None
    return any(
        isinstance(node, ast.FunctionDef)
        and node.name == "run"
        and [arg.arg for arg in node.args.args] == ["config", "seed"]
        for node in tree.body
    )


@contextlib.contextmanager
def on_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def launch(
    commands: dict[str, list[str]],
    points: Sequence[Point],
    seeds: int,
    results: Results,
    home: Path,
    board: Board,
) -> None:
    """Starts every run whose results are not there yet."""
    for point in points:
        for seed in range(seeds):
            name, began = point.run(seed), time.perf_counter()
            measured = _measured(home / name / "results.json")
            if measured is not None:
                results[name] = measured
                board.skip()
                continue
            log = home / "logs" / f"{name}.log"
            log.parent.mkdir(exist_ok=True)
            status = _start(commands[name], log, name, board)
            measured = _measured(home / name / "results.json")
            if status == 0 and measured is not None:
                results[name] = measured
            else:
                results[name] = {"failed": _why(status, log), "log": str(log)}
            keep(home, results)
            said = results[name].get("failed") or brief(results[name])
            board.done(
                f"{point.label} seed {seed}: {said}", time.perf_counter() - began
            )


def _start(command: list[str], log: Path, name: str, board: Board) -> int:
    """The exit status. A signal is handed on, once, and its effect waited for."""
    bound = [sys.executable, "-c", BOUND, *command]
    with log.open("wb") as out:
        process = subprocess.Popen(
            bound,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C reaches it through us alone
        )
        board.show(name)
        try:
            return process.wait()
        except Stopped:
            process.terminate()
            process.wait()  # which a second signal ends
            raise
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _measured(path: Path) -> dict | None:
    """The scalars of a results.json: its validation's, and the time of a step."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict):
        return None
    valid, timing = found.get("valid"), found.get("timing")
    kept = valid if isinstance(valid, dict) else found
    out = {k: v for k, v in kept.items() if _is_scalar(v) and k != "step"}
    if isinstance(timing, dict) and "step_s" in timing:
        out["step_s"] = timing["step_s"]
    return {"measured": out}


def _is_scalar(value) -> bool:
    return value is None or isinstance(value, int | float)


def _why(status: int, log: Path) -> str:
    """The last line that a run said, or what ended it."""
    lines = log.read_text(errors="replace").split("\n")
    last = next((clean(line.strip()) for line in reversed(lines) if line.strip()), "")
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    if status == 0:
        return "ended without its results.json" + f": {last}" * bool(last)
    return last or f"exit status {status}"
