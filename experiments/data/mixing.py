"""How much of each domain: weights from flags, and fair draws from weights."""

import math

import numpy as np

from experiments.config import BadInput


def weights(
    spec: tuple[str, ...],
    domains: tuple[str, ...],
    sizes: np.ndarray,
    flag: str = "--mix",
) -> np.ndarray:
    """f64[domains], summing to 1, as --mix or --mix-end says; who is left out has 0."""
    sizes = np.asarray(sizes, np.float64) / np.sum(sizes)
    if not spec:
        return sizes
    if spec == ("uniform",):
        return (sizes > 0) / np.count_nonzero(sizes)
    if len(spec) == 1 and spec[0].startswith("temperature="):
        return tempered(sizes, _number(flag, spec[0], above=0))
    chosen = {}
    for item in spec:
        name, separator, _ = item.rpartition("=")
        if not separator:
            said = "wanted uniform, temperature=T or DOMAIN=WEIGHT ..."
            raise BadInput(f"{flag}: {said}, came {item!r}")
        if name not in domains:
            raise BadInput(f"{flag}: no domain {name!r}; there are {_list(domains)}")
        if name in chosen:
            raise BadInput(f"{flag}: {name!r} is given twice")
        chosen[name] = _number(flag, item)
        if chosen[name] and not sizes[domains.index(name)]:
            raise BadInput(
                f"{flag}: {name!r} has nothing to train on, only to validate"
            )
    given = np.array([chosen.get(name, 0.0) for name in domains])
    if not given.any():
        raise BadInput(f"{flag}: wanted a weight above 0, came {' '.join(spec)}")
    return given / given.sum()


def tempered(sizes: np.ndarray, temperature: float) -> np.ndarray:
    """By size to the power 1 / temperature: 1 is by size, and large is uniform."""
    with np.errstate(divide="ignore"):  # a domain that is all held out
        log = np.log(sizes) / temperature
    power = np.exp(log - log.max())
    return power / power.sum()


def normalized(given, n: int) -> np.ndarray:
    """Weights from elsewhere, summing to 1; ValueError where they are none."""
    given = np.array(given, np.float64)
    if given.shape != (n,):
        raise ValueError(f"weights: wanted one for each of {n} domains, came {given}")
    if not (np.isfinite(given).all() and (given >= 0).all() and given.any()):
        raise ValueError(f"weights: wanted numbers >= 0, not all 0, came {given}")
    return given / given.sum()


def draw(
    owed: np.ndarray, weights: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """(i64[domains] draws that sum to n, what is owed after them).

    Each domain is owed n * weight more, and whoever is owed most is drawn from. So the
    draws so far never differ from their due by one per domain or more, and by size, a
    pass over all examples shows each once.
    """
    owed = np.where(weights > 0, owed, 0.0)
    owed = owed + (n - owed.sum()) * weights
    claims = np.where(weights > 0, np.ceil(np.maximum(owed, 0)), 0).astype(np.int64)
    domain = np.repeat(np.arange(len(weights)), claims)
    rank = np.arange(len(domain)) - np.repeat(np.cumsum(claims) - claims, claims)
    first = np.argsort(rank - owed[domain], kind="stable")[:n]
    drawn = np.bincount(domain[first], minlength=len(weights))
    return drawn, owed - drawn


def _number(flag: str, item: str, above: float | None = None) -> float:
    name, _, text = item.rpartition("=")
    wanted = "> 0" if above is not None else ">= 0"
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0 or value == above:
        raise BadInput(f"{flag}: wanted a number {wanted} for {name}, came {text!r}")
    return value


def _list(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:20])
    return shown if len(names) <= 20 else f"{shown}, ... ({len(names)} in all)"
