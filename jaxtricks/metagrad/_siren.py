"""Networks of coordinates, whose initialisation is worth learning."""

import itertools
import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key, ScalarLike

from .._check import above, at_least
from .._mask import at_least_f32

Layers = list[tuple[ArrayLike, ArrayLike]]  # weights [in, out], biases [out]


def init_siren(
    *,
    key: Key[Array, ""],
    inputs: int,
    outputs: int,
    hidden: int = 256,
    layers: int = 5,
    omega: ScalarLike = 30.0,
) -> Layers:
    """Parameters of `siren`, uniform so that every layer's input is spread alike.

    first: U(-1 / n, 1 / n);   others: U(-sqrt(6 / n) / omega, sqrt(6 / n) / omega)

    Args:
      key: what they are drawn from.
      inputs, outputs: sizes >= 1.
      hidden: units, >= 1; 256 as in the learned initializations' paper.
      layers: in all, >= 2; 5 there.
      omega: > 0, as for `siren`.
    Returns:
      [(weight [in, out], bias [out]), ...]; biases are U(-1 / sqrt(n), 1 / sqrt(n)).
    Gradient: in omega.
    Cost: the parameters.
    Raises: ValueError for sizes < 1, layers < 2 or omega <= 0.
    Source: Sitzmann et al., "Implicit Neural Representations with Periodic Activation
      Functions", 2020, arXiv:2006.09661. Differs: none.
    Example:
      >>> sizes = {"inputs": 2, "outputs": 3, "hidden": 8, "layers": 3}
      >>> net = init_siren(key=jax.random.key(0), **sizes)
      >>> [w.shape for w, _ in net]
      [(2, 8), (8, 8), (8, 3)]
    """
    for name, size in {"inputs": inputs, "outputs": outputs, "hidden": hidden}.items():
        at_least(name, size, 1)
    at_least("layers", layers, 2)
    above("omega", omega, 0)
    sizes = [inputs, *[hidden] * (layers - 1), outputs]
    net = []
    for i, (n, m) in enumerate(itertools.pairwise(sizes)):
        by_weight, by_bias = jax.random.split(jax.random.fold_in(key, i))
        bound = 1 / n if i == 0 else math.sqrt(6 / n) / omega
        weight = bound * jax.random.uniform(by_weight, (n, m), minval=-1)
        bias = jax.random.uniform(by_bias, (m,), minval=-1) / math.sqrt(n)
        net.append((weight, bias))
    return net


def siren(
    params: Layers, x: Float[ArrayLike, "*batch d"], *, omega: ScalarLike = 30.0
) -> Float[Array, "*batch out"]:
    """A signal as a network of its coordinates; `maml` learns where to start from.

    h <- sin(omega (h W + b)),   the last layer linear

    Learn the initialisation over a class of signals by `maml` (few steps) or its
    "reptile" (more); a new signal, even partly seen, is then fitted in a few steps.

    Args:
      params: from `init_siren`.
      x: float[*batch, d], coordinates in [-1, 1].
      omega: > 0, the frequency; 30 as in the source.
    Returns:
      f32[*batch, out].
    Gradient: smooth, any order, in coordinates too.
    Cost: the layers'.
    Raises: ValueError for omega <= 0.
    Source: Sitzmann et al., "Implicit Neural Representations with Periodic Activation
      Functions", 2020, arXiv:2006.09661; Tancik et al., "Learned Initializations
      for Optimizing Coordinate-Based Neural Representations", 2020, arXiv:2012.02189.
      Differs: none.
    Example:
      >>> one = jnp.ones((1, 1))
      >>> siren([(one, one[0]), (2 * one, one[0])], jnp.array([[0.0]]), omega=1.0)
      Array([[2.6829]], dtype=float32)
    """
    above("omega", omega, 0)
    x = at_least_f32(x)
    for i, (w, b) in enumerate(params):
        x = x @ jnp.asarray(w)
        x = x + jnp.broadcast_to(b, x.shape)
        x = jnp.sin(omega * x) if i + 1 < len(params) else x
    return x
