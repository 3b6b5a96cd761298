"""VeLO: a recurrent network for each tensor chooses the network of its parameters."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Key, PyTree, ScalarLike

from .. import _tree as tree
from .._check import above, at_least
from .._mask import at_least_f32
from . import _moments as moments
from ._learned_optimizer import draw, perceptron

FRACTIONS = (0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1)
AVERAGES = 10  # of the loss
SEEN = len(FRACTIONS) + AVERAGES - 1 + 1 + 5 + 3 + 3  # by the recurrent network


class VeloState(NamedTuple):
    """State of `velo`."""

    steps: Int[Array, ""]  # i32[]
    moments: list[moments.Moments]  # of each float leaf
    hidden: Float[Array, "tensors lstm"]
    cell: Float[Array, "tensors lstm"]
    means: Float[Array, " averages"]  # of the loss
    minima: Float[Array, " averages"]  # of these means


def init_velo(
    *, key: Key[Array, ""], lstm: int = 128, bank: int = 64, hidden: int = 4
) -> PyTree:
    """Meta-parameters of `velo`, to be trained by `pes`; not the published weights.

    Args:
      key: what the weights are drawn from: normal up to two deviations of
        1 / sqrt(fan in); biases and the recurrent state are 0.
      lstm: units of the recurrent network, >= 1; 128 as in the authors' code, 512 in
        the optimizer they publish.
      bank: how many small networks are mixed, >= 1; 64 there.
      hidden: units of a small one's two hidden layers, >= 1; 4 there.
    Returns:
      {"layers", "mix", "into", "lstm", "controls", "rate", "hidden", "cell"}; the
      weights of "layers" are [bank, in, out].
    Gradient: none.
    Cost: some 8 lstm^2 + 170 bank numbers.
    Raises: ValueError for a size < 1.
    Source: Metz et al., "VeLO: Training Versatile Learned Optimizers by Scaling Up",
      2022, arXiv:2211.09760. Differs: weights that the authors' code makes and does
      not use are left out.
    Example:
      >>> meta = init_velo(key=jax.random.key(0), lstm=8, bank=3)
      >>> [w.shape for w, _ in meta["layers"]]
      [(3, 30, 4), (3, 4, 4), (3, 4, 2)]
    """
    for name, size in {"lstm": lstm, "bank": bank, "hidden": hidden}.items():
        at_least(name, size, 1)
    keys = jax.random.split(key, 6)
    sizes = {
        "mix": [SEEN, lstm],
        "into": [SEEN, lstm],
        "lstm": [2 * lstm, 4 * lstm],
        "controls": [lstm, bank],
        "rate": [lstm, 1],
    }
    pairs = zip(keys[1:], sizes.items(), strict=True)
    single = {name: draw(k, of)[0] for k, (name, of) in pairs}
    small = [30, hidden, hidden, 2]
    stacked = jax.vmap(lambda k: draw(k, small))(jax.random.split(keys[0], bank))
    start = jnp.zeros((1, lstm))
    return {"layers": stacked, "hidden": start, "cell": start, **single}


def velo(
    meta: PyTree,
    *,
    total_steps: ScalarLike,
    exp_mult: ScalarLike = 1e-3,
    step_mult: ScalarLike = 1e-3,
) -> optax.GradientTransformationExtraArgs:
    """VeLO's architecture: what a tensor's network is, a recurrent one decides.

    c, a, state = LSTM(features of the tensor, its moments, the loss and t / T)
    MLP weights = 100 mean_k c_k weights_k
    w <- w - a rms(w) step_mult d e^(exp_mult m),   (d, m) = MLP(features of w)

    Args:
      meta: from `init_velo`; traced and differentiated as one likes.
      total_steps: T > 1, for which it plans; the loss is averaged over 10 to T steps.
      exp_mult, step_mult: 0.001 as in the authors' code.
    Returns:
      A transformation whose update needs params and value=, the loss, and gives the
      step itself. Gradients are clipped at 1000.
    Gradient: through everything; kinks where the code clips, rectifies or takes maxima.
    Cost: as `learned_optimizer`; and for each tensor 8 lstm^2 products, and a network.
    Raises: ValueError without params or value.
    Source: Metz et al., "VeLO: Training Versatile Learned Optimizers by Scaling Up",
      2022, arXiv:2211.09760. Differs: the
      published weights are not here, nor the two flags under which they were trained,
      by which a loss is averaged over 10 steps and the recurrent state is not kept; a
      vector's momentum is divided by sqrt(v + 1e-20), for the derivative.
    Example:
      >>> meta = init_velo(key=jax.random.key(0), lstm=8, bank=3)
      >>> tx, params = velo(meta, total_steps=100), jnp.ones((3, 2))
      >>> updates, _ = tx.update(params, tx.init(params), params, value=1.0)
      >>> updates.shape
      (3, 2)
    """
    above("total_steps", total_steps, 1)

    def init(params):
        leaves = tree.floats(params)[0]
        dtype = jnp.result_type(jnp.float32, *(at_least_f32(p).dtype for p in leaves))
        hidden, cell = (
            jnp.repeat(jnp.asarray(meta[k], dtype), len(leaves), axis=0)
            for k in ("hidden", "cell")
        )
        means = jnp.zeros(AVERAGES, hidden.dtype)
        begun = [moments.begin(p) for p in leaves]
        zero = jnp.zeros([], jnp.int32)
        return VeloState(zero, begun, hidden, cell, means, means + 999999999999.0)

    def update(updates, state, params=None, *, value=None, **extra):
        del extra
        if params is None or value is None:
            raise ValueError("velo needs update(grads, state, params, value=loss)")
        grads, join = tree.floats(updates)
        kinds = [jnp.result_type(g) for g in grads]
        grads = [jnp.clip(at_least_f32(g), -1000, 1000) for g in grads]
        weights = [at_least_f32(p) for p in tree.floats(params)[0]]
        if not grads:
            return updates, state
        means, minima, losses = _loss(state, value, total_steps)
        done = state.steps.astype(means.dtype) / total_steps
        left = jnp.tanh((done - jnp.asarray(FRACTIONS, means.dtype)) * 10)
        both = zip(weights, state.moments, strict=True)
        seen = jnp.stack([_of_tensor(p, old, left, losses) for p, old in both])
        hidden, cell = _recurrent(meta, seen, state.hidden, state.cell)
        controls = _linear(meta["controls"], hidden)
        rates = _linear(meta["rate"], hidden)[:, 0]
        decays = {k: jnp.asarray(v, means.dtype) for k, v in moments.DECAYS.items()}
        found, averages = [], []
        leaves = zip(weights, grads, state.moments, strict=True)
        for i, (p, g, old) in enumerate(leaves):
            now = moments.advance(old, g, decays)
            layers = jax.tree.map(lambda w, i=i: _mixed(controls[i], w), meta["layers"])
            out = perceptron(layers, moments.features(p, g, now, more=True))
            size = jnp.sqrt(jnp.mean(p * p) + 1e-9)
            step = out[..., 0] * jnp.exp(exp_mult * out[..., 1]) * (size * rates[i])
            found.append((step * -jnp.asarray(step_mult)).astype(kinds[i]))
            averages.append(now)
        state = VeloState(state.steps + 1, averages, hidden, cell, means, minima)
        return join(found), state

    return optax.GradientTransformationExtraArgs(init, update)


def _loss(state, value, total_steps):
    """Its averages, their minima, and how far each is between these and the next."""
    dtype = state.means.dtype
    value, done = jnp.asarray(value, dtype), state.steps.astype(dtype)
    spans = 10 ** jnp.linspace(1, jnp.log10(jnp.asarray(total_steps, dtype)), AVERAGES)
    rate = jnp.exp(-1 / spans)
    debt = 1 - rate ** (done + 1)
    most = jnp.where(state.steps == 0, value, jnp.max(state.means / debt))
    value = jnp.minimum(jnp.abs(most) * 2, value)
    means = rate * state.means + (1 - rate) * value
    fair = means / debt
    minima = jnp.minimum(state.minima, fair)
    gap = jnp.maximum(1e-8, fair[1:] - minima[:-1])
    place = jnp.clip((fair[:-1] - minima[:-1]) / gap - 1, -1, 1)
    return means, minima, jnp.where(state.steps < 2, 0, place)


def _of_tensor(p, old, left, losses):
    """What the recurrent network sees, [30]."""
    axes = tuple(range(p.ndim))
    unit = lax.rsqrt(jnp.maximum(1e-9, jnp.mean(p * p)))
    m, rms = old.mean * unit, old.square * unit
    middle = jnp.mean(m, axis=axes, keepdims=True)
    rank = jax.nn.one_hot(sum(n > 1 for n in p.shape), 5, dtype=p.dtype)
    parts = [
        left,
        losses,
        _log_size(jnp.mean(rms, axis=axes)),
        rank,
        _log_size(jnp.mean(jnp.square(m - middle), axis=axes)),
        # About the momenta's means, as in the authors' code.
        _log_size(jnp.mean(jnp.square(rms - middle), axis=axes)),
    ]
    return jnp.concatenate([x.astype(p.dtype) for x in parts])


def _log_size(x):
    return jnp.clip(jnp.log(1e-8 + jnp.abs(10 * x)), -5, 5) / 2


def _recurrent(meta, seen, hidden, cell):
    """An LSTM over [tensors, features], which sees the largest of all tensors too."""
    peak = jnp.max(jax.nn.relu(_linear(meta["mix"], seen)), axis=0, keepdims=True)
    x = _linear(meta["into"], seen) + peak
    gates = _linear(meta["lstm"], jnp.concatenate([x, hidden.astype(x.dtype)], axis=-1))
    i, g, f, o = jnp.split(gates, 4, axis=-1)
    keep, take, give = jax.nn.sigmoid(f + 1), jax.nn.sigmoid(i), jax.nn.sigmoid(o)
    cell = (keep * cell + take * jnp.tanh(g)).astype(cell.dtype)
    return (give * jnp.tanh(cell)).astype(hidden.dtype), cell


def _linear(layer, x):
    return perceptron([layer], x)


def _mixed(control, stack):
    """100 mean_k control_k stack_k."""
    return 100 * jnp.tensordot(control, stack, axes=1) / len(control)
