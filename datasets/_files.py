"""Reading image files: in parallel, with errors that name the file, and kept once decoded."""

from __future__ import annotations

import hashlib
import io
import itertools
import mmap
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from forgetbench.datasets.problems import COPY_AGAIN, FileProblems, Problem, collect, problem_error, some
from forgetbench.errors import UsageError
from forgetbench.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    import PIL.Image
    from numpy.typing import NDArray

Fit = Literal["stretch", "crop"]
"""How a picture of another shape becomes a square: squeezed whole, or its middle cut out."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".pgm", ".ppm", ".pnm", ".tif", ".tiff", ".webp"})

KEEP_FROM = 1000
"""From so many pictures on, what was decoded is kept in the store."""

ROLE = "images"
"""What artifacts are called in the store that depend on an image set alone."""

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
"""What Pillow raises for files that are no image, or half of one."""


class ImageFile(NamedTuple):
    """A file to decode."""

    name: str
    """For messages."""
    content: Path | bytes
    """Where its bytes are, or the bytes."""
    row: int = -1
    """Its row in the tensor; -1: the files come in the order of the rows."""


class Shape(NamedTuple):
    """What every picture is made into."""

    channels: Literal[1, 3]
    side: int
    fit: Fit = "stretch"


class Pictures(NamedTuple):
    """What could be read of some files."""

    images: NDArray[np.uint8]
    """(M, channels, side, side), M of the files."""
    rows: NDArray[np.int64]
    """(M,), which files these are."""


class _Decoded(NamedTuple):
    images: NDArray[np.uint8]
    wrong: dict[int, Problem]
    """Rows that could not be read, which are undefined in the tensor."""
    transparent: list[int]
    """Rows of pictures with transparent parts."""


class _UnfitError(Exception):
    """Why a file cannot be read, and what to do about it."""

    def __init__(self, reason: str, fix: str = COPY_AGAIN) -> None:
        super().__init__(reason)
        self.reason, self.fix = reason, fix


def decode(files: Iterable[ImageFile], count: int, shape: Shape, place: Path | None = None) -> NDArray[np.uint8]:
    """All pictures as one tensor, decoded by as many threads as there are processors.

    Pictures are turned upright, reduced by the mean of the area, and enlarged bicubically; what is transparent is shown
    over white.

    Args:
        files: ``count`` of them; read a few hundred at a time, so that the tensor is nearly all the memory used.
        count: How many there are.
        shape: What they are made into.
        place: A new .npy file in which the tensor then lies, instead of in memory.

    Returns:
        uint8, (count, channels, side, side), in the order of the files or of the rows that they name.

    Raises:
        FileProblems: Files cannot be read; each is named with the reason.
        UsageError: There are more or fewer files than were promised.
    """
    decoded = _decode(files, count, shape, place)
    if decoded.wrong:
        raise FileProblems(f"{len(decoded.wrong)} of {count} images cannot be read:", list(decoded.wrong.values()))
    return decoded.images


def _decode(files: Iterable[ImageFile], count: int, shape: Shape, place: Path | None = None) -> _Decoded:
    """As :func:`decode`, with what cannot be read noted rather than raised."""
    size = (count, shape.channels, shape.side, shape.side)
    images = np.empty(size, np.uint8) if place is None else np.lib.format.open_memmap(place, "w+", np.uint8, size)
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    decoded = _Decoded(images, {}, [])
    done = 0
    with ThreadPoolExecutor(workers) as pool:
        for group in _batched(files, 64 * workers):
            parts = [group[start : start + 32] for start in range(0, len(group), 32)]
            starts = itertools.accumulate((len(part) for part in parts), initial=done)
            jobs = zip(parts, starts, strict=False)
            for found in pool.map(lambda job: _decode_some(job[0], job[1], images, shape), jobs):
                decoded.wrong.update(found.wrong)
                decoded.transparent.extend(found.transparent)
            done += len(group)
            _let_go(images)
    if done != count:
        raise UsageError(f"{count} images were expected, and {done} are there.")
    return decoded


def open_image(file: ImageFile, shape: Shape | None = None) -> PIL.Image.Image:
    """One picture, upright and in grey or colors; at its own size where no shape is given.

    Raises:
        FileProblems: It cannot be read.
    """
    try:
        image = _opened(file, shape)
    except _UnfitError as error:
        raise FileProblems("", [_unreadable(file, error)]) from error
    return _over_white(image) if shape is None else _shown(image, shape)


def _unreadable(file: ImageFile, error: _UnfitError) -> Problem:
    return Problem("unreadable image", f"{file.name}: {error.reason}", error.fix)


def _opened(file: ImageFile, shape: Shape | None) -> PIL.Image.Image:
    """A picture in its own colors."""
    import PIL.Image
    import PIL.ImageOps

    content = b""
    try:
        content = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
        if content.startswith(b"P2"):
            image = _plain_grey(content)
        else:
            image = PIL.Image.open(io.BytesIO(content))
            if shape is not None:
                # JPEG is decoded at half, a quarter or an eighth of its size where that leaves twice what is needed.
                image.draft(None, (2 * shape.side, 2 * shape.side))
            image.load()
        image = PIL.ImageOps.exif_transpose(image)
    except PIL.Image.DecompressionBombError as error:
        raise _UnfitError("it has too many pixels", "Save it smaller.") from error
    except UNREADABLE as error:
        raise _UnfitError(_reason(error, content)) from error
    if image.mode.startswith(("I", "F")):
        raise _UnfitError("pixels have more than 8 bits", "Save it with 8 bits per channel.")
    return image


def _reason(error: Exception, content: bytes) -> str:
    """Why Pillow could not read a file, in words that do not speak of Pillow's insides."""
    import PIL

    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if not content:
        return "the file is empty"
    if isinstance(error, PIL.UnidentifiedImageError):
        page = content.lstrip()[:1] == b"<"
        return f"it is {'a web page or other text' if page else 'of no format that is read'}, not a picture"
    if "truncated" in str(error).lower():
        return "it is truncated: its end is missing"
    return f"it is damaged ({error})"


