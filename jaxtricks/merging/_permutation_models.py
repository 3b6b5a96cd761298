"""Permutation specs of common models, read off their parameters' names and shapes.

A model that is built otherwise is traced (`permutation_spec`) or labelled by hand
(`permutation_spec_from_labels`).
"""

import re

import jax.numpy as jnp
from jaxtyping import PyTree

from ._permutation import by_path, labelled, natural


def mlp_permutation_spec(tree: PyTree) -> PyTree:
    """The permutation spec of a multi-layer perceptron: a name for each hidden layer.

    Args:
      tree: the parameters: kernels [in, out] in the order of their paths, each with
        vectors [out] beside it or in containers of their own (norms).
    Returns:
      A pytree like `tree` of strings, names "hidden0", "hidden1", ...
    Gradient: none.
    Cost: none; on the host.
    Raises: ValueError where an input is no multiple of the output before, or a leaf is
      neither matrix nor vector, with the path.
    Source: Ainsworth et al., "Git Re-Basin: Merging Models modulo Permutation
      Symmetries", 2022, arXiv:2209.04836, sec. 2. Differs: none.
    Example:
      >>> sizes = [2, 8, 8, 3]
      >>> tree = [(jnp.ones(s), jnp.ones(s[1])) for s in zip(sizes, sizes[1:])]
      >>> mlp_permutation_spec(tree)[1]
      ('hidden0 hidden1', 'hidden1')
    """
    return _chain(tree, dims=(1, 2))


def convnet_permutation_spec(tree: PyTree) -> PyTree:
    """The permutation spec of convolutions one after the other, with norms or without.

    Args:
      tree: the parameters: kernels [..., in, out] in the order of their paths, with
        vectors [out] beside them; norms of their own container belong to the kernel
        of the same count. A dense layer after a flattened image [height, width,
        channels], or after patches, has inputs in multiples of the channels.
    Returns:
      A pytree like `tree` of strings, names "hidden0", "hidden1", ...
    Gradient: none.
    Cost: none; on the host.
    Raises: ValueError where an input is no multiple of the output before, with the
      path. Norms of groups of channels are not for it.
    Source: Ainsworth et al., "Git Re-Basin: Merging Models modulo Permutation
      Symmetries", 2022, arXiv:2209.04836, sec. 2. Differs: none.
    Example:
      >>> tree = {"Conv_0": {"kernel": jnp.ones((3, 3, 1, 4)), "bias": jnp.ones(4)}}
      >>> tree |= {"Dense_0": {"kernel": jnp.ones((16, 2))}}
      >>> convnet_permutation_spec(tree)["Dense_0"]
      {'kernel': '(_ hidden0) _'}
    """
    return _chain(tree, dims=(1, 2, 3, 4, 5))


def transformer_permutation_spec(
    tree: PyTree, *, heads: int, kv_heads: int | None = None, rotary: bool = True
) -> PyTree:
    """The permutation spec of a pre-norm transformer: one stream, heads, hidden units.

    The stream is permuted everywhere alike, heads as a whole (with grouped queries the
    groups, and the heads in each), the values of each head, and the hidden units of
    each perceptron, gated or not. Norms must see all of the stream.

    Args:
      tree: the parameters, by the names of their leaves: embeddings, patch, positions;
        in numbered blocks q, k, v, o (q_proj, wq, query, ...) or qkv with columns
        (heads, 3, features) and out; gate, up, down (gate_proj, w1, fc1, ...); norms;
        head. Kernels are [in, out], those called "weight" [out, in]; biases too.
      heads: of attention, >= 1.
      kv_heads: groups of queries that share keys and values; None: `heads`.
      rotary: the order of a query's and key's features counts (static). False permutes
        those, too, but where a norm of queries or keys has a scale for each.
    Returns:
      A pytree like `tree` of strings, names "stream", "heads.0", "heads.0/query",
      "heads.0/value", "hidden.0", ...
    Gradient: none.
    Cost: none; on the host.
    Raises: ValueError for a leaf whose name is not known, with the path; heads that do
      not fit.
    Source: Ainsworth et al., "Git Re-Basin: Merging Models modulo Permutation
      Symmetries", 2022, arXiv:2209.04836, sec. 2; definition. Differs: the paper has
      no transformer.
    Example:
      >>> mlp = {"up": jnp.ones((4, 8)), "down": jnp.ones((8, 4))}
      >>> transformer_permutation_spec({"blocks": [mlp]}, heads=2)["blocks"][0]["up"]
      'stream hidden.0'
    """
    groups = heads if kv_heads is None else kv_heads
    if heads < 1 or groups < 1 or heads % groups:
        raise ValueError(f"kv_heads: wanted a divisor of {heads}, came {groups}")
    found = {path: _kind(path) for path in by_path(tree)}
    labels = {}
    for path, leaf in by_path(tree).items():
        kind, at = found[path]
        fused = ("qkv", at) in found.values()
        # A norm of queries has a scale for each feature, the same in every head.
        fixed = rotary or ("fixed", at) in found.values()
        first, second = _sides(kind, f"heads{at}", f"hidden{at}", groups, fused, fixed)
        if groups != heads:
            if kind == "qkv":
                raise ValueError(f"kv_heads: {path} has as many as heads, {heads}")
            query = f"heads{at}={groups} heads{at}/query={heads // groups}"
            if kind in ("q", "o"):
                first, second = (
                    s.replace(f"(heads{at}={groups}", "(" + query)
                    for s in (first, second)
                )
        ndim = jnp.ndim(leaf)
        if ndim == 0 or kind == "fixed":
            labels[path] = "..."
        elif ndim == 1:
            labels[path] = second
        else:
            window = ["_"] * (ndim - 2)
            turned = path.endswith("weight") and kind != "rows"
            axes = [second, first, *window] if turned else [*window, first, second]
            labels[path] = " ".join(axes)
    return labelled(labels, tree)


