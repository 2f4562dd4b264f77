"""Who the drawn faces are: people with lasting traits, their pictures over a life, and how both become a look.

Everything is made of uniform doubles, sums, products and square roots, which every machine computes to the same bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from forgetbench.datasets.base import generator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

Table = dict[str, "NDArray[Any]"]

PICTURES = (8, 16)
"""Fewest and most pictures of one person; MUFAC has 8 to 24, 10.7 on average."""
AGE_CLASSES = ("a", "b", "c", "d", "e", "f", "g", "h")
"""MUFAC's age classes: 0-6, 7-12, 13-19, 20-30, 31-45, 46-55, 56-66 and 67-80 years."""
AGE_STARTS = (7, 13, 20, 31, 46, 56, 67)
"""The first year of every age class after the first."""
YOUNG_UNTIL = 31
"""People below this age count as young, so that every age class is young as a whole or not at all."""

TRAITS = (
    *("male", "skin", "blush", "hair_color", "hair_tint", "volume", "hairline", "parting", "curl", "length", "bald"),
    *(
        "grey",
        "head_width",
        "head_height",
        "jaw",
        "square",
        "ears",
        "eye_color",
        "eye_distance",
        "eye_size",
        "eye_slit",
    ),
    *("eye_level", "brow_weight", "brow_slant", "brow_level", "nose_length", "nose_width", "mouth_width", "lips"),
    *(
        "freckles",
        "freckle_place",
        "glasses",
        "frame",
        "beard",
        "beard_kind",
        "ageing",
        "cheer",
        "make_up",
        "role",
        "life",
    ),
    *("occasions", "occasion_0", "occasion_1", "occasion_2", "occasion_3", "occasion_4", "shots"),
)
MOMENTS = (
    *("occasion", "days", "wear", "expression", "smile", "open", "blink", "shift_x", "shift_y", "scale", "tilt", "yaw"),
    *("pitch", "light_x", "light_y", "light_depth", "gain", "warmth", "tint", "wall_r", "wall_g", "wall_b", "slope"),
    *("thing", "thing_x", "thing_y", "thing_size", "thing_r", "thing_g", "thing_b", "shirt_r", "shirt_g", "shirt_b"),
    *("hair_today", "glasses_today", "beard_today"),
)

SKINS = ((250, 222, 200), (240, 200, 170), (225, 178, 140), (198, 146, 105), (150, 100, 70), (92, 60, 44))
HAIRS = ((28, 24, 26), (58, 40, 30), (100, 66, 40), (150, 78, 40), (190, 140, 80), (228, 198, 140))
EYES = ((50, 32, 22), (96, 62, 34), (98, 110, 60), (70, 118, 150), (110, 160, 200))


def people(count: int, seed: int) -> Table:
    """Traits of people, uniform in [0, 1), each an array (count,); the first ones are the same whatever the count."""
    table = generator("faces", "people", seed).random((count, len(TRAITS)))
    return dict(zip(TRAITS, table.T, strict=True))


def pictures(sitters: Table, seed: int) -> Table:
    """Moments of all pictures, person by person: ``person`` is a row of ``sitters``, the rest is uniform in [0, 1)."""
    low, high = PICTURES
    shots = low + np.floor(sitters["shots"] * (high - low + 1)).astype(np.int64)
    table = generator("faces", "pictures", seed).random((len(shots), high, len(MOMENTS)))
    taken = np.arange(high) < shots[:, None]
    columns = dict(zip(MOMENTS, table[taken].T, strict=True))
    return {"person": np.repeat(np.arange(len(shots)), shots).astype(np.float64), **columns}


def of_each_picture(sitters: Table, moments: Table) -> Table:
    """The traits of the person in every picture, (N,) each."""
    person = moments["person"].astype(np.int64)
    return {name: column[person] for name, column in sitters.items()}


