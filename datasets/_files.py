"""Image files: decoded in parallel into one tensor, with errors that name the file, and cached in the store."""

from __future__ import annotations

import hashlib
import io
import itertools
import mmap
import os
import threading
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from forgetbench.datasets.problems import (
    COPY_AGAIN,
    ImageSetError,
    Problem,
    collect_or_raise,
    problem_error,
    summarize_names,
)
from forgetbench.errors import UsageError, printable
from forgetbench.fingerprints import fingerprint
from forgetbench.store import Store
from forgetbench.user_files import describe_content

if TYPE_CHECKING:
    from collections.abc import Callable

    import PIL.Image
    from numpy.typing import NDArray

Fit = Literal["stretch", "crop"]
"""How an image becomes a square: stretched, or cropped to its middle."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".pgm", ".ppm", ".pnm", ".tif", ".tiff", ".webp"})

CACHE_MIN_IMAGES = 1000
"""Least number of images for which decoded pixels are cached in the store: fewer are decoded in about a second."""

FORMATS = ", ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
"""The formats that are read, for messages."""

JPEG_SUFFIXES = frozenset({".jfif", ".jpe", ".pjpeg", ".pjp"})
"""Other names for JPEG files."""

CACHE_ROLE = "images"
"""Role in the store of artifacts that depend on an image set alone."""

ORIENTATION = 0x0112
"""Tag of EXIF that tells how the camera was held."""

HARMLESS_WARNINGS = ("DecompressionBombWarning", "Palette images with Transparency")
"""Parts of warnings of Pillow about images that were read as they should be."""


class ImageFile(NamedTuple):
    """A file to decode."""

    name: str
    """Name for messages."""
    content: Path | bytes
    """Path of the file, or its bytes."""
    row: int = -1
    """Row of the tensor; -1: files come in the order of the rows."""


class TargetShape(NamedTuple):
    """Shape that every image is converted to."""

    channels: Literal[1, 3]
    side: int
    fit: Fit = "stretch"


class DecodedImages(NamedTuple):
    """The readable images among some files."""

    images: NDArray[np.uint8]
    """(M, channels, side, side); M of the files are readable."""
    rows: NDArray[np.int64]
    """(M,) positions of the readable files."""


@dataclass(frozen=True)
class FolderContents:
    """Everything in a folder and its subfolders but hidden files and folders; links are followed."""

    files: list[Path]
    """Sorted by path."""
    folders: list[Path]
    """All subfolders, sorted by path."""
    problems: list[Problem]
    """Broken links, links that lead into themselves, unreadable folders, and names that are not in UTF-8."""

    @cached_property
    def folders_with_images(self) -> frozenset[Path]:
        """All folders that contain an image, at any depth."""
        parents = {path.parent for path in self.files if is_image(path)}
        return frozenset(parents | {above for path in parents for above in path.parents})


class _DecodeResult(NamedTuple):
    images: NDArray[np.uint8]
    errors: dict[int, Problem]
    """Row -> problem of every unreadable file; its pixels are undefined."""
    transparent: list[int]
    """Rows of images with transparent pixels."""
    doubts: dict[int, str]
    """Row -> what Pillow warned of while it read the image."""


class _DecodeError(Exception):
    """A file cannot be decoded: the reason and how to fix it."""

    def __init__(self, reason: str, fix: str = COPY_AGAIN) -> None:
        super().__init__(reason)
        self.reason, self.fix = reason, fix


def decode_images(
    files: Iterable[ImageFile], count: int, shape: TargetShape, path: Path | None = None
) -> NDArray[np.uint8]:
    """Decode images into one tensor, with as many threads as there are processors.

    Images are turned upright, reduced by the mean of the area or enlarged bicubically, and shown over white if they are
    transparent.

    Args:
        files: ``count`` files; a few hundred are read at a time, so that little more memory than the tensor's is used.
        count: Number of files.
        shape: Shape of every decoded image.
        path: New .npy file that holds the tensor instead of memory.

    Returns:
        uint8, (count, channels, side, side), in the order of the files or of their ``row``.

    Raises:
        ImageSetError: Files cannot be read; each is named with the reason.
        UsageError: The number of files is not ``count``.
    """
    result = _decode_all(files, count, shape, path)
    if result.errors:
        raise ImageSetError(f"{len(result.errors)} of {count} images cannot be read:", list(result.errors.values()))
    return result.images


def _decode_all(files: Iterable[ImageFile], count: int, shape: TargetShape, path: Path | None = None) -> _DecodeResult:
    """Decode images as :func:`decode_images` does, but return unreadable files instead of raising an error."""
    size = (count, shape.channels, shape.side, shape.side)
    images = np.empty(size, np.uint8) if path is None else np.lib.format.open_memmap(path, "w+", np.uint8, size)
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    result = _DecodeResult(images, {}, [], {})
    done = 0
    with _collected_warnings(), ThreadPoolExecutor(workers) as pool:
        for group in _batched(files, 64 * workers):
            batches = [group[start : start + 32] for start in range(0, len(group), 32)]
            starts = itertools.accumulate((len(batch) for batch in batches), initial=done)
            jobs = zip(batches, starts, strict=False)
            for part in pool.map(lambda job: _decode_batch(job[0], job[1], images, shape), jobs):
                result.errors.update(part.errors)
                result.transparent.extend(part.transparent)
                result.doubts.update(part.doubts)
            done += len(group)
            _release_pages(images)
    if done != count:
        raise UsageError(f"Expected {count} images, but there are {done}.")
    return result


def open_image(file: ImageFile, shape: TargetShape | None = None) -> PIL.Image.Image:
    """Decode one image, upright, in gray or RGB; without a target shape it keeps its own size.

    Raises:
        ImageSetError: It cannot be read.
    """
    try:
        with _collected_warnings():
            image = _read_image(file, shape)
    except _DecodeError as error:
        raise ImageSetError("", [_decode_problem(file, error)]) from error
    return _composite_over_white(image) if shape is None else _convert(image, shape)


def _decode_problem(file: ImageFile, error: _DecodeError) -> Problem:
    return Problem("unreadable image", f"{file.name}: {error.reason}", error.fix)


def _read_image(file: ImageFile, shape: TargetShape | None) -> PIL.Image.Image:
    """Read an image, upright, in the color mode of the file."""
    import PIL.Image

    content = b""
    try:
        content = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
        if content.startswith(b"P2"):
            image = _read_plain_pgm(content)
        else:
            with _silent_tiff(content):
                image = PIL.Image.open(io.BytesIO(content))
                if shape is not None:
                    # A JPEG is decoded at half, a quarter or an eighth of its size if that leaves twice what is needed.
                    image.draft(None, (2 * shape.side, 2 * shape.side))
                image.load()
        image = _upright(image)
    except _DecodeError:
        raise
    except PIL.Image.DecompressionBombError as error:
        raise _DecodeError("it has too many pixels", "Save it with fewer pixels.") from error
    except MemoryError as error:
        raise _DecodeError("it needs more memory than there is", "Save it with fewer pixels.") from error
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        raise _DecodeError(_error_reason(error, file.content, content)) from error
    if image.mode.startswith(("I", "F")):
        raise _DecodeError("pixels have more than 8 bits", "Save it with 8 bits per channel.")
    return image


def _upright(image: PIL.Image.Image) -> PIL.Image.Image:
    """Turn an image as its EXIF orientation says; other entries of its EXIF data, which may be damaged, do not matter.

    Pillow's ``exif_transpose`` also writes the EXIF data of the new image, and raises errors for values of wrong types.
    """
    import PIL.Image

    turn = PIL.Image.Transpose
    methods = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    orientation = image.getexif().get(ORIENTATION, 1)
    return image.transpose(methods[orientation]) if orientation in methods else image


def _error_reason(error: Exception, file: Path | bytes, content: bytes) -> str:
    """Explain why Pillow could not read a file, without terms of Pillow's implementation."""
    import PIL

    if isinstance(error, FileNotFoundError) and isinstance(file, Path) and file.is_symlink():
        return f"it is a link to {printable(str(file.readlink()))}, which does not exist"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if not content:
        return "the file is empty"
    if isinstance(error, PIL.UnidentifiedImageError):
        page = content.lstrip()[:1] == b"<"
        what = "a web page or other text, not an image" if page else describe_content(content)
        return f"it is {what}" if what else f"its format is not supported, or its start is damaged (read are {FORMATS})"
    if "truncated" in str(error).lower():
        return "it is truncated: its end is missing"
    own = isinstance(error, OSError | SyntaxError) and str(error)  # other exceptions come from below Pillow
    return f"it is damaged ({error})" if own else "it is damaged"


