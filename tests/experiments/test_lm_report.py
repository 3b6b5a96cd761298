"""The table and the pictures: what they say, also when a trick does not help."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from experiments.lm import report
from experiments.runs import Run

BASELINES = {
    "unigram": {"loss": 3.0, "bits_per_byte": 4.0, "domains": {"a": 4.5, "b": 3.5}},
    "bigram": {"loss": 2.0, "bits_per_byte": 3.0, "domains": {"a": 2.5, "b": 3.5}},
}
FINAL = {"adamw": 2.5, "wsd": 2.4, "sam": 2.6, "all": 2.45, "average": float("nan")}


def published(tmp_path, arms, baselines=BASELINES):
    """results.json and the screen of a demo that ended like FINAL."""
    done, costs = {}, {}
    for i, arm in enumerate(arms):
        valid = {"bits_per_byte": FINAL[arm], "domains": {"a": 2.0, "b": FINAL[arm]}}
        row = {"step": 10, "valid": valid, "timing": {"train_s": 1.0 + i}}
        if arm != "average":
            turns = {other: (i + 1) / (j + 1) for j, other in enumerate(arms)}
            costs[arm] = {"temp_bytes": 2_500_000, "step_s": 0.01, "step_vs": turns}
        done[arm] = Run(arm, Path(arm), {}, {}, [row], True)
    results = report.summary(done, baselines, costs)
    console = Console(width=80, record=True, force_terminal=False)
    report.publish(results, done, tmp_path, console)
    return results, console.export_text()


def cells(screen, arm):
    line = next(line for line in screen.split("\n") if line.startswith(f"│ {arm} "))
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_the_table_fits_80_columns_and_says_what_does_not_help(tmp_path):
    _, screen = published(tmp_path, tuple(FINAL))
    assert max(map(len, screen.split("┘")[0].split("\n"))) <= 80
    wanted = ["adamw", "2.500", "+0.000", "b 2.500", "1.00x", "2.5"]
    assert cells(screen, "adamw") == wanted
    assert cells(screen, "sam") == ["sam", "2.600", "+0.100", "b 2.600", "3.00x", "2.5"]
    assert cells(screen, "average")[4:] == ["", ""]
    assert cells(screen, "bigram") == ["bigram", "3.000", "", "b 3.500", "", ""]
    assert cells(screen, "unigram") == ["unigram", "4.000", "", "a 4.500", "", ""]
    assert "The best, wsd, is 0.600 bits/byte below the bigram baseline." in screen
    assert "No better than adamw at this size: sam, average." in screen
    table = (tmp_path / "table.md").read_text().split("\n")
    assert table[0].startswith("| arm | bits/byte | vs adamw | worst domain | step |")
    assert table[2] == "| " + " | ".join(wanted) + " |"
    json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)


def test_without_adamw_nothing_is_relative(tmp_path):
    results, screen = published(tmp_path, ("wsd", "all"), {})
    assert "vs_adamw" not in results["arms"]["wsd"]
    assert cells(screen, "wsd") == ["wsd", "2.400", "", "b 2.400", "", "2.5"]
    assert "No better" not in screen
    assert "bigram" not in screen


@pytest.mark.parametrize("name", ["curves.png", "domains.png"])
def test_the_pictures_are_there(tmp_path, name):
    published(tmp_path, ("adamw", "all"))
    assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".*"))
