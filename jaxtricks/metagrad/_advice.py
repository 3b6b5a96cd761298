"""What to change in training when its gradient is not to be trusted."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ._in_f32 import equations

if TYPE_CHECKING:
    from ._trust import Check

ERROR, SMOOTH, ALIKE = 0.05, 0.9, 0.99
POOLS = {"reduce_window_max", "select_and_scatter_add", "select_and_gather_add"}


def advice(found: "Check", program: Any) -> tuple[str, ...]:
    """A line for each thing that is wrong, with what the program shows of its cause."""
    names = set()
    if program is not None:
        names = {eqn.primitive.name for eqn in equations(program.jaxpr)}
    said = []
    if not np.all(np.isfinite(found.slopes)):
        said.append(
            "the gradient is not finite: wrap the optimizer in optimizers."
            "differentiable, or put an eps inside the root (eps_root=1e-16); lower the "
            "learning rate if training itself diverges"
        )
        return tuple(said)
    if not np.all(np.isfinite(found.differences)):
        return ("training is not finite near x: lower the learning rate, or clip",)
    median = np.median(found.errors, axis=0)
    largest, least = int(np.argmax(found.steps)), int(np.argmin(found.steps))
    agrees, low = found.error <= ERROR, found.cosine is not None
    cosine = 1.0 if found.cosine is None else found.cosine
    # Rounding spoils that of small steps, as it does the differences.
    smooth = float((np.max if agrees or low else np.min)(found.smoothness))
    if found.norm == 0 and np.any(found.differences):
        why = " (the optimizer takes a sign)" if "sign" in names else ""
        said.append(
            f"the gradient is 0 and the objective moves{why}: use an optimizer that is "
            "smooth in the gradient, look for a stop_gradient, or use metagrad.es"
        )
    elif _at_an_extremum(found):
        said.append(
            "the objective turns within the steps: at an extremum they see curvature "
            "and no slope; check some larger steps away from it"
        )
    elif smooth < SMOOTH:
        said.append(_smoother(smooth, names))
    elif not agrees and low and cosine >= ALIKE:
        said.append(
            "differences are lost in the rounding of low precision; the gradient is "
            f"that in f32 (cosine {cosine:.4f}): larger steps, or check in f32"
        )
    elif not agrees:
        said.append(
            f"the gradient is {found.error:.0%} off, though training answers smoothly: "
            "look for a stop_gradient, a custom_vjp or truncation on the way"
        )
    elif median[least] > ERROR:
        said.append(
            f"at step {found.steps[least]:g} differences are lost in rounding; the "
            "gradient itself agrees at larger ones"
        )
    elif median[largest] > ERROR:
        said.append(
            f"the gradient holds for steps up to {found.steps[least]:g} alone: move x "
            "by little at a time"
        )
    if not cosine >= ALIKE:
        said.append(
            f"in low precision the gradient is another one (cosine {cosine:.2f} "
            "with f32): keep parameters, optimizer state and sums in f32, or train in "
            "f32 for the gradient"
        )
    return tuple(said)


def _at_an_extremum(found: "Check") -> bool:
    """Whether curvature, the same at all steps, hides every slope."""
    least, largest = int(np.argmin(found.steps)), int(np.argmax(found.steps))
    slopes = np.maximum(np.abs(found.slopes), np.abs(found.differences[:, least]))
    curvature = found.curvature[largest]
    alike = found.curvature[least] <= 3 * curvature  # not so of a kink
    hidden = np.median(slopes) < found.steps[least] * curvature / 2
    return bool(alike and hidden)


def _smoother(smoothness: float, names: set[str]) -> str:
    """What makes training smoother, and what the program shows of its cause."""
    ways = ["lower the learning rate", "gelu or softplus for relu", "larger batches"]
    if {"sqrt", "rsqrt"} & names:
        ways.insert(1, "eps inside the optimizer's root (eps_root) and not beside it")
    if POOLS & names:
        ways.insert(1, "average pooling for max pooling")
    ways.append("smaller logits (a tenth)")
    return (
        f"training is not smooth (metasmoothness {smoothness:.2f}): {'; '.join(ways)}"
    )
