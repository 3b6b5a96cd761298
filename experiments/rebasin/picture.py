"""The picture: the loss between two networks, a panel for each model."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from .. import pictures
from .report import MATCHED

COLORS = {"nothing": "#000000", "weights": "#0072B2", "activations": "#D55E00"}
DASHES = {"nothing": "-", "weights": "-", "activations": "--"}


def picture(panels: Sequence[tuple[str, list[dict]]], path: Path) -> None:
    """The mean over the pairs, and every pair, faint."""
    with matplotlib.rc_context(pictures.STYLE):
        size = (max(4.2 * len(panels), 4.8), 3.6)
        figure = Figure(figsize=size, layout="constrained")
        for axes, (title, pairs) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            for how, said in MATCHED.items():
                every = np.array([pair["losses"][how] for pair in pairs], float)
                ts = np.linspace(0, 1, every.shape[1])
                look = {"color": COLORS[how], "ls": DASHES[how]}
                axes.plot(ts, every.T, alpha=0.2, lw=0.7, **look)
                axes.plot(ts, every.mean(0), lw=2, label=said, **look)
            axes.set_title(title, fontsize=10)
            axes.set_xlabel("share of the second network", fontsize=9)
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.25)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
        figure.axes[0].set_ylabel("held-out cross entropy (nats)")
        lines = figure.axes[0].get_legend_handles_labels()
        place = {"loc": "outside lower center", "ncols": len(MATCHED)}
        figure.legend(*lines, fontsize=8, frameon=False, **place)
        figure.savefig(path, dpi=110, format="png")
