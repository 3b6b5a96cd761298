"""Which axes each operation of a program lines up, and which it fixes.

What an operation treats by position (an input, an output, a slice, the two halves that
a rotation mixes) stays; what it adds, multiplies or sums over goes together.
"""

from typing import Any

from jax.extend import core

from ._axes import Axes, Axis, Factor


def run(trace: Axes, jaxpr, consts: list, arguments: list) -> list[list[Axis]]:
    known: dict[Any, list[Axis]] = {}
    known.update(zip(jaxpr.constvars, consts, strict=True))
    known.update(zip(jaxpr.invars, arguments, strict=True))

    def read(v):
        return trace.constant(v.val) if isinstance(v, core.Literal) else known[v]

    for eqn in jaxpr.eqns:
        ins = [read(v) for v in eqn.invars]
        outs = _step(trace, eqn, ins)
        for v, axes in zip(eqn.outvars, outs, strict=True):
            if sum(map(len, axes)) or v.aval.shape:
                trace.seen.append(axes)
            known[v] = axes
    return [read(v) for v in jaxpr.outvars]


def _step(trace: Axes, eqn, ins: list) -> list[list[Axis]]:
    name, params = eqn.primitive.name, eqn.params
    shapes = [v.aval.shape for v in eqn.outvars]
    inner = params.get("jaxpr") or params.get("call_jaxpr") or params.get("fun_jaxpr")
    if inner is not None and name in _CALLS:
        if isinstance(inner, core.ClosedJaxpr):
            consts = [trace.constant(c) for c in inner.consts]
            return run(trace, inner.jaxpr, consts, ins)
        return run(trace, inner, [], ins)
    rule = _RULES.get(name)
    if rule is not None:
        return rule(trace, eqn, ins, shapes)
    if name in _REDUCE:
        left = [a for i, a in enumerate(ins[0]) if i not in params["axes"]]
        if name.startswith("arg"):
            trace.fix([ins[0][i] for i in params["axes"]])
        return [left for _ in shapes]
    if name in _ALONG:
        along = params.get("axis", params.get("dimension"))
        for axes in ins:
            trace.fix([axes[along]])
        return ins
    if name in _ELEMENTWISE and all(s == shapes[0] for s in shapes):
        return [_alike(trace, ins, shapes[0]) for _ in shapes]
    where = ", ".join(str(v.aval) for v in eqn.invars)
    said = f"cannot follow {name} of {where}"
    raise ValueError(f"function: {said}: label its parameters by hand")


def _alike(trace: Axes, ins: list, shape) -> list[Axis]:
    """Of the operands' axes those that are not of size 1, which are broadcast."""
    result = trace.fresh(shape)
    for i, n in enumerate(shape):
        wide = [x[i] for x in ins if len(x) == len(shape) and trace.size(x[i]) == n]
        for other in wide[1:]:
            trace.same(wide[0], other)
        result[i] = wide[0] if wide else result[i]
    return result


def _dot_general(trace: Axes, eqn, ins, shapes):
    (lc, rc), (lb, rb) = eqn.params["dimension_numbers"]
    left, right = ins[:2]
    for i, j in [*zip(lc, rc, strict=True), *zip(lb, rb, strict=True)]:
        trace.same(left[i], right[j])
    free_l = [a for i, a in enumerate(left) if i not in (*lc, *lb)]
    free_r = [a for i, a in enumerate(right) if i not in (*rc, *rb)]
    trace.contracted.append((free_l, free_r, [left[i] for i in lc], []))
    return [[left[i] for i in lb] + free_l + free_r]


