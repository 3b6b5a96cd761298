"""One formula for numpy and jax: leaf functions take the namespace of their arrays.

A merge of files runs on numpy and never imports jax; a merge of pytrees traces the same
functions under jax. So modules that hold leaf functions import this one and, at module
level, neither jax nor the shared blocks that need it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Real, Shaped

# jaxtyping's PyTree and ScalarLike would import jax.
Tree = Any
Number = Real[Any, ""] | float | int
Coefficients = Real[Any, " n"] | Sequence | None


def namespace(*arrays: Any) -> Any:
    """jax.numpy if any array, or a member of a list, is jax's, else numpy."""
    for x in arrays:
        for part in x if isinstance(x, list | tuple) else (x,):
            if isinstance(part, np.ndarray | np.generic):
                continue
            if hasattr(part, "__array_namespace__"):
                try:
                    return part.__array_namespace__()
                except NotImplementedError:  # a key
                    import jax.numpy as jnp

                    return jnp
    return np


def at_least_f32(xp: Any, x: Shaped[Any, "*s"] | float | Sequence) -> Float[Any, "*s"]:
    """The computing dtype: f64 stays f64, every other real becomes f32."""
    # Python numbers become f32 too; ml_dtypes' bfloat16 is no kind of float in numpy.
    dtype = getattr(x, "dtype", np.dtype(np.float16))
    wide = dtype.kind in "fc" and dtype.itemsize >= 4
    # Without a dtype, of which jax warns where f64 is not to be had.
    return xp.asarray(x) if wide else xp.asarray(x, np.float32)


def number(xp: Any, value: Number, like: Float[Any, "..."]) -> Float[Any, ""]:
    """A setting in the dtype of the data, which numpy's f64 numbers would widen."""
    return xp.asarray(value, like.dtype)


def coefficients(
    xp: Any,
    name: str,
    values: Sequence | Real[Any, "..."] | float | None,
    stack: Float[Any, "n ..."],
    *,
    spread: bool = False,
) -> Float[Any, " n"]:
    """One coefficient for each of the n models, in the stack's dtype; or ValueError.

    None is all 1. With `spread` one number serves all models.
    """
    n = how_many_models(stack)
    if values is None:
        return xp.ones(n, stack.dtype)
    if isinstance(values, list | tuple):
        parts = [xp.asarray(v, stack.dtype) for v in values]
        values = xp.stack(parts) if parts else np.ones(0)
    found = xp.asarray(values, stack.dtype)
    if spread and found.shape == ():
        return xp.broadcast_to(found, (n,))
    if found.shape != (n,):
        wanted = f"shape () or {(n,)}" if spread else f"shape {(n,)}"
        raise ValueError(f"{name}: wanted {wanted}, came {found.shape}")
    return found


def how_many_models(stack: Shaped[Any, "..."]) -> int:
    """n of a stack [n, *shape]; or ValueError."""
    if stack.ndim == 0 or stack.shape[0] == 0:
        raise ValueError(f"stack: wanted one model at least, came shape {stack.shape}")
    return stack.shape[0]


def along(values: Real[Any, " n"], stack: Shaped[Any, "n ..."]) -> Real[Any, "..."]:
    """[n] -> [n, 1, ...], to meet the stack."""
    return values.reshape((-1,) + (1,) * (stack.ndim - 1))


def deltas(
    base: Shaped[Any, "*shape"], stack: Shaped[Any, " n *shape"], *others: Any
) -> tuple[Any, Float[Any, "*shape"], Float[Any, " n *shape"]]:
    """(namespace, base, what each model changed), computed in at least f32.

    `others` may make the namespace jax's.
    """
    xp = namespace(base, stack, *others)
    base, stack = at_least_f32(xp, base), at_least_f32(xp, stack)
    how_many_models(stack)
    if base.shape != stack.shape[1:]:
        raise ValueError(f"base: wanted shape {stack.shape[1:]}, came {base.shape}")
    return xp, base, stack - base[None]


def nonzero(xp: Any, x: Float[Any, "*s"]) -> Float[Any, "*s"]:
    """x, but 1 with derivative 0 at 0; to divide by, or to take a logarithm of."""
    return xp.where(x == 0, 1, x)


def divide(xp: Any, a: Float[Any, "..."], b: Float[Any, "..."]) -> Float[Any, "..."]:
    """a / b; 0 with derivative 0 where b is 0."""
    return xp.where(b == 0, 0, a / nonzero(xp, b))


def sqrt(xp: Any, x: Float[Any, "*s"]) -> Float[Any, "*s"]:
    """sqrt(x); 0 with derivative 0 at 0."""
    return xp.where(x == 0, 0, xp.sqrt(nonzero(xp, x)))


def dot(
    xp: Any, a: Float[Any, "..."], b: Float[Any, "..."], axis: Any = None
) -> Float[Any, "..."]:
    """The inner product over the axes given, which stay as 1; None is all."""
    return xp.sum(a * b, axis=axis, keepdims=True)


def norm(xp: Any, x: Float[Any, "..."], axis: Any = None) -> Float[Any, "..."]:
    """The 2-norm over the axes given, which stay as 1; 0 with derivative 0 at 0."""
    return sqrt(xp, dot(xp, x, x, axis))
