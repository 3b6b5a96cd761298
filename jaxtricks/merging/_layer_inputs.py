"""What the layers of any model see: the operands of its products with parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core
from jaxtyping import Array, Float, PyTree

from ._permutation import layouts, parent

_THROUGH = {"convert_element_type", "copy", "stop_gradient", "sharding_constraint"}
_INLINE = {"pjit", "jit", "closed_call", "custom_jvp_call", "custom_vjp_call", "remat2",
           "checkpoint", "remat"}  # fmt: skip


class Use(NamedTuple):
    """One product with a parameter."""

    leaf: int  # its place among the parameters' leaves
    inputs: Array  # [examples, *contracted axes of the parameter, *window]
    contracted: tuple[int, ...]  # axes of the parameter, windows after features


def label_activations(
    function: Callable[..., Any], spec: PyTree[str], params: PyTree, *inputs: Any
) -> dict[str, Float[Array, "..."]]:
    """The activations of every unit that a permutation spec names; to match two models.

    For each name, the inputs of the first product with a parameter that sums over its
    units: after the nonlinearity, as the next layer sees them.

    Args:
      function: (params, *inputs) -> anything, as for `permutation_spec`.
      spec: a permutation spec.
      params: the parameters.
      inputs: examples.
    Returns:
      name -> [examples, units], places in an image or a text being examples; of a
      "parent/name" [examples, parents, units]. A name that is never summed over by a
      parameter is missing.
    Gradient: flows.
    Cost: one forward pass without fusion; not for jit.
    Raises: ValueError for a spec that does not fit.
    Source: Ainsworth et al., "Git Re-Basin: Merging Models modulo Permutation
      Symmetries", 2022, arXiv:2209.04836, sec. 3.1. Differs: none.
    Example:
      >>> model = lambda p, x: jax.nn.relu(x @ p["in"]) @ p["out"]
      >>> params = {"in": jnp.eye(2), "out": jnp.ones((2, 3))}
      >>> spec = {"in": "_ h", "out": "h _"}
      >>> label_activations(model, spec, params, jnp.array([[1.0, -1.0]]))
      {'h': Array([[1., 0.]], dtype=float32)}
    """
    found, _ = layouts(spec, params)
    activations: dict[str, Array] = {}
    for use in layer_inputs(function, params, *inputs):
        layout, at = found[use.leaf], factors_of(found[use.leaf], use.contracted)
        x = use.inputs.reshape(len(use.inputs), *(layout.factors[i] for i in at), -1)
        for k, i in enumerate(at):
            name = layout.names[i]
            if name is None or name in activations:
                continue
            axes = [k + 1]
            if parent(name) != name:
                axes.insert(0, 1 + at.index(layout.names.index(parent(name))))
            last = [*range(x.ndim - len(axes), x.ndim)]
            moved = jnp.moveaxis(x, axes, last)
            sizes = [x.shape[a] for a in axes]
            activations[name] = moved.reshape(-1, *sizes)
    return activations


def factors_of(layout, axes: tuple[int, ...]) -> list[int]:
    """The places, among all factors, of those of some axes, in the axes' order."""
    places, start = [], 0
    for size in layout.shape:
        own, rest = [], size
        while rest != 1 or (size == 1 and not own):
            own.append(start)
            rest //= layout.factors[start]
            start += 1
        # Factors of 1 at the end of an axis belong to it.
        places.append(own)
    return [i for axis in axes for i in places[axis]]


def layer_inputs(function: Callable, params: PyTree, *inputs: Any) -> list[Use]:
    """Every product with a parameter, in the order of the program."""
    closed = jax.make_jaxpr(function)(params, *inputs)
    leaves = jax.tree.leaves(params)
    values = [*leaves, *jax.tree.leaves(inputs)]
    owners = [*range(len(leaves)), *[None] * (len(values) - len(leaves))]
    uses: list[Use] = []
    _run(closed.jaxpr, closed.consts, values, owners, uses)
    return uses


def _run(jaxpr, consts, values, owners, uses) -> list:
    known = dict(zip(jaxpr.constvars, consts, strict=True))
    known.update(zip(jaxpr.invars, values, strict=True))
    own = {v: o for v, o in zip(jaxpr.invars, owners, strict=True) if o is not None}

    def read(v):
        return v.val if isinstance(v, core.Literal) else known[v]

    def owner(v):
        return None if isinstance(v, core.Literal) else own.get(v)

    for eqn in jaxpr.eqns:
        name, ins = eqn.primitive.name, [read(v) for v in eqn.invars]
        from_ = [owner(v) for v in eqn.invars]
        if name == "dot_general":
            _dot(eqn, ins, from_, uses)
        elif name == "conv_general_dilated" and from_[1] is not None:
            _conv(eqn, ins, from_[1], uses)
        inner = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")
        if name in _INLINE and inner is not None:
            closed = isinstance(inner, core.ClosedJaxpr)
            body, extra = (inner.jaxpr, inner.consts) if closed else (inner, [])
            outs = _run(body, extra, ins, from_, uses)
        else:
            bound = eqn.primitive.get_bind_params(eqn.params)
            outs = eqn.primitive.bind(*ins, **bound)
            outs = outs if eqn.primitive.multiple_results else [outs]
        known.update(zip(eqn.outvars, outs, strict=True))
        if name in _THROUGH and from_[0] is not None:
            own[eqn.outvars[0]] = from_[0]
    return [read(v) for v in jaxpr.outvars]


def _dot(eqn, ins, owners, uses) -> None:
    contract, batch = eqn.params["dimension_numbers"]
    for side in (1, 0):
        if owners[side] is None or batch[side]:
            continue
        x = ins[1 - side]
        to = [*range(x.ndim - len(contract[0]), x.ndim)]
        x = jnp.moveaxis(x, contract[1 - side], to)
        sizes = x.shape[x.ndim - len(to) :]
        uses.append(Use(owners[side], x.reshape(-1, *sizes), tuple(contract[side])))
        return


def _conv(eqn, ins, owner, uses) -> None:
    p, numbers = eqn.params, eqn.params["dimension_numbers"]
    if p["feature_group_count"] != 1 or p["batch_group_count"] != 1:
        return
    kernel = ins[1]
    _, into, *window = numbers.rhs_spec
    shape = [kernel.shape[i] for i in window]
    x = jnp.transpose(ins[0], numbers.lhs_spec)
    patches = lax.conv_general_dilated_patches(
        x, shape, p["window_strides"], p["padding"], p["lhs_dilation"],
        p["rhs_dilation"],
    )  # fmt: skip
    x = jnp.moveaxis(patches, 1, -1)
    x = x.reshape(-1, kernel.shape[into], *shape)
    uses.append(Use(owner, x, (into, *window)))
