"""Sharpness-aware minimization: descend with the gradient of the worst nearby point.

Given the gradient of one device's batch and a grad_fn that averages over devices it is
the m-sharpness form. Inside `optax.masked` or `optax.partition` pass
`complete(grad_fn, params)`: that part alone is perturbed, the rest keeps its plain
gradient. `optax.MultiSteps` calls grad_fn at every microbatch and uses what the last
call gives, so let it cover them all.
"""

import optax
from jaxtyping import PyTree, ScalarLike

from .. import _tree as tree
from .._check import above, at_least
from ._ascent import steepest, steepest_adaptive
from ._grad_fn import checked


def sam(
    rho: ScalarLike = 0.05,
    *,
    p: ScalarLike = 2,
    adaptive: PyTree[bool] = False,
    eta: ScalarLike = 0.01,
) -> optax.GradientTransformationExtraArgs:
    """The gradient at the worst point nearby instead of the one at w; for flat minima.

    grad L(w + e), e = rho sign(g) |g|^(q-1) / (sum |g|^q)^(1/p), 1/p + 1/q = 1
    adaptive: e = T e', e' this step for the gradient T g, T = |w| + eta

    Args:
      rho: radius >= 0; the adaptive form wants about 10 times more. 0 is the plain
        gradient. May be traced (`optax.inject_hyperparams` makes it a schedule).
      p: > 1, the ball's norm: 2 steps along g/|g|, inf along sign(g). May be traced.
      adaptive: True measures the ball relative to each weight; a prefix tree of bools
        says in which leaves (the paper's code: weights, not biases).
      eta: >= 0, keeps small weights movable in the adaptive form. May be traced.
    Returns:
      A transformation without state whose update(grads, state, params, grad_fn=...)
      gives grad_fn(w + e), grad_fn: parameters -> gradients on the batch of `grads`.
      e is computed in f32 and is 0 at a zero gradient; w keeps its dtype.
    Gradient: the descent sees e as a constant; meta-gradients are exact in everything,
      but 0 through e at a zero gradient and, for p != 2, at zero entries.
    Cost: one more gradient, and a copy of the parameters while it runs.
    Raises: ValueError if grad_fn or params is missing, if grad_fn returns another
      structure, for a negative rho or eta, for p <= 1.
    Source: Foret et al., "Sharpness-Aware Minimization for Efficiently Improving
      Generalization", 2020, arXiv:2010.01412, eq. 2-3; Kwon et al., "ASAM: Adaptive
      Sharpness-Aware Minimization for Scale-Invariant Learning of Deep Neural
      Networks", 2021, arXiv:2102.11600, alg. 1. Differs: safe at a zero gradient
      without an epsilon; weight decay is the optimizer's; T has no per-filter form.
    Example:
      >>> import jax.numpy as jnp
      >>> w, grad_fn = jnp.array([3.0, 4.0]), lambda w: 2 * w  # of the loss |w|^2
      >>> tx = optax.chain(sam(5.0), optax.sgd(0.5))
      >>> updates, _ = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
      >>> updates  # -0.5 * 2 (w + 5 w/|w|)
      Array([-6., -8.], dtype=float32)
    """
    at_least("rho", rho, 0)
    above("p", p, 1)
    at_least("eta", eta, 0)

    def init(params):
        del params
        return optax.EmptyState()

    def update(updates, state, params=None, *, grad_fn=None, **extra):
        del extra  # chain passes everybody's arguments to everybody
        grads_at = checked("sam", grad_fn, updates, params)
        if adaptive is False:
            step = steepest(updates, p)
        else:
            step = steepest_adaptive(updates, params, p, adaptive, eta)
        return grads_at(tree.add_scaled(params, rho, step)), state

    return optax.GradientTransformationExtraArgs(init, update)
