"""What the attentions share: checks, heads, and a scan over blocks of positions."""

import jax.numpy as jnp
from jax import lax


def computing_dtype(*arrays):
    """f64 if one of them is, f32 otherwise."""
    return jnp.float64 if jnp.float64 in [x.dtype for x in arrays] else jnp.float32


def check_shapes(q, **others) -> None:
    """ValueError unless all have q's axes but the last, and k its last."""
    for name, x in others.items():
        if x.shape[:-1] != q.shape[:-1] or (name == "k" and x.shape != q.shape):
            last = str(q.shape[-1]) if name == "k" else "any"
            wanted = ", ".join([*map(str, q.shape[:-1]), last])
            raise ValueError(
                f"{name}: wanted [{wanted}] beside q {list(q.shape)}, "
                f"came {list(x.shape)}"
            )


def per_head(name, x, q, dtype, after=()):
    """`x` [*heads, *after] with axes of 1 in front, where heads end q's batch axes."""
    x, batch = jnp.asarray(x, dtype), q.shape[:-2]
    heads = x.shape[: x.ndim - len(after)]
    end = batch[len(batch) - len(heads) :]
    fits = all(n in (1, m) for n, m in zip(heads, end, strict=False))
    if len(heads) > len(batch) or not fits or x.shape[len(heads) :] != tuple(after):
        wanted = [*batch, *after]
        raise ValueError(f"{name}: wanted the end of {wanted}, came {list(x.shape)}")
    return x.reshape((1,) * (len(batch) - len(heads)) + x.shape)


def empty_sum(k, v, dtype):
    """sum_s k_s v_s^T over no s: zeros that lie on the mesh as the true sum will."""
    none = (x[..., :0, :].astype(dtype) for x in (k, v))
    return jnp.einsum("...sf,...sv->...fv", *none)


def over_blocks(f, carry, xs, block: int):
    """A scan of f(carry, xs) over blocks of positions, then one call for what is left.

    xs and the outputs are [*batch, length, n], of f those of one block.
    """
    length = xs[0].shape[-2]
    whole = length // block * block
    outs = []

    def split(x):
        x = x[..., :whole, :]
        x = x.reshape(*x.shape[:-2], whole // block, block, x.shape[-1])
        return jnp.moveaxis(x, -3, 0)

    if whole:
        carry, out = lax.scan(f, carry, tuple(map(split, xs)))
        out = jnp.moveaxis(out, 0, -3)
        outs.append(out.reshape(*out.shape[:-3], whole, out.shape[-1]))
    if whole < length or not whole:
        carry, out = f(carry, tuple(x[..., whole:, :] for x in xs))
        outs.append(out)
    return carry, jnp.concatenate(outs, axis=-2)
