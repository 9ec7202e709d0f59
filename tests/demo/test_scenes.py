from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_scissor.demo.scenes import (
    BACKGROUNDS,
    COLORS,
    DIRECTIONS,
    NUM_STEPS,
    SHAPES,
    SHAPES_HARD_V1,
    SHAPES_V1,
    Scene,
    Shape,
    sample_scene,
)
from tests.demo.oracle import center_at, movement

SEEDS = st.integers(0, 2**32 - 1)
MOMENTS = np.linspace(0, 1, 8 * (NUM_STEPS - 1) + 1)


def scene_of(seed: int) -> Scene:
    return sample_scene(np.random.default_rng(seed))


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [scene_of(seed) for seed in range(600)]


@given(SEEDS)
def test_the_seed_decides(seed: int) -> None:
    assert scene_of(seed) == scene_of(seed)
    assert scene_of(seed) != scene_of(seed + 1)


@given(SEEDS)
def test_one_to_four_objects_of_known_and_different_names(seed: int) -> None:
    scene = scene_of(seed)
    assert 1 <= len(scene.objects) <= 4
    for allowed, names in (
        (COLORS, [o.color for o in scene.objects]),
        (SHAPES, [o.kind for o in scene.objects]),
    ):
        assert set(names) <= set(allowed)
        assert len(set(names)) == len(names)
    assert scene.background in BACKGROUNDS
    assert {o.direction for o in scene.objects} <= set(DIRECTIONS)


@given(SEEDS)
def test_objects_stay_inside_the_picture(seed: int) -> None:
    for shape in scene_of(seed).objects:
        for moment in MOMENTS:
            x, y = center_at(shape, moment)
            assert shape.radius <= min(x, y)
            assert max(x, y) <= 1 - shape.radius


@given(SEEDS)
def test_paths_never_overlap(seed: int) -> None:
    objects = scene_of(seed).objects
    for i, one in enumerate(objects):
        for other in objects[:i]:
            for moment in MOMENTS:
                (ax, ay), (bx, by) = center_at(one, moment), center_at(other, moment)
                assert max(abs(ax - bx), abs(ay - by)) > one.radius + other.radius


@given(SEEDS)
def test_objects_appear_together_or_two_instants_apart(seed: int) -> None:
    starts = sorted(o.start for o in scene_of(seed).objects)
    assert starts[0] == 0
    assert starts[-1] <= NUM_STEPS - 1
    assert set(starts) == {0} or all(b - a >= 2 for a, b in pairwise(starts))


@given(SEEDS)
def test_an_object_moves_as_its_direction_says(seed: int) -> None:
    for shape in scene_of(seed).objects:
        assert movement(shape) == shape.direction
        length = np.hypot(*np.subtract(shape.end, shape.begin))
        assert shape.direction == "still" or 0.31 - 1e-9 <= length <= 0.44 + 1e-9
        assert 0.085 <= shape.radius <= 0.125
        assert shape.start_center == pytest.approx(center_at(shape, shape.start / (NUM_STEPS - 1)))


def test_everything_occurs(scenes: list[Scene]) -> None:
    objects = [o for scene in scenes for o in scene.objects]
    assert {len(scene.objects) for scene in scenes} == {1, 2, 3, 4}
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert {o.color for o in objects} == set(COLORS)
    assert {o.kind for o in objects} == set(SHAPES)
    assert {o.direction for o in objects} == set(DIRECTIONS)
    assert {o.start for o in objects} == {0, *range(2, NUM_STEPS)}  # one object is there from the start


def test_how_often(scenes: list[Scene]) -> None:
    share = {count: n / len(scenes) for count, n in Counter(len(s.objects) for s in scenes).items()}
    assert share == pytest.approx({1: 0.2, 2: 0.35, 3: 0.3, 4: 0.15}, abs=0.06)
    several = [scene for scene in scenes if len(scene.objects) > 1]
    staggered = [scene for scene in several if any(o.start for o in scene.objects)]
    assert len(staggered) / len(several) == pytest.approx(0.5, abs=0.07)


def test_visible_from_half_an_instant_before_the_start() -> None:
    shape = Shape("red", "circle", "still", 0.1, (0.5, 0.5), (0.5, 0.5), start=3)
    seen = [shape.is_visible(time) for time in np.array([0, 2.4, 2.6, 3, 7]) / (NUM_STEPS - 1)]
    assert seen == [False, False, True, True, True]
    assert Shape("red", "circle", "still", 0.1, (0.5, 0.5), (0.5, 0.5), start=0).is_visible(0)


@given(SEEDS)
def test_the_hard_world_is_what_it_says(seed: int) -> None:
    scene = sample_scene(np.random.default_rng(seed), SHAPES_HARD_V1)
    assert len(scene.objects) in (3, 4)
    assert all(0.07 <= o.radius <= 0.09 for o in scene.objects)
    assert scene.background in ("stripes", "checker", "dots", "gradient")
    assert all(-0.15 <= d <= 0.15 for d in scene.drift)
    assert scene.drift[0] != scene.drift[1]
    assert scene.jitter == 0.02
    for shape in scene.objects:
        for x, y in (center_at(shape, moment) for moment in MOMENTS):
            reach = shape.radius + scene.jitter
            assert reach <= x <= 1 - reach
            assert reach <= y <= 1 - reach


def test_the_world_is_that_of_the_demo_unless_another_is_given() -> None:
    assert scene_of(5) == sample_scene(np.random.default_rng(5), SHAPES_V1)
    assert (scene_of(5).drift, scene_of(5).jitter) == ((0.0, 0.0), 0.0)
