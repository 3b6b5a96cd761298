"""An evaluation: sums over each domain's examples, and what they come to."""

import math
from collections.abc import Callable

import jax
import numpy as np

from . import mesh as meshes


def validate(evaluate: Callable, params, batches: list[dict], mesh, dataset) -> dict:
    """Of all validation batches, as a row of metrics has it.

    Domains have as many examples each; overall each weighs its share of the data.
    """
    sums = {}
    for batch in batches:
        found = jax.device_get(evaluate(params, meshes.put(batch, mesh)))
        sums = {k: sums.get(k, 0.0) + np.float64(v) for k, v in found.items()}
    return summary(sums, dataset) if sums else {}


def summary(sums: dict[str, np.ndarray], dataset) -> dict:
    """loss, and accuracy or bits per byte; from sum, count, correct: f64[domains].

    Empty where nothing was evaluated.
    """
    count = sums["count"]
    each, right = (
        np.divide(sums[name], count, where=count > 0, out=np.zeros(len(count)))
        for name in ("sum", "correct")
    )
    if not count.any():
        return {}
    shares = np.where(count > 0, dataset.shares, 0.0)
    # Where all that was evaluated is of domains without a share, each counts alike.
    shares = shares if shares.any() else np.float64(count > 0)
    shares = shares / shares.sum()
    found = {"loss": float(each @ shares)}
    bits = 1.0
    if dataset.kind == "images":
        found["accuracy"] = float(right @ shares)
    elif dataset.bytes_per_token:
        bits = 1 / math.log(2) / dataset.bytes_per_token
        found["bits_per_byte"] = found["loss"] * bits
    shown = zip(dataset.domains, each * bits, count, strict=True)
    return found | {"domains": {name: float(x) for name, x, n in shown if n}}
