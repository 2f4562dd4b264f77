"""Rendering of faces as layers of soft shapes, for many images at once.

Only sums, products, quotients, square roots and comparisons of float32 are used on pixels. IEEE 754 defines them to the
last bit, so that images have the same bytes on every machine; sines and exponentials are not defined so exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from forgetbench.datasets.synthetic_faces.people import Table, take_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane = NDArray[np.floating[Any]]

CHUNK = 65536
"""Pixels that are rendered at once: few enough for the processor's cache."""


def render(appearance: Table, size: int, noise_rng: np.random.Generator) -> NDArray[np.uint8]:
    """Render images from a table of appearances.

    Args:
        appearance: Columns of :func:`forgetbench.datasets.synthetic_faces.people.compute_appearance`, N rows.
        size: Side of an image in pixels.
        noise_rng: Source of the pixel noise.

    Returns:
        uint8, (N, 3, size, size).
    """
    count = len(appearance["scale"])
    images = np.empty((count, 3, size, size), dtype=np.uint8)
    step = max(1, CHUNK // size**2)
    for start in range(0, count, step):
        chosen = slice(start, start + step)
        canvas = Canvas(take_rows(appearance, chosen), size)
        for layer in (background, long_hair, shoulders, head, wrinkles, beard, eyes, nose, mouth, hair, brows, glasses):
            layer(canvas)
        noise = noise_rng.random((canvas.count, 1, size, size), dtype=np.float32)
        images[chosen] = canvas.to_uint8(noise)
    return images


class Canvas:
    """N images being drawn, with the coordinates of every head.

    Coordinates are in units of half the image; y and v grow downwards.

    Attributes:
        count: N.
        x, y: (1, size, size), coordinates of the pixels in the image.
        u, v: (N, size, size), coordinates of the pixels relative to the head.
        inverse_pixel: (N, 1, 1), pixels per unit of u and v.
        pixels: (N, 3, size, size), colors from 0 to 255.
    """

    def __init__(self, appearance: Table, size: int) -> None:
        self.count = len(appearance["scale"])
        self._appearance = appearance
        ticks = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
        self.x, self.y = np.broadcast_arrays(ticks[None, None, :], ticks[None, :, None])
        across, down, scale, sine = (self.measure(name) for name in ("shift_x", "shift_y", "scale", "tilt"))
        cosine = np.sqrt(1 - sine * sine)
        x, y = self.x - across, self.y - down
        self.u: Plane = (x * cosine + y * sine) / scale
        self.v: Plane = (y * cosine - x * sine) / scale
        self.inverse_pixel = scale * (size / 2)
        self.pixels = np.zeros((self.count, 3, size, size), dtype=np.float32)

    def measure(self, name: str) -> Plane:
        """Return a measure of every image, (N, 1, 1)."""
        return self._appearance[name].astype(np.float32)[:, None, None]

    def color(self, name: str) -> Plane:
        """Return a color of every image, (N, 3, 1, 1)."""
        return self._appearance[name].astype(np.float32)[:, :, None, None]

    def constant(self, value: float) -> Plane:
        """Return a measure that is the same in every image, (N, 1, 1)."""
        return np.full((self.count, 1, 1), value, dtype=np.float32)

    def uniform_color(self, red: int, green: int, blue: int) -> Plane:
        """Return a color that is the same in every image, (1, 3, 1, 1)."""
        return np.array([red, green, blue], dtype=np.float32)[None, :, None, None]

    def paint(self, distance: Plane, color: Plane, opacity: Plane | float = 1.0, soft: float = 1.0) -> None:
        """Blend a color over the region of negative distance; its edge is ``soft`` pixels wide."""
        alpha = np.clip(0.5 - distance * (self.inverse_pixel / soft), 0, 1)
        alpha *= opacity
        self.pixels += alpha[:, None] * (color - self.pixels)

    def ellipse(self, u: Plane, v: Plane, across: Plane, down: Plane) -> Plane:
        """Approximate the distance to an ellipse, negative inside."""
        du, dv = (self.u - u) / across, (self.v - v) / down
        distance: Plane = (np.sqrt(du * du + dv * dv) - 1) * np.minimum(across, down)
        return distance

    def stroke(self, start: tuple[Plane, Plane], end: tuple[Plane, Plane], radius: Plane) -> Plane:
        """Compute the distance to a line with round ends, negative inside."""
        du, dv = self.u - start[0], self.v - start[1]
        eu, ev = end[0] - start[0], end[1] - start[1]
        along = np.clip((du * eu + dv * ev) / (eu * eu + ev * ev), 0, 1)
        du, dv = du - along * eu, dv - along * ev
        distance: Plane = np.sqrt(du * du + dv * dv) - radius
        return distance

    def after_yaw(self, u: Plane, depth: float) -> Plane:
        """Return the horizontal position of a point of the turned face; ``depth`` is how far it protrudes."""
        sine = self.measure("yaw")
        place: Plane = u * np.sqrt(1 - sine * sine) + depth * sine
        return place

    def foreshortening(self, side: int) -> Plane:
        """Return the factor by which one side (-1 or 1) of a turned face looks narrower."""
        sine = self.measure("yaw")
        factor: Plane = np.maximum(np.sqrt(1 - sine * sine) - (0.5 * side) * sine, 0.3)
        return factor

    def level(self, name: str) -> Plane:
        """Return the vertical position of a feature of the nodding face."""
        return self.measure(name) + self.measure("pitch")

    def head_outline(self, more: Plane | float = 0.0, offset: float = 0.0) -> Plane:
        """Approximate the distance to the outline of the head, enlarged by ``more``."""
        width = self.measure("head_width") + more
        center = offset * self.measure("yaw")
        down = self.v / np.where(self.v < 0, self.measure("head_top") + more, self.measure("chin") + more)
        below = np.maximum(down, 0)
        across = (self.u - center) / (width * (1 - self.measure("taper") * below * below))
        a, b = across * across, down * down
        square = self.measure("square") * np.minimum(below * 2, 1)
        radius = np.sqrt(a + b)
        distance: Plane = (radius + square * (np.sqrt(np.sqrt(a * a + b * b)) - radius) - 1) * width
        return distance

    def to_uint8(self, noise: Plane) -> NDArray[np.uint8]:
        """Apply light and noise, and return the images: uint8, (N, 3, size, size)."""
        width, height = self.measure("head_width"), self.measure("head_top")
        slope = (self.u / width) * self.measure("light_x") + (self.v / height) * self.measure("light_y")
        round_off = np.minimum((self.u / width) ** 2 + (self.v / height) ** 2, 1.6)
        depth = self.measure("light_depth")
        shade = np.clip(1.06 + depth * slope - 0.12 * round_off, 0.3, 1.5)
        lit = self.pixels * (shade[:, None] * self.color("light")) + (noise - 0.5) * 12
        return np.clip(lit + 0.5, 0, 255).astype(np.uint8)


def background(canvas: Canvas) -> None:
    """A wall with a gradient, and an object in front of it."""
    canvas.pixels[:] = canvas.color("wall") + (canvas.measure("slope") * canvas.y)[:, None]
    x, y, size = (canvas.measure(name) for name in ("object_x", "object_y", "object_size"))
    dx, dy = np.abs(canvas.x - x), np.abs(canvas.y - y)
    kind = canvas.measure("object_kind")
    disc, box, post = np.sqrt(dx * dx + dy * dy) - size, np.maximum(dx, dy) - size, dx - size * 0.5
    canvas.paint(np.where(kind < 0.3, disc, np.where(kind < 0.6, box, post)), canvas.color("object"), 0.8)


def long_hair(canvas: Canvas) -> None:
    """Hair behind the head."""
    length, volume = canvas.measure("hair_length"), canvas.measure("volume")
    width = canvas.measure("head_width") + volume + 0.02
    side = np.abs(canvas.u + 0.12 * canvas.measure("yaw")) - width - waves(canvas)
    fall = np.maximum(side, canvas.v - length)
    canvas.paint(
        np.maximum(fall, -canvas.v - 0.2),
        canvas.color("hair") * 0.8,
        canvas.measure("hair_cover") * (length > 0.1),
    )


def shoulders(canvas: Canvas) -> None:
    """Neck and clothes."""
    neck = canvas.measure("head_width") * canvas.measure("neck")
    zero = canvas.constant(0)
    canvas.paint(np.maximum(np.abs(canvas.u) - neck, -canvas.v), canvas.color("skin") * 0.72)
    canvas.paint(
        canvas.ellipse(zero, canvas.constant(1.42), canvas.constant(1.0), canvas.constant(0.56)),
        canvas.color("shirt"),
    )


def head(canvas: Canvas) -> None:
    """Ears, face and cheeks."""
    skin, size, level = canvas.color("skin"), canvas.measure("ears"), canvas.level("eye_level")
    for side in (-1, 1):
        place = side * canvas.measure("head_width") - 0.12 * canvas.measure("yaw")
        ear = canvas.ellipse(place, level + 0.12, size, 1.6 * size)
        canvas.paint(ear, skin * 0.88)
    outline = canvas.head_outline()
    canvas.paint(outline, skin)
    # A darker rim separates the face from a wall of the same color.
    canvas.paint(-outline - 0.07, skin * 0.72, 0.45 * (outline < 0.03), soft=2.0)
    for side in (-1, 1):
        place = canvas.after_yaw(canvas.constant(side * 0.27), 0.3)
        cheek = canvas.ellipse(
            place, canvas.level("nose_level"), 0.13 * canvas.foreshortening(side), canvas.constant(0.11)
        )
        canvas.paint(
            cheek, skin * np.array([1.02, 0.72, 0.70], np.float32)[:, None, None], canvas.measure("blush"), soft=3.0
        )
    speckle(canvas)


def speckle(canvas: Canvas) -> None:
    """Freckles: a lattice of dots over nose and cheeks, at a position that differs between people."""
    amount, place = canvas.measure("freckles"), canvas.measure("freckle_place")
    fine = triangle(canvas.u * 9 + place * 2) * triangle(canvas.v * 11 - place * 3 + canvas.u * 3)
    zero = canvas.constant(0)
    area = canvas.ellipse(
        canvas.after_yaw(zero, 0.35),
        canvas.level("nose_level") - 0.08,
        canvas.constant(0.36),
        canvas.constant(0.14),
    )
    canvas.paint(area, canvas.color("skin") * 0.62, amount * 0.7 * np.clip(fine * 3 - 1, 0, 1), soft=2.0)


def wrinkles(canvas: Canvas) -> None:
    """Lines of the forehead, folds next to the mouth, bags under the eyes."""
    ink = canvas.color("skin") * 0.55
    old, folds = canvas.measure("wrinkles"), canvas.measure("folds")
    thin = canvas.constant(0.012)
    brow = canvas.level("brow_level")
    for lift in (0.10, 0.19):
        ends = [(canvas.after_yaw(canvas.constant(side * 0.24), 0.3), brow - lift) for side in (-1, 1)]
        canvas.paint(canvas.stroke(ends[0], ends[1], thin), ink, old * 0.75)
    nose, mouth = canvas.level("nose_level"), canvas.level("mouth_level")
    grin = np.maximum(canvas.measure("grin"), 0)
    for side in (-1, 1):
        wing = (canvas.after_yaw(side * (canvas.measure("nose_width") + 0.04), 0.4), nose)
        corner = (canvas.after_yaw(side * (canvas.measure("mouth_width") + 0.06), 0.3), mouth)
        canvas.paint(canvas.stroke(wing, corner, thin), ink, np.minimum(folds * 0.6 + grin * 2, 0.8))
        eye = canvas.after_yaw(side * canvas.measure("eye_distance"), 0.35)
        reach = canvas.measure("eye_size") * canvas.foreshortening(side)
        under = canvas.level("eye_level") + canvas.measure("eye_size") * 0.95
        canvas.paint(canvas.stroke((eye - reach, under), (eye + reach, under), thin), ink, old * 0.6)
        outer = eye + (side * 1.5) * reach
        crow = canvas.stroke((outer, under - reach), (outer + (side * 0.07), under - reach * 1.3), thin)
        canvas.paint(crow, ink, np.minimum(old * 0.5 + grin * folds * 2, 0.8))


def beard(canvas: Canvas) -> None:
    """A beard on jaw and chin, and a moustache."""
    outline, mouth = canvas.head_outline(), canvas.level("mouth_level")
    across = (canvas.u - canvas.after_yaw(canvas.constant(0), 0.15)) / canvas.measure("head_width")
    edge = mouth + 0.06 - 0.5 * across * across
    color = canvas.color("brows")
    canvas.paint(np.maximum(outline - 0.02, edge - canvas.v), color, canvas.measure("beard"), soft=2.0)
    lip = mouth - 0.075 - canvas.measure("lips")
    center, reach = canvas.after_yaw(canvas.constant(0), 0.4), canvas.measure("mouth_width") * 0.85
    line = canvas.stroke((center - reach, lip + 0.03), (center + reach, lip + 0.03), canvas.constant(0.035))
    canvas.paint(line, color, canvas.measure("moustache"))


def eyes(canvas: Canvas) -> None:
    """Whites, irises, pupils and lids."""
    size, slit, level = canvas.measure("eye_size"), canvas.measure("eye_slit"), canvas.level("eye_level")
    white = canvas.uniform_color(240, 240, 240)
    dark = canvas.uniform_color(18, 18, 18)
    for side in (-1, 1):
        center = canvas.after_yaw(side * canvas.measure("eye_distance"), 0.35)
        reach = size * canvas.foreshortening(side)
        ball = canvas.ellipse(center, level, reach, size * slit)
        canvas.paint(
            canvas.ellipse(center, level, reach * 1.25, size * 0.85),
            canvas.color("skin") * 0.78,
            0.5,
            soft=2.0,
        )
        canvas.paint(ball, white)
        gaze = center + 0.04 * canvas.measure("yaw")
        iris = canvas.ellipse(gaze, level, size * 0.5, size * 0.5)
        canvas.paint(np.maximum(iris, ball), canvas.color("eyes"))
        canvas.paint(np.maximum(iris + size * 0.27, ball), dark)
        lid = level - size * slit
        canvas.paint(
            canvas.stroke(
                (center - reach, lid + size * 0.18),
                (center + reach, lid + size * 0.1),
                size * 0.12,
            ),
            dark,
            canvas.measure("lashes"),
        )


def nose(canvas: Canvas) -> None:
    """The ridge, lit on one side, and the wings."""
    skin, width = canvas.color("skin"), canvas.measure("nose_width")
    zero = canvas.constant(0)
    top, tip = canvas.level("eye_level"), canvas.level("nose_level")
    lit = np.where(canvas.measure("light_x") < 0, 1, (-1))
    ridge, end = canvas.after_yaw(zero, 0.36), canvas.after_yaw(zero, 0.52)
    edge = lit * width * 0.75
    canvas.paint(
        canvas.stroke((ridge + edge * 0.6, top), (end + edge, tip), canvas.constant(0.022)),
        skin * 0.7,
        0.6,
        soft=1.5,
    )
    canvas.paint(
        canvas.stroke((ridge, top), (end, tip - 0.02), canvas.constant(0.025)),
        np.minimum(skin * 1.1, 255),
        0.5,
        soft=1.5,
    )
    canvas.paint(
        canvas.ellipse(end, tip + 0.025, width, canvas.constant(0.035)),
        skin * 0.6,
        0.7,
        soft=1.3,
    )


def mouth(canvas: Canvas) -> None:
    """Lips along a bow that a smile bends upwards; an open mouth is dark, or shows teeth."""
    level, width, lips = canvas.level("mouth_level"), canvas.measure("mouth_width"), canvas.measure("lips")
    center, opened = canvas.after_yaw(canvas.constant(0), 0.42), canvas.measure("open")
    across = (canvas.u - center) / (width * canvas.foreshortening(0))
    bow = level + canvas.measure("grin") * (0.35 - across * across)
    fade = np.maximum(1 - across * across, 0)
    ends = (np.abs(across) - 1) * width
    rise = np.abs(canvas.v - bow)
    lip = canvas.color("lip_color")
    canvas.paint(np.maximum(rise - (lips + opened) * (0.35 + 0.65 * fade), ends), lip)
    gap = np.maximum(rise - np.maximum(opened * fade, 0.012), ends)
    inside = canvas.uniform_color(60, 28, 28)
    canvas.paint(gap, inside, 0.85)
    upper = np.maximum(gap + 0.01, canvas.v - bow - opened * 0.3)
    canvas.paint(upper, canvas.uniform_color(238, 238, 238), canvas.measure("teeth"))


def hair(canvas: Canvas) -> None:
    """Hair around the head, above a hairline that descends to the temples."""
    across = canvas.u / canvas.measure("head_width")
    square = across * across
    line = (
        canvas.measure("hairline")
        + canvas.measure("fringe") * across * 0.5
        + canvas.measure("temples") * square * square
    )
    cap = canvas.head_outline(canvas.measure("volume"), offset=-0.12) - waves(canvas)
    region = np.maximum(cap, canvas.v - np.minimum(line, canvas.measure("eye_level") + 0.12))
    strands = 0.86 + 0.24 * triangle(canvas.u * 7 + canvas.v * 2 * canvas.measure("fringe"))
    canvas.paint(region, canvas.color("hair") * strands[:, None], canvas.measure("hair_cover"))


def brows(canvas: Canvas) -> None:
    """Two strokes in a color like the hair's."""
    weight, level, slant = canvas.measure("brow_weight"), canvas.level("brow_level"), canvas.measure("brow_slant")
    for side in (-1, 1):
        center = canvas.after_yaw(side * canvas.measure("eye_distance"), 0.35)
        reach = (side * 1.05) * canvas.measure("eye_size") * canvas.foreshortening(side)
        canvas.paint(
            canvas.stroke((center - reach, level + slant), (center + reach, level - slant), weight),
            canvas.color("brows"),
            0.9,
        )


def glasses(canvas: Canvas) -> None:
    """Round or square rims with a bridge."""
    wears, frame = canvas.measure("glasses"), canvas.measure("frame")
    rim = canvas.uniform_color(30, 30, 30) + 150 * (frame > 0.7)[:, None]
    level = canvas.level("eye_level") + 0.02
    radius = canvas.measure("eye_size") * 1.15 + 0.03
    thick = 0.016 + 0.018 * frame
    centers = []
    for side in (-1, 1):
        center = canvas.after_yaw(side * canvas.measure("eye_distance"), 0.38)
        reach = radius * canvas.foreshortening(side)
        du, dv = np.abs(canvas.u - center) / reach, np.abs(canvas.v - level) / radius
        away = np.where(frame < 0.5, np.sqrt(du * du + dv * dv), np.maximum(du, dv * 1.2))
        canvas.paint(np.abs(away - 1) * radius - thick, rim, wears * 0.9)
        centers.append(center - side * reach)
    canvas.paint(canvas.stroke((centers[0], level), (centers[1], level), thick), rim, wears * 0.9)


def waves(canvas: Canvas) -> Plane:
    """Return how far curls protrude from the outline."""
    return canvas.measure("curl") * (triangle(canvas.u * 5) + triangle(canvas.v * 5))


def triangle(value: Plane) -> Plane:
    """Compute a triangle wave from 0 to 1 with period 1."""
    return np.abs(2 * (value - np.floor(value)) - 1)
