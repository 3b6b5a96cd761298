"""Deep Model Assembling: modules trained apart, each inside a shallow model."""

from collections.abc import Sequence

from jaxtyping import PyTree


def assemble_modules(
    meta: Sequence[PyTree], modules: Sequence[PyTree], *, use: Sequence[bool] | int
) -> list[PyTree]:
    """The parts of a hybrid of a shallow model and the modules of a deep one.

    part_k = modules_k where used, else meta_k

    Training: with use=k, the number of one module, that module alone learns, inside
    the meta model (`optax.masked`, or gradients in it only), each apart from the
    others. Assembling: with all used it is the deep model, to be fine-tuned.

    Args:
      meta: K parts of the shallow model, frozen.
      modules: K parts of the deep one.
      use: K bools, or the number of the one module to use (static).
    Returns:
      K parts, to be run one after the other; none used is the meta model.
    Gradient: through the parts.
    Cost: none.
    Raises: ValueError for lists of different lengths, for a number out of range.
    Source: Ni et al., "Deep Model Assembling", 2022, arXiv:2212.04129, section 3.
      Differs: the pieces only; the training is the user's loop.
    Example:
      >>> assemble_modules(["m1", "m2", "m3"], ["M1", "M2", "M3"], use=1)
      ['m1', 'M2', 'm3']
    """
    count = len(meta)
    if len(modules) != count:
        raise ValueError(f"modules: wanted {count}, one a part, came {len(modules)}")
    if isinstance(use, int):
        if not 0 <= use < count:
            raise ValueError(f"use: wanted in [0, {count - 1}], came {use}")
        use = [k == use for k in range(count)]
    if len(use) != count:
        raise ValueError(f"use: wanted {count} bools, came {len(use)}")
    return [
        deep if on else shallow
        for shallow, deep, on in zip(meta, modules, use, strict=True)
    ]
