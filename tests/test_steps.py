"""The pipeline's jobs: which ones a kind of model needs, with which options, and what happens where one fails."""

import json
from argparse import ArgumentParser, Namespace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gur_spark import read_embeddings, storage
from gur_spark.config.file import load_config
from gur_spark.errors import ConfigError, EvaluationError, SnapshotError
from gur_spark.registry.published import Published, switch
from gur_spark.steps import Step, advice, published_in_sql, run_steps
from gur_spark.tables.delta import Tables
from gur_spark.tables.open import open_tables
from gur_spark.tables.runs import Run, record
from jobs import pipeline
from tests.demo import ROOT, overrides
from tests.embedded import add

pytestmark = pytest.mark.any_engine

TRAINED, SCORED, JUDGED = date(2024, 5, 1), date(2024, 7, 1), date(2024, 6, 1)
DATES = {
    "training": {"as_of": [str(TRAINED)]},
    "scoring": {"as_of": [str(JUDGED), str(SCORED)]},
    "evaluation": {"as_of": [str(JUDGED)]},
}


def given(step: Step) -> dict[str, Any]:
    """The options that the pipeline gives a job, after training."""
    train = Run(id="run", job="train", parameters={}, outputs={"model_version": "v7"})
    return step.given({"train": train})


def test_a_kind_gets_snapshots_of_its_form_and_every_report_raw_windows(make_config: Any) -> None:
    gur = {step.name: step for step in pipeline.steps(make_config(DATES))}
    assert list(gur) == ["ingest", "vocabulary", "aggregate", "train", "score", "publish", "evaluate"]
    assert given(gur["vocabulary"]) == {"before": TRAINED}
    assert given(gur["aggregate"]) == {"as_of": [TRAINED, JUDGED, SCORED], "vocabulary": "newest"}
    assert given(gur["score"]) == {"model": "v7"}
    assert given(gur["publish"]) == {"model": "v7", "reason": "pipeline"}
    coles = {step.name: step for step in pipeline.steps(make_config({**DATES, "model": {"kind": "coles"}}))}
    assert list(coles) == ["ingest", "vocabulary", "sequences", "aggregate", "train", "score", "publish", "evaluate"]
    assert given(coles["sequences"]) == {"as_of": [TRAINED, JUDGED, SCORED], "vocabulary": "newest"}
    assert given(coles["aggregate"]) == {"as_of": [JUDGED], "vocabulary": "newest"}


def test_means_are_published_where_they_are_made_and_a_date_that_is_named_must_be_evaluated(make_config: Any) -> None:
    smoothed = {
        step.name: step
        for step in pipeline.steps(make_config({**DATES, "scoring": {**DATES["scoring"], "smoothing": 3}}))
    }
    assert given(smoothed["publish"])["model"] == "v7-mean3"
    assert not smoothed["evaluate"].may_fail
    today = {step.name: step for step in pipeline.steps(make_config({**DATES, "evaluation": {"as_of": []}}))}
    assert today["evaluate"].may_fail


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=2)
    parser.add_argument("--word", default="own")


def counted(tables: Tables, config: Any, args: Namespace, run: Run) -> None:
    run.counts["rows"] = args.count
    run.outputs["word"] = args.word


def refused(tables: Tables, config: Any, args: Namespace, run: Run) -> None:
    raise EvaluationError("the future is not all there")


def test_jobs_run_in_order_with_their_own_defaults_and_what_earlier_ones_made(tables: Tables, make_config: Any) -> None:
    steps = [
        Step("first", counted, options, lambda _: {"count": 5}),
        Step("second", counted, options, lambda made: {"word": str(made["first"].counts["rows"])}),
    ]
    made = run_steps(tables, make_config(), steps)
    assert list(made) == ["first", "second"]
    assert [(run.counts["rows"], run.outputs["word"]) for run in made.values()] == [(5, "own"), (2, "5")]
    rows = {row.job: row for row in tables.read("runs").collect()}
    assert rows["first"].counts == {"rows": 5}
    assert rows["second"].outputs == {"word": "5"}


