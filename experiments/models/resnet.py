"""A pre-activation ResNet of three stages, each of half the size and twice the width.

It normalises by groups of channels, so that an example's output never depends on the
others in its batch: there are no batch statistics to keep or to sum over devices.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from .. import config
from ..mesh import Rules, constrain
from .transformer import linear, rematerialized

RULES: Rules = (
    (r"(stem|skip)/kernel$", (None, None, None, "data")),
    (r"first/kernel$", (None, None, "data", "model")),
    (r"second/kernel$", (None, None, "model", "data")),
    (r"head/kernel$", ("data", "model")),
    (r"norm\w*/(scale|bias)$", ()),
)
STAGES = 3


def make(flags: config.Model, facts, rngs: nnx.Rngs) -> nnx.Module:
    return ResNet(flags, facts, rngs)


def flops(flags: config.Model, facts, length: int) -> float:
    """2 for each product of the convolutions, borders counted as if inside."""
    height, width, channels = facts.image
    total = 9 * channels * flags.d_model * height * width
    for d_in, d_out, stride in plan(flags):
        height, width = -(-height // stride), -(-width // stride)
        skip = d_in * d_out if d_in != d_out or stride > 1 else 0
        total += height * width * (9 * d_in * d_out + 9 * d_out * d_out + skip)
    return 2.0 * (total + d_out * facts.classes)


def plan(flags: config.Model) -> list[tuple[int, int, int]]:
    """(channels in, channels out, stride) of every block."""
    blocks, d = [], flags.d_model
    for stage in range(STAGES):
        width = flags.d_model * 2**stage
        for i in range(flags.layers):
            blocks.append((d, width, 2 if stage and not i else 1))
            d = width
    return blocks


class ResNet(nnx.Module):
    """Images to one hidden state each."""

    def __init__(self, flags: config.Model, facts, rngs: nnx.Rngs):
        self.dtype, self.remat = jnp.dtype(flags.dtype), flags.remat
        self.stem = conv(facts.image[2], flags.d_model, 3, 1, self.dtype, rngs)
        steps = plan(flags)
        self.blocks = nnx.List([Block(*step, self.dtype, rngs) for step in steps])
        _, d, _ = steps[-1]
        self.norm = norm(d, self.dtype, rngs)
        self.head = linear(d, facts.classes, self.dtype, rngs, 0.0)

    def __call__(self, batch):
        x = constrain(self.stem(batch["image"].astype(self.dtype)), "data")
        for block in self.blocks:
            x = constrain(rematerialized(block, self.remat)(x), "data")
        x = jax.nn.relu(self.norm(x))
        hidden = jnp.mean(x, axis=(1, 2), dtype=jnp.float32).astype(x.dtype)
        return hidden, self.head.kernel[...].astype(x.dtype)


class Block(nnx.Module):
    """Two convolutions on a normed copy, added to the stream."""

    def __init__(self, d_in: int, d_out: int, stride: int, dtype, rngs: nnx.Rngs):
        self.norm_in, self.norm_mid = norm(d_in, dtype, rngs), norm(d_out, dtype, rngs)
        self.first = conv(d_in, d_out, 3, stride, dtype, rngs)
        self.second = conv(d_out, d_out, 3, 1, dtype, rngs)
        same = d_in == d_out and stride == 1
        self.skip = None if same else conv(d_in, d_out, 1, stride, dtype, rngs)

    def __call__(self, x):
        y = jax.nn.relu(self.norm_in(x))
        if self.skip:
            x = self.skip(y)
        y = constrain(self.first(y), "data", None, None, "model")
        return x + self.second(jax.nn.relu(self.norm_mid(y)))


def conv(d_in: int, d_out: int, side: int, stride: int, dtype, rngs) -> nnx.Conv:
    return nnx.Conv(
        d_in,
        d_out,
        (side, side),
        strides=stride,
        use_bias=False,
        dtype=dtype,
        kernel_init=nnx.initializers.he_normal(),
        rngs=rngs,
    )


def norm(d: int, dtype, rngs: nnx.Rngs) -> nnx.GroupNorm:
    """Of 8 groups, or as many as divide the channels; statistics in f32."""
    return nnx.GroupNorm(d, num_groups=math.gcd(d, 8), dtype=dtype, rngs=rngs)
