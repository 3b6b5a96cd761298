"""The benchmark of merging files, as small as it gets."""

import math

import pytest

from experiments import pages
from experiments.benchmarks import merging
from experiments.config import BadInput


def test_the_table_is_written_to_the_page(tmp_path):
    page = tmp_path / "page.md"
    config = merging.Config(
        width=4, layers=3, vocab=5, methods=("ties",), folder=tmp_path, docs=page
    )
    merging.main(config)
    begin, end = pages.markers(merging.PROGRAM)
    text = page.read_text().split(begin)[1].split(end)[0]
    rows = [line.split(" | ")[:4] for line in text.splitlines() if line[:2] == "| "]
    assert [row[1:3] for row in rows[2:]] == [
        ["ties", "2"],
        ["ties", "3"],
        ["ties", "2"],
        ["--dry-run", ""],
    ]
    assert list(tmp_path.iterdir()) == [page]


def test_what_runs(tmp_path):
    config = merging.Config(mergekit=tmp_path / "python", methods=("linear", "slerp"))
    found = [tuple(merge) for merge in merging.merges(config)]
    assert found == [
        ("jaxtricks", "linear", 2, 9),
        ("mergekit", "linear", 2, 9),
        ("jaxtricks", "slerp", 1, 9),
        ("mergekit", "slerp", 1, 9),
        ("jaxtricks", "linear", 3, 9),
        ("jaxtricks", "linear", 2, 3),
    ]
    assert merging.command(config, "mergekit")[1] == str(tmp_path / "mergekit-yaml")
    with pytest.raises(BadInput):
        merging.main(merging.Config(layers=0))


def test_the_size_of_the_default():
    shapes = merging.llama(1024, 9, 16000).values()
    assert sum(math.prod(shape) for shape in shapes) == 183_782_400
