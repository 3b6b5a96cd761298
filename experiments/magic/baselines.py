"""Slopes of phi in example weights by what looks at trained models alone.

Each is [settings, targets, n]: for every damping one that plays the part that
`metagrad.magic`'s by_weight plays.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..small import network, smooth
from .config import Magic
from .training import Task, Trainer, measured

CHUNK = 100  # examples whose gradients are held at once


def baselines(
    of: Trainer,
    flags: Magic,
    of_task: Task,
    params: network.Params,
    ensemble: PyTree,
) -> dict[str, Float[Array, "settings targets n"]]:
    """params are the model's own; ensemble are others', [models, ...] each leaf."""
    flat, shaped = ravel_pytree(params)
    n = len(of_task.labels)

    def losses(flat):
        images, labels = of_task.images, of_task.labels
        return smooth.each(shaped(flat), images, labels, of.activation)

    def along(v):
        """<v, gradient of each example's loss>."""
        return jax.jvp(losses, (flat,), (v,))[1]

    slopes = jax.jacrev(lambda flat: measured(of, of_task, (shaped(flat), None)))(flat)

    def logits(flat):
        return smooth.apply(shaped(flat), of_task.images, of.activation)

    p = jax.nn.softmax(logits(flat))

    def curvature(v):
        """The Gauss-Newton matrix of the mean loss, times v."""
        moved = jax.jvp(logits, (flat,), (v,))[1]
        bent = p * (moved - jnp.sum(p * moved, axis=-1, keepdims=True))
        return jax.vjp(logits, flat)[1](bent)[0] / n

    dampings = jnp.asarray(flags.dampings)
    solve = jax.vmap(lambda b: solutions(curvature, b, dampings, flags.products))
    influence = jax.vmap(jax.vmap(along))(jnp.moveaxis(solve(slopes), 0, 1))
    key = jax.random.fold_in(of_task.key, 1)
    shape = len(flat), flags.projections
    own = jax.tree.map(lambda x: x[None], params)
    models = jax.tree.map(lambda *x: jnp.concatenate(x), own, ensemble)
    return {
        "influence function": -influence / n,
        "trak": trak(of, flags, of_task, models, jax.random.normal(key, shape)),
        "gradient product": -jax.vmap(along)(slopes)[None] / n,
    }


def solutions(
    matrix: Callable[[Array], Array],
    b: Float[Array, " p"],
    dampings: Float[Array, " settings"],
    products: int,
) -> Float[Array, "settings p"]:
    """(A + damping)^-1 b where A, b, A b, A^2 b ... span it: conjugate gradients, but
    for all dampings at once and with directions that stay orthogonal in f32."""
    empty = jnp.zeros((products, len(b)), b.dtype)

    def more(state, i):
        basis, images, q = state
        basis, image = basis.at[i].set(q), matrix(q)
        rest = image
        for _ in range(2):  # once leaves what rounding left
            rest = rest - basis.T @ (basis @ rest)
        size = jnp.linalg.norm(rest)
        q = jnp.where(size > 1e-6 * jnp.linalg.norm(image), rest / size, 0)
        return (basis, images.at[i].set(image), q), None

    first = b / jnp.linalg.norm(b)
    (basis, images, _), _ = lax.scan(more, (empty, empty, first), jnp.arange(products))
    small, at = images @ basis.T, basis @ b
    eye = jnp.eye(products)
    by = jax.vmap(lambda damping: jnp.linalg.solve(small + damping * eye, at))
    return by(dampings) @ basis


def trak(
    of: Trainer,
    flags: Magic,
    of_task: Task,
    models: PyTree,
    projection: Float[Array, "p k"],
) -> Float[Array, "settings targets n"]:
    """mean_m (1 - p_i) * mean_m f' (F'F + damping)^-1 f_i over models m.

    f are projected gradients of the margin log p / (1 - p), of all examples F; the
    damping is in units of F'F's mean eigenvalue. Of the first model alone; then of all.
    """

    def margin(params, image, label):
        return smooth.margins(params, image[None], label[None], of.activation)[0]

    def features(params, images, labels):
        """Projected gradients, and 1 - p, of each."""

        def one(pair):
            value, by = jax.value_and_grad(margin)(params, *pair)
            return ravel_pytree(by)[0] @ projection, jax.nn.sigmoid(-value)

        return lax.map(one, (images, labels), batch_size=min(CHUNK, len(labels)))

    def each(params):
        f, wrong = features(params, of_task.images, of_task.labels)
        to, unsure = features(params, of_task.target_images, of_task.target_labels)
        gram = f.T @ f
        eye = jnp.eye(len(gram)) * jnp.trace(gram) / len(gram)
        by = jax.vmap(lambda damping: jnp.linalg.solve(gram + damping * eye, to.T))
        found = jnp.einsum("dkt,nk->dtn", by(jnp.asarray(flags.dampings)), f)
        return found, wrong, unsure

    found, wrong, unsure = lax.map(each, models)

    def slopes(*of):
        """Of means over models; the margin's slope becomes the loss's, which falls."""
        found, wrong, unsure = (jnp.mean(x, axis=0) for x in of)
        return -found * (unsure[:, None] * wrong[None])[None]

    alone = slopes(found[:1], wrong[:1], unsure[:1])
    return jnp.concatenate([alone, slopes(found, wrong, unsure)])
