"""Problems of an image set's files, and the error that reports all of them."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, NamedTuple

from forgetbench.errors import ForgetBenchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


MAX_PROBLEMS_IN_ERROR = 10
"""Problems that an error message shows; ``forgetbench data check --json`` lists all of them."""
MAX_NAMES = 20
"""Files or people that one problem names."""
COPY_AGAIN = "Copy the file from its source again, or remove it."


class Problem(NamedTuple):
    """One thing that is wrong with an image set."""

    kind: str
    """Kind of problem, in a few words: "unreadable image"."""
    message: str
    """What is wrong and where (file, row, part or class): a sentence without the full stop."""
    fix: str
    """How to fix it: a sentence."""
    serious: bool = True
    """Whether results would be wrong; otherwise it is a warning."""


class ImageSetError(UsageError):
    """Files or rows of an image set are wrong; the message shows the first ten problems.

    A single problem is shown with its fix.

    Attributes:
        head: First line of the message if there are several problems.
        problems: All problems.
    """

    def __init__(self, head: str, problems: Sequence[Problem]) -> None:
        if len(problems) == 1 and not head:
            message = f"{problems[0].message}. {problems[0].fix}"
        else:
            hidden = len(problems) - MAX_PROBLEMS_IN_ERROR
            lines = [head or f"{len(problems)} problems:"]
            lines += [problem.message for problem in problems[:MAX_PROBLEMS_IN_ERROR]]
            lines += [f"... and {hidden} more"] if hidden > 0 else []
            message = "\n".join(lines)
        super().__init__(message)
        self.head, self.problems = head, tuple(problems)

    def __reduce__(self) -> tuple[type[ImageSetError], tuple[str, tuple[Problem, ...]]]:
        """Pickle by the constructor's arguments: worker processes send errors to the main process."""
        return type(self), (self.head, self.problems)


def problem_error(kind: str, message: str, fix: str) -> ImageSetError:
    """Return the error of one problem that makes reading on impossible."""
    return ImageSetError("", [Problem(kind, message, fix)])


def problems_from_error(error: ForgetBenchError) -> list[Problem]:
    """Return the problems that an error reports."""
    if isinstance(error, ImageSetError):
        return list(error.problems)
    fix = "Fix the other problems first; if there are none, correct the files or the options."
    return [Problem("not as expected", str(error).rstrip("."), fix)]


def collect_or_raise(found: Sequence[Problem], problems: list[Problem] | None, head: str = "") -> None:
    """Append problems to a list; without a list, raise them.

    Args:
        found: Problems to report.
        problems: List to append to, or None.
        head: First line of the error.

    Raises:
        ImageSetError: There are problems, and no list for them.
    """
    if problems is not None:
        problems += found
    elif found:
        raise ImageSetError(head, found)


def too_few_images(class_name: str, count: int) -> Problem:
    """Return the problem of a class with few training images; it is serious if there are none."""
    message = f"class {class_name!r} has {count} training images"
    return Problem("too few images", message, "Add training images, or remove the class.", serious=count == 0)


def similar_names(kind: str, names: Iterable[str]) -> list[Problem]:
    """Report names that look alike: composed and decomposed letters are serious, other differences warnings.

    Args:
        kind: What they are names of, in the singular: "class".
        names: The names, each once.
    """
    spellings: dict[str, list[str]] = {}
    for name in names:
        spellings.setdefault(_appearance(name), []).append(name)
    problems = []
    for alike in spellings.values():
        if len(alike) < 2:
            continue
        identical = len({unicodedata.normalize("NFC", name) for name in alike}) < len(alike)
        what = "look the same, but consist of other Unicode characters" if identical else "look alike"
        message = f"the {kind} names {' and '.join(map(ascii, alike))} {what}; each is a {kind} of its own"
        fix = f"If they are one {kind}, spell them alike; otherwise rename one."
        problems.append(Problem("similar names", message, fix, serious=identical))
    return problems


def _appearance(name: str) -> str:
    """Return a name without what is hard to see: case, spaces, invisible characters, zeros before a number."""
    text = unicodedata.normalize("NFKC", name).casefold()
    text = " ".join("".join(sign for sign in text if unicodedata.category(sign) != "Cf").split())
    return str(int(text)) if text.isdecimal() else text


def summarize_names(names: Iterable[object], limit: int = MAX_NAMES) -> str:
    """Join the first names with commas, and count the others."""
    texts = [str(name) for name in names]
    hidden = len(texts) - limit
    return ", ".join(texts[:limit]) + (f" and {hidden:,} more" if hidden > 0 else "")


def diff_against_published(names: Sequence[str], published: Iterable[str], where: str) -> list[str]:
    """Compare names of images with those of the published image set.

    Args:
        names: Names of the images on this machine.
        published: All names of the published set, in the order in which missing ones are shown.
        where: File or folder that contains the names, for the sentences.

    Returns:
        A sentence without the full stop for each kind of difference: missing, unexpected and repeated names.
    """
    expected, actual = dict.fromkeys(published), dict.fromkeys(names)
    differences = (
        ("are missing", [name for name in expected if name not in actual]),
        ("are not in the published set", [name for name in actual if name not in expected]),
        ("are there more than once", [name for name in actual if len(names) > len(actual) and names.count(name) > 1]),
    )
    return [
        f"{where}: {len(different):,} images {what}: {summarize_names(different, limit=12)}"
        for what, different in differences
        if different
    ]
