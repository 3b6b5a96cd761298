"""Pictures of runs: validation against steps and time, and per domain."""

import contextlib
import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from html import escape

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from .runs import Group, Metric

# Okabe and Ito's colours, which the colour-blind tell apart. The first is the ink,
# which is light on a dark page.
COLORS = ("#000000", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#56B4E9")
DASHES = ("-", "--", ":", "-.")
HATCHES = ("", "///", "...", "xxx")
MOST_DOMAINS, MOST_BARS = 16, 96
STYLE = {
    "text.parse_math": False,  # names are no formulas
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "figure.facecolor": "white",
}


def look(i: int) -> tuple[str, str, str]:
    """Colour, dashes and hatch of the i-th run; no two alike before 28."""
    turn = i // len(COLORS) % len(DASHES)
    return COLORS[i % len(COLORS)], DASHES[turn], HATCHES[turn]


def curves(figure: Figure, groups: Sequence[Group], metric: Metric) -> None:
    """Two panels: validation against steps, and against training time."""
    points = [group.curve(metric.key) for group in groups]
    by_step, by_time = figure.subplots(1, 2, sharey=True)
    times = [p["time"] for curve in points for p in curve if math.isfinite(p["time"])]
    unit, seconds = _unit(max(times, default=0.0))
    for i, curve in enumerate(points):
        name, several = groups[i].name, len(groups[i].runs) > 1
        for axes, x in ((by_step, "step"), (by_time, "time")):
            part = seconds if x == "time" else 1
            shown = [p for p in curve if math.isfinite(p[x])]
            _line(axes, i, [p[x] / part for p in shown], shown, metric.scale, name)
            if several:
                low, high = (
                    [metric.scale * p[k] for p in shown] for k in ("low", "high")
                )
                xs = [p[x] / part for p in shown]
                axes.fill_between(xs, low, high, color=look(i)[0], alpha=0.15, lw=0)
    by_step.set(xlabel="updates", ylabel=f"validation {_axis(metric)}")
    by_time.set(xlabel=f"training time ({unit}), compilation and evaluation left out")
    means = [metric.scale * p["mean"] for curve in points for p in curve]
    for axes in (by_step, by_time):
        _dress(axes, means, log=not metric.higher)


def training(figure: Figure, groups: Sequence[Group], key: str = "loss") -> None:
    """One panel: the loss of the training steps."""
    axes, means = figure.subplots(), []
    for i, group in enumerate(groups):
        curve = group.curve(key, evaluations=False)
        _line(axes, i, [p["step"] for p in curve], curve, 1.0, group.name, marks=False)
        means += [p["mean"] for p in curve]
    axes.set(xlabel="updates", ylabel="training loss")
    _dress(axes, means, log=True)


def domains(figure: Figure, groups: Sequence[Group], metric: Metric) -> None:
    """One panel: the newest validation of each domain, a bar per run."""
    axes = figure.subplots()
    values = [group.domains() for group in groups]
    names = hardest(values)
    width = 0.8 / len(groups)
    for i, group in enumerate(groups):
        color, _, hatch = look(i)
        for x, name in enumerate(names):
            known = [v for v in values[i].get(name, []) if math.isfinite(v)]
            if not known:
                continue
            place = x + (i - (len(groups) - 1) / 2) * width
            mean = sum(known) / len(known)
            bar = axes.bar(
                place, mean, width, color=color, hatch=hatch, ec="white", lw=0
            )
            bar[0].set_gid(f"tip:{group.name}, {name}: {mean:.3f}")
            if len(known) > 1:
                spread = {"colors": "#808080", "lw": 1.5, "zorder": 3}
                axes.vlines(place, min(known), max(known), **spread)
    turned = {"rotation": 25, "ha": "right"} if len(names) > 4 else {}
    axes.set_xticks(range(len(names)), names, **turned)
    axes.margins(x=0.01)
    unit = "bits per byte" if metric.key == "bits_per_byte" else "loss"
    axes.set_ylabel(f"validation {unit}")
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def hardest(values: Sequence[dict[str, list[float]]]) -> list[str]:
    """The domains, highest mean of any group first; not more than fit a picture."""
    worst = {}
    for group in values:
        for name, each in group.items():
            known = [v for v in each if math.isfinite(v)]
            mean = sum(known) / len(known) if known else -math.inf
            worst[name] = max(worst.get(name, mean), mean)
    room = max(4, min(MOST_DOMAINS, MOST_BARS // max(1, len(values))))
    return sorted(worst, key=lambda name: -worst[name])[:room]


def legend(figure: Figure, groups: Sequence[Group]) -> None:
    """Above the panels; as many rows as the names need."""
    handles = []
    for i in range(len(groups)):
        color, dashes, _ = look(i)
        handles.append(
            matplotlib.lines.Line2D([], [], color=color, ls=dashes, marker="o", ms=3)
        )
    labels = [short(group.name, 40) for group in groups]
    # A name that begins with _ would be left out.
    labels = ["\u200b" + name if name.startswith("_") else name for name in labels]
    room = int(figure.get_size_inches()[0] * 11)  # letters in a row, roughly
    columns = max(1, min(len(labels), room // (max(map(len, labels)) + 6)))
    figure.legend(
        handles, labels, loc="outside upper center", ncols=columns, frameon=False
    )


def short(name: str, most: int) -> str:
    """The name, its middle left out where it is long."""
    if len(name) <= most:
        return name
    half = (most - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def png(path, groups: Sequence[Group], metric: Metric) -> None:
    """All in one picture: both curves, and below them the domains, if there are any."""
    with _styled():
        below = bool(hardest([group.domains() for group in groups]))
        figure = Figure(figsize=(10, 8 if below else 4.4), layout="constrained")
        if below:
            upper, lower = figure.subfigures(2, 1, height_ratios=(1.1, 1))
            domains(lower, groups, metric)
        else:
            upper = figure.subfigures(1, 1)
        curves(upper, groups, metric)
        legend(figure, groups)
        figure.savefig(path, dpi=150, format="png")


def svg(
    name: str, title: str, size: tuple[float, float], draw: Callable[[Figure], None]
) -> str:
    """An <svg> to stand in a page, with the page's colours; `name` is for its ids."""
    with _styled(), matplotlib.rc_context({"svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(  # what a pointer over a bar shows
        r'<g id="tip:([^"]*)">', r'<g class="tip"><title>\1</title>', text
    )
    text = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(href="|url\()#', rf"\1#{name}-", text)
    for i, color in enumerate(COLORS):
        text = re.sub(rf"{color}\b", f"var(--run{i})", text, flags=re.IGNORECASE)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)
    return re.sub(r'(<svg [^>]*?)width="[^"]*"', r"\1", text, count=1).replace(
        "<defs>", f"<title>{escape(title)}</title>\n<defs>", 1
    )


@contextlib.contextmanager
def _styled() -> Iterator[None]:
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # Of names in a script that the font has not; browsers have it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _line(
    axes, i: int, xs, points, scale: float, name: str, marks: bool = True
) -> None:
    color, dashes, _ = look(i)
    marker = "o" if (marks and len(points) <= 40) or len(points) == 1 else None
    (line,) = axes.plot(
        xs,
        [scale * p["mean"] for p in points],
        color=color,
        ls=dashes,
        lw=1.6 if marks else 1.1,
        marker=marker,
        ms=3,
    )
    line.set_gid(f"tip:{name}")


def _dress(axes, values: list[float], *, log: bool) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if log and values and min(values) > 0 and max(values) > 20 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda y, _: ""))


def _unit(seconds: float) -> tuple[str, int]:
    if seconds > 3 * 3600:
        return "h", 3600
    return ("min", 60) if seconds > 300 else ("s", 1)


def _axis(metric: Metric) -> str:
    names = {"bits_per_byte": "bits per byte", "accuracy": "accuracy (%)"}
    return names.get(metric.key, metric.label)
