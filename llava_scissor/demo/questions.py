"""Questions about a scene and their answers, nine types."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from llava_scissor.demo.scenes import COLORS, NUMBERS, SHAPES, Scene, Shape

QUESTION_TYPES = ("background", "color", "count", "direction", "end", "exists", "order", "shape", "where")


@dataclass(frozen=True)
class Question:
    """A question of one of `QUESTION_TYPES` and its only right answer."""

    kind: str
    text: str
    answer: str


def all_questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """List every question of every type that the scene answers without doubt.

    Args:
        scene: the scene asked about.
        rng: draws the object that does not exist and the order in which two shapes are named.

    Returns:
        Questions grouped by type in the order of their kinds; positions too close to the middle, movements
        seen too briefly and appearances at the same instant are not asked about.
    """
    objects = scene.objects
    found = [
        Question("background", "What is the background?", scene.background),
        Question("count", "How many objects are in the video?", NUMBERS[len(objects)]),
    ]
    for shape in objects:
        name = f"{shape.color} {shape.kind}"
        found += [
            Question("color", f"What color is the {shape.kind}?", shape.color),
            Question("shape", f"What shape is the {shape.color} object?", shape.kind),
            Question("exists", f"Is there {_with_article(shape.color, shape.kind)}?", "yes"),
            Question("exists", f"Is there {_absent(scene, shape, rng)}?", "no"),
        ]
        if shape.start <= 3:
            found.append(Question("direction", f"Which way does the {name} move?", shape.direction))
        if all(abs(c - 0.5) > 0.0625 for c in shape.start_center):
            text = f"Where is the {shape.color} object when it appears?"
            found.append(Question("where", text, _quadrant(shape.start_center)))
    return found + _questions_of_time(objects, rng)


def sample_questions(scene: Scene, rng: np.random.Generator, per_type: int = 1) -> list[Question]:
    """Draw up to `per_type` questions of every type that applies to the scene."""
    questions = all_questions(scene, rng)
    drawn: list[Question] = []
    for kind in QUESTION_TYPES:
        candidates = [q for q in questions if q.kind == kind]
        picked = rng.permutation(len(candidates))[:per_type]
        drawn += [candidates[i] for i in picked]
    return drawn


def _questions_of_time(objects: tuple[Shape, ...], rng: np.random.Generator) -> list[Question]:
    """Ask which shape appears first, for each pair, and which appears last of all."""
    found = []
    for first, second in combinations(sorted(objects, key=lambda o: o.start), 2):
        if first.start < second.start:
            named = [first.kind, second.kind] if rng.random() < 0.5 else [second.kind, first.kind]
            text = f"Which appears first, the {named[0]} or the {named[1]}?"
            found.append(Question("order", text, first.kind))
    starts = sorted(o.start for o in objects)
    if len(objects) >= 2 and starts[-1] > starts[-2]:
        last = max(objects, key=lambda o: o.start)
        found.append(Question("end", "Which shape appears last?", last.kind))
    return found


def _absent(scene: Scene, shape: Shape, rng: np.random.Generator) -> str:
    """Name a colour and shape that do not occur together; one of the two is the given object's."""
    present = {(o.color, o.kind) for o in scene.objects}
    if rng.random() < 0.5:
        names = [(shape.color, kind) for kind in SHAPES]
    else:
        names = [(color, shape.kind) for color in COLORS]
    color, kind = [n for n in names if n not in present][rng.integers(len(names) - 1)]
    return _with_article(color, kind)


def _with_article(color: str, kind: str) -> str:
    return f"{'an' if color[0] in 'aeiou' else 'a'} {color} {kind}"


def _quadrant(center: tuple[float, float]) -> str:
    return f"{'top' if center[1] < 0.5 else 'bottom'} {'left' if center[0] < 0.5 else 'right'}"
