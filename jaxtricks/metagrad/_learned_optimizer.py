"""Optimizers that are small networks, and the width rules under which they transfer."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key, PyTree, ScalarLike

from .. import _tree as tree
from .._check import above, at_least, one_of
from .._mask import at_least_f32
from . import _moments as moments

TIMESCALES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 30000, 100000)
ROLES = ("input", "hidden", "output", "bias")
Layers = list[tuple[ArrayLike, ArrayLike]]  # weights [in, out], biases [out]


class LearnedOptimizerState(NamedTuple):
    """State of `learned_optimizer`."""

    steps: Int[Array, ""]  # i32[]
    moments: list[moments.Moments]  # of each float leaf


def init_learned_optimizer(
    *, key: Key[Array, ""], hidden: int = 4, layers: int = 2
) -> PyTree:
    """Meta-parameters of `learned_optimizer`, to be trained by `pes` or a gradient.

    Args:
      key: what the weights are drawn from: normal up to two deviations of
        1 / sqrt(fan in), biases 0, decays where they start.
      hidden: units of a hidden layer, >= 1; 4 as in the authors' code, 32 in the
        muLO paper's.
      layers: hidden ones, >= 0; 2.
    Returns:
      {"decays": {"mean", "square", "factor"}, "layers": [(weight, bias), ...]}.
    Gradient: none.
    Cost: 39 hidden + hidden^2 + 2 hidden numbers, about.
    Raises: ValueError for hidden < 1 or layers < 0.
    Source: Metz et al., "Practical tradeoffs between memory, compute, and performance
      in learned optimizers", 2022, arXiv:2203.11860, small_fc_lopt. Differs: none.
    Example:
      >>> meta = init_learned_optimizer(key=jax.random.key(0))
      >>> [w.shape for w, _ in meta["layers"]]
      [(39, 4), (4, 4), (4, 2)]
    """
    at_least("hidden", hidden, 1)
    at_least("layers", layers, 0)
    sizes = [28 + len(TIMESCALES), *[hidden] * layers, 2]
    shifts = {name: jnp.zeros(len(of)) for name, of in moments.DECAYS.items()}
    return {"decays": shifts, "layers": draw(key, sizes)}


def learned_optimizer(
    meta: PyTree, *, exp_mult: ScalarLike = 1e-3, step_mult: ScalarLike = 1e-3
) -> optax.GradientTransformationExtraArgs:
    """A small network turns each parameter's statistics into its step; learn it.

    w <- w - step_mult d e^(exp_mult m),   (d, m) = MLP(features of w)

    The 39 features: gradient, parameter, momenta at three decays, second moments, also
    factored as Adafactor's, their inverse roots and products, each over its root mean
    square in the tensor; and the step count at eleven time scales.

    Args:
      meta: from `init_learned_optimizer`; traced and differentiated as one likes.
      exp_mult: 0.001 as in the authors' code.
      step_mult: 0.001 there; muLO's code trains with 0.01.
    Returns:
      A transformation whose update needs params and gives the step itself.
    Gradient: through everything; the network is rectified.
    Cost: about 39 hidden products a parameter; 10 numbers of state each, fewer of the
      factored moments of matrices.
    Raises: ValueError without params.
    Source: Metz et al., "Practical tradeoffs between memory, compute, and performance
      in learned optimizers", 2022, arXiv:2203.11860; Metz et al., "VeLO: Training
      Versatile Learned Optimizers by Scaling Up", 2022, arXiv:2211.09760. Differs: the
      network of VeLO's parameters alone; its control by tensors is `velo`.
    Example:
      >>> tx = learned_optimizer(init_learned_optimizer(key=jax.random.key(0)))
      >>> params = jnp.ones((3, 2))
      >>> updates, _ = tx.update(params, tx.init(params), params)
      >>> updates.shape
      (3, 2)
    """

    def init(params):
        begun = [moments.begin(p) for p in tree.floats(params)[0]]
        return LearnedOptimizerState(jnp.zeros([], jnp.int32), begun)

    def update(updates, state, params=None, **extra):
        del extra
        if params is None:
            raise ValueError("learned_optimizer needs update(grads, state, params)")
        decays = moments.decays(meta["decays"])

        def one(g, p, old):
            p, wide = at_least_f32(p), at_least_f32(g)
            now = moments.advance(old, wide, decays)
            clock = state.steps.astype(p.dtype) / jnp.asarray(TIMESCALES, p.dtype)
            late = jnp.broadcast_to(jnp.tanh(clock - 1), (*p.shape, len(TIMESCALES)))
            seen = jnp.concatenate([moments.features(p, wide, now), late], axis=-1)
            out = perceptron(meta["layers"], seen)
            step = step_mult * out[..., 0] * jnp.exp(exp_mult * out[..., 1])
            return (-step).astype(jnp.result_type(g)), now

        grads, join = tree.floats(updates)
        found = [
            one(*leaf)
            for leaf in zip(grads, tree.floats(params)[0], state.moments, strict=True)
        ]
        steps, averages = [u for u, _ in found], [m for _, m in found]
        return join(steps), LearnedOptimizerState(state.steps + 1, averages)

    return optax.GradientTransformationExtraArgs(init, update)


def scale_by_mup(
    roles: PyTree, *, base_width: ScalarLike = 1.0
) -> optax.GradientTransformationExtraArgs:
    """Updates scaled so that one optimizer serves every width: maximal update.

    hidden: u base_width / fan_in;   input, output, bias: u

    For updates whose size does not depend on that of the gradient: a learned
    optimizer's, Adam's, a sign. It belongs to a network with hidden and input weights
    of variance 1 / fan_in, output weights of 0, and logits times base_width / fan_in of
    the output layer.

    Args:
      roles: a tree of "input", "hidden", "output" and "bias", params' prefix.
      base_width: > 0, the fan-in at which nothing is scaled; 1 as in the authors' code.
    Returns:
      A transformation to stand after the optimizer in `optax.chain`. The fan-in of a
      leaf is the product of all its axes but the last.
    Gradient: linear in the updates and base_width.
    Cost: none to speak of.
    Raises: ValueError for an unknown role, or base_width <= 0.
    Source: Thérien et al., "μLO: Compute-Efficient Meta-Generalization of Learned
      Optimizers", 2024, arXiv:2406.00153. Differs: none.
    Example:
      >>> tx = scale_by_mup({"w": "hidden", "b": "bias"}, base_width=2)
      >>> updates = {"w": jnp.ones((4, 1)), "b": jnp.ones(1)}
      >>> updates, _ = tx.update(updates, tx.init(updates))
      >>> print(updates["w"][0], updates["b"])
      [0.5] [1.]
    """
    above("base_width", base_width, 0)
    for role in jax.tree.leaves(roles):
        one_of("roles", role, ROLES)

    def init(params):
        del params
        return optax.EmptyState()

    def update(updates, state, params=None, **extra):
        del params, extra

        def part(role, updates):
            if role != "hidden":
                return updates
            return tree.map_floats(lambda u: u * base_width / _fan_in(u), updates)

        return jax.tree.map(part, roles, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def draw(key: Key[Array, ""], sizes: list[int]) -> Layers:
    """Layers of normal weights up to two deviations of 1 / sqrt(fan in), no biases."""
    keys = jax.random.split(key, len(sizes) - 1)
    pairs = zip(keys, sizes[:-1], sizes[1:], strict=True)
    return [
        (jax.random.truncated_normal(k, -2, 2, (n, m)) / math.sqrt(n), jnp.zeros(m))
        for k, n, m in pairs
    ]


def perceptron(layers: Layers, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Rectified but for the last."""
    for i, (w, b) in enumerate(layers):
        x = x @ jnp.asarray(w)
        x = x + jnp.broadcast_to(b, x.shape)
        x = jax.nn.relu(x) if i + 1 < len(layers) else x
    return x


def _fan_in(x: Array) -> int:
    return math.prod(jnp.shape(x)[:-1])
