"""Names of versions: the pipeline's newest, the published one, one by its own name or by the name of its means."""

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gur_spark import read_embeddings
from gur_spark.errors import ModelError, TableError
from gur_spark.registry.files import CARD
from gur_spark.registry.known import find_model, find_own_model, rows_name, seen_until
from gur_spark.registry.published import Published, switch
from gur_spark.serving import publishing as serving
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run
from jobs import publish, score
from tests.embedded import add
from tests.model_rows import add_row, registered_version
from tests.versions import ORIGIN

pytestmark = pytest.mark.any_engine


@pytest.fixture
def config(make_config: Any) -> Any:
    """The configuration of the pipeline ``test``."""
    return make_config()


@pytest.fixture
def versions(tables: Tables) -> None:
    """Two versions of this pipeline, and a newer one of another."""
    for day, (version, pipeline) in enumerate((("gur-1", "test"), ("gur-2", "test"), ("coles-3", "other")), 1):
        kind = version.split("-")[0]
        add_row(
            tables,
            version,
            pipeline=pipeline,
            kind=kind,
            path=f"at/{version}",
            created=datetime(2024, 5, day, tzinfo=UTC),
        )


def test_newest_is_the_pipelines_own_and_each_name_means_its_version(
    tables: Tables, config: Any, versions: None
) -> None:
    found = {name: find_model(tables, config, name).model_version for name in ("newest", "gur-1", "coles-3", None)}
    assert found == {"newest": "gur-2", "gur-1": "gur-1", "coles-3": "coles-3", None: "gur-2"}
    other = find_model(tables, config.model_copy(update={"name": "other"}), "newest")
    assert (other.model_version, other.kind, other.path, other.outputs) == (
        "coles-3",
        "coles",
        "at/coles-3",
        ["embeddings"],
    )
    switch(tables, "test", Published(model_version="gur-1", as_of=date(2024, 6, 1)), ("embeddings",), "first")
    for name in (None, "published"):
        assert find_model(tables, config, name).model_version == "gur-1"
    # Another pipeline's switch is none of this one.
    switch(tables, "other", Published(model_version="coles-3", as_of=date(2024, 6, 1)), ("embeddings",), "first")
    assert find_model(tables, config).model_version == "gur-1"


def test_a_version_of_another_pipeline_is_read_and_neither_scored_nor_published(
    tables: Tables, config: Any, versions: None
) -> None:
    assert find_own_model(tables, config, "gur-1").pipeline == "test"
    for job in (score, publish):
        args = job_options(job, model="coles-3", as_of=[date(2024, 6, 1)])
        with pytest.raises(ModelError, match="coles-3 was trained by pipeline 'other', and this is 'test'"):
            job.stage(tables, config, args, Run(id="run", job="score", parameters={}))


def job_options(job: Any, **given: Any) -> Namespace:
    parser = ArgumentParser()
    job.options(parser)
    return Namespace(**{**vars(parser.parse_args([])), **given})


def test_rows_are_named_after_the_means_where_some_are_made_or_asked_for(
    tables: Tables, config: Any, versions: None
) -> None:
    smoothed = config.model_copy(update={"scoring": config.scoring.model_copy(update={"smoothing": 3})})
    assert find_model(tables, smoothed, "newest").rows_version == "gur-2-mean3"
    assert find_model(tables, smoothed, "gur-2").rows_version == "gur-2"
    means = find_model(tables, config, "gur-1-mean7")
    assert (means.model_version, means.rows_version) == ("gur-1", "gur-1-mean7")
    assert [rows_name(tables, smoothed, name) for name in ("newest", "gone")] == ["gur-2-mean3", "gone"]


def test_a_name_that_is_none_is_told_those_there_are_and_the_nearest(
    tables: Tables, config: Any, versions: None
) -> None:
    with pytest.raises(ModelError, match=r"no model version 'gur-7'; available: \[.*\]; did you mean 'gur-\d'"):
        find_model(tables, config, "gur-7")
    with pytest.raises(
        ModelError, match=r"^no model yet: .* by pipeline 'third'; run train .* other pipelines: \['coles"
    ):
        find_model(tables, config.model_copy(update={"name": "third"}))


def test_rows_that_are_not_there_are_told_with_those_of_the_pipeline_and_the_command(
    tables: Tables, config: Any, versions: None
) -> None:
    day, later = date(2024, 6, 1), date(2024, 6, 2)
    for version in ("gur-1", "gur-1-mean3", "coles-3"):
        add(tables, version, day, [1], np.ones((1, 2)))
    own = rf"available: \['gur-1 at {day}', 'gur-1-mean3 at {day}'\]; run score --as-of"
    with pytest.raises(
        TableError, match=rf"no embeddings of gur-1 at {later} to publish; {own} {later} --model gur-1$"
    ):
        serving.publish(tables, config, "gur-1", later, "")
    with pytest.raises(TableError, match=rf"^no embeddings of gur-2; {own} DATE --model gur-2$"):
        read_embeddings(tables.spark, config, "gur-2")
    with pytest.raises(TableError, match=r"^no embeddings of gur-7; available: .*coles-3 at .*; did you mean 'gur-1'"):
        read_embeddings(tables.spark, config, "gur-7")


def test_before_the_first_training_the_job_is_named(tables: Tables, config: Any) -> None:
    with pytest.raises(ModelError, match=r"^no model yet: no version was trained in these tables; run train --as-of"):
        find_model(tables, config)


def test_until_when_a_version_saw_events_is_known_by_its_card_or_refused(tables: Tables) -> None:
    seen = replace(ORIGIN, seen_until=date(2024, 7, 29))
    path = registered_version(tables, "test", origin=seen)
    version = Path(path).name
    for name in (version, f"{version}-mean3"):
        assert seen_until(tables, name) == date(2024, 7, 29)
    silent = Path(registered_version(tables, "test", origin=replace(ORIGIN, seen_until=None), metrics={"r2": 1.0})).name
    with pytest.raises(ModelError, match=f"the card of {silent} does not say until when its training saw events"):
        seen_until(tables, f"{silent}-mean3")
    with pytest.raises(ModelError, match="nothing is known of the training of gone: it is not in models"):
        seen_until(tables, "gone")
    # A card that was altered by hand would let a leak pass.
    card = Path(path) / CARD
    whole = card.read_text()
    card.write_text(whole.replace("2024-07-29", "2024-01-01"))
    with pytest.raises(ModelError, match=r"card\.json was altered"):
        seen_until(tables, version)
    card.write_text(whole)
    (Path(path) / "metrics.json").write_text("{}")
    with pytest.raises(ModelError, match=r"metrics\.json was altered or cut short"):
        seen_until(tables, version)
