"""The methods: which functions of `jaxtricks.merging` merge here, and their settings.

Each makes one model of what `evidence.Work` has. Where a source has a coefficient that
the merged change is multiplied with, a method is run with 1, and `scale` is the one to
begin with: the source's, or 1. Densities and the like are the sources' too, and tuned
for none.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from jaxtricks import losses, merging

from ..config import BadInput
from ..tricks import there_are
from .evidence import Work
from .training import Task, mean

PLAIN = "linear"
Needs = Literal["", "inputs", "labels"]


class Method(NamedTuple):
    """One line of the table."""

    fn: str  # in jaxtricks.merging.__all__
    merge: Callable[[Work, Task], PyTree]
    why: str = "the defaults"
    scale: float | None = None
    kind: str = "averages"  # a group in the picture
    needs: Needs = ""  # of the domains' data, besides validation for the scale
    host: Callable[..., PyTree] | None = None  # (work, score), not jitted


def _plain(fn: Callable, **hyper) -> Callable[[Work, Task], PyTree]:
    return lambda work, task: fn(work.trees, **hyper)


def _from_base(fn: Callable, **hyper) -> Callable[[Work, Task], PyTree]:
    return lambda work, task: fn(work.base, work.trees, **hyper)


def _by_chance(fn: Callable, **hyper) -> Callable[[Work, Task], PyTree]:
    return lambda work, task: fn(work.base, work.trees, key=work.key, **hyper)


def by_turns(pair: Callable[[PyTree, PyTree, float], PyTree], trees: Sequence):
    """The first with the second, that with the third; t is the new one's share."""
    merged = trees[0]
    for i, tree in enumerate(trees[1:], 2):
        merged = pair(merged, tree, 1 / i)
    return merged


def slerp(work: Work, task: Task) -> PyTree:
    return by_turns(lambda a, b, t: merging.slerp([a, b], t=t), work.trees)


def nuslerp(work: Work, task: Task) -> PyTree:
    def pair(a, b, t):
        return merging.nuslerp([a, b], base=work.base, weights=jnp.array([1 - t, t]))

    return by_turns(pair, work.trees)


def arcee_fusion(work: Work, task: Task) -> PyTree:
    merged = work.base
    for tree in work.trees:
        merged = merging.arcee_fusion(merged, tree)
    return merged


def lora(work: Work, task: Task) -> PyTree:
    """The sum of what rank 8 keeps of each change."""
    folded = [
        merging.fold_lora(work.base, merging.extract_lora(work.base, tree, rank=8))
        for tree in work.trees
    ]
    return merging.task_arithmetic(work.base, folded)


def darex(work: Work, task: Task, density: float = 0.1) -> PyTree:
    """Few changes of each kernel, rescaled by what the layer's inputs say; all of the
    rest, as in the paper; and their sum."""
    pruned = []
    for i, (tree, means) in enumerate(zip(work.trees, work.inputs, strict=True)):

        def q(leaf, after, seen):
            if seen is None:
                return jnp.float32(density)
            change = (after - leaf).reshape(len(seen), -1) * seen[:, None]
            return merging.darex_rescale(change.T, density=density)

        is_end = lambda x: x is None  # noqa: E731
        each = jax.tree.map(
            lambda seen, leaf, after: q(leaf, after, seen),
            means,
            work.base,
            tree,
            is_leaf=is_end,
        )
        kernels = jax.tree.map(lambda seen: seen is not None, means, is_leaf=is_end)
        own = jax.random.fold_in(work.key, i)
        few = merging.darex_q(
            work.base, tree, density=density, q=each, key=own, where=kernels
        )
        pruned.append(few)
    return merging.task_arithmetic(work.base, pruned)


def adamerging(
    work: Work, task: Task, layers: bool = False, trim: bool = False
) -> PyTree:
    """Coefficients that make the predictions on inputs of all domains the surest."""
    trees = work.trees
    if trim:
        trees = [merging.ties(work.base, [tree], density=0.2) for tree in trees]
    start = jnp.full(len(trees), 0.3)
    if layers:
        start = jax.tree.map(lambda _: start, work.base)

    def merged(c):
        return merging.adamerging(work.base, trees, coefficients=c)

    def objective(c, data):
        hidden, head = task.apply(merged(c), {"inputs": data["inputs"]})
        each = losses.entropy(hidden @ head, where=data["mask"])
        return jnp.sum(each) / jnp.sum(data["mask"])

    return merged(_descended(objective, start, work.batches))


def self_position(work: Work, task: Task) -> PyTree:
    """A point among the changes, where the loss on windows of all domains is least."""

    def merged(point):
        logits, scale = point
        return merging.self_position(work.base, work.trees, logits=logits, scale=scale)

    def objective(point, data):
        return mean(task, merged(point), data)

    start = jnp.zeros(len(work.trees)), jnp.float32(1)
    return merged(_descended(objective, start, work.batches))


