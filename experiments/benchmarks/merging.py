"""Merging files: CPU seconds, wall clock and memory of whole processes.

    python -m experiments.benchmarks.merging [--mergekit PYTHON]

Writes a random base of Llama's shape and fine-tunes of it to a temporary folder, and
merges them by `jaxtricks merge`; by `mergekit-yaml` as well where `--mergekit` names an
interpreter that has it. The default is 184 M parameters, 735 MB a checkpoint in f32.
The table goes to docs/merging.md, between two markers.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
import tyro
from rich.console import Console

from jaxtricks.merging.files._safetensors import encode_header
from jaxtricks.merging.files._tensors import Tensor

from .. import pages
from ..config import BadInput, Failed
from ..small.tables import markdown

PROGRAM = "experiments.benchmarks.merging"
HEAD = (
    "program", "merge", "models", "MB each", "CPU s", "wall s", "peak MB",
    "anonymous MB",
)  # fmt: skip
CHILD = """
import resource, subprocess, sys, time
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
anonymous = 0
while child.poll() is None:
    try:
        for line in open(f"/proc/{child.pid}/status"):
            if line.startswith("RssAnon:"):
                anonymous = max(anonymous, int(line.split()[1]))
    except OSError:
        pass
    time.sleep(0.02)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(child.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss, anonymous)
"""


@dataclass(frozen=True)
class Config:
    """CPU seconds, wall clock and memory of merges of files, as whole processes."""

    width: int = 1024
    """Of the residual stream; the MLP is four times as wide."""
    layers: int = 9
    """Blocks; a third of them where growth is shown."""
    vocab: int = 16000
    """Rows of the embedding and of the head."""
    dtype: str = "float32"
    """Of the checkpoints."""
    methods: tuple[str, ...] = ("linear", "ties")
    """Of linear, slerp, task_arithmetic, ties, dare_ties, model_stock."""
    rounds: int = 1
    """Times that all are run, in turn; the least of each is shown."""
    workers: int = 0
    """Tensors in flight; 0 is as the command has it."""
    folder: Path | None = None
    """Where to work; a temporary folder."""
    mergekit: Path | None = None
    """A Python that has mergekit, to run beside."""
    docs: Path | None = Path("docs/merging.md")
    """The page that gets the table, between its markers; None for none."""


class Merge(NamedTuple):
    """What one process does; `models` without the base."""

    program: str
    method: str
    models: int
    layers: int


class Cost(NamedTuple):
    cpu: float
    wall: float
    peak: float  # MB, pages of mapped files among them
    anonymous: float  # MB without these


def merges(config: Config) -> Iterator[Merge]:
    """Each method of both programs, then what ours takes of more models and bytes."""
    programs = ("jaxtricks", "mergekit") if config.mergekit else ("jaxtricks",)
    for method in config.methods:
        for program in programs:
            count = 1 if method == "slerp" else 2
            yield Merge(program, method, count, config.layers)
    for method in config.methods:
        if method != "slerp":
            yield Merge("jaxtricks", method, 3, config.layers)
            yield Merge("jaxtricks", method, 2, max(1, config.layers // 3))


def write(folder: Path, config: Config, layers: int) -> int:
    """The base and its fine-tunes; the bytes of one."""
    folder.mkdir()
    kind = np.dtype(getattr(ml_dtypes, config.dtype, None) or config.dtype)
    shapes = llama(config.width, layers, config.vocab)
    facts = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": config.width,
        "intermediate_size": 4 * config.width,
        "num_attention_heads": max(1, config.width // 64),
        "num_key_value_heads": max(1, config.width // 64),
        "num_hidden_layers": layers,
        "vocab_size": config.vocab,
        "tie_word_embeddings": False,
        "torch_dtype": config.dtype,
    }
    names = ["base", "m1", "m2", "m3"]
    rngs = {name: np.random.default_rng(i) for i, name in enumerate(names)}
    opened = {}
    for name in names:
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(facts))
        path = folder / name / "model.safetensors"
        tensors = {k: Tensor(kind, shape, path, 0) for k, shape in shapes.items()}
        opened[name] = path.open("wb")
        opened[name].write(encode_header(tensors, {"format": "pt"}))
    for shape in shapes.values():
        base = rngs["base"].standard_normal(shape, np.float32) * 0.02
        opened["base"].write(base.astype(kind).tobytes())
        for name in names[1:]:
            change = rngs[name].standard_normal(shape, np.float32) * 0.002
            opened[name].write((base + change).astype(kind).tobytes())
    for file in opened.values():
        file.close()
    return sum(int(np.prod(s)) for s in shapes.values()) * kind.itemsize


def llama(width: int, layers: int, vocab: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, width)}
    for i in range(layers):
        at = f"model.layers.{i}"
        for q in "qkvo":
            shapes[f"{at}.self_attn.{q}_proj.weight"] = (width, width)
        for q in ("gate", "up"):
            shapes[f"{at}.mlp.{q}_proj.weight"] = (4 * width, width)
        shapes[f"{at}.mlp.down_proj.weight"] = (width, 4 * width)
        shapes[f"{at}.input_layernorm.weight"] = (width,)
        shapes[f"{at}.post_attention_layernorm.weight"] = (width,)
    return shapes | {"model.norm.weight": (width,), "lm_head.weight": (vocab, width)}


def recipe(config: Config, merge: Merge) -> str:
    """A recipe, which is JSON, for both programs."""
    own = {"weight": 0.5}
    if merge.method in ("ties", "dare_ties"):
        own["density"] = 0.5
    if merge.method in ("slerp", "model_stock"):
        own = {}
    listed: list[dict] = [
        {"model": f"m{i + 1}", "parameters": own} for i in range(merge.models)
    ]
    said: dict = {"merge_method": merge.method, "models": listed}
    said["dtype"] = config.dtype
    if merge.method != "linear":
        said["base_model"] = "base"
    if merge.method == "slerp":
        listed.append({"model": "base"})
        said["parameters"] = {"t": 0.5}
    return json.dumps(said, indent=1)


def command(config: Config, program: str) -> list[str]:
    if program == "mergekit":
        python = str(config.mergekit)
        script = Path(python).with_name("mergekit-yaml")
        words = [python, str(script), "recipe.yml", "out"]  # and no look at the hub
        return [*words, "--no-copy-tokenizer", "--no-write-model-card"]
    ours = [sys.executable, "-m", "jaxtricks", "merge", "recipe.yml", "out"]
    return [*ours, *(["--workers", str(config.workers)] if config.workers else [])]


def measure(folder: Path, words: list[str]) -> Cost:
    """Of a process and its children. A small one starts it, for the kernel counts the
    memory of the parent in the child's peak."""
    paths = [str(Path.cwd()), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    env["HF_HUB_OFFLINE"] = "1"
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *words],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
    )
    wall = time.monotonic() - start
    status, *numbers = done.stdout.split()[-4:]
    if status != "0":
        raise Failed(f"{' '.join(words)}: {done.stderr.strip()[-500:]}")
    cpu, peak, anonymous = map(float, numbers)
    return Cost(cpu, wall, peak / 1000, anonymous / 1000)


