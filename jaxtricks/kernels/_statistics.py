"""Token statistics: what losses need of a vocabulary's logits, without the logits.

Losses, entropies, divergences and probabilities of a token are formulas on a few
numbers: the log-sum-exp of its logits, the label's logit, a mean or two. Inside, all of
them are relative to the largest logit, to keep their digits at logits of 1e4.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Integer, ScalarLike

from .._check import above, known, one_of
from .._compat import varying_like
from .._mask import blank
from ._by_chunks import Form, Head, by_chunks, computing, copies_held, form, on_mesh
from ._dispatch import IMPLEMENTATIONS, dispatch
from ._relative import Relative, formulas, joined, of_both
from ._statistics_kernels import kernel, pull

STATS = ("lse", "target", "total", "mean", "square", "argmax")
Teacher = tuple[ArrayLike, ArrayLike, ArrayLike | None]


class TokenStatistics(NamedTuple):
    """Of a token's logits z with p = softmax(z); None where it was not asked for."""

    lse: Float[Array, "*batch"]  # log sum_v exp z_v
    target: Float[Array, "*batch"]  # z_label
    total: Float[Array, "*batch"] | None = None  # sum_v z_v, classes not ruled out
    mean: Float[Array, "*batch"] | None = None  # E_p[z]
    square: Float[Array, "*batch"] | None = None  # log sum_v exp 2 z_v
    argmax: Int[Array, "*batch"] | None = None  # the first of the largest
    teacher_lse: Float[Array, "*batch"] | None = None  # of the teacher's logits t
    teacher_gap: Float[Array, "*batch"] | None = None  # E_softmax(t)[z - t]
    student_gap: Float[Array, "*batch"] | None = None  # E_p[z - t]


def token_statistics(
    hidden: Float[ArrayLike, "*batch features"],
    weight: Float[ArrayLike, "..."],
    labels: Integer[ArrayLike, "*batch"],
    *,
    layout: str = "dv",
    teacher: Teacher | None = None,
    bias: Float[ArrayLike, " classes"] | None = None,
    softcap: ScalarLike | None = None,
    scale: ScalarLike = 1.0,
    stats: tuple[str, ...] = ("lse", "target"),
    where: Bool[ArrayLike, "*batch"] | None = None,
    w_axis: str | None = None,
    implementation: str = "auto",
    workspace_mb: float | int | None = None,
) -> TokenStatistics:
    """A few numbers a token from `hidden @ weight`; to write losses on, logit-free.

    z = scale softcap tanh((hidden @ weight + bias) / softcap),   p = softmax(z)
    lse = log sum_v exp z_v;  target = z_label;  total = sum_v z_v;  mean = E_p[z]
    square = log sum_v exp 2 z_v, so that sum_v p_v^2 = e^(square - 2 lse)
    entropy = lse - mean,   KL(q, p) = lse - teacher_lse - teacher_gap
    KL(p, q) = student_gap + teacher_lse - lse

    Args:
      hidden: float[*batch, features], what the head multiplies.
      weight: float[features, classes], or [classes, features] in layout "vd".
      labels: int[*batch] in [0, classes); out of range gives NaN in `target`.
      layout: "dv", or "vd" for a tied embedding, which is not copied.
      teacher: (hidden, weight, bias or None) of a second head over the same classes,
        q = softmax(t); layout, softcap and scale hold for it too.
      bias: float[classes]; -inf rules a class out.
      softcap: bound > 0 of |z| / scale; None for no bound. May be traced.
      scale: > 0, an inverse temperature. May be traced.
      stats: which of "total", "mean", "square", "argmax" to compute as well.
      where: bool[*batch], True counts. Next-token prediction: labels rolled by -1, the
        last position False. Ignored labels: labels != -100. Packing: a segment's last
        token False.
      w_axis: the mesh axis that splits the classes: inside shard_map (labels count over
        the whole vocabulary), or on a mesh whose axis is not called "model".
      implementation: "auto", "xla", "mosaic_tpu", "mosaic_gpu" or "reference", which
        holds all logits.
      workspace_mb: MiB that the f32 logits in flight may fill on a device, at least one
        token's. None: 32 on a CPU, 256 elsewhere, or what 64 or 1024 tokens need.
    Returns:
      TokenStatistics of f32[*batch] (argmax: int32), 0 where masked. All sums are in
      f32, whatever the dtypes; f64 stays f64.
    Gradient: smooth in all float arguments, any order and mode, each statistic by its
      own cotangent; argmax has none. Nothing is stopped, the teacher neither.
    Cost: one more product with the weight in a gradient; an f32 copy of the weight's
      gradient. A jvp or HVP holds up to 2.5 times the workspace, forward mode over an
      HVP 4 times; times the instances of a vmap. On a mesh that `jax.set_mesh` set,
      axis "data" (or what splits the batch) keeps its tokens and "model" its classes:
      only statistics travel forward, and each gradient is summed once backward.
    Raises: ValueError for a shape, a hyperparameter or a choice that does not fit.
    Source: Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models", 2024,
      arXiv:2411.09009, sec. 4. Differs: XLA cuts by tokens alone; more statistics than
      lse and target; any order of derivatives.
    Example:
      >>> hidden, weight = jnp.ones((1, 3)), jnp.eye(3, 4)
      >>> token = token_statistics(hidden, weight, jnp.array([3]), stats=("mean",))
      >>> print(token.lse, token.target, token.lse - token.mean)  # the last: entropy
      [2.2143] [0.] [1.3235]
    """
    for name in stats:
        one_of("stats", name, STATS)
    token = relative(
        hidden,
        weight,
        labels,
        layout=layout,
        teacher=teacher,
        bias=bias,
        softcap=softcap,
        scale=scale,
        stats=stats,
        where=where,
        w_axis=w_axis,
        implementation=implementation,
        workspace_mb=workspace_mb,
    )
    found = {
        "lse": token.lse + token.peak,
        "target": token.target + token.peak,
        "argmax": token.argmax,
    }
    if token.total is not None:
        found["total"] = token.total + token.live * token.peak
    if token.mean is not None:
        found["mean"] = token.mean + token.peak
    if token.square is not None:
        found["square"] = token.square + 2 * token.peak
    if teacher is not None:
        apart = token.peak - token.teacher_peak
        found["teacher_lse"] = token.teacher_lse + token.teacher_peak
        found["teacher_gap"] = token.teacher_gap + apart
        found["student_gap"] = token.student_gap + apart
    return TokenStatistics(**jax.tree.map(lambda x: blank(x, where), found))