def _descended(objective, start, batches):
    # Ten times the rate of AdaMerging's authors, for an eighth of their steps.
    found, _ = merging.fit_coefficients(
        objective, start, batches, optimizer=optax.adam(1e-2)
    )
    return found


def greedy_soup(work: Work, score: Callable[[PyTree], float]) -> PyTree:
    return merging.greedy_soup(work.trees, score).tree


def wise_ft(work: Work, score: Callable[[PyTree], float]) -> PyTree:
    """Of the three the one that is best on validation windows of all domains."""
    return max((merging.wise_ft(work.base, tree) for tree in work.trees), key=score)


def _host(work: Work, task: Task) -> PyTree:
    raise NotImplementedError


def _ties_like(name: str) -> str:
    return f"elects signs as TIES; {name}"


TABLE: dict[str, Method] = {
    "linear": Method("linear", _plain(merging.linear), "the plain average"),
    "metrics_weighted": Method(
        "metrics_weighted",
        lambda work, task: merging.metrics_weighted(work.trees, work.metrics),
        "weights of 1 over the loss on validation windows of all domains",
        needs="labels",
    ),
    "greedy_soup": Method(
        "greedy_soup",
        _host,
        "those of the three that lower the loss on validation windows of all domains",
        needs="labels",
        host=greedy_soup,
    ),
    "wise_ft": Method(
        "wise_ft",
        _host,
        "one fine-tune, the best on validation windows of all, halfway to the base",
        needs="labels",
        host=wise_ft,
    ),
    "slerp": Method("slerp", slerp, "by turns, a third each", kind="sphere"),
    "nuslerp": Method(
        "nuslerp", nuslerp, "of the changes; by turns, a third each", kind="sphere"
    ),
    "multislerp": Method("multislerp", _plain(merging.multislerp), kind="sphere"),
    "multislerp_changes": Method(
        "multislerp",
        lambda work, task: merging.multislerp(work.trees, base=work.base),
        "around the base",
        kind="sphere",
    ),
    "karcher": Method("karcher", _plain(merging.karcher), kind="sphere"),
    "model_stock": Method(
        "model_stock", _from_base(merging.model_stock), kind="averages"
    ),
    "model_stock_rows": Method(
        "model_stock", _from_base(merging.model_stock, rows=True), "an angle a row"
    ),
    "task_arithmetic": Method(
        "task_arithmetic", _from_base(merging.task_arithmetic), scale=0.3
    ),
    "ties": Method(
        "ties",
        _from_base(merging.ties),
        "mergekit's: 20 % of each tensor",
        1.0,
        "sparse",
    ),
    "ties_global": Method(
        "ties",
        _from_base(merging.ties, scope="global"),
        "the authors': 20 % of the whole model",
        1.0,
        "sparse",
    ),
    "ties_frequency": Method(
        "ties",
        _from_base(merging.ties, sign="frequency"),
        "signs by their count",
        1.0,
        "sparse",
    ),
    "dare": Method(
        "dare",
        _by_chance(merging.dare, density=0.5),
        "half of the changes, summed",
        0.3,
        "sparse",
    ),
    "dare_10": Method(
        "dare",
        _by_chance(merging.dare, density=0.1),
        "a tenth of the changes, summed",
        0.3,
        "sparse",
    ),
    "dare_ties": Method(
        "dare",
        _by_chance(merging.dare, density=0.5, consensus="ties", normalize=True),
        _ties_like("half of the changes"),
        1.0,
        "sparse",
    ),
    "darex_q_10": Method(
        "darex_q",
        darex,
        "a tenth of the changes of kernels, q by the means of their inputs, summed",
        0.3,
        "sparse",
        "inputs",
    ),
    "della": Method(
        "della",
        _by_chance(merging.della, density=0.5),
        _ties_like("half of the changes, 0.35 to 0.65 by rank"),
        1.0,
        "sparse",
    ),
    "della_linear": Method(
        "della",
        _by_chance(merging.della, density=0.5, consensus="linear", normalize=False),
        "half of the changes, 0.35 to 0.65 by rank, summed",
        0.3,
        "sparse",
    ),
    "breadcrumbs": Method(
        "breadcrumbs",
        _from_base(merging.breadcrumbs, density=0.14),
        "14 % of the changes below the largest 1 %, summed",
        0.3,
        "sparse",
    ),
    "breadcrumbs_ties": Method(
        "breadcrumbs",
        _from_base(merging.breadcrumbs, density=0.14, consensus="ties", normalize=True),
        _ties_like("14 % of the changes below the largest 1 %"),
        1.0,
        "sparse",
    ),
    "sce": Method(
        "sce", _from_base(merging.sce), "all entries, mergekit's default", kind="sparse"
    ),
    "sce_10": Method(
        "sce",
        _from_base(merging.sce, select=0.1),
        "the tenth that differs most, the authors'",
        kind="sparse",
    ),
    "ram": Method("ram", _from_base(merging.ram), kind="sparse"),
    "arcee_fusion": Method(
        "arcee_fusion", arcee_fusion, "into the base, by turns", kind="sparse"
    ),
    "lora_8": Method(
        "extract_lora",
        lora,
        "what rank 8 keeps of each change, summed",
        0.3,
        "spectral",
    ),
    "tsv": Method("tsv", _from_base(merging.tsv), "TSV-M", 1.0, "spectral"),
    "tsv_full": Method(
        "tsv",
        _from_base(merging.tsv, rank="full"),
        "its lossless variant",
        1.0,
        "spectral",
    ),
    "iso": Method("iso", _from_base(merging.iso), "Iso-C", 1.0, "spectral"),
    "iso_cts": Method(
        "iso", _from_base(merging.iso, common=0.8), "Iso-CTS", 1.0, "spectral"
    ),
    "knots": Method(
        "knots",
        _from_base(merging.knots),
        "TIES, the authors', in a basis that all share",
        1.0,
        "spectral",
    ),
    "fisher": Method(
        "fisher",
        lambda work, task: merging.fisher(work.trees, work.fishers),
        "one byte of each window, drawn from the model",
        kind="data",
        needs="inputs",
    ),
    "fisher_normed": Method(
        "fisher",
        lambda work, task: merging.fisher(
            work.trees, work.fishers, floors="first", normalize=True
        ),
        "the authors' defaults",
        kind="data",
        needs="inputs",
    ),
    "regmean": Method(
        "regmean",
        lambda work, task: merging.regmean(work.trees, work.grams),
        kind="data",
        needs="inputs",
    ),
    "adamerging": Method(
        "adamerging",
        adamerging,
        "a coefficient a model, by the entropy of its predictions",
        kind="data",
        needs="inputs",
    ),
    "adamerging_layers": Method(
        "adamerging",
        lambda work, task: adamerging(work, task, layers=True),
        "a coefficient a model and parameter",
        kind="data",
        needs="inputs",
    ),
    "adamerging++": Method(
        "adamerging",
        lambda work, task: adamerging(work, task, layers=True, trim=True),
        "the same of the largest 20 % of the changes",
        kind="data",
        needs="inputs",
    ),
    "self_position": Method(
        "self_position",
        self_position,
        "three logits and a length, by the loss on training windows of all domains",
        kind="data",
        needs="labels",
    ),
}