def _transparent(image: PIL.Image.Image) -> bool:
    """Whether any pixel shows what is behind it."""
    if not image.has_transparency_data:
        return False
    return bool(image.convert("RGBA").getchannel("A").getextrema()[0] != 255)


def _over_white(image: PIL.Image.Image) -> PIL.Image.Image:
    """A picture as it looks on a white page: what is transparent often hides colors that nobody has seen."""
    import PIL.Image

    if not _transparent(image):
        return image
    front = image.convert("RGBA")
    return PIL.Image.alpha_composite(PIL.Image.new("RGBA", front.size, "white"), front).convert("RGB")


def image_paths(folder: Path) -> list[Path]:
    """All image files below a folder, sorted by path; hidden files and folders are passed over."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def content_digest(folder: Path, paths: Iterable[Path]) -> str:
    """SHA-256 over the names below a folder and the contents of files."""
    state = hashlib.sha256()
    ordered = list(paths)
    with ThreadPoolExecutor(4) as pool:
        for path, content in zip(ordered, pool.map(_file_hash, ordered), strict=True):
            state.update(f"{below(folder, path)}\0{content}\n".encode())
    return state.hexdigest()


def resident(folder: Path, paths: Sequence[Path], shape: Shape, problems: list[Problem] | None = None) -> Pictures:
    """The pictures of files as one tensor: decoded, or out of the store where there are many of them.

    Args:
        folder: The image set's folder.
        paths: The files, in the order of the rows.
        shape: What every picture is made into.
        problems: Where what is wrong is put, files that cannot be read being left out; none: it is raised.

    Raises:
        FileProblems: Files cannot be read, and nobody collects what is wrong.
    """

    def fresh(place: Path | None = None) -> _Decoded:
        return _decode((ImageFile(str(path), path) for path in paths), len(paths), shape, place)

    def keep(place: Path) -> dict[str, NDArray[Any]]:
        decoded = fresh(place / "images.npy")
        if decoded.wrong:
            raise FileProblems(f"{len(decoded.wrong)} images cannot be read:", list(decoded.wrong.values()))
        return {"transparent": np.array(decoded.transparent, dtype=np.int64)}

    if len(paths) >= KEEP_FROM:
        code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
        try:
            arrays = kept({"files": content_digest(folder, paths), "shape": list(shape), "code": code}, keep)
            decoded = _Decoded(arrays["images"], {}, arrays["transparent"].tolist())
        except FileProblems:
            if problems is None:
                raise
            decoded = fresh()  # what has gaps is not kept
    else:
        decoded = fresh()
    head = f"{len(decoded.wrong)} of {len(paths)} images cannot be read:"
    collect([decoded.wrong[row] for row in sorted(decoded.wrong)], problems, head)
    if problems is not None and decoded.transparent:
        names = some([below(folder, paths[row]) for row in sorted(decoded.transparent)])
        where = f"{len(decoded.transparent)} pictures have transparent parts, which are shown over white: {names}"
        problems.append(Problem("transparent", where, "Save them over the background that you want.", serious=False))
    rows = np.setdiff1d(np.arange(len(paths)), list(decoded.wrong))
    if not len(rows):
        raise problem_error("no image", f"{folder} has no image that can be read", "Mend what else is wrong, first.")
    return Pictures(decoded.images[rows] if decoded.wrong else decoded.images, rows)


def below(folder: Path, path: Path) -> str:
    """The name of a file below a folder; whole where it lies elsewhere."""
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def kept(made_from: Mapping[str, Any], make: Callable[[Path], Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Decoded arrays out of the store, where they were kept before; else they are made and kept.

    They are mapped, not read: processes that use the same images share the memory.

    Args:
        made_from: All that the arrays depend on, the hash of their files included.
        make: Decodes them; names to arrays. Large ones it may rather write, as <name>.npy, into the folder that it is
            given.
    """
    store = Store()
    key = {"role": ROLE, **made_from}
    folder = store.read(store.key(key))
    if folder is None:
        folder = store.write(key, lambda fresh: _save(fresh, make(fresh)))
    return {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in sorted(folder.glob("*.npy"))}


