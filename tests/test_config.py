"""Every file in conf/ loads; mistakes are named before Spark starts."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gur_spark import cli
from gur_spark.config.checks import check_capabilities
from gur_spark.config.file import base_file, check, load_config, to_yaml
from gur_spark.config.training import Scoring
from gur_spark.errors import ConfigError
from gur_spark.models.gur.settings import GurModel
from gur_spark.models.kind import Capability

CONF = Path(__file__).parents[1] / "conf"
PIPELINES = sorted(file for file in CONF.glob("*.yaml") if file != base_file())

DEMO = load_config(CONF / "demo.yaml").model_dump(mode="json", by_alias=True)

MINIMAL = """\
name: shop
tables: {root: build/shop}
source: {path: landings}
fields:
  user_id: {column: customer, type: long}
  event_time: {column: time, format: iso8601}
  categorical: [{name: item, column: sku}]
  numeric: [{name: amount, column: amount, step: 0.01}]
"""


@pytest.fixture
def minimal(tmp_path):
    file = tmp_path / "shop.yaml"
    file.write_text(MINIMAL)
    return file


def message_of(file, *overrides):
    with pytest.raises(ConfigError) as error:
        load_config(file, overrides)
    return str(error.value)


def test_there_are_pipelines_to_test():
    assert {"demo", "demo_coles", "online_retail", "mobile_game1", "deskdrop"} <= {file.stem for file in PIPELINES}


@pytest.mark.parametrize("file", PIPELINES, ids=lambda file: file.stem)
def test_every_pipeline_in_conf_loads_and_is_named_after_its_file(file):
    assert load_config(file).name == file.stem


@pytest.mark.parametrize("file", PIPELINES, ids=lambda file: file.stem)
def test_what_print_config_shows_is_the_same_pipeline_again(file, capsys, tmp_path):
    assert cli.main("ingest", "Ingest.", _never, ["--config", str(file), "--print-config"]) == 0
    shown = capsys.readouterr().out
    assert check(yaml.safe_load(shown), "shown") == load_config(file)
    again = tmp_path / "again.yaml"
    again.write_text(shown)
    assert to_yaml(load_config(again)) == shown


def test_an_environment_variable_names_the_folder_of_the_real_logs(monkeypatch):
    monkeypatch.setenv("GUR_SPARK_DATA", "/logs")
    assert load_config(CONF / "online_retail.yaml").source.path == "/logs/online_retail"
    monkeypatch.delenv("GUR_SPARK_DATA")
    assert load_config(CONF / "online_retail.yaml").source.path == "../shared/data/online_retail"


@pytest.fixture
def no_tracking_uri(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


TRACKED = "sqlite:///{root}/mlflow.db"


@pytest.mark.usefixtures("no_tracking_uri")
@pytest.mark.parametrize(
    ("line", "overrides", "store", "required"),
    [
        ("tracking: mlflow", [], TRACKED, False),
        ("", ["tracking=mlflow"], TRACKED, False),
        ("tracking: {store: mlflow, required: true}", [], TRACKED, True),
        ("tracking: mlflow", ["tracking.required=true"], TRACKED, True),
        ("tracking: mlflow", ["tracking.store=databricks"], "databricks", False),
        ("tracking: {store: databricks, required: true}", [], "databricks", True),
        ("tracking: {store: databricks, required: true}", ["tracking=mlflow"], TRACKED, False),
    ],
)
def test_the_word_mlflow_is_a_database_in_the_root_and_is_shown_as_that(
    minimal, capsys, line, overrides, store, required
):
    minimal.write_text(f"{MINIMAL}{line}\n")
    config = load_config(minimal, overrides)
    root = Path("build/shop").absolute()
    assert (config.tracking.store, config.tracking.required) == (store.format(root=root), required)
    assert cli.main("ingest", "Ingest.", _never, ["--config", str(minimal), "--print-config", *overrides]) == 0
    shown = capsys.readouterr().out
    assert check(yaml.safe_load(shown), "shown") == config
    minimal.write_text(shown)
    assert load_config(minimal) == config


@pytest.mark.usefixtures("no_tracking_uri")
def test_the_word_mlflow_is_nothing_where_null_takes_it_back(minimal):
    minimal.write_text(f"{MINIMAL}tracking: mlflow\n")
    assert load_config(minimal, ["tracking=null"]).tracking is None


@pytest.mark.parametrize("root", ["build/shop", "s3://bucket/shop"])
def test_the_word_mlflow_is_the_environments_store_wherever_the_root_is(minimal, monkeypatch, root):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert load_config(minimal, ["tracking=mlflow", f"tables.root={root}"]).tracking.store == "http://mlflow:5000"
    named = load_config(minimal, ["tracking.store=databricks", f"tables.root={root}"])
    assert named.tracking.store == "databricks"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert "MLFLOW_TRACKING_URI" in message_of(minimal, "tracking=mlflow", "tables.root=s3://bucket/shop")


@pytest.mark.usefixtures("no_tracking_uri")
def test_a_root_that_cannot_hold_the_database_asks_for_a_store(minimal):
    message = message_of(minimal, "tracking=mlflow", "tables.root=s3://bucket/shop")
    assert "tracking: tables.root s3://bucket/shop is not a local path" in message
    assert "give tracking.store, such as http://mlflow:5000, or set MLFLOW_TRACKING_URI" in message
    wrong = message_of(minimal, "tracking=mlflow", "tables={rot: x}")
    assert "tables.rot: unknown key" in wrong
    assert "tracking" not in wrong


def test_base_then_file_then_overrides(minimal):
    config = load_config(minimal, ["aggregates.windows=[1,2]", "tables.root=/elsewhere", "source.path=s3://bucket/log"])
    assert (config.vocabulary.min_count, config.aggregates.windows) == (2, [1, 2])
    assert (config.tables.root, config.source.path) == ("/elsewhere", "s3://bucket/log")


def test_a_step_is_the_decimal_that_was_written(minimal):
    assert str(load_config(minimal).fields.numeric[0].step) == "0.01"


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("vocabulary.min_cuont=3", ["vocabulary.min_cuont", "unknown key", "did you mean 'min_count'?"]),
        ("fields.user_id.colum=x", ["fields.user_id.colum", "unknown key", "did you mean 'column'?"]),
        ("sourc.path=x", ["sourc", "unknown key", "did you mean 'source'?"]),
        ("aggregates.windows=[0,7]", ["aggregates.windows.0", "greater than or equal to 1", "got 0"]),
        ("aggregates.windows=[30,7]", ["aggregates.windows", "ascending windows", "got [30, 7]"]),
        ("training.epochs=many", ["training.epochs", "valid integer", "got 'many'"]),
        ("training.as_of=[2011-02-30]", ["training.as_of.0", "date", "got '2011-02-30'"]),
        ("engine=spork", ["engine", "'local', 'sail', 'connect', 'databricks' or 'spark'", "got 'spork'"]),
        ("fields.user_id.type=int", ["fields.user_id.type", "'long' or 'string'", "got 'int'"]),
        ("fields.event_time.time_zone=Europe/Londn", ["fields.event_time.time_zone", "did you mean 'Europe/London'?"]),
        ("source.landing_pattern=x", ["source.landing_pattern", "a group around the date", "got 'x'"]),
        ("source.path=null", ["source", "format 'csv' needs source.path"]),
        ("engine=connect", ["engine 'connect' needs spark.remote"]),
        ("tables.catalog=main", ["tables", "catalog and schema go together"]),
        ("dedupe={policy: key, key: [itm]}", ["dedupe.key", "'itm'", "available", "did you mean 'item'?"]),
        ("dedupe.policy=key", ["dedupe", "policy 'key' needs key"]),
        ("model={loss: mse, tables: trained}", ["model", "needs tables 'frozen'"]),
        ("model.latent=normal", ["model.latent", "'plain' or 'variational'", "got 'normal'"]),
        ("model.contrastive.temperature=0", ["model.contrastive.temperature", "greater than 0", "got 0"]),
        ("model.loss={contrast: 1}", ["model.loss", "'contrastive'", "contrast"]),
        ("training.horizon_days=7", ["training.horizon_days: moved to model.future.horizon_days (kind gur)"]),
        ("training.views=halves", ["training.views: moved to model.contrastive.views (kind gur)"]),
        ("evaluation.coles_seconds=60", ["evaluation.coles_seconds: moved to evaluation.coles_epochs"]),
        ("model.temperature=1", ["model.temperature: moved to model.contrastive.temperature (kind gur)"]),
        ("model.future.horizon=7", ["model.future.horizon: unknown key", "did you mean 'horizon_days'?"]),
        ("model.latent_dims=7", ["model.latent_dims: unknown key", "did you mean 'latent_dim'?"]),
        ("model.kind=gru", ["model.kind: unknown kind 'gru'; expected one of ['coles', 'gur']; did you mean 'gur'?"]),
        (
            "model.slices=3",
            ["model.slices: is a key of kind 'coles', this pipeline's model is of kind 'gur'"],
        ),
        (
            "model={kind: coles, contrastive: {views: dates}}",
            [
                "model.contrastive: is a key of kind 'gur', this pipeline's model is of kind 'coles'",
                "keys of kind 'coles': ['kind', ",
                "'slices'",
            ],
        ),
        ("model.kind=colse", ["model.kind: unknown kind 'colse'", "did you mean 'coles'?"]),
        ("model.contrastive.views=thirds", ["model.contrastive.views", "'dates' or 'halves'", "got 'thirds'"]),
        ("fields.categorical=[{name: a, column: a, separator: ','}]", ["'a' has a separator", "kind: attributes"]),
        (
            "fields.categorical=[{name: a, column: a, separator: ',', sign: true}]",
            ["fields.categorical.0", "without sign or prefixes"],
        ),
        ("fields.numeric=[{name: a, column: a, step: 0}]", ["fields.numeric.0.step", "greater than 0", "got 0"]),
        ("fields.numeric=[{name: a, column: a}]", ["fields.numeric.0.step", "required, and not given"]),
        ("fields.numeric=[{name: item, column: a, step: 1}]", ["fields", "two fields are named 'item'"]),
        ("fields.categorical=[{name: as_of, column: a}]", ["'as_of' is a name of gur_spark's own"]),
        ("filters=[{column: c, keep: in}]", ["filters.0", "'in' and 'not_in' need values"]),
        (
            "evaluation.tasks=[{kind: next_category, fiel: item}]",
            ["evaluation.tasks.0.next_category.fiel: unknown key", "did you mean 'field'?"],
        ),
        (
            "aggregates.features=[{field: amount, operations: [sum], windows: [{days: 7, befor: 3}]}]",
            ["aggregates.features.0.windows.0.befor: unknown key", "did you mean 'before'?"],
        ),
        ("monitor.thresholds.psi.wran=1", ["monitor.thresholds.psi.wran: unknown key", "did you mean 'warn'?"]),
        ("tracking.stor=x", ["tracking.store: required", "tracking.stor: unknown key", "did you mean 'store'?"]),
        ("tracking.required=true", ["tracking.store: required, and not given"]),
        ("tracking=mlflo", ["tracking: expected 'mlflow', a mapping with a store, or null; got 'mlflo'"]),
        ("tracking=off", ["tracking: expected 'mlflow', a mapping with a store, or null; got False"]),
        ("no_equals_sign", ["override 'no_equals_sign'", "expected key.path=value"]),
        (
            "tables.root=${oc.env:SURELY_NOT_SET_ANYWHERE}",
            [
                "tables.root: the environment variable SURELY_NOT_SET_ANYWHERE is not set; set it, or give a default: "
                "${oc.env:SURELY_NOT_SET_ANYWHERE,DEFAULT}"
            ],
        ),
        ("tables.root=${HOME}", ["tables.root: ${HOME} names no key of the file", "${oc.env:HOME}"]),
    ],
)
def test_what_is_wrong_is_named_with_its_path_what_was_expected_and_what_came(minimal, override, parts):
    message = message_of(minimal, override)
    assert [part for part in parts if part not in message] == [], message


def test_all_that_is_wrong_is_told_at_once(minimal):
    message = message_of(minimal, "training.epochs=0", "scoring.batch_rows=x")
    assert "training.epochs" in message
    assert "scoring.batch_rows" in message


def test_a_missing_section_is_named(tmp_path):
    file = tmp_path / "shop.yaml"
    file.write_text(MINIMAL.replace("tables: {root: build/shop}\n", ""))
    assert "tables: required, and not given" in message_of(file)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"- a list\n", "expected a mapping of keys, got a ListConfig"),
        (b"name: [unclosed\n", "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"name: ${nothing.here}\n", "nothing.here"),
    ],
    ids=["a list", "broken YAML", "no text", "broken interpolation"],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path, content, part):
    file = tmp_path / "shop.yaml"
    file.write_bytes(content)
    message = message_of(file)
    assert str(file) in message
    assert part in message


def test_a_missing_file_names_the_nearest(minimal):
    message = message_of(minimal.with_name("shopp.yaml"))
    assert "shopp.yaml' does not exist" in message
    assert "did you mean 'shop.yaml'?" in message


def test_a_configuration_cannot_be_changed_afterwards(minimal):
    with pytest.raises(ValueError, match="frozen"):
        load_config(minimal).training.epochs = 3


@settings(deadline=None)
@given(windows=st.lists(st.integers(min_value=-5, max_value=4000), max_size=5))
def test_windows_are_accepted_exactly_when_they_ascend_between_1_and_3650_days(windows):
    values = {**DEMO, "aggregates": {**DEMO["aggregates"], "windows": windows}}
    valid = bool(windows) and sorted(set(windows)) == windows and windows[0] >= 1 and windows[-1] <= 3650
    if valid:
        assert check(values, "test").aggregates.windows == windows
    else:
        with pytest.raises(ConfigError, match=r"aggregates\.windows"):
            check(values, "test")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.epochs=0", "training.epochs: Input should be greater than or equal to 1"),
        ("model.kind=gru", "model.kind: unknown kind 'gru'"),
        ("model.slices=3", "model.slices: is a key of kind 'coles'"),
        ("model={kind: coles, views: 3}", "model.views: unknown key"),
    ],
)
def test_a_wrong_configuration_ends_with_code_2_before_spark_is_imported(minimal, override, said):
    program = (
        "import sys; from gur_spark import cli; code = cli.main('ingest', 'Ingest.', None, sys.argv[1:]);"
        "print(code, sorted({'pyspark', 'torch'} & set(sys.modules)))"
    )
    arguments = ["--config", str(minimal), override]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout == "2 []\n"
    assert done.stderr.startswith(f"ingest: {minimal} is not a valid configuration:\n  {said}")


def _never(*_):
    raise AssertionError("the stage must not run")


def test_a_pipeline_without_dates_is_refused_before_spark_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gur_spark import session
    from jobs import pipeline

    monkeypatch.setattr(session, "build_session", _never)
    file = tmp_path / "shop.yaml"
    file.write_text(MINIMAL)
    assert pipeline.main(["--config", str(file), f"tables.root={tmp_path}", "scoring.as_of=[2024-01-31]"]) == 2
    assert "training.as_of: the pipeline needs at least one date" in capsys.readouterr().err
    future = ["training.as_of=[2024-01-15]", "model.loss=future"]
    assert pipeline.main(["--config", str(file), f"tables.root={tmp_path}", "scoring.as_of=[2024-01-31]", *future]) == 2
    assert "expected dates up to 2024-01-03, or fewer days that the model looks ahead" in capsys.readouterr().err


WEB = {
    "source": {"path": "web"},
    "fields": {"user_id": {"column": "u"}, "event_time": {"column": "t", "format": "iso8601"}},
}


def of_logs(minimal, **logs):
    minimal.write_text(MINIMAL + yaml.safe_dump({"logs": logs}))
    return minimal


def with_fields(**fields):
    return {**WEB, "fields": {**WEB["fields"], **fields}}


def test_a_further_log_begins_with_what_base_says_and_the_main_logs_type_of_users(minimal):
    config = load_config(of_logs(minimal, web=WEB), ["logs.web.source.delimiter=;"])
    web = config.all_logs["web"]
    assert (web.source.delimiter, web.source.layout, web.kind) == (";", config.source.layout, "events")
    assert web.fields.user_id.type == "long"
    assert config.event_columns == ["user_id", "event_time", "landed_on", "source", "item", "amount"]


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ({**WEB, "sauce": 1}, "logs.web.sauce: unknown key; expected one of ['source', 'filters'"),
        (
            {**WEB, "kind": "attribute"},
            "logs.web: unknown kind 'attribute'; expected one of ['events', 'attributes', 'items']; did you mean",
        ),
        ({"source": {"path": "web"}}, "logs.web.fields.user_id.column: required, and not given"),
        (
            with_fields(user_id={"column": "u", "type": "string"}),
            "logs.web.fields.user_id.type: 'string', but the main",
        ),
        (
            with_fields(numeric=[{"name": "amount", "column": "a", "step": 1}]),
            "'amount' is another kind of field, or has another step",
        ),
        (
            with_fields(categorical=[{"name": "amount", "column": "a"}]),
            "'amount' is another kind of field, or has another step",
        ),
        (with_fields(categorical=[{"name": "source", "column": "a"}]), "'source' is a name of gur_spark's own"),
        (
            {**with_fields(categorical=[{"name": "item", "column": "a"}]), "kind": "attributes"},
            "'item' is a field of main",
        ),
        ({**WEB, "kind": "attributes"}, "logs.web.fields: attributes of no field"),
        ({**WEB, "dedupe": {"policy": "key", "key": ["item"]}}, "logs.web.dedupe.key: 'item' is not an event column"),
    ],
)
def test_what_is_wrong_with_a_further_log_is_named(minimal, log, said):
    assert said in message_of(of_logs(minimal, web=log))


def test_a_cutoff_after_the_date_that_a_model_is_judged_at_is_refused(minimal):
    dates = ("evaluation.as_of=2024-06-01", "training.cutoff=2024-06-02")
    assert "training.cutoff 2024-06-02 is after evaluation.as_of 2024-06-01" in message_of(minimal, *dates)
    assert str(load_config(minimal, dates[:1]).training_cutoff) == "2024-06-01"


def test_means_are_not_mapped_so_both_together_are_refused(minimal):
    assert "smoothing must be 1 beside it" in message_of(minimal, "scoring.smoothing=3", "scoring.in_space_of=[v1]")


def test_a_further_log_is_not_called_like_the_first(minimal):
    assert "logs.main: is the name of the log that 'source' describes" in message_of(of_logs(minimal, main=WEB))


def test_a_condition_may_speak_of_the_log_and_features_of_its_fields_only(minimal):
    file = of_logs(minimal, web=with_fields(categorical=[{"name": "page", "column": "p"}]))
    features = "aggregates.features=[{field: page, by: item, operations: [last], windows: [7]}]"
    assert "features.0: no log has events with both 'page' and 'item'" in message_of(file, features)
    manifest = load_config(file).manifest()
    columns = {column.name: column for column in manifest.columns}
    assert columns["page_counts_7d"].where == "source IN ('web')"
    assert columns["events_7d"].where is None
    assert [(log.name, log.fields) for log in manifest.logs] == [("main", ("item", "amount")), ("web", ("page",))]


@pytest.mark.parametrize("loss", ["future", "{future: 1}"])
def test_a_loss_replaces_the_configured_ones_and_is_not_added_to_them(loss: str) -> None:
    config = load_config(CONF / "demo.yaml", [f"model.loss={loss}"])
    assert config.model.loss == {"future": 1.0}
    assert config.model.latent_dim == DEMO["model"]["latent_dim"]


def test_evaluation_takes_one_date_or_several_in_order(minimal):
    scored = "scoring.as_of=[2024-06-01,2024-07-01]"
    for said, expected in (("2024-07-01", ["2024-07-01"]), ("[2024-06-01,2024-07-01]", ["2024-06-01", "2024-07-01"])):
        config = load_config(minimal, [scored, f"evaluation.as_of={said}"])
        assert list(map(str, config.evaluation.as_of)) == expected
        assert str(config.training_cutoff) == "2024-06-01"
    assert "expected ascending dates" in message_of(minimal, "evaluation.as_of=[2024-07-01,2024-06-01]")


@pytest.mark.parametrize(
    "given", [("tracking=mlflow", "tracking.required=true"), ("tracking.required=true", "tracking=mlflow")]
)
def test_the_word_for_mlflow_goes_with_keys_of_its_own_in_any_order(minimal, given, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking = load_config(minimal, given).tracking
    assert tracking.required
    assert tracking.store.startswith("sqlite:///")


def test_a_dropout_that_leaves_nothing_is_refused(minimal):
    assert "model.dropout" in message_of(minimal, "model.dropout=1.0")


def test_without_a_kind_the_model_is_gur_with_the_defaults_of_its_class(minimal):
    assert load_config(minimal).model == GurModel()
    values = load_config(minimal).model_dump(mode="json", by_alias=True)
    assert check({**values, "model": {"latent_dim": 7}}, "test").model == GurModel(latent_dim=7)


BEFORE_KINDS = {
    "model": {"block_dropout": 0.05, "cold_dropout": 0.1, "dense_scale": "signed_log1p", "dropout": 0.0,
        "embedding_dim": None, "kl_warmup_epochs": 0, "kl_weight": 0.001, "latent": "plain", "latent_dim": 12,
        "loss": {"contrastive": 0.5, "future": 1.0}, "pmi_shift": 0.0, "tables": "frozen", "temperature": 0.2,
        "unit_norm": False},
    "training": {"as_of": ["2025-06-01", "2025-07-01"], "batch_size": 128, "cutoff": None, "device": "auto",
        "epochs": 30, "horizon_days": 10, "learning_rate": 0.002, "patience": 5, "processes": 1, "seed": 42,
        "threads": 1, "validation_share": 0.1, "views": "halves", "weight_decay": 1.0},
}  # fmt: skip
"""The ``config.json`` of an artefact that was made before kinds: a model version is immutable, and stays readable."""


def test_an_artefact_from_before_kinds_has_its_horizon_and_views_in_the_model():
    model = GurModel.stored(1, **BEFORE_KINDS)
    assert (model.future.horizon_days, model.contrastive.views, model.contrastive.temperature) == (10, "halves", 0.2)
    assert (model.kind, model.latent_dim, model.block_dropout, model.tables) == ("gur", 12, 0.05, "frozen")
    assert GurModel.stored(2, model.model_dump(mode="json", exclude={"linear_dim"}), {}) == model
    assert model.linear_width == 0, "there was no linear part"
    assert GurModel.stored(3, GurModel(latent_dim=7).model_dump(mode="json"), {}).linear_width == 3


def test_an_artefact_from_before_a_key_was_added_has_the_default():
    fewer = {"latent_dim": 12, "dropout": 0.0, "block_dropout": 0.1, "loss": "mse", "tables": "frozen"}
    assert GurModel.stored(1, fewer, {}) == GurModel(**fewer, linear_dim=0)


def test_the_linear_part_is_half_of_the_embedding_and_never_wider_than_it():
    assert [GurModel(latent_dim=dim).linear_width for dim in (1, 2, 7, 120)] == [0, 1, 3, 60]
    whole = GurModel(latent_dim=8, linear_dim=8, loss={"future": 1.0, "contrastive": 1.0})
    assert (whole.nonlinear_width, whole.looks_ahead_days(), whole.views) == (0, 0, 0), "nothing is trained"
    with pytest.raises(ValueError, match="linear_dim 9 is more than the embedding has: latent_dim 8"):
        GurModel(latent_dim=8, linear_dim=9)


@pytest.mark.parametrize(
    ("key", "value", "off", "capability"),
    [
        ("in_space_of", ["v1"], r"\[\]", "mapping"),
        ("smoothing", 3, "1", "smoothing"),
        ("changed_only", True, "false", "copying"),
    ],
)
def test_scoring_may_ask_of_a_kind_only_what_it_can(key, value, off, capability):
    scoring = Scoring(batch_rows=10, **{key: value})
    check_capabilities(scoring, "gur", frozenset(Capability))
    check_capabilities(Scoring(batch_rows=10), "plain", frozenset())
    told = rf"scoring\.{key} .* '{capability}'; kind 'plain' has \['live'\]; set scoring\.{key}: {off} in this file"
    with pytest.raises(ValueError, match=told):
        check_capabilities(scoring, "plain", {Capability.LIVE})


def test_what_coles_cannot_do_is_refused_before_spark_starts(minimal):
    coles = "model={kind: coles}"
    assert load_config(minimal, [coles, "scoring.smoothing=3"]).scoring.smoothing == 3
    message = message_of(minimal, coles, "scoring.changed_only=true")
    assert "scoring.changed_only needs the capability 'copying'; kind 'coles' has ['mapping', 'smoothing']" in message


def test_an_option_of_the_extended_file_is_switched_off_as_the_message_says(minimal, tmp_path):
    base, coles = tmp_path / "base.yaml", tmp_path / "coles.yaml"
    base.write_text(f"extends: {minimal}\nscoring: {{changed_only: true}}\n")
    coles.write_text("extends: base.yaml\nname: shop_coles\nmodel: {kind: coles}\n")
    assert "set scoring.changed_only: false in this file" in message_of(coles)
    coles.write_text(coles.read_text() + "scoring: {changed_only: false}\n")
    assert not load_config(coles).scoring.changed_only


def test_the_second_demo_is_another_model_over_the_tables_of_the_first():
    first, second = load_config(CONF / "demo.yaml"), load_config(CONF / "demo_coles.yaml")
    beside = first.evaluation.model_copy(update={"beside": ["demo"]})
    own = {"name": "demo_coles", "model": second.model, "training": second.training, "evaluation": beside}
    assert second == first.model_copy(update=own)
    assert (second.model.kind, second.training.as_of) == ("coles", first.training.as_of)
