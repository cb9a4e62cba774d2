# SPDX-License-Identifier: MIT
"""Procedural landscapes: one geometry, painted with any palette.

A scene is a list of layers (material, coverage, shade), and a palette gives every material its dark
and its light colour. Two pictures of one scene thus differ in colour and in nothing else.

Only additions, multiplications, divisions, square roots and comparisons of single elements are
used, all of which IEEE 754 rounds in one way, so that a scene's pixels are the same on every
machine and with every version of numpy (sines and sums are not).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np

from cyclegan_fast import draws
from cyclegan_fast.data.noise import octaves

__all__ = ["MATERIALS", "Palette", "render"]

MATERIALS = (
    "sky cloud halo sun mountain peak forest hill ground path bank water flower shadow trunk "
    "needles needles_top leaves leaves_top wall roof window"
).split()
Palette = dict[str, tuple[int, int]]  # material -> (dark, light), each 0xRRGGBB

_TREES = 5
_FAR_TREES = 2  # the first ones stand behind the house
_FIELDS = {"soft": (3, 6, 12, 24), "grain": (8, 16, 32, 64)}  # cells per octave
_RIDGES = {"far": (5, 10, 20, 40), "middle": (2, 4, 8), "near": (2, 3, 6), "path": (2, 4)}
_FLOWERS = 28  # cells across
_SCALARS = 64
_Plane = np.ndarray | np.float32  # a number must be float32 too, or numpy computes in float64
_WHOLE = (slice(None), slice(None), slice(None))


def render(
    seed: int, stream: str, numbers: range, size: int, palettes: list[Palette]
) -> list[np.ndarray]:
    """Paints scenes.

    Args:
        seed: seed of the whole set, in [0, 2**64).
        stream: name of a part of the set; different names give different scenes.
        numbers: numbers of the scenes in their part.
        size: side of the square pictures.
        palettes: one or more, each with every one of MATERIALS.

    Returns:
        For each palette uint8 [len(numbers), size, size, 3]; entry i of each is the same scene.
    """
    lattices = [(n + 1) ** 2 for cells in _FIELDS.values() for n in cells]
    lattices += [n + 1 for cells in _RIDGES.values() for n in cells]
    lattices.append(_FLOWERS**2)
    length = _SCALARS + sum(lattices)
    drawn = np.stack([draws.uniforms(seed, stream, number, length) for number in numbers])
    scenes = _Scenes(drawn.astype(np.float32), lattices, size)
    layers = [*_landscape(scenes)]
    for number in range(len(numbers)):
        layers += _objects(scenes, number)
    shape = (3, len(numbers), size, size)
    return [_paint(layers, palette, shape) for palette in palettes]


@dataclass(frozen=True)
class _Layer:
    """Coverage and shade broadcast to canvas[where]: [n, S, S], or a window of one scene."""

    material: str
    coverage: _Plane
    shade: _Plane
    where: tuple = _WHOLE


class _Scenes:
    """What is drawn for n scenes: scalars, ridges [n, 1, S] and fields [n, S, S] in [0, 1]."""

    def __init__(self, drawn: np.ndarray, lattices: list[int], size: int) -> None:
        self.size = size
        centres = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
        self.x, self.y = centres[None, None, :], centres[None, :, None]
        self._scalars = iter(drawn[:, :_SCALARS].T)
        rest = iter(np.split(drawn[:, _SCALARS:], np.cumsum(lattices)[:-1], axis=1))
        self.fields, self.ridges = {}, {}
        for name, cells in _FIELDS.items():
            squares = [next(rest).reshape(-1, n + 1, n + 1) for n in cells]
            self.fields[name] = np.clip(octaves(squares, size), 0, 1)
        for name, spans in _RIDGES.items():
            self.ridges[name] = octaves([next(rest)[:, None, :] for _ in spans], size)
        self.flowers = next(rest).reshape(-1, _FLOWERS, _FLOWERS)
        self.sun_x, self.sun_y = self.draw(0.12, 0.88), self.draw(0.08, 0.22)
        self.side = np.sign(self.sun_x - 0.5)  # slopes and trees are lit from the sun's side
        self.near = self.draw(0.58, 0.66) - self.draw(0.06, 0.16) * (self.ridges["near"] - 0.5)
        self.objects = drawn[:, _SCALARS - 5 - 3 * _TREES : _SCALARS].tolist()

    def draw(self, low: float, high: float) -> np.ndarray:
        """Takes each scene's next scalar, [n, 1, 1], uniform in [low, high)."""
        return low + (high - low) * next(self._scalars)[:, None, None]

    def inside(self, distance: np.ndarray) -> np.ndarray:
        """Coverage of a pixel whose centre lies so deep, in picture sides, inside an edge."""
        return np.clip(distance * self.size + 0.5, 0, 1)


