"""Files of row numbers, as repositories publish them.

Accepted are, whatever the file is called:

- an array of numpy (``.npy``), or several of them (``.npz``) of which one is named ``forget`` (see `NAMES`);
- what ``torch.save`` wrote (``.pt``): a tensor, a list, or a dictionary of them as above, without other objects;
- JSON: a list, or an object of lists as above;
- text: numbers between spaces, commas or line ends, with or without brackets and a header; or a table in CSV with a
  column of one of those names.

The rows to forget may have any name if there is nothing else in the file: a single list, array or column.

The values are row numbers of the training set; or one boolean, or 0 or 1, for each training image, true for those to
forget; or one label for each training image, negative for those to forget (-label - 1, as SalUn marks them). Whole
numbers may be written with a decimal point.
"""

from __future__ import annotations

import csv
import io
import json
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetbench.datasets.problems import summarize_names
from forgetbench.user_files import BOMS, describe_content

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMES = ("forget", "forget_idx", "forget_index", "forget_indices", "forget_rows", "indices", "index", "idx", "rows")
"""Names of the array or column to read where there are several; the first one that exists is taken."""
ACCEPTED = (
    "Accepted are row numbers, or a boolean for each training image, in .npy, .npz, .json, .txt, .csv, or as a tensor "
    "in a file of torch.save"
)


class IndexFileError(Exception):
    """A file is no list of rows: what it is, and how to fix it, as the end of a sentence that begins with its name."""