def _conv_general_dilated(trace: Axes, eqn, ins, shapes):
    p = eqn.params
    numbers, (left, right) = p["dimension_numbers"], ins[:2]
    (batch, features, *space), (out, into, *window) = numbers[0], numbers[1]
    if p["batch_group_count"] != 1:
        raise ValueError("function: cannot follow a convolution by batch groups")
    result = trace.fresh(shapes[0])
    where = numbers[2]
    trace.fix([left[i] for i in space] + [right[i] for i in window])
    trace.fix([result[i] for i in where[2:]])
    result[where[0]] = left[batch]
    if p["feature_group_count"] == 1:
        trace.same(left[features], right[into])
        trace.contracted.append(([], [right[out]], [left[features]], []))
    elif eqn.invars[1].aval.shape[into] == 1:  # each channel by itself
        groups = eqn.invars[0].aval.shape[features]
        n = eqn.invars[1].aval.shape[out] // groups
        trace.same(right[out], [*left[features], *([Factor(n)] if n > 1 else [])])
    else:
        trace.fix([left[features], right[into], right[out]])
    result[where[1]] = right[out]
    return [result]


def _transpose(trace: Axes, eqn, ins, shapes):
    return [[ins[0][i] for i in eqn.params["permutation"]]]


def _squeeze(trace: Axes, eqn, ins, shapes):
    gone = eqn.params["dimensions"]
    return [[a for i, a in enumerate(ins[0]) if i not in gone]]


def _expand_dims(trace: Axes, eqn, ins, shapes):
    axes = iter(ins[0])
    new = eqn.params["dimensions"]
    return [[[] if i in new else next(axes) for i in range(len(shapes[0]))]]


def _broadcast_in_dim(trace: Axes, eqn, ins, shapes):
    result = trace.fresh(shapes[0])
    before = eqn.invars[0].aval.shape
    for i, to in enumerate(eqn.params["broadcast_dimensions"]):
        if before[i] == shapes[0][to]:
            result[to] = ins[0][i]
    return [result]


def _reshape(trace: Axes, eqn, ins, shapes):
    """Axes are cut and joined where their sizes meet."""
    before, after = list(eqn.invars[0].aval.shape), list(shapes[0])
    if eqn.params.get("dimensions") is not None or 0 in before:
        trace.fix(ins[0])
        result = trace.fresh(after)
        trace.fix(result)
        return [result]
    result: list[Axis] = [[] for _ in after]
    i = j = 0
    while i < len(before) and j < len(after):
        first, last, m, n = i, j, before[i], after[j]
        while m != n:
            if m < n:
                i += 1
                m *= before[i]
            else:
                j += 1
                n *= after[j]
        joined = [f for axis in ins[0][first : i + 1] for f in axis]
        sizes = after[last : j + 1]
        parts = [[Factor(size)] for size in sizes]
        if len(sizes) == 1:
            parts = [joined]
        else:
            trace.same(joined, [f for part in parts for f in part])
        result[last : j + 1] = parts
        i, j = i + 1, j + 1
    return [result]


def _slice(trace: Axes, eqn, ins, shapes):
    result = trace.fresh(shapes[0])
    for i, n in enumerate(eqn.invars[0].aval.shape):
        reverse = eqn.params["strides"] and eqn.params["strides"][i] != 1
        if n == shapes[0][i] and not reverse:
            result[i] = ins[0][i]
        else:
            trace.fix([ins[0][i], result[i]])
    return [result]


def _dynamic_slice(trace: Axes, eqn, ins, shapes):
    result = trace.fresh(shapes[0])
    for i, n in enumerate(eqn.invars[0].aval.shape):
        if n == shapes[0][i]:
            result[i] = ins[0][i]
        else:
            trace.fix([ins[0][i], result[i]])
    return [result]


def _split(trace: Axes, eqn, ins, shapes):
    along = eqn.params["axis"]
    trace.fix([ins[0][along]])
    found = []
    for shape in shapes:
        axes = list(ins[0])
        axes[along] = [Factor(shape[along])]
        trace.fix([axes[along]])
        found.append(axes)
    return found