def run(config: Config, folder: Path, console: Console) -> list[list[str]]:
    """The rows of the table."""
    sizes = {
        n: folder / f"{n} layers" for n in sorted({m.layers for m in merges(config)})
    }
    nbytes = {}
    for layers, place in sizes.items():
        with console.status(f"writing {layers} layers"):
            nbytes[layers] = write(place, config, layers)
    found: dict[Merge, list[Cost]] = {}
    started: list[Cost] = []
    for _ in range(config.rounds):
        for merge in merges(config):
            place = sizes[merge.layers]
            (place / "recipe.yml").write_text(recipe(config, merge))
            with console.status(" ".join(map(str, merge))):
                cost = measure(place, command(config, merge.program))
            shutil.rmtree(place / "out")
            said = f"{merge.program} {merge.method}, {merge.models} models: "
            console.print(said + " ".join(least([cost])), markup=False)
            found.setdefault(merge, []).append(cost)
        dry = [sys.executable, "-m", "jaxtricks", "merge", "recipe.yml", "--dry-run"]
        started.append(measure(sizes[config.layers], dry))
    rows = [
        [m.program, m.method, str(m.models), f"{nbytes[m.layers] / 1e6:.0f}", *least(c)]
        for m, c in found.items()
    ]
    return [*rows, ["jaxtricks", "--dry-run", "", "", *least(started)]]


def least(costs: list[Cost]) -> list[str]:
    cpu, wall, peak, anonymous = (min(x) for x in zip(*costs, strict=True))
    return [f"{cpu:.1f}", f"{wall:.1f}", f"{peak:.0f}", f"{anonymous:.0f}"]


def main(config: Config) -> None:
    console = Console(highlight=False)
    if min(config.width, config.layers, config.vocab, config.rounds) < 1:
        raise BadInput("width, layers, vocab, rounds: wanted >= 1")
    with tempfile.TemporaryDirectory(dir=config.folder) as name:
        rows = run(config, Path(name), console)
    text = markdown(HEAD, rows)
    console.print(text, soft_wrap=True, markup=False)
    if config.docs is not None:
        pages.insert(config.docs, PROGRAM, f"{text}\n\n{about(config)}")
        console.print(f"\nwritten to {config.docs}")


def about(config: Config) -> str:
    """What the numbers are of."""
    cores = os.cpu_count()
    return (
        f"Whole processes on {cores} cores ({platform.machine()}), Python "
        f"{platform.python_version()}, numpy {np.__version__}; {config.dtype} in and "
        "out, reading, checksums of the inputs (ours) and writing included. TIES at "
        "density 0.5. Anonymous memory is what the pages of mapped files are not in. "
        "Wall clock suffers from all else that runs on the machine, CPU seconds little."
    )


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, prog=f"python -m {PROGRAM}"))
    except (BadInput, Failed) as error:
        raise SystemExit(f"error: {error}") from None
