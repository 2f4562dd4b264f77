"""For mkdocs: the page of commands is made from the command line itself, so that it is never out of date."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

HEAD = """# Command line

This page is made from the commands themselves; `forgetbench COMMAND --help` prints the same. Exit status 0: done, or
all is well. 1: it failed, or something is not well. 2: the call was wrong, and the message says how to mend it.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page."""
    from forgetbench.cli import make_app

    made = make_app().generate_docs(output_format="markdown", heading_level=1)
    _, _, commands = made.partition("**Commands**:")
    files.append(File.generated(config, "command-line.md", content=f"{HEAD}\n{commands}"))
    return files