# What of the family merges no three fine-tunes of one base.
ELSEWHERE = {
    "add_task_vectors": "is task_arithmetic, from the vectors",
    "assemble_modules": "puts modules together, not weights",
    "calibrated_ensemble": "mixes predictions",
    "ema": "averages along one training",
    "fit_coefficients": "is in adamerging and self_position",
    "fold_lora": "is in lora",
    "lawa": "averages along one training",
    "nearswap": "moves the base by 1e-4: as good as not at all",
    "neon": "wants a model that was trained on its own samples",
    "patch_weights": "wants signatures",
    "pleas": "is for models of other seeds; these share a base",
    "robust_weight_signature": "wants a model of corrupted data",
    "swa": "averages along one training",
    "task_vector": "is in the others",
}
# What measures, aligns permuted models, or is a part of what is there.
BESIDE = (
    "AverageState Averaging Barrier Blocks Correction FalseFalseTrue Lora Matching "
    "Soup activation_matching apply_permutation confidence_temperature "
    "convnet_permutation_spec darex_rescale false_false_true fisher_diagonal "
    "fold_repair gram interpolation_barrier label_activations metric_weights "
    "mlp_permutation_spec neon_alignment overconfidence partial_matching "
    "permutation_spec permutation_spec_from_labels repair resnet_permutation_spec "
    "singular_vector_alignment sinkhorn_matching ste_matching "
    "transformer_permutation_spec weight_matching"
)


def without_settings() -> list[str]:
    """What the library has and nothing here names."""
    named = {of.fn for of in TABLE.values()} | set(ELSEWHERE) | set(BESIDE.split())
    known = set(merging.__all__) - named
    return sorted(name for name in known if not name.endswith("_leaf"))


def chosen(names: Sequence[str]) -> list[str]:
    """The plain average first, then what is asked for, or all."""
    for name in names:
        if name not in TABLE:
            said = f"unknown {name!r}{there_are(name, list(TABLE))}"
            raise BadInput(f"--methods: {said}")
    twice = [name for name in names if list(names).count(name) > 1]
    if twice:
        raise BadInput(f"--methods: {twice[0]} came twice")
    return [PLAIN, *(name for name in names or TABLE if name != PLAIN)]


def programs(names: Sequence[str], task: Task) -> dict[str, Callable[..., PyTree]]:
    """(work, score) -> the merged model; compiled once for all seeds."""

    def program(of: Method) -> Callable[..., PyTree]:
        if of.host:
            return of.host
        compiled = jax.jit(lambda work: of.merge(work, task))
        return lambda work, score: compiled(work)

    return {name: program(TABLE[name]) for name in names}
