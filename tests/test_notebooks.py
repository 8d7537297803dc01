"""The notebooks run from top to bottom over real tables, and are committed without output."""

import json
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from tests.beside import NOTEBOOKS


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_defines_nothing_and_holds_no_output(file: Path) -> None:
    cells = [cell for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    assert not any(line.startswith(("def ", "class ", "%", "!")) for cell in cells for line in cell["source"])


@pytest.mark.slow
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_from_top_to_bottom(file: Path, notebooks: "dict[Path, Future[list[Any]]]") -> None:
    assert notebooks[file].result() == []
