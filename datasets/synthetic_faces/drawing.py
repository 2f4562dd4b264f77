"""Drawing faces: soft shapes laid over each other, for many pictures at once.

Only sums, products, quotients, square roots and comparisons of float32 are used on pixels. IEEE 754 defines those to
the last bit, so that the pictures are the same bytes on every machine; sines and exponentials are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from forgetbench.datasets.synthetic_faces.people import Table, rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane = NDArray[np.floating[Any]]

CHUNK = 65536
"""Pixels that are drawn at once: few enough for the processor's cache."""


def draw(look: Table, size: int, grain: np.random.Generator) -> NDArray[np.uint8]:
    """The pictures of a table of looks.

    Args:
        look: Columns of :func:`forgetbench.datasets.synthetic_faces.people.look`, N rows.
        size: Side of a picture in pixels.
        grain: Where the noise of the film comes from.

    Returns:
        uint8, (N, 3, size, size).
    """
    count = len(look["scale"])
    images = np.empty((count, 3, size, size), dtype=np.uint8)
    step = max(1, CHUNK // size**2)
    for start in range(0, count, step):
        chosen = slice(start, start + step)
        easel = Canvas(rows(look, chosen), size)
        for layer in (background, long_hair, shoulders, head, wrinkles, beard, eyes, nose, mouth, hair, brows, glasses):
            layer(easel)
        noise = grain.random((easel.count, 1, size, size), dtype=np.float32)
        images[chosen] = easel.develop(noise)
    return images


class Canvas:
    """A stack of canvases, with the frame of every head.

    Attributes:
        u, v: (N, size, size), place of every pixel in the frame of the head; v grows downwards.
        canvas: (N, 3, size, size), colors from 0 to 255.
    """

    def __init__(self, look: Table, size: int) -> None:
        self.count = len(look["scale"])
        self._look = look
        ticks = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
        self.x, self.y = np.broadcast_arrays(ticks[None, None, :], ticks[None, :, None])
        across, down, scale, sine = (self.number(name) for name in ("shift_x", "shift_y", "scale", "tilt"))
        cosine = np.sqrt(1 - sine * sine)
        x, y = self.x - across, self.y - down
        self.u: Plane = (x * cosine + y * sine) / scale
        self.v: Plane = (y * cosine - x * sine) / scale
        self.inverse_pixel = scale * (size / 2)
        self.canvas = np.zeros((self.count, 3, size, size), dtype=np.float32)

    def number(self, name: str) -> Plane:
        """A measure of every picture, (N, 1, 1)."""
        return self._look[name].astype(np.float32)[:, None, None]

    def color(self, name: str) -> Plane:
        """A color of every picture, (N, 3, 1, 1)."""
        return self._look[name].astype(np.float32)[:, :, None, None]

    def constant(self, value: float) -> Plane:
        """A measure that is the same in every picture, (N, 1, 1)."""
        return np.full((self.count, 1, 1), value, dtype=np.float32)

    def flat(self, red: int, green: int, blue: int) -> Plane:
        """A color that is the same in every picture, (1, 3, 1, 1)."""
        return np.array([red, green, blue], dtype=np.float32)[None, :, None, None]

    def paint(self, distance: Plane, color: Plane, opacity: Plane | float = 1.0, soft: float = 1.0) -> None:
        """Lay a color over the region of negative distance; its edge is ``soft`` pixels wide."""
        alpha = np.clip(0.5 - distance * (self.inverse_pixel / soft), 0, 1)
        alpha *= opacity
        self.canvas += alpha[:, None] * (color - self.canvas)

    def ellipse(self, u: Plane, v: Plane, across: Plane, down: Plane) -> Plane:
        """About the distance to an ellipse, negative inside."""
        du, dv = (self.u - u) / across, (self.v - v) / down
        distance: Plane = (np.sqrt(du * du + dv * dv) - 1) * np.minimum(across, down)
        return distance

    def stroke(self, start: tuple[Plane, Plane], end: tuple[Plane, Plane], radius: Plane) -> Plane:
        """The distance to a line with round ends."""
        du, dv = self.u - start[0], self.v - start[1]
        eu, ev = end[0] - start[0], end[1] - start[1]
        along = np.clip((du * eu + dv * ev) / (eu * eu + ev * ev), 0, 1)
        du, dv = du - along * eu, dv - along * ev
        distance: Plane = np.sqrt(du * du + dv * dv) - radius
        return distance

    def turned(self, u: Plane, depth: float) -> Plane:
        """Where a point of the face lies after the head has turned; ``depth`` is how far it stands out."""
        sine = self.number("yaw")
        place: Plane = u * np.sqrt(1 - sine * sine) + depth * sine
        return place

    def narrowed(self, side: int) -> Plane:
        """How much narrower things on one side (-1 or 1) of a turned face look."""
        sine = self.number("yaw")
        factor: Plane = np.maximum(np.sqrt(1 - sine * sine) - (0.5 * side) * sine, 0.3)
        return factor

    def level(self, name: str) -> Plane:
        """A level on the face, after the head has nodded."""
        return self.number(name) + self.number("pitch")

    def skull(self, more: Plane | float = 0.0, offset: float = 0.0) -> Plane:
        """About the distance to the outline of the head, grown by ``more``."""
        width = self.number("head_width") + more
        center = offset * self.number("yaw")
        down = self.v / np.where(self.v < 0, self.number("head_top") + more, self.number("chin") + more)
        below = np.maximum(down, 0)
        across = (self.u - center) / (width * (1 - self.number("taper") * below * below))
        a, b = across * across, down * down
        square = self.number("square") * np.minimum(below * 2, 1)
        radius = np.sqrt(a + b)
        distance: Plane = (radius + square * (np.sqrt(np.sqrt(a * a + b * b)) - radius) - 1) * width
        return distance

    def develop(self, noise: Plane) -> NDArray[np.uint8]:
        """Light falls on the scene, the film has its grain; uint8, (N, 3, size, size)."""
        width, height = self.number("head_width"), self.number("head_top")
        slope = (self.u / width) * self.number("light_x") + (self.v / height) * self.number("light_y")
        round_off = np.minimum((self.u / width) ** 2 + (self.v / height) ** 2, 1.6)
        depth = self.number("light_depth")
        shade = np.clip(1.06 + depth * slope - 0.12 * round_off, 0.3, 1.5)
        lit = self.canvas * (shade[:, None] * self.color("light")) + (noise - 0.5) * 12
        return np.clip(lit + 0.5, 0, 255).astype(np.uint8)


def background(easel: Canvas) -> None:
    """A wall that grows lighter or darker, and something that hangs or stands there."""
    easel.canvas[:] = easel.color("wall") + (easel.number("slope") * easel.y)[:, None]
    x, y, size = (easel.number(name) for name in ("thing_x", "thing_y", "thing_size"))
    dx, dy = np.abs(easel.x - x), np.abs(easel.y - y)
    kind = easel.number("thing_kind")
    disc, box, post = np.sqrt(dx * dx + dy * dy) - size, np.maximum(dx, dy) - size, dx - size * 0.5
    easel.paint(np.where(kind < 0.3, disc, np.where(kind < 0.6, box, post)), easel.color("thing"), 0.8)


def long_hair(easel: Canvas) -> None:
    """Hair that falls behind the head."""
    length, volume = easel.number("hair_length"), easel.number("volume")
    width = easel.number("head_width") + volume + 0.02
    side = np.abs(easel.u + 0.12 * easel.number("yaw")) - width - waves(easel)
    fall = np.maximum(side, easel.v - length)
    easel.paint(
        np.maximum(fall, -easel.v - 0.2),
        easel.color("hair") * 0.8,
        easel.number("hair_cover") * (length > 0.1),
    )


def shoulders(easel: Canvas) -> None:
    """Neck and clothes."""
    neck = easel.number("head_width") * easel.number("neck")
    zero = easel.constant(0)
    easel.paint(np.maximum(np.abs(easel.u) - neck, -easel.v), easel.color("skin") * 0.72)
    easel.paint(
        easel.ellipse(zero, easel.constant(1.42), easel.constant(1.0), easel.constant(0.56)),
        easel.color("shirt"),
    )


def head(easel: Canvas) -> None:
    """Ears, face and cheeks."""
    skin, size, level = easel.color("skin"), easel.number("ears"), easel.level("eye_level")
    for side in (-1, 1):
        place = side * easel.number("head_width") - 0.12 * easel.number("yaw")
        ear = easel.ellipse(place, level + 0.12, size, 1.6 * size)
        easel.paint(ear, skin * 0.88)
    outline = easel.skull()
    easel.paint(outline, skin)
    # The rim of the face lies in the shade: it lifts the head off a wall of its own color.
    easel.paint(-outline - 0.07, skin * 0.72, 0.45 * (outline < 0.03), soft=2.0)
    for side in (-1, 1):
        place = easel.turned(easel.constant(side * 0.27), 0.3)
        cheek = easel.ellipse(place, easel.level("nose_level"), 0.13 * easel.narrowed(side), easel.constant(0.11))
        easel.paint(
            cheek, skin * np.array([1.02, 0.72, 0.70], np.float32)[:, None, None], easel.number("blush"), soft=3.0
        )
    speckle(easel)


def speckle(easel: Canvas) -> None:
    """Freckles: a lattice of dots over nose and cheeks, each person's own."""
    amount, place = easel.number("freckles"), easel.number("freckle_place")
    fine = triangle(easel.u * 9 + place * 2) * triangle(easel.v * 11 - place * 3 + easel.u * 3)
    zero = easel.constant(0)
    area = easel.ellipse(
        easel.turned(zero, 0.35),
        easel.level("nose_level") - 0.08,
        easel.constant(0.36),
        easel.constant(0.14),
    )
    easel.paint(area, easel.color("skin") * 0.62, amount * 0.7 * np.clip(fine * 3 - 1, 0, 1), soft=2.0)


def wrinkles(easel: Canvas) -> None:
    """Lines of the forehead, folds beside the mouth, bags under the eyes."""
    ink = easel.color("skin") * 0.55
    old, folds = easel.number("wrinkles"), easel.number("folds")
    thin = easel.constant(0.012)
    brow = easel.level("brow_level")
    for lift in (0.10, 0.19):
        ends = [(easel.turned(easel.constant(side * 0.24), 0.3), brow - lift) for side in (-1, 1)]
        easel.paint(easel.stroke(ends[0], ends[1], thin), ink, old * 0.75)
    nose, mouth = easel.level("nose_level"), easel.level("mouth_level")
    grin = np.maximum(easel.number("grin"), 0)
    for side in (-1, 1):
        wing = (easel.turned(side * (easel.number("nose_width") + 0.04), 0.4), nose)
        corner = (easel.turned(side * (easel.number("mouth_width") + 0.06), 0.3), mouth)
        easel.paint(easel.stroke(wing, corner, thin), ink, np.minimum(folds * 0.6 + grin * 2, 0.8))
        eye = easel.turned(side * easel.number("eye_distance"), 0.35)
        reach = easel.number("eye_size") * easel.narrowed(side)
        under = easel.level("eye_level") + easel.number("eye_size") * 0.95
        easel.paint(easel.stroke((eye - reach, under), (eye + reach, under), thin), ink, old * 0.6)
        outer = eye + (side * 1.5) * reach
        crow = easel.stroke((outer, under - reach), (outer + (side * 0.07), under - reach * 1.3), thin)
        easel.paint(crow, ink, np.minimum(old * 0.5 + grin * folds * 2, 0.8))


def beard(easel: Canvas) -> None:
    """A beard on jaw and chin, and a moustache."""
    outline, mouth = easel.skull(), easel.level("mouth_level")
    across = (easel.u - easel.turned(easel.constant(0), 0.15)) / easel.number("head_width")
    edge = mouth + 0.06 - 0.5 * across * across
    color = easel.color("brows")
    easel.paint(np.maximum(outline - 0.02, edge - easel.v), color, easel.number("beard"), soft=2.0)
    lip = mouth - 0.075 - easel.number("lips")
    center, reach = easel.turned(easel.constant(0), 0.4), easel.number("mouth_width") * 0.85
    line = easel.stroke((center - reach, lip + 0.03), (center + reach, lip + 0.03), easel.constant(0.035))
    easel.paint(line, color, easel.number("moustache"))


def eyes(easel: Canvas) -> None:
    """Whites, irises, pupils and lids."""
    size, slit, level = easel.number("eye_size"), easel.number("eye_slit"), easel.level("eye_level")
    white = easel.flat(240, 240, 240)
    dark = easel.flat(18, 18, 18)
    for side in (-1, 1):
        center = easel.turned(side * easel.number("eye_distance"), 0.35)
        reach = size * easel.narrowed(side)
        ball = easel.ellipse(center, level, reach, size * slit)
        easel.paint(
            easel.ellipse(center, level, reach * 1.25, size * 0.85),
            easel.color("skin") * 0.78,
            0.5,
            soft=2.0,
        )
        easel.paint(ball, white)
        gaze = center + 0.04 * easel.number("yaw")
        iris = easel.ellipse(gaze, level, size * 0.5, size * 0.5)
        easel.paint(np.maximum(iris, ball), easel.color("eyes"))
        easel.paint(np.maximum(iris + size * 0.27, ball), dark)
        lid = level - size * slit
        easel.paint(
            easel.stroke(
                (center - reach, lid + size * 0.18),
                (center + reach, lid + size * 0.1),
                size * 0.12,
            ),
            dark,
            easel.number("lashes"),
        )


def nose(easel: Canvas) -> None:
    """The ridge, lit on one side, and the wings."""
    skin, width = easel.color("skin"), easel.number("nose_width")
    zero = easel.constant(0)
    top, tip = easel.level("eye_level"), easel.level("nose_level")
    lit = np.where(easel.number("light_x") < 0, 1, (-1))
    ridge, end = easel.turned(zero, 0.36), easel.turned(zero, 0.52)
    edge = lit * width * 0.75
    easel.paint(
        easel.stroke((ridge + edge * 0.6, top), (end + edge, tip), easel.constant(0.022)),
        skin * 0.7,
        0.6,
        soft=1.5,
    )
    easel.paint(
        easel.stroke((ridge, top), (end, tip - 0.02), easel.constant(0.025)),
        np.minimum(skin * 1.1, 255),
        0.5,
        soft=1.5,
    )
    easel.paint(
        easel.ellipse(end, tip + 0.025, width, easel.constant(0.035)),
        skin * 0.6,
        0.7,
        soft=1.3,
    )


def mouth(easel: Canvas) -> None:
    """Lips along a bow that a smile bends upwards; an open mouth shows dark, or teeth."""
    level, width, lips = easel.level("mouth_level"), easel.number("mouth_width"), easel.number("lips")
    center, opened = easel.turned(easel.constant(0), 0.42), easel.number("open")
    across = (easel.u - center) / (width * easel.narrowed(0))
    bow = level + easel.number("grin") * (0.35 - across * across)
    fade = np.maximum(1 - across * across, 0)
    ends = (np.abs(across) - 1) * width
    rise = np.abs(easel.v - bow)
    lip = easel.color("lip_color")
    easel.paint(np.maximum(rise - (lips + opened) * (0.35 + 0.65 * fade), ends), lip)
    gap = np.maximum(rise - np.maximum(opened * fade, 0.012), ends)
    inside = easel.flat(60, 28, 28)
    easel.paint(gap, inside, 0.85)
    upper = np.maximum(gap + 0.01, easel.v - bow - opened * 0.3)
    easel.paint(upper, easel.flat(238, 238, 238), easel.number("teeth"))


def hair(easel: Canvas) -> None:
    """Hair around the head, above a hairline that falls to the temples."""
    across = easel.u / easel.number("head_width")
    square = across * across
    line = easel.number("hairline") + easel.number("fringe") * across * 0.5 + easel.number("temples") * square * square
    cap = easel.skull(easel.number("volume"), offset=-0.12) - waves(easel)
    region = np.maximum(cap, easel.v - np.minimum(line, easel.number("eye_level") + 0.12))
    strands = 0.86 + 0.24 * triangle(easel.u * 7 + easel.v * 2 * easel.number("fringe"))
    easel.paint(region, easel.color("hair") * strands[:, None], easel.number("hair_cover"))


def brows(easel: Canvas) -> None:
    """Two strokes in the hair's color."""
    weight, level, slant = easel.number("brow_weight"), easel.level("brow_level"), easel.number("brow_slant")
    for side in (-1, 1):
        center = easel.turned(side * easel.number("eye_distance"), 0.35)
        reach = (side * 1.05) * easel.number("eye_size") * easel.narrowed(side)
        easel.paint(
            easel.stroke((center - reach, level + slant), (center + reach, level - slant), weight),
            easel.color("brows"),
            0.9,
        )


def glasses(easel: Canvas) -> None:
    """Round or square rims with a bridge."""
    wears, frame = easel.number("glasses"), easel.number("frame")
    rim = easel.flat(30, 30, 30) + 150 * (frame > 0.7)[:, None]
    level = easel.level("eye_level") + 0.02
    radius = easel.number("eye_size") * 1.15 + 0.03
    thick = 0.016 + 0.018 * frame
    centers = []
    for side in (-1, 1):
        center = easel.turned(side * easel.number("eye_distance"), 0.38)
        reach = radius * easel.narrowed(side)
        du, dv = np.abs(easel.u - center) / reach, np.abs(easel.v - level) / radius
        away = np.where(frame < 0.5, np.sqrt(du * du + dv * dv), np.maximum(du, dv * 1.2))
        easel.paint(np.abs(away - 1) * radius - thick, rim, wears * 0.9)
        centers.append(center - side * reach)
    easel.paint(easel.stroke((centers[0], level), (centers[1], level), thick), rim, wears * 0.9)


def waves(easel: Canvas) -> Plane:
    """How far curls stand out from the outline."""
    return easel.number("curl") * (triangle(easel.u * 5) + triangle(easel.v * 5))


def triangle(value: Plane) -> Plane:
    """A triangle wave from 0 to 1 with period 1."""
    return np.abs(2 * (value - np.floor(value)) - 1)
