"""The page that compares runs: one file without scripts, which asks for nothing else.

All that runs wrote is escaped, and the page's own policy forbids scripts and requests.
"""

import datetime
import json
import math
from collections.abc import Sequence
from html import escape

from . import pictures
from .runs import Group, Metric, Run, clean, domain_unit, interval, now

DARK = ("var(--ink)", "#4ea3dc", "#2bc295", "#f0b33a", "#f08040", "#e09cc4", "#8acdf2")


def page(compared: list[Group], summary, metric: Metric) -> str:
    """The whole text of the file."""
    runs = [run for group in compared for run in group.runs]
    title = f"{len(runs)} run{'s' * (len(runs) != 1)} compared"
    at = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    sections = [
        _section("Results", _results(compared, summary)),
        _section("Curves", _curves(compared, metric)),
        _section("Domains", _domains(compared, metric)),
        _section("Config", _differences(runs, [run.config for run in runs], "flag")),
        _section("Environment", _differences(runs, [run.env for run in runs], "what")),
        _section("Folders", _folders(runs)),
    ]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{_style()}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p class="small">Written {at} by <code>python -m experiments.compare</code>.</p>
{"".join(sections)}</main>
</body>
</html>
"""


def _results(compared: list[Group], summary) -> str:
    rows = [
        [_swatch(i) + escape(cells[0]), *map(escape, cells[1:])]
        for i, cells in enumerate(summary.rows)
    ]
    notes = "".join(f"<p>{escape(note)}</p>\n" for note in summary.notes)
    return _table(summary.head, rows, "Newest validation of each run", key="n") + notes


def _curves(compared: list[Group], metric: Metric) -> str:
    if not any(group.curve(metric.key) for group in compared):
        said = "<p>No run has an evaluation yet.</p>"
    else:
        several = any(len(group.runs) > 1 for group in compared)
        band = " Bands reach from the lowest to the highest seed." if several else ""
        title = (
            f"Validation {metric.label} of each run against updates and against time"
        )
        said = _figure(
            pictures.svg(
                "curves",
                title,
                (10, 4.0),
                lambda figure: pictures.curves(figure, compared, metric),
            ),
            f"Validation {metric.label} after as many updates (left) or as much "
            f"training time (right); {_way(metric)} is better.{band}",
            compared,
        )
    if any(group.curve("loss", evaluations=False) for group in compared):
        drawn = pictures.svg(
            "training",
            "Training loss of each run against updates",
            (10, 3.2),
            lambda figure: pictures.training(figure, compared),
        )
        said += _figure(drawn, "Training loss as logged.", compared)
    return said


def _domains(compared: list[Group], metric: Metric) -> str:
    values = [group.domains() for group in compared]
    names = pictures.hardest(values)
    if not names:
        return "<p>No run has domains.</p>"
    size, unit = (10, 3.6), domain_unit(metric)
    drawn = pictures.svg(
        "domains",
        f"Validation {unit} of each domain, a bar per run",
        size,
        lambda figure: pictures.domains(figure, compared, metric),
    )
    every = sorted({name for group in values for name in group})
    caption = f"Newest validation {unit} in each domain, the hardest first."
    if any(len(group.runs) > 1 for group in compared):
        caption += " Grey lines reach from the lowest to the highest seed."
    if len(every) > len(names):
        caption += f" The {len(names)} hardest of {len(every)}; all are below."
    rows = []
    for name in [*names, *(name for name in every if name not in names)]:
        cells = []
        for group in values:
            known = [v for v in group.get(name, []) if math.isfinite(v)]
            mean, half = interval(known)
            said = f"{mean:.3f}" if known else "-"
            cells.append(said + (f" ± {half:.3f}" if math.isfinite(half) else ""))
        rows.append([escape(name), *map(escape, cells)])
    head = ["domain", *(group.name for group in compared)]
    numbers = _table(head, rows, f"Newest validation {unit} by domain", key="n")
    return _figure(drawn, caption, compared) + _details("In numbers", numbers)


def _differences(runs: Sequence[Run], values: Sequence[dict], what: str) -> str:
    """What differs between runs, and all of it folded."""
    flat = [_flatten(value) for value in values]
    keys = list(dict.fromkeys(key for value in flat for key in value))
    texts = {key: [_text(value.get(key, _NONE)) for value in flat] for key in keys}
    differ = [key for key in keys if len(set(texts[key])) > 1]
    head = [what, *(run.name for run in runs)]

    def rows(chosen):
        return [
            [f"<code>{escape(key)}</code>", *map(escape, texts[key])] for key in chosen
        ]

    if len(runs) == 1:
        return _table(head, rows(keys), "")
    said = "<p>The same for all runs.</p>\n"
    if differ:
        said = _table(head, rows(differ), "Where the runs differ")
    same = [key for key in keys if key not in differ]
    alike = [[f"<code>{escape(key)}</code>", escape(texts[key][0])] for key in same]
    if alike:
        label = f"The same for all ({len(alike)})"
        said += _details(label, _table([what, "all runs"], alike, ""))
    return said


def _folders(runs: Sequence[Run]) -> str:
    time = now()
    rows = []
    for run in runs:
        where = f"<code>{escape(clean(str(run.home)))}</code>"
        seed = _text(run.config.get("seed", _NONE))
        rows.append([escape(run.name), where, escape(seed), escape(run.progress(time))])
    return _table(["run", "folder", "seed", "steps"], rows, "")


_NONE = object()


def _flatten(value: dict, prefix: str = "") -> dict:
    flat = {}
    for key, inner in value.items():
        name = clean(f"{prefix}{key}")
        if isinstance(inner, dict) and inner:
            flat |= _flatten(inner, f"{name}.")
        else:
            flat[name] = inner
    return flat


def _text(value) -> str:
    if value is _NONE:
        return "-"
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        return clean(" ".join(value)) or "none"
    return clean(json.dumps(value))


def _way(metric: Metric) -> str:
    return "higher" if metric.higher else "lower"


def _swatch(i: int) -> str:
    """The run's line, as the pictures draw it."""
    _, dashes, _ = pictures.look(i)
    style = {"-": "solid", "--": "dashed", ":": "dotted", "-.": "double"}[dashes]
    color = f"var(--run{i % len(pictures.COLORS)})"
    return f'<span class="swatch" style="border-top: 4px {style} {color}"></span>'


