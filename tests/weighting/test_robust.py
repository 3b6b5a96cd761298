"""What a case line cannot say of the worst-case, group and outside weights."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxtricks import losses as losses_
from jaxtricks import reduce, weighting
from tests.free.common import as_users_see_it, assert_close, mesh
from tests.inputs import losses as example
from tests.inputs import rng

LOSSES = example.make((8,))[0]
LIVE = np.array([True, False, True, True, False, True, False, True])
GROUPS = np.array([0, 1, 0, 2, 2, 1, 0, 0], np.int32)

WORST = (
    functools.partial(weighting.cvar, fraction=0.3),
    functools.partial(weighting.chi2_dro, radius=0.4),
    functools.partial(weighting.chi2_dro, penalty=0.5),
    functools.partial(weighting.tilted, t=-1.5),
)


# --- worst cases -----------------------------------------------------------------


@pytest.mark.parametrize("fn", WORST)
def test_weights_are_a_distribution_of_the_live_batch(fn):
    square = fn(LOSSES.reshape(2, 4), where=LIVE.reshape(2, 4))
    assert_close(jnp.sum(square), 1.0)
    assert_close(square.reshape(8), fn(LOSSES, where=LIVE))
    assert_close(fn(np.full(5, 3.0)), np.full(5, 0.2))
    assert_close(fn(np.float32(3.0)), 1.0)
    nan = np.where(np.arange(8) == 2, np.nan, LOSSES).astype(np.float32)
    assert np.isnan(fn(nan)).all(), "a live NaN is never hidden"


def cost(w):
    return np.square(8 * w - 1).sum(-1) / 16


@pytest.mark.parametrize(
    ("fn", "worth", "allowed"),
    [
        (WORST[0], lambda w: w @ LOSSES, lambda w: w.max(-1) <= 1 / 2.4),
        (WORST[1], lambda w: w @ LOSSES, lambda w: cost(w) <= 0.4),
        (WORST[2], lambda w: w @ LOSSES - 0.5 * cost(w), lambda w: w.sum(-1) > 0),
    ],
)
def test_no_other_distribution_is_worse(fn, worth, allowed):
    best = np.asarray(fn(LOSSES), np.float64)
    others = np.random.default_rng(0).dirichlet(np.full(8, 0.8), size=4000)
    near = 0.9 * best + 0.1 * others
    for w in (others, near):
        w = w[allowed(w)]
        assert len(w) > 20
        assert (worth(w) <= worth(best) + 1e-6).all()
    assert allowed(best * (1 - 1e-6))


def test_the_radius_is_used_up():
    for radius in (0.01, 0.3, 1.0, 3.0):
        w = np.asarray(weighting.chi2_dro(LOSSES, radius=radius), np.float64)
        assert_close(cost(w), radius, rtol=1e-5)


def test_neither_scale_nor_offset_matters_to_the_ball():
    """Squares of 1e-25 vanish in f32; beside 2^20, the digits of a sum would."""
    grid = np.round(LOSSES * 8) / 8
    want = weighting.chi2_dro(grid, radius=0.4)
    assert_close(weighting.chi2_dro(grid * np.float32(1e-25), radius=0.4), want)
    assert_close(weighting.chi2_dro(grid + 2**20, radius=0.4), want)


def test_an_outlier_that_weighs_nothing_takes_no_digits():
    x = np.float32([1, 2, 3])
    for t, outlier in ((-1.0, 1e9), (0.5, -1e9)):
        got = weighting.tilted(np.append(x + 2**20, np.float32(outlier)), t=t)
        assert_close(got, np.append(np.exp(t * x) / np.exp(t * x).sum(), 0), rtol=5e-6)
    ends = jnp.stack([weighting.tilted(x, t=t) for t in (-np.inf, np.inf)])
    assert_close(ends, np.float32([[1, 0, 0], [0, 0, 1]]))


def test_shares_by_default_are_the_sources():
    losses = np.arange(20, dtype=np.float32)
    assert_close(weighting.cvar(losses), 0.5 * (losses >= 18))  # the worst tenth
    kept = weighting.keep_ratio(noise_rate=0.2, ramp=10)
    assert_close([kept(t) for t in (0.0, 0.5, 5, 20)], [1, 0.99, 0.9, 0.8])
    hardness = np.float32([0.0099, 0.0101])  # around the first hundredth
    got = weighting.curriculum(hardness, difficulty=hardness, progress=0.0)
    assert_close(got, np.float32([1, 0]))


def test_equal_losses_share_the_quantile():
    losses = np.array([2.0, 5.0, 2.0, 2.0, 1.0], np.float32)
    got = weighting.cvar(losses, fraction=0.5)
    assert_close(got, np.array([0.5, 1, 0.5, 0.5, 0]) / 2.5)
    top = weighting.chi2_dro(np.array([1.0, 3.0, 3.0, 0.0]), radius=1.5)
    assert_close(top, np.array([0, 0.5, 0.5, 0]))


def test_danskin():
    """sum(w l) with stopped w has the gradient of the robust loss itself."""

    x = LOSSES.astype(np.float64)

    def model(theta):
        return jnp.square(x - theta) + jnp.sin(theta * x)

    for fn in WORST[:2]:

        def robust(theta, fn=fn):
            return jnp.sum(fn(model(theta)) * model(theta))

        with jax.enable_x64(True):
            slope = (robust(0.7 + 1e-6) - robust(0.7 - 1e-6)) / 2e-6
            assert_close(jax.grad(robust)(0.7), slope, rtol=1e-5)


# --- memory ----------------------------------------------------------------------


def test_group_dro_favours_the_group_that_does_worst():
    init, update = weighting.group_dro(3, step_size=0.5)
    losses = np.where(GROUPS == 2, 3.0, 1.0).astype(np.float32)
    state = init()
    for _ in range(20):
        weights, state = update(losses, state, groups=GROUPS)
    q = np.exp(state.log_q)
    assert_close(q.sum(), 1.0)
    assert q[2] > 0.99
    assert_close(weights.sum(), 1.0)
    assert_close(weights[3], q[2] / 2)


def test_group_dro_without_steps_is_the_mean_of_group_means():
    init, update = weighting.group_dro(3, step_size=0.0)
    weights, _ = update(LOSSES, init(), groups=GROUPS, where=LIVE)
    means = [LOSSES[LIVE & (g == GROUPS)].mean() for g in range(3)]
    assert_close(jnp.sum(weights * LOSSES), np.mean(means))


def test_memories_are_replicated_under_shard_map():
    pair = weighting.chain(
        weighting.group_dro(3, step_size=0.5),
        functools.partial(weighting.cvar, fraction=0.6),
    )

    def step(losses, state, groups):
        return pair.update(losses, state, groups=groups, axis_name="data")

    sharded = jax.jit(
        jax.shard_map(
            step,
            mesh=mesh(AxisType.Auto),
            in_specs=(P("data"), P(), P("data")),
            out_specs=(P("data"), P()),
        )
    )
    state = plain = pair.init()
    for losses in (LOSSES, LOSSES[::-1].copy()):
        got, state = sharded(losses, state, GROUPS)
        want, plain = pair.update(losses, plain, groups=GROUPS)
        assert_close((got, state), (want, plain))


def test_alip_with_all_above_the_mean_is_two_contrastive_losses():
    """The whole adaptive loss, of two cross entropies over pairs."""
    x, t, c = (rng(31, k).normal(size=(4, 6)).astype(np.float32) for k in range(3))
    x, t, c = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (x, t, c))

    def contrastive(a, b):
        ce = optax.softmax_cross_entropy_with_integer_labels
        logits, labels = 10 * a @ b.T, np.arange(4)
        return (ce(logits, labels) + ce(logits.T, labels)) / 2

    per_pair = jnp.stack([contrastive(x, t), contrastive(x, c)], axis=-1)
    init, update = weighting.alip()
    low = weighting.AlipState(*[jnp.float32(-1)] * 3)
    weights, _ = update(per_pair, low, image=x, text=t, caption=c)
    assert_close(weights, np.ones((4, 2)))
    weights, state = update(per_pair, init(), image=x, text=t, caption=c)
    assert (np.asarray(weights) < 1).all()
    assert_close(state.texts, 0.99 + 0.01 * np.mean(np.sum(t * c, -1)))
    empty, after = update(
        per_pair, state, image=x, text=t, caption=c, where=np.zeros(4, bool)
    )
    assert (np.asarray(empty) == 0).all()
    assert after == state


# --- from outside ----------------------------------------------------------------


def test_meta_weights_learn_from_clean_data():
    """A step on noisy data, differentiated by clean loss: the noisy label loses."""
    theta, clean = jnp.float32(0.0), 1.0

    def apply(params, x):
        return jax.nn.sigmoid(params * x)

    def after(params):
        targets = np.array([1.0, -3.0], np.float32)
        losses = jnp.square(theta - targets)
        weights = weighting.meta_weight_net(losses, params, apply=apply)
        step = jax.grad(lambda w: jnp.sum(weights * jnp.square(w - targets)))(theta)
        return jnp.square(theta - 0.1 * step - clean)

    assert jax.grad(after)(0.0) > 0  # a larger slope favours the larger, noisy loss


def test_curriculum_and_segments_compose_with_the_mean():
    segments = (GROUPS > 0).astype(np.int32)
    w = weighting.segment_balanced(LOSSES, segments=segments, shares=(0.5, 0.5))
    means = [LOSSES[segments == s].mean() for s in (0, 1)]
    assert_close(reduce.mean(LOSSES, weights=w), np.mean(means))
    plain = np.array([(segments == s).mean() for s in (0, 1)], np.float32)
    w = weighting.segment_balanced(LOSSES, segments=segments, shares=plain)
    assert_close(w, np.full(8, 1 / 8))


def test_diff_tokens_marks_what_is_gone():
    assert not weighting.diff_tokens([1, 2, 3], [1, 2, 3]).any()
    assert weighting.diff_tokens([1, 2], []).all()
    assert weighting.diff_tokens([], [1]).shape == (0,)
    lines = weighting.diff_tokens(["a = 1", "return a"], ["a = 2", "return a"])
    assert lines.tolist() == [True, False]


def test_focal_weights_give_the_value_of_the_focal_loss():
    logits = rng(41).normal(size=(6, 4)).astype(np.float32)
    labels = np.arange(6) % 4
    nll = losses_.cross_entropy(logits, labels)
    got = weighting.focal_factor(nll, gamma=1.5) * nll
    assert_close(got, losses_.focal(logits, labels, gamma=1.5))


def test_self_paced_minimum_at_the_kinks():
    at = np.array([0.0, 0.25, 0.5, 1.0], np.float32)
    for rule in ("linear", "log", "mixture"):
        w = weighting.self_paced(at, threshold=0.5, rule=rule, inner=0.25)
        assert_close(w[0], 1.0)
        assert_close(w[2:], np.zeros(2))
    assert_close(weighting.self_paced(at, threshold=0.5), at < 0.5)
    end = {"threshold": 0.5, "inner": jnp.float32(0.5), "rule": "mixture"}
    assert_close(weighting.self_paced(at, **end), at <= 0.5)


# --- chains ----------------------------------------------------------------------


def test_a_chain_of_one_is_that_one():
    assert weighting.chain(weighting.linupper) is weighting.linupper
    pair = weighting.group_dro(2)
    assert weighting.chain(pair) is pair


def test_a_chain_multiplies_and_has_a_live_mean_of_1():
    a = functools.partial(weighting.tilted, t=0.5)
    b = functools.partial(weighting.quantile_window, high=0.8)
    w = weighting.chain(a, b)(LOSSES, where=LIVE)
    product = a(LOSSES, where=LIVE) * b(LOSSES, where=LIVE)
    assert_close(w, product * LIVE.sum() / product.sum())
    got = reduce.mean(LOSSES, weights=w, where=LIVE)
    assert_close(got, jnp.sum(product * LOSSES) / product.sum())
    nested = weighting.chain(weighting.chain(a, b), b, weighting.cvar)
    flat = weighting.chain(a, b, b, weighting.cvar)
    assert_close(nested(LOSSES, where=LIVE), flat(LOSSES, where=LIVE))
    assert not weighting.chain(a, b)(LOSSES, where=LIVE & False).any()


def test_keywords_go_to_who_names_them():
    counts = np.array([5.0, 2.0, 1.0], np.float32)
    of_class = functools.partial(weighting.inverse_frequency, counts=counts)
    inner = weighting.chain(of_class, weighting.linupper)
    pair = weighting.chain(inner, weighting.group_dro(3), weighting.focal_factor)
    state = pair.init()
    w, after = pair.update(LOSSES, state, labels=GROUPS, groups=GROUPS, where=LIVE)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    dro, _ = weighting.group_dro(3).update(
        LOSSES, weighting.group_dro(3).init(), groups=GROUPS, where=LIVE
    )
    want = inner(LOSSES, labels=GROUPS, where=LIVE) * dro
    want = want * weighting.focal_factor(LOSSES, where=LIVE)
    assert_close(w, weighting.normalize(want, where=LIVE))
    with as_users_see_it(), pytest.raises(ValueError, match="colour: wanted by none"):
        pair.update(LOSSES, state, labels=GROUPS, groups=GROUPS, colour=1)


def test_a_chain_tells_its_signature_and_hides_no_mask():
    def median(losses, **given):
        return weighting.quantile_window(losses, high=0.5, **given)

    both = weighting.chain(weighting.linupper, median)
    want = weighting.chain(
        weighting.linupper, functools.partial(weighting.quantile_window, high=0.5)
    )
    assert_close(both(LOSSES, where=LIVE), want(LOSSES, where=LIVE))
    first = next(iter(inspect.signature(want).parameters.values()))
    assert (first.name, first.kind) == ("losses", first.POSITIONAL_OR_KEYWORD)


def test_groups_that_are_small_absent_or_perfect_in_the_error_bound():
    groups = np.array([0, 2, 2])
    for best in (0.2, 0.0):
        losses = np.float32([best, 0.4, 0.4])
        got = weighting.error_bound(losses, groups=groups, number=3)
        assert_close(got, np.tanh([1, best / 0.4, best / 0.4]))


def test_a_live_nan_stays_in_the_error_bound():
    spoilt = np.where(np.arange(8) == 1, np.nan, LOSSES).astype(np.float32)
    got = weighting.error_bound(spoilt, groups=GROUPS, number=3)
    assert np.isnan(got).any()


def test_errors_say_what_was_wanted_and_what_came():
    with as_users_see_it():
        init, update = weighting.alip()
        x = np.ones((8, 3), np.float32)
        for name, given in (
            ("text", {"text": x[:1]}),
            ("caption", {"caption": x[:, :1]}),
            ("losses", {"losses": x}),
        ):
            data = {"losses": x[:, :2], "image": x, "text": x, "caption": x, **given}
            with pytest.raises(ValueError, match=f"^{name}: "):
                update(data.pop("losses"), init(), **data)
        for counts in (np.float32(3), np.ones((3, 1), np.float32)):
            for fn in (weighting.class_balanced, weighting.inverse_frequency):
                with pytest.raises(ValueError, match=r"counts: wanted shape"):
                    fn(LOSSES, labels=GROUPS, counts=counts)
        with pytest.raises(ValueError, match=r"shares: wanted shape \[segments\]"):
            weighting.segment_balanced(LOSSES, segments=GROUPS, shares=0.3)
        with pytest.raises(ValueError, match=r"low: wanted one number"):
            weighting.bias(LOSSES, features=x, low=LOSSES)
        with pytest.raises(ValueError, match="weightings: wanted at least one"):
            weighting.chain()
        with pytest.raises(ValueError, match=r"weightings: .*came 3"):
            weighting.chain(weighting.linupper, 3)
        with pytest.raises(ValueError, match="adjustment: wanted 0 without counts"):
            weighting.group_dro(3, adjustment=1.0)
        with pytest.raises(ValueError, match=r"counts: wanted shape \(3,\)"):
            weighting.group_dro(3, counts=np.ones(2, np.float32))
        with pytest.raises(
            ValueError, match=r"labels: wanted integers of shape \(8,\)"
        ):
            weighting.class_balanced(
                LOSSES, labels=GROUPS[:3], counts=np.ones(3, np.float32)
            )
        with pytest.raises(ValueError, match=r"difficulty: .*\(8,\), came \(3,\)"):
            weighting.curriculum(LOSSES, difficulty=LOSSES[:3], progress=0.5)
        with pytest.raises(ValueError, match=r"apply: .*came"):
            weighting.meta_weight_net(LOSSES, 1.0, apply=lambda p, x: x[..., 0] * p)
        with pytest.raises(ValueError, match=r"features: .*came"):
            weighting.bias(LOSSES, features=np.ones((3, 2), np.float32))
        with pytest.raises(ValueError, match=r"faults: .*came"):
            weighting.fault_aware(LOSSES, faults=LIVE[:2], emphasis=2.0)
