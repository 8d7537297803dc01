"""Export: the rows of a version and date, as Parquet or NumPy, complete or not at all; only an export is replaced."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from gur_spark.consumers import export
from gur_spark.consumers.export import export_embeddings
from gur_spark.consumers.neighbours import UserVectors, exact, hnsw
from gur_spark.errors import ConsumerError, TableError
from gur_spark.serving.publishing import publish
from gur_spark.tables.delta import Tables
from jobs import export as job
from tests import embedded

D1, D2 = date(2024, 6, 1), date(2024, 6, 8)
USERS = 50


@pytest.fixture
def config(make_config: Any) -> Any:
    return make_config()


@pytest.fixture
def expected(tables: Tables, config: Any, monkeypatch: pytest.MonkeyPatch) -> dict[int, list[float]]:
    """The embeddings of version one at the first date, which is published; others are beside them."""
    rng = np.random.default_rng(0)
    ids, x_NL = rng.permutation(USERS) * 3, rng.normal(size=(USERS, 4)).astype(np.float32)
    for version, day, offset in (("one", D1, 0), ("one", D2, 1), ("two", D1, 2)):
        embedded.add(tables, version, day, ids, x_NL + offset)
    publish(tables, config, "one", D1, "first")
    monkeypatch.setattr(export, "BATCH_ROWS", 7)
    return {int(user): row.tolist() for user, row in zip(ids, x_NL, strict=True)}


@pytest.mark.both_engines
def test_parquet_has_the_published_rows_in_files_of_a_few(
    tables: Tables, config: Any, expected: dict[int, list[float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "FILE_ROWS", 20)
    out = tmp_path / "made" / "out"
    made = export_embeddings(tables, config, str(out))
    files = sorted(file.name for file in out.iterdir())
    assert files == ["manifest.json", "part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    rows = [row for name in files[1:] for row in pq.read_table(out / name).to_pylist()]
    assert sorted(row["user_id"] for row in rows) == sorted(expected)
    assert all(row["embedding"] == expected[row["user_id"]] for row in rows)
    assert {(row["as_of"], row["model_version"], row["events"]) for row in rows} == {(D1, "one", 1)}
    assert made == export.read_manifest(out)
    assert (made.rows, made.width, made.space, made.pipeline) == (USERS, 4, "one", "test")
    account = made.account(str(out))
    assert (account.counts, account.outputs) == ({"rows": USERS}, {"folder": str(out)})
    assert not list(Path(tables.folder("_staging")).glob("*"))
    assert [folder.name for folder in out.parent.iterdir()] == ["out"]


@pytest.mark.any_engine
def test_numpy_has_a_float32_matrix_and_its_ids_which_a_search_takes_as_they_lie(
    tables: Tables, config: Any, expected: dict[int, list[float]], tmp_path: Path
) -> None:
    made = export_embeddings(tables, config, str(tmp_path / "out"), form="numpy", version="one", as_of=D2)
    assert made.as_of == str(D2)
    x_NL, ids_N = (np.load(tmp_path / "out" / name, allow_pickle=False) for name in ("embeddings.npy", "user_id.npy"))
    assert (x_NL.dtype, x_NL.shape, ids_N.dtype) == (np.float32, (USERS, 4), np.int64)
    assert ids_N.tolist() == sorted(expected)
    one = np.array([expected[user] for user in ids_N.tolist()], np.float32) + np.float32(1)
    np.testing.assert_array_equal(x_NL, one)
    mapped = UserVectors.open(str(tmp_path / "out"))
    assert isinstance(mapped.x_NL, np.memmap)
    assert exact(mapped).nearest([0], k=3).equals(hnsw(mapped).nearest([0], k=3))


@pytest.mark.any_engine
def test_text_ids_are_text_and_no_pickle(tables: Tables, make_config: Any, tmp_path: Path) -> None:
    config = make_config({"fields": {"user_id": {"type": "string"}}})
    embedded.add(tables, "one", D1, ["żółw", "a", "bb"], np.eye(3), "string")
    export_embeddings(tables, config, str(tmp_path / "out"), form="numpy", version="one")
    ids_N = np.load(tmp_path / "out" / "user_id.npy", allow_pickle=False)
    assert (ids_N.tolist(), ids_N.dtype) == (["a", "bb", "żółw"], np.dtype("<U4"))
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "embeddings.npy"), np.eye(3)[[1, 2, 0]])


@pytest.mark.any_engine
def test_an_older_export_is_replaced_and_nothing_else_is(
    tables: Tables, config: Any, expected: dict[int, list[float]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    export_embeddings(tables, config, str(out), form="numpy")
    export_embeddings(tables, config, str(out), version="two")
    assert sorted(file.name for file in out.iterdir()) == ["manifest.json", "part-00000.parquet"]
    assert json.loads((out / "manifest.json").read_text())["model_version"] == "two"
    with pytest.raises(ConsumerError, match="is a Parquet export"):
        UserVectors.open(str(out))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "manifest.json").write_text('{"kind": "mine"}')
    with pytest.raises(ConsumerError, match=r"holds something else \(manifest\.json\); expected an empty folder"):
        export_embeddings(tables, config, str(mine))
    with pytest.raises(ConsumerError, match="is a file"):
        export_embeddings(tables, config, str(mine / "manifest.json"))
    with pytest.raises(ConsumerError, match=r"a folder of this machine .*, got s3://bucket/out"):
        export_embeddings(tables, config, "s3://bucket/out")
    assert (mine / "manifest.json").read_text() == '{"kind": "mine"}'


@pytest.mark.any_engine
def test_a_failed_export_leaves_the_older_one_and_no_rest(
    tables: Tables, config: Any, expected: dict[int, list[float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "exports" / "out"
    before = export_embeddings(tables, config, str(out))
    embedded.add(tables, "three", D1, [7, 8, 8], np.eye(3))
    with pytest.raises(TableError, match="a user has two embeddings"):
        export_embeddings(tables, config, str(out), version="three")
    embedded.add(tables, "four", D1, [7], np.ones((1, 2)))
    embedded.add(tables, "four", D1, [8], np.ones((1, 3)))
    with pytest.raises(TableError, match=r"expected embeddings of width [23], like the first one"):
        export_embeddings(tables, config, str(out), form="numpy", version="four")
    rename = Path.rename

    def full(folder: Path, to: Path) -> Path:
        if folder.suffix == ".new":
            raise OSError("no space left")
        return rename(folder, to)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="no space left"):
        export_embeddings(tables, config, str(out), version="two")
    assert export.read_manifest(out) == before
    assert [folder.name for folder in out.parent.iterdir()] == ["out"]


@pytest.mark.any_engine
def test_the_job_says_where_and_what(
    tables: Tables, config: Any, expected: dict[int, list[float]], tmp_path: Path
) -> None:
    given = ["--config", str(tmp_path / "pipeline.yaml"), "--to", str(tmp_path / "out")]
    assert job.main([*given, "--format", "numpy", "--model", "two"]) == 0
    [row] = tables.read("runs").where("job = 'export'").collect()
    assert (row.status, row.inputs) == ("succeeded", {"embeddings": f"two at {D1}"})
    assert job.main([*given, "--model", "three"]) == 1
