"""Curves of several methods in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from llava_scissor.errors import MissingDependencyError

_MARKERS = "osD^vPX<>ph*"
_DPI = 110
_FEW = 6  # so many intervals can be told apart


@dataclass(frozen=True)
class Curve:
    """One method.

    Attributes:
        name: as it stands in the legend.
        x: one value for each point.
        y: the same.
        low: lower ends of the intervals of `y`.
        high: upper ends.
        is_subject: whether the picture is about this one.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    is_subject: bool = False


def require_matplotlib() -> ModuleType:
    """Return matplotlib.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import matplotlib.figure
        import matplotlib.ticker
    except ImportError:
        raise MissingDependencyError(
            "plots need matplotlib, which is not installed: pip install 'llava-scissor[plots]'"
        ) from None
    return matplotlib


def plot_curves(
    curves: Sequence[Curve],
    path: Path,
    title: str,
    x_label: str,
    y_label: str,
    level: tuple[str, float] | None = None,
    is_share: bool = False,
) -> None:
    """Draw curves into a PNG file.

    Args:
        curves: what to draw; the subject thick and in black. The legend begins with the one that is highest on
            average. Of many curves, only the subject's intervals are drawn.
        path: where to.
        title: above the picture.
        x_label: of the horizontal axis.
        y_label: of the vertical one.
        level: name and height of a horizontal line to compare with.
        is_share: whether the horizontal axis is a share: logarithmic, in percent, labelled at the points.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    matplotlib = require_matplotlib()
    figure = matplotlib.figure.Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    colors = matplotlib.colormaps["tab10"].colors
    for i, curve in enumerate(sorted(curves, key=lambda curve: -sum(curve.y) / len(curve.y))):
        style = {"color": colors[i % len(colors)], "ls": "-" if i < len(colors) else ":", "lw": 1.2}
        if curve.is_subject:
            style = {"color": "black", "lw": 2.5, "zorder": 3}
        if curve.is_subject or len(curves) <= _FEW:
            axes.fill_between(curve.x, curve.low, curve.high, color=style["color"], alpha=0.12, lw=0)
        axes.plot(curve.x, curve.y, marker=_MARKERS[i % len(_MARKERS)], label=curve.name, **style)
    if level is not None:
        axes.axhline(level[1], color="grey", linestyle="--", label=level[0])
    if is_share:
        axes.set_xscale("log")
        axes.set_xticks(sorted({x for curve in curves for x in curve.x}))
        axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axes.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=0))
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(path, dpi=_DPI)
