"""The benchmark of meta-gradients, on a problem that is small enough for a test."""

import subprocess
import sys

import pytest

from tests.experiments import processes

SMALL = (
    *("--steps", "8", "--timed", "9", "--rounds", "1", "--examples", "16"),
    *("--batch-size", "4", "--width", "8", "--deep", "2", "4", "2"),
    *("--disk-steps", "80", "--segment", "8"),
)


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_its_tables_go_between_the_markers(tmp_path):
    page = tmp_path / "page.md"
    mark = "<!-- python -m experiments.benchmarks.metagrad: {} -->"
    begin, end = mark.format("begin"), mark.format("end")
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    words = ("-m", "experiments.benchmarks.metagrad", *SMALL, "--docs", page)
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=processes.ROOT,
        env=processes.environment(devices=1),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert text.startswith(f"before\n{begin}\n\n")
    assert text.endswith(f"\n\n{end}\nafter\n")
    assert "old" not in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    policies = {row[0].strip("| `"): row for row in rows[:5]}
    for name, row in policies.items():
        farthest, counted, planned = row[4:7]
        assert float(farthest) < 1e-5, name
        assert counted == planned, name
    assert policies["none"][5] == "9"
    assert policies["step"][5] == "18"
    said = [line for line in text.splitlines() if line.endswith("equal |")]
    assert len(said) == 2  # resumed, and called again
    assert "| called again | 0 | equal |" in said
