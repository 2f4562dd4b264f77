"""Read the ``.npz`` files that users bring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from forgetbench.errors import UsageError
from forgetbench.evidence.arrays import UNREADABLE, first_line, load_arrays
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
            return load_arrays(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"{path} cannot be read: {reason}. Correct its permissions, or copy it again.") from error
    except UNREADABLE as error:
        reason = first_line(error)
        fix = f"{WRITE} and plain numbers." if "pickle" in reason else "It is damaged: copy or write it again."
        raise UsageError(f"{path} is not an .npz file of plain arrays: {reason}. {fix}") from error
    convert = "(FILE, forget=forget.numpy(), ...)" if what.startswith("a torch archive") else ""
    what = f" It is {what}." if what else ""
    raise UsageError(f"{path} is not an .npz file of arrays.{what} {WRITE}{convert}.")
