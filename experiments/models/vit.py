"""A vision transformer: patches, learned positions, the decoder's blocks without a
causal mask, the mean over patches, and a head that starts at zero.
"""

import jax.numpy as jnp
from flax import nnx

from .. import config
from ..config import BadInput
from ..mesh import Rules, constrain
from . import transformer

RULES: Rules = (
    (r"patch/kernel$", (None, "data")),
    (r"positions$", (None, "data")),
    *transformer.RULES,
)


def make(flags: config.Model, facts, rngs: nnx.Rngs) -> nnx.Module:
    height, width, _ = facts.image
    if height % flags.patch or width % flags.patch:
        said = f"wanted a divisor of the images' {height} and {width}"
        raise BadInput(f"--patch: {said}, came {flags.patch}")
    return ViT(flags, facts, rngs)


def flops(flags: config.Model, facts, length: int) -> float:
    """As of the decoder, for patches; the head reads their mean alone."""
    height, width, channels = facts.image
    d, patches = flags.d_model, height * width // flags.patch**2
    weights = 12 * flags.layers * d * d + flags.patch**2 * channels * d
    each = 2.0 * weights + 4.0 * flags.layers * d * patches
    return patches * each + 2.0 * d * facts.classes


class ViT(nnx.Module):
    """Images to one hidden state each."""

    def __init__(self, flags: config.Model, facts, rngs: nnx.Rngs):
        height, width, channels = facts.image
        d, self.side, self.dtype = flags.d_model, flags.patch, jnp.dtype(flags.dtype)
        self.patch = transformer.linear(self.side**2 * channels, d, self.dtype, rngs)
        shape = (height * width // self.side**2, d)
        self.positions = nnx.Param(
            nnx.initializers.normal(d**-0.5)(rngs.params(), shape)
        )
        self.blocks = nnx.List(transformer.blocks(flags, rngs))
        self.norm = transformer.norm(flags, rngs)
        self.head = transformer.linear(d, facts.classes, self.dtype, rngs, 0.0)
        self.remat = flags.remat

    def __call__(self, batch):
        x = self.patch(patches(batch["image"].astype(self.dtype), self.side))
        x = constrain(x + self.positions[...].astype(x.dtype)[None], "data")
        for block in self.blocks:
            x = transformer.rematerialized(block, self.remat)(x)
        hidden = jnp.mean(self.norm(x), axis=1, dtype=jnp.float32).astype(x.dtype)
        return hidden, self.head.kernel[...].astype(x.dtype)


def patches(image, side: int):
    """[batch, height, width, channels] -> [batch, patches, side * side * channels]."""
    batch, height, width, channels = image.shape
    x = image.reshape(batch, height // side, side, width // side, side, channels)
    return jnp.swapaxes(x, 2, 3).reshape(batch, -1, side * side * channels)
