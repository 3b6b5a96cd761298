"""A small folder of text for the tests of experiments: three domains and two groups."""

import random
from pathlib import Path

WORDS = [
    *["def", "return", "self", "import", "for", "in", "if", "else", "class"],
    *["None", "True", "x", "y", "value", "print"],
]

# Flags that make a run small enough to be killed and compared.
TINY = [
    *["--steps=40", "--batch-size=2", "--seq-len=16"],
    *["--d-model=8", "--layers=1", "--heads=1", "--mesh-data=1"],
    *["--valid-examples=8", "--valid-every=10", "--log-every=5"],
    *["--save-every=8", "--keep=3"],
]


def write(folder: Path) -> Path:
    """Files of words; the same every time."""
    words = random.Random(0)
    for top, count in {"alpha": 6, "beta": 6, "gamma": 4, "tiny": 1}.items():
        for i in range(count):
            path = folder / top / f"part{i}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            n = 5 if top == "tiny" else 300 + 20 * i
            path.write_text(" ".join(words.choice(WORDS) for _ in range(n)) + "\n")
    (folder / "alone.txt").write_text("one file by itself\n" * 9)
    (folder / "other.txt").write_text("and another one\n" * 9)
    return folder
