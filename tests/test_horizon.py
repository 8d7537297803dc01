"""A future is used once it is complete: of every declared log, with the declared delay."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from gur_spark.errors import EvaluationError, TrainingError
from gur_spark.snapshots.horizon import check_complete, events_ahead, log_end
from tests.conftest import BASE, config_over

pytestmark = pytest.mark.any_engine

AS_OF = date(2024, 6, 1)
WEB = {"web": {"source": {"path": "unused"}, "fields": {**BASE["fields"], "categorical": [], "numeric": []}}}


def landed(spark: Any, *rows: tuple[str, int]) -> Any:
    """An event of each (log, days after as_of), landed on that day."""
    made = [(log, AS_OF + timedelta(days)) for log, days in rows]
    return spark.createDataFrame(made, "source STRING, landed_on DATE")


@pytest.mark.parametrize(("last", "delay", "complete"), [(5, 0, False), (6, 0, True), (6, 1, False), (7, 1, True)])
def test_the_last_day_of_the_horizon_must_have_landed_and_the_delay_after_it(
    spark: Any, last: int, delay: int, complete: bool
) -> None:
    config = config_over("unused", aggregates={"delay_days": delay})
    events = landed(spark, ("main", last)).drop("source")
    if complete:
        check_complete(events, config, [AS_OF], 7, EvaluationError)
        return
    expected = (
        f"the log ends on {AS_OF + timedelta(last)}; they are from the landing of {AS_OF + timedelta(6 + delay)} on, "
        f"and now those of dates up to {AS_OF + timedelta(last - 6 - delay)} are"
    )
    with pytest.raises(EvaluationError, match=expected):
        check_complete(events, config, [AS_OF], 7, EvaluationError)


def test_the_log_that_ends_first_counts_and_one_without_events_is_no_silence(spark: Any, make_config: Any) -> None:
    config = make_config({"logs": WEB})
    check_complete(landed(spark, ("main", 20), ("web", 6)), config, [AS_OF], 7, TrainingError)
    with pytest.raises(TrainingError, match="the log ends on 2024-06-06"):
        check_complete(landed(spark, ("main", 20), ("web", 5)), config, [AS_OF], 7, TrainingError)
    with pytest.raises(TrainingError, match="log web has no events yet"):
        check_complete(landed(spark, ("main", 20)), config, [AS_OF], 7, TrainingError)


@pytest.mark.parametrize(
    ("late", "end"), [((5000, 1), 99), ((105, 1), 105), ((106, 1), 106), ((108, 1), 99), ((5000, 40), 5000)]
)
def test_a_few_rows_far_after_the_others_stand_for_nothing(late: tuple[int, int], end: int) -> None:
    rows = {AS_OF + timedelta(day): 20 for day in range(100)}
    day, count = late
    assert log_end({**rows, AS_OF + timedelta(day): count}, 7) == AS_OF + timedelta(end)
    # Two mistakes, one after the other.
    assert log_end({**rows, AS_OF + timedelta(400): 1, AS_OF + timedelta(900): 1}, 7) == AS_OF + timedelta(99)
    assert log_end({AS_OF: 1}, 7) == AS_OF


def test_no_events_at_all_is_said(spark: Any) -> None:
    with pytest.raises(EvaluationError, match="there are no events; run the ingest job first"):
        check_complete(landed(spark), config_over("unused"), [AS_OF], 7, EvaluationError)


def test_what_lands_after_the_horizon_and_the_delay_changes_no_label(spark: Any) -> None:
    midnight = datetime(2024, 6, 1, tzinfo=UTC)
    rows = [(day, midnight + timedelta(days=3), AS_OF + timedelta(day)) for day in (3, 7, 8, 9)]
    events = spark.createDataFrame(rows, "user_id BIGINT, event_time TIMESTAMP, landed_on DATE")
    for delay, known in ((0, [3]), (1, [3, 7])):
        config = config_over("unused", aggregates={"delay_days": delay})
        assert sorted(row[0] for row in events_ahead(events, AS_OF, 7, config.aggregates.delay_days).collect()) == known
