"""Tokens a second of the data loader, beside what the demo's model consumes.

`python -m experiments.benchmarks.loader` writes the standard library's text in every
form that `--data` reads to a temporary folder, draws batches of the demo's size and of
a larger one from each, in turn with steps of the demo's `adamw` arm, which is what
`experiments.train` trains by default (so that what else the machine does falls on all
alike), and prints medians. It fails where the loader is less than 5 times as fast.
"""

import dataclasses
import itertools
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from experiments import data
from experiments.config import Data

SHAPES = ((8, 128), (64, 1024))  # the demo's, and a larger one
PACKS = ("windows", "stream", "fit")
WANTED = 5.0  # times what the model consumes
DOCUMENT = 2000  # bytes, where the text is cut into rows or records


@dataclasses.dataclass(frozen=True)
class Config:
    """Tokens a second of the data loader, beside what the demo's model consumes."""

    step_ms: float = 0.0
    """Milliseconds of a step of the demo's model; 0 to measure it here."""
    rounds: int = 30
    """Laps of each, taken in turn."""
    workers: int = 0
    """Threads that prepare batches ahead."""


def main() -> None:
    config = tyro.cli(Config)
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        laps, units = {}, {}
        for name, source in write(Path(folder)).items():
            for pack in PACKS if "cuts" not in name else ("stream",):
                for shape in SHAPES:
                    key = (name, pack, shape)
                    laps[key] = lap(source, pack, shape, config.workers)
                    units[key] = shape[0] * shape[1]
        if not config.step_ms:
            laps["model"] = model()
        seconds = in_turn(laps, config.rounds)
    step = config.step_ms / 1000 or seconds.pop("model")
    consumed = SHAPES[0][0] * SHAPES[0][1] / step
    rates = {key: units[key] / s for key, s in seconds.items()}
    console.print(table(rates, consumed, step))
    least = min(rates, key=rates.__getitem__)
    times = rates[least] / consumed
    said = f"{least[0]}, {least[1]}, {least[2][0]} x {least[2][1]}"
    console.print(f"least: {times:.1f} times what the model consumes ({said})")
    sys.exit(times < WANTED)


def write(folder: Path) -> dict[str, dict]:
    """The flags of each source, its files written."""
    from array_record.python.array_record_module import ArrayRecordWriter
    from datasets import Dataset, disable_progress_bars

    from experiments.data import text

    disable_progress_bars()
    _, texts, _ = text.files(text.library(), text.is_library)
    whole = b"".join(texts)
    rows = [whole[i : i + DOCUMENT] for i in range(0, len(whole), DOCUMENT)]
    tokens = np.frombuffer(whole, np.uint8)
    np.save(folder / "tokens.npy", tokens)
    tokens.astype(np.uint16).tofile(folder / "tokens.bin")
    record = folder / "tokens.uint8.array_record"
    writer = ArrayRecordWriter(str(record), "group_size:1")
    for row in rows:
        writer.write(row)
    writer.close()
    words = [row.decode(errors="replace") for row in rows]
    Dataset.from_dict({"text": words}).save_to_disk(folder / "text")
    ids = [np.frombuffer(row, np.uint8) for row in rows]
    Dataset.from_dict({"input_ids": ids}).save_to_disk(folder / "ids")
    vocabulary = {"vocab": 256}
    newline = vocabulary | {"eos": 10}
    return {
        "standard library": {"data": ("stdlib",)},
        ".npy, plain cuts": {"data": (str(folder / "tokens.npy"),)} | vocabulary,
        ".bin, plain cuts": {"data": (str(folder / "tokens.bin"),)} | vocabulary,
        ".bin, --eos": {"data": (str(folder / "tokens.bin"),)} | newline,
        "ArrayRecord": {"data": (str(record),)} | vocabulary,
        "datasets, text": {"data": (str(folder / "text"),)},
        "datasets, tokens": {"data": (str(folder / "ids"),)} | vocabulary,
    }


def lap(
    source: dict, pack: str, shape: tuple[int, int], workers: int
) -> Callable[[], float]:
    """A function that draws some batches and returns the seconds that one took."""
    batch, length = shape
    flags = {"batch_size": batch, "seq_len": length, "pack": pack, "workers": workers}
    config = Data(**source, **flags)
    stream = data.stream(data.load(config, seed=0), config, steps=1000, seed=0)
    many = max(1, 2**15 // (batch * length))

    def run():
        began = time.perf_counter()
        for _ in itertools.repeat(None, many):
            next(stream)
        return (time.perf_counter() - began) / many

    return run


def model() -> Callable[[], float]:
    """The same, of a training step."""
    import jax

    from experiments import mesh as meshes
    from experiments import step
    from experiments.config import parse

    config = parse(["--mesh-data", "1"])
    dataset = data.load(config.data, seed=0)
    mesh = meshes.make(config.mesh)
    program = step.build(config, dataset, mesh)
    stream = data.stream(dataset, config.data, steps=1000, seed=0)
    batch = meshes.put(next(stream), mesh)
    state = program.init()

    def run():
        nonlocal state
        began = time.perf_counter()
        state, _ = jax.block_until_ready(program.step(state, batch, math.inf))
        return time.perf_counter() - began

    return run


def in_turn(laps: dict, rounds: int) -> dict:
    """The median seconds of each."""
    times = {key: [] for key in laps}
    for i in range(rounds + 1):
        for key, run in laps.items():
            seconds = run()
            if i:  # the first lap warms up
                times[key].append(seconds)
    return {key: statistics.median(of) for key, of in times.items()}


def table(rates: dict, consumed: float, step: float) -> Table:
    shown = Table(title="million tokens a second, and times what the model consumes")
    for column, side in (("source", "left"), ("pack", "left")):
        shown.add_column(column, justify=side)
    for batch, length in SHAPES:
        shown.add_column(f"{batch} x {length}", justify="right")
        shown.add_column("times", justify="right")
    for name, pack in dict.fromkeys(key[:2] for key in rates):
        cells = []
        for rate in (rates[name, pack, shape] for shape in SHAPES):
            cells += [f"{rate / 1e6:.2f}", f"{rate / consumed:.0f}"]
        shown.add_row(name, pack, *cells)
    said = f"the model: {consumed / 1e6:.4f} (a step takes {1000 * step:.1f} ms)"
    shown.caption = said
    return shown


if __name__ == "__main__":
    main()
