"""What golden rows share: numpy in f64 only, nothing here calls jaxtricks."""

import numpy as np


def numbers(text: str) -> list[float]:
    """The numbers that somebody else's program printed."""
    return [float(x) for x in text.split()]


def log_softmax(logits):
    x = np.asarray(logits, np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.sum(np.exp(x), -1, keepdims=True))


def one_hot(labels, classes: int):
    return np.eye(classes)[labels]
