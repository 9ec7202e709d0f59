"""Drawing a scene as frames, at any size and frame count."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llava_scissor.demo.scenes import COLORS, SHAPES, Scene, Shape


def render(
    scene: Scene, rng: np.random.Generator, size_px: int = 128, times: np.ndarray | None = None
) -> np.ndarray:
    """Draw the scene with anti-aliased edges, pixel noise and a slight change of each object's colour.

    Args:
        scene: what to draw.
        rng: source of the texture's phase, the noise and the colour changes.
        size_px: side of the square frames.
        times: instants in [0, 1], one frame each; eight even ones by default.

    Returns:
        uint8 RGB frames (F, size_px, size_px, 3).
    """
    times = np.linspace(0, 1, 8) if times is None else times
    grid = pixel_grid(size_px)
    background = _background(rng, scene.background, size_px)
    backdrop, is_moving = background(*grid), scene.jitter > 0 or any(scene.drift)
    noise = rng.uniform(0, 8)
    frames = np.empty((len(times), size_px, size_px, 3), np.uint8)
    for index, time in enumerate(times):
        camera = rng.uniform(-scene.jitter, scene.jitter, 2) if scene.jitter else np.zeros(2)
        if is_moving:
            place = (camera - np.array(scene.drift) * time).astype(np.float32)
            backdrop = background(grid[0] + place[0], grid[1] + place[1])
        frame = backdrop + rng.standard_normal((size_px, size_px, 1), dtype=np.float32) * noise
        for shape in scene.objects:
            if shape.is_visible(time):
                alpha, window = coverage(shape, time, *grid, (camera[0], camera[1]))
                color = np.array(COLORS[shape.color], np.float32) + rng.uniform(-8, 8, 3).astype(np.float32)
                frame[window] += alpha[..., None] * (color - frame[window])
        frames[index] = np.clip(frame, 0, 255)
    return frames


def pixel_grid(size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of the pixel centres in picture units, float32 (size_px, size_px) each."""
    axis = (np.arange(size_px, dtype=np.float32) + 0.5) / size_px
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return x, y


def coverage(
    shape: Shape, time: float, x: np.ndarray, y: np.ndarray, camera: tuple[float, float] = (0.0, 0.0)
) -> tuple[np.ndarray, tuple[slice, slice]]:
    """Return how much of each pixel the shape covers (0..1) inside a window around it, and that window.

    `camera` is how far (x, y) the camera has moved, and the picture the other way.
    """
    size = x.shape[0]
    cx, cy = (c - off for c, off in zip(shape.center(time), camera, strict=True))
    reach = shape.radius + 2 / size
    window = tuple(
        slice(max(int((c - reach) * size), 0), min(int(np.ceil((c + reach) * size)), size)) for c in (cy, cx)
    )
    distance = _signed_distance(shape.kind, x[window] - cx, y[window] - cy, shape.radius)
    return np.clip(0.5 - distance * size, 0, 1), (window[0], window[1])


def _signed_distance(kind: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Signed distance to the outline (negative inside), exact near the edge."""
    if kind == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.85 * radius
    if kind == "triangle":
        sides = (np.abs(x) - 0.55 * (y + radius)) / np.hypot(1, 0.55)
        return np.maximum(sides, y - 0.8 * radius)
    if kind == "cross":
        bar = np.maximum(np.abs(x) - 0.33 * radius, np.abs(y) - radius)
        return np.minimum(bar, np.maximum(np.abs(y) - 0.33 * radius, np.abs(x) - radius))
    distance = np.hypot(x, y)
    if kind == "ring":
        return np.maximum(distance - radius, 0.55 * radius - distance)
    return distance - radius


def _background(
    rng: np.random.Generator, kind: str, size: int
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Draw a background in two close grey-ish tones; its colours, float32 (size, size, 3), at any x and y."""
    base = rng.uniform(60, 150) + rng.uniform(-25, 25, 3)
    other = base + rng.choice([-1, 1]) * rng.uniform(25, 45)
    phase = rng.uniform(0, 1)
    period = rng.uniform(0.065, 0.11) if kind not in ("plain", "gradient") else 0.0
    angle = rng.uniform(0, np.pi * (1 + (kind == "gradient"))) if kind in ("gradient", "stripes") else 0.0

    def colors(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        texture = _texture(kind, x, y, size, phase, period, angle)[..., None]
        return (base * (1 - texture) + other * texture).astype(np.float32)

    return colors


def _texture(
    kind: str, x: np.ndarray, y: np.ndarray, size: int, phase: float, period: float, angle: float
) -> np.ndarray:
    """Return the weight of the second tone in every pixel, 0..1."""
    if kind == "plain":
        return np.zeros_like(x)
    if kind == "gradient":
        return np.clip((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) + 0.5, 0, 1) * 1.6
    if kind == "stripes":
        wave = np.sin(2 * np.pi * ((x * np.cos(angle) + y * np.sin(angle)) / period + phase))
        return np.clip(0.5 + wave * period * size / (2 * np.pi), 0, 1)
    if kind == "dots":
        spot = np.hypot(*(((axis / period + phase) % 1 - 0.5) * period for axis in (x, y)))
        return np.clip(0.5 - (spot - 0.28 * period) * size, 0, 1)
    # Checker: the product of two square waves whose flanks are one pixel wide.
    flank = period * 0.8 * size / np.pi
    waves = (np.clip(np.sin(np.pi * (axis / (0.8 * period) + phase)) * flank, -1, 1) for axis in (x, y))
    return 0.5 + 0.5 * np.prod(list(waves), axis=0)


def patch_labels(scene: Scene, time: float, num_patches: int, oversample: int = 8) -> tuple[np.ndarray, ...]:
    """Return what each patch of one frame shows, for the vision tower's dense training.

    Returns:
        covered (num_patches, num_patches) float32, share of the patch that its object covers;
        kind and color (num_patches, num_patches) int64, its object, -1 where there is none.
    """
    grid = pixel_grid(num_patches * oversample)
    covered = np.zeros((num_patches, num_patches), np.float32)
    kind = np.full((num_patches, num_patches), -1)
    color = np.full((num_patches, num_patches), -1)
    for shape in scene.objects:
        if not shape.is_visible(time):
            continue
        canvas = np.zeros_like(grid[0])
        alpha, window = coverage(shape, time, *grid)
        canvas[window] = alpha
        share = canvas.reshape(num_patches, oversample, num_patches, oversample).mean((1, 3))
        mine = share > covered
        covered[mine] = share[mine]
        kind[mine] = SHAPES.index(shape.kind)
        color[mine] = list(COLORS).index(shape.color)
    return covered, kind, color
