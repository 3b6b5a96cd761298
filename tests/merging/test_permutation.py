"""Permutation specs: written, shipped or traced, they leave the function as it is."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import config
from experiments.models import Facts, build
from experiments.small import network
from jaxtricks import merging
from jaxtricks.merging._permutation import layouts

IMAGES = np.random.default_rng(3).normal(size=(2, 8, 8, 1)).astype(np.float32)
TOKENS = np.arange(24).reshape(2, 12) % 50


def noisy(tree):
    """Trained weights: biases and scales are not all alike, heads not zero."""
    leaves, treedef = jax.tree.flatten(tree)
    rng = np.random.default_rng(5)
    shaken = [x + 0.3 * rng.normal(size=x.shape).astype(np.float32) for x in leaves]
    return jax.tree.unflatten(treedef, shaken)


def shuffled(spec, tree, seed=1):
    """A permutation of every name."""
    rng = np.random.default_rng(seed)
    _, sizes = layouts(spec, tree)
    return {k: np.argsort(rng.random(s), axis=-1) for k, s in sizes.items()}


def small(model):
    """(parameters, function of them and an input, input)."""
    tree = noisy(network.init(jax.random.key(0), model, (8, 8, 1), 8, 10))
    return tree, lambda p, x: network.apply(p, x, model), IMAGES


def of_experiments(model):
    facts = Facts("images", ("a",), 10, (8, 8, 1))
    name, batch = "image", IMAGES
    if model == "transformer":
        facts, name, batch = Facts("tokens", ("a",), 50), "inputs", TOKENS
    flags = config.Model(model=model, d_model=16, layers=2, heads=4, patch=2)
    functions = build(flags, facts)

    def logits(params, x):
        hidden, head = functions.apply(params, {name: x})
        return hidden @ head

    return noisy(functions.init(jax.random.key(0))), logits, batch


def convnet_with_norms():
    """Convolutions, layer norms, a dense layer on the flattened image."""
    rng = np.random.default_rng(7)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    tree = {
        f"Conv_{i}": {"kernel": normal(3, 3, n, m), "bias": normal(m)}
        for i, (n, m) in enumerate([(1, 6), (6, 8)])
    }
    tree |= {
        f"LayerNorm_{i}": {"scale": normal(n), "bias": normal(n)}
        for i, n in enumerate([6, 8])
    }
    tree |= {"Dense_0": {"kernel": normal(8 * 8 * 8, 5), "bias": normal(5)}}

    def apply(p, x):
        for i in range(2):
            x = jax.lax.conv_general_dilated(
                x,
                p[f"Conv_{i}"]["kernel"],
                (1, 1),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            x = x + p[f"Conv_{i}"]["bias"].reshape(1, 1, 1, -1)
            x = jax.nn.standardize(x, axis=-1)
            norm = p[f"LayerNorm_{i}"]
            x = x * norm["scale"].reshape(1, 1, 1, -1)
            x = jax.nn.gelu(x + norm["bias"].reshape(1, 1, 1, -1))
        x = x.reshape(len(x), -1) @ p["Dense_0"]["kernel"]
        return x + p["Dense_0"]["bias"].reshape(1, -1)

    return tree, apply, IMAGES


def decoder(heads=4, groups=2, features=3, d=12):
    """Grouped queries and a gated perceptron, by plain names."""
    rng = np.random.default_rng(9)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape) / 3, jnp.float32)

    tree = {
        "embed": {"embedding": normal(50, d)},
        "blocks": [
            {
                "norm_in": {"scale": normal(d)},
                "q": {"kernel": normal(d, heads * features)},
                "k": {"kernel": normal(d, groups * features)},
                "v": {"kernel": normal(d, groups * features)},
                "o": {"kernel": normal(heads * features, d)},
                "norm_mid": {"scale": normal(d)},
                "gate": {"kernel": normal(d, 10)},
                "up": {"kernel": normal(d, 10)},
                "down": {"kernel": normal(10, d)},
            }
        ],
        "norm": {"scale": normal(d)},
        "head": {"kernel": normal(d, 50)},
    }

    def rms(x, scale):
        mean = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
        return x * jax.lax.rsqrt(mean + 1e-6) * scale.reshape(1, 1, -1)

    def apply(p, tokens):
        x = jnp.asarray(p["embed"]["embedding"])[tokens]
        batch, time, _ = x.shape
        for b in p["blocks"]:
            y = rms(x, b["norm_in"]["scale"])
            q = (y @ b["q"]["kernel"]).reshape(batch, time, groups, -1, features)
            k, v = (
                (y @ b[n]["kernel"]).reshape(batch, time, groups, features)
                for n in "kv"
            )
            scores = jnp.einsum("btgqf,bsgf->bgqts", q, k)
            mixed = jnp.einsum("bgqts,bsgf->btgqf", jax.nn.softmax(scores), v)
            x = x + mixed.reshape(batch, time, -1) @ b["o"]["kernel"]
            y = rms(x, b["norm_mid"]["scale"])
            wide = jax.nn.silu(y @ b["gate"]["kernel"]) * (y @ b["up"]["kernel"])
            x = x + wide @ b["down"]["kernel"]
        return rms(x, p["norm"]["scale"]) @ p["head"]["kernel"]

    return tree, apply, TOKENS


MODELS = {
    "mlp": (lambda: small("mlp"), merging.mlp_permutation_spec, {}),
    "convnet": (lambda: small("convnet"), merging.convnet_permutation_spec, {}),
    "norms": (convnet_with_norms, merging.convnet_permutation_spec, {}),
    "resnet": (
        lambda: of_experiments("resnet"),
        merging.resnet_permutation_spec,
        {"groups": 8},
    ),
    "resnet20": (lambda: resnet20(), merging.resnet_permutation_spec, {}),
    "transformer": (
        lambda: of_experiments("transformer"),
        merging.transformer_permutation_spec,
        {"heads": 4},
    ),
    "vit": (
        lambda: of_experiments("vit"),
        merging.transformer_permutation_spec,
        {"heads": 4, "rotary": False},
    ),
    "grouped": (
        decoder,
        merging.transformer_permutation_spec,
        {"heads": 4, "kv_heads": 2, "rotary": False},
    ),
}
ways = pytest.mark.parametrize("traced", [False, True], ids=["shipped", "traced"])
every_model = pytest.mark.parametrize("name", list(MODELS))


@functools.cache
def made(name):
    """Compiled once for all tests: (parameters, function, input)."""
    tree, function, x = MODELS[name][0]()
    return tree, jax.jit(function), x


def spec_of(name, traced):
    tree, function, x = made(name)
    _, shipped, kwargs = MODELS[name]
    if traced:
        return merging.permutation_spec(function, tree, x)
    return shipped(tree, **kwargs)


def permuted(spec, permutation, tree):
    return jax.jit(lambda p, t: merging.apply_permutation(spec, p, t))(
        permutation, tree
    )


def same_function(spec, tree, function, x):
    """A random permutation of all names changes the weights, not the function."""
    moved = permuted(spec, shuffled(spec, tree), tree)
    assert any(
        np.any(np.asarray(a) != np.asarray(b))
        for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(tree), strict=True)
    )
    want = np.asarray(function(tree, x))
    np.testing.assert_allclose(function(moved, x), want, rtol=1e-5, atol=1e-5)


@ways
@every_model
def test_a_spec_leaves_the_function(name, traced):
    same_function(spec_of(name, traced), *made(name))


BY_HAND = [
    ("embed", "_ stream"),
    ("norm.*/scale", "stream"),
    ("q/kernel", "stream (group=2 group/query=2 group/feature)"),
    ("k/kernel", "stream (group group/feature)"),
    ("v/kernel", "stream (group group/value)"),
    ("o/kernel", "(group group/query group/value) stream"),
    ("gate/kernel|up/kernel", "stream hidden"),
    ("down/kernel", "hidden stream"),
    ("head/kernel", "stream _"),
]


def test_labels_by_hand_leave_the_function():
    tree, function, x = made("grouped")
    spec = merging.permutation_spec_from_labels(BY_HAND, tree)
    same_function(spec, tree, function, x)
    traced = merging.permutation_spec(function, tree, x)
    _, a = layouts(traced, tree)
    _, b = layouts(spec, tree)
    assert sorted(a.values()) == sorted(b.values())


def resnet20(widths=(3, 4, 5)):
    """By the names of git-re-basin: norms after convolutions, two blocks a stage."""
    rng = np.random.default_rng(11)

    def conv(n, m, side=3):
        kernel = rng.normal(size=(side, side, n, m)) / np.sqrt(side * side * n)
        return {"kernel": jnp.asarray(kernel, jnp.float32)}

    def norm(n):
        return {
            k: jnp.asarray(rng.normal(size=n), jnp.float32) for k in ("scale", "bias")
        }

    tree, before = {"conv1": conv(1, widths[0]), "norm1": norm(widths[0])}, widths[0]
    for i, n in enumerate(widths):
        for j in range(2):
            block = {"conv1": conv(before, n), "norm1": norm(n)}
            block |= {"conv2": conv(n, n), "norm2": norm(n)}
            if before != n:
                block["shortcut"] = {"layers_0": conv(before, n, 1)}
                block["shortcut"]["layers_1"] = norm(n)
            tree.setdefault(f"blockgroups_{i}", {})[f"blocks_{j}"] = block
            before = n
    tree["dense"] = {"kernel": conv(before, 4, 1)["kernel"][0, 0], "bias": jnp.ones(4)}

    def convolve(p, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        kernel = p["kernel"]
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=numbers
        )

    def normalize(p, x):
        x = jax.nn.standardize(x, axis=-1)
        return x * p["scale"].reshape(1, 1, 1, -1) + p["bias"].reshape(1, 1, 1, -1)

    def apply(p, x):
        x = jax.nn.relu(normalize(p["norm1"], convolve(p["conv1"], x)))
        for i in range(3):
            for b in p[f"blockgroups_{i}"].values():
                y = jax.nn.relu(normalize(b["norm1"], convolve(b["conv1"], x)))
                y = normalize(b["norm2"], convolve(b["conv2"], y))
                if "shortcut" in b:
                    x = convolve(b["shortcut"]["layers_0"], x)
                    x = normalize(b["shortcut"]["layers_1"], x)
                x = jax.nn.relu(x + y)
        return x.mean((1, 2)) @ p["dense"]["kernel"] + p["dense"]["bias"].reshape(1, -1)

    return tree, apply, IMAGES


@ways
@every_model
def test_a_permuted_model_is_found_again(name, traced):
    """Recovered by its weights: the same function, and the same weights."""
    tree, function, x = made(name)
    spec = spec_of(name, traced)
    moved = permuted(spec, shuffled(spec, tree), tree)
    found = merging.weight_matching(spec, tree, moved)
    back = permuted(spec, found.permutation, moved)
    np.testing.assert_allclose(
        function(back, x), function(tree, x), rtol=1e-5, atol=1e-5
    )
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(tree), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_traced_is_what_is_shipped():
    """The symmetries of the perceptron and of the convolutions, all of them."""
    for model in ("mlp", "convnet"):
        tree, *_ = made(model)
        _, a = layouts(spec_of(model, True), tree)
        _, b = layouts(spec_of(model, False), tree)
        assert sorted(a.values()) == sorted(b.values())


def test_axes_are_permuted_as_numpy_does():
    x = np.arange(24.0).reshape(4, 6)
    spec = {"x": "h (g=2 g/c)", "n": "..."}
    tree = {"x": jnp.asarray(x), "n": jnp.ones(3)}
    h, g, c = [2, 0, 3, 1], [1, 0], [[2, 1, 0], [0, 2, 1]]
    got = merging.apply_permutation(spec, {"h": h, "g": g, "g/c": c}, tree)
    want = x.reshape(4, 2, 3)[h][:, g]
    want = np.stack([want[:, i][:, c[i]] for i in range(2)], 1).reshape(4, 6)
    np.testing.assert_array_equal(got["x"], want)
    np.testing.assert_array_equal(got["n"], tree["n"])


def test_permuting_is_jittable_and_keeps_dtypes():
    tree = {"w": jnp.eye(3, dtype=jnp.bfloat16), "n": jnp.arange(3)}
    run = jax.jit(
        lambda p, t: merging.apply_permutation({"w": "_ h", "n": "..."}, p, t)
    )
    got = run({"h": jnp.array([2, 0, 1])}, tree)
    assert got["w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(got["w"][2], jnp.eye(3)[2][jnp.array([2, 0, 1])])


def test_activations_are_what_the_next_layer_sees():
    tree, function, x = made("mlp")
    spec = merging.mlp_permutation_spec(tree)
    found = merging.label_activations(function, spec, tree, x)
    (w, b), (v, c), _ = tree
    h = jax.nn.relu(x.reshape(2, -1) @ w + b[None])
    np.testing.assert_allclose(found["hidden0"], h, rtol=1e-5)
    h = jax.nn.relu(h @ v + c[None])
    np.testing.assert_allclose(found["hidden1"], h, rtol=1e-5)


def test_an_operation_that_is_not_followed_is_named():
    def function(w, x):
        return jnp.sort(x @ w, axis=-1)

    with pytest.raises(ValueError, match="function: cannot follow sort"):
        merging.permutation_spec(function, jnp.ones((2, 3)), jnp.ones((1, 2)))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"w": "a b c"}, r"spec: ['w']: wanted 2 axes"),
        ({"w": "a"}, r"spec: ['w']: wanted 2 axes"),
        ({"w": "(a _"}, r"spec: ['w']: wanted names"),
        ({"w": "a a"}, r"spec: ['w']: an axis of 3"),
        ({"w": "_ (2 a)"}, r"spec: ['w']: an axis of 3 is not 2 x a"),
        ({"w": "_ (a b)"}, r"several sizes are not known"),
        ({"w": "_ a/b"}, r"'a/b' wants 'a' once"),
        ({"v": "_ _"}, r"spec: ['w'] is missing"),
        ({"w": 3}, r"wanted a string, came 3"),
    ],
)
def test_a_spec_that_does_not_fit(labels, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        merging.permutation_spec_from_labels(labels, {"w": jnp.ones((2, 3))})


def test_labels_as_lists_and_rules():
    tree = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    want = {"w": "_ h", "b": "h"}
    for labels in ({"w": [None, "h"], "b": ["h"]}, [("w$", "_ h"), ("b", "h")], want):
        assert merging.permutation_spec_from_labels(labels, tree) == want


@pytest.mark.parametrize(
    ("permutation", "message"),
    [({"g": [0]}, "'g' is not in the spec"), ({"h": [0, 1]}, "wanted shape (3,)")],
)
def test_a_permutation_that_does_not_fit(permutation, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        merging.apply_permutation({"w": "_ h"}, permutation, {"w": jnp.ones((2, 3))})


def test_models_that_are_not_known():
    with pytest.raises(ValueError, match="tree: 1/0"):
        merging.mlp_permutation_spec([(jnp.ones((2, 4)),), (jnp.ones((3, 1)),)])
    with pytest.raises(ValueError, match="one convolution before the blocks"):
        merging.resnet_permutation_spec({"head": {"kernel": jnp.ones((2, 2))}})
    block = {"conv1": jnp.ones((3, 3, 4, 4)), "conv2": jnp.ones((3, 3, 4, 4))}
    tree = {"conv1": jnp.ones((3, 3, 1, 4)), "layer1": block}
    with pytest.raises(ValueError, match="tree: layer1/gate"):
        merging.resnet_permutation_spec({**tree, "layer1": {**block, "gate": 1.0}})
    with pytest.raises(ValueError, match="tree: wibble"):
        merging.transformer_permutation_spec({"wibble": jnp.ones((2, 2))}, heads=2)
    with pytest.raises(ValueError, match="kv_heads"):
        merging.transformer_permutation_spec({}, heads=4, kv_heads=3)
