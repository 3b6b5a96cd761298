"""Time and memory of the blockwise cross entropy beside optax's on all logits.

`python -m experiments.benchmarks.linear_cross_entropy` compiles value, gradient and
Hessian-vector product of the mean loss, of both, runs them in turn (so that drift hits
all alike) and prints the median times, the temporary memory that the compiler reports,
and both as shares of optax's.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import optax
import tyro

from jaxtricks.kernels import linear_cross_entropy


@dataclass(frozen=True)
class Config:
    """Time and memory of the blockwise cross entropy beside optax's on all logits."""

    tokens: int = 2048
    """Tokens in the batch."""
    features: int = 256
    """Width of the hidden states."""
    classes: int = 32768
    """Size of the vocabulary."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of hidden states and weight."""
    workspace_mb: tuple[float, ...] = (8.0, 32.0, 128.0, 256.0)
    """The workspaces to try, in MiB."""
    modes: tuple[Literal["value", "gradient", "hvp"], ...] = (
        "value",
        "gradient",
        "hvp",
    )
    """What to compute."""
    repeats: int = 5
    """Timed runs of each, after one to warm up."""


def materialised(hidden, weight, labels):
    """optax on [tokens, classes] logits in f32."""
    logits = jnp.matmul(hidden, weight, preferred_element_type=jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def compiled(loss: Callable, mode: str, arrays):
    """The mean loss, its gradient, or its HVP along the arguments themselves."""

    def mean(hidden, weight, labels):
        return jnp.mean(loss(hidden, weight, labels))

    grad = jax.grad(mean, argnums=(0, 1))

    def hvp(hidden, weight, labels):
        g = lambda *floats: grad(*floats, labels)  # noqa: E731
        return jax.jvp(g, (hidden, weight), (hidden, weight))[1]

    f = {"value": mean, "gradient": grad, "hvp": hvp}[mode]
    return jax.jit(f).lower(*arrays).compile()


def medians(programs: list, arrays, repeats: int) -> list[float]:
    """The median seconds of each, run in turn."""

    def seconds(program):
        start = time.perf_counter()
        jax.block_until_ready(program(*arrays))
        return time.perf_counter() - start

    rounds = [[seconds(p) for p in programs] for _ in range(repeats + 1)]
    return [statistics.median(times) for times in zip(*rounds[1:], strict=True)]


def main(config: Config) -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    shape = (config.tokens, config.features)
    hidden = jax.random.normal(keys[0], shape, config.dtype)
    weight = jax.random.normal(keys[1], (config.features, config.classes), config.dtype)
    weight = weight / config.features**0.5
    labels = jax.random.randint(keys[2], config.tokens, 0, config.classes)
    arrays = (hidden, weight.astype(config.dtype), labels)

    losses = {"optax, all logits": materialised}
    for size in config.workspace_mb:
        name = f"ours, {size:g} MiB chunks"
        losses[name] = partial(linear_cross_entropy, workspace_mb=size)
    logits = config.tokens * config.classes * 4 / 2**20
    device = jax.devices()[0].device_kind
    print(f"{config} on {device}: {logits:.0f} MiB of logits in f32")
    print(f"{'':10}{'':24}{'ms':>8}{'':>8}{'MiB':>8}{'':>8}")
    for mode in config.modes:
        programs = [compiled(loss, mode, arrays) for loss in losses.values()]
        times = medians(programs, arrays, config.repeats)
        held = [p.memory_analysis().temp_size_in_bytes / 2**20 for p in programs]
        for name, t, mib in zip(losses, times, held, strict=True):
            print(
                f"{mode:10}{name:24}{1e3 * t:8.0f}{t / times[0]:7.2f}x"
                f"{mib:8.0f}{mib / held[0]:7.2f}x"
            )


if __name__ == "__main__":
    main(tyro.cli(Config))
