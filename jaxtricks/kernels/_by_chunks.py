"""Numbers a token from its logits, a chunk of tokens at a time, on any mesh.

`by_chunks` scans a formula over chunks of one device's tokens: a chunk's logits are one
full-vocabulary matrix product, reduced at once. Derivatives compute them again
(`atomic`), and sum the gradient of a weight over the chunks in f32, whatever its dtype.
`on_mesh` gives every device its own tokens and its own classes.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType
from jaxtyping import Array, Float, PyTree, ScalarLike

from .._check import one_of
from .._compat import NamedSharding, P, varying_like
from .._mask import blank
from ._atomic import Lowering, atomic

COPIES = 2  # of a chunk's logits, in a value or gradient of plain cross entropy
MORE_COPIES = 4  # with a softcap or more statistics


class Head(NamedTuple):
    """What turns hidden states into logits; weight and bias in the computing dtype."""

    weight: Float[Array, "..."]  # [features, classes], or the reverse in layout "vd"
    bias: Float[Array, " classes"] | None
    softcap: ScalarLike | None
    scale: ScalarLike | None
    class_weights: Float[Array, " classes"] | None = None


class Form(NamedTuple):
    """What is static about the logits."""

    layout: str  # "dv" or "vd"
    dtype: str  # what hidden states and weight are multiplied in


def form(hidden, weight, layout: str) -> Form:
    """By the inputs' own dtypes: both in the wider one."""
    one_of("layout", layout, ("dv", "vd"))
    dtypes = {x.dtype for x in (hidden, weight) if jnp.issubdtype(x.dtype, jnp.inexact)}
    if len(dtypes) == 1 and dtypes <= {jnp.dtype("bfloat16"), jnp.dtype("float16")}:
        return Form(layout, str(dtypes.pop()))
    return Form(layout, "float64" if jnp.dtype("float64") in dtypes else "float32")


def computing(form: Form) -> str:
    """The dtype of all that is summed."""
    return "float64" if form.dtype == "float64" else "float32"


def logits(
    hidden: Float[Array, "tokens features"], head: Head, form: Form
) -> Float[Array, "tokens classes"]:
    """scale cap(hidden weight + bias)."""
    return finished(product(hidden, head.weight, form), head)


def finished(
    product: Float[Array, "tokens classes"], head: Head
) -> Float[Array, "tokens classes"]:
    """The logits, from the product alone; -inf stays -inf, with derivative 0."""
    z: Any = product
    if head.bias is None and head.softcap is None and head.scale is None:
        return z
    if head.bias is not None:
        z = z + head.bias[None, :]
    live = z != -jnp.inf
    z = blank(z, live)
    if head.softcap is not None:
        z = head.softcap * jnp.tanh(z / head.softcap)
    if head.scale is not None:
        z = head.scale * z
    return jnp.where(live, z, -jnp.inf)


def product(hidden, weight, form):
    """hidden weight, summed in f32; both hold numbers of form.dtype, in f32.

    On TPU and GPU the cotangent of bf16 logits is rounded to bf16, as its products
    would be many times slower otherwise.
    """
    wv = "dv" if form.layout == "dv" else "vd"
    if form.dtype in ("float32", "float64"):
        return jnp.einsum(f"nd,{wv}->nv", hidden, weight)

    def dot(equation, dtype, a, b):
        a, b = a.astype(dtype), b.astype(dtype)
        return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)

    def pulled(dtype, args, z_bar):
        hidden, weight = args
        by_hidden = dot(f"nv,{wv}->nd", dtype, z_bar, weight)
        return by_hidden, dot(f"nd,nv->{wv}", dtype, hidden, z_bar)

    def pull(args, z_bar):
        low = "bfloat16" if form.dtype == "bfloat16" else "float32"  # f16 underflows
        fast = Lowering(partial(pulled, low), plain=True)
        on = {"tpu": fast, "cuda": fast}
        return atomic(partial(pulled, "float32"), args, z_bar, on=on, name="product")

    return atomic(partial(dot, f"nd,{wv}->nv", form.dtype), hidden, weight, pull=pull)


