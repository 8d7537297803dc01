"""The dates that the jobs of snapshots make."""

from argparse import ArgumentParser
from typing import Any

import pytest

from gur_spark.cli import as_of_dates, snapshot_options
from gur_spark.errors import ConfigError


def dates(config: Any, *words: str) -> list[str]:
    parser = ArgumentParser()
    snapshot_options(parser)
    return [str(day) for day in as_of_dates(config, parser.parse_args(words))]


def test_dates_are_named_counted_or_those_of_training_and_scoring(make_config: Any) -> None:
    days = {"training": {"as_of": ["2024-06-01"]}, "scoring": {"as_of": ["2024-06-01", "2024-05-01"]}}
    config = make_config(days)
    assert dates(config) == ["2024-05-01", "2024-06-01"]
    assert dates(config, "--as-of", "2024-02-02", "2024-02-01", "2024-02-02") == ["2024-02-01", "2024-02-02"]
    weekly = ["--from", "2024-02-01", "--to", "2024-02-20", "--every"]
    assert dates(config, *weekly, "7d") == dates(config, *weekly, "7") == ["2024-02-01", "2024-02-08", "2024-02-15"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no as-of date: give --as-of"),
        (["--from", "2024-02-01", "--to", "2024-01-31", "--every", "1d"], "no as-of date from 2024-02-01 to 2024-01"),
        (["--from", "2024-02-01", "--to", "2024-02-03"], "a backfill takes"),
        (["--from", "2024-02-01", "--to", "2024-02-03", "--every", "1", "--as-of", "2024-02-01"], "without --as-of"),
    ],
)
def test_dates_that_are_not_whole_are_refused(make_config: Any, words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dates(make_config(), *words)


@pytest.mark.parametrize("every", ["0d", "-1", "week", "d"])
def test_a_backfill_goes_in_whole_days(make_config: Any, every: str, capsys: Any) -> None:
    with pytest.raises(SystemExit, match="2"):
        dates(make_config(), "--from", "2024-02-01", "--to", "2024-02-03", f"--every={every}")
    assert "expected a number of days such as 7d" in capsys.readouterr().err
