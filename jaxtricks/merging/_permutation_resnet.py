"""The permutation spec of a ResNet: what a stage's blocks add up is one stream."""

import re
from math import gcd

import jax.numpy as jnp
from jaxtyping import PyTree

from ._permutation import by_path, labelled, natural

_LEAVES = ("kernel", "weight", "bias", "scale", "mean", "var", "w", "b")
_SKIP = r"skip|shortcut\w*|downsample\w*|proj\w*|(conv|norm)_proj"
_NORM = r".*norm.*|bn\w*|ln\w*|gn\w*"

Shapes = dict[str, tuple[int, ...]]  # path -> shape
Layers = dict[str, Shapes]  # a layer's name -> its leaves


def resnet_permutation_spec(
    tree: PyTree, *, groups: int | None = None, preactivation: bool | None = None
) -> PyTree:
    """The permutation spec of a ResNet; the blocks of a stage share a stream.

    Args:
      tree: the parameters, by the names of their leaves. A block is a container of two
        or more convolutions, in the order of their names (first and second, conv1 ...,
        Conv_0 ...), with norms, and a skip (shortcut, downsample, conv_proj, ...) where
        a stream ends and the next begins; outside are the stem, norms and one dense
        head. Kernels are [height, width, in, out], those called "weight"
        [out, in, height, width].
      groups: of the norms: gcd(channels, groups) of them; channels then move with
        their group, and within it. None: norms of single channels, or of all.
      preactivation: whether a block's norms stand before its convolutions (static).
        None: if they are called norm_in and norm_mid.
    Returns:
      A pytree like `tree` of strings, names "stream0", "stream1", ... for the stages,
      "inner0", ... for the blocks, and "stream0/channel" within groups.
    Gradient: none.
    Cost: none; on the host.
    Raises: ValueError for other parameters, with the path.
    Source: Ainsworth et al., "Git Re-Basin: Merging Models modulo Permutation
      Symmetries", 2022, arXiv:2209.04836, app. A. Differs: norms of groups.
    Example:
      >>> kernel = lambda *shape: {"kernel": jnp.ones(shape)}
      >>> block = {"first": kernel(3, 3, 4, 4), "second": kernel(3, 3, 4, 4)}
      >>> tree = {"stem": kernel(3, 3, 1, 4), "blocks": [block], "head": kernel(4, 2)}
      >>> resnet_permutation_spec(tree)["blocks"][0]["first"]
      {'kernel': '_ _ stream0 inner0'}
    """
    homes = _homes({path: jnp.shape(leaf) for path, leaf in by_path(tree).items()})
    blocks = [home for home, own in homes.items() if len(_convolutions(own)) > 1]
    outside = {
        "/".join([*home, name]): leaves
        for home, own in homes.items()
        if home not in blocks
        for name, leaves in own.items()
    }
    stems = _convolutions(outside)
    if len(stems) != 1:
        said = f"one convolution before the blocks, came {', '.join(stems) or 'none'}"
        raise ValueError(f"tree: wanted {said}: trace the model with permutation_spec")
    stage = 0
    stream = start = _axis("stream0", _outputs(outside[stems[0]]), groups)
    rules = _rules(outside[stems[0]], "_", start)
    for i, home in enumerate(blocks):
        own, before = homes[home], stream
        names = _convolutions(own)
        skips = [name for name in own if _is_skip(name)]
        if skips:
            stage += 1
            stream = _axis(f"stream{stage}", _outputs(own[names[-1]]), groups)
        inner = [
            _axis(f"inner{i}" + (f".{k}" if k else ""), _outputs(own[name]), groups)
            for k, name in enumerate(names[:-1])
        ]
        chain = [before, *inner, stream]
        for k, name in enumerate(names):
            rules |= _rules(own[name], chain[k], chain[k + 1])
        norms = sorted((k for k in own if _is_norm(k)), key=natural)
        first = preactivation
        if first is None:
            first = any(re.fullmatch("norm_(in|mid)", name) for name in norms)
        for k, name in enumerate(norms):
            place = chain[min(k + (not first), len(names))]
            rules |= _rules(own[name], "_", place)
        for name in skips:
            rules |= _rules(own[name], before, stream)
    for name, leaves in outside.items():
        if _is_norm(name):
            # Numbered, it is the stem's, as in conv1, bn1; else it ends the stream.
            stem = re.search(r"stem|init|[01]$", name)
            rules |= _rules(leaves, "_", start if stem else stream)
        elif any(len(shape) == 2 for shape in leaves.values()):
            rules |= _rules(leaves, stream, "_")
    return labelled(rules, tree)


def _homes(shapes: Shapes) -> dict[tuple[str, ...], Layers]:
    """Container -> layer -> its leaves, in the order of the containers' names."""
    found: dict[tuple[str, ...], Layers] = {}
    for path in sorted(shapes, key=natural):
        words = path.replace(".", "/").split("/")
        if len(words) > 1 and re.fullmatch(
            "|".join(_LEAVES) + r"|running_\w+", words[-1]
        ):
            words.pop()
        # What lies in a skip belongs to its block.
        skip = (k for k, word in enumerate(words) if re.fullmatch(_SKIP, word))
        at = next(skip, len(words) - 1)
        layer = found.setdefault(tuple(words[:at]), {}).setdefault(
            "/".join(words[at:]), {}
        )
        layer[path] = shapes[path]
    return found


def _convolutions(layers: Layers) -> list[str]:
    """But for skips, in the order of their names."""
    names = [
        name
        for name, leaves in layers.items()
        if not _is_skip(name) and any(len(shape) > 2 for shape in leaves.values())
    ]
    return sorted(names, key=natural)


def _is_skip(name: str) -> bool:
    return re.fullmatch(_SKIP, name.split("/")[0]) is not None


def _is_norm(name: str) -> bool:
    last = name.split("/")[-1].lower()
    return not _is_skip(name) and re.fullmatch(_NORM, last) is not None


def _outputs(leaves: Shapes) -> int:
    path, shape = next((p, s) for p, s in leaves.items() if len(s) > 2)
    return shape[0] if path.endswith("weight") else shape[-1]


def _axis(name: str, size: int, groups: int | None) -> str:
    parts = gcd(size, groups) if groups else size
    return name if parts in (1, size) else f"({name}={parts} {name}/channel)"


def _rules(leaves: Shapes, into: str, out: str) -> dict[str, str]:
    """The labels of one layer's leaves."""
    rules = {}
    for path, shape in leaves.items():
        if len(shape) < 2:
            rules[path] = out if shape else "..."
            continue
        window = ["_"] * (len(shape) - 2)
        turned = path.endswith("weight")
        rules[path] = " ".join([out, into, *window] if turned else [*window, into, out])
    return rules
