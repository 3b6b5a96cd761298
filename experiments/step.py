"""One training step on a mesh: the objective's gradient, an update, what is reported.

A loss or a gradient that is not finite, or a loss above the given limit, leaves
parameters, optimizer and extra as they were, bit for bit; only `step` goes on, and with
it the schedule and the data. What to do then is the caller's to decide (--on-nan).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int, PyTree

from jaxtricks import kernels

from . import mesh as meshes
from . import models, tricks
from .config import BadInput, Config
from .models import Facts
from .objective import (
    Batch,
    Sums,
    accumulate,
    add_up,
    by_example,
    gradient,
    position_losses,
)


class State(NamedTuple):
    """What a checkpoint holds, beside the data's own state."""

    params: PyTree  # f32
    opt: PyTree
    extra: PyTree  # of a weighting with memory; else ()
    step: Int[Array, ""]  # batches so far, skipped ones too


class Functions(NamedTuple):
    """The pure functions behind a program, for one's own jit, vmap or scan."""

    init: Callable[[int], State]  # of a seed
    step: Callable[..., tuple[State, dict]]  # (state, batch, limit) -> (state, metrics)
    evaluate: Callable[[PyTree, Batch], dict]  # (params, batch) -> sums per domain
    rules: meshes.Rules


class Program(NamedTuple):
    """What a training loop calls, compiled for a mesh when first called.

    A batch is this process's rows (see `mesh.share`), or what `mesh.put` made of them.
    """

    init: Callable[[], State]  # created in its parts, whole on no device
    step: Callable[..., tuple[State, dict]]  # (state, batch, limit); state is donated
    evaluate: Callable[[PyTree, Batch], dict]  # (params, batch)
    lower: Callable[[Batch], jax.stages.Lowered]  # of step, for its cost and HLO
    like: State  # of jax.ShapeDtypeStruct, with their shardings
    shardings: State  # of NamedSharding
    table: list[meshes.Row]  # of the parameters
    opt_bytes: int  # of the optimizer's state, on each device
    flops: float  # of one step, as MFU counts them
    unit: str  # "tokens" or "images"


def build(config: Config, facts: Facts, mesh: jax.sharding.Mesh) -> Program:
    """The program for these flags, data and devices; BadInput where they do not fit."""
    split = mesh.shape["data"] * config.training.microbatches
    if config.data.batch_size % split:
        raise BadInput(
            f"--batch-size: wanted a multiple of {split}, the parts of the mesh times "
            f"--microbatches, came {config.data.batch_size}"
        )
    pure = functions(config, facts)
    shapes = jax.eval_shape(pure.init, config.training.seed)
    params = meshes.specs(shapes.params, pure.rules, mesh, config.mesh)
    specs = State(
        params,
        meshes.like_params(shapes.opt, shapes.params, params),
        jax.tree.map(lambda _: P(), shapes.extra),
        P(),
    )
    shardings = jax.tree.map(
        lambda spec: NamedSharding(mesh, spec),
        specs,
        is_leaf=lambda x: isinstance(x, P),
    )
    rows, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    init = jax.jit(pure.init, out_shardings=shardings)
    step = jax.jit(
        pure.step,
        donate_argnums=0,
        in_shardings=(shardings, rows, whole),
        out_shardings=(shardings, whole),
    )
    evaluate = jax.jit(pure.evaluate, out_shardings=whole)

    def on_mesh(fn):
        def call(*args):
            with jax.set_mesh(mesh):
                return fn(*args)

        return call

    def placed(batch):
        arrays = all(isinstance(x, jax.Array) for x in batch.values())
        return batch if arrays else meshes.put(batch, mesh)

    opt_bytes = jax.tree.map(meshes.nbytes, shapes.opt, shardings.opt)
    return Program(
        init=on_mesh(lambda: init(np.uint32(config.training.seed))),
        step=on_mesh(lambda s, batch, limit: step(s, placed(batch), np.float32(limit))),
        evaluate=on_mesh(lambda params, batch: evaluate(params, placed(batch))),
        lower=on_mesh(lambda b: step.lower(shapes, placed(b), np.float32(np.inf))),
        like=jax.tree.map(_sharded, shapes, shardings),
        shardings=shardings,
        table=meshes.table(shapes.params, pure.rules, mesh, config.mesh),
        opt_bytes=sum(jax.tree.leaves(opt_bytes)),
        flops=flops(config, facts),
        unit=facts.kind,
    )


def functions(config: Config, facts: Facts) -> Functions:
    """What a program computes, wherever it is."""
    training, domains = config.training, len(facts.domains)
    model = models.build(config.model, facts)
    loss = partial(position_losses, model.apply, tricks.loss(training.loss, facts.kind))
    weighting = tricks.weights(training.weighting)
    transformation = tricks.transformation(training)
    rate = tricks.schedule(training)
    parts = training.microbatches

    def init(seed) -> State:
        params = model.init(jax.random.key(seed))
        extra = weighting.init() if weighting else ()
        return State(params, transformation(0.0).init(params), extra, jnp.int32(0))

    def step(state: State, batch: Batch, limit) -> tuple[State, dict]:
        lr = jnp.asarray(rate(state.step), jnp.float32)
        grads, sums, weights, extra = gradient(
            loss, weighting, state.params, state.extra, batch, parts
        )
        plain = sums.losses.sum() / jnp.maximum(sums.counts.sum(), 1)
        grad_norm = optax.tree.norm(grads)
        updates, opt = transformation(lr).update(
            grads,
            state.opt,
            state.params,
            grad_fn=lambda p: accumulate(loss, p, batch, weights, parts)[0],
            value=plain,
        )
        ok = jnp.isfinite(plain) & (plain <= limit) & jnp.isfinite(grad_norm)
        ok &= jnp.isfinite(optax.tree.norm(updates))
        new = (optax.apply_updates(state.params, updates), opt, extra)
        old = (state.params, state.opt, state.extra)
        kept = jax.tree.map(lambda new, old: jnp.where(ok, new, old), new, old)
        by_domain = Sums(*(add_up(x, batch["domain"], domains) for x in sums))
        metrics = {
            "loss": plain,
            "grad_norm": grad_norm,
            "lr": lr,
            "count": sums.counts.sum(),
            "domain_loss": by_domain.losses / jnp.maximum(by_domain.counts, 1),
            "domain_count": by_domain.counts,
            "skipped": 1 - ok.astype(jnp.int32),
        }
        return State(*kept, state.step + 1), metrics

    def evaluate(params: PyTree, batch: Batch) -> dict:
        """Of cross entropy in nats, whatever is trained with."""
        hidden, head = model.apply(params, batch)
        labels, live = (
            batch["targets" if "inputs" in batch else "labels"],
            batch["mask"],
        )
        token = kernels.token_statistics(
            hidden, head, labels, where=live, stats=("argmax",)
        )
        right = (token.argmax == labels) & live
        found = {"sum": token.lse - token.target, "count": live, "correct": right}
        return {
            name: add_up(by_example(x.astype(jnp.float32)), batch["domain"], domains)
            for name, x in found.items()
        }

    return Functions(init, step, evaluate, model.rules)


def _sharded(x: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def flops(config: Config, facts: Facts) -> float:
    """Of one step: of each gradient three times the forward pass's, in closed form.

    What is computed again (--remat, the first pass for weights) does not count.
    """
    forward = models.build(config.model, facts).flops(config.data.seq_len)
    gradients = 2 if config.training.sharpness else 1
    return 3.0 * gradients * config.data.batch_size * forward
