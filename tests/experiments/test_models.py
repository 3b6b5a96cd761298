"""The models: causality, documents, positions, memory, dtypes, and what they cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import models
from experiments.models import resnet, transformer, vit
from tests.experiments import small
from tests.free.common import assert_close

KINDS = {"transformer": small.TOKENS, "vit": small.IMAGES, "resnet": small.IMAGES}


def built(facts=None, **flags):
    """(model, its parameters)."""
    flags = small.config(**flags).model
    model = models.build(flags, facts or KINDS[flags.model])
    params = jax.jit(model.init)(jax.random.key(0))
    return model._replace(apply=jax.jit(model.apply)), params


def dots(jaxpr):
    """Every product in a program, inner ones too."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
            yield eqn
        for inner in eqn.params.values():
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                yield from dots(getattr(inner, "jaxpr", inner))


def batch_for(name):
    return small.tokens() if name == "transformer" else small.images()


def window(*documents):
    """One window of documents one after the other, all of it live."""
    words = np.concatenate(documents)[None]
    segments = [np.full(len(d), i, np.int32) for i, d in enumerate(documents, start=1)]
    positions = [np.arange(len(d), dtype=np.int32) for d in documents]
    return {
        "inputs": words,
        "segments": np.concatenate(segments)[None],
        "positions": np.concatenate(positions)[None],
    }


@pytest.mark.parametrize("tied", [True, False])
def test_the_decoder_is_causal(tied):
    model, params = built(tied=tied, layers=2)
    assert ("head" in params) != tied
    batch = small.tokens()
    hidden, head = model.apply(params, batch)
    assert (hidden.shape, head.shape) == ((8, 12, 16), (16, 32))
    later = batch | {"inputs": batch["inputs"].copy()}
    later["inputs"][:, 8:] = 3
    changed, _ = model.apply(params, later)
    assert_close(changed[:, :8], hidden[:, :8], rtol=1e-6)
    assert np.abs(changed[:, 8:] - hidden[:, 8:]).max() > 1e-3


def test_packed_documents_are_as_if_alone():
    """Two in a window, at any place in it, as each in a window of its own."""
    model, params = built(layers=2)
    words = np.random.default_rng(1).integers(0, 32, 12, dtype=np.int32)
    one, two = words[:5], words[5:]
    both, _ = model.apply(params, window(one, two))
    assert_close(both[:, :5], model.apply(params, window(one))[0], rtol=2e-6)
    assert_close(both[:, 5:], model.apply(params, window(two))[0], rtol=2e-6)
    swapped, _ = model.apply(params, window(two, one))
    assert_close(swapped[:, 7:], both[:, :5], rtol=2e-6)
    blended, _ = model.apply(params, {"inputs": words[None]})
    assert np.abs(blended[:, 5:] - both[:, 5:]).max() > 1e-3


def test_padding_is_finite_and_says_nothing():
    model, params = built()
    batch = small.tokens()
    hidden, _ = model.apply(params, batch)
    assert np.isfinite(hidden).all()
    noise = batch | {"inputs": np.where(batch["mask"], batch["inputs"], 7)}
    again, _ = model.apply(params, noise)
    live = batch["mask"]
    np.testing.assert_array_equal(again[live], hidden[live])


def test_rotated_products_depend_on_the_distance_alone():
    rng = np.random.default_rng(1)
    q, k = (jnp.asarray(rng.normal(size=(1, 1, 1, 8)), jnp.float32) for _ in range(2))
    at = jnp.arange(12, dtype=jnp.int32)[None]
    q, k = (
        transformer.rotate(jnp.broadcast_to(x, (1, 12, 1, 8)), at)[0, :, 0]
        for x in (q, k)
    )
    scores = np.asarray(q @ k.T)
    for distance in range(12):
        along = np.diagonal(scores, -distance)
        np.testing.assert_allclose(along, along[0], rtol=1e-4, atol=1e-5)
    assert np.ptp(scores[:, 0]) > 0.1


@pytest.mark.parametrize("causal", [True, False])
def test_long_windows_go_by_some_queries_at_a_time(causal, monkeypatch):
    """The same attention, and its gradient, without all the scores at once."""
    rng = np.random.default_rng(2)
    q, k, v = jnp.asarray(rng.normal(size=(3, 2, 24, 2, 4)), jnp.float32)
    segments = jnp.asarray(np.repeat([[1, 2, 0], [1, 1, 2]], 8, axis=1), jnp.int32)
    segments = segments if causal else None

    def run(q, k, v):
        return jnp.sum(jnp.sin(transformer.attend(q, k, v, segments)))

    def both():
        grad = jax.value_and_grad(lambda *x: run(*x), (0, 1, 2))
        return grad(q, k, v), str(jax.make_jaxpr(grad)(q, k, v))

    want, text = both()
    assert "f32[2,2,24,24]" in text
    monkeypatch.setattr(transformer, "QUERIES", 7)  # so 6, in 4 parts
    got, text = both()
    assert_close(got, want, rtol=2e-6)
    assert "f32[2,2,6,24]" in text
    assert "f32[2,2,24,24]" not in text