def test_a_report_that_cannot_be_made_ends_a_pipeline_only_where_it_must_be(tables: Tables, make_config: Any) -> None:
    allowed = [Step("evaluate", refused, options, may_fail=True), Step("after", counted, options)]
    made = run_steps(tables, make_config(), allowed)
    assert made["evaluate"].outputs == {"not evaluated": "the future is not all there"}
    assert made["after"].counts == {"rows": 2}
    with pytest.raises(EvaluationError, match="the future is not all there"):
        run_steps(tables, make_config(), [Step("evaluate", refused, options), Step("after", counted, options)])

    def without_snapshot(tables: Tables, config: Any, args: Namespace, run: Run) -> None:
        raise SnapshotError("gone")

    with pytest.raises(SnapshotError, match="gone"):
        run_steps(tables, make_config(), [Step("evaluate", without_snapshot, options, may_fail=True)])
    statuses = [(row.job, row.status) for row in tables.read("runs").orderBy("started").collect()]
    assert statuses == [("evaluate", "failed"), ("after", "succeeded"), ("evaluate", "failed"), ("evaluate", "failed")]


def test_the_query_that_the_pipeline_prints_reads_the_published_rows_alone(tables: Tables) -> None:
    for version, day in (("gur-1", JUDGED), ("gur-1", SCORED), ("gur-2", SCORED)):
        add(tables, version, day, [1, 2], np.ones((2, 3)))
    for name, version, day in (("test", "gur-1", JUDGED), ("test", "gur-1", SCORED), ("other", "gur-2", SCORED)):
        switch(tables, name, Published(model_version=version, as_of=day), ("embeddings",), "")
    rows = tables.spark.sql("\n".join(published_in_sql(tables, "test", "embeddings"))).collect()
    assert sorted((row.user_id, row.model_version, row.as_of) for row in rows) == [
        (1, "gur-1", SCORED),
        (2, "gur-1", SCORED),
    ]


def test_a_pipeline_without_dates_is_refused_at_the_start(make_config: Any) -> None:
    for key in ("training", "scoring"):
        with pytest.raises(ConfigError, match=rf"{key}\.as_of: the pipeline needs at least one date"):
            pipeline.check_dates(make_config({**DATES, key: {"as_of": []}}))
    pipeline.check_dates(make_config(DATES))


@pytest.mark.slow
def test_two_kinds_over_the_same_tables_publish_apart_and_stand_beside_one_another(
    spark: Any, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = overrides(raw, tmp_path / "tables")
    gur = load_config(ROOT / "conf" / "demo.yaml", asked)
    of_coles = [*(change for change in asked if not change.startswith("model.")), "model.latent_dim=8"]
    coles = load_config(ROOT / "conf" / "demo_coles.yaml", [*of_coles, "evaluation.beside=[demo]"])
    tables = open_tables(spark, gur.tables)
    outputs = {}
    for config in (gur, coles):
        with record(tables, "pipeline", {}) as run:
            pipeline.stage(tables, config, Namespace(), run)
        outputs[config.name] = run.outputs
        assert f"pipeline '{config.name}' published {run.outputs['published']}" in capsys.readouterr().out
    kinds = {row.pipeline: row.kind for row in tables.read("models").collect()}
    assert kinds == {"demo": "gur", "demo_coles": "coles"}
    forms = {(row.form, str(row.as_of)) for row in tables.read("snapshots").collect()}
    assert {day for form, day in forms if form == "sequences"} == {"2025-03-01", "2025-03-15", "2025-04-01"}
    read = {name: read_embeddings(spark, config).toPandas() for name, config in (("demo", gur), ("demo_coles", coles))}
    for name, rows in read.items():
        assert set(rows["model_version"]) == {outputs[name]["model_version"]}
        assert set(map(str, rows["as_of"])) == {"2025-04-01"}
    # CoLES has a row for users with events in its window; the autoencoder for everyone who ever had one.
    assert 50 < len(read["demo_coles"]) <= len(read["demo"])
    report = json.loads(storage.read_text(outputs["demo_coles"]["json"]))
    assert report["model_version"] == outputs["demo_coles"]["model_version"]
    assert {"raw windows", "PCA", "random encoder", "embedding", "demo"} <= report["compared"].keys()
    told = {(d["representation"], d["against"]) for d in report["differences"]}
    assert ("embedding", "demo") in told


def test_the_summary_repeats_the_advice_of_the_report(tmp_path: Path) -> None:
    evaluated = Run(id="one", job="evaluate", parameters={})
    assert advice(evaluated) == []
    (tmp_path / "report.json").write_text(
        '{"advice": [{"says": "churn: use the embedding"}, {"says": "kind: either"}]}'
    )
    evaluated.outputs["json"] = str(tmp_path / "report.json")
    assert advice(evaluated) == ["churn: use the embedding", "kind: either"]
