"""What pages show of a bundle's own draws: pictures of the forget set, contact sheets, and the number of each person.

The file is next to the bundle's files and not one of them, so that pictures never change a bundle's digest.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from forgetbench.evidence.arrays import UNREADABLE, Array, load_arrays

DISPLAY = "display.npz"
"""File of a bundle's folder; written by ``forgetbench pack build``."""
SHEETS = {
    "forget": "training images to forget",
    "retain": "training images to keep",
    "test-forgotten": "new images of what is forgotten",
}
"""Subset -> what its contact sheet shows."""


def pictures(draw: int) -> str:
    """Name of the pictures of a draw's forget set, uint8 (n, H, W, C) in the order of its rows."""
    return f"forget-d{draw}"


def people(draw: int) -> str:
    """Name of the numbers of the people in a draw's forget set, (n,)."""
    return f"people-d{draw}"


def sheet(subset: str) -> str:
    """Name of a contact sheet, uint8 (H, W, C)."""
    return f"sheet-{subset}"


def sheet_classes(subset: str) -> str:
    """Name of the numbers of the classes on a contact sheet, from left to right."""
    return f"sheet-{subset}-classes"


PEOPLE_COUNTS = "people-counts"
"""Name of the numbers of people in the forget set of draw 0 and in the images that are kept, (2,)."""


@lru_cache(maxsize=16)
def read_display(folder: Path) -> dict[str, Array]:
    """What pages show of a bundle; empty where ``pack build`` wrote nothing, or the file is damaged."""
    try:
        return load_arrays(folder / DISPLAY)
    except (*UNREADABLE, FileNotFoundError):
        return {}


def png(image: Array) -> bytes:
    """A picture as PNG, without a library for images.

    Args:
        image: uint8 (H, W, C) with one or three channels.
    """
    height, width, channels = image.shape
    lines = np.ascontiguousarray(image, np.uint8).reshape(height, -1)
    raw = b"".join(b"\0" + line.tobytes() for line in lines)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw, 6)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def enlarged(image: Array, least: int = 56) -> Array:
    """A small picture with every pixel as a square, at least so many pixels high."""
    factor = -(-least // image.shape[0])
    return image.repeat(factor, axis=0).repeat(factor, axis=1)
