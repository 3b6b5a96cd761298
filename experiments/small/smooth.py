"""The small network with any activation, and the losses of its examples."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtricks import losses

from .network import Params

ACTIVATIONS: dict[str, Callable] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
}


def apply(
    params: Params, images: Float[Array, "batch h w c"], activation: str
) -> Float[Array, "batch classes"]:
    """The logits of a perceptron whose parameters are `network.init`'s."""
    x = images.reshape(len(images), -1)
    *hidden, last = params
    for w, b in hidden:
        x = ACTIVATIONS[activation](_affine(x, w, b))
    return _affine(x, *last)


def each(
    params: Params, images: Array, labels: Array, activation: str
) -> Float[Array, " batch"]:
    """Cross entropy of every example."""
    return losses.cross_entropy(apply(params, images, activation), labels)


def margins(
    params: Params, images: Array, labels: Array, activation: str
) -> Float[Array, " batch"]:
    """log p / (1 - p) of every label. softplus of the negative is the cross entropy, in
    which a loss of 1e-20 is not lost in rounding."""
    logits = apply(params, images, activation)
    own = jnp.arange(logits.shape[-1])[None] == labels[:, None]
    right = jnp.sum(jnp.where(own, logits, 0), axis=-1)
    return right - jax.nn.logsumexp(logits, axis=-1, where=~own)


def accuracy(
    params: Params, images: Array, labels: Array, activation: str
) -> Float[Array, ""]:
    """NaN where a logit is not finite."""
    logits = apply(params, images, activation)
    right = jnp.mean(jnp.argmax(logits, axis=-1) == labels)
    return jnp.where(jnp.all(jnp.isfinite(logits)), right, jnp.nan)


def _affine(x: Array, w: Array, b: Array) -> Array:
    x = x @ w
    return x + jnp.broadcast_to(b, x.shape)
