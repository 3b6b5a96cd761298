"""YAML with the line of everything, so that what is wrong can be pointed at.

Only plain data: no tags that construct objects, no key twice, no endless aliases.
"""

from pathlib import Path
from typing import Any, NamedTuple

from ._tensors import MergeError

_LARGEST = 500_000  # characters of a recipe
_MOST = 100_000  # values, aliases written out
_DEEPEST = 50
_LONGEST = 100  # digits of a number: PyYAML's 1:2:3 takes their square in time
_TAG = "tag:yaml.org,2002:"


class Node(NamedTuple):
    """A value, the dotted key that leads to it, and where it stands."""

    value: Any  # None, bool, int, float, str, list of Nodes, dict of str to Node
    key: str
    line: int
    file: str

    def bad(self, what: str) -> MergeError:
        return MergeError(f"{self.file}:{self.line}: {self.key or 'recipe'}: {what}")

    def fields(self, *known: str) -> dict[str, "Node"]:
        """The entries of a map that has no others."""
        if not isinstance(self.value, dict):
            raise self.bad(f"wanted a map, came {self.plain()!r:.60}")
        for name, node in self.value.items():
            if name not in known:
                raise node.bad(f"unknown; wanted one of {', '.join(known)}")
        return {k: v for k, v in self.value.items() if v.value is not None}

    def wanted(self, fields: dict[str, "Node"], name: str) -> "Node":
        """The entry of that name; an error is this map's."""
        if name not in fields:
            raise self.bad(f"wanted {name}")
        return fields[name]

    def items(self) -> list["Node"]:
        if not isinstance(self.value, list) or not self.value:
            raise self.bad(f"wanted a list, came {self.plain()!r:.60}")
        return self.value

    def text(self) -> str:
        if not isinstance(self.value, str) or not self.value:
            raise self.bad(f"wanted text, came {self.plain()!r:.60}")
        return self.value

    def plain(self) -> Any:
        """The value without its places."""
        if isinstance(self.value, list):
            return [x.plain() for x in self.value]
        if isinstance(self.value, dict):
            return {k: v.plain() for k, v in self.value.items()}
        return self.value


def parse(text: str, file: str | Path) -> Node:
    """The document, or MergeError with file and line."""
    try:
        import yaml
    except ModuleNotFoundError:
        raise MergeError(
            "recipes need PyYAML: pip install 'jaxtricks[merging]'"
        ) from None
    if len(text) > _LARGEST:
        raise MergeError(f"{file}: {len(text)} characters are no recipe")
    try:
        root = yaml.compose(text, yaml.SafeLoader)
        if root is None:
            raise MergeError(f"{file}:1: the recipe is empty")
        return _Builder(yaml, str(file)).build(root, "", 0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        said = error.problem or error.context or "no YAML"
        if "another document" in said:
            said = "a second document begins: wanted one recipe a file"
        raise MergeError(f"{file}:{line}: {_one_line(said)}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        said = f"the character U+{int(error.character):04X} is no YAML"
        raise MergeError(f"{file}:{line}: {said}") from None
    except RecursionError:
        raise MergeError(f"{file}:1: nested too deep") from None


def _one_line(text: str) -> str:
    """What a user wrote, as part of a message."""
    text = " ".join(text.split())
    return text if text.isprintable() else ascii(text)


class _Builder:
    def __init__(self, yaml: Any, file: str):
        self._yaml, self._file, self._count = yaml, file, 0
        self._scalars = yaml.SafeLoader("")

    def build(self, node: Any, key: str, depth: int) -> Node:
        here = Node(None, key, node.start_mark.line + 1, self._file)
        self._count += 1
        if self._count > _MOST or depth > _DEEPEST:
            raise here.bad("nested too deep, or an alias of itself")
        if isinstance(node, self._yaml.MappingNode):
            self._plain(node, here, "map")
            return here._replace(value=self._map(node, here, depth))
        if isinstance(node, self._yaml.SequenceNode):
            self._plain(node, here, "seq")
            items = [
                self.build(x, f"{key}[{i}]", depth + 1)
                for i, x in enumerate(node.value)
            ]
            return here._replace(value=items)
        return here._replace(value=self._scalar(node, here))

    def _plain(self, node: Any, here: Node, kind: str) -> None:
        if node.tag != _TAG + kind:
            raise here.bad(f"the tag {_one_line(node.tag):.60} is not supported")

    def _scalar(self, node: Any, here: Node) -> Any:
        kind = node.tag.removeprefix(_TAG)
        if kind in ("int", "float") and len(node.value) > _LONGEST:
            raise here.bad(f"a number of {len(node.value)} digits")
        if kind not in ("null", "bool", "int", "float", "str", "timestamp", "value"):
            raise here.bad(f"the tag {_one_line(node.tag):.60} is not supported")
        if kind in ("timestamp", "value"):
            return node.value  # a date, and = by itself, are text here
        try:
            return self._scalars.construct_object(node)
        except (ValueError, KeyError):
            raise here.bad(f"{node.value!r:.40} is no {kind}") from None

    def _map(self, node: Any, here: Node, depth: int) -> dict[str, Node]:
        found: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for name, value in node.value:
            if name.tag == _TAG + "merge":
                other = self.build(value, here.key, depth + 1)
                for part in other.value if isinstance(other.value, list) else [other]:
                    if not isinstance(part.value, dict):
                        raise here.bad("<<: wanted a map")
                    merged = part.value | merged
                continue
            if not isinstance(name, self._yaml.ScalarNode):
                raise here.bad("a key is no text")
            said = _one_line(name.value)[:80]
            path = f"{here.key}.{said}" if here.key else said
            # What is wrong with a value is looked for beside its key.
            built = self.build(value, path, depth + 1)
            built = built._replace(line=name.start_mark.line + 1)
            if name.value in found:
                raise built.bad("stands twice")
            found[name.value] = built
        return merged | found