def ages(sitters: Table, moments: Table) -> NDArray[np.float64]:
    """Age in years in every picture, (N,).

    A person is a child, a parent or a grandparent today, and was photographed on three to five occasions of the life so
    far, so that a person's pictures lie in three to four age classes, as in MUFAC.
    """
    trait = of_each_picture(sitters, moments)
    today = np.select(
        [trait["role"] < 0.36, trait["role"] < 0.68],
        [between(trait["life"], 14, 34), between(trait["life"], 42, 66)],
        between(trait["life"], 67, 84),
    )
    occasions = 3 + np.floor(trait["occasions"] * 3)
    which = np.floor(moments["occasion"] * occasions).astype(np.int64)
    moment = np.choose(which, [trait[f"occasion_{number}"] for number in range(5)])
    # One occasion in each stretch of life, and the stretches are a little shorter when one is young.
    place = (which + moment) / occasions
    age: NDArray[np.float64] = today * place * (0.85 + 0.15 * place) + 2 * moments["days"] - 1
    return np.clip(age, 0, 80.99)


def labels_of(sitters: Table, moments: Table) -> dict[str, NDArray[np.int64]]:
    """All labels of every picture, (N,) each: age class, male, smiling, young, and the person's number."""
    trait, age = of_each_picture(sitters, moments), ages(sitters, moments)
    return {
        "age": np.searchsorted(AGE_STARTS, age, side="right").astype(np.int64),
        "male": (trait["male"] < 0.5).astype(np.int64),
        "smiling": (moments["expression"] < between(trait["cheer"], 0.2, 0.8)).astype(np.int64),
        "young": (age < YOUNG_UNTIL).astype(np.int64),
        "identity": moments["person"].astype(np.int64),
    }


def look(sitters: Table, moments: Table) -> Table:
    """How every picture looks: the measures that the drawing needs, (N,) numbers and (N, 3) colors.

    Lengths are in units of half the picture, in the frame of the head: its middle is 0, down is positive.
    """
    trait, label = of_each_picture(sitters, moments), labels_of(sitters, moments)
    # Some people look older than they are, all their lives, and everybody has better and worse days.
    age = np.maximum(0, ages(sitters, moments) * (0.91 + 0.18 * trait["ageing"]) * (0.96 + 0.08 * moments["wear"]))
    child, old = 1 - ramp(age, 1, 19), ramp(age, 28, 76)
    male, smiling = label["male"].astype(float), label["smiling"].astype(float)
    return {
        **_pose(moments, child),
        **_head(trait, child, old, male),
        **_features(trait, moments, child, old, male, smiling),
        **_hair(trait, moments, age, male),
        **_colors(trait, age, male),
        **_surroundings(moments),
        "wrinkles": old,
        "folds": ramp(age, 20, 64),
        "freckles": np.maximum(0, trait["freckles"] * 4 - 3) * (1 - 0.6 * old),
        "freckle_place": trait["freckle_place"],
    }


def between(unit: ArrayLike, low: ArrayLike, high: ArrayLike) -> NDArray[np.float64]:
    """The place of [0, 1] in [low, high]."""
    start, width = np.asarray(low, dtype=float), np.asarray(high, dtype=float) - np.asarray(low, dtype=float)
    place: NDArray[np.float64] = start + np.asarray(unit) * width
    return place


