"""docs/metagrad.md and docs/learned.md name what is there, and all of it."""

import pathlib
import re

from jaxtricks import metagrad

DOCS = pathlib.Path(__file__).parents[2] / "docs"
TEXT = "".join((DOCS / name).read_text() for name in ("metagrad.md", "learned.md"))


def test_every_function_is_on_the_page_and_every_name_is_public():
    named = set(re.findall(r"(?<!benchmarks\.)\bmetagrad\.(\w+)", TEXT))
    assert named - {"md"} <= set(metagrad.__all__)
    functions = {name for name in metagrad.__all__ if name[0].islower()}
    assert functions <= named
