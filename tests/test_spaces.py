"""Embeddings in the space of an older version: fitted once, composed over versions, under a name of their own."""

import json
from argparse import Namespace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from gur_spark import read_embeddings
from gur_spark.errors import ModelError, TableError
from gur_spark.outputs.notes import Note
from gur_spark.registry.known import find_model, rows_name
from gur_spark.serving.changes import find_rows
from gur_spark.serving.publishing import publish
from gur_spark.spaces import maps as spaces
from gur_spark.spaces.axes import space_of
from gur_spark.spaces.mapping import LinearMap
from gur_spark.spaces.maps import map_embeddings
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run
from jobs import export
from tests.model_rows import add_row

pytestmark = pytest.mark.any_engine

D1, D2, D3 = date(2024, 6, 1), date(2024, 6, 8), date(2024, 6, 15)
USERS = 60
RNG = np.random.default_rng(0)
KNOWN = RNG.normal(size=(USERS, 4))
"""Embeddings of each user by every version, each in a space of its own."""
SPACES = {name: RNG.normal(size=(4, width)) for name, width in (("v1", 4), ("v2", 4), ("v3", 6))}

CREATED = {name: datetime(2024, 5, day, tzinfo=UTC) for day, name in enumerate(SPACES, 1)}


def embedded(version: str, day: date) -> np.ndarray:
    return ((KNOWN + day.day / 10) @ SPACES[version] + 1).astype(np.float32)


def score(tables: Tables, version: str, day: date, users: int = USERS) -> None:
    rows = {
        "user_id": pa.array(range(users), pa.int64()),
        "as_of": pa.array([day] * users, pa.date32()),
        "model_version": [version] * users,
        "embedding": pa.array(list(embedded(version, day)[:users]), pa.list_(pa.float32())),
        "events": pa.array([1] * users, pa.int64()),
    }
    write_deltalake(tables.folder("embeddings"), pa.table(rows), mode="append", partition_by=["model_version", "as_of"])


@pytest.fixture
def versions(tables: Tables) -> Tables:
    """Three versions: v1 and v2 have a date in common, and so have v2 and v3."""
    for version, made in CREATED.items():
        add_row(tables, version, path=tables.folder("artefacts", version), created=made)
    for version, day in (("v1", D1), ("v2", D1), ("v2", D2), ("v3", D2), ("v3", D3)):
        score(tables, version, day)
    return tables


def mapped(tables: Tables, config: Any, version: str, day: date) -> dict[str, str]:
    return map_embeddings(tables, config.scoring, version, day, "test")


def read(tables: Tables, version: str, day: date) -> np.ndarray:
    rows = DeltaTable(tables.folder("embeddings")).to_pyarrow_table(
        filters=[("model_version", "=", version), ("as_of", "=", day)]
    )
    return np.stack(rows.sort_by("user_id")["embedding"].to_pylist())


def test_maps_lead_over_versions_are_kept_and_rows_follow_those_they_were_made_of(
    versions: Tables, make_config: Any
) -> None:
    to_v1, to_v2 = (make_config({"scoring": {"in_space_of": [old]}}) for old in ("v1", "v2"))
    with pytest.raises(ModelError, match=r"no map leads from v3 to v1, .* v3 has \['2024-06-08', '2024-06-15'\]; v1"):
        mapped(versions, to_v1, "v3", D2)
    mapped(versions, to_v1, "v2", D2)
    assert mapped(versions, to_v2, "v3", D2) == {f"embeddings {D2} in the space of v2": "model_version=v3@v2"}
    np.testing.assert_allclose(read(versions, "v2@v1", D2), embedded("v1", D2), atol=1e-2)
    np.testing.assert_allclose(read(versions, "v3@v2", D2), embedded("v2", D2), atol=1e-2)
    # v3 and v1 have no date in common, so the way leads over v2.
    mapped(versions, to_v1, "v3", D3)
    np.testing.assert_allclose(read(versions, "v3@v1", D3), embedded("v1", D3), atol=2e-2)
    kept = Path(versions.folder("artefacts", "v3", "maps", "v1.json"))
    assert LinearMap.from_json(kept.read_text()).via == ("v2",)
    # A better map would be another space: what is kept stays.
    before = kept.read_text()
    score(versions, "v1", D3)
    mapped(versions, to_v1, "v3", D3)
    assert kept.read_text() == before
    assert not list(kept.parent.glob("*.part"))
    # Rows that were mapped once are not left behind when a run no longer asks for them.
    written = mapped(versions, make_config(), "v3", D2)
    assert list(written.values()) == ["model_version=v3@v2"]
    _reads_and_publishes(versions, to_v1)


def _reads_and_publishes(tables: Tables, config: Any) -> None:
    with pytest.raises(TableError, match="no embeddings of v3@v1 at 2024-06-08 to publish"):
        publish(tables, config, "v3", D2, "monthly")
    publish(tables, config, "v3", D3, "monthly")
    rows = read_embeddings(tables.spark, config, in_space_of="v1").collect()
    assert {(row["model_version"], row["as_of"], len(row["embedding"])) for row in rows} == {("v3@v1", D3, 4)}
    assert len(rows) == USERS
    own = read_embeddings(tables.spark, config, version="v1", as_of=D1, in_space_of="v1").select("model_version")
    assert {row[0] for row in own.collect()} == {"v1"}
    with pytest.raises(TableError, match=r"no embeddings of v3@v2 at 2024-06-15; .* name v2 in scoring\.in_space_of"):
        read_embeddings(tables.spark, config, in_space_of="v2")
    assert space_of(tables, "v3@v1") == "v1"