def _landscape(s: _Scenes) -> Iterator[_Layer]:
    """Yields all that fills the frame, from the back to the front."""
    grain, soft, near = s.fields["grain"], s.fields["soft"], s.near
    flat = np.minimum(2 * np.arange(s.size), s.size - 1)  # rows that make noise wider than high
    streaks, ripple = soft[:, flat], grain[:, flat]
    far = s.draw(0.36, 0.44) - s.draw(0.20, 0.48) * (s.ridges["far"] - 0.5)
    middle = s.draw(0.46, 0.53) - s.draw(0.08, 0.24) * (s.ridges["middle"] - 0.5)

    yield _Layer("sky", np.float32(1), s.y * 2.2)
    radius = s.draw(0.045, 0.065)
    distance = _norm(s.x - s.sun_x, s.y - s.sun_y)
    glow = np.clip(1 - distance / (4 * radius), 0, 1)
    yield _Layer("halo", glow * glow * 0.8, glow)
    yield _Layer("sun", s.inside(radius - distance), glow)
    clouds = np.clip((streaks - s.draw(0.45, 0.60)) * 5, 0, 1)
    yield _Layer("cloud", clouds * np.clip(1.2 - 1.8 * s.y, 0, 1) * 0.9, streaks * 1.2)

    light, mountain = _lit(far, s.side), s.inside(s.y - far)
    light = 0.5 + (light - 0.5) * np.clip(1 - 5 * (s.y - far), 0.1, 1)
    yield _Layer("mountain", mountain, 0.6 * light + 0.5 * grain)
    above_snow_line = np.clip((0.33 + 0.12 * (soft - 0.5) - s.y) * 25, 0, 1)
    yield _Layer("peak", mountain * above_snow_line, 0.8 * light + 0.3 * grain)

    comb = s.x * 26 - np.floor(s.x * 26)
    height = 0.05 * (1 - np.abs(2 * comb - 1)) * (0.5 + s.ridges["far"])
    forest = s.inside(s.y - middle + 0.012 + height) * s.inside(middle + 0.03 - s.y)
    yield _Layer("forest", forest * np.clip((soft - 0.42) * 12, 0, 1), comb * grain * 1.6)
    hill = 0.5 * _lit(middle, s.side) + 0.25 * (soft + grain)
    yield _Layer("hill", s.inside(s.y - middle - 0.004), hill)

    depth = np.clip((s.y - near) / (1 - near), 0, 1)
    ground = s.inside(s.y - near)
    shade = 0.85 - 0.55 * depth + 0.5 * (grain - 0.5) + 0.25 * (soft - 0.5)
    yield _Layer("ground", ground, shade)
    start, end = s.draw(0.2, 0.8), s.draw(0.1, 0.9)
    bend = 0.3 * (s.ridges["path"].transpose(0, 2, 1) - 0.5)
    width = 0.012 + 0.10 * depth * depth
    path = s.inside(width - np.abs(s.x - start - (end - start) * depth - bend)) * ground
    path *= s.draw(0, 1) < 0.5
    yield _Layer("path", path, 0.3 + 0.8 * grain - 0.3 * depth)

    # The pond lies on the other side than the foot of the path.
    x = np.where(end < 0.5, s.draw(0.62, 0.9), s.draw(0.1, 0.38))
    y, rx = s.draw(0.8, 0.92), s.draw(0.12, 0.22)
    ry = rx * s.draw(0.22, 0.36)
    out, there = _norm((s.x - x) / rx, (s.y - y) / ry), s.draw(0, 1) < 0.5
    yield _Layer("bank", s.inside((1.18 - out) * ry) * there, streaks)
    yield _Layer("water", s.inside((1 - out) * ry) * there, 0.5 * (streaks + ripple))
    dry = (1 - path) * np.clip(out * 4 - 5, 0, 1)
    # A flower in some cells of a grid, at a place of its own.
    column, row = s.x * _FLOWERS, s.y * _FLOWERS
    chance = s.flowers[:, row[0].astype(np.int64), column[0].astype(np.int64)]
    aside, ahead = (chance * k - np.floor(chance * k) for k in (61, 97))
    off = _norm(
        column - np.floor(column) - 0.25 - 0.5 * aside, row - np.floor(row) - 0.25 - 0.5 * ahead
    )
    dots = s.inside((0.22 - off) / _FLOWERS) * (chance < 0.3 * (s.draw(0, 1) - 0.5))
    yield _Layer("flower", dots * dry * np.clip((depth - 0.1) * 9, 0, 1), aside)


