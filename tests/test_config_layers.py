"""Layers of the configuration: base, the files that a file extends, the file, and overrides."""

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from gur_spark import cli
from gur_spark.config.file import base_file, check, load_config
from gur_spark.config.layers import merge
from gur_spark.errors import ConfigError
from gur_spark.models.gur.settings import GurModel
from gur_spark.models.lifestream.settings import ColesModel

SHOP = {
    "name": "shop",
    "tables": {"root": "build/shop"},
    "source": {"path": "landings"},
    "fields": {
        "user_id": {"column": "customer", "type": "long"},
        "event_time": {"column": "time", "format": "iso8601"},
        "categorical": [{"name": "item", "column": "sku"}],
    },
    "model": {"latent_dim": 60, "loss": {"likelihood": 2, "future": 1}},
    "training": {"epochs": 3, "seed": 7},
}


@pytest.fixture
def write(tmp_path):
    def write_file(file_name, **values):
        file = tmp_path / file_name
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump(values))
        return file

    write_file("shop.yaml", **SHOP)
    return write_file


def message_of(file, *overrides):
    with pytest.raises(ConfigError) as error:
        load_config(file, overrides)
    return str(error.value)


def test_a_second_pipeline_says_only_its_name_and_its_model_over_the_same_tables(write):
    first = load_config(write("shop.yaml", **SHOP))
    second = load_config(write("wide.yaml", extends="shop.yaml", name="wide", model={"latent_dim": 240}))
    assert (second.name, second.model.latent_dim, second.model.loss) == ("wide", 240, first.model.loss)
    changed = {"name": "wide", "model": first.model.model_copy(update={"latent_dim": 240})}
    assert second == first.model_copy(update=changed)


def test_a_file_may_extend_one_that_extends_another_beside_it_and_overrides_come_last(write):
    write("all/longer.yaml", extends="../shop.yaml", training={"epochs": 5}, source={"path": "elsewhere"})
    file = write("all/longest.yaml", extends="longer.yaml", training={"epochs": 9, "patience": 2})
    training = load_config(file, ["training.patience=4"]).training
    assert (training.seed, training.epochs, training.patience) == (7, 9, 4)
    assert load_config(file).source.path == "elsewhere", "a path of data is not moved with the file"


