"""A decoder: pre-norm blocks, rotary positions, no biases, tied or untied head.

Weights are f32 and cast where they are used (--dtype); the norms' means, the softmax
and all sums of products are in f32. Documents packed into a window do not see each
other: attention stays within a segment and positions count from its start.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from .. import config
from ..mesh import Rules, constrain

Heads = Float[Array, "batch time heads features"]
Stream = Float[Array, "batch time d"]

RULES: Rules = (
    (r"embed/embedding$", ("model", "data")),
    (r"(qkv|up|head)/kernel$", ("data", "model")),
    (r"(out|down)/kernel$", ("model", "data")),
    (r"norm\w*/scale$", ()),
)

QUERIES = 1024  # whose scores exist at a time


def make(flags: config.Model, facts, rngs: nnx.Rngs) -> nnx.Module:
    return Transformer(flags, facts.classes, rngs)


def flops(flags: config.Model, facts, length: int) -> float:
    """2 for each weight and token, and 4 for each pair of positions and feature.

    Of a causal model half the pairs are masked; they are counted, as is the custom.
    """
    d = flags.d_model
    weights = 12 * flags.layers * d * d + d * facts.classes
    return length * (2.0 * weights + 4.0 * flags.layers * d * length)


class Transformer(nnx.Module):
    """Tokens to hidden states."""

    def __init__(self, flags: config.Model, vocabulary: int, rngs: nnx.Rngs):
        d, self.dtype = flags.d_model, jnp.dtype(flags.dtype)
        init = nnx.initializers.normal(d**-0.5)
        self.embed = nnx.Embed(
            vocabulary, d, dtype=self.dtype, embedding_init=init, rngs=rngs
        )
        self.blocks = nnx.List(blocks(flags, rngs))
        self.norm = norm(flags, rngs)
        self.head = None if flags.tied else linear(d, vocabulary, self.dtype, rngs)
        self.remat = flags.remat

    def __call__(self, batch) -> tuple[Stream, Float[Array, "d vocabulary"]]:
        tokens = batch["inputs"]
        count = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
        positions = batch.get("positions", count)
        segments = batch.get("segments", jnp.ones_like(tokens))
        x = constrain(self.embed(tokens), "data")
        for block in self.blocks:
            x = rematerialized(block, self.remat)(x, positions, segments)
        head = self.head.kernel[...] if self.head else self.embed.embedding[...].T
        return self.norm(x), head.astype(self.dtype)


def blocks(flags: config.Model, rngs: nnx.Rngs) -> list["Block"]:
    return [Block(flags, rngs) for _ in range(flags.layers)]


def norm(flags: config.Model, rngs: nnx.Rngs) -> nnx.RMSNorm:
    return nnx.RMSNorm(flags.d_model, dtype=jnp.dtype(flags.dtype), rngs=rngs)


def linear(d_in: int, d_out: int, dtype, rngs, scale: float = 1.0) -> nnx.Linear:
    init = nnx.initializers.normal(scale * d_in**-0.5)
    return nnx.Linear(
        d_in, d_out, use_bias=False, dtype=dtype, kernel_init=init, rngs=rngs
    )


class Block(nnx.Module):
    """Attention, then a perceptron; each reads a normed copy and adds to the stream."""

    def __init__(self, flags: config.Model, rngs: nnx.Rngs):
        d, dtype, self.heads = flags.d_model, jnp.dtype(flags.dtype), flags.heads
        small = (
            2 * flags.layers
        ) ** -0.5  # so that the stream does not grow with depth
        self.norm_in = norm(flags, rngs)
        self.qkv = linear(d, 3 * d, dtype, rngs)
        self.out = linear(d, d, dtype, rngs, small)
        self.norm_mid = norm(flags, rngs)
        self.up = linear(d, 4 * d, dtype, rngs)
        self.down = linear(4 * d, d, dtype, rngs, small)

    def __call__(
        self,
        x: Stream,
        positions: Int[Array, "batch time"] | None = None,
        segments: Int[Array, "batch time"] | None = None,
    ) -> Stream:
        """Causal, within segments, by position; or, given neither, all to all."""
        batch, time, d = x.shape
        # Heads first, so that splitting the weight's columns splits heads.
        qkv = self.qkv(self.norm_in(x)).reshape(batch, time, self.heads, 3, -1)
        qkv = constrain(qkv, "data", None, "model")
        q, k, v = (qkv[:, :, :, i] for i in range(3))
        if positions is not None:
            q, k = rotate(q, positions), rotate(k, positions)
        mixed = attend(q, k, v, segments).reshape(batch, time, d)
        x = constrain(x + self.out(mixed), "data")
        wide = constrain(self.up(self.norm_mid(x)), "data", None, "model")
        return constrain(x + self.down(jnp.square(jax.nn.relu(wide))), "data")


def rematerialized(block: nnx.Module, remat: str):
    """The block as a function that keeps for the gradient what --remat says."""
    graph, params = nnx.split(block)

    def call(params, *args):
        return nnx.merge(graph, params)(*args)

    if remat == "full":
        call = jax.checkpoint(call)
    elif remat == "dots":
        keep = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        call = jax.checkpoint(call, policy=keep)
    return lambda *args: call(params, *args)


def attend(
    q: Heads, k: Heads, v: Heads, segments: Int[Array, "batch time"] | None = None
) -> Heads:
    """Attention, causal and within `segments` where they are given.

    Long windows go by some queries at a time, whose scores are computed again for the
    gradient: memory grows with the length, not with its square.
    """
    time = q.shape[1]
    least = math.ceil(time / QUERIES)
    parts = next(n for n in range(least, time + 1) if time % n == 0)
    k, v = (
        jnp.moveaxis(k, 2, 1),
        jnp.moveaxis(v, 2, 1),
    )  # [batch, heads, time, features]
    index = jnp.arange(time)

    def some(q, index, own):
        scores = jnp.einsum("bqhf,bhkf->bhqk", q, k, preferred_element_type=jnp.float32)
        scores = scores * q.shape[-1] ** -0.5
        if segments is not None:
            scores = jnp.where(seen(index, own, segments), scores, -jnp.inf)
        weights = jax.nn.softmax(scores).astype(v.dtype)
        return jnp.einsum("bhqk,bhkf->bqhf", weights, v)

    own = jnp.ones(q.shape[:2], jnp.int32) if segments is None else segments
    if parts == 1:
        return some(q, index, own)

    def fold(x, axis):
        x = x.reshape(*x.shape[:axis], parts, -1, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis, 0)

    folded = fold(q, 1), fold(index, 0), fold(own, 1)
    out = jax.lax.map(lambda args: jax.checkpoint(some)(*args), folded)
    return jnp.moveaxis(out, 0, 1).reshape(q.shape)


def seen(
    index: Int[Array, " queries"],
    own: Int[Array, "batch queries"],
    segments: Int[Array, "batch time"],
) -> Bool[Array, "batch 1 queries time"]:
    """What queries at `index`, in the segments `own`, look at; themselves always."""
    past = index[:, None] >= jnp.arange(segments.shape[1])[None, :]
    same = own[:, :, None] == segments[:, None, :]
    return (past[None] & same)[:, None]


def rotate(x: Heads, positions: Int[Array, "batch time"]) -> Heads:
    """Rotary positions: turns (x_i, x_{i + half}) by position * 10000^(-i / half)."""
    half = x.shape[-1] // 2
    rate = 10000.0 ** (-jnp.arange(half) / half)
    angle = (positions[:, :, None] * rate[None, None, :])[:, :, None, :]
    a, b = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    turned = jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
    return turned.astype(x.dtype)
