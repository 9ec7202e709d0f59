"""Curves of several methods in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from llava_scissor.errors import MissingDependencyError

_MARKERS = "osD^vPX<>ph*"
_DPI = 120


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
    use_percent: bool = False,
) -> None:
    """Draw curves over a logarithmic axis, with their intervals, into a PNG file.

    Args:
        curves: what to draw; the subject thick and in black.
        path: where to.
        title: above the picture.
        x_label: of the logarithmic axis.
        y_label: of the other one.
        level: name and height of a horizontal line to compare with.
        use_percent: whether the logarithmic axis is a share, labelled in percent at the points.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    matplotlib = require_matplotlib()
    figure = matplotlib.figure.Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    colors = iter(matplotlib.colormaps["tab20"].colors)
    for i, curve in enumerate(curves):
        color = "black" if curve.is_subject else next(colors, "grey")
        width, order = (2.5, 3) if curve.is_subject else (1.2, 2)
        marker = _MARKERS[i % len(_MARKERS)]
        axes.fill_between(curve.x, curve.low, curve.high, color=color, alpha=0.12, linewidth=0)
        axes.plot(curve.x, curve.y, marker=marker, color=color, lw=width, zorder=order, label=curve.name)
    if level is not None:
        axes.axhline(level[1], color="grey", linestyle="--", label=level[0])
    axes.set_xscale("log")
    if use_percent:
        axes.set_xticks(sorted({x for curve in curves for x in curve.x}))
        axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda share, _: f"{share:.3g}"))
        axes.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=0))
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(path, dpi=_DPI)
