"""What a program writes into a page of the documentation, between two markers."""

from pathlib import Path

from . import files
from .config import Failed


def markers(program: str) -> tuple[str, str]:
    """The comments around what `python -m program` writes."""
    begin, end = (f"<!-- python -m {program}: {word} -->" for word in ("begin", "end"))
    return begin, end


def insert(path: Path, program: str, text: str) -> None:
    """Between the markers of a page, or at its end with them."""
    begin, end = markers(program)
    whole = path.read_text() if path.exists() else ""
    block = f"{begin}\n\n{text}\n\n{end}"
    if begin in whole and end in whole:
        before, rest = whole.split(begin, 1)
        after = rest.split(end, 1)[1]
        whole = f"{before}{block}{after}"
    elif begin in whole or end in whole:
        raise Failed(f"{path}: has one of its two markers alone: {begin} {end}")
    else:
        whole = f"{whole.rstrip()}\n\n{block}\n".lstrip()
    files.write(path, whole)
