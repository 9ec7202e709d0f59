from __future__ import annotations

import numpy as np
import pytest

from llava_scissor.demo.clips import CLIP_FRAMES
from llava_scissor.demo.drawing import coverage, patch_labels, pixel_grid, render
from llava_scissor.demo.scenes import BACKGROUNDS, COLORS, NUM_STEPS, SHAPES, Scene, Shape, sample_scene
from llava_scissor.video.sampling import uniform_indices
from tests.demo.oracle import AREAS, covered_share

PLACES = [(0.5, 0.5), (0.137, 0.861)]
SIZE_PX = 256


def still(kind: str, color: str = "red", center=(0.5, 0.5), radius: float = 0.11, start: int = 0) -> Shape:
    return Shape(color, kind, "still", radius, center, center, start)


def full_coverage(shape: Shape, size_px: int, time: float = 0) -> np.ndarray:
    grid = pixel_grid(size_px)
    canvas = np.zeros_like(grid[0])
    alpha, window = coverage(shape, time, *grid)
    canvas[window] = alpha
    return canvas


@pytest.mark.parametrize("size_px", [128, 256, 90])
@pytest.mark.parametrize("num_frames", [1, 8, 5])
def test_shape_and_dtype(size_px: int, num_frames: int) -> None:
    scene = sample_scene(np.random.default_rng(0))
    frames = render(scene, np.random.default_rng(1), size_px, np.linspace(0, 1, num_frames))
    assert (frames.shape, frames.dtype) == ((num_frames, size_px, size_px, 3), np.uint8)


def test_eight_frames_of_128_by_default() -> None:
    scene = sample_scene(np.random.default_rng(0))
    frames = render(scene, np.random.default_rng(1))
    assert frames.shape == (8, 128, 128, 3)
    same = render(scene, np.random.default_rng(1), 128, np.linspace(0, 1, NUM_STEPS))
    assert frames.tobytes() == same.tobytes()


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_the_seed_decides_every_byte(background: str) -> None:
    scene = Scene((still("ring"),), background)
    frames = [render(scene, np.random.default_rng(seed), 64).tobytes() for seed in (1, 1, 2)]
    assert frames[0] == frames[1] != frames[2]


@pytest.mark.parametrize("center", PLACES)
@pytest.mark.parametrize("kind", SHAPES)
def test_the_area_is_that_of_the_shape(kind: str, center: tuple[float, float]) -> None:
    shape = still(kind, center=center)
    area = full_coverage(shape, SIZE_PX).sum() / SIZE_PX**2
    assert area == pytest.approx(AREAS[kind] * shape.radius**2, rel=0.002)


@pytest.mark.parametrize("center", PLACES)
@pytest.mark.parametrize("kind", SHAPES)
def test_every_pixel_is_covered_as_counted(kind: str, center: tuple[float, float]) -> None:
    shape = still(kind, center=center)
    drawn, counted = full_coverage(shape, SIZE_PX), covered_share(shape, 0, SIZE_PX, samples=6)
    off = np.abs(drawn - counted)
    edge = ((drawn > 0) & (drawn < 1)) | ((counted > 0) & (counted < 1))
    assert edge.sum() > 50, "edges are anti-aliased"
    assert off.max() < 0.3  # at corners, where the distance is that of the sides
    assert off[edge].mean() < 0.08


