"""Sequences that drift: what was changed is found by its name, and nothing else; shares are those of plain Python."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gur_spark.monitoring.features import OTHERS, Distribution
from gur_spark.monitoring.findings import judge
from gur_spark.monitoring.sequences import compare_sequences, measured_lists, measured_subjects
from tests.monitoring.test_features import alerts, settings
from tests.sequence_data import DAY, SIZES, User, manifest, random_users, to_rows

USERS = 400
BEFORE = random_users(USERS, seed=1)
AGAIN = random_users(USERS, seed=2)


def table(users: Sequence[User]) -> pa.Table:
    return pa.Table.from_batches([to_rows(users)]).select(measured_lists(manifest()))


def by_name(before: Sequence[User], after: Sequence[User]) -> dict[str, Distribution]:
    return {d.column: d for d in compare_sequences(table(before), table(after), manifest(), SIZES)}


def alerting(after: Sequence[User]) -> set[tuple[str, str]]:
    found = by_name(BEFORE, after).values()
    return alerts(judge([one for d in found for one in d.measured("before")], settings()))


def changed(**change: Any) -> list[User]:
    """Other users of the same kind, a list of whom is changed."""
    return [{**user, **{name: to(user[name]) for name, to in change.items()}} for user in AGAIN]


def test_each_user_is_measured_by_events_recency_means_and_categories() -> None:
    assert measured_lists(manifest()) == ["as_of", "event_time", "mcc", "channel", "amount", "amount_missing"]
    subjects = ["events", "recency_days", "amount_mean", "mcc", "channel"]
    assert list(by_name(BEFORE, AGAIN)) == measured_subjects(manifest()) == subjects
    assert alerting(AGAIN) == set()


@pytest.mark.parametrize(
    ("after", "subjects"),
    [
        (changed(amount=lambda amounts: [a and a * 3 for a in amounts]), {"amount_mean"}),
        (changed(amount=lambda amounts: [None] * len(amounts)), {"amount_mean"}),
        (changed(channel=lambda ids: [1] * len(ids)), {"channel"}),
        (changed(mcc=lambda ids: [SIZES["mcc"]] * len(ids)), {"mcc"}),
        (changed(age=lambda ages: [age + 60 * DAY for age in ages]), {"recency_days"}),
    ],
    ids=["amounts times three", "amounts are gone", "unknown channels", "ids of a newer vocabulary", "everyone silent"],
)
def test_what_was_changed_is_found_and_nothing_else(after: list[User], subjects: set[str]) -> None:
    assert {subject for subject, _ in alerting(after)} == subjects


def test_users_with_more_events_are_found() -> None:
    assert {subject for subject, _ in alerting(random_users(USERS, seed=2, shortest=30))} == {"events"}


def test_shares_and_means_are_those_of_plain_python() -> None:
    few = random_users(30, seed=7)
    found = by_name(BEFORE, few)
    shares: Counter[int] = Counter()
    for user in few:
        for id in user["mcc"]:
            shares[id] += 1 / len(user["mcc"])
    bins = [id for id in found["mcc"].bins if id != OTHERS]
    expected = [shares[id] for id in bins]
    np.testing.assert_allclose(found["mcc"].after_B, [*expected, len(few) - sum(expected)], atol=1e-9)
    known = [[a for a in user["amount"] if a is not None] for user in few]
    assert found["amount_mean"].after_null == pytest.approx(np.mean([not amounts for amounts in known]))
    alone = by_name(few, few)
    for name, values in (
        ("events", [len(user["age"]) for user in few]),
        ("recency_days", [user["age"][-1] / DAY for user in few]),
        ("amount_mean", [np.mean(amounts) for amounts in known if amounts]),
    ):
        # Both sides of a comparison with itself are those values, in bins of their own quantiles.
        assert alone[name].before_B.sum() == len(values)
        np.testing.assert_array_equal(alone[name].before_B, alone[name].after_B)
    # Whoever's mean moves over every bin moves into the last one.
    huge = [{**user, "amount": [1e9] * len(user["amount"])} for user in few]
    assert by_name(few, huge)["amount_mean"].after_B[-1] == len(few)
    one = [{"user_id": 0, "age": [5 * DAY, 2 * DAY], "mcc": [3, 3], "channel": [2, 4], "amount": [None, 7.5]}]
    exact = {d.column: d for d in compare_sequences(table(one), table(one), manifest(), SIZES)}
    assert exact["recency_days"].bins[0].endswith("2")  # type: ignore[union-attr]
    assert exact["amount_mean"].bins[0].endswith("7.5")  # type: ignore[union-attr]
    assert exact["events"].bins[0].endswith("2")  # type: ignore[union-attr]
