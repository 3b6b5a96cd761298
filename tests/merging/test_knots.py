"""KnOTS: linear methods see no basis, adapters keep their rank, keys and messages."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtricks import merging
from tests.free.common import as_users_see_it, assert_close, assert_finite
from tests.free.merge import floats, make_tree, make_trees


@pytest.mark.parametrize("shared", ["outputs", "inputs"])
def test_a_linear_method_gives_what_it_gives_without(shared):
    base, trees = make_tree(0), make_trees()
    w = jnp.array([0.5, 1.0, 0.25])
    method = functools.partial(merging.task_arithmetic, weights=w)
    got = merging.knots(base, trees, method=method, shared=shared)
    assert_close(floats(got), floats(method(base, trees)), rtol=1e-5)


def _adapted(n=3):
    base = {"b": jnp.zeros(6), "w": make_tree(0)["layer"][0]["w"][:, :6]}
    rng = np.random.default_rng(57)

    def tree():
        a, b = (jnp.float32(rng.normal(size=s)) for s in ((4, 1), (1, 6)))
        return merging.fold_lora(base, {"b": None, "w": merging.Lora(a, b)})

    return base, [tree() for _ in range(n)]


def test_adapters_have_as_many_coordinates_as_directions():
    base, trees = _adapted()
    shapes = []

    def method(base, trees):
        shapes.extend([x.shape for x in base])
        return merging.task_arithmetic(base, trees)

    got = merging.knots(base, trees, method=method, rank=3)
    assert shapes == [(6,), (4, 3)]
    assert_close(got["w"], merging.task_arithmetic(base, trees)["w"], rtol=1e-5)
    one = merging.knots(base, trees, method=method, rank=1)["w"] - base["w"]
    s = np.linalg.svd(one, compute_uv=False)
    assert s[1] < 1e-5 * s[0]


def test_one_model_kept_whole_is_itself_and_no_changes_give_the_base():
    base, trees = _adapted()
    method = functools.partial(merging.ties, density=1.0)
    assert_close(merging.knots(base, trees[:1], method=method), trees[0], rtol=1e-5)
    assert_close(merging.knots(base, [base] * 3), base)
    assert_close(merging.knots(base, trees, method=method, eps=1e3), base)
    nothing = merging.knots({"n": 1}, [{"n": 2}])
    assert nothing == {"n": 1}


def test_the_order_of_the_models_does_not_matter():
    base, trees = make_tree(0), make_trees()
    method = functools.partial(merging.ties, density=0.6)
    want = merging.knots(base, trees, method=method)
    got = merging.knots(base, trees[::-1], method=method)
    # To the rounding of a decomposition, which sees its rows in another order.
    assert_close(floats(got), floats(want), rtol=1e-5)


def test_derivatives_and_random_methods():
    base, trees = _adapted()

    def loss(trees):
        return jnp.sum(jnp.square(merging.knots(base, trees, rank=3)["w"]))

    assert_finite(jax.jit(jax.grad(loss))(trees))
    drop = functools.partial(
        merging.dare, density=0.5, consensus="ties", key=jax.random.key(0)
    )
    assert_finite(merging.knots(base, trees, method=drop))


def test_mistakes_are_named():
    base, trees = make_tree(0), make_trees()
    with as_users_see_it():
        with pytest.raises(ValueError, match="trees"):
            merging.knots(base, [])
        with pytest.raises(ValueError, match="rank"):
            merging.knots(base, trees, rank=0)
        with pytest.raises(ValueError, match="eps"):
            merging.knots(base, trees, eps=-1.0)
        with pytest.raises(ValueError, match="shared"):
            merging.knots(base, trees, shared="both")
        with pytest.raises(ValueError, match=r"trees\[0\]: \['layer'\] is missing"):
            merging.knots({"layer": jnp.ones(2)}, [{}])
