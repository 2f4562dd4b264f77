"""mkdocs hook: generate the pages of the Python API, commands, metrics, methods and results from code and records."""

from __future__ import annotations

import inspect
import re
from typing import get_overloads

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

API = """# Python API

This page is generated from the docstrings. Every name is imported on first use: `import forgetbench` is fast and does
not load torch.

```python
import forgetbench as fb
```
"""
COMMANDS = """# Command line

This page is generated from the commands; `forgetbench COMMAND --help` prints the same.
Exit status: 0 success, 1 failure, 2 usage error.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    from forgetbench.methods._docs import page as methods_page
    from forgetbench.metrics._docs import metrics_page
    from forgetbench.reporting.figures.export import draw_svg
    from forgetbench.reporting.literature import page as published_page
    from forgetbench.reproduction.results_page import page as results_page
    from forgetbench.reproduction.results_page import picture

    pages = {
        "python-api.md": api_page(),
        "command-line.md": commands_page(),
        "methods.md": methods_page(),
        "metrics.md": metrics_page(),
        "published-results.md": published_page(),
        "results.md": results_page(),
        "pictures/verdicts.svg": draw_svg(picture().specification),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def api_page() -> str:
    """Return the signatures and docstrings of all public names as Markdown."""
    import forgetbench

    parts = [API]
    names = [name for name in forgetbench.__all__ if name != "__version__"]
    for title, is_listed in (("Functions", inspect.isfunction), ("Classes and exceptions", inspect.isclass)):
        parts.append(f"## {title}\n")
        parts += [_entry(name, item) for name in names if is_listed(item := getattr(forgetbench, name))]
    return "\n".join(parts)


def _entry(name: str, item: type | object) -> str:
    lines = [f"### {name}\n", "```python", _signature(name, item), "```\n", _markdown(inspect.getdoc(item) or "")]
    if inspect.isclass(item) and item.__module__.startswith("forgetbench.api."):
        members = [(key, value) for key, value in vars(item).items() if not key.startswith("_") and _is_method(value)]
        for key, value in members:
            function = value.fget if isinstance(value, property) else value
            call = (
                ""
                if function is not value
                else _unquoted(re.sub(r"^\(self(, )?", "(", str(inspect.signature(function))))
            )
            lines.append(f"`{name}.{key}{call}`\n\n: {_indented(_markdown(inspect.getdoc(function) or ''))}")
    return "\n".join(lines) + "\n"


def _is_method(value: object) -> bool:
    return inspect.isfunction(value) or isinstance(value, property)


def _signature(name: str, item: type | object) -> str:
    """The call, with one parameter per line if it is long."""
    if inspect.isclass(item) and not item.__module__.startswith("forgetbench.runner"):
        return f"class {name}"
    overloads = get_overloads(item) if inspect.isfunction(item) else []
    signature = inspect.signature(overloads[-1] if overloads else item)  # type: ignore[arg-type]
    text = _unquoted(f"{name}{signature}")
    if len(text) <= 100:
        return text
    result = "" if signature.return_annotation is signature.empty else f" -> {signature.return_annotation}"
    lines, keyword_only = [], False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            lines.append("    *,\n")
            keyword_only = True
        lines.append(f"    {parameter},\n")
    return _unquoted(f"{name}(\n{''.join(lines)}){result}")


def _unquoted(signature: str) -> str:
    """Remove the quotes around annotations."""
    return re.sub(r"(: |-> )'([^']+)'", r"\1\2", signature)


def _markdown(docstring: str) -> str:
    """A google-style docstring as Markdown: sections in bold, arguments as a list, examples as code."""
    text = re.sub(r"``(.+?)``", r"`\1`", docstring)
    parts = re.split(r"^(Args|Returns|Raises|Yields|Example|Examples|Attributes):\n", text, flags=re.M)
    lines = [parts[0].rstrip()]
    for title, body in zip(parts[1::2], map(inspect.cleandoc, parts[2::2]), strict=True):
        if title.startswith("Example"):
            code = "\n".join(line.replace("  # doctest: +SKIP", "") for line in body.splitlines())
            lines.append(f"\n```python\n{code}\n```")
        elif title == "Returns":
            lines.append(f"\n**Returns:** {body}")
        else:
            items = re.sub(r"^(\*{0,2}\w+):", r"- `\1`:", body, flags=re.M)
            lines.append(f"\n**{'Arguments' if title == 'Args' else title}:**\n\n{items}")
    return "\n".join(lines) + "\n"


def _indented(text: str) -> str:
    return text.replace("\n", "\n    ")


def commands_page() -> str:
    """Return the help of every command as Markdown."""
    from forgetbench.cli import make_app

    _, _, commands = make_app().generate_docs(output_format="markdown", heading_level=1).partition("**Commands**:")
    return f"{COMMANDS}\n{commands}"
