"""Which form of an operation runs: by name, or by the platform it is lowered for."""

from collections.abc import Callable
from typing import Any

import jax

from .._check import one_of
from ._atomic import Lowering, atomic

IMPLEMENTATIONS = ("auto", "xla", "mosaic_tpu", "mosaic_gpu", "reference")

Kernel = tuple[Callable[..., str | None], Callable[..., Any]]


def dispatch(
    name: str,
    args: tuple,
    *,
    implementation: str,
    reference: Callable,
    xla: Callable,
    mosaic_tpu: Kernel | None = None,
    mosaic_gpu: Kernel | None = None,
    pull: Callable | None = None,
) -> Any:
    """The operation `name` on `args`.

    A kernel is a pair: lacks(*types of the args) says what it cannot take, or None;
    run(*args) runs it. Neither is called before it is needed. `reference` is
    differentiated by JAX as it stands, all others by `xla` and `pull` (see `atomic`).
    """
    one_of("implementation", implementation, IMPLEMENTATIONS)
    if implementation == "reference":
        return reference(*args)
    asked = {"mosaic_tpu": mosaic_tpu, "mosaic_gpu": mosaic_gpu}.get(implementation)
    if implementation.startswith("mosaic") and asked is None:
        raise ValueError(f"implementation: {name} has no {implementation} kernel")
    shapes = jax.tree.map(jax.typeof, args)

    def lowering(kernel: Kernel) -> Lowering:
        lacks, run = kernel
        return Lowering(run, lambda: lacks(*shapes))

    on = {}
    if implementation == "auto":
        found = {"tpu": mosaic_tpu, "cuda": mosaic_gpu}
        on = {name: lowering(kernel) for name, kernel in found.items() if kernel}
    elif asked is not None:
        on["any"] = lowering(asked)
        if reason := on["any"].lacks():
            raise ValueError(
                f"implementation: {implementation} of {name} cannot take {reason}"
            )
    return atomic(xla, *args, on=on, pull=pull, name=name)