def test_what_print_config_shows_of_an_extending_file_stands_alone(write, capsys):
    file = write("wide.yaml", extends="shop.yaml", name="wide")
    assert cli.main("ingest", "Ingest.", lambda *_: None, ["--config", str(file), "--print-config"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert "extends" not in shown
    assert check(shown, "shown") == load_config(file)


def test_an_environment_variable_may_be_in_the_path_that_is_extended(write, monkeypatch):
    file = write("wide.yaml", extends="${oc.env:STAGE}.yaml", name="wide")
    message = message_of(file)
    assert message.startswith(f"{file}: ")
    assert "Environment variable 'STAGE' not found" in message
    monkeypatch.setenv("STAGE", "shop")
    assert load_config(file).tables.root == "build/shop"


def test_files_that_extend_one_another_in_a_loop_are_refused_with_the_chain(write, tmp_path):
    write("b.yaml", extends="c.yaml")
    write("c.yaml", extends="../" + tmp_path.name + "/a.yaml")
    file = write("a.yaml", extends="b.yaml")
    assert message_of(file) == (
        f"configuration file '{file}' extends itself: {file} -> {tmp_path}/b.yaml -> {tmp_path}/c.yaml -> {file}"
    )


def test_a_missing_file_that_is_extended_names_who_extends_it_and_the_nearest(write, tmp_path):
    file = write("wide.yaml", extends="shpo.yaml")
    assert message_of(file) == (
        f"configuration file '{tmp_path}/shpo.yaml', which '{file}' extends, does not exist; did you mean 'shop.yaml'?"
    )
    bad = write("bad/wide.yaml", extends="../shpo.yaml")
    assert message_of(bad).startswith(f"configuration file '{tmp_path}/shpo.yaml', which '{bad}' extends,")
    assert "nowhere/shop.yaml', which" in message_of(write("wide.yaml", extends="nowhere/shop.yaml"))


@pytest.mark.parametrize("given", [["shop.yaml"], None, "", 3])
def test_what_is_extended_is_one_path(write, given):
    file = write("wide.yaml", extends=given)
    assert f"{file}: extends: expected the path of a file beside this one; got" in message_of(file)


def test_only_a_file_extends(write):
    file = write("shop.yaml", **SHOP)
    assert "override 'extends=b.yaml': only a file can extend another one" in message_of(file, "extends=b.yaml")


def test_a_key_that_is_wrong_in_an_extended_file_is_told_of_the_file_that_was_asked_for(write):
    write("shop.yaml", **SHOP, vocabluary={"min_count": 1})
    file = write("wide.yaml", extends="shop.yaml", name="wide")
    message = message_of(file)
    assert message.startswith(f"{file} is not a valid configuration")
    assert "vocabluary: unknown key" in message
    assert "did you mean 'vocabulary'?" in message


def merged(*layers):
    return OmegaConf.to_container(merge([OmegaConf.create(layer) for layer in layers]))


def test_a_model_of_another_kind_replaces_the_whole_model_below():
    lower, coles = {"name": "a", "model": {"kind": "gur", "latent_dim": 60}}, {"model": {"kind": "coles", "margin": 1}}
    assert merged(lower, coles) == {"name": "a", "model": {"kind": "coles", "margin": 1}}
    assert merged(lower, coles, {"model": {"kind": "gur"}}) == {"name": "a", "model": {"kind": "gur"}}
    assert merged({"model": {"latent_dim": 60}}, coles) == coles, "a model without a kind is gur's"


def test_a_model_of_the_same_kind_is_merged_key_by_key():
    lower = {"model": {"kind": "coles", "margin": 1, "slices": {"count": 5, "max": 100}}}
    for upper in ({"slices": {"count": 3}}, {"kind": "coles", "slices": {"count": 3}}):
        assert merged(lower, {"model": upper}) == {
            "model": {"kind": "coles", "margin": 1, "slices": {"count": 3, "max": 100}}
        }
    assert merged({"model": {"latent_dim": 60}}, {"model": {"kind": "gur", "dropout": 0}}) == {
        "model": {"latent_dim": 60, "kind": "gur", "dropout": 0}
    }


def test_a_kind_on_the_command_line_replaces_the_files_model_by_its_defaults(write):
    config = load_config(write("shop.yaml", **SHOP), ["model.kind=coles", "model.encoder=lstm"])
    assert config.model == ColesModel(encoder="lstm")


def test_losses_replace_those_below_in_every_layer(write):
    file = write("wide.yaml", extends="shop.yaml", model={"loss": {"future": 1}})
    assert load_config(file).model.loss == {"future": 1}
    assert load_config(file, ["model.loss=mse", "model.tables=frozen"]).model == GurModel(
        latent_dim=60, loss={"mse": 1}, tables="frozen"
    )


def test_the_word_for_mlflow_is_kept_beside_keys_of_a_later_file(write, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write("shop.yaml", **SHOP, tracking="mlflow")
    tracking = load_config(write("wide.yaml", extends="shop.yaml", tracking={"required": True})).tracking
    assert tracking.required
    assert tracking.store == f"sqlite:///{Path('build/shop').absolute()}/mlflow.db"


def test_base_says_of_the_model_only_its_kind():
    assert yaml.safe_load(base_file().read_text())["model"] == {"kind": "gur"}


def test_a_model_of_another_kind_needs_a_name_of_its_own(write):
    file = write("second.yaml", extends="shop.yaml", model={"kind": "coles"})
    assert "its model is of kind 'coles', and that of the file which it extends of kind 'gur': give it a name" in (
        message_of(file)
    )
    write("second.yaml", extends="shop.yaml", name="second", model={"kind": "coles"})
    assert load_config(write("third.yaml", extends="second.yaml", model={"latent_dim": 16})).name == "second"
    back = write("back.yaml", extends="second.yaml", model={"kind": "gur"})
    assert "its model is of kind 'gur', and that of the file which it extends of kind 'coles'" in message_of(back)


def test_an_unknown_kind_or_a_kind_that_cannot_be_resolved_is_named_not_the_missing_name(write):
    unknown = write("second.yaml", extends="shop.yaml", model={"kind": "colse"})
    assert "unknown kind 'colse'" in message_of(unknown)
    assert "nobody" in message_of(write("third.yaml", extends="shop.yaml", model={"kind": "${nobody}"}))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("logs.web.kind=[1]", "logs.web: unknown kind '[1]'"),
        ("logs=foo", "logs: Input should be a valid dictionary; got 'foo'"),
        ("model.kind=null", "model.kind: Input should be a valid string; got None"),
        ("model.kind=[1]", "model.kind: Input should be a valid string; got [1]"),
    ],
)
def test_a_value_of_another_shape_is_refused_by_its_key(write, override, said):
    assert said in message_of(write("shop.yaml", **SHOP), override)
