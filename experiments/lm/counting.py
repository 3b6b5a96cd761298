"""What counting reaches: single tokens, and pairs with single tokens as the prior."""

import numpy as np

from ..data import Dataset
from ..evaluate import summary

LARGEST = 1024  # vocabulary whose pairs are counted
CHUNK = 4096  # windows at a time


def baselines(dataset: Dataset, valid: list[dict]) -> dict[str, dict]:
    """An evaluation of each, from the training tokens; none for a large vocabulary."""
    n = dataset.classes
    if n > LARGEST:
        return {}
    pairs = np.zeros(n * n, np.int64)
    for rows in dataset.train:
        for at in range(0, len(rows), CHUNK):
            index = np.arange(at, min(at + CHUNK, len(rows)))
            windows = rows.store.take(rows.of(index))
            before = windows["inputs"].astype(np.int64) * n + windows["targets"]
            pairs += np.bincount(before[windows["mask"]], minlength=n * n)
    pairs = pairs.reshape(n, n)
    single = (pairs.sum(0) + 1) / (pairs.sum() + n)
    double = (pairs + single) / (pairs.sum(1, keepdims=True) + 1)
    tables = {"unigram": np.broadcast_to(single, pairs.shape), "bigram": double}
    return {name: _evaluation(p, dataset, valid) for name, p in tables.items()}


def _evaluation(p: np.ndarray, dataset: Dataset, valid: list[dict]) -> dict:
    domains = len(dataset.domains)
    sums = {name: np.zeros(domains) for name in ("sum", "count", "correct")}
    for batch in valid:
        live, domain = batch["mask"], batch["domain"]
        nll = np.where(live, -np.log(p[batch["inputs"], batch["targets"]]), 0.0)
        for name, values in (("sum", nll), ("count", live)):
            sums[name] += np.bincount(domain, values.sum(1), minlength=domains)
    return summary(sums, dataset)