class _SilentStderr:
    """Discards what C libraries write to standard error while any thread is in it."""

    def __init__(self) -> None:
        self._lock, self._inside, self._saved = threading.Lock(), 0, -1

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                try:
                    self._saved = os.dup(2)
                except OSError:  # the process has no standard error
                    self._saved = -1
                    return
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, 2)
                os.close(null)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._saved >= 0:
                os.dup2(self._saved, 2)
                os.close(self._saved)


_silent_stderr = _SilentStderr()


def _silent_tiff(content: bytes) -> AbstractContextManager[None]:
    """Keep libtiff, which Pillow cannot silence, from writing messages without the file's name to standard error."""
    return _silent_stderr if content.startswith((b"II*\0", b"MM\0*")) else nullcontext()


_reading = threading.local()
"""In each thread that decodes, ``warnings``: what was warned of since the last image."""


@contextmanager
def _collected_warnings() -> Iterator[None]:
    """Collect warnings in the thread that issues them instead of printing them, so that each has the name of a file.

    Filters of warnings belong to the process: enter this in the thread that starts the others.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = _collect_warning
        yield


def _collect_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    _reading.warnings = [*getattr(_reading, "warnings", []), f"{category.__name__}: {message}"]


def _doubt() -> str:
    """Return what was warned of in this thread since the last call, in words; empty for nothing of importance."""
    texts, _reading.warnings = getattr(_reading, "warnings", []), []
    texts = [text for text in texts if not any(harmless in text for harmless in HARMLESS_WARNINGS)]
    if any(word in text for text in texts for word in ("EXIF", "Metadata", "TIFF", "tag")):
        return "its metadata are damaged, so that it may not be upright"
    return "parts of it may be damaged" if texts else ""


def _is_transparent(image: PIL.Image.Image) -> bool:
    """Check whether any pixel is not opaque."""
    if not image.has_transparency_data:
        return False
    return bool(image.convert("RGBA").getchannel("A").getextrema()[0] != 255)


def _composite_over_white(image: PIL.Image.Image) -> PIL.Image.Image:
    """Show an image over white: transparent pixels often have arbitrary colors that no viewer shows."""
    import PIL.Image

    if not _is_transparent(image):
        return image
    front = image.convert("RGBA")
    return PIL.Image.alpha_composite(PIL.Image.new("RGBA", front.size, "white"), front).convert("RGB")


def walk_folder(folder: Path) -> FolderContents:
    """List a folder and its subfolders; links to files and folders are followed.

    A link to a folder that contains it is not followed and reported as a warning; a broken link is a serious problem,
    since images are missing.
    """
    found = FolderContents([], [], [])
    todo: list[tuple[Path, tuple[Path, ...]]] = [(folder, (folder.resolve(),))]
    while todo:
        base, chain = todo.pop()
        try:
            entries = [entry for entry in os.scandir(base) if not entry.name.startswith(".")]
        except OSError as error:
            message = f"folder {printable(str(base))} cannot be read: {error.strerror}"
            found.problems.append(Problem("unreadable folder", message, "Correct its permissions, or remove it."))
            continue
        for entry in entries:
            path = base / entry.name
            if entry.is_symlink() and not _exists(path):
                problem: Problem | None = _broken_link(path)
            elif not _is_utf8(entry.name) and (entry.is_dir() or is_image(path)):
                message = f"the name of {printable(str(path))} is not in UTF-8"
                problem = Problem("wrong name", message, "Rename it in UTF-8, for example with convmv.")
            elif entry.is_dir():
                real = path.resolve() if entry.is_symlink() else None
                problem = _link_loop(path, real, chain) if real else None
                if problem is None:
                    found.folders.append(path)
                    todo.append((path, (*chain, real or chain[-1] / entry.name)))
            else:
                problem = None
                if entry.is_file():
                    found.files.append(path)
            found.problems.extend([problem] if problem else [])
    return FolderContents(sorted(found.files), sorted(found.folders), sorted(found.problems))


def find_images(folder: Path, problems: list[Problem]) -> list[Path]:
    """Find all image files in a folder and its subfolders, sorted by path; hidden files and folders are ignored.

    Args:
        folder: The folder.
        problems: List to which links that cannot be followed and wrong names are appended.
    """
    contents = walk_folder(folder)
    problems += contents.problems
    return [path for path in contents.files if is_image(path)]


def is_image(path: Path) -> bool:
    """Check whether a file has the suffix of an image format that is read."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def ignored_formats(folder: Path, files: Iterable[Path]) -> list[Problem]:
    """Report files that are ignored because their format is not supported.

    Args:
        folder: Folder of the files, for the message.
        files: The files; those with the suffix of an image format are left out.
    """
    other = [path for path in files if not is_image(path)]
    if not other:
        return []
    suffixes = Counter(path.suffix or "no suffix" for path in other)
    counts = ", ".join(f"{count} {printable(suffix)}" for suffix, count in sorted(suffixes.items()))
    message = f"files in {printable(str(folder))} are ignored, because their format is not supported: {counts}"
    return [Problem("ignored", message, f"Save images in one of {FORMATS}.{_jpeg_fix(other)}", serious=False)]


