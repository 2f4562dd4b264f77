"""Perceptual hashes: equal for images that differ only in their encoding."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from forgetbench.datasets._files import ImageFile, cached_arrays, content_digest, open_image
from forgetbench.fingerprints import fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import PIL.Image
    from numpy.typing import NDArray


def perceptual_hash(image: PIL.Image.Image) -> int:
    """Compute the 64-bit hash that the imagehash library calls ``phash``.

    The gray image is reduced to 32x32 pixels (Lanczos). The 8x8 lowest frequencies of its discrete cosine transform are
    compared with their median, row by row, with the first one in the highest bit. Equal hashes mean the same image,
    saved again or slightly reduced; LoTUS (Spartalis et al. 2025) cleaned MUFAC with it.
    """
    import PIL.Image
    from scipy.fft import dct

    small = np.asarray(image.convert("L").resize((32, 32), PIL.Image.Resampling.LANCZOS), dtype=np.float64)
    low = dct(dct(small, axis=0), axis=1)[:8, :8]
    bits = np.packbits((low > np.median(low)).ravel())
    return int.from_bytes(bits.tobytes(), "big")


def perceptual_hashes(folder: Path, paths: Sequence[Path]) -> NDArray[np.uint64]:
    """Return the hash of every file, (N,); computed once and then read from the store.

    Args:
        folder: Folder of the image set.
        paths: N image files.

    Raises:
        ImageSetError: A file cannot be read.
    """

    def hash_file(path: Path) -> int:
        return perceptual_hash(open_image(ImageFile(str(path), path)))

    def hash_all(_: Path) -> dict[str, NDArray[np.uint64]]:
        with ThreadPoolExecutor(4) as pool:
            return {"hashes": np.fromiter(pool.map(hash_file, paths), np.uint64, len(paths))}

    key = {"files": content_digest(folder, paths), "code": fingerprint("images.perceptual-hash")}
    return cached_arrays(key, hash_all)["hashes"]


def first_occurrences(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Mark the first row of every hash, (N,)."""
    first = np.zeros(len(hashes), dtype=bool)
    first[np.unique(hashes, return_index=True)[1]] = True
    return first