_LEAVES = ("kernel", "weight", "bias", "scale", "embedding", "w", "b")
_KINDS = (
    (r"q_norm|k_norm|query_norm|key_norm|(rotary|inv_freq)", "fixed"),
    (r"norm|ln|layernorm|rms", "norm"),
    (r"qkv|c_attn", "qkv"),
    (r"q|wq|q_proj|query", "q"),
    (r"k|wk|k_proj|key", "k"),
    (r"v|wv|v_proj|value", "v"),
    (r"o|wo|o_proj|out|out_proj|proj", "o"),
    (r"up|gate|up_proj|gate_proj|w1|w3|wi(_\d)?|fc1|c_fc", "up"),
    (r"down|down_proj|w2|fc2", "down"),
    (r"patch|patch_embed\w*", "first"),
    (r"head|lm_head|output|classifier", "last"),
    (r"(tok_|token_|word_)?embed(_tokens|ding|dings|s)?|wte|wpe|pos\w*|cls\w*", "rows"),
)


def _kind(path: str) -> tuple[str, str]:
    """What a leaf of a transformer is, and ".3" in block 3."""
    words = path.replace(".", "/").split("/")
    number = next((f".{w}" for w in words if w.isdigit()), "")
    owners = [w for w in words if not w.isdigit() and w not in _LEAVES]
    owner = owners[-1] if owners else words[-1]
    for pattern, kind in _KINDS:
        if re.fullmatch(pattern, owner):
            return kind, number
    if "norm" in owner or owner.startswith("ln"):
        return "norm", number
    said = "wanted a leaf of a pre-norm transformer, its name is not known"
    raise ValueError(f"tree: {path}: {said}: trace the model with permutation_spec")


def _sides(
    kind: str, heads: str, hidden: str, n: int, fused: bool, fixed: bool
) -> tuple[str, str]:
    """The labels of a kernel's inputs and outputs."""
    features = "_" if fixed else f"{heads}/feature"
    values = features if fused else f"{heads}/value"
    return {
        "fixed": ("_", "_"),
        "norm": ("_", "stream"),
        "qkv": ("stream", f"({heads}={n} 3 {features})"),
        "q": ("stream", f"({heads}={n} {features})"),
        "k": ("stream", f"({heads}={n} {features})"),
        "v": ("stream", f"({heads}={n} {values})"),
        "o": (f"({heads}={n} {values})", "stream"),
        "up": ("stream", hidden),
        "down": (hidden, "stream"),
        "first": ("_", "stream"),
        "last": ("stream", "_"),
        "rows": ("_", "stream"),
    }[kind]


def _chain(tree: PyTree, dims: tuple[int, ...]) -> PyTree:
    """Layers one after the other."""
    shapes = {path: jnp.shape(leaf) for path, leaf in by_path(tree).items()}
    groups: dict[str, list[str]] = {}
    for path in sorted(shapes, key=natural):
        head, _, leaf = path.rpartition("/")
        number = "".join(re.findall(r"\d+", leaf)) if not _indexed(head, shapes) else ""
        groups.setdefault(f"{head}:{number}", []).append(path)
    kernels, vectors, rules = [], [], {}
    for paths in groups.values():
        own = [p for p in paths if len(shapes[p]) >= 2]
        for path in paths:
            if len(shapes[path]) not in dims:
                said = f"wanted kernels and vectors, came shape {shapes[path]}"
                raise ValueError(f"tree: {path}: {said}")
        if len(own) > 1:
            raise ValueError(f"tree: {' and '.join(own)}: wanted one kernel a layer")
        rest = [p for p in paths if len(shapes[p]) == 1]
        if own:
            kernels.append((own[0], rest))
        else:
            vectors.append(rest)
    kernels.sort(key=lambda k: -min(len(shapes[k[0]]), 3))  # dense layers come last
    for (_, rest), norm in zip(
        kernels, [*vectors, *([[]] * len(kernels))], strict=False
    ):
        rest.extend(norm)
    if len(vectors) > len(kernels):
        raise ValueError(f"tree: {vectors[-1][0]}: wanted a kernel for each norm")
    before, width = "_", 0
    for i, (path, rest) in enumerate(kernels):
        *window, n_in, n_out = shapes[path]
        after = "_" if i == len(kernels) - 1 else f"hidden{i}"
        if width and n_in % width:
            said = (
                f"wanted a multiple of the {width} outputs before, came {n_in} inputs"
            )
            raise ValueError(f"tree: {path}: {said}")
        inside = before if n_in == width or not width else f"(_ {before})"
        rules[path] = " ".join([*["_"] * len(window), inside, after])
        for vector in rest:
            if shapes[vector] != (n_out,):
                said = f"wanted shape {(n_out,)} as {path}, came {shapes[vector]}"
                raise ValueError(f"tree: {vector}: {said}")
            rules[vector] = after
        before, width = after, n_out
    return labelled(rules, tree)


def _indexed(head: str, shapes: dict) -> bool:
    """Whether a container is one layer: it has one kernel."""
    own = [p for p in shapes if p.rpartition("/")[0] == head]
    return sum(len(shapes[p]) >= 2 for p in own) <= 1