def by_chunks(
    formula: Callable,
    tokens: PyTree,
    heads: PyTree,
    *,
    classes: int,
    workspace_mb: float | int | None,
    copies: int,
) -> PyTree:
    """formula(tokens [n, ...], heads) -> pytree of [n, ...], over chunks of tokens."""

    def step(chunk, heads):
        return formula(chunk, heads), ()

    # The last token fills up the last chunk: zeros might overflow, for nothing.
    return by_chunks_and_sum(
        step,
        tokens,
        heads,
        classes=classes,
        workspace_mb=workspace_mb,
        copies=copies,
        fill="edge",
    )[0]


def by_chunks_and_sum(
    step: Callable,
    tokens: PyTree,
    heads: PyTree,
    *,
    classes: int,
    workspace_mb: float | int | None,
    copies: int,
    fill: str = "constant",
) -> tuple[PyTree, PyTree]:
    """step(tokens [n, ...], heads) -> (pytree of [n, ...], what is summed over chunks).

    Tokens that fill up the last chunk, zeros or copies of the last, must add nothing.
    The last leaf of tokens varies over the mesh axes that split the batch, others may
    over more.
    """
    *_, last = jax.tree.leaves(tokens)
    count = last.shape[0]
    itemsize = max(x.dtype.itemsize for x in jax.tree.leaves(heads))
    chunks = chunk_count(count, classes * itemsize, workspace_mb, copies)
    spare = -count % chunks
    # Varying before the chunks, so that cotangents are summed over devices after them.
    heads = jax.tree.map(lambda x: varying_like(x, last), heads)

    def fold(x):
        """[tokens, ...] -> [chunks, tokens, ...], each chunk with every n-th token.

        Had the compiler split the batch by itself, each chunk would be split alike.
        """
        if spare:
            x = jnp.pad(x, ((0, spare), *((0, 0),) * (x.ndim - 1)), fill)
        return jnp.moveaxis(x.reshape(-1, chunks, *x.shape[1:]), 1, 0)

    def unfold(x):
        x = jnp.moveaxis(x, 0, 1)
        return x.reshape(-1, *x.shape[2:])[:count]

    def body(carry, chunk):
        out, part = atomic(step, chunk, heads)
        return jax.tree.map(jnp.add, carry, part), out

    folded = jax.tree.map(fold, tokens)
    one = jax.tree.map(lambda x: x[0], folded)
    _, parts = jax.eval_shape(step, one, heads)
    zeros = jax.tree.map(lambda x: varying_like(jnp.zeros(x.shape, x.dtype), x), parts)
    total, out = lax.scan(body, zeros, folded)
    return jax.tree.map(unfold, out), total


def copies_held(head: Head, more: bool) -> int:
    """How many of a chunk's logits a value or a gradient holds at a time."""
    plain = head.softcap is None and head.scale is None and not more
    return COPIES if plain else MORE_COPIES


def chunk_count(
    tokens: int, bytes_each: int, workspace_mb: float | int | None, copies: int
) -> int:
    """How many chunks: what the workspace asks for, or some more to come out even."""
    workspace = math.inf
    if workspace_mb is not None:
        workspace = workspace_mb * 2**20
    elif jax.default_backend() == "cpu":
        workspace = max(32 * 2**20, copies * 64 * bytes_each)
    else:
        workspace = max(256 * 2**20, copies * 1024 * bytes_each)
    fit = max(1, int(min(tokens, workspace / (copies * bytes_each))))
    least = max(1, math.ceil(tokens / fit))
    return next((n for n in range(least, 2 * least) if tokens % n == 0), least)


# --- meshes ---------------------------------------------------------------------------


class Split(NamedTuple):
    """Which mesh axes split what."""

    batch: tuple  # an entry for each batch axis
    classes: tuple[str, ...]


