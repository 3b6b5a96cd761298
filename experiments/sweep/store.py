"""What a sweep has measured, in its folder: sweep.json."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from .. import files
from ..config import BadInput

Results = dict[str, dict]  # by the name of a run: what it measured, or why it failed


@contextlib.contextmanager
def claim(home: Path, about: dict, fresh: bool) -> Iterator[Results]:
    """The sweep's folder for this process alone, and what it holds already."""
    kept = home / "sweep.json"
    try:
        if fresh and home.exists():
            with files.locked(home):
                _about(kept)  # refuses what is no sweep
                files.delete(home)
        if not home.exists():
            home.mkdir(parents=True)
            files.write_json(kept, about | {"runs": {}})
    except OSError as error:
        raise BadInput(f"--runs: cannot write {home}: {error.strerror}") from None
    with files.locked(home):
        before = _about(kept)
        differ = [key for key in about if before.get(key) != about[key]]
        if differ:
            raise BadInput(
                f"sweep {home.name!r} exists with another {' and '.join(differ)}. Take "
                "another --name, or --fresh to delete it"
            )
        yield before["runs"]


def _about(path: Path) -> dict:
    try:
        found = json.loads(path.read_text())
        if isinstance(found["runs"], dict):
            return found
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise BadInput(f"--name: {path.parent} exists and is no sweep")


def keep(home: Path, results: Results) -> None:
    kept = home / "sweep.json"
    files.write_json(kept, json.loads(kept.read_text()) | {"runs": results})
