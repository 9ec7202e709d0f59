from __future__ import annotations

import sys
from collections import Counter

import matplotlib
import numpy as np
import pytest
from PIL import Image

from llava_scissor.errors import MissingDependencyError
from llava_scissor.visualization.curves import Curve, plot_curves

SHARES = (0.5, 0.1, 0.02)


def curve(name: str, height: float, is_subject: bool = False) -> Curve:
    y = [height, height - 0.1, height - 0.3]
    return Curve(name, SHARES, y, [v - 0.02 for v in y], [v + 0.02 for v in y], is_subject)


def picture(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_every_curve_is_drawn(tmp_path) -> None:
    """Each in a colour of its own, the subject in black."""
    palette = [tuple(round(255 * v) for v in color) for color in matplotlib.colormaps["tab10"].colors]
    for number in range(4):
        curves = [curve(f"method {i}", 0.9 - 0.1 * i, is_subject=i == 1) for i in range(number)]
        path = tmp_path / f"{number}.png"
        plot_curves(curves, path, "a title", "kept", "right", ("all tokens", 0.95), is_share=number > 0)
        shown = Counter(map(tuple, picture(path)[80:-80, 120:600].reshape(-1, 3)))  # inside the axes
        drawn = [color for color in palette if shown[color] > 50]
        assert drawn == [palette[i] for i in range(number) if i != 1]
        assert (shown[0, 0, 0] > 200) == (number > 1)


def test_without_matplotlib_the_error_says_what_to_install(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'llava-scissor\[plots\]'"):
        plot_curves([curve("a", 0.9)], tmp_path / "a.png", "", "", "")