class Prepared(NamedTuple):
    """Checked and masked arguments, in the computing dtype."""

    hiddens: list[Float[Array, "*batch features"]]  # the student's, the teacher's
    labels: Integer[Array, "*batch"]
    heads: list[Head]
    forms: tuple[Form, ...]


def relative(
    hidden,
    weight,
    labels,
    *,
    stats=(),
    jsd=None,
    w_axis=None,
    implementation="auto",
    workspace_mb=None,
    **arguments,
) -> Relative:
    """`token_statistics` before the peaks are added; masked tokens are not blanked."""
    one_of("implementation", implementation, IMPLEMENTATIONS)
    above("workspace_mb", workspace_mb, 0)
    hiddens, labels, heads, forms = prepared(hidden, weight, labels, **arguments)
    if jsd is not None:
        jsd = jnp.asarray(jsd, hiddens[0].dtype)
    statics = (forms, tuple(stats), w_axis, implementation, workspace_mb)
    return _statistics((hiddens, labels), (heads, jsd), *statics)


def prepared(
    hidden,
    weight,
    labels,
    *,
    layout="dv",
    teacher=None,
    bias=None,
    softcap=None,
    scale: ScalarLike = 1.0,
    class_weights=None,
    where=None,
) -> Prepared:
    """ValueError for what does not fit."""
    above("softcap", softcap, 0)
    above("scale", scale, 0)
    hidden, weight, labels = map(jnp.asarray, (hidden, weight, labels))
    _check_head("", hidden, weight, bias, layout)
    if labels.shape != hidden.shape[:-1] or not jnp.issubdtype(
        labels.dtype, jnp.integer
    ):
        raise ValueError(
            f"labels: wanted integers of shape {hidden.shape[:-1]} beside hidden "
            f"{hidden.shape}, came {labels.dtype}{list(labels.shape)}"
        )
    classes = weight.shape[layout == "dv"]
    if class_weights is not None and jnp.shape(class_weights) != (classes,):
        raise ValueError(
            f"class_weights: wanted shape {(classes,)}, came {jnp.shape(class_weights)}"
        )
    factor = None if known(scale) and scale == 1 else scale
    pairs = [(hidden, weight, bias, class_weights)]
    if teacher is not None:
        pairs.append((*_checked_teacher(teacher, hidden, weight, layout), None))
    forms = tuple(form(h, w, layout) for h, w, *_ in pairs)
    dtype = "float64" if "float64" in map(computing, forms) else "float32"
    hiddens, heads = [], []
    for pair in pairs:
        # In f32, so that gradients are summed in f32; products are of forms' dtype.
        h, w, b, c, cap, by = jax.tree.map(
            lambda x: jnp.asarray(x, dtype), (*pair, softcap, factor)
        )
        hiddens.append(blank(h, where))
        heads.append(Head(w, b, cap, by, c))
    if jnp.issubdtype(labels.dtype, jnp.unsignedinteger) or labels.dtype.itemsize < 4:
        labels = labels.astype(jnp.int32)
    return Prepared(hiddens, blank(labels, where), heads, forms)