class _Window:
    """The part of one scene around an object, in the object's own coordinates.

    u runs from the foot to the right, v from the foot upwards, both in units of the object's size.
    """

    def __init__(self, s: _Scenes, number: int, x: float, foot: float, size: float) -> None:
        rows = _pixels(foot - 1.1 * size, foot + 0.2 * size, s.size)
        columns = _pixels(x - 0.8 * size, x + 0.8 * size, s.size)
        self.u = (s.x[0, :, columns] - x) / size
        self.v = (foot - s.y[0, rows, :]) / size
        self.grain = s.fields["grain"][number, rows, columns]
        self._scale = size * s.size
        self._where = (number, rows, columns)

    def layer(self, material: str, inside: np.ndarray, shade: _Plane, cover=1.0) -> _Layer:
        """Makes a layer of what is this deep inside, in the object's units."""
        coverage = np.clip(inside * self._scale + 0.5, 0, 1) * cover
        return _Layer(material, coverage, shade, self._where)

    def box(self, left: float, right: float, low: float, high: float) -> np.ndarray:
        """Depth inside a rectangle."""
        across = np.minimum(self.u - left, right - self.u)
        return np.minimum(across, np.minimum(self.v - low, high - self.v))

    def shadow(self, u: float, width: float, height: float, cover: float) -> _Layer:
        """A soft ellipse on the ground, centred u to the right of the foot."""
        depth = 1 - _norm((self.u - u) / width, self.v / height)
        return self.layer("shadow", depth * height, self.grain, cover)


def _objects(s: _Scenes, number: int) -> Iterator[_Layer]:
    """Yields the trees and the house of one scene, from the back to the front."""
    there, x, size, depth, _, *trees = s.objects[number]
    side = float(s.side[number, 0, 0])
    near = s.near[number, 0]

    def foot(x: float, depth: float) -> float:
        return min(float(near[min(int(x * s.size), s.size - 1)]) + depth, 0.97)

    for tree in range(_TREES):
        if tree == _FAR_TREES and there < 0.55:
            width, middle = 0.20 + 0.06 * size, 0.18 + 0.64 * x
            yield from _house(_Window(s, number, middle, foot(middle, 0.06 + 0.04 * depth), width))
        exists, at, grown = trees[3 * tree : 3 * tree + 3]
        if exists < 0.8:
            at, deep = 0.03 + 0.94 * at, 0.03 + 0.34 * (tree + grown) / _TREES
            height = (0.20 + 0.08 * grown) * (0.8 + 2.4 * deep)
            window = _Window(s, number, at, foot(at, deep), height)
            yield from (_leafy if tree % 2 else _conifer)(window, side)


