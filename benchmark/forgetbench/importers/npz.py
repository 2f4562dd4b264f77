"""Read the ``.npz`` files that users bring."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forgetbench.errors import UsageError
from forgetbench.evidence.arrays import UNREADABLE
from forgetbench.user_files import describe_file

NPZ = "an archive of numpy arrays (.npz)"
WRITE = "Write one array for each subset with np.savez"


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file by name, whatever the file's name; pickled objects are refused.

    Raises:
        UsageError: There is no such file, or it is not an ``.npz`` file of plain arrays; the message says what it is.
    """
    if not path.is_file():
        raise UsageError(f"There is no file {path}.")
    try:
        what = describe_file(path)
        if what == NPZ:
            return _read_arrays(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"{path} cannot be read: {reason}. Correct its permissions, or copy it again.") from error
    except (*UNREADABLE, MemoryError, OverflowError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        fix = f"{WRITE} and plain numbers." if "pickle" in reason else "It is damaged: copy or write it again."
        raise UsageError(f"{path} is not an .npz file of plain arrays: {reason}. {fix}") from error
    convert = "(FILE, forget=forget.numpy(), ...)" if what.startswith("a torch archive") else ""
    what = f" It is {what}." if what else ""
    raise UsageError(f"{path} is not an .npz file of arrays.{what} {WRITE}{convert}.")


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    with warnings.catch_warnings(), np.load(path, allow_pickle=False) as file:
        warnings.simplefilter("ignore")  # numpy warns of headers that Python 2 wrote
        arrays = {name: file[name] for name in file.files}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # numpy returns the bytes of a member without an array header
            raise ValueError(f"{name} is not an array")  # noqa: TRY004 - as numpy does for other damage
    return arrays
