"""Scenes of moving shapes: what the demo clips show, before anything is drawn.

Lengths are in units of the picture's side, x to the right and y downwards; times run from 0 (first frame)
to 1 (last frame). A scene is drawn at any size and frame count by `llava_scissor.demo.drawing`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COLORS = {
    "red": (220, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 220, 50),
    "purple": (160, 50, 200),
    "orange": (245, 140, 30),
    "cyan": (60, 220, 230),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring")
BACKGROUNDS = ("plain", "stripes", "checker", "dots", "gradient")
DIRECTIONS = {"still": (0, 0), "left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
NUMBERS = ("zero", "one", "two", "three", "four")

NUM_STEPS = 8
"""Appearances fall on a grid of this many instants, the frame count the model is trained with."""
_MARGIN = 0.008


@dataclass(frozen=True)
class Shape:
    """One object: it moves on a straight line and is drawn from `start` on.

    Attributes:
        color: a key of `COLORS`; no two objects of a scene share it.
        kind: one of `SHAPES`; no two objects of a scene share it.
        direction: a key of `DIRECTIONS`.
        radius: half its extent.
        begin: centre (x, y) at time 0, whether or not it is visible then.
        end: centre (x, y) at time 1.
        start: instant 0..NUM_STEPS-1 at which it appears.
    """

    color: str
    kind: str
    direction: str
    radius: float
    begin: tuple[float, float]
    end: tuple[float, float]
    start: int

    def center(self, time: float) -> tuple[float, float]:
        """Return the centre (x, y) at `time`."""
        return (
            self.begin[0] + (self.end[0] - self.begin[0]) * time,
            self.begin[1] + (self.end[1] - self.begin[1]) * time,
        )

    def is_visible(self, time: float) -> bool:
        """Tell whether the object is drawn at `time`; half an instant of slack absorbs frame rounding."""
        return time >= (self.start - 0.5) / (NUM_STEPS - 1)

    @property
    def start_center(self) -> tuple[float, float]:
        """Centre (x, y) at the moment the object appears."""
        return self.center(self.start / (NUM_STEPS - 1))


@dataclass(frozen=True)
class World:
    """What scenes are like.

    Attributes:
        counts: how likely each number of objects is, from one on.
        radius: smallest and largest half extent of an object.
        backgrounds: those that occur, of `BACKGROUNDS`.
        drift: farthest that the background moves during the clip, in x and in y.
        jitter: farthest that the camera is off in a frame, in x and in y.
    """

    counts: tuple[float, ...] = (0.2, 0.35, 0.3, 0.15)
    radius: tuple[float, float] = (0.085, 0.125)
    backgrounds: tuple[str, ...] = BACKGROUNDS
    drift: float = 0.0
    jitter: float = 0.0


SHAPES_V1 = World()
"""What the shipped model was trained on."""

SHAPES_HARD_V1 = World(
    counts=(0, 0, 0.5, 0.5),
    radius=(0.07, 0.09),
    backgrounds=("stripes", "checker", "dots", "gradient"),
    drift=0.15,
    jitter=0.02,
)
"""More and smaller objects in front of textures that move, seen by a camera that shakes."""


@dataclass(frozen=True)
class Scene:
    """Objects in front of a background.

    Attributes:
        objects: objects whose paths never overlap.
        background: one of `BACKGROUNDS`.
        drift: how far (x, y) the background moves from time 0 to time 1.
        jitter: farthest that the camera is off in a frame, in x and in y.
    """

    objects: tuple[Shape, ...]
    background: str
    drift: tuple[float, float] = (0.0, 0.0)
    jitter: float = 0.0


def sample_scene(rng: np.random.Generator, world: World = SHAPES_V1) -> Scene:
    """Draw a scene: half of those with two or more objects let them appear one after another.

    Args:
        rng: the only source of randomness.
        world: what scenes are like.

    Returns:
        A scene with one or more objects, each colour and each kind at most once.
    """
    count = int(rng.choice(len(world.counts), p=world.counts)) + 1
    while True:
        colors = rng.permutation(list(COLORS))[:count]
        kinds = rng.permutation(list(SHAPES))[:count]
        starts = _sample_starts(rng, count)
        objects: list[Shape] = []
        for color, kind, start in zip(colors, kinds, starts, strict=True):
            shape = _place(rng, str(color), str(kind), start, objects, world)
            if shape is None:
                break
            objects.append(shape)
        if len(objects) == count:
            background = str(rng.choice(world.backgrounds))
            drift = _pair(rng.uniform(-world.drift, world.drift, 2)) if world.drift else (0.0, 0.0)
            return Scene(tuple(objects), background, drift, world.jitter)


def _sample_starts(rng: np.random.Generator, count: int) -> list[int]:
    """Draw the instants of appearance: all 0, or at least two instants apart beginning at 0."""
    if count == 1 or rng.random() < 0.5:
        return [0] * count
    slack = NUM_STEPS - 1 - 2 * (count - 1)
    extra = np.sort(rng.integers(0, slack + 1, size=count - 1))
    starts = [0, *(int(2 * (i + 1) + extra[i]) for i in range(count - 1))]
    return [int(s) for s in rng.permutation(starts)]


def _place(
    rng: np.random.Generator,
    color: str,
    kind: str,
    start: int,
    others: list[Shape],
    world: World,
    attempts: int = 40,
) -> Shape | None:
    """Find a path inside the picture that stays clear of the others' paths, or None after `attempts`."""
    radius = rng.uniform(*world.radius)
    direction = str(rng.choice(list(DIRECTIONS)))
    distance = rng.uniform(0.31, 0.44)
    low, high = radius + _MARGIN + world.jitter, 1 - radius - _MARGIN - world.jitter
    times = np.linspace(0, 1, NUM_STEPS)[:, None]
    for _ in range(attempts):
        begin = rng.uniform(low, high, 2)
        end = begin + np.array(DIRECTIONS[direction]) * distance
        if (end < low).any() or (end > high).any():
            continue
        path = begin + (end - begin) * times  # (NUM_STEPS, 2)
        gaps = [
            np.abs(path - (np.array(o.begin) + (np.array(o.end) - np.array(o.begin)) * times)).max(1).min()
            - o.radius
            for o in others
        ]
        if all(gap > radius + _MARGIN for gap in gaps):
            return Shape(color, kind, direction, radius, _pair(begin), _pair(end), start)
    return None


def _pair(point: np.ndarray) -> tuple[float, float]:
    return float(point[0]), float(point[1])
