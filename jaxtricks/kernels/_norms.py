"""Layer norm, RMS norm and compressed RMS norm, alone or after adding a residual."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, ScalarLike

from ._normalize import normalize


def layer_norm(
    x: Float[ArrayLike, "*batch features"],
    scale: Float[ArrayLike, " features"] | None = None,
    bias: Float[ArrayLike, " features"] | None = None,
    *,
    eps: ScalarLike = 1e-6,
    implementation: str = "auto",
) -> Float[Array, "*batch features"]:
    """Features to mean 0 and variance 1, then scale and bias; the norm of Pre-LN.

    y = (x - mean x) / sqrt(mean (x - mean x)^2 + eps) * scale + bias

    Args:
      x: float[*batch, features].
      scale: float[features], the gain; None for 1.
      bias: float[features]; None for 0.
      eps: >= 0, flax's default (torch has 1e-5, the paper none). May be traced.
      implementation: "auto", "xla", "mosaic_tpu", "mosaic_gpu" or "reference".
    Returns:
      x's dtype[*batch, features], computed in f32 at least, the mean too, so that a row
      loses the digits by which its mean exceeds its spread; the bias where all features
      are equal, or of a spread whose square f32 cannot hold (1e19).
    Gradient: smooth in all float arguments, any order and mode; 0 in x where all
      features are equal and eps is 0.
    Cost: a derivative stores x, and mean and 1 / sqrt(...) of a row in f32.
    Raises: ValueError for a shape, an eps or an implementation that does not fit.
    Source: Ba et al., "Layer Normalization", 2016, arXiv:1607.06450, eq. 4. Differs:
      eps.
    Example:
      >>> layer_norm(jnp.array([1.0, 2.0, 3.0]), eps=0.0)
      Array([-1.2247,  0.    ,  1.2247], dtype=float32)
    """
    x = jnp.asarray(x)
    return normalize("layer", implementation, x, None, scale, bias, eps)[0]


def rms_norm(
    x: Float[ArrayLike, "*batch features"],
    scale: Float[ArrayLike, " features"] | None = None,
    *,
    eps: ScalarLike = 1e-6,
    implementation: str = "auto",
) -> Float[Array, "*batch features"]:
    """Features to a mean square of 1, then scale; layer norm without its mean.

    y = x / sqrt(mean x^2 + eps) * scale

    Args:
      x: float[*batch, features].
      scale: float[features], the gain; None for 1, which is SimpleRMSNorm.
      eps: >= 0, flax's default (the paper's code has 1e-8). May be traced.
      implementation: "auto", "xla", "mosaic_tpu", "mosaic_gpu" or "reference".
    Returns:
      x's dtype[*batch, features], computed in f32 at least; 0 where x is 0, or so large
      that f32 cannot hold its square (1e19).
    Gradient: smooth in all float arguments, any order and mode; 0 in x where x and eps
      are 0.
    Cost: a derivative stores x, and 1 / sqrt(...) of a row in f32.
    Raises: ValueError for a shape, an eps or an implementation that does not fit.
    Source: Zhang, Sennrich, "Root Mean Square Layer Normalization", 2019,
      arXiv:1910.07467, eq. 4; Qin et al., "Scaling TransNormer to 175 Billion
      Parameters", 2023, arXiv:2307.14995, sec. 3.1, SRMSNorm, with scale=None. Differs:
      eps.
    Example:
      >>> rms_norm(jnp.array([3.0, 4.0]), eps=0.0)  # sqrt(12.5) below
      Array([0.8485, 1.1314 ], dtype=float32)
    """
    x = jnp.asarray(x)
    return normalize("rms", implementation, x, None, scale, None, eps)[0]


def crms_norm(
    x: Float[ArrayLike, "*batch features"],
    scale: Float[ArrayLike, " features"] | None = None,
    *,
    eps: ScalarLike = 1e-6,
    implementation: str = "auto",
) -> Float[Array, "*batch features"]:
    """RMS norm of a zero-mean vector that is stored without its last feature.

    y = x / sqrt((sum x^2 + (sum x)^2) / (d + 1) + eps) * scale,   d features stored

    Args:
      x: float[*batch, features]; the feature left out is -sum x.
      scale: float[features], the gain; None for 1, as in the paper.
      eps: >= 0, the default of the paper's code. May be traced.
      implementation: "auto", "xla", "mosaic_tpu", "mosaic_gpu" or "reference".
    Returns:
      x's dtype[*batch, features], computed in f32 at least: what `layer_norm` and
      `rms_norm` give for the whole vector, less its last feature; 0 where x is 0, or so
      large that f32 cannot hold the square of its sum (1e19).
    Gradient: smooth in all float arguments, any order and mode; 0 in x where x and eps
      are 0.
    Cost: a derivative stores x, and 1 / sqrt(...) of a row in f32.
    Raises: ValueError for a shape, an eps or an implementation that does not fit.
    Source: Jiang et al., "Pre-RMSNorm and Pre-CRMSNorm Transformers: Equivalent and
      Efficient Pre-LN Transformers", 2023, arXiv:2305.14858, sec. 3. Differs: a scale,
      for those who do not fold it into the next layer.
    Example:
      >>> whole = jnp.array([1.0, 3.0, -4.0])
      >>> crms_norm(whole[:2]), rms_norm(whole)[:2]
      (Array([0.3397, 1.0190], dtype=float32), Array([0.3397, 1.0190], dtype=float32))
    """
    x = jnp.asarray(x)
    return normalize("crms", implementation, x, None, scale, None, eps)[0]


def add_layer_norm(
    x: Float[ArrayLike, "*batch features"],
    residual: Float[ArrayLike, "*batch features"],
    scale: Float[ArrayLike, " features"] | None = None,
    bias: Float[ArrayLike, " features"] | None = None,
    *,
    eps: ScalarLike = 1e-6,
    implementation: str = "auto",
) -> tuple[Float[Array, "*batch features"], Float[Array, "*batch features"]]:
    """`layer_norm` of x + residual, and the sum, in one sweep; between two blocks.

    Args:
      x: float[*batch, features], what a block gives.
      residual: float[*batch, features], what it is added to.
      scale: float[features], the gain; None for 1.
      bias: float[features]; None for 0.
      eps: >= 0, flax's default. May be traced.
      implementation: "auto", "xla", "mosaic_tpu", "mosaic_gpu" or "reference".
    Returns:
      (y, summed): x's dtype and the wider of the two dtypes, [*batch, features] each. y
      is the norm of the sum as it is returned.
    Gradient: as of `layer_norm`; of x and residual, the same.
    Cost: a derivative stores the sum, and mean and 1 / sqrt(...) of a row in f32.
    Raises: ValueError for a shape, an eps or an implementation that does not fit.
    Source: definition.
    Example:
      >>> y, summed = add_layer_norm(jnp.array([1.0, 1.0]), jnp.array([0.0, 2.0]))
      >>> y, summed
      (Array([-1., 1.], dtype=float32), Array([1., 3.], dtype=float32))
    """
    x = jnp.asarray(x)
    return normalize("layer", implementation, x, residual, scale, bias, eps)


def add_rms_norm(
    x: Float[ArrayLike, "*batch features"],
    residual: Float[ArrayLike, "*batch features"],
    scale: Float[ArrayLike, " features"] | None = None,
    *,
    eps: ScalarLike = 1e-6,
    implementation: str = "auto",
) -> tuple[Float[Array, "*batch features"], Float[Array, "*batch features"]]:
    """`rms_norm` of x + residual, and the sum, in one sweep; between two blocks.

    Args:
      x: float[*batch, features], what a block gives.
      residual: float[*batch, features], what it is added to.
      scale: float[features], the gain; None for 1.
      eps: >= 0, flax's default. May be traced.
      implementation: "auto", "xla", "mosaic_tpu", "mosaic_gpu" or "reference".
    Returns:
      (y, summed): x's dtype and the wider of the two dtypes, [*batch, features] each. y
      is the norm of the sum as it is returned.
    Gradient: as of `rms_norm`; of x and residual, the same.
    Cost: a derivative stores the sum, and 1 / sqrt(...) of a row in f32.
    Raises: ValueError for a shape, an eps or an implementation that does not fit.
    Source: definition.
    Example:
      >>> y, summed = add_rms_norm(jnp.array([1.0, 2.0]), jnp.array([0.0, -3.0]))
      >>> y, summed
      (Array([ 1., -1.], dtype=float32), Array([ 1., -1.], dtype=float32))
    """
    x = jnp.asarray(x)
    return normalize("rms", implementation, x, residual, scale, None, eps)


def add_crms_norm(
    x: Float[ArrayLike, "*batch features"],
    residual: Float[ArrayLike, "*batch features"],
    scale: Float[ArrayLike, " features"] | None = None,
    *,
    eps: ScalarLike = 1e-6,
    implementation: str = "auto",
) -> tuple[Float[Array, "*batch features"], Float[Array, "*batch features"]]:
    """`crms_norm` of x + residual, and the sum, in one sweep; between two blocks.

    Args:
      x: float[*batch, features], what a block gives, without its last feature.
      residual: float[*batch, features], what it is added to.
      scale: float[features], the gain; None for 1.
      eps: >= 0, the default of the paper's code. May be traced.
      implementation: "auto", "xla", "mosaic_tpu", "mosaic_gpu" or "reference".
    Returns:
      (y, summed): x's dtype and the wider of the two dtypes, [*batch, features] each. y
      is the norm of the sum as it is returned.
    Gradient: as of `crms_norm`; of x and residual, the same.
    Cost: a derivative stores the sum, and 1 / sqrt(...) of a row in f32.
    Raises: ValueError for a shape, an eps or an implementation that does not fit.
    Source: definition.
    Example:
      >>> y, summed = add_crms_norm(jnp.array([1.0, 0.0]), jnp.array([0.0, -1.0]))
      >>> y, summed  # of [1, -1, 0]
      (Array([ 1.2247, -1.2247], dtype=float32), Array([ 1., -1.], dtype=float32))
    """
    x = jnp.asarray(x)
    return normalize("crms", implementation, x, residual, scale, None, eps)
