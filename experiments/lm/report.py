"""The result: one table, on the screen and in files, and two pictures."""

import math
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from .. import files
from ..runs import Run, number
from .config import ARMS, Demo

# Okabe and Ito's colours, which the colour-blind tell apart.
COLORS = ("#000000", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7")


def introduce(demo: Demo, dataset, baselines: dict, console: Console) -> None:
    """What is about to happen, and what counting reaches."""
    lines = [f"run   {demo.home}; killed, it continues when started again"]
    for name, about in zip(demo.data.data, dataset.about["sources"], strict=True):
        if "files" in about:
            size, held_out = about["bytes"] / 1e6, about["valid_bytes"] / 1e6
            files = f"{about['files']} files, {size:.1f} MB, {held_out:.2f} MB held out"
            lines.append(f"text  {name}: {files}")
    lines.append(f"      {len(dataset.domains)} domains: {', '.join(dataset.domains)}")
    counted = ", ".join(f"{k} {v['bits_per_byte']:.3f}" for k, v in baselines.items())
    if counted:
        lines.append(f"      {counted} bits/byte, by counting")
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def summary(done: dict[str, Run], baselines: dict, costs: dict) -> dict:
    """Everything that the table shows; what the clock measured is in "timing"."""
    results = {}
    for arm, run in done.items():
        bits = number(run.last.get("bits_per_byte"))
        results[arm] = result = {"bits_per_byte": bits, "domains": run.domains}
        if "adamw" in results:
            base = results["adamw"]["bits_per_byte"]
            result["vs_adamw"] = result["bits_per_byte"] - base
        if arm in costs:
            result["temp_bytes"] = costs[arm]["temp_bytes"]
            result["timing"] = {"train_s": run.rows[-1]["timing"]["train_s"]}
            result["timing"]["step_s"] = costs[arm]["step_s"]
            if "adamw" in costs:
                result["timing"]["step_vs_adamw"] = costs[arm]["step_vs"]["adamw"]
    counted = {name: dict(found) for name, found in baselines.items()}
    for result in (*results.values(), *counted.values()):
        result["worst_domain"] = max(result["domains"], key=result["domains"].get)
    return {"arms": results, "baselines": counted}


def publish(results: dict, done: dict[str, Run], home: Path, console: Console) -> None:
    """results.json, table.md, curves.png, domains.png, and the table on the screen."""
    head, rows, notes = table(results)
    files.write_json(home / "results.json", results)
    bars = ["---"] + ["---:"] * (len(head) - 1)
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, bars, *rows)]
    files.write(home / "table.md", "\n".join([*lines, "", *notes, ""]))
    files.write(home / "curves.png", lambda path: curves(results, done, path))
    files.write(home / "domains.png", lambda path: domains(results, path))
    shown = Table()
    for i, name in enumerate(head):
        shown.add_column(name, justify="right" if i else "left")
    for cells in rows:
        shown.add_row(*cells)
    console.print(shown)
    for note in (*notes, f"Tables, pictures and checkpoints are in {home}."):
        console.print(note, soft_wrap=True, markup=False)


