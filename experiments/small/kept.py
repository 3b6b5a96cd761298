"""What is measured once and kept in a file, so that a killed run goes on."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import files
from ..config import BadInput
from ..sweep.board import Board


def once(
    path: Path,
    what: str,
    measure: Callable[[], Any],
    board: Board,
    brief: Callable[[Any], str] = lambda found: "",
) -> Any:
    """What the file holds, after measuring if it is not there."""
    if path.exists():
        board.skip()
        return json.loads(path.read_text())
    board.show(what)
    began = time.perf_counter()
    found = files.plain(measure())
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, found)
    board.done(f"{what}  {brief(found)}".rstrip(), time.perf_counter() - began)
    return found


def results(path: Path, look: Callable[[dict], Any]) -> dict:
    """The results.json that --replot names, at which `look` finds what it needs."""
    try:
        kept = json.loads(path.read_text())
        look(kept)
    except OSError as error:
        raise BadInput(f"--replot: cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, StopIteration):
        raise BadInput(f"--replot: {path} is no results.json of this program") from None
    return kept
