"""The arithmetic of token statistics: from logits, and from each device's classes.

All is relative to the largest logit, the peak, to keep the digits at logits of 1e4.
"""

from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .. import _safe as safe
from .._mask import at_label, blank, one_hot
from ._by_chunks import logits

Asked = Any  # f32[*batch] (argmax: int32), or None where nobody asked for it


class Relative(NamedTuple):
    """The statistics less the peak, which is a constant to derivatives."""

    peak: Float[Array, "*batch"]  # max_v z_v; 0 if all classes are ruled out
    lse: Float[Array, "*batch"]  # log sum_v exp(z_v - peak)
    target: Float[Array, "*batch"]  # z_y - peak
    live: Asked = None  # classes not ruled out
    total: Asked = None
    mean: Asked = None
    square: Asked = None
    argmax: Asked = None
    label_weight: Asked = None  # class_weights[label]
    live_weight: Asked = None  # sum_v class_weights_v
    weighted: Asked = None  # sum_v class_weights_v (z_v - peak)
    teacher_peak: Asked = None
    teacher_lse: Asked = None
    teacher_gap: Asked = None  # less peak - teacher_peak
    student_gap: Asked = None  # likewise
    teacher_alone: Asked = None  # > 0: it has a class that the student rules out
    student_alone: Asked = None  # the reverse; the gaps leave such classes out
    jsd: Asked = None  # of p and softmax(t)


def formulas(forms, stats, tokens, heads) -> Relative:
    """The statistics of tokens from their logits, all of them."""
    hiddens, labels = tokens
    z = logits(hiddens[0], heads[0], forms[0])
    t = logits(hiddens[1], heads[1], forms[1]) if len(heads) == 2 else None
    return of_logits(stats, z, labels, heads[0].class_weights, t)


def of_logits(stats, z, labels, class_weights=None, t=None) -> Relative:
    peak, z, e, lse = _softmax(z)
    live = z != -jnp.inf
    finite = blank(z, live)
    found = {}
    if "total" in stats:
        found["live"] = jnp.sum(live, axis=-1, dtype=z.dtype)
        found["total"] = jnp.sum(finite, axis=-1)
    if "mean" in stats:
        found["mean"] = _expected(e, finite)
    if "square" in stats:
        found["square"] = safe.log(jnp.sum(jnp.square(e), axis=-1))
    if "argmax" in stats:
        found["argmax"] = jnp.argmax(z, axis=-1).astype(jnp.int32)
    if class_weights is not None:
        weights = class_weights[None, :]
        hit = one_hot(labels, z.shape)
        found["label_weight"] = jnp.sum(jnp.where(hit, weights, 0), axis=-1)
        found["live_weight"] = jnp.sum(jnp.where(live, weights, 0), axis=-1)
        found["weighted"] = jnp.sum(finite * weights, axis=-1)
    if t is not None:
        found["teacher_peak"], t, e_t, found["teacher_lse"] = _softmax(t)
        both = (z != -jnp.inf) & (t != -jnp.inf)
        gap = blank(z, both) - blank(t, both)
        found["teacher_gap"] = _expected(e_t, gap)
        found["student_gap"] = _expected(e, gap)
        found["teacher_alone"] = jnp.any((e_t > 0) & ~both, axis=-1).astype(z.dtype)
        found["student_alone"] = jnp.any((e > 0) & ~both, axis=-1).astype(z.dtype)
    target = at_label(z, labels)
    return Relative(peak=peak, lse=lse, target=target, **found)


def of_both(forms, tokens, heads):
    """What the device's classes add to beta KL(q, m) + (1 - beta) KL(p, m)."""
    hiddens, *known = tokens
    heads, beta = heads
    z, t = map(logits, hiddens, heads, forms)
    peak, lse, teacher_peak, teacher_lse = (x[:, None] for x in known)
    log_p, log_q = z - peak - lse, t - teacher_peak - teacher_lse
    p, q = jnp.exp(log_p), jnp.exp(log_q)
    either = (log_p != -jnp.inf) | (log_q != -jnp.inf)
    ratio = blank(log_p - log_q, either)

    def gap(share, log_ratio, beta):
        """log(share / m), to all digits where p and q are near."""
        more = beta * jnp.expm1(jnp.minimum(log_ratio, 80))  # beyond, share is 0
        counts = (share > 0) & (more > -1)  # m > 0, too, at a beta of 0 or 1
        return -jnp.log1p(blank(more, counts))

    by_q = beta * q * gap(q, ratio, 1 - beta)
    return jnp.sum(by_q + (1 - beta) * p * gap(p, -ratio, beta), axis=-1)


