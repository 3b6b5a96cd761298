"""Mixed-mode differentiation of an inner gradient: what an outer gradient pulls back.

Training moves by g = dL/dparams. Reverse mode through g opens the backward pass that
computed it and stores its inside once more. But the Jacobian of g is a Hessian, which
is symmetric: pulling v back to the parameters is pushing v forward through g.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from .. import _tree as tree
from ..kernels._atomic import atomic


def mixed(
    grad_fn: Callable[..., Any], *, has_value: bool = False, has_aux: bool = False
) -> Callable[..., Any]:
    """The same gradient, differentiated forward over reverse; for the inner gradient.

    pull of v to params: d/de g(params + e v, ...)           g = dL/dparams
    pull of v to the rest: d/de dL/drest (params + e v, ...)  (where L is given)

    Args:
      grad_fn: (params, *args, **kwargs) -> what `jax.grad` or `jax.value_and_grad`
        returns, by the first argument. Anything else of it may be any pytree, arrays
        or not; what it closes over is differentiated too.
      has_value: it returns (value, gradients), as `jax.value_and_grad`.
      has_aux: gradients come as (gradients, aux), the value as (value, aux).
    Returns:
      A function with grad_fn's signature and numbers.
    Gradient: any order and both modes, under jit, vmap, scan and shard_map. It takes
      grad_fn at its word: the gradients are those of a twice differentiable value. The
      gradient that SAM gives, or one with a straight-through estimator, is not: wrap
      what SAM calls, not SAM. Without the value, the rest is pulled back in reverse
      over reverse, which is right for any grad_fn.
    Cost: stored for an outer reverse mode: the arguments, in place of what the inner
      passes computed. One more gradient when pulled back.
    Raises: ValueError if the result has not the form that the keywords say.
    Source: Kemaev et al., "Scalable Meta-Learning via Mixed-Mode Differentiation",
      2025, arXiv:2505.00793. Differs: an operation that knows its transpose, so
      that forward mode stays.
    Example:
      >>> grad_fn = mixed(jax.grad(lambda w, x: jnp.sum(x * w**3)))
      >>> jax.grad(lambda w: grad_fn(w, 2.0)[0])(jnp.array([1.0, 3.0]))  # 6 x w_0
      Array([12.,  0.], dtype=float32)
    """

    def call(params, *args, **kwargs):
        rest, structure = jax.tree.flatten((args, kwargs))
        dynamic = [i for i, leaf in enumerate(rest) if _is_array(leaf)]

        def flat(params, arrays):
            filled = dict(zip(dynamic, arrays, strict=True))
            leaves = [filled.get(i, leaf) for i, leaf in enumerate(rest)]
            args, kwargs = jax.tree.unflatten(structure, leaves)
            return _parts(grad_fn(params, *args, **kwargs), params, has_value, has_aux)

        arrays = [rest[i] for i in dynamic]
        program, shapes = jax.make_jaxpr(flat, return_shape=True)(params, arrays)
        form = jax.tree.structure(shapes)

        def run(params, arrays, closed_over):
            leaves = jax.tree.leaves((params, arrays))
            run = core.jaxpr_as_fun(core.ClosedJaxpr(program.jaxpr, closed_over))
            return jax.tree.unflatten(form, run(*leaves))

        pull = _pull(run, has_value)
        args = params, arrays, list(program.consts)
        value, grads, aux = atomic(run, *args, pull=pull, name="mixed")
        if not has_aux:
            return (value, grads) if has_value else grads
        return ((value, aux), grads) if has_value else (grads, aux)

    return call


def _is_array(leaf: Any) -> bool:
    """Whether a leaf is data; functions, names and flags reach grad_fn as they are."""
    array = isinstance(leaf, jax.Array | np.ndarray | np.generic | float)
    return array and jnp.result_type(leaf) != jax.dtypes.float0


def _parts(result: Any, params: Any, has_value: bool, has_aux: bool) -> tuple:
    """(value, gradients, aux), None for what there is not."""
    came = jax.tree.structure(result)

    def pair(x):
        if not isinstance(x, tuple) or len(x) != 2:
            wanted = "(value, gradients)" if has_value else "(gradients, aux)"
            wanted = "((value, aux), gradients)" if has_value and has_aux else wanted
            raise ValueError(f"grad_fn: wanted it to return {wanted}, came {came}")
        return x

    value, aux, grads = None, None, result
    if has_value:
        value, grads = pair(result)
        value, aux = pair(value) if has_aux else (value, None)
        if jnp.shape(value) != ():
            raise ValueError(f"grad_fn: wanted a scalar value, came {jnp.shape(value)}")
    elif has_aux:
        grads, aux = pair(result)
    if jax.tree.structure(grads) != jax.tree.structure(params):
        raise ValueError(
            "grad_fn: wanted gradients of the structure of params, "
            f"{jax.tree.structure(params)}, came {jax.tree.structure(grads)}; where it "
            "gives a value or more, has_value=True or has_aux=True says so"
        )
    tree.check_alike("grad_fn's gradients", grads, params)
    return value, grads, aux


def _pull(run: Callable, has_value: bool) -> Callable:
    """(arguments, cotangents) -> the arguments' cotangents, None where no float is."""

    def pull(args, cotangents):
        leaves, structure = jax.tree.flatten(args)
        floats = [i for i, x in enumerate(leaves) if tree.is_float(x)]
        count = len(jax.tree.leaves(args[0]))
        by_value, by_grads, by_aux = cotangents

        def outputs(primals):
            filled = dict(zip(floats, primals, strict=True))
            whole = [filled.get(i, x) for i, x in enumerate(leaves)]
            return run(*jax.tree.unflatten(structure, whole))

        at = [leaves[i] for i in floats]
        still = [jnp.zeros_like(x) for x in at[count:]]
        along = [
            jnp.asarray(v, x.dtype)
            for v, x in zip(jax.tree.leaves(by_grads), at[:count], strict=True)
        ]
        if has_value:  # of the gradient in everything
            slopes = jax.grad(lambda primals: outputs(primals)[0])
            here, pulled = jax.jvp(slopes, (at,), (along + still,))
            pulled = [
                p + by_value.astype(p.dtype) * g
                for p, g in zip(pulled, here, strict=True)
            ]
        else:
            _, pulled = jax.jvp(
                lambda moved: jax.tree.leaves(outputs(moved + at[count:])[1]),
                (at[:count],),
                (along,),
            )
            pulled = [
                jnp.asarray(p, x.dtype) for p, x in zip(pulled, at[:count], strict=True)
            ]
            if still:
                _, back = jax.vjp(
                    lambda rest: outputs(at[:count] + rest)[1], at[count:]
                )
                pulled = pulled + back(by_grads)[0]
        if any(tree.is_float(x) for x in jax.tree.leaves(by_aux)):
            extra = jax.vjp(lambda primals: _floats(outputs(primals)[2]), at)[1]
            pulled = jax.tree.map(jnp.add, pulled, extra(_floats(by_aux))[0])
        found = dict(zip(floats, pulled, strict=True))
        whole = [found.get(i) for i in range(len(leaves))]
        return jax.tree.unflatten(structure, whole)

    return pull


def _floats(x: Any) -> list:
    return [leaf for leaf in jax.tree.leaves(x) if tree.is_float(leaf)]