def _jpeg_fix(paths: Iterable[Path]) -> str:
    suffixes = sorted({path.suffix.lower() for path in paths} & JPEG_SUFFIXES)
    return f" Files with {' or '.join(suffixes)} are JPEG: rename them to .jpg." if suffixes else ""


def other_files(folder: Path, files: Iterable[Path], taken: Iterable[Path]) -> list[Problem]:
    """Report files that an image set of a fixed layout passes over.

    Args:
        folder: Folder of the image set, for the message.
        files: All files where images are expected.
        taken: Those that are read.
    """
    other = sorted(set(files) - set(taken))
    if not other:
        return []
    names = summarize_names([relative_name(folder, path) for path in other], limit=5)
    message = f"{len(other)} files in {printable(str(folder))} are ignored, because of their name or format: {names}"
    fix = f"Give them the names and the format of the others.{_jpeg_fix(other)}"
    return [Problem("ignored", message, fix, serious=False)]


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are not UTF-8 become lone surrogates
        return False
    return True


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a link to itself, or into a folder that must not be read
        return False


def _broken_link(path: Path) -> Problem:
    message = f"{printable(str(path))} is a link to {printable(str(path.readlink()))}, which does not exist"
    return Problem("broken link", message, "Restore what it leads to, or remove the link.")