@pytest.mark.parametrize("name", KINDS)
def test_a_block_keeps_for_the_gradient_what_remat_says(name):
    """Bytes between forward and backward; gradients stay as they are.

    Compiled memory shows it on GPUs and TPUs alone: XLA for CPUs undoes it.
    """
    held, grads = {}, {}
    batch, layers = batch_for(name), 1 if name == "resnet" else 2
    for remat in ("none", "dots", "full"):
        model, params = built(model=name, remat=remat, layers=layers)

        def loss(params, model=model):
            hidden, head = model.apply(params, batch)
            return jnp.sum(jnp.sin(hidden)) + jnp.sum(jnp.cos(head))

        _, back = jax.eval_shape(lambda p, loss=loss: jax.vjp(loss, p), params)
        held[remat] = sum(4 * x.size for x in jax.tree.leaves(back))
        grads[remat] = jax.jit(jax.grad(loss))(params)
    assert held["none"] > 1.3 * held["full"]
    if name != "resnet":  # whose convolutions are no dots
        assert held["none"] > 1.2 * held["dots"] > 1.2 * held["full"]
    for remat in ("dots", "full"):
        assert_close(grads[remat], grads["none"], rtol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_bf16_is_what_runs_and_f32_what_is_kept(name):
    model, params = built(model=name, dtype="bfloat16", tied=False)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    batch = batch_for(name)
    hidden, head = model.apply(params, batch)
    assert hidden.dtype == head.dtype == jnp.bfloat16
    wide, _ = built(model=name, tied=False)[0].apply(params, batch)
    assert_close(hidden, wide, rtol=3e-2)
    grads = jax.eval_shape(
        jax.grad(lambda p: model.apply(p, batch)[0].astype(jnp.float32).sum()), params
    )
    assert {x.dtype for x in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    found = list(dots(jax.make_jaxpr(model.apply)(params, batch).jaxpr))
    assert len(found) >= 5
    assert {x.aval.dtype for eqn in found for x in eqn.invars} == {hidden.dtype}


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_images_do_not_see_each_other(name):
    model, params = built(model=name)
    batch = small.images()
    hidden, _ = model.apply(params, batch)
    assert hidden.shape[0] == 8
    alone, _ = model.apply(params, {"image": batch["image"][2:3]})
    assert_close(alone[0], hidden[2], rtol=2e-6)
    batch["image"][3] = 0
    changed, _ = model.apply(params, batch)
    assert_close(changed[2], hidden[2], rtol=2e-6)
    assert np.abs(changed[3] - hidden[3]).max() > 1e-3


def test_patches_are_squares_in_order():
    image = np.arange(2 * 4 * 6).reshape(2, 4, 6, 1)
    found = vit.patches(image, 2)
    assert found.shape == (2, 6, 4)
    assert found[0, 0].tolist() == [0, 1, 6, 7]
    assert found[0, 3].tolist() == [12, 13, 18, 19]


def test_a_resnets_stages_halve_and_double():
    plan = resnet.plan(small.config(model="resnet", layers=2, d_model=8).model)
    assert plan == [(8, 8, 1)] * 2 + [(8, 16, 2), (16, 16, 1), (16, 32, 2), (32, 32, 1)]


@pytest.mark.parametrize("name", KINDS)
def test_flops_are_what_the_compiler_counts(name):
    """Of the forward pass with logits, within 15 %: it counts norms and masks too."""
    width = 16 if name == "resnet" else 64
    large = small.IMAGES._replace(image=(32, 32, 3))
    facts = small.TOKENS if name == "transformer" else large
    model, params = built(facts, model=name, d_model=width, tied=False)
    batch = small.tokens() | {"image": np.zeros((8, 32, 32, 3), np.float32)}

    def forward(params, batch):
        hidden, head = model.apply(params, batch)
        return hidden @ head

    cost = jax.jit(forward).lower(params, batch).cost_analysis()
    assert model.flops(12) * 8 == pytest.approx(cost["flops"], rel=0.15)


@pytest.mark.parametrize("name", ["transformer", "vit"])
def test_untrained_models_are_uniform_or_nearly(name):
    """Images: exactly, by a head of zeros. The stream's scale does not grow."""
    model, params = built(model=name, layers=4)
    hidden, head = model.apply(params, batch_for(name))
    logits = hidden @ head
    if name == "transformer":
        assert 0.5 < np.std(hidden) < 1.5
        assert np.std(logits) < 2
    else:
        np.testing.assert_array_equal(logits, 0)
