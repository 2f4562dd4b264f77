"""Subjects of the synthetic faces: lasting traits, the moments of their photographs, and the resulting appearance.

Everything is computed from uniform doubles by sums, products and comparisons, which every machine computes to the same
bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from forgetbench.datasets.base import make_rng

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

Table = dict[str, "NDArray[Any]"]
"""Column name -> (N,) numbers or (N, 3) colors."""

IMAGES_PER_PERSON = (8, 16)
"""Least and largest number of images of one person; MUFAC has 8 to 24, 10.7 on average."""
AGE_CLASSES = ("a", "b", "c", "d", "e", "f", "g", "h")
"""MUFAC's age classes: 0-6, 7-12, 13-19, 20-30, 31-45, 46-55, 56-66 and 67-80 years."""
AGE_STARTS = (7, 13, 20, 31, 46, 56, 67)
"""The first year of every age class after the first."""
YOUNG_BELOW = 31
"""People below this age are labeled young; it is the start of an age class, so that every age class has one label."""

# fmt: off
TRAITS = (
    "male", "skin", "blush", "hair_color", "hair_tint", "volume", "hairline", "parting", "curl", "length",
    "bald", "graying", "head_width", "head_height", "jaw", "square", "ears", "eye_color", "eye_distance",
    "eye_size", "eye_slit", "eye_level", "brow_weight", "brow_slant", "brow_level", "nose_length", "nose_width",
    "mouth_width", "lips", "freckles", "freckle_place", "glasses", "frame", "beard", "beard_kind", "ageing",
    "cheer", "make_up", "role", "life", "occasions", "occasion_0", "occasion_1", "occasion_2", "occasion_3",
    "occasion_4", "shots",
)
"""Lasting traits of a person. Their number and order determine the random numbers: do not change them."""
MOMENTS = (
    "occasion", "days", "wear", "expression", "smile", "open", "blink", "shift_x", "shift_y", "scale", "tilt",
    "yaw", "pitch", "light_x", "light_y", "light_depth", "gain", "warmth", "tint", "wall_r", "wall_g", "wall_b",
    "slope", "object", "object_x", "object_y", "object_size", "object_r", "object_g", "object_b", "shirt_r",
    "shirt_g", "shirt_b", "hair_today", "glasses_today", "beard_today",
)
"""Properties that differ between the images of a person. Their number and order determine the random numbers, too."""
# fmt: on

SKINS = ((250, 222, 200), (240, 200, 170), (225, 178, 140), (198, 146, 105), (150, 100, 70), (92, 60, 44))
HAIRS = ((28, 24, 26), (58, 40, 30), (100, 66, 40), (150, 78, 40), (190, 140, 80), (228, 198, 140))
EYES = ((50, 32, 22), (96, 62, 34), (98, 110, 60), (70, 118, 150), (110, 160, 200))


def sample_subjects(count: int, seed: int) -> Table:
    """Draw traits of people, uniform in [0, 1), each an array (count,); the first people do not depend on the count."""
    table = make_rng("faces", "people", seed).random((count, len(TRAITS)))
    return dict(zip(TRAITS, table.T, strict=True))


def sample_moments(subjects: Table, seed: int) -> Table:
    """Draw the moments of all images, person by person.

    Args:
        subjects: Traits of the people.
        seed: Seed of the moments.

    Returns:
        ``person``, a row of ``subjects``, and the columns of ``MOMENTS``, uniform in [0, 1); one row per image.
    """
    low, high = IMAGES_PER_PERSON
    shots = low + np.floor(subjects["shots"] * (high - low + 1)).astype(np.int64)
    table = make_rng("faces", "pictures", seed).random((len(shots), high, len(MOMENTS)))
    chosen = np.arange(high) < shots[:, None]
    columns = dict(zip(MOMENTS, table[chosen].T, strict=True))
    return {"person": np.repeat(np.arange(len(shots)), shots).astype(np.float64), **columns}


def traits_per_image(subjects: Table, moments: Table) -> Table:
    """Return the traits of the person in every image, (N,) each."""
    person = moments["person"].astype(np.int64)
    return {name: column[person] for name, column in subjects.items()}