def test_mapping_leaves_it_known_what_the_rows_that_it_maps_were_made_from(versions: Tables, make_config: Any) -> None:
    rows = versions.read("embeddings").where(f"model_version = 'v2' AND as_of = DATE '{D2}'")
    made_from = {"model_version": "v2", "as_of": str(D2), "snapshot": "aggregates/1", "lineage": "events x version 3"}
    versions.replace(rows, "embeddings", f"model_version = 'v2' AND as_of = DATE '{D2}'", json.dumps(made_from))
    mapped(versions, make_config({"scoring": {"in_space_of": ["v1"]}}), "v2", D2)
    assert find_rows(versions, "v2", D2).snapshot == "aggregates/1"
    with pytest.raises(TableError, match="embeddings of v2@v1 at 2024-06-08 were mapped from those of v2"):
        find_rows(versions, "v2@v1", D2)


def test_rows_that_were_scored_again_and_not_mapped_again_are_not_published(versions: Tables, make_config: Any) -> None:
    config = make_config({"scoring": {"in_space_of": ["v1"]}})
    mapped(versions, config, "v2", D2)
    rows = versions.read("embeddings").where(f"model_version = 'v2' AND as_of = DATE '{D2}'")
    again = Note(model_version="v2", as_of=D2, snapshot="aggregates/2", lineage="events x version 4").to_json()
    versions.replace(rows, "embeddings", f"model_version = 'v2' AND as_of = DATE '{D2}'", again)
    with pytest.raises(TableError, match="v2@v1 at 2024-06-08 were mapped from older rows of v2; run score"):
        publish(versions, config, "v2", D2, "killed before")
    mapped(versions, config, "v2", D2)
    assert publish(versions, config, "v2", D2, "scored again").rows == {"embeddings": USERS}


def test_a_version_is_asked_for_rows_in_the_space_of_older_ones_only(versions: Tables, make_config: Any) -> None:
    config = make_config({"scoring": {"in_space_of": ["v1", "v2", "v3"]}})
    assert mapped(versions, config, "v1", D1) == {}
    assert publish(versions, config, "v1", D1, "back to it").rows == {"embeddings": USERS}
    assert list(mapped(versions, config, "v2", D1).values()) == ["model_version=v2@v1"]


def test_of_two_runs_that_fit_a_map_both_use_the_one_that_was_first(
    versions: Tables, make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, other = Path(versions.folder("artefacts", "v2", "maps", "v1.json")), 3 * np.eye(4)
    first = LinearMap(matrix_NO=other, shift_O=np.zeros(4), residual=0.5, users=USERS)
    fit = spaces._fit

    def fit_while_another_run_does(*given: Any) -> LinearMap:
        found = fit(*given)
        kept.parent.mkdir(parents=True)
        kept.write_text(first.to_json())
        return found

    monkeypatch.setattr(spaces, "_fit", fit_while_another_run_does)
    mapped(versions, make_config({"scoring": {"in_space_of": ["v1"]}}), "v2", D2)
    np.testing.assert_allclose(read(versions, "v2@v1", D2), 3 * embedded("v2", D2), rtol=1e-5)
    assert kept.read_text() == first.to_json()
    assert [file.name for file in kept.parent.iterdir()] == ["v1.json"]


def test_newest_is_a_name_for_every_job_and_mapped_rows_are_no_version(versions: Tables, make_config: Any) -> None:
    config = make_config({"scoring": {"smoothing": 3}})
    assert [rows_name(versions, config, name) for name in ("newest", "published", "v2")] == [
        "v3-mean3", "published", "v2"
    ]  # fmt: skip
    with pytest.raises(ModelError, match="'v2@v1' is no model version, but the rows of v2 in the space of v1; name v2"):
        find_model(versions, config, "v2@v1")
    folder = versions.folder("export")
    args = Namespace(to=folder, format="numpy", as_of=None, model="newest")
    export.stage(versions, make_config(), args, Run(id="test", job="export", parameters={}))
    assert np.load(f"{folder}/embeddings.npy").shape == (USERS, 6)


def test_a_version_that_is_not_there_too_few_users_and_a_damaged_map_are_refused(
    versions: Tables, make_config: Any
) -> None:
    with pytest.raises(ModelError, match=r"no model version 'v9' to map to; available: \['v1', 'v2', 'v3'\]"):
        mapped(versions, make_config({"scoring": {"in_space_of": ["v9"]}}), "v3", D2)
    to_v1 = make_config({"scoring": {"in_space_of": ["v1"]}})
    score(versions, "v1", D3, users=29)
    with pytest.raises(ModelError, match=r"from v3 to v1 at 2024-06-15: a linear map needs 30 users .* there are 29"):
        mapped(versions, to_v1, "v3", D3)
    damaged = Path(versions.folder("artefacts", "v2", "maps", "v1.json"))
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{}")
    with pytest.raises(ModelError, match=r"v1\.json is damaged"):
        mapped(versions, to_v1, "v2", D2)