def read_rows(content: bytes, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Read the training rows that a file lists.

    Args:
        content: The file.
        labels: Labels of the training set, (N,), or (N, A) attributes.

    Returns:
        Row numbers in the order of the file, int64.

    Raises:
        IndexFileError: It is no list of rows, or lists rows twice or rows that do not exist.
    """
    values = _whole_numbers(_flat(_parse(content)))
    total = len(labels)
    if values.dtype == bool:
        if len(values) != total:
            raise IndexFileError(
                f"has {len(values)} booleans, but there are {total} training images; one each is needed."
            )
        return np.flatnonzero(values)
    if len(values) == total > 2 and np.isin(values, (0, 1)).all():  # 0 and 1 as row numbers would repeat
        return np.flatnonzero(values)
    if len(values) == total and (values < 0).any():
        return _marked(values, labels)
    outside = values[(values < 0) | (values >= total)]
    if len(outside):
        wrong = int(outside.max() if outside.max() >= total else outside.min())
        raise IndexFileError(
            f"lists row {wrong}; training rows are 0 to {total - 1}. Check that it belongs to this image set and split."
        )
    repeated = len(values) - len(np.unique(values))
    if repeated:
        raise IndexFileError(f"{_repetition(values, repeated)}. Remove the repetitions.")
    return values


def _repetition(values: NDArray[np.int64], repeated: int) -> str:
    """Say which row is listed again, or how many entries of the list are repetitions, with an example."""
    rows, counts = np.unique(values, return_counts=True)
    first = int(rows[counts > 1][0])
    if (counts > 1).sum() > 1:
        return f"lists {int((counts > 1).sum())} rows more than once, such as row {first}"
    return f"lists row {first} {'twice' if repeated == 1 else f'{repeated + 1} times'}"


def _marked(values: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows with a negative label, where all labels are those of the training set."""
    forget = values < 0
    if labels.ndim != 1 or not np.array_equal(np.where(forget, -values - 1, values), labels):
        raise IndexFileError(
            f"has a number for each of the {len(values)} training images, {int(forget.sum())} of them negative, but "
            "they are not the labels of this training set with -label - 1 for rows to forget. List row numbers instead."
        )
    return np.flatnonzero(forget)


def read_values(content: bytes) -> NDArray[np.float64]:
    """Read an array (N,) of real numbers from a file of the same kinds.

    Raises:
        IndexFileError: It is no list of numbers.
    """
    array = _flat(_parse(content))
    if array.dtype.kind in "US":
        array = _numbers_of_words([str(word) for word in array.tolist()])
    if array.dtype.kind not in "iuf":
        raise IndexFileError(
            f"contains values of type {array.dtype}, but a list of numbers is needed. Save it as floats."
        )
    return array.astype(np.float64)


def _parse(content: bytes) -> Any:
    """Return what a file contains as an array or lists, chosen by its first bytes."""
    if content.startswith(b"\x93NUMPY"):
        return _load_numpy(content)
    if content.startswith(b"PK"):
        return _read_archive(content)
    if re.match(rb"\x80[\x02-\x05]", content):
        return _load_torch(content)  # before version 1.6, torch.save wrote no archive
    found = describe_content(content)
    if found:
        raise IndexFileError(f"is {found}. {ACCEPTED}.")
    encoding = next((name for mark, name in BOMS.items() if content.startswith(mark)), "utf-8-sig")
    try:
        text = content.decode(encoding).strip()
    except UnicodeDecodeError as error:
        raise IndexFileError(f"is neither text in UTF-8 nor an array. {ACCEPTED}.") from error
    if "\0" in text:
        raise IndexFileError(f"is neither text in UTF-8 nor an array. {ACCEPTED}.")
    return _read_json(text) if re.match(r'\{\s*["}]|\[\s*(\[|true|false)', text) else _read_text(text)


def _load_numpy(content: bytes) -> Any:
    try:
        return np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        if b"'|O'" in content[:256]:
            raise IndexFileError(
                "is an array of Python objects, which ForgetBench never unpickles. Save it as whole numbers: "
                "np.save(FILE, rows.astype(int))."
            ) from error
        raise IndexFileError("is a damaged .npy file. Copy it from its source again, or save it again.") from error


def _read_archive(content: bytes) -> Any:
    """Read an archive: of numpy arrays, or of torch.save, whatever it is called."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
        if any(name.endswith("data.pkl") for name in names):
            return _load_torch(content)
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return _choose(
                {name: file[name] for name in file.files if name in NAMES or len(file.files) == 1}, file.files
            )
    except IndexFileError:
        raise
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        raise IndexFileError(f"is a zip archive that cannot be read, or contains no arrays. {ACCEPTED}.") from error


def _load_torch(content: bytes) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other protocols of pickle
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a pickle of other objects, or a damaged file
        raise IndexFileError(
            "is a pickle, which ForgetBench never runs, or is damaged. Of files of torch.save, tensors, lists and "
            "dictionaries are read. Save the rows as an array: np.save(FILE, np.asarray(rows))."
        ) from error
    if isinstance(loaded, Mapping):
        loaded = _choose(loaded, [str(name) for name in loaded])
    return loaded.numpy() if isinstance(loaded, torch.Tensor) else loaded


def _read_json(text: str) -> Any:
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise IndexFileError(f"is not valid JSON: {_first_line(error)}. Correct it. {ACCEPTED}.") from error
    return _choose(loaded, list(loaded)) if isinstance(loaded, dict) else loaded


def _choose(values: Mapping[Any, Any], names: Sequence[str]) -> Any:
    """Return the rows to forget among several named lists."""
    name = next((name for name in NAMES if name in values), None)
    if name is not None:
        return values[name]
    if len(names) == 1 and len(values) == 1:
        return next(iter(values.values()))
    what = summarize_names(map(repr, names), limit=6) or "nothing"
    raise IndexFileError(f"contains {what}, and none is named {NAMES[0]!r}. Name the rows to forget {NAMES[0]!r}.")


def _read_text(text: str) -> list[str]:
    """Return the words of a list, or of a column of a table, without brackets and header."""
    if any(text.count(opening) != text.count(closing) for opening, closing in ("[]", "()", "{}")):
        raise IndexFileError("is cut off: not all of its brackets are closed. Copy it from its source again.")
    bare = text.translate(str.maketrans("[](){}", "      "))
    lines = [line for line in bare.splitlines() if line.strip()]
    if not lines:
        raise IndexFileError(f"is empty. {ACCEPTED}.")
    try:
        table = list(csv.reader(lines, skipinitialspace=True)) if "," in bare else [[line] for line in lines]
    except csv.Error as error:
        raise IndexFileError(f"cannot be read as a table: {error}. Write one row number per line.") from error
    header = [name.strip() for name in table[0]]
    indexed = len(header) > 1 and not header[0]  # as pandas names its index
    if len(table) > 1 and (indexed or not any(_is_number(word) for name in header for word in name.split())):
        return _read_column(header, table[1:])
    widths = {len(row) for row in table}
    if "," in bare and bare == text and len(table) > 1 and widths == {len(header)} != {1} and "" not in table[0]:
        raise IndexFileError(
            f"has {len(header)} columns without names. Keep only the column of row numbers, or name it {NAMES[0]!r}."
        )
    return [word for row in table for field in row for word in field.split()]


def _read_column(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the column of the row numbers of a table with a header."""
    named = [name for name in NAMES if name in header]
    filled = [number for number, name in enumerate(header) if name] or [0]  # pandas leaves its own index unnamed
    if named:
        column = header.index(named[0])
    elif len(filled) == 1:
        column = filled[0]
    else:
        names = summarize_names(map(repr, header), limit=6)
        raise IndexFileError(
            f"has the columns {names}, and none is named {NAMES[0]!r}. Name the column of row numbers {NAMES[0]!r}, or "
            "keep only that column; if there is none, add it."
        )
    short = next((row for row in rows if len(row) <= column), None)
    if short is not None:
        raise IndexFileError(f"has a row without column {column + 1}: {','.join(short)!r}. Correct it.")
    return [word for row in rows for word in row[column].split()]


def _is_number(word: str) -> bool:
    return bool(re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?|(?i:true|false)", word.strip(",")))


def _flat(values: Any) -> NDArray[Any]:
    """Return an array (N,); a column or a row of a matrix is one."""
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError, TypeError, RecursionError) as error:  # lists of different lengths
        raise IndexFileError(f"is no list of numbers, but nested lists. {ACCEPTED}.") from error
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise IndexFileError(f"has shape {array.shape}, but a one-dimensional list is needed. {ACCEPTED}.")
    if not len(array):
        raise IndexFileError(f"contains an empty list. {ACCEPTED}.")
    return array


def _whole_numbers(array: NDArray[Any]) -> NDArray[Any]:
    """Return integers or booleans; text and whole floats are converted."""
    if array.dtype.kind in "US":
        array = _numbers_of_words([str(word) for word in array.tolist()])
    if array.dtype == bool:
        return array
    if array.dtype.kind == "f":
        whole = np.isfinite(array) & (array == np.round(array)) & (np.abs(array) < 2**53)
        if not whole.all():
            wrong = array[~whole][0]
            raise IndexFileError(f"contains {wrong}, but row numbers are whole numbers. Correct it.")
        return array.astype(np.int64)
    if array.dtype.kind not in "iu" or int(array.max()) >= 2**63:
        raise IndexFileError(f"contains values of type {array.dtype}, but row numbers are whole numbers. {ACCEPTED}.")
    return array.astype(np.int64)


def _numbers_of_words(words: Sequence[str]) -> NDArray[Any]:
    if all(word.lower() in ("true", "false") for word in words):
        return np.array([word.lower() == "true" for word in words])
    wrong = next((word for word in words if not _is_number(word) or word.lower() in ("true", "false")), None)
    if wrong is not None:
        raise IndexFileError(f"contains {wrong[:40]!r} where a row number is expected. {ACCEPTED}.")
    try:
        return np.array([int(word) for word in words], dtype=np.int64)
    except (ValueError, OverflowError):
        return np.array([float(word) for word in words])


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