def _link_loop(path: Path, real: Path, chain: Sequence[Path]) -> Problem | None:
    """Return a problem if a link leads to a folder that contains it."""
    if not any(known.is_relative_to(real) for known in chain):
        return None
    message = f"{printable(str(path))} is a link to {printable(str(real))}, which contains it, and is not followed"
    return Problem("link loop", message, "Remove the link.", serious=False)


def content_digest(folder: Path, paths: Iterable[Path]) -> str:
    """Compute the SHA-256 of the names (relative to a folder) and contents of files."""
    state = hashlib.sha256()
    ordered = list(paths)
    with ThreadPoolExecutor(4) as pool:
        for path, content in zip(ordered, pool.map(_file_hash, ordered), strict=True):
            state.update(f"{relative_name(folder, path)}\0{content}\n".encode())
    return state.hexdigest()


def load_images(
    folder: Path, paths: Sequence[Path], shape: TargetShape, problems: list[Problem] | None = None
) -> DecodedImages:
    """Decode image files into one tensor, or map it from the store if there are many and they were decoded before.

    Args:
        folder: Folder of the image set.
        paths: The files, in the order of the rows.
        shape: Shape of every decoded image.
        problems: List to which problems are appended, and unreadable files are skipped; None: an error is raised.

    Raises:
        ImageSetError: No file can be read; or, without a list of problems, any file cannot be read.
    """

    def decode(path: Path | None = None) -> _DecodeResult:
        return _decode_all((ImageFile(str(file), file) for file in paths), len(paths), shape, path)

    def decode_to_cache(cache: Path) -> dict[str, NDArray[Any]]:
        result = decode(cache / "images.npy")
        if result.errors:
            raise ImageSetError(f"{len(result.errors)} images cannot be read:", list(result.errors.values()))
        return {
            "transparent": np.array(result.transparent, dtype=np.int64),
            "doubtful": np.array(list(result.doubts), dtype=np.int64),
            "doubts": np.array(list(result.doubts.values()), dtype=np.str_),
        }

    if len(paths) >= CACHE_MIN_IMAGES:
        key = {"files": content_digest(folder, paths), "shape": list(shape), "code": fingerprint("images.decoding")}
        try:
            arrays = cached_arrays(key, decode_to_cache)
            # Artifacts of earlier versions lack the doubts.
            doubts = zip(arrays.get("doubtful", ()), arrays.get("doubts", ()), strict=True)
            doubtful = {int(row): str(text) for row, text in doubts}
            result = _DecodeResult(arrays["images"], {}, arrays["transparent"].tolist(), doubtful)
        except ImageSetError:
            if problems is None:
                raise
            result = decode()  # only complete image sets are cached
    else:
        result = decode()
    head = f"{len(result.errors)} of {len(paths)} images cannot be read:"
    collect_or_raise([result.errors[row] for row in sorted(result.errors)], problems, head)
    if problems is not None:
        problems += _doubt_problems(folder, paths, result)
    if problems is not None and result.transparent:
        names = summarize_names([relative_name(folder, paths[row]) for row in sorted(result.transparent)])
        message = f"{len(result.transparent)} images have transparent pixels, which are shown over white: {names}"
        fix = "If you want another background, save them with it."
        problems.append(Problem("transparent", message, fix, serious=False))
    rows = np.setdiff1d(np.arange(len(paths)), list(result.errors))
    if not len(rows):
        raise problem_error("no image", f"{folder} contains no readable image", "Fix the other problems first.")
    return DecodedImages(result.images[rows] if result.errors else result.images, rows)


