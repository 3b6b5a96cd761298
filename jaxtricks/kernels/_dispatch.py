"""Which form of an operation runs: by name, or by the platform it is lowered for."""

from collections.abc import Callable
from typing import Any

from .._check import one_of
from ._atomic import atomic

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

    A kernel is a pair: lacks(*args) says what it cannot take, or None, from shapes and
    dtypes alone; run(*args) runs it. `reference` is differentiated by JAX as it stands,
    all others by `xla` and `pull` (see `atomic`).
    """
    one_of("implementation", implementation, IMPLEMENTATIONS)
    if implementation == "reference":
        return reference(*args)
    kernels = {"mosaic_tpu": mosaic_tpu, "mosaic_gpu": mosaic_gpu}
    on = {}
    if implementation == "auto":
        for platform, kernel in (("tpu", mosaic_tpu), ("cuda", mosaic_gpu)):
            if kernel is not None:
                lacks, run = kernel
                on[platform] = lacks(*args) or run
    elif implementation in kernels:
        kernel = kernels[implementation]
        if kernel is None:
            raise ValueError(f"implementation: {name} has no {implementation} kernel")
        lacks, run = kernel
        if reason := lacks(*args):
            raise ValueError(
                f"implementation: {implementation} of {name} cannot take {reason}"
            )
        on["any"] = run
    return atomic(xla, *args, on=on, pull=pull, name=name)
