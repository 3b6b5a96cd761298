"""What programs write into pages of the documentation."""

import pytest

from experiments import pages
from experiments.config import Failed


def test_the_page_between_its_markers(tmp_path):
    path = tmp_path / "page.md"
    begin, end = pages.markers("a.program")
    path.write_text("# Title\n\nText.\n")
    pages.insert(path, "a.program", "one")
    assert path.read_text().startswith("# Title\n\nText.\n\n<!--")
    path.write_text(path.read_text() + "\nMore.\n")
    pages.insert(path, "a.program", "two")
    text = path.read_text()
    assert "one" not in text
    assert text.count(begin) == text.count(end) == 1
    assert text.endswith(f"two\n\n{end}\n\nMore.\n")
    path.write_text(f"a {end}")
    with pytest.raises(Failed, match="one of its two markers"):
        pages.insert(path, "a.program", "three")
