"""Time and memory of blockwise cross entropy beside losses that hold all logits.

`python -m experiments.benchmarks.cross_entropy` compiles value, gradient and
Hessian-vector product of the mean loss in every form, runs them in turn (so that drift
hits all alike) and prints median times, matrix rates, and the temporary memory that the
compiler reports, each also as a share of the dense form's. `--device` does the same at
the shapes of Gemma 2 and Llama 3 in bf16, for a GPU or a TPU.
"""

import datetime
import importlib.util
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jax import lax
from rich.console import Console
from rich.progress import track
from rich.table import Table

from jaxtricks.kernels import linear_cross_entropy, linear_cross_entropy_value_and_grad

from ..files import plain

RESULTS = Path(__file__).parent / "results"

# tokens, features, classes, of a batch and a head
SHAPES = {"gemma 2": (8192, 2304, 256000), "llama 3": (4096, 4096, 128256)}

# Share of the rate of dense matrix products that others print for themselves. Quoted,
# not measured here; from their repositories as of August 2026.
QUOTED = {
    "Liger (Hopper, scaled CE, H100, fwd+bwd, 8NDV)": "698 TFLOP/s",
    "QuACK 0.6.1 (H200, fwd+bwd, Llama 3 shape)": "17.33 ms",
    "Cut Cross-Entropy (A100, fwd+bwd, Gemma 2 shape, filtered)": "134.8 ms",
}


@dataclass(frozen=True)
class Config:
    """Time and memory of blockwise cross entropy beside losses that hold all logits."""

    tokens: int = 2048
    """Tokens in the batch."""
    features: int = 256
    """Width of the hidden states."""
    classes: int = 32768
    """Size of the vocabulary."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of hidden states and weight."""
    workspace_mb: tuple[float, ...] = ()
    """Workspaces to try beside the default, in MiB."""
    modes: tuple[Literal["value", "gradient", "hvp"], ...] = (
        "value",
        "gradient",
        "hvp",
    )
    """What to compute."""
    repeats: int = 7
    """Timed runs of each, after one to warm up."""
    device: bool = False
    """Use the shapes of Gemma 2 and Llama 3 in bf16, without HVPs."""
    save: bool = False
    """Write the numbers to experiments/benchmarks/results/."""


