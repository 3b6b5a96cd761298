"""A value from anywhere (a kernel, another pass) with a derivative of one's own choice.

What the derivative reads of the value is then all that it stores, where `atomic` alone
would store the inputs and compute the value again.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def attached(tangent: Callable, value: Any, args: Any) -> Any:
    """`value`, moved by tangent(value, args, moved args) where `args` move.

    The value itself is a constant to derivatives; what `tangent` does with its three
    arguments is differentiated in turn, so at any order and in both modes.
    """
    del tangent, args
    return value


@attached.defjvp
def _attached_jvp(tangent, primals, tangents):
    value, args = primals
    value = attached(tangent, value, args)  # attached for the next derivative too
    return value, tangent(value, args, tangents[1])
