"""Pictures that are the same but for their bytes: perceptual hashes."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from forgetbench.datasets._files import ImageFile, content_digest, kept, open_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    import PIL.Image
    from numpy.typing import NDArray


def perceptual_hash(image: PIL.Image.Image) -> int:
    """The perceptual hash of 64 bits that the imagehash library calls ``phash``.

    The picture in grey is reduced to 32x32 (Lanczos); of its discrete cosine transform the 8x8 lowest frequencies are
    compared with their median, row by row, the first one in the highest bit. Equal hashes mean the same picture, saved
    again or slightly reduced; LoTUS (Spartalis et al. 2025) cleaned MUFAC by it.
    """
    import PIL.Image
    from scipy.fft import dct

    small = np.asarray(image.convert("L").resize((32, 32), PIL.Image.Resampling.LANCZOS), dtype=np.float64)
    low = dct(dct(small, axis=0), axis=1)[:8, :8]
    bits = np.packbits((low > np.median(low)).ravel())
    return int.from_bytes(bits.tobytes(), "big")


def perceptual_hashes(folder: Path, paths: Sequence[Path]) -> NDArray[np.uint64]:
    """The hashes of files below a folder, (N,); kept in the store.

    Raises:
        UsageError: A file cannot be read.
    """

    def one(path: Path) -> int:
        return perceptual_hash(open_image(ImageFile(str(path), path)))

    def everyone(_: Path) -> dict[str, NDArray[np.uint64]]:
        with ThreadPoolExecutor(4) as pool:
            return {"hashes": np.fromiter(pool.map(one, paths), np.uint64, len(paths))}

    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    return kept({"files": content_digest(folder, paths), "hash": "perceptual", "code": code}, everyone)["hashes"]


def first_of_each(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which rows are the first with their hash."""
    first = np.zeros(len(hashes), dtype=bool)
    first[np.unique(hashes, return_index=True)[1]] = True
    return first