def _concatenate(trace: Axes, eqn, ins, shapes):
    """Pieces of one size go together, as (pieces, size); else the order stays."""
    along = eqn.params["dimension"]
    axes = list(ins[0])
    for other in ins[1:]:
        for i, (a, b) in enumerate(zip(axes, other, strict=True)):
            if i != along:
                trace.same(a, b)
    pieces = [other[along] for other in ins]
    if len({trace.size(piece) for piece in pieces}) == 1:
        for piece in pieces[1:]:
            trace.same(pieces[0], piece)
        order = [Factor(len(pieces))]
        axes[along] = order + pieces[0]
    else:
        trace.fix(pieces)
        axes[along] = order = [Factor(shapes[0][along])]
    trace.fix([order])
    return [axes]


def _pad(trace: Axes, eqn, ins, shapes):
    axes = list(ins[0])
    for i, config in enumerate(eqn.params["padding_config"]):
        if tuple(config) != (0, 0, 0):
            trace.fix([axes[i]])
            axes[i] = [Factor(shapes[0][i])]
            trace.fix([axes[i]])
    return [axes]


def _iota(trace: Axes, eqn, ins, shapes):
    axes = trace.fresh(shapes[0])
    trace.fix([axes[eqn.params["dimension"]]])
    return [axes]


def _gather(trace: Axes, eqn, ins, shapes):
    """Rows by number keep theirs; whole axes of a row go along."""
    numbers = eqn.params["dimension_numbers"]
    sizes, before = eqn.params["slice_sizes"], eqn.invars[0].aval.shape
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    result = trace.fresh(shapes[0])
    trace.fix([a for i, a in enumerate(ins[0]) if i in gone])
    kept = [i for i in range(len(before)) if i not in gone]
    for i, to in zip(kept, numbers.offset_dims, strict=True):
        if sizes[i] == before[i]:
            result[to] = ins[0][i]
        else:
            trace.fix([ins[0][i], result[to]])
    trace.fix(ins[1])
    trace.fix([a for i, a in enumerate(result) if i not in numbers.offset_dims])
    return [result]


def _reduce_window_sum(trace: Axes, eqn, ins, shapes):
    result = trace.fresh(shapes[0])
    for i, n in enumerate(eqn.params["window_dimensions"]):
        if n == 1 and shapes[0][i] == eqn.invars[0].aval.shape[i]:
            result[i] = ins[0][i]
        else:
            trace.fix([ins[0][i], result[i]])
    return [result]


def _custom_vjp_call(trace: Axes, eqn, ins, shapes):
    inner = eqn.params["call_jaxpr"]
    return run(trace, inner.jaxpr, [trace.constant(c) for c in inner.consts], ins)


_RULES = {
    "dot_general": _dot_general,
    "conv_general_dilated": _conv_general_dilated,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "expand_dims": _expand_dims,
    "broadcast_in_dim": _broadcast_in_dim,
    "reshape": _reshape,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "split": _split,
    "concatenate": _concatenate,
    "pad": _pad,
    "iota": _iota,
    "gather": _gather,
    "reduce_window_sum": _reduce_window_sum,
    "custom_vjp_call": _custom_vjp_call,
    "reduce_window_max": _reduce_window_sum,
    "reduce_window_min": _reduce_window_sum,
}


_CALLS = {
    "pjit", "jit", "closed_call", "core_call", "custom_jvp_call", "remat", "checkpoint",
    "remat2", "custom_vjp_call_jaxpr", "xla_call",
}  # fmt: skip
_REDUCE = {
    "reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or",
    "argmax", "argmin", "reduce_xor",
}  # fmt: skip
_ALONG = {"cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"}
_ELEMENTWISE = {
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2",
    "atanh", "cbrt", "ceil", "clamp", "convert_element_type", "copy", "copy_p", "cos",
    "cosh", "digamma", "div", "eq", "eq_to", "erf", "erf_inv", "erfc", "exp", "exp2",
    "expm1", "floor", "ge", "gt", "imag", "integer_pow", "is_finite", "le", "lgamma",
    "log", "log1p", "logistic", "lt", "max", "min", "mul", "name", "ne", "neg",
    "nextafter", "not", "optimization_barrier", "or", "pow", "real", "reduce_precision",
    "rem", "round", "rsqrt", "select_n", "sharding_constraint", "sign", "sin", "sinh",
    "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor",
}  # fmt: skip
