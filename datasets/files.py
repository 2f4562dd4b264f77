"""Reading image files and tables: in parallel, with errors that name the file or the row, and kept once decoded."""

from __future__ import annotations

import csv
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
"""What artefacts are called in the store that depend on an image set alone."""

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
"""What Pillow raises for files that are no image, or half of one."""


class FileProblems(UsageError):  # noqa: N818 (it holds several)
    """Files or rows that are wrong; the message shows the first ten.

    Attributes:
        head: The first line of the message.
        problems: All of them, one sentence each.
    """

    def __init__(self, head: str, problems: Sequence[str]) -> None:
        more = [f"... and {len(problems) - 10} more"] if len(problems) > 10 else []
        super().__init__("\n".join([head, *problems[:10], *more]))
        self.head, self.problems = head, tuple(problems)

    def __reduce__(self) -> tuple[type[FileProblems], tuple[str, tuple[str, ...]]]:
        """Made anew from what it was made of, or no worker process could hand it over."""
        return type(self), (self.head, self.problems)


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


class Row(NamedTuple):
    """A row of a table."""

    number: int
    """The line of the file on which it ends; the head is on line 1."""
    values: Mapping[str, str]
    """By the name of the column."""


def decode(files: Iterable[ImageFile], count: int, shape: Shape, place: Path | None = None) -> NDArray[np.uint8]:
    """All pictures as one tensor, decoded by as many threads as there are processors.

    Pictures are turned upright, reduced by the mean of the area, and enlarged bicubically.

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
    size = (count, shape.channels, shape.side, shape.side)
    images = np.empty(size, np.uint8) if place is None else np.lib.format.open_memmap(place, "w+", np.uint8, size)
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    problems: list[str] = []
    done = 0
    with ThreadPoolExecutor(workers) as pool:
        for group in _batched(files, 64 * workers):
            parts = [group[start : start + 32] for start in range(0, len(group), 32)]
            starts = itertools.accumulate((len(part) for part in parts), initial=done)
            jobs = zip(parts, starts, strict=False)
            for found in pool.map(lambda job: _decode_some(job[0], job[1], images, shape), jobs):
                problems += found
            done += len(group)
            _let_go(images)
    if problems:
        raise FileProblems(f"{len(problems)} of {done} images cannot be read:", problems)
    if done != count:
        raise UsageError(f"{count} images were expected, and {done} are there.")
    return images


def open_image(file: ImageFile, shape: Shape | None = None) -> PIL.Image.Image:
    """One picture, upright and in grey or colours; at its own size where no shape is given.

    Raises:
        UsageError: It cannot be read.
    """
    import PIL.Image
    import PIL.ImageOps

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
    except (*UNREADABLE, PIL.Image.DecompressionBombError) as error:
        raise UsageError(f"{file.name}: {error}") from error
    if image.mode.startswith(("I", "F")):
        raise UsageError(f"{file.name}: pixels have more than 8 bits; save it with 8 bits per channel.")
    return image if shape is None else _fitted(image.convert("L" if shape.channels == 1 else "RGB"), shape)


def read_table(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> list[Row]:
    """The rows of a CSV file with a head.

    Args:
        path: The file, in UTF-8.
        columns: Columns that it must have.
        optional: Columns that it may have; others are passed over.

    Raises:
        UsageError: The file is missing or no text, a column is missing, or a row has a field too many or too few.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            lines = [(reader.line_num, fields) for fields in reader if fields]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read as a table: {error}") from error
    head = [name.strip() for name in lines[0][1]] if lines else []
    missing = [name for name in columns if name not in head]
    if missing:
        raise UsageError(f"{path} has no column {', '.join(missing)}; its head is {', '.join(head) or 'empty'}.")
    if len(lines) == 1:
        raise UsageError(f"{path} has no rows.")
    for number, fields in lines[1:]:
        if len(fields) != len(head):
            raise UsageError(f"row {number} of {path} has {len(fields)} fields; its head has {len(head)}.")
    places = {name: head.index(name) for name in (*columns, *optional) if name in head}
    return [Row(number, {name: fields[at].strip() for name, at in places.items()}) for number, fields in lines[1:]]


def files_of_rows(table: Path, rows: Sequence[Row], folder: Path, column: str) -> list[ImageFile]:
    """The image files that the rows of a table name.

    Raises:
        FileProblems: Rows name no file.
    """
    missing, files = [], []
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    for row in rows:
        name = row.values[column]
        if not (name in there or (name and (folder / name).is_file())):
            missing.append(f"row {row.number} of {table} names no file: {folder / name}")
        files.append(ImageFile(str(folder / name), folder / name))
    if missing:
        raise FileProblems(f"{len(missing)} of {len(rows)} rows name no file:", missing)
    return files


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
            state.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return state.hexdigest()


def resident(folder: Path, paths: Sequence[Path], shape: Shape) -> NDArray[np.uint8]:
    """The pictures of files below a folder as one tensor: decoded, or out of the store where there are many of them.

    Args:
        folder: The image set's folder.
        paths: The files, in the order of the rows.
        shape: What every picture is made into.

    Raises:
        UsageError: Files cannot be read.
    """

    def images(place: Path | None = None) -> NDArray[np.uint8]:
        return decode((ImageFile(str(path), path) for path in paths), len(paths), shape, place)

    def keep(fresh: Path) -> dict[str, NDArray[Any]]:
        images(fresh / "images.npy")
        return {}

    if len(paths) < KEEP_FROM:
        return images()
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    made_from = {"files": content_digest(folder, paths), "shape": list(shape), "code": code}
    return kept(made_from, keep)["images"]


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


def _decode_some(files: Sequence[ImageFile], start: int, images: NDArray[np.uint8], shape: Shape) -> list[str]:
    problems = []
    for position, file in enumerate(files, start):
        place = position if file.row < 0 else file.row
        try:
            pixels = np.asarray(open_image(file, shape))
        except UsageError as error:
            problems.append(str(error))
            continue
        if place < len(images):
            images[place] = pixels if shape.channels == 1 else pixels.transpose(2, 0, 1)
    return problems


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
        raise ValueError(f"it holds {stray[:8]!r} where decimal digits are expected")
    numbers = np.fromstring(digits.decode(), dtype=np.int64, sep=" ")
    if len(numbers) < 3 or numbers[:3].min() < 1:
        raise ValueError("image file is truncated: width, height or highest level are missing")
    width, height, top = (int(number) for number in numbers[:3])
    levels = numbers[3:]
    if top > 255:
        raise ValueError(f"levels go up to {top}; save it with 8 bits")
    if len(levels) < width * height:
        raise ValueError(f"image file is truncated: {len(levels)} of {width * height} pixels are there")
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
        raise UsageError(f"{path} cannot be read: {error}") from error