@partial(jax.jit, static_argnums=(2, 3, 4, 5, 6))
def _statistics(tokens, heads, forms, stats, w_axis, implementation, workspace_mb):
    local = partial(_local, forms, stats, implementation, workspace_mb)
    return on_mesh(local, tokens, heads, layout=forms[0].layout, w_axis=w_axis)


def _local(forms, stats, implementation, workspace_mb, tokens, heads, w_axis):
    """Of the device's own tokens, and over the axis that splits the classes."""
    (hiddens, labels), (heads, jsd) = tokens, heads
    batch, classes = labels.shape, heads[0].weight.shape[forms[0].layout == "dv"]
    if w_axis is not None:
        # Their cotangents are summed over the axis once, here, in f32.
        hiddens = [
            varying_like(h, head.weight) for h, head in zip(hiddens, heads, strict=True)
        ]
    labels = own_labels(labels, classes, w_axis)
    flat = [h.reshape(-1, h.shape[-1]) for h in hiddens], labels.reshape(-1)
    more = bool(stats) or len(heads) == 2 or heads[0].class_weights is not None
    copies = copies_held(heads[0], more) * len(heads)
    sizes = {"classes": classes, "workspace_mb": workspace_mb, "copies": copies}
    formula = partial(formulas, forms, stats)
    token = dispatch(
        "token_statistics",
        (flat, heads),
        implementation=implementation,
        reference=formula,
        xla=partial(by_chunks, formula, **sizes),
        mosaic_tpu=kernel("tpu", forms[0], stats),
        mosaic_gpu=kernel("gpu", forms[0], stats),
        pull=partial(pull, formula, sizes, forms[0], stats)
        if implementation == "mosaic_tpu"
        else None,
    )
    token = joined(token, labels.reshape(-1), classes, w_axis)
    if jsd is not None:
        rows = (flat[0], *token[:2], token.teacher_peak, token.teacher_lse)
        part = by_chunks(partial(of_both, forms), rows, (heads, jsd), **sizes)
        token = token._replace(jsd=part if w_axis is None else lax.psum(part, w_axis))
    return jax.tree.map(lambda x: x.reshape(batch), token)


def own_labels(labels, classes, w_axis):
    """Labels counted from the device's first class."""
    if w_axis is None:
        return labels
    try:
        start = lax.axis_index(w_axis) * classes
    except NameError:
        raise ValueError(f"w_axis: there is no mesh axis {w_axis!r} here") from None
    return labels - start.astype(labels.dtype)


def _check_head(whose: str, hidden, weight, bias, layout) -> None:
    """ValueError naming what does not fit."""
    one_of("layout", layout, ("dv", "vd"))
    dv = layout == "dv"
    fits = weight.ndim == 2 and hidden.shape[-1:] == weight.shape[not dv :][:1]
    if not fits or 0 in weight.shape:
        wanted = "[features, classes]" if dv else "[classes, features]"
        raise ValueError(
            f"{whose}weight: wanted {wanted} beside {whose}hidden {hidden.shape}, "
            f"came {weight.shape}"
        )
    if bias is not None and jnp.shape(bias) != weight.shape[dv:][:1]:
        raise ValueError(
            f"{whose}bias: wanted shape {weight.shape[dv:][:1]}, came {jnp.shape(bias)}"
        )


def _checked_teacher(teacher, hidden, weight, layout):
    """(hidden, weight, bias) of the teacher, beside the student's."""
    if not isinstance(teacher, tuple) or len(teacher) != 3:
        raise ValueError(
            f"teacher: wanted (hidden, weight, bias or None), came {type(teacher)}"
        )
    h, w, b = teacher
    h, w = jnp.asarray(h), jnp.asarray(w)
    _check_head("teacher ", h, w, b, layout)
    dv = layout == "dv"
    if h.shape[:-1] != hidden.shape[:-1] or w.shape[dv] != weight.shape[dv]:
        raise ValueError(
            f"teacher: wanted hidden states for {hidden.shape[:-1]} tokens and a "
            f"weight for {weight.shape[dv]} classes, came {h.shape} and {w.shape}"
        )
    return h, w, b