def dense(hidden, weight, labels):
    """optax on [tokens, classes] logits in f32."""
    logits = jnp.matmul(hidden, weight, preferred_element_type=jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def scanned(hidden, weight, labels, *, chunk=256):
    """The usual remedy: lax.map of the dense loss over chunks, checkpointed."""
    chunks = max(1, len(labels) // chunk)
    parts = hidden.reshape(chunks, -1, hidden.shape[1]), labels.reshape(chunks, -1)
    part = jax.checkpoint(lambda xs: dense(xs[0], weight, xs[1]))
    return lax.map(part, parts).reshape(-1)


def tokamax_loss(hidden, weight, labels):
    """Google's kernels, where they are installed."""
    import tokamax

    return tokamax.linear_softmax_cross_entropy_loss(
        hidden, labels, weight, reduction="none"
    )


def forms(config: Config) -> dict[str, Callable]:
    """Name -> per-token loss."""
    found = {
        "dense": dense,
        "scan, checkpoint": scanned,
        "jaxtricks": linear_cross_entropy,
    }
    for size in config.workspace_mb:
        name = f"jaxtricks, {size:g} MiB"
        found[name] = partial(linear_cross_entropy, workspace_mb=size)
    if importlib.util.find_spec("tokamax"):
        found["tokamax"] = tokamax_loss
    return found


def torch_program(config: Config, mode: str, arrays) -> tuple[Callable, float]:
    """(run, MiB at its peak) of PyTorch's own, on its own copies of the arrays."""
    import torch
    from torch.nn.functional import linear_cross_entropy as loss

    cuda = torch.cuda.is_available()
    hidden, weight = (
        torch.from_numpy(np.array(x, np.float32))
        .to("cuda" if cuda else "cpu", getattr(torch, config.dtype))
        .requires_grad_()
        for x in (arrays[0], arrays[1].T)
    )
    labels = torch.from_numpy(np.array(arrays[2], np.int64)).to(hidden.device)

    def run(*_):
        if mode == "value":
            with torch.no_grad():
                loss(hidden, weight, labels)
        else:
            hidden.grad = weight.grad = None
            loss(hidden, weight, labels).backward()
        if cuda:
            torch.cuda.synchronize()

    run()
    if not cuda:
        return run, float("nan")
    hidden.grad = weight.grad = None
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    return run, (torch.cuda.max_memory_allocated() - before) / 2**20


def at_once(hidden, weight, labels):
    """The mean loss and its gradients without a second look at the logits."""
    weights = jnp.full(labels.shape, 1 / len(labels))
    out = linear_cross_entropy_value_and_grad(hidden, weight, labels, weights=weights)
    return jnp.mean(out.loss), (out.hidden, out.weight)


def program(loss: Callable, mode: str) -> Callable:
    """The mean loss; that and its gradient; or its HVP along the arguments."""

    def mean(hidden, weight, labels):
        return jnp.mean(loss(hidden, weight, labels))

    def hvp(hidden, weight, labels):
        grad = jax.grad(lambda h, w: mean(h, w, labels), argnums=(0, 1))
        return jax.jvp(grad, (hidden, weight), (hidden, weight))[1]

    gradient = jax.value_and_grad(mean, argnums=(0, 1))
    return {"value": mean, "gradient": gradient, "hvp": hvp}[mode]


# Products of tokens x features x classes that each mode cannot do without, and those of
# a form that keeps no logits.
PRODUCTS = {"value": (1, 1), "gradient": (3, 4), "hvp": (8, 8)}


def medians(programs: list, arrays, repeats: int, what: str) -> list[float]:
    """The median seconds of each, run in turn."""

    def seconds(run):
        start = time.perf_counter()
        jax.block_until_ready(run(*arrays))
        return time.perf_counter() - start

    rounds = track(range(repeats + 1), description=what, transient=True)
    times = [[seconds(p) for p in programs] for _ in rounds]
    return [statistics.median(column) for column in zip(*times[1:], strict=True)]


def data(config: Config):
    keys = jax.random.split(jax.random.key(0), 3)
    shape = (config.tokens, config.features)
    hidden = jax.random.normal(keys[0], shape, config.dtype)
    weight = jax.random.normal(keys[1], (config.features, config.classes), config.dtype)
    weight = (weight / config.features**0.5).astype(config.dtype)
    labels = jax.random.randint(keys[2], config.tokens, 0, config.classes)
    return hidden, weight, labels


def measure(config: Config, title: str) -> list[dict]:
    """One row a mode and form."""
    arrays, rows = data(config), []
    for mode in config.modes:
        runs = {name: program(loss, mode) for name, loss in forms(config).items()}
        if mode == "gradient":
            runs["jaxtricks, at once"] = at_once
        compiled = {}
        for name, run in runs.items():
            try:
                compiled[name] = jax.jit(run).lower(*arrays).compile()
            except Exception as error:  # of others' kernels: no reason to stop
                print(f"{name}: left out, {str(error).splitlines()[0][:80]}")
        memory = {
            name: run.memory_analysis().temp_size_in_bytes / 2**20
            for name, run in compiled.items()
        }
        if mode != "hvp" and importlib.util.find_spec("torch"):
            try:
                compiled["torch"], memory["torch"] = torch_program(config, mode, arrays)
            except Exception as error:
                print(f"torch: left out, {str(error).splitlines()[0][:80]}")
        product = jax.jit(partial(jnp.matmul, preferred_element_type=config.dtype))
        compiled["one product"] = product.lower(*arrays[:2]).compile()
        calls = [
            run if name != "one product" else (lambda h, w, _, run=run: run(h, w))
            for name, run in compiled.items()
        ]
        times = medians(calls, arrays, config.repeats, f"{title} {mode}")
        flop = 2 * config.tokens * config.features * config.classes
        of_product = times[list(compiled).index("one product")]
        first = None
        for name, seconds in zip(compiled, times, strict=True):
            if name == "one product":
                continue
            temporary = memory[name]
            first = first or (seconds, temporary)
            count = PRODUCTS[mode][name.startswith("jaxtricks") and "once" not in name]
            rows.append(
                {
                    "shape": title,
                    "mode": mode,
                    "form": name,
                    "ms": 1e3 * seconds,
                    "of_dense": seconds / first[0],
                    "of_products": seconds / (count * of_product),
                    "tflops": count * flop / seconds / 1e12,
                    "temporary_mib": temporary,
                    "memory_of_dense": temporary / max(first[1], 1e-9),
                }
            )
    return rows


def show(console: Console, config: Config, title: str, rows: list[dict]) -> None:
    logits = config.tokens * config.classes * 4 / 2**20
    table = Table(
        title=f"{title}: {config.tokens} tokens, {config.features} features, "
        f"{config.classes} classes, {config.dtype}; {logits:.0f} MiB of logits in f32"
    )
    for name in ("", "form"):
        table.add_column(name)
    for name in ("ms", "of dense", "of products", "TFLOP/s", "temp MiB", "of dense"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row["mode"],
            row["form"],
            f"{row['ms']:.1f}",
            f"{row['of_dense']:.2f}x",
            f"{row['of_products']:.2f}x",
            f"{row['tflops']:.2f}",
            *(f"{row['temporary_mib']:.0f}", f"{row['memory_of_dense']:.3f}x")
            if row["temporary_mib"] == row["temporary_mib"]  # not known: torch on a CPU
            else ("", ""),
        )
    console.print(table)


def main(config: Config) -> None:
    if importlib.util.find_spec("torch"):  # leave it some of the device's memory
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    console, device = Console(width=max(Console().width, 110)), jax.devices()[0]
    jobs = {"default": config}
    if config.device:
        modes = tuple(mode for mode in config.modes if mode != "hvp")
        jobs = {
            name: replace(
                config,
                tokens=shape[0],
                features=shape[1],
                classes=shape[2],
                dtype="bfloat16",
                modes=modes,
            )
            for name, shape in SHAPES.items()
        }
    rows = []
    for title, job in jobs.items():
        found = measure(job, title)
        show(console, job, title, found)
        rows += found
    console.print(
        "of products: beside the time of the matrix products that the form does, at "
        "the rate of one measured in the same run."
    )
    if config.device:
        for name, number in QUOTED.items():
            console.print(f"quoted: {name}: {number}")
    if config.save:
        today = datetime.date.today().isoformat()
        kind = device.device_kind.replace(" ", "-").lower()
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"cross_entropy-{kind}-{today}.json"
        about = {"device": device.device_kind, "date": today, "jax": jax.__version__}
        path.write_text(json.dumps(plain(about | {"rows": rows}), indent=1) + "\n")
        console.print(f"written to {path}")


if __name__ == "__main__":
    main(tyro.cli(Config))
