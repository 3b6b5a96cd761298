"""For pmap users: the library's tricks in a training step that one maps oneself.

    python -m experiments.pmap          # on all devices
    JAX_NUM_CPU_DEVICES=8 python -m experiments.pmap

Parameters are whole on every device, each sees its own part of the batch. What couples
the batch (weights, means) takes `axis_name`; gradients are averaged over the axis, the
second one of SAM too. The numbers are one device's. New programs do better with
`jax.jit` and a mesh, as experiments/step.py does.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from jaxtricks import kernels, reduce, schedules, sharpness, weighting

VOCABULARY, WIDTH, STEPS, ROWS, TIME = 256, 32, 100, 16, 32


def init(seed: int) -> PyTree:
    """Of a model that guesses the next byte from the last two."""
    keys = jax.random.split(jax.random.key(seed), 3)
    shapes = {"embed": (VOCABULARY, WIDTH), "mix": (2 * WIDTH, WIDTH)}
    shapes["head"] = (WIDTH, VOCABULARY)
    return {
        name: jax.random.normal(key, shape) * shape[0] ** -0.5
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def objective(
    params: PyTree, windows: Int[Array, "rows time"], axis_name: str | None
) -> Float[Array, ""]:
    """The weighted mean over the whole batch, wherever its rows are."""
    x = params["embed"][windows]
    pairs = jnp.concatenate([x[:, :-2], x[:, 1:-1]], axis=-1)
    hidden = jnp.tanh(pairs @ params["mix"])
    nll = kernels.linear_cross_entropy(hidden, params["head"], windows[:, 2:])
    losses = jnp.mean(nll, axis=-1)
    weights = weighting.linupper(losses, axis_name=axis_name)
    return reduce.mean(losses, weights=weights, axis_name=axis_name)


def optimizer() -> optax.GradientTransformationExtraArgs:
    rate = schedules.wsd(0.03, total_steps=STEPS)
    return optax.chain(sharpness.sam(0.05), optax.adamw(rate))


def step(
    params: PyTree, opt: PyTree, windows: Array, axis_name: str | None = None
) -> tuple[PyTree, PyTree, Float[Array, ""]]:
    """One update. Under pmap `windows` are the device's own, and axis_name its name."""

    def value_and_grad(params):
        # The sum over devices inside `objective` sends each device the cotangents of
        # all, so that its gradient is its part of the sum, times their number.
        value, grads = jax.value_and_grad(objective)(params, windows, axis_name)
        return value, jax.lax.pmean(grads, axis_name) if axis_name else grads

    value, grads = value_and_grad(params)
    updates, opt = optimizer().update(
        grads, opt, params, grad_fn=lambda p: value_and_grad(p)[1]
    )
    return optax.apply_updates(params, updates), opt, value


def mapped(devices: int) -> Callable:
    """The step on so many devices; every argument has their number in front."""
    step_ = jax.pmap(
        lambda *args: step(*args, axis_name="data"),
        axis_name="data",
        devices=jax.devices()[:devices],
        donate_argnums=(0, 1),
    )

    def split(windows):
        return windows.reshape(devices, -1, *windows.shape[1:])

    return lambda params, opt, windows: step_(params, opt, split(windows))


def batches(seed: int) -> np.ndarray:
    """[steps, rows, time] bytes out of this very file."""
    with open(__file__, "rb") as file:
        text = np.frombuffer(file.read(), np.uint8).astype(np.int32)
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, len(text) - TIME, (STEPS, ROWS, 1))
    return text[starts + np.arange(TIME)]


def main() -> None:
    devices = jax.local_device_count()
    while ROWS % devices:
        devices -= 1
    params = init(0)
    opt = optimizer().init(params)
    # A copy for each device: pmap's own idiom.
    params, opt = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (devices, *x.shape)), (params, opt)
    )
    run = mapped(devices)
    for i, windows in enumerate(batches(0), start=1):
        params, opt, loss = run(params, opt, windows)
        if i % 20 == 0 or i == 1:
            print(f"{devices} devices, step {i:3d}: loss {loss[0]:.4f}")


if __name__ == "__main__":
    main()
