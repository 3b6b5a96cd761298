# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Do four tricks compose, and what does the weighting do to the gradient?
#
# A small network predicts the next byte of Python source from the eight before it. We
# put a blockwise cross entropy, a loss-based weighting, SAM and a warmup-stable-decay
# schedule together in ten lines, look at what the weighting does to each example's
# gradient, and check a Hessian-vector product through the loss that never writes its
# logits.

# %%
import inspect
import tokenize

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import jaxtricks as jt

# %% [markdown]
# ## Data and model
#
# The text is the source of a module of the standard library. The head has as many
# columns as a small tokenizer's vocabulary, though only 256 are ever right, so that the
# logits are the big thing in memory, as in a language model.

# %%
STEPS, BATCH, CONTEXT, WIDTH, VOCABULARY = 300, 256, 8, 64, 4096

text = np.frombuffer(inspect.getsource(tokenize).encode(), np.uint8).astype(np.int32)
windows = np.lib.stride_tricks.sliding_window_view(text, CONTEXT + 1)


def batch_at(step):
    rows = windows[np.random.default_rng(step).integers(0, len(windows), BATCH)]
    return {"context": rows[:, :-1], "next": rows[:, -1]}


def init(key):
    embed, hidden, head = jax.random.split(key, 3)
    return {
        "embed": 0.1 * jax.random.normal(embed, (256, 16)),
        "hidden": 0.1 * jax.random.normal(hidden, (16 * CONTEXT, WIDTH)),
        "head": 0.1 * jax.random.normal(head, (WIDTH, VOCABULARY)),
    }


def model(params, context):
    return jnp.tanh(
        params["embed"][context].reshape(-1, 16 * CONTEXT) @ params["hidden"]
    )


# %% [markdown]
# ## Four tricks in ten lines

# %%
schedule = jt.schedules.wsd(1e-2, total_steps=STEPS, warmup_steps=20)
tx = optax.chain(jt.sharpness.sam(0.02), optax.adamw(schedule))


def losses_of(params, batch):
    hidden = model(params, batch["context"])
    return jt.kernels.linear_cross_entropy(hidden, params["head"], batch["next"])


def loss_fn(params, batch):
    losses = losses_of(params, batch)
    return jt.reduce.mean(losses, weights=jt.weighting.linupper(losses))


# %% [markdown]
# The training step is plain optax; SAM asks for its second gradient through `grad_fn`.


# %%
@jax.jit
def step(params, state, batch):
    def grad_fn(p):
        return jax.grad(loss_fn)(p, batch)

    updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
    mean = jt.reduce.mean(losses_of(params, batch))
    return optax.apply_updates(params, updates), state, mean


params = init(jax.random.key(0))
state = tx.init(params)
curve = []
for i in range(STEPS):
    params, state, mean = step(params, state, batch_at(i))
    curve.append(float(mean) / np.log(2))

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
left.plot(curve)
left.set(xlabel="step", ylabel="bits/byte (training batch)")
right.plot(jax.vmap(schedule)(jnp.arange(STEPS)))
right.set(xlabel="step", ylabel="learning rate")

print(f"first {curve[0]:.2f} bits/byte, last ten {np.mean(curve[-10:]):.2f}")
assert np.mean(curve[-10:]) < 3.5 < 8 < curve[0]

# %% [markdown]
# ## What the weighting does to the gradient
#
# An example's share of the gradient is its weight times the norm of its own gradient.
# The weights are constants to the derivative, so this is all that a weighting changes.
# Below, the examples of one batch by their loss: `linupper` quiets what is already
# learned and gives no extra weight to outliers; `extremes` and `quadratic` do what
# their names say.

# %%
batch = batch_at(STEPS + 1)
losses = losses_of(params, batch)


def own_norm(context, label):
    one = {"context": context[None], "next": label[None]}
    grad = jax.grad(lambda p: losses_of(p, one)[0])(params)
    return optax.tree.norm(grad)


norms = jax.jit(jax.vmap(own_norm))(batch["context"], batch["next"])

weightings = {
    "uniform": jnp.full(BATCH, 1 / BATCH),
    "linupper": jt.weighting.linupper(losses, temperature=0.3),
    "quadratic": jt.weighting.quadratic(losses, temperature=0.3),
    "extremes": jt.weighting.extremes(losses, temperature=0.3),
}
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for name, weights in weightings.items():
    order = np.argsort(losses)
    axes[0].plot(losses[order], weights[order] * BATCH, label=name)
    share = weights * norms / jnp.sum(weights * norms)
    axes[1].plot(losses[order], np.cumsum(share[order]), label=name)
axes[0].set(xlabel="loss of the example (nats)", ylabel="weight / uniform weight")
axes[1].set(
    xlabel="loss of the example (nats)", ylabel="share of the gradient up to here"
)
axes[0].legend()

easy = losses < jnp.median(losses)


def easy_share(name):
    share = weightings[name] * norms
    return float(jnp.sum(share * easy) / jnp.sum(share))


for name in weightings:
    print(f"{name:10s} the easier half is {easy_share(name):6.1%} of the gradient")
assert easy_share("linupper") < easy_share("uniform")
for weights in weightings.values():
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)

# %% [markdown]
# ## A Hessian-vector product through the blockwise loss
#
# The same product through materialised logits is the check; the compiler's own count of
# temporary memory says what blockwise saves.


# %%
def materialised(params, batch):
    logits = model(params, batch["context"]) @ params["head"]
    return jnp.mean(
        optax.softmax_cross_entropy_with_integer_labels(logits, batch["next"])
    )


def blockwise(params, batch):
    hidden = model(params, batch["context"])
    return jt.reduce.mean(
        jt.kernels.linear_cross_entropy(
            hidden, params["head"], batch["next"], workspace_mb=0.25
        )
    )


def hvp(loss):
    def product(params, tangent, batch):
        return jax.jvp(lambda p: jax.grad(loss)(p, batch), (params,), (tangent,))[1]

    return jax.jit(product)


big = jax.tree.map(lambda x: np.concatenate([x] * 8), batch)
tangent = jax.tree.map(jnp.sin, params)
products, megabytes = {}, {}
for loss in (materialised, blockwise):
    compiled = hvp(loss).lower(params, tangent, big).compile()
    products[loss] = compiled(params, tangent, big)
    temporary = compiled.memory_analysis().temp_size_in_bytes
    megabytes[loss] = temporary / 2**20
    print(f"{loss.__name__:12s} {megabytes[loss]:6.1f} MB of temporaries")

for ours, plain in zip(
    jax.tree.leaves(products[blockwise]),
    jax.tree.leaves(products[materialised]),
    strict=True,
):
    np.testing.assert_allclose(ours, plain, rtol=1e-3, atol=1e-5 * np.abs(plain).max())
assert megabytes[blockwise] < megabytes[materialised] / 4
