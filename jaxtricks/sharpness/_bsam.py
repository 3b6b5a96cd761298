"""bSAM: SAM as variational Bayes; an Adam whose second moment is a posterior's."""

from typing import NamedTuple

import jax
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Key, PyTree, ScalarLike

from .. import _safe as safe
from .. import _tree as tree
from .._check import above, at_least, between
from ._memory import keep, recall, zeros
from ._method import Here, Mask, Radius, Split, transformation, where
from ._rwp import cloud


class BsamState(NamedTuple):
    """Trees like the parameters, in at least f32; the posterior is N(w, 1 / (N s))."""

    momentum: PyTree  # f32, g_m
    scale: PyTree  # f32, s > 0


def bsam(
    learning_rate: ScalarLike | optax.Schedule,
    rho: Radius = 0.1,
    *,
    key: Key[Array, ""],
    examples: ScalarLike,
    beta1: ScalarLike = 0.9,
    beta2: ScalarLike = 0.999,
    prior_precision: ScalarLike = 25.0,
    damping: ScalarLike = 0.1,
    init_scale: ScalarLike = 1.0,
    mask: Mask = True,
    split: Split = None,
    perturb_dtype: DTypeLike | None = None,
    aux: PyTree | None = None,
) -> optax.GradientTransformationExtraArgs:
    """An optimizer with SAM's flat minima and, in its state, how sure each weight is.

    g = grad L(w + n / sqrt(N s)), n ~ N(0, 1);  h = grad L(w + rho g / s)
    g_m <- beta1 g_m + (1 - beta1)(h + d w);  w <- w - learning_rate g_m / s
    s <- beta2 s + (1 - beta2)(sqrt(s) |g| + damping + d),  d = prior_precision / N

    Args:
      learning_rate: or a schedule of it; the source: 0.5 on CIFAR. May be traced.
      rho: >= 0, or as in `sam`; a factor, not a radius. The code's 0.1, CIFAR 0.01.
        Like s it minds the scale of the loss: undo a loss scale before.
      key: a typed key; each update and part folds in its number.
      examples: N > 0, the size of the training set (infinity: no noise, no prior); the
        source counts every image of CIFAR, which it augments, as four.
      beta1, beta2: in [0, 1], of the momentum and of s. May be traced.
      prior_precision: >= 0, weight decay times N; the code: 25, CIFAR 40.
      damping: >= 0, keeps s away from 0. May be traced.
      init_scale: > 0, the s of the start.
      mask, split, perturb_dtype, aux: as in `sam`; parts draw noise of their own. The
        source splits a batch into 8.
    Returns:
      An optimizer: what update(grads, state, params, grad_fn=...) gives is added to the
      weights. grads is not read, so that under jit nothing computes it; the state's
      "gap" takes g for the gradient at w. `optax.tree.get(state, "scale")` is s:
      w + n / sqrt(N s) samples the posterior to average predictions over.
    Gradient: smooth in the hyperparameters and the weights; |g| has slope 0 at 0.
    Cost: two gradients, two trees of state, and the noise.
    Raises: as `sam`; ValueError for a hyperparameter out of its range.
    Source: Möllenhoff and Khan, "SAM as an Optimal Relaxation of Bayes", 2022,
      arXiv:2210.01620, alg. 1, with the damping of its code. Differs: none.
    Example:
      >>> w, grad_fn = jax.numpy.array([1.0, 2.0]), lambda w: 2 * w  # of |w|^2
      >>> tx = bsam(0.5, 0.5, key=jax.random.key(0), examples=1e30, beta1=0.0)
      >>> print(tx.update(w, tx.init(w), w, grad_fn=grad_fn)[0])  # -0.5 * 2 (w + w)
      [-2. -4.]
    """
    above("examples", examples, 0)
    between("beta1", beta1, 0, 1)
    between("beta2", beta2, 0, 1)
    at_least("prior_precision", prior_precision, 0)
    at_least("damping", damping, 0)
    above("init_scale", init_scale, 0)

    def init(params: PyTree) -> BsamState:
        start = zeros(params)
        return BsamState(start, tree.map_floats(lambda x: x + init_scale, start))

    def method(here: Here):
        own = jax.random.fold_in(jax.random.fold_in(key, here.step), here.part)
        rate = learning_rate(here.step) if callable(learning_rate) else learning_rate
        decay = prior_precision / examples
        s = recall(here.inner.scale, here.grads)
        m = recall(here.inner.momentum, here.grads)

        noise = cloud(own, here.params, here.grads, None)
        noise = tree.map_floats(lambda n, s: n * safe.rsqrt(examples * s), noise, s)
        g, _ = here.look(where(here.live, noise), scaled=False)
        step = tree.map_floats(lambda g, s: g / s, g, s)
        h, seen = here.look(where(here.live, step), below=g)

        def momentum(m, h, w):
            return beta1 * m + (1 - beta1) * (h + decay * w)

        def width(s, g):
            new = safe.sqrt(s) * safe.absolute(g) + damping + decay
            return beta2 * s + (1 - beta2) * new

        m = tree.map_floats(momentum, m, h, tree.promote(here.params))
        updates = tree.map_floats(lambda m, s: m / s * rate * -1, m, s)
        s = tree.map_floats(width, s, g)
        inner = BsamState(keep(here.inner.momentum, m), keep(here.inner.scale, s))
        return updates, inner, seen

    return transformation(
        "bsam",
        method,
        rho=rho,
        init=init,
        mask=mask,
        split=split,
        perturb_dtype=perturb_dtype,
        aux=aux,
    )