def compute_ages(subjects: Table, moments: Table) -> NDArray[np.float64]:
    """Compute the age in years in every image, (N,).

    A person is a child, a parent or a grandparent today, and was photographed on three to five occasions of the life so
    far, so that the images of a person are in three to four age classes, as in MUFAC.
    """
    trait = traits_per_image(subjects, moments)
    today = np.select(
        [trait["role"] < 0.36, trait["role"] < 0.68],
        [scale_to(trait["life"], 14, 34), scale_to(trait["life"], 42, 66)],
        scale_to(trait["life"], 67, 84),
    )
    occasions = 3 + np.floor(trait["occasions"] * 3)
    occasion = np.floor(moments["occasion"] * occasions).astype(np.int64)
    offset = np.choose(occasion, [trait[f"occasion_{number}"] for number in range(5)])
    # One occasion in each section of life; sections are a little shorter at a young age.
    fraction = (occasion + offset) / occasions
    age: NDArray[np.float64] = today * fraction * (0.85 + 0.15 * fraction) + 2 * moments["days"] - 1
    return np.clip(age, 0, 80.99)


def compute_labels(subjects: Table, moments: Table) -> dict[str, NDArray[np.int64]]:
    """Compute all labels of every image, (N,) each: age class, male, smiling, young, and the number of the person."""
    trait, age = traits_per_image(subjects, moments), compute_ages(subjects, moments)
    return {
        "age": np.searchsorted(AGE_STARTS, age, side="right").astype(np.int64),
        "male": (trait["male"] < 0.5).astype(np.int64),
        "smiling": (moments["expression"] < scale_to(trait["cheer"], 0.2, 0.8)).astype(np.int64),
        "young": (age < YOUNG_BELOW).astype(np.int64),
        "identity": moments["person"].astype(np.int64),
    }


def compute_appearance(subjects: Table, moments: Table) -> Table:
    """Compute the appearance of every image: the measures that rendering needs, (N,) numbers and (N, 3) colors.

    Lengths are in units of half the image, relative to the middle of the head; down is positive.
    """
    trait, label = traits_per_image(subjects, moments), compute_labels(subjects, moments)
    # Some people always look older than they are, and appearance also varies from day to day.
    age = np.maximum(
        0, compute_ages(subjects, moments) * (0.91 + 0.18 * trait["ageing"]) * (0.96 + 0.08 * moments["wear"])
    )
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


def scale_to(unit: ArrayLike, low: ArrayLike, high: ArrayLike) -> NDArray[np.float64]:
    """Map [0, 1] linearly to [low, high]."""
    start, width = np.asarray(low, dtype=float), np.asarray(high, dtype=float) - np.asarray(low, dtype=float)
    scaled: NDArray[np.float64] = start + np.asarray(unit) * width
    return scaled