def _house(w: _Window) -> Iterator[_Layer]:
    yield w.shadow(0.0, 0.7, 0.1, 0.6)
    yield w.layer("wall", w.box(-0.5, 0.5, 0.0, 0.55), 0.35 + 0.3 * (w.u > 0) + 0.4 * w.grain)
    yield w.layer("trunk", w.box(-0.09, 0.09, 0.0, 0.3), w.grain)  # the door
    panes = np.maximum(w.box(-0.39, -0.19, 0.18, 0.38), w.box(0.19, 0.39, 0.18, 0.38))
    yield w.layer("window", panes, w.grain)
    yield w.layer("wall", w.box(0.2, 0.32, 0.6, 1.0), np.float32(0.1))  # the chimney
    up = w.v - 0.5
    roof = np.minimum(w.box(-1, 1, 0.46, 0.92), (0.62 - np.abs(w.u) - 0.55 * up) * 0.88)
    yield w.layer("roof", roof, 0.25 + 1.2 * np.clip(up, 0, 1) + 0.35 * w.grain)


def _conifer(w: _Window, side: float) -> Iterator[_Layer]:
    yield from _trunk(w, side)
    tiers, caps = [], []
    for low, high, reach in ((0.16, 0.56, 0.27), (0.38, 0.78, 0.21), (0.60, 1.0, 0.15)):
        half = reach * (high - w.v) / (high - low)
        tiers.append(np.minimum((half - np.abs(w.u)) * 0.85, w.v - low))
        cap = w.v - low - (high - low) * (0.15 + 0.6 * w.grain)
        caps.append(np.minimum(tiers[-1], cap))
    light = 0.5 + 2.2 * side * w.u + 0.8 * (w.grain - 0.5)
    yield w.layer("needles", reduce(np.maximum, tiers), light)
    yield w.layer("needles_top", reduce(np.maximum, caps), light)


def _leafy(w: _Window, side: float) -> Iterator[_Layer]:
    yield from _trunk(w, side)
    balls = ((-0.14, 0.52, 0.2), (0.15, 0.55, 0.19), (0.0, 0.74, 0.22))
    crown = reduce(np.maximum, [r - _norm(w.u - u, w.v - v) for u, v, r in balls])
    crown = crown - 0.07 * (w.grain - 0.3)
    light = 0.35 + 1.3 * side * w.u + 1.1 * (w.v - 0.6) + 0.9 * (w.grain - 0.5)
    yield w.layer("leaves", crown, light)
    top = w.v - 0.55 - 0.3 * (w.grain - 0.5) + 0.35 * side * w.u
    yield w.layer("leaves_top", np.minimum(crown, top), light)


def _trunk(w: _Window, side: float) -> Iterator[_Layer]:
    yield w.shadow(-0.12 * side, 0.4, 0.06, 0.55)
    yield w.layer("trunk", w.box(-0.035, 0.035, 0.0, 0.4), 0.5 + 21 * side * w.u)


def _paint(layers: list[_Layer], palette: Palette, shape: tuple[int, ...]) -> np.ndarray:
    canvas = np.zeros(shape, dtype=np.float32)
    for layer in layers:
        dark, light = palette[layer.material]
        shade = np.clip(layer.shade, 0, 1)
        for plane, bits in zip(canvas, (16, 8, 0), strict=True):
            low, high = dark >> bits & 255, light >> bits & 255
            part = plane[layer.where]
            part += layer.coverage * (low + (high - low) * shade - part)
    levels = np.floor(np.clip(canvas, 0, 255) + 0.5).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(1, 2, 3, 0))


def _pixels(low: float, high: float, size: int) -> slice:
    return slice(min(max(0, int(low * size)), size - 1), min(max(1, int(high * size) + 1), size))


def _norm(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.sqrt(u * u + v * v)


def _lit(ridge: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Light on a slope, 0 to 1: bright where the ridge falls away from the sun's side."""
    slope = np.zeros_like(ridge)
    slope[..., 1:] = (ridge[..., 1:] - ridge[..., :-1]) * ridge.shape[-1]
    return np.clip(0.5 + 0.6 * side * slope, 0, 1)
