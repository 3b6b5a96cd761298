"""The folder of a run: one process claims it, and no kill leaves half a file in it."""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from .config import BadInput, Config

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def write(path: Path, save: Callable[[Path], None] | str) -> None:
    """The whole file or none of it: a text, or what `save` puts at the path it gets."""
    part = path.with_name(f".{path.name}")
    if isinstance(save, str):
        part.write_text(save)
    else:
        save(part)
    os.replace(part, path)


def write_json(path: Path, value) -> None:
    write(path, json.dumps(value, indent=2) + "\n")


@contextlib.contextmanager
def claim(config: Config, about: dict, say: Callable[[str], None]) -> Iterator[Path]:
    """The folder of the run, new or with the same config, for this process alone."""
    home = config.runs / config.name
    try:
        if config.fresh and home.exists():
            with _locked(home):
                _read_config(home)  # refuses what is no run
                _delete(home)
        if not home.exists():
            _create(home, config, about)
    except OSError as error:
        raise BadInput(f"--runs: cannot write {home}: {error.strerror}") from None
    with _locked(home):
        _compare(_read_config(home), config, about)
        before = json.loads((home / "env.json").read_text())
        now = environment()
        changed = [k for k in now if now[k] != before.get(k)]
        if changed:
            was = ", ".join(f"{k} {before.get(k)} -> {now[k]}" for k in changed)
            say(f"since this run began: {was}; the last digits may differ")
        yield home


def environment() -> dict:
    """What the last digits of a number may depend on."""
    import jax

    import jaxtricks

    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "jaxtricks": jaxtricks.__version__,
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "devices": [str(device.device_kind) for device in jax.devices()],
    }


def _create(home: Path, config: Config, about: dict) -> None:
    new = home.with_name(f".{home.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    write_json(new / "config.json", config.numbers() | {"text": about})
    write_json(new / "env.json", environment())
    new.rename(home)


def _delete(home: Path) -> None:
    """In two moves, so that a kill between leaves no half run under the name."""
    old = home.with_name(f".{home.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    home.rename(old)
    shutil.rmtree(old, ignore_errors=True)


def _read_config(home: Path) -> dict:
    try:
        return json.loads((home / "config.json").read_text())
    except (OSError, ValueError):
        raise BadInput(f"--name: {home} exists and is no run of this program") from None


def _compare(before: dict, config: Config, about: dict) -> None:
    now = config.numbers()
    text = before.get("text", {})
    differ = [
        f"{name} was {before.get(name)}, is {now[name]}"
        for name in now
        if before.get(name) != now[name]
    ]
    if text.get("digest") != about["digest"]:
        was, now = (
            f"{t.get('files')} files, {t.get('bytes')} bytes, digest {t.get('digest')}"
            for t in (text, about)
        )
        differ.append(f"text was {was}, is {now}")
    if differ:
        raise BadInput(
            f"run {config.name!r} exists with a different config: {'; '.join(differ)}. "
            "Take another --name, or --fresh to delete it"
        )


@contextlib.contextmanager
def _locked(folder: Path):
    """The folder itself is the lock, which a killed process lets go."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"--name: {folder} is in use by another process") from None
        yield
    finally:
        os.close(handle)


class Metrics:
    """metrics.jsonl: one row a line, in the order of the arms and of the steps.

    What was measured by the clock is in a row's "timing"; all else is the same, to the
    last bit, however often the run was killed.
    """

    def __init__(self, path: Path, arms: tuple[str, ...]):
        self._path, self._arms = path, arms
        self.rows = []
        for line in path.read_text().splitlines() if path.exists() else []:
            with contextlib.suppress(ValueError):  # the last line of a killed run
                self.rows.append(json.loads(line))

    def of(self, arm: str) -> list[dict]:
        return [row for row in self.rows if row["arm"] == arm]

    def rewind(self, arm: str, step: int) -> None:
        """Forgets what an arm did after `step`, and what came of a torn line."""
        self.rows = [r for r in self.rows if r["arm"] != arm or r["step"] <= step]
        self.rows.sort(key=lambda row: (self._arms.index(row["arm"]), row["step"]))
        write(self._path, "".join(map(_line, self.rows)))

    def append(self, row: dict) -> None:
        self.rows.append(row)
        with self._path.open("a") as file:
            file.write(_line(row))


def _line(row: dict) -> str:
    return json.dumps(row) + "\n"