def ramp(value: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Compute 0 below ``low``, 1 above ``high``, and linear values in between."""
    return np.clip((value - low) / (high - low), 0, 1)


def interpolate_colors(unit: NDArray[np.float64], colors: tuple[tuple[int, int, int], ...]) -> NDArray[np.float64]:
    """Interpolate a list of colors, 0 to 255, at positions in [0, 1]: (N, 3)."""
    table = np.array((*colors, colors[-1]), dtype=float)
    position = np.clip(unit, 0, 1) * (len(colors) - 1)
    step = np.floor(position).astype(np.int64)
    interpolated: NDArray[np.float64] = table[step] + (position - step)[:, None] * (table[step + 1] - table[step])
    return interpolated


def _pose(moments: Table, child: NDArray[np.float64]) -> Table:
    centered = {name: 2 * moments[name] - 1 for name in ("shift_x", "shift_y", "tilt", "yaw", "pitch")}
    return {
        "shift_x": 0.10 * centered["shift_x"],
        "shift_y": 0.05 + 0.08 * centered["shift_y"],
        "scale": scale_to(moments["scale"], 0.98, 1.16) - 0.18 * child,
        "tilt": 0.22 * centered["tilt"] * np.abs(centered["tilt"]),
        "yaw": 0.62 * centered["yaw"] * (0.4 + 0.6 * np.abs(centered["yaw"])),
        "pitch": 0.06 * centered["pitch"],
    }


def _head(trait: Table, child: NDArray[np.float64], old: NDArray[np.float64], male: NDArray[np.float64]) -> Table:
    return {
        "head_width": scale_to(trait["head_width"], 0.43, 0.54) + 0.06 * child + 0.02 * male * (1 - child) + 0.02 * old,
        "head_top": scale_to(trait["head_height"], 0.60, 0.70) + 0.02 * child,
        "chin": scale_to(trait["head_height"], 0.62, 0.72) - 0.17 * child + 0.02 * male * (1 - child),
        "taper": scale_to(trait["jaw"], 0.42, 0.12) * (1 - 0.35 * child) - 0.08 * male - 0.12 * old,
        "square": np.clip(scale_to(trait["square"], 0.0, 0.6) + 0.25 * male - 0.3 * child + 0.15 * old, 0, 0.9),
        "neck": 0.56 - 0.22 * child,
        "ears": scale_to(trait["ears"], 0.04, 0.11),
    }


def _features(
    trait: Table,
    moments: Table,
    child: NDArray[np.float64],
    old: NDArray[np.float64],
    male: NDArray[np.float64],
    smiling: NDArray[np.float64],
) -> Table:
    grin = np.where(smiling > 0, scale_to(moments["smile"], 0.35, 1.0), scale_to(moments["smile"], -0.45, 0.25))
    shut = moments["blink"] < 0.04
    mouth_opening = np.maximum(0, moments["open"] * 3 - 2) * np.where(smiling > 0, 1.0, 0.7)
    eye = scale_to(trait["eye_size"], 0.105, 0.14) * (1 + 0.38 * child - 0.2 * old)
    slit = scale_to(trait["eye_slit"], 0.45, 0.75) * (1 - 0.22 * np.maximum(grin, 0)) * (1 - 0.18 * old) + 0.1 * child
    level = scale_to(trait["eye_level"], -0.13, -0.05) + 0.2 * child
    nose = level + scale_to(trait["nose_length"], 0.24, 0.34) * (1 - 0.5 * child) + 0.04 * old
    return {
        "eye_level": level,
        "eye_distance": scale_to(trait["eye_distance"], 0.20, 0.285),
        "eye_size": eye,
        "eye_slit": np.where(shut, 0.12, slit),
        "brow_weight": scale_to(trait["brow_weight"], 0.018, 0.05) * (1 - 0.35 * child) + 0.012 * male * (1 - child),
        "brow_slant": scale_to(trait["brow_slant"], -0.05, 0.07),
        "brow_level": level - scale_to(trait["brow_level"], 0.15, 0.22) - 0.02 * child + 0.02 * old,
        "nose_level": nose,
        "nose_width": scale_to(trait["nose_width"], 0.06, 0.125) * (1 - 0.3 * child) + 0.025 * old,
        "mouth_level": nose + scale_to(trait["lips"], 0.19, 0.15) * (1 - 0.4 * child),
        "mouth_width": scale_to(trait["mouth_width"], 0.15, 0.23) * (1 - 0.3 * child) + 0.05 * np.maximum(grin, 0),
        "lips": scale_to(trait["lips"], 0.022, 0.058) * (1 - 0.4 * old) + 0.006 * (1 - male),
        "grin": 0.11 * grin,
        "open": 0.10 * mouth_opening,
        "teeth": smiling * np.minimum(1, mouth_opening * 3),
    }


def _hair(trait: Table, moments: Table, age: NDArray[np.float64], male: NDArray[np.float64]) -> Table:
    grown = ramp(age, 0, 4)
    long = np.where(male > 0, trait["length"] > 0.92, trait["length"] > 0.25) * ramp(age, 2, 9)
    receding = male * np.maximum(0, trait["bald"] * 1.8 - 0.8) * ramp(age, 26, 62)
    bare = np.minimum(1, 2 * receding)  # remaining hair is close to the head
    bearded = male * (trait["beard"] < 0.45) * (age > 19) * (moments["beard_today"] < 0.85)
    kind = trait["beard_kind"]
    return {
        "volume": (scale_to(trait["volume"], 0.03, 0.15) + 0.03 * long) * (0.4 + 0.6 * grown) * (1 - 0.9 * bare),
        "hairline": scale_to(trait["hairline"], -0.52, -0.28) + 0.05 * moments["hair_today"] - 0.34 * receding,
        "fringe": scale_to(trait["parting"], -0.35, 0.35),
        "temples": scale_to(trait["hairline"], 0.30, 0.62) * (1 - 0.3 * receding),
        "curl": np.maximum(0, trait["curl"] * 2 - 1) * 0.06,
        "hair_length": long * scale_to(trait["length"], 0.2, 1.15) * (0.9 + 0.2 * moments["hair_today"]),
        "hair_cover": 0.35 + 0.65 * grown,
        "beard": bearded * np.where(kind < 0.6, scale_to(trait["beard_kind"], 0.35, 1.0), 0.0),
        "moustache": bearded * np.where(kind > 0.3, 0.9, 0.3),
        "glasses": ((trait["glasses"] < 0.16 + 0.3 * ramp(age, 42, 60)) & (moments["glasses_today"] < 0.9) & (age > 5))
        * 1.0,
        "frame": trait["frame"],
    }


def _colors(trait: Table, age: NDArray[np.float64], male: NDArray[np.float64]) -> Table:
    skin = interpolate_colors(trait["skin"], SKINS)
    skin = skin + (trait["blush"] - 0.5)[:, None] * np.array([10, -8, -10]) - 10 * ramp(age, 45, 80)[:, None]
    natural = interpolate_colors(trait["hair_color"] * (1 - 0.75 * ramp(trait["skin"], 0.35, 0.8)), HAIRS)
    gray = ramp(age + 16 * trait["graying"] - 8, 38, 70)
    blond = 0.35 * (1 - ramp(age, 3, 14))  # children's hair darkens as they grow
    hair = blend(blend(natural, (206, 170, 110), blond * (trait["hair_color"] > 0.2)), (212, 212, 214), gray)
    made_up = (1 - male) * (trait["make_up"] > 0.35) * ramp(age, 14, 20)
    lips = blend(skin * np.array([0.82, 0.58, 0.58]), (186, 40, 56), 0.7 * made_up)
    return {
        "skin": skin,
        "hair": hair,
        "brows": 0.64 * hair + 0.15 * skin,
        "eyes": interpolate_colors(trait["eye_color"] * (1 - 0.8 * ramp(trait["skin"], 0.4, 0.8)), EYES),
        "lip_color": lips,
        "lashes": 0.35 + 0.5 * made_up,
        "blush": 0.10 + 0.25 * made_up + 0.15 * (1 - ramp(age, 2, 14)),
    }


def _surroundings(moments: Table) -> Table:
    def color(name: str, low: float, high: float) -> NDArray[np.float64]:
        return np.stack([scale_to(moments[f"{name}_{channel}"], low, high) for channel in "rgb"], axis=1)

    warmth, tint = 2 * moments["warmth"] - 1, 2 * moments["tint"] - 1
    cast = np.stack([1 + 0.12 * warmth, 1 + 0.05 * tint, 1 - 0.12 * warmth], axis=1)
    wall = color("wall", 30, 235)
    return {
        "wall": 0.6 * wall + 0.4 * wall.mean(axis=1, keepdims=True),
        "slope": 70 * (moments["slope"] - 0.5),
        "object": color("object", 20, 240),
        "object_kind": moments["object"],
        "object_x": scale_to(moments["object_x"], -1, 1),
        "object_y": scale_to(moments["object_y"], -1, 0.6),
        "object_size": scale_to(moments["object_size"], 0.15, 0.6),
        "shirt": color("shirt", 20, 235),
        "light_x": 0.9 * (2 * moments["light_x"] - 1),
        "light_y": scale_to(moments["light_y"], -0.7, 0.25),
        "light_depth": scale_to(moments["light_depth"], 0.1, 0.55),
        "light": cast * scale_to(moments["gain"], 0.72, 1.15)[:, None],
    }


def blend(colors: ArrayLike, other: ArrayLike, fraction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Blend colors (N, 3) with a fraction (N,) of another color."""
    base = np.asarray(colors, dtype=float)
    mixed: NDArray[np.float64] = base + fraction[:, None] * (np.asarray(other, dtype=float) - base)
    return mixed


def take_rows(table: Mapping[str, NDArray[np.float64]], chosen: slice) -> Table:
    """Return some rows of every column."""
    return {name: column[chosen] for name, column in table.items()}