def on_mesh(
    local: Callable,
    tokens: PyTree,
    heads: PyTree,
    *,
    layout: str,
    w_axis: str | None,
    results: Callable = lambda tokens, heads: tokens,
) -> PyTree:
    """local(tokens, heads, w_axis) on each device's own tokens and classes.

    tokens: pytree of [*batch, ...], hidden states first; heads: pytree, a weight first.
    Inside shard_map and pmap the arrays are the device's own already, and w_axis says
    what splits the classes; elsewhere it may. Hidden states stay where they are along
    the batch. results: from the layouts of tokens and of heads, that of the result.
    """
    kinds = _kinds(jax.sharding.get_abstract_mesh())
    free = {a for a, kind in kinds.items() if kind != AxisType.Manual}
    hidden, weight = jax.tree.leaves(tokens)[0], jax.tree.leaves(heads)[0]
    split = _split(hidden, weight, layout, w_axis)
    own = w_axis if kinds.get(w_axis, AxisType.Manual) == AxisType.Manual else None
    if not any(split.batch) and not split.classes:
        return local(tokens, heads, own)

    def head_spec(x):
        if jnp.ndim(x) == 2:
            return P(None, split.classes) if layout == "dv" else P(split.classes, None)
        return P(split.classes) if jnp.ndim(x) == 1 else P()

    rows = P(*split.batch)
    specs = jax.tree.map(head_spec, heads)
    run = jax.shard_map(
        lambda tokens, heads: local(tokens, heads, split.classes or own),
        in_specs=(jax.tree.map(lambda _: rows, tokens), specs),
        out_specs=results(rows, specs),
        axis_names=free,
    )
    tokens = jax.tree.map(lambda x: reshard(x, rows), tokens)
    return run(tokens, jax.tree.map(reshard, heads, specs))


def _kinds(mesh) -> dict[str | None, AxisType]:
    return dict(zip(mesh.axis_names, mesh.axis_types, strict=True))


def _split(hidden, weight, layout, w_axis) -> Split:
    """By the arrays' types on an Explicit mesh; "data" and "model" on an Auto one."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = _kinds(mesh)
    batch = jax.typeof(hidden).sharding.spec[: hidden.ndim - 1]
    if not any(batch):
        auto = hidden.ndim > 1 and kinds.get("data") == AxisType.Auto
        fits = auto and hidden.shape[0] % mesh.shape["data"] == 0
        batch = ("data",) if fits else ()
    taken = {axis for entry in batch for axis in _names(entry)}
    place = 1 if layout == "dv" else 0
    spec = (*jax.typeof(weight).sharding.spec, None, None)
    classes = tuple(
        axis
        for axis in _names(spec[place])
        if axis not in taken and mesh.shape[axis] > 1
    )
    axis = w_axis or "model"
    if kinds.get(w_axis) == AxisType.Manual:
        return Split(tuple(batch), ())
    if not classes and kinds.get(axis) in (AxisType.Auto, AxisType.Explicit):
        fits = weight.shape[place] % mesh.shape[axis] == 0
        if w_axis and not fits:
            raise ValueError(
                f"w_axis: wanted an axis that divides {weight.shape[place]} classes, "
                f"came {w_axis!r} of size {mesh.shape[axis]}"
            )
        split = fits and axis not in taken and mesh.shape[axis] > 1
        classes = (axis,) if split else ()
    return Split(tuple(batch), classes)


def _names(entry) -> tuple[str, ...]:
    """The mesh axes in one entry of a PartitionSpec."""
    if isinstance(entry, str):
        return (entry,)
    return tuple(entry or ())


def reshard(x, spec):
    """`x` laid out by `spec` on an Explicit mesh; as it is on an Auto one."""
    mesh = jax.sharding.get_abstract_mesh()
    if AxisType.Explicit not in mesh.axis_types:
        return x
    return jax.reshard(x, NamedSharding(mesh, P(*spec)))