def _save(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def _let_go(images: NDArray[np.uint8]) -> None:
    """Let the pages of a tensor that lies in a file leave memory; what was written stays in the file."""
    file: object = images.base
    if isinstance(file, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        file.madvise(mmap.MADV_DONTNEED)


def _decode_some(files: Sequence[ImageFile], start: int, images: NDArray[np.uint8], shape: Shape) -> _Decoded:
    found = _Decoded(images, {}, [])
    for position, file in enumerate(files, start):
        place = position if file.row < 0 else file.row
        try:
            image = _opened(file, shape)
        except _UnfitError as error:
            found.wrong[place] = _unreadable(file, error)
            continue
        if _transparent(image):
            found.transparent.append(place)
        if place < len(images):
            pixels = np.asarray(_shown(image, shape))
            images[place] = pixels if shape.channels == 1 else pixels.transpose(2, 0, 1)
    return found


def _shown(image: PIL.Image.Image, shape: Shape) -> PIL.Image.Image:
    return _fitted(_over_white(image).convert("L" if shape.channels == 1 else "RGB"), shape)


def _fitted(image: PIL.Image.Image, shape: Shape) -> PIL.Image.Image:
    import PIL.Image

    box: tuple[float, float, float, float] = (0, 0, *image.size)
    if shape.fit == "crop":
        side = min(image.size)
        left, top = ((edge - side) // 2 for edge in image.size)
        box = (left, top, left + side, top + side)
    target = (shape.side, shape.side)
    if image.size == target:
        return image
    grows = min(box[2] - box[0], box[3] - box[1]) < shape.side
    return image.resize(target, PIL.Image.Resampling.BICUBIC if grows else PIL.Image.Resampling.BOX, box=box)


def _plain_grey(content: bytes) -> PIL.Image.Image:
    """A PGM file in decimal digits, which Pillow reads a hundred times more slowly."""
    import PIL.Image

    digits = b" ".join(line.split(b"#", 1)[0] for line in content[2:].splitlines())
    stray = digits.translate(None, b"0123456789 \t")
    if stray:
        raise _UnfitError(f"it holds {stray[:8]!r} where decimal digits are expected")
    numbers = np.fromstring(digits.decode(), dtype=np.int64, sep=" ")
    if len(numbers) < 3 or numbers[:3].min() < 1:
        raise _UnfitError("it is truncated: width, height or highest level are missing")
    width, height, top = (int(number) for number in numbers[:3])
    levels = numbers[3:]
    if top > 255:
        raise _UnfitError(f"levels go up to {top}", "Save it with 8 bits.")
    if len(levels) < width * height:
        raise _UnfitError(f"it is truncated: {len(levels)} of {width * height} pixels are there")
    pixels = levels[: width * height].astype(np.float64).reshape(height, width)
    return PIL.Image.fromarray(np.round(np.clip(pixels, 0, top) * (255 / top)).astype(np.uint8))


def _batched(files: Iterable[ImageFile], size: int) -> Iterator[list[ImageFile]]:
    stream = iter(files)
    while group := list(itertools.islice(stream, size)):
        yield group


def _file_hash(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise problem_error("unreadable image", f"{path} cannot be read: {error.strerror}", COPY_AGAIN) from error
