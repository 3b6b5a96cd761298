"""What a case line asks of a trick, for functions that are not one value an example.

`ask(f, *data)` looks at f's results under jit, vmap, bf16 and on eight devices, and at
its first and second derivatives; f and its data are small.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

from tests.free.common import assert_close, assert_finite, is_float, put

KINDS = (AxisType.Auto, AxisType.Explicit)


def floats(tree) -> list:
    """The results as arrays that can be subtracted."""
    return [jnp.asarray(x, jnp.float32) for x in jax.tree.leaves(tree)]


def ask(f, *data, slopes=True, bf16=0.02, split=0):
    """split: the datum whose first axis eight devices share, or None."""
    data = [np.asarray(x) for x in data]
    want = jax.jit(f)(*data)
    assert_close(floats(f(*data)), floats(want), what="without jit")
    one, two = data, [x[::-1] if x.ndim else x for x in data]
    both = jax.jit(jax.vmap(f))(
        *[np.stack(pair) for pair in zip(one, two, strict=True)]
    )
    for at, each in enumerate((one, two)):
        got = [x[at] for x in floats(both)]
        assert_close(got, floats(f(*each)), rtol=1e-5, what="vmap")
    low = [jnp.asarray(x, jnp.bfloat16) if is_float(x) else x for x in data]
    short = jax.jit(f)(*low)
    for got, exact in zip(*map(jax.tree.leaves, (short, want)), strict=True):
        assert got.dtype == exact.dtype, "bf16"
        if is_float(exact):
            assert_close(got, exact, rtol=bf16, what="bf16")
    if split is not None:
        for kind in KINDS:
            spread = list(data)
            spread[split] = put(data[split], kind, "data")
            with jax.set_mesh(spread[split].sharding.mesh):
                got = jax.jit(f)(*spread)
            assert_close(floats(got), floats(want), what=str(kind))
    if slopes:
        differences(f, *data)


def differences(f, *data, rtol=1e-6, h=1e-5):
    """The derivative along one direction, forward and reverse, is that of central
    differences in float64; the second derivative is that of the first."""
    r = np.random.default_rng(5)
    moved = [i for i, x in enumerate(data) if is_float(x)]
    along = [r.normal(size=np.shape(data[i])) for i in moved]
    with jax.enable_x64(True):

        def line(t):
            at = [jnp.asarray(x, jnp.float64) if is_float(x) else x for x in data]
            for i, v in zip(moved, along, strict=True):
                at[i] = at[i] + t * v
            found = jax.tree.leaves(f(*at))
            parts = [jnp.ravel(x) for x in found if is_float(x)]
            whole = jnp.concatenate(parts)
            return jnp.sum(whole * jnp.cos(jnp.arange(whole.size)))

        first, second = jax.grad(line), jax.grad(jax.grad(line))
        got = jax.jit(lambda t: (first(t), second(t), jax.jvp(line, (t,), (1.0,))[1]))
        one, two, forward = got(jnp.float64(0))
        value, slope = jax.jit(line), jax.jit(first)
        np.testing.assert_allclose(forward, one, rtol=1e-9, atol=1e-12)
        for got, of in ((one, value), (two, slope)):
            assert_finite(got)
            want = (of(jnp.float64(h)) - of(jnp.float64(-h))) / (2 * h)
            np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-8)
