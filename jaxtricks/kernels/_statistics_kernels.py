"""Token statistics by a platform's kernel, in the shape that the XLA form has them."""

import importlib
from functools import partial

import jax
import jax.numpy as jnp

from ._atomic import Lowering, atomic
from ._by_chunks import Form, Head, by_chunks
from ._dispatch import Kernel
from ._relative import Relative


def kernel(platform: str, form: Form, stats: tuple[str, ...]) -> Kernel:
    """The statistics of one head by the platform's kernel."""
    stats = ("target", *(name for name in stats if name != "target"))

    def lacks(tokens, heads):
        (hiddens, labels), head = tokens, heads[0]
        if len(heads) == 2:
            return "a teacher"
        if head.class_weights is not None:
            return "class weights"
        h, w = (
            jax.ShapeDtypeStruct(x.shape, form.dtype) for x in (hiddens[0], head.weight)
        )
        args = (labels, head.bias, head.softcap, head.scale)
        return _module(platform).lacks(h, w, *args, layout=form.layout, stats=stats)

    def run(tokens, heads):
        (hiddens, labels), head = tokens, heads[0]
        h, w = (x.astype(form.dtype) for x in (hiddens[0], head.weight))
        scale = 1.0 if head.scale is None else head.scale
        found = _module(platform).forward(
            h,
            w,
            labels,
            head.bias,
            head.softcap,
            scale,
            layout=form.layout,
            stats=stats,
        )
        if "total" in stats:
            live = w.shape[form.layout == "dv"]
            if head.bias is not None:
                live = jnp.sum(head.bias != -jnp.inf)
            found["live"] = jnp.broadcast_to(jnp.float32(live), labels.shape)
        found["peak"] = jnp.where(found["lse"] == -jnp.inf, 0, found["peak"])
        return Relative(**found)

    return lacks, run


def pull(formula, sizes, form, stats, args, cotangents):
    """The gradient by the TPU's kernels, for those who ask for them."""
    names = ("lse", "target", "total", "mean", "square")
    moved = {
        name: g
        for name, g in cotangents._asdict().items()
        if name in names and g is not None
    }

    def statistics(labels, hiddens, heads):
        token = by_chunks(formula, (hiddens, labels), heads, **sizes)._asdict()
        return {name: token[name] for name in moved}

    def derived(args, moved):
        (hiddens, labels), heads = args
        f = partial(statistics, labels)
        by_hiddens, by_heads = jax.vjp(f, hiddens, heads)[1](moved)
        return (by_hiddens, None), by_heads

    def by_kernels(args, moved):
        (hiddens, labels), (head,) = tokens, heads = args
        saved = kernel("tpu", form, stats)[1](tokens, heads)._asdict()
        by_hidden, by_weight, by_bias = _module("tpu").backward(
            hiddens[0].astype(form.dtype),
            head.weight.astype(form.dtype),
            labels,
            head.bias,
            head.softcap,
            1.0 if head.scale is None else head.scale,
            {name: x for name, x in saved.items() if x is not None},
            moved,
            layout=form.layout,
        )

        def of_scalars(softcap, scale):
            given = head._replace(softcap=softcap, scale=scale)
            return statistics(labels, hiddens, [given])

        # The kernels leave these out; nobody pays for them who does not use them.
        scalars = jax.vjp(of_scalars, head.softcap, head.scale)[1](moved)
        return ([by_hidden], None), [Head(by_weight, by_bias, *scalars)]

    return atomic(derived, args, moved, on={"any": Lowering(by_kernels)})


def _module(platform: str):
    """Pallas loads when it is needed."""
    return importlib.import_module(f"..{platform}.statistics", __name__)