def ramp(value: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """0 below ``low``, 1 above ``high``, straight in between."""
    return np.clip((value - low) / (high - low), 0, 1)


def palette(unit: NDArray[np.float64], colors: tuple[tuple[int, int, int], ...]) -> NDArray[np.float64]:
    """Colors (N, 3) along a line of colors, 0 to 255."""
    table = np.array((*colors, colors[-1]), dtype=float)
    place = np.clip(unit, 0, 1) * (len(colors) - 1)
    step = np.floor(place).astype(np.int64)
    colors_at: NDArray[np.float64] = table[step] + (place - step)[:, None] * (table[step + 1] - table[step])
    return colors_at


def _pose(moments: Table, child: NDArray[np.float64]) -> Table:
    centered = {name: 2 * moments[name] - 1 for name in ("shift_x", "shift_y", "tilt", "yaw", "pitch")}
    return {
        "shift_x": 0.10 * centered["shift_x"],
        "shift_y": 0.05 + 0.08 * centered["shift_y"],
        "scale": between(moments["scale"], 0.98, 1.16) - 0.18 * child,
        "tilt": 0.22 * centered["tilt"] * np.abs(centered["tilt"]),
        "yaw": 0.62 * centered["yaw"] * (0.4 + 0.6 * np.abs(centered["yaw"])),
        "pitch": 0.06 * centered["pitch"],
    }


def _head(trait: Table, child: NDArray[np.float64], old: NDArray[np.float64], male: NDArray[np.float64]) -> Table:
    return {
        "head_width": between(trait["head_width"], 0.43, 0.54) + 0.06 * child + 0.02 * male * (1 - child) + 0.02 * old,
        "head_top": between(trait["head_height"], 0.60, 0.70) + 0.02 * child,
        "chin": between(trait["head_height"], 0.62, 0.72) - 0.17 * child + 0.02 * male * (1 - child),
        "taper": between(trait["jaw"], 0.42, 0.12) * (1 - 0.35 * child) - 0.08 * male - 0.12 * old,
        "square": np.clip(between(trait["square"], 0.0, 0.6) + 0.25 * male - 0.3 * child + 0.15 * old, 0, 0.9),
        "neck": 0.56 - 0.22 * child,
        "ears": between(trait["ears"], 0.04, 0.11),
    }


def _features(
    trait: Table,
    moments: Table,
    child: NDArray[np.float64],
    old: NDArray[np.float64],
    male: NDArray[np.float64],
    smiling: NDArray[np.float64],
) -> Table:
    grin = np.where(smiling > 0, between(moments["smile"], 0.35, 1.0), between(moments["smile"], -0.45, 0.25))
    shut = moments["blink"] < 0.04
    opened = np.maximum(0, moments["open"] * 3 - 2) * np.where(smiling > 0, 1.0, 0.7)
    eye = between(trait["eye_size"], 0.105, 0.14) * (1 + 0.38 * child - 0.2 * old)
    slit = between(trait["eye_slit"], 0.45, 0.75) * (1 - 0.22 * np.maximum(grin, 0)) * (1 - 0.18 * old) + 0.1 * child
    level = between(trait["eye_level"], -0.13, -0.05) + 0.2 * child
    nose = level + between(trait["nose_length"], 0.24, 0.34) * (1 - 0.5 * child) + 0.04 * old
    return {
        "eye_level": level,
        "eye_distance": between(trait["eye_distance"], 0.20, 0.285),
        "eye_size": eye,
        "eye_slit": np.where(shut, 0.12, slit),
        "brow_weight": between(trait["brow_weight"], 0.018, 0.05) * (1 - 0.35 * child) + 0.012 * male * (1 - child),
        "brow_slant": between(trait["brow_slant"], -0.05, 0.07),
        "brow_level": level - between(trait["brow_level"], 0.15, 0.22) - 0.02 * child + 0.02 * old,
        "nose_level": nose,
        "nose_width": between(trait["nose_width"], 0.06, 0.125) * (1 - 0.3 * child) + 0.025 * old,
        "mouth_level": nose + between(trait["lips"], 0.19, 0.15) * (1 - 0.4 * child),
        "mouth_width": between(trait["mouth_width"], 0.15, 0.23) * (1 - 0.3 * child) + 0.05 * np.maximum(grin, 0),
        "lips": between(trait["lips"], 0.022, 0.058) * (1 - 0.4 * old) + 0.006 * (1 - male),
        "grin": 0.11 * grin,
        "open": 0.10 * opened,
        "teeth": smiling * np.minimum(1, opened * 3),
    }


def _hair(trait: Table, moments: Table, age: NDArray[np.float64], male: NDArray[np.float64]) -> Table:
    grown = ramp(age, 0, 4)
    long = np.where(male > 0, trait["length"] > 0.92, trait["length"] > 0.25) * ramp(age, 2, 9)
    receding = male * np.maximum(0, trait["bald"] * 1.8 - 0.8) * ramp(age, 26, 62)
    bare = np.minimum(1, 2 * receding)  # what is left lies close to the head
    bearded = male * (trait["beard"] < 0.45) * (age > 19) * (moments["beard_today"] < 0.85)
    kind = trait["beard_kind"]
    return {
        "volume": (between(trait["volume"], 0.03, 0.15) + 0.03 * long) * (0.4 + 0.6 * grown) * (1 - 0.9 * bare),
        "hairline": between(trait["hairline"], -0.52, -0.28) + 0.05 * moments["hair_today"] - 0.34 * receding,
        "fringe": between(trait["parting"], -0.35, 0.35),
        "temples": between(trait["hairline"], 0.30, 0.62) * (1 - 0.3 * receding),
        "curl": np.maximum(0, trait["curl"] * 2 - 1) * 0.06,
        "hair_length": long * between(trait["length"], 0.2, 1.15) * (0.9 + 0.2 * moments["hair_today"]),
        "hair_cover": 0.35 + 0.65 * grown,
        "beard": bearded * np.where(kind < 0.6, between(trait["beard_kind"], 0.35, 1.0), 0.0),
        "moustache": bearded * np.where(kind > 0.3, 0.9, 0.3),
        "glasses": ((trait["glasses"] < 0.16 + 0.3 * ramp(age, 42, 60)) & (moments["glasses_today"] < 0.9) & (age > 5))
        * 1.0,
        "frame": trait["frame"],
    }


def _colors(trait: Table, age: NDArray[np.float64], male: NDArray[np.float64]) -> Table:
    skin = palette(trait["skin"], SKINS)
    skin = skin + (trait["blush"] - 0.5)[:, None] * np.array([10, -8, -10]) - 10 * ramp(age, 45, 80)[:, None]
    natural = palette(trait["hair_color"] * (1 - 0.75 * ramp(trait["skin"], 0.35, 0.8)), HAIRS)
    grey = ramp(age + 16 * trait["grey"] - 8, 38, 70)
    blond = 0.35 * (1 - ramp(age, 3, 14))  # children's hair darkens as they grow
    hair = mix(mix(natural, (206, 170, 110), blond * (trait["hair_color"] > 0.2)), (212, 212, 214), grey)
    made_up = (1 - male) * (trait["make_up"] > 0.35) * ramp(age, 14, 20)
    lips = mix(skin * np.array([0.82, 0.58, 0.58]), (186, 40, 56), 0.7 * made_up)
    return {
        "skin": skin,
        "hair": hair,
        "brows": 0.64 * hair + 0.15 * skin,
        "eyes": palette(trait["eye_color"] * (1 - 0.8 * ramp(trait["skin"], 0.4, 0.8)), EYES),
        "lip_color": lips,
        "lashes": 0.35 + 0.5 * made_up,
        "blush": 0.10 + 0.25 * made_up + 0.15 * (1 - ramp(age, 2, 14)),
    }


def _surroundings(moments: Table) -> Table:
    def color(name: str, low: float, high: float) -> NDArray[np.float64]:
        return np.stack([between(moments[f"{name}_{channel}"], low, high) for channel in "rgb"], axis=1)

    warmth, tint = 2 * moments["warmth"] - 1, 2 * moments["tint"] - 1
    cast = np.stack([1 + 0.12 * warmth, 1 + 0.05 * tint, 1 - 0.12 * warmth], axis=1)
    wall = color("wall", 30, 235)
    return {
        "wall": 0.6 * wall + 0.4 * wall.mean(axis=1, keepdims=True),
        "slope": 70 * (moments["slope"] - 0.5),
        "thing": color("thing", 20, 240),
        "thing_kind": moments["thing"],
        "thing_x": between(moments["thing_x"], -1, 1),
        "thing_y": between(moments["thing_y"], -1, 0.6),
        "thing_size": between(moments["thing_size"], 0.15, 0.6),
        "shirt": color("shirt", 20, 235),
        "light_x": 0.9 * (2 * moments["light_x"] - 1),
        "light_y": between(moments["light_y"], -0.7, 0.25),
        "light_depth": between(moments["light_depth"], 0.1, 0.55),
        "light": cast * between(moments["gain"], 0.72, 1.15)[:, None],
    }


def mix(colors: ArrayLike, other: ArrayLike, share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colors (N, 3) with a share (N,) of another color."""
    base = np.asarray(colors, dtype=float)
    mixed: NDArray[np.float64] = base + share[:, None] * (np.asarray(other, dtype=float) - base)
    return mixed


def rows(table: Mapping[str, NDArray[np.float64]], chosen: slice) -> Table:
    """Some rows of every column."""
    return {name: column[chosen] for name, column in table.items()}