def table(results: dict) -> tuple[list[str], list[list[str]], list[str]]:
    """Column names, rows, and the sentences below."""
    arms, baselines = results["arms"], results["baselines"]
    head = ["arm", "bits/byte", "vs adamw", "worst domain", "step", "temp MB"]
    rows = []
    for name, result in {**arms, **baselines}.items():
        timing, worst = result.get("timing", {}), result["worst_domain"]
        rows.append(
            [
                name,
                f"{result['bits_per_byte']:.3f}",
                f"{result['vs_adamw']:+.3f}" if "vs_adamw" in result else "",
                f"{worst} {result['domains'][worst]:.3f}",
                f"{timing['step_vs_adamw']:.2f}x" if "step_vs_adamw" in timing else "",
                f"{result['temp_bytes'] / 1e6:.1f}" if "temp_bytes" in result else "",
            ]
        )
    base = arms.get("adamw", {}).get("timing")
    base = f" {base['step_s'] * 1e3:.1f} ms" if base else ""
    notes = [
        "bits/byte: on held-out files, each domain by its share of the text; one seed.",
        f"step: time relative to adamw's{base}, the median over rounds in which all "
        "arms took turns.",
        "temp: peak temporary memory of the compiled step.",
    ]
    finite = [arm for arm in arms if math.isfinite(arms[arm]["bits_per_byte"])]
    best = min(finite or arms, key=lambda arm: arms[arm]["bits_per_byte"])
    if "bigram" in baselines:
        below = baselines["bigram"]["bits_per_byte"] - arms[best]["bits_per_byte"]
        notes.append(
            f"The best, {best}, is {abs(below):.3f} bits/byte "
            f"{'below' if below > 0 else 'above'} the bigram baseline."
        )
    tricks = [arm for arm in arms if arm != "adamw"]
    useless = [arm for arm in tricks if not arms[arm].get("vs_adamw", -1) < 0]
    if useless:
        notes.append(f"No better than adamw at this size: {', '.join(useless)}.")
    return head, rows, notes


def curves(results: dict, done: dict[str, Run], path: Path) -> None:
    """Validation bits per byte against updates and against time."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    by_step, by_time = figure.subplots(1, 2, sharey=True)
    for arm in results["arms"]:
        rows = done[arm].evaluations
        bits = [row["valid"]["bits_per_byte"] for row in rows]
        look = {
            "color": COLORS[ARMS.index(arm)],
            "label": arm,
            "marker": "o",
            "ms": 3,
        }
        if arm == "average":
            look |= {"marker": "*", "ms": 11, "ls": "none", "zorder": 5}
        steps = [row["step"] for row in rows]
        by_step.plot(steps, bits, **look)
        source = "all" if arm == "average" else arm
        timed = done[source].evaluations[-len(rows) :]
        by_time.plot([row["timing"]["train_s"] for row in timed], bits, **look)
    bigram = results["baselines"].get("bigram")
    for axes in (by_step, by_time):
        if bigram:
            look = {"color": "gray", "ls": "--", "lw": 1, "label": "bigram"}
            axes.axhline(bigram["bits_per_byte"], **look)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    by_step.set(xlabel="updates", ylabel="validation bits per byte")
    by_time.set(xlabel="training time (s), compilation and evaluation left out")
    handles, labels = by_step.get_legend_handles_labels()
    look = {"ncols": len(labels), "frameon": False}
    figure.legend(handles, labels, loc="outside upper center", **look)
    figure.savefig(path, dpi=150, format="png")


def domains(results: dict, path: Path) -> None:
    """Validation bits per byte of each domain, a bar per arm."""
    arms = results["arms"]
    bigram = results["baselines"].get("bigram", {}).get("domains", {})
    seen = next(iter(arms.values()))["domains"]
    hardest = {d: max(a["domains"][d] for a in arms.values()) for d in seen}
    names = sorted(hardest, key=hardest.get, reverse=True)
    size = (max(6.5, 1.5 + 0.85 * len(names)), 4.4)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(arms)
    for i, (arm, result) in enumerate(arms.items()):
        places = [x + (i - (len(arms) - 1) / 2) * width for x in range(len(names))]
        heights = [result["domains"][name] for name in names]
        axes.bar(places, heights, width, label=arm, color=COLORS[ARMS.index(arm)])
    for x, name in enumerate(names if bigram else []):
        look = {"color": "gray", "ls": "--", "label": "bigram" if x == 0 else None}
        axes.hlines(bigram[name], x - 0.42, x + 0.42, **look)
    axes.set_xticks(range(len(names)), names, rotation=20, ha="right")
    axes.margins(x=0.01)
    axes.set_ylabel("validation bits per byte")
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(arms) + 1, frameon=False)
    figure.savefig(path, dpi=150, format="png")