def test_a_shape_moves_along_its_path() -> None:
    shape = Shape("red", "circle", "right", 0.1, (0.2, 0.4), (0.6, 0.4), 0)
    x, y = pixel_grid(SIZE_PX)
    for time in (0, 0.25, 1):
        weight = full_coverage(shape, SIZE_PX, time)
        mean = ((weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum())
        assert mean == pytest.approx((0.2 + 0.4 * time, 0.4), abs=1e-3)


@pytest.mark.parametrize("start", [2, 5, 7])
def test_an_object_is_drawn_from_its_start_on(start: int) -> None:
    shape = still("square", start=start)
    with_shape, without = (
        render(Scene(objects, "plain"), np.random.default_rng(0)) for objects in ((shape,), ())
    )
    before, after = slice(0, start), slice(start, None)
    assert (with_shape[before] == without[before]).all()
    middle = with_shape[after, 64, 64].astype(int)
    assert np.abs(middle - COLORS["red"]).max() <= 9


def test_a_video_file_shows_every_object_from_its_own_frame_on() -> None:
    """Files have more frames than the model looks at: those that it samples must agree with the answers."""
    sampled = np.array(uniform_indices(CLIP_FRAMES, NUM_STEPS)) / (CLIP_FRAMES - 1)
    for start in range(NUM_STEPS):
        seen = [still("circle", start=start).is_visible(time) for time in sampled]
        assert seen == [step >= start for step in range(NUM_STEPS)]


def test_only_the_shape_is_drawn_over() -> None:
    shape = still("triangle", center=(0.3, 0.6))
    one, none = (
        render(Scene(o, "checker"), np.random.default_rng(5), 128, np.zeros(1)) for o in ((shape,), ())
    )
    changed = (one != none).any(-1)[0]
    assert not changed[full_coverage(shape, 128) == 0].any()
    assert changed[full_coverage(shape, 128) == 1].all()


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("kind", SHAPES)
def test_colors_are_near_their_names(kind: str, color: str) -> None:
    shape = still(kind, color, radius=0.12)
    frames = render(Scene((shape,), "stripes"), np.random.default_rng(3), 128).astype(int)
    column = 64 + round(0.775 * 0.12 * 128) if kind == "ring" else 64
    off = np.abs(frames[:, 64, column] - COLORS[color])
    assert off.max() <= 9, "colours change by at most 8 from frame to frame"


def test_the_hole_of_a_ring_shows_the_background() -> None:
    frames = [
        render(Scene(o, "plain"), np.random.default_rng(3), 128, np.zeros(1)) for o in ((still("ring"),), ())
    ]
    assert (frames[0][0, 64, 64] == frames[1][0, 64, 64]).all()


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_backgrounds_are_dull_and_have_their_texture(background: str) -> None:
    stds = []
    for seed in range(8):
        frame = render(Scene((), background), np.random.default_rng(seed), 128, np.zeros(1))[0].astype(float)
        colors = frame.reshape(-1, 3).mean(0)
        assert np.ptp(colors) < 80
        smooth = frame.mean(-1).reshape(32, 4, 32, 4).mean((1, 3))  # takes the pixel noise away
        stds.append(smooth.std())
    assert max(stds) < 3 if background == "plain" else min(stds) > 3


@pytest.mark.parametrize("num_patches", [8, 16])
def test_patch_labels_are_those_of_a_count(num_patches: int) -> None:
    names = list(COLORS)
    num_clear = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        scene, time = sample_scene(rng), float(rng.choice(np.linspace(0, 1, 8)))
        covered, kind, color = patch_labels(scene, time, num_patches)
        visible = [o for o in scene.objects if time >= (o.start - 0.5) / (NUM_STEPS - 1)]
        shares = np.stack([covered_share(o, time, num_patches, samples=24) for o in visible])
        assert covered == pytest.approx(shares.max(0), abs=0.04)
        assert (covered.dtype, kind.dtype, color.dtype) == (np.float32, np.int64, np.int64)
        ranked = np.sort(shares, axis=0)
        lead = ranked[-1] - (ranked[-2] if len(visible) > 1 else 0)
        for place in np.argwhere(lead > 0.05):
            mine = visible[shares[:, *place].argmax()]
            assert (SHAPES[kind[*place]], names[color[*place]]) == (mine.kind, mine.color)
            num_clear += 1
        empty = shares.max(0) == 0
        assert (covered[empty] < 0.01).all()
        assert ((kind == -1) == (covered == 0)).all()
        assert ((color == -1) == (covered == 0)).all()
    assert num_clear > 100


@pytest.mark.parametrize("background", ["stripes", "checker", "dots"])
def test_the_background_drifts(background: str) -> None:
    """By a quarter of the picture to the right and an eighth up: what is seen early is seen there later."""
    scene = Scene((), background, drift=(0.25, -0.125))
    first, *_, last = render(scene, np.random.default_rng(0), 64).astype(int)
    moved = np.abs(last[:-8, 16:] - first[8:, :-16]).mean()
    stayed = np.abs(last - first).mean()
    assert moved < 9 < stayed


def test_the_camera_shakes() -> None:
    """Background and objects move together, by no more than allowed, in both axes and anew in each frame."""
    ring = still("ring", "white", radius=0.2)
    scene, calm = (Scene((ring,), "checker", jitter=jitter) for jitter in (0.05, 0.0))
    centers = []
    for frame in render(scene, np.random.default_rng(0), 100):
        y, x = np.nonzero(frame.min(-1) > 215)
        centers.append((x.mean() + 0.5, y.mean() + 0.5))
    offsets = np.array(centers) / 100 - 0.5
    assert (np.abs(offsets) < 0.055).all()
    assert (np.ptp(offsets, axis=0) > 0.03).all()
    assert len(np.unique(offsets.round(3), axis=0)) == 8
    one, *_, other = render(scene, np.random.default_rng(0), 100).astype(int)
    dx, dy = ((offsets[-1] - offsets[0]) * 100).round().astype(int)
    aligned = np.roll(other, (-dy, -dx), (0, 1))[10:-10, 10:-10]
    assert np.abs(aligned - one[10:-10, 10:-10]).mean() < np.abs(other - one)[10:-10, 10:-10].mean() / 1.5
    still_frames = render(calm, np.random.default_rng(0), 100).astype(int)
    assert np.abs(still_frames[-1] - still_frames[0]).mean() < np.abs(other - one).mean() / 1.5


def test_the_camera_moves_a_shape_the_other_way() -> None:
    shape, grid = still("cross", center=(0.5, 0.4)), pixel_grid(64)
    moved = coverage(shape, 0, *grid, (0.1, -0.05))
    there = coverage(still("cross", center=(0.4, 0.45)), 0, *grid)
    assert moved[1] == there[1]
    np.testing.assert_allclose(moved[0], there[0], atol=1e-4)
