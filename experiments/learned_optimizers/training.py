"""Small classifiers, what trains them, and learning that by evolution strategies."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from jaxtricks import metagrad

INPUTS, CLASSES, BATCH = 8, 4, 32
WIDTH, STEPS, WINDOW, PAIRS = 16, 50, 10, 8  # of what they learn from
ROLES = {"in": "input", "hidden": "hidden", "out": "output"}


def network(key: Key[Array, ""], width: int, mup: bool = False) -> PyTree:
    """Two hidden layers; under maximal update the last weights begin at 0."""
    shapes = {
        "in": (INPUTS, width),
        "hidden": (width, width),
        "out": (width, CLASSES),
    }
    keys = jax.random.split(key, 3)
    drawn = {
        name: jax.random.normal(k, shape) / shape[0] ** 0.5
        for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    return drawn | ({"out": 0 * drawn["out"]} if mup else {})


def logits(params: PyTree, x: Float[Array, "n d"], mup: bool = False) -> Array:
    """Under maximal update they are multiplied by 16 / width."""
    h = jax.nn.relu(x @ params["in"])
    h = jax.nn.relu(h @ params["hidden"])
    return h @ params["out"] * (WIDTH / len(params["out"]) if mup else 1)


class Run(NamedTuple):
    """One network on its way."""

    teacher: PyTree
    params: PyTree
    state: PyTree  # of its optimizer
    key: Array


class Arm(NamedTuple):
    """Optimizers by meta-parameters, and where these begin; or, None, by a rate."""

    make: Callable[[PyTree], optax.GradientTransformationExtraArgs]
    first: PyTree
    mup: bool = False


def begin(key: Key[Array, ""], arm: Arm, meta: PyTree, width: int = WIDTH) -> Run:
    """A new teacher and a new network."""
    by_teacher, by_start, key = jax.random.split(key, 3)
    teacher = jax.tree.map(lambda w: 2 * w, network(by_teacher, WIDTH))
    params = network(by_start, width, arm.mup)
    return Run(teacher, params, arm.make(meta).init(params), key)


def go_on(run: Run, arm: Arm, meta: PyTree, steps: int) -> tuple[Run, Array]:
    """So many steps, each on new points; and the losses before them."""
    tx = arm.make(meta)

    def step(run, _):
        by_points, key = jax.random.split(run.key)
        x = jax.random.normal(by_points, (BATCH, INPUTS))
        y = jnp.argmax(logits(run.teacher, x), axis=-1)

        def loss(params):
            found = logits(params, x, arm.mup)
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(found, y))

        value, grads = jax.value_and_grad(loss)(run.params)
        updates, state = tx.update(grads, run.state, run.params, value=value)
        params = optax.apply_updates(run.params, updates)
        return Run(run.teacher, params, state, key), value

    return jax.lax.scan(step, run, length=steps)


def learn(arm: Arm, updates: int) -> PyTree:
    """Meta-parameters, after so many windows of eight pairs of runs, begun in turn."""

    def window(run, meta, _):
        run, losses = go_on(run, arm, meta, WINDOW)
        return run, jnp.mean(losses)

    def fresh(meta, key):
        keys = jax.random.split(key, PAIRS)
        return jax.vmap(lambda key: begin(key, arm, meta))(keys)

    tuner = metagrad.pes(window, pairs=PAIRS, sigma=0.02)
    rate = optax.cosine_decay_schedule(0.01, updates)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))

    def update(carry, i):
        meta, opt, state = carry
        by_task, by_noise = jax.random.split(jax.random.fold_in(jax.random.key(1), i))
        ended = (i - jnp.arange(PAIRS)) % (STEPS // WINDOW) == 0
        restart = ended, fresh(meta, by_task)
        _, grads, state = tuner.update(meta, state, key=by_noise, restart=restart)
        changes, opt = tx.update(grads, opt)
        return (optax.apply_updates(meta, changes), opt, state), None

    @jax.jit
    def all_updates(meta):
        state = tuner.init(meta, fresh(meta, jax.random.key(2)))
        first = meta, tx.init(meta), state
        return jax.lax.scan(update, first, jnp.arange(updates))[0][0]

    return all_updates(arm.first)


def reached(arm: Arm, key: Key[Array, ""], tasks: int, width=WIDTH, steps=STEPS):
    """Meta-parameters -> the mean loss of new networks in the last ten steps."""

    @jax.jit
    def mean(meta):
        def one(key):
            losses = go_on(begin(key, arm, meta, width), arm, meta, steps)[1]
            return jnp.mean(losses[-10:])

        found = jax.lax.map(one, jax.random.split(key, tasks), batch_size=8)
        end = jnp.mean(found)
        return jnp.where(jnp.isnan(end), jnp.inf, end)

    return mean


def best(arm: Arm, rates: list[float], tasks: int) -> Array:
    """The rate that ends lowest on networks like those that are learnt from."""
    ends = reached(arm, jax.random.key(3), tasks)
    return min(map(jnp.float32, rates), key=lambda rate: float(ends(rate)))


def sgd(rate):
    return optax.with_extra_args_support(optax.sgd(rate, momentum=0.9))


def adam(rate):
    return optax.with_extra_args_support(optax.adam(rate))


def narrow(make):
    """As at width 16, at every width."""
    after = metagrad.scale_by_mup(ROLES, base_width=WIDTH)
    return lambda meta: optax.chain(make(meta), after)


def arms() -> dict[str, Arm]:
    """Adam and learned optimizers also under the rules of maximal update."""
    perceptron = partial(metagrad.learned_optimizer, step_mult=0.03)
    first = metagrad.init_learned_optimizer(key=jax.random.key(0))
    return {
        "SGD with momentum": Arm(sgd, None),
        "Adam": Arm(adam, None),
        "Adam, maximal update": Arm(narrow(adam), None, mup=True),
        "learned": Arm(perceptron, first),
        "learned, maximal update": Arm(narrow(perceptron), first, mup=True),
    }
