"""Three domains that every installation has: Python, English, C.

`python` is modules of the standard library, without docstrings and lines of comment;
`english` what those docstrings say, and the help topics of `pydoc`, the language
reference in plain text; `c` the headers of Python, numpy and jaxlib. A document is a
file or a topic; the order of documents is by a hash of their names, and the first of
each domain are held out, whole: the test, then what coefficients are chosen on.
"""

import ast
import hashlib
import importlib
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..config import Failed
from ..data import text as files
from ..data.packing import Documents, pack
from ..data.store import Parts, spread

NAMES = ("python", "english", "c")
TITLES = {"python": "Python", "english": "English", "c": "C"}
PARTS = 25  # no document is more than such a part of a domain: the rest is not read
SHORTEST = 200  # bytes
SHARES = {"test": 0.1, "valid": 0.05}  # of a domain's bytes; the rest is trained on
LEAST = 400  # bytes that a split must have
Named = tuple[str, bytes]


class Windows(NamedTuple):
    """Pieces of documents; each starts anew from byte 0, which no text has."""

    inputs: np.ndarray  # u8[windows, length]
    targets: np.ndarray  # u8[windows, length]
    mask: np.ndarray  # bool[windows, length]

    def some(self, wanted: int) -> "Windows":
        """About so many, evenly spaced."""
        chosen = spread(len(self.inputs), min(wanted, len(self.inputs)))
        return Windows(*(x[chosen] for x in self))

    def full(self) -> "Windows":
        """Those without padding; all, where there is none."""
        chosen = self.mask.all(1)
        return Windows(*(x[chosen] for x in self)) if chosen.any() else self


class Texts(NamedTuple):
    """The windows of each domain, as in NAMES, and what they are, for config.json."""

    train: list[Windows]
    valid: list[Windows]
    test: list[Windows]
    about: dict


def load(size: int, length: int) -> Texts:
    """At most `size` bytes of each domain, in windows of `length`."""
    modules = list(_modules(size))
    documents = {
        "python": [(name, code) for name, code, _ in modules],
        "english": [*_topics(), *((name, prose) for name, _, prose in modules)],
        "c": list(_headers()),
    }
    found: dict[str, list[Windows]] = {"train": [], "valid": [], "test": []}
    about = {}
    for name in NAMES:
        chosen = _chosen(documents[name], size)
        digest = hashlib.blake2b(digest_size=8)
        for title, content in chosen:
            digest.update(f"{title}\0{len(content)}\0".encode() + content)
        about[f"{name} documents"] = len(chosen)
        about[f"{name} bytes"] = sum(len(content) for _, content in chosen)
        about[f"{name} digest"] = digest.hexdigest()
        for part, own in split(chosen).items():
            if sum(len(content) for _, content in own) < LEAST:
                raise Failed(f"this Python has too little {TITLES[name]} text: {about}")
            found[part].append(cut([content for _, content in own], length))
    return Texts(found["train"], found["valid"], found["test"], about)


def split(documents: list[Named]) -> dict[str, list[Named]]:
    """Whole documents to test, valid and train."""
    sizes = np.cumsum([0, *(len(content) for _, content in documents)])
    total, begin, found = sizes[-1], 0, {}
    for part, share in SHARES.items():
        end = begin + int(np.searchsorted(sizes[begin:] - sizes[begin], share * total))
        found[part], begin = documents[begin:end], end
    return found | {"train": documents[begin:]}


def cut(contents: list[bytes], length: int) -> Windows:
    tokens = [np.frombuffer(content, np.uint8) for content in contents]
    stop = np.cumsum([len(x) for x in tokens])
    start = stop - [len(x) for x in tokens]
    documents = Documents(Parts.of(np.concatenate(tokens)), start, stop, 0)
    group = np.zeros(len(tokens), np.int32)
    (rows,) = pack(documents, group, 1, how="windows", length=length, classes=256)
    found = rows.store.take(rows.of(np.arange(len(rows))))
    inputs, targets = (found[name].astype(np.uint8) for name in ("inputs", "targets"))
    return Windows(inputs, targets, found["mask"])


def code_and_prose(source: str) -> tuple[str, str]:
    """A module without docstrings and lines of comment; and those docstrings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in the source
        tree = ast.parse(source)
    lines, said, left_out = source.split("\n"), [], set()
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, kinds) and (words := ast.get_docstring(node)):
            said.append((node.body[0].lineno, words))
            first, last = node.body[0].lineno, node.body[0].end_lineno or 0
            left_out.update(range(first - 1, last))
    kept = [
        line
        for i, line in enumerate(lines)
        if i not in left_out and not line.lstrip().startswith("#")
    ]
    prose = "\n\n".join(words for _, words in sorted(said))
    return "\n".join(kept).strip() + "\n", prose + "\n"


def _modules(size: int) -> Iterator[tuple[str, bytes, bytes]]:
    """(name, code, docstrings) of modules, until there is enough code."""
    root, total = files.library(), 0
    wanted = (path for path in root.rglob("*.py") if _is_read(path.relative_to(root)))
    for path in sorted(wanted, key=lambda path: place(path.relative_to(root))):
        try:
            code, prose = code_and_prose(path.read_text("utf-8"))
        except (OSError, SyntaxError, ValueError):
            continue  # templates, and encodings of old
        name = path.relative_to(root).as_posix()
        yield name, code.encode(), prose.encode()
        total += min(len(code), size // PARTS)
        if total > size:
            return


def _is_read(path: Path) -> bool:
    """No tables of characters, no topics, which are another domain's."""
    return files.is_library(path) and not {"encodings", "pydoc_data"} & set(path.parts)


def _topics() -> Iterator[Named]:
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except (ImportError, AttributeError):
        return  # some distributions leave them out
    for name, content in topics.items():
        yield f"topic {name}", content.encode()


def _headers() -> Iterator[Named]:
    import jaxlib

    roots = {
        "python": Path(sysconfig.get_path("include")),
        "numpy": Path(np.get_include()),
        "jaxlib": Path(jaxlib.__file__ or "").parent / "include",
    }
    for of, root in roots.items():
        for path in sorted(root.rglob("*.[ch]")) if root.is_dir() else ():
            yield f"{of}/{path.relative_to(root).as_posix()}", path.read_bytes()


def place(name: str | Path) -> bytes:
    """What documents are ordered by: their relative names alone."""
    words = name.as_posix() if isinstance(name, Path) else name
    return hashlib.blake2b(words.encode(), digest_size=8).digest()


def _chosen(documents: Iterable[Named], size: int) -> list[Named]:
    """In their order, as many as fit."""
    chosen, total = [], 0
    for name, content in sorted(documents, key=lambda document: place(document[0])):
        content = content[: size // PARTS]
        if len(content) < SHORTEST or b"\0" in content:
            continue
        if total + len(content) > size:
            break
        chosen.append((name, content))
        total += len(content)
    return chosen
