"""The second gradient: calling the user's `grad_fn`, with every mistake explained."""

from collections.abc import Callable

from jaxtyping import PyTree

from .. import _tree as tree


def checked(
    name: str, grad_fn: Callable | None, grads: PyTree, params: PyTree | None
) -> Callable[[PyTree], PyTree]:
    """`grad_fn` whose result must look like `grads`; ValueError says what to mend.

    name: the transformation, for the message. grads, params: what its update was given.
    """
    if grad_fn is None or params is None:
        missing = "grad_fn" if grad_fn is None else "params"
        raise ValueError(
            f"{name}: {missing} missing; call tx.update(grads, state, params, "
            "grad_fn=lambda params: jax.grad(loss)(params, batch))"
        )
    partial = any(map(tree.is_masked, tree.paths(params).values()))
    hint = (
        f"{name}: grad_fn must take and return the part of the parameters that "
        "optax.masked or optax.partition hands over; "
        "pass grad_fn=sharpness.complete(grad_fn, params)"
    )

    def grads_at(point: PyTree) -> PyTree:
        try:
            result = grad_fn(point)
        except Exception as error:
            if partial:
                raise ValueError(hint) from error
            raise
        try:
            tree.check_alike("grad_fn's result", result, grads)
        except ValueError as error:
            raise ValueError(hint if partial else f"{name}: {error}") from error
        return result

    return grads_at
