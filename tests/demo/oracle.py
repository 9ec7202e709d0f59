"""What a scene shows, worked out again from its numbers alone, slowly and in other words than the package."""

from __future__ import annotations

import math
import re
from itertools import combinations

import numpy as np

LAST_INSTANT = 7
AREAS = {  # of a shape with radius 1
    "circle": math.pi,
    "square": 1.7**2,
    "triangle": 0.5 * 1.8 * 1.98,
    "cross": 2 * (2 * 0.66) - 0.66**2,
    "ring": math.pi * (1 - 0.55**2),
}
NUMBER_WORDS = {1: "one", 2: "two", 3: "three", 4: "four"}


def is_inside(kind: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points are part of a shape of radius 1 around the origin, y downwards."""
    if kind == "circle":
        return x**2 + y**2 <= 1
    if kind == "ring":
        return (x**2 + y**2 <= 1) & (x**2 + y**2 >= 0.55**2)
    if kind == "square":
        return (abs(x) <= 0.85) & (abs(y) <= 0.85)
    if kind == "cross":
        return ((abs(x) <= 0.33) & (abs(y) <= 1)) | ((abs(x) <= 1) & (abs(y) <= 0.33))
    corners = [(0.0, -1.0), (0.99, 0.8), (-0.99, 0.8)]  # of the triangle, clockwise on the screen
    edges = zip(corners, corners[1:] + corners[:1], strict=True)
    return np.all([(bx - ax) * (y - ay) - (by - ay) * (x - ax) >= 0 for (ax, ay), (bx, by) in edges], axis=0)


def center_at(shape, time: float) -> tuple[float, float]:
    return tuple((1 - time) * b + time * e for b, e in zip(shape.begin, shape.end, strict=True))


def covered_share(shape, time: float, cells: int, samples: int = 16) -> np.ndarray:
    """Share of every cell of a square grid that the shape covers, by counting points (cells, cells)."""
    axis = (np.arange(cells * samples) + 0.5) / (cells * samples)
    cx, cy = center_at(shape, time)
    x, y = (axis[None, :] - cx) / shape.radius, (axis[:, None] - cy) / shape.radius
    hits = is_inside(shape.kind, *np.broadcast_arrays(x, y))
    return hits.reshape(cells, samples, cells, samples).mean((1, 3))


def movement(shape) -> str:
    dx, dy = shape.end[0] - shape.begin[0], shape.end[1] - shape.begin[1]
    if dx == dy == 0:
        return "still"
    assert dx == 0 or dy == 0, "a movement is along one axis"
    return ("left" if dx < 0 else "right") if dx else ("up" if dy < 0 else "down")


def place_of_appearance(shape) -> str:
    x, y = center_at(shape, shape.start / LAST_INSTANT)
    assert min(abs(x - 0.5), abs(y - 0.5)) > 0.06, f"{shape} appears too close to a middle line"
    return ("bottom" if y > 0.5 else "top") + " " + ("right" if x > 0.5 else "left")


def _only(objects: list, **wanted: str):
    found = [o for o in objects if all(getattr(o, key) == value for key, value in wanted.items())]
    assert len(found) == 1, f"{wanted} names {len(found)} objects"
    return found[0]


def _is_there(scene, article: str, color: str, kind: str) -> str:
    assert (article == "an") == (color[0] in "aeiou")
    found = any((o.color, o.kind) == (color, kind) for o in scene.objects)
    shares_a_word = any(color == o.color or kind == o.kind for o in scene.objects)
    assert shares_a_word, "what is not there should be like something that is"
    return "yes" if found else "no"


def _first(scene, a: str, b: str) -> str:
    starts = {kind: _only(scene.objects, kind=kind).start for kind in (a, b)}
    assert starts[a] != starts[b], "two objects appear at the same instant"
    return min(starts, key=starts.get)


def _last(scene) -> str:
    latest = [o for o in scene.objects if o.start == max(p.start for p in scene.objects)]
    assert len(latest) == 1 < len(scene.objects), "no single object appears last"
    return latest[0].kind


def _way(scene, color: str, kind: str) -> str:
    shape = _only(scene.objects, color=color, kind=kind)
    assert shape.start <= 3, "seen too briefly"
    return movement(shape)


_RULES = {
    "background": (r"What is the background\?", lambda s: s.background),
    "count": (r"How many objects are in the video\?", lambda s: NUMBER_WORDS[len(s.objects)]),
    "color": (r"What color is the (\w+)\?", lambda s, kind: _only(s.objects, kind=kind).color),
    "shape": (r"What shape is the (\w+) object\?", lambda s, color: _only(s.objects, color=color).kind),
    "exists": (r"Is there (an?) (\w+) (\w+)\?", _is_there),
    "direction": (r"Which way does the (\w+) (\w+) move\?", _way),
    "where": (
        r"Where is the (\w+) object when it appears\?",
        lambda s, color: place_of_appearance(_only(s.objects, color=color)),
    ),
    "order": (r"Which appears first, the (\w+) or the (\w+)\?", _first),
    "end": (r"Which shape appears last\?", _last),
}


def answer(scene, kind: str, text: str) -> str:
    """The right answer to a question's text; an assertion fails where the scene leaves doubt."""
    pattern, rule = _RULES[kind]
    match = re.fullmatch(pattern, text)
    assert match, f"{text!r} is no question of type {kind}"
    return rule(scene, *match.groups())


def expected_counts(scene) -> dict[str, int]:
    """How many questions of each type the scene answers without doubt."""
    starts = [o.start for o in scene.objects]
    clear = [all(abs(c - 0.5) > 0.0625 for c in center_at(o, o.start / LAST_INSTANT)) for o in scene.objects]
    return {
        "background": 1,
        "count": 1,
        "color": len(starts),
        "shape": len(starts),
        "exists": 2 * len(starts),
        "direction": sum(s <= 3 for s in starts),
        "where": sum(clear),
        "order": sum(a != b for a, b in combinations(starts, 2)),
        "end": int(len(starts) > 1 and starts.count(max(starts)) == 1),
    }
