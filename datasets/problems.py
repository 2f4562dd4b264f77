"""What is wrong with an image set: single problems, and the error that holds all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from forgetbench.errors import ForgetBenchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


SHOWN = 10
"""So many problems stand in the message of an error; ``data check`` lists all."""
NAMED = 20
"""So many files or people are named in one problem."""
COPY_AGAIN = "Copy the file again from where it comes from, or take it out."


class Problem(NamedTuple):
    """One thing that is wrong with an image set."""

    name: str
    """What kind of problem, in a word or two."""
    where: str
    """Which file, row, part or class; a sentence without full stop."""
    fix: str
    """What to do about it; a sentence."""
    serious: bool = True
    """Whether results would be wrong, rather than only worse."""


class FileProblems(UsageError):  # noqa: N818 (it holds several)
    """Files or rows that are wrong; the message shows the first ten, and what to do where it is one.

    Attributes:
        head: The first line of the message where there are several.
        problems: All of them.
    """

    def __init__(self, head: str, problems: Sequence[Problem]) -> None:
        if len(problems) == 1 and not head:
            message = f"{problems[0].where}. {problems[0].fix}"
        else:
            more = [f"... and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
            lines = [head or f"{len(problems)} problems:", *(one.where for one in problems[:SHOWN]), *more]
            message = "\n".join(lines)
        super().__init__(message)
        self.head, self.problems = head, tuple(problems)

    def __reduce__(self) -> tuple[type[FileProblems], tuple[str, tuple[Problem, ...]]]:
        """Made anew from what it was made of, or no worker process could hand it over."""
        return type(self), (self.head, self.problems)


def problem_error(name: str, where: str, fix: str) -> FileProblems:
    """The error of one problem, after which nothing more can be read."""
    return FileProblems("", [Problem(name, where, fix)])


def problems_of(error: ForgetBenchError) -> list[Problem]:
    """The problems that an error tells of."""
    if isinstance(error, FileProblems):
        return list(error.problems)
    return [Problem("not as expected", str(error).rstrip("."), "See the message.")]


def collect(found: Sequence[Problem], problems: list[Problem] | None, head: str = "") -> None:
    """Put problems where all are collected, or raise them where nobody collects.

    Raises:
        FileProblems: There are some, and no list for them.
    """
    if problems is not None:
        problems += found
    elif found:
        raise FileProblems(head, found)


def too_few(name: str, taught: int) -> Problem:
    """A class that can hardly be learned, or not at all."""
    where = f"class {name!r} has {taught} training images"
    return Problem("too few images", where, "Add images to train, or leave the class out.", serious=taught == 0)


def some(names: Sequence[object]) -> str:
    """The first names, and how many others there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(str, names[:NAMED])) + more


NAMES_SHOWN = 12
"""So many names are shown of a longer list."""


def compared(there: Sequence[str], published: Iterable[str], where: str) -> list[str]:
    """What is missing of a published list of names, what is not of it, and what is there twice; a sentence each.

    Args:
        there: The names that were found.
        published: All names of the set as published, in the order in which they are shown.
        where: What names them, for the sentence.
    """
    wanted, found = dict.fromkeys(published), dict.fromkeys(there)
    kinds = (
        ("are missing", [name for name in wanted if name not in found]),
        ("are not of the published set", [name for name in found if name not in wanted]),
        ("are there more than once", [name for name in found if len(there) > len(found) and there.count(name) > 1]),
    )
    return [f"{where}: {len(names):,} pictures {what}: {_some(names)}" for what, names in kinds if names]


def _some(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