def _doubt_problems(folder: Path, paths: Sequence[Path], result: _DecodeResult) -> list[Problem]:
    rows: dict[str, list[int]] = {}
    for row in sorted(result.doubts.keys() - result.errors.keys()):
        rows.setdefault(result.doubts[row], []).append(row)
    fix = "Compare them with their source, and save them again without metadata."
    return [
        Problem("doubtful image", f"{summarize_names(names)}: {text}", fix, serious=False)
        for text, found in rows.items()
        for names in [[relative_name(folder, paths[row]) for row in found]]
    ]


def relative_name(folder: Path, path: Path) -> str:
    """Return the path of a file relative to a folder; the whole path if the file is elsewhere."""
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def cached_arrays(
    cache_key: Mapping[str, Any], make: Callable[[Path], Mapping[str, NDArray[Any]]]
) -> dict[str, NDArray[Any]]:
    """Return arrays from the store; if they are not there, make and store them.

    Arrays are memory-mapped and read-only: processes that use the same images share the memory.

    Args:
        cache_key: Everything that the arrays depend on, including the hash of their files and the version of the code.
        make: Function that returns name -> array. It may write large arrays itself, as <name>.npy, into the folder that
            it receives.
    """
    store = Store()
    key = {"role": CACHE_ROLE, **cache_key}
    folder = store.read(store.key(key))
    if folder is None:
        folder = store.write(key, lambda new_folder: _save_arrays(new_folder, make(new_folder)))
    return {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in sorted(folder.glob("*.npy"))}


