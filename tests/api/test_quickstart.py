"""The quickstart notebook runs from top to bottom."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "quickstart.ipynb"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of jupyter's own packages
def test_quickstart_notebook_runs(own_home: Path) -> None:
    """Every cell runs, in a home of its own; the board is ranked and the leaderboard accepts the run."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=str(own_home))
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) == 10
    text = "".join(str(cell.outputs) for cell in cells)
    assert "<td>ok</td>" in text
    assert "<td>FAIL</td>" not in text
    assert "noisy-fine-tune:noise=0.05" in text
    assert "vega" in text
    assert "All checks of the form passed; nothing was stored" in str(cells[-1].outputs)
