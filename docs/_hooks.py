"""mkdocs hook: generate the pages of commands, metrics and methods from the code, so that they are always current."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

COMMANDS = """# Command line

This page is generated from the commands; `forgetbench COMMAND --help` prints the same.
Exit status: 0 success, 1 failure, 2 usage error.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    from forgetbench.methods._docs import page as methods_page
    from forgetbench.metrics._docs import metrics_page

    pages = {"command-line.md": commands_page(), "methods.md": methods_page(), "metrics.md": metrics_page()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def commands_page() -> str:
    """Return the help of every command as Markdown."""
    from forgetbench.cli import make_app

    _, _, commands = make_app().generate_docs(output_format="markdown", heading_level=1).partition("**Commands**:")
    return f"{COMMANDS}\n{commands}"
