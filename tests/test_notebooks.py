"""The notebooks run from top to bottom over real tables, and are committed without output."""

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_defines_nothing_and_holds_no_output(file: Path) -> None:
    cells = [cell for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    assert not any(line.startswith(("def ", "class ", "%", "!")) for cell in cells for line in cell["source"])


@pytest.mark.slow
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_from_top_to_bottom(file: Path, whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    tables, _ = whole
    monkeypatch.setenv("GUR_SPARK_CONFIG", str(file.parents[1] / "conf" / "demo.yaml"))
    monkeypatch.setenv("GUR_SPARK_OVERRIDES", f"tables.root={tables.root} spark.memory=1g")
    client = NotebookClient(nbformat.read(file, 4), timeout=300, resources={"metadata": {"path": str(file.parent)}})
    client.execute()
    errors = [o for cell in client.nb.cells for o in cell.get("outputs", []) if o["output_type"] == "error"]
    assert errors == []
