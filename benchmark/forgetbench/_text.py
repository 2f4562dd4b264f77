"""Text for LaTeX."""

from __future__ import annotations

import re

_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: "\\" + character for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
_SIGNS = {
    "±": r"$\pm$",
    "−": "$-$",
    "∞": r"$\infty$",
    "–": "--",
    "…": r"\dots{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "φ": r"$\varphi$",
}


def latex(text: str) -> str:
    """Text in which LaTeX sees no command."""
    return "".join(_SPECIAL.get(character, character) for character in text)


def latex_signs(text: str) -> str:
    """Text that `latex` gave, with mathematical signs in their LaTeX form; a hyphen before a digit is a minus."""
    signed = "".join(_SIGNS.get(character, character) for character in text)
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", signed)