def _softmax(z):
    """(peak, z - peak, exp of that, log of the sum of that), of rows."""
    peak = lax.stop_gradient(jnp.max(z, axis=-1))
    peak = blank(peak, peak != -jnp.inf)
    z = z - peak[:, None]
    e = jnp.exp(z)
    return peak, z, e, safe.log(jnp.sum(e, axis=-1))


def _expected(e, values):
    """The mean of values under weights e; 0 under no weight."""
    return safe.divide(jnp.sum(e * values, axis=-1), jnp.sum(e, axis=-1))


def joined(token: Relative, labels, classes, w_axis) -> Relative:
    """The statistics over all classes; NaN as the target of a label out of range."""
    known = (labels >= 0) & (labels < classes)
    if w_axis is not None:
        token, known = _across(token, known, w_axis, classes)
    token = token._replace(target=jnp.where(known, token.target, jnp.nan))
    if token.teacher_gap is None:
        return token
    # Put in last, for infinite terms in a sum would give NaN to derivatives.
    return token._replace(
        teacher_gap=jnp.where(token.teacher_alone > 0, -jnp.inf, token.teacher_gap),
        student_gap=jnp.where(token.student_alone > 0, jnp.inf, token.student_gap),
    )


def _across(token: Relative, known, axis, classes):
    """The statistics of all classes from those of each device's: numbers a token."""
    add = partial(lax.psum, axis_name=axis)
    start = lax.axis_index(axis) * classes
    peak, below, lse, share = _whole(token.peak, token.lse, axis)
    found = {"peak": peak, "lse": lse}
    found["target"] = add(blank(token.target + below, known))
    if token.total is not None:
        found["live"] = add(token.live)
        found["total"] = add(token.total + token.live * below)
    if token.mean is not None:
        found["mean"] = add(share * (token.mean + below))
    if token.square is not None:
        found["square"] = safe.log(add(jnp.exp(token.square + 2 * below)))
    if token.argmax is not None:
        largest = (token.peak == peak) & (token.lse != -jnp.inf)
        none = jnp.iinfo(jnp.int32).max
        first = lax.pmin(jnp.where(largest, token.argmax + start, none), axis)
        found["argmax"] = jnp.where(first == none, 0, first)
    if token.weighted is not None:
        found["label_weight"] = add(token.label_weight)
        found["live_weight"] = add(token.live_weight)
        found["weighted"] = add(token.weighted + token.live_weight * below)
    if token.teacher_lse is not None:
        there, below_t, found["teacher_lse"], share_t = _whole(
            token.teacher_peak, token.teacher_lse, axis
        )
        found["teacher_peak"] = there
        apart = below - below_t
        found["teacher_gap"] = add(share_t * (token.teacher_gap + apart))
        found["student_gap"] = add(share * (token.student_gap + apart))
        found["teacher_alone"] = add(blank(token.teacher_alone, share_t > 0))
        found["student_alone"] = add(blank(token.student_alone, share > 0))
    return Relative(**found), add(known.astype(jnp.int32)) > 0


def _whole(peak, lse, axis):
    """(peak of all, own peak less that, lse of all, own share of the probability)."""
    alive = lse != -jnp.inf
    peak = lax.stop_gradient(peak)
    whole = lax.pmax(jnp.where(alive, peak, -jnp.inf), axis)
    whole = blank(whole, whole != -jnp.inf)
    below = blank(peak - whole, alive)
    own = jnp.exp(lse + below)
    total = lax.psum(own, axis)
    return whole, below, safe.log(total), safe.divide(own, total)