def _section(title: str, body: str) -> str:
    name = title.lower()
    return (
        f'<section aria-labelledby="{name}-title">\n'
        f'<h2 id="{name}-title">{title}</h2>\n{body}</section>\n'
    )


def _figure(drawn: str, caption: str, compared: list[Group]) -> str:
    items = "".join(
        f"<li>{_swatch(i)}{escape(group.name)}</li>" for i, group in enumerate(compared)
    )
    return (
        f'<figure>\n<ul class="legend" aria-label="Runs">{items}</ul>\n{drawn}\n'
        f"<figcaption>{escape(caption)}</figcaption>\n</figure>\n"
    )


def _details(label: str, body: str) -> str:
    return f"<details><summary>{escape(label)}</summary>\n{body}</details>\n"


def _table(
    head: Sequence[str], rows: Sequence[Sequence[str]], caption: str, key=""
) -> str:
    """Cells are HTML already; the first of a row is its heading. `key` "n": numbers."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = []
    for first, *cells in rows:
        rest = "".join(f"<td>{cell}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row">{first}</th>{rest}</tr>\n')
    titled = f"<caption>{escape(caption)}</caption>" if caption else ""
    look = ' class="numbers"' if key else ""
    return (
        '<div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escape(caption or head[0])}">'
        f"<table{look}>{titled}\n<thead><tr>{top}</tr></thead>\n"
        f"<tbody>\n{''.join(lines)}</tbody></table></div>\n"
    )


def _style() -> str:
    light = ("var(--ink)", *pictures.COLORS[1:])
    light = "; ".join(f"--run{i}: {c}" for i, c in enumerate(light))
    dark = "; ".join(f"--run{i}: {c}" for i, c in enumerate(DARK))
    return f"""
:root {{ color-scheme: light dark; --page: #ffffff; --ink: #1b1b1b; --soft: #5a5a5a;
  --edge: #d9d9d9; --band: #f5f5f5; {light} }}
@media (prefers-color-scheme: dark) {{ :root {{ --page: #16181b; --ink: #e8e8e8;
  --soft: #a8a8a8; --edge: #3a3d42; --band: #1f2226; {dark} }} }}
@media print {{ :root {{ --page: #ffffff; --ink: #000000; --soft: #444444;
  --edge: #bbbbbb; --band: #ffffff; {light} }}
  section, figure, tr {{ break-inside: avoid }} .scroll {{ overflow: visible }} }}
* {{ box-sizing: border-box }}
body {{ margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif }}
main {{ max-width: 72rem; margin: 0 auto; padding: 1.5rem 1rem 3rem }}
h1 {{ font-size: 1.6rem; margin: 0 0 .25rem }}
h2 {{ font-size: 1.2rem; margin: 2.25rem 0 .5rem }}
p {{ margin: .25rem 0 }}
.small, figcaption, caption {{ color: var(--soft); font-size: .875rem }}
.scroll {{ overflow-x: auto; margin: .5rem 0 1rem }}
table {{ border-collapse: collapse; font-size: .9375rem }}
caption {{ text-align: left; padding: .25rem 0 }}
th, td {{ padding: .3rem .75rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--edge); overflow-wrap: anywhere; min-width: 4rem }}
thead th {{ border-bottom: 2px solid var(--soft) }}
tbody th {{ font-weight: 500 }}
tbody th code {{ overflow-wrap: normal }}
table:not(.numbers) :is(th, td) {{ min-width: 8rem }}
.numbers tbody th {{ min-width: min(12rem, 40vw) }}
tbody tr:nth-child(even) {{ background: var(--band) }}
.numbers td, .numbers thead th:not(:first-child) {{ text-align: right;
  font-variant-numeric: tabular-nums; white-space: nowrap }}
code {{ font: .875em ui-monospace, "DejaVu Sans Mono", monospace }}
figure {{ margin: 1rem 0 1.5rem }}
figure svg {{ display: block; width: 100%; height: auto; fill: var(--ink) }}
figure svg .tip:hover {{ opacity: .6 }}
.legend {{ display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 0; padding: 0;
  list-style: none; font-size: .875rem; overflow-wrap: anywhere }}
.swatch {{ display: inline-block; width: 1.75em; margin-right: .5em;
  vertical-align: .25em }}
details {{ margin: .5rem 0 }}
summary {{ cursor: pointer; color: var(--soft) }}
"""