def _save_arrays(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def _release_pages(images: NDArray[np.uint8]) -> None:
    """Release the memory of a tensor in a file; the written pixels stay in the file."""
    file: object = images.base
    if isinstance(file, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        file.madvise(mmap.MADV_DONTNEED)


def _decode_batch(
    files: Sequence[ImageFile], start: int, images: NDArray[np.uint8], shape: TargetShape
) -> _DecodeResult:
    result = _DecodeResult(images, {}, [], {})
    _doubt()  # forget what this thread was warned of before
    for position, file in enumerate(files, start):
        row = position if file.row < 0 else file.row
        try:
            image = _read_image(file, shape)
        except _DecodeError as error:
            result.errors[row] = _decode_problem(file, error)
            _doubt()
            continue
        if _is_transparent(image):
            result.transparent.append(row)
        if row < len(images):
            pixels = np.asarray(_convert(image, shape))
            images[row] = pixels if shape.channels == 1 else pixels.transpose(2, 0, 1)
        if text := _doubt():
            result.doubts[row] = text
    return result


def _convert(image: PIL.Image.Image, shape: TargetShape) -> PIL.Image.Image:
    """Convert an image to the channels and size of the target shape."""
    return _resize(_composite_over_white(image).convert("L" if shape.channels == 1 else "RGB"), shape)


def _resize(image: PIL.Image.Image, shape: TargetShape) -> PIL.Image.Image:
    import PIL.Image

    box: tuple[float, float, float, float] = (0, 0, *image.size)
    if shape.fit == "crop":
        side = min(image.size)
        left, top = ((edge - side) // 2 for edge in image.size)
        box = (left, top, left + side, top + side)
    target = (shape.side, shape.side)
    if image.size == target:
        return image
    enlarging = min(box[2] - box[0], box[3] - box[1]) < shape.side
    return image.resize(target, PIL.Image.Resampling.BICUBIC if enlarging else PIL.Image.Resampling.BOX, box=box)


def _read_plain_pgm(content: bytes) -> PIL.Image.Image:
    """Read a PGM file in decimal digits (P2), a hundred times faster than Pillow."""
    import PIL.Image

    digits = b" ".join(line.split(b"#", 1)[0] for line in content[2:].splitlines())
    stray = digits.translate(None, b"0123456789 \t")
    if stray:
        raise _DecodeError(f"it contains {stray[:8]!r} where decimal digits are expected")
    numbers = np.fromstring(digits.decode(), dtype=np.int64, sep=" ")
    if len(numbers) < 3 or numbers[:3].min() < 1:
        raise _DecodeError("it is truncated: width, height or highest level are missing")
    width, height, top = (int(number) for number in numbers[:3])
    levels = numbers[3:]
    if top > 255:
        raise _DecodeError(f"levels go up to {top}", "Save it with 8 bits.")
    if len(levels) < width * height:
        raise _DecodeError(f"it is truncated: it has {len(levels)} of {width * height} pixels")
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
