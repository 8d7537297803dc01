"""The synthetic log has the properties that its docstring states, counted row by row."""

import csv
import gzip
import json
from collections import Counter
from datetime import date, datetime, timedelta

import pytest

from gur_spark.synthetic.__main__ import main
from gur_spark.synthetic.events import FIRST_DAY
from gur_spark.synthetic.files import HEADER, write
from gur_spark.synthetic.landings import generate
from gur_spark.synthetic.personas import PERSONAS, THEMES

USERS, DAYS = 400, 120


@pytest.fixture(scope="module")
def log():
    return generate(USERS, seed=3, days=DAYS)


@pytest.fixture(scope="module")
def rows(log):
    """Pairs (landing day, fields) of every line."""
    return [(day, row) for day, lines in log.landings.items() for row in csv.reader(lines)]


@pytest.fixture(scope="module")
def events(rows):
    """Different sound rows, with the first day they landed."""
    first: dict[tuple[str, ...], date] = {}
    for landed, row in rows:
        if is_sound(row):
            first[tuple(row)] = min(landed, first.get(tuple(row), landed))
    return first


def is_sound(row):
    try:
        client, booked_at, _, _, amount = row
        datetime.strptime(booked_at, "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007 - only whether it parses
        return client.isdigit() and float(amount) != 0
    except ValueError:
        return False


def test_every_row_is_an_event_a_duplicate_or_broken_as_counted(log, rows, events):
    counts = log.counts
    assert len(rows) == counts["events"] + counts["duplicates"] + counts["broken"]
    assert len(events) == counts["events"]
    assert sum(not is_sound(row) for _, row in rows) == counts["broken"]
    assert 0 < counts["broken"] < 0.05 * len(rows)
    assert counts["duplicates"] > 0


def test_an_event_lands_on_its_day_or_is_counted_as_late_by_at_most_five_days(log, events):
    delays = Counter((landed - date.fromisoformat(row[1][:10])).days for row, landed in events.items())
    assert set(delays) == {0, 1, 2, 3, 4, 5}
    assert sum(count for delay, count in delays.items() if delay) == log.counts["late"]


def test_some_duplicates_come_in_the_same_file_and_some_in_a_later_one(rows):
    landings = Counter((tuple(row), day) for day, row in rows if is_sound(row))
    assert max(landings.values()) == 2
    days_of_row = Counter(row for row, _ in landings)
    assert max(days_of_row.values()) == 2


def test_broken_rows_are_broken_in_each_of_the_five_ways(rows):
    broken = [row for _, row in rows if not is_sound(row)]
    ways = {
        "too many columns": any(len(row) == 7 for row in broken),
        "too few columns": any(len(row) == 2 for row in broken),
        "no such date": any(row[1].startswith("2025-02-30") for row in broken),
        "no number": any(row[-1] == "n/a" for row in broken),
        "no client": any(row[0] == "" for row in broken),
    }
    assert [way for way, seen in ways.items() if not seen] == []


def test_there_is_one_landing_for_each_day(log):
    assert list(log.landings) == [FIRST_DAY + timedelta(day) for day in range(DAYS)]


def test_every_client_has_one_persona(log, events):
    assert log.labels["client"].is_unique
    assert len(log.labels) == USERS
    assert set(log.labels["persona"]) == set(PERSONAS)
    assert {int(row[0]) for row in events} <= set(log.labels["client"])


def test_profiles_depend_on_the_persona_and_some_users_have_none(log):
    profiles = log.profiles.merge(log.labels, on="client", validate="one_to_one")
    assert 0.85 * USERS < len(profiles) < 0.95 * USERS
    assert 0.1 < (profiles["interests"] == "").mean() < 0.3
    picks = profiles["interests"].str.split("|")
    assert picks.map(lambda row: len(set(row)) == len(row) <= 4).all()
    assert {pick for row in picks for pick in row} == {"", *THEMES}
    students = profiles["persona"] == "student"
    for column, value in (("country", "fr"), ("plan", "basic")):
        assert (profiles[column] == value)[students].mean() > 1.5 * (profiles[column] == value)[~students].mean()
    assert picks[students].map(lambda row: "digital" in row).mean() > picks.map(lambda row: "digital" in row).mean()


def test_a_persona_spends_on_what_it_likes_more_often_than_the_others(log, events):
    persona = dict(zip(log.labels["client"], log.labels["persona"], strict=True))
    theme_of = {category: name for name, theme in THEMES.items() for category in theme.categories}
    pairs = Counter((persona[int(row[0])], theme_of[row[2]]) for row in events)
    totals = Counter({name: sum(n for (p, _), n in pairs.items() if p == name) for name in PERSONAS})
    favourites = {"commuter": "transport", "family": "children", "student": "digital", "traveller": "travel"}
    for name, theme in favourites.items():
        shares = {other: pairs[other, theme] / totals[other] for other in PERSONAS}
        assert max(shares, key=lambda other: shares[other]) == name


def test_a_few_users_are_hot_and_categories_have_a_long_tail(events):
    per_user = sorted(Counter(row[0] for row in events).values())
    assert per_user[-1] > 15 * per_user[len(per_user) // 2]
    categories = [count for _, count in Counter(row[2] for row in events).most_common()]
    assert len(categories) > 200
    assert sum(categories[:40]) > 0.8 * sum(categories)


def test_some_users_leave_and_most_stay(events):
    booked = [(row[0], date.fromisoformat(row[1][:10])) for row in events]
    middle = FIRST_DAY + timedelta(DAYS - 30)
    before = {client for client, day in booked if day < middle}
    after = {client for client, day in booked if day >= middle}
    assert 0.1 < len(before - after) / len(before) < 0.5


def test_the_same_arguments_give_the_same_bytes_and_another_seed_gives_others(tmp_path):
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert write(tmp_path / folder, users=30, seed=seed, days=10)
    a, b, c = (contents(tmp_path / folder) for folder in "abc")
    assert a == b
    assert a["landings/2025-01-01.csv.gz"] != c["landings/2025-01-01.csv.gz"]
    landings = [f"landings/2025-01-{day:02d}.csv.gz" for day in range(1, 11)]
    assert sorted(a) == ["complete.json", "labels.csv", *landings, "profiles.csv"]


def test_files_hold_the_header_and_the_log_they_were_made_of(tmp_path):
    write(tmp_path / "log", users=30, seed=1, days=3)
    expected = generate(30, seed=1, days=3)
    for day, lines in expected.landings.items():
        text = gzip.decompress((tmp_path / "log" / "landings" / f"{day}.csv.gz").read_bytes()).decode()
        assert text.splitlines() == [HEADER, *lines]
    assert json.loads((tmp_path / "log" / "complete.json").read_text())["counts"] == expected.counts


def test_a_complete_log_is_left_alone_and_other_arguments_replace_it(tmp_path):
    out = tmp_path / "log"
    assert write(out, users=20, seed=1, days=3)
    first = contents(out)
    (out / "labels.csv").write_text("touched")
    assert not write(out, users=20, seed=1, days=3)
    assert (out / "labels.csv").read_text() == "touched"
    assert write(out, users=20, seed=2, days=3)
    assert contents(out)["complete.json"] != first["complete.json"]


def test_the_rest_of_a_killed_run_is_written_again(tmp_path):
    leftover = tmp_path / "log.partial" / "landings"
    leftover.mkdir(parents=True)
    (leftover / "1999-01-01.csv.gz").write_bytes(b"half")
    assert write(tmp_path / "log", users=20, seed=1, days=3)
    assert not leftover.exists()
    assert len(contents(tmp_path / "log")) == 6


def test_a_folder_with_other_contents_is_not_touched(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    assert main(["--out", str(tmp_path)]) == 1
    assert "is not a synthetic log" in capsys.readouterr().err
    assert contents(tmp_path) == {"thesis.txt": b"mine"}


def test_the_command_says_what_it_wrote_and_that_it_was_there(tmp_path, capsys):
    arguments = ["--out", str(tmp_path / "log"), "--users", "20", "--seed", "1", "--days", "3"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    counts = generate(20, seed=1, days=3).counts
    assert f"events {counts['events']:,}, duplicates {counts['duplicates']:,}" in first
    assert main(arguments) == 0
    assert capsys.readouterr().out == first.replace("\n", " (already there)\n")


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
