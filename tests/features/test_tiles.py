"""Tiles: every window of every date is a run of whole tiles."""

from datetime import date, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gur_spark.features.declare.windows import Window
from gur_spark.features.states.tiles import Tiles

NEWEST = date(2024, 7, 1)
windows = st.builds(Window, days=st.one_of(st.none(), st.integers(1, 40)), before=st.integers(0, 20))
gaps = st.one_of(st.integers(0, 5), st.integers(1, 60).map("{}h".format))
hourly = st.one_of(
    st.builds(Window.of, st.one_of(st.integers(1, 9), st.integers(1, 90).map("{}h".format)), gaps),
    st.builds(lambda gap: Window.model_validate({"days": None, "before": gap}), gaps),
)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=3),
    st.lists(st.one_of(windows, hourly), max_size=5, unique=True),
    st.integers(0, 2),
    st.integers(1, 25),
)
def test_every_window_of_every_date_is_a_run_of_whole_tiles(
    lags: list[int], more: list[Window], horizon: int, first: int
) -> None:
    dates = [NEWEST - timedelta(days=lag) for lag in lags]
    tiles = Tiles.of(dates, [1, 3, 10], more, min(dates) - timedelta(days=first), horizon if len(dates) == 1 else 0)
    assert tiles.unit_hours == (24 if all(w.whole_days for w in more) else 1)
    check_runs(tiles, more)
    if tiles.horizon:
        check_runs(tiles.advanced(dates[0] + timedelta(days=1)), more)


def check_runs(tiles: Tiles, more: list[Window]) -> None:
    """With an event in each unit, each window has its length in events, and all its days and parts of days."""
    events_B = np.bincount(tiles.of_unit, minlength=len(tiles))[None, :]
    for number, day in enumerate(tiles.dates):
        lag = (tiles.newest - day).days * tiles.day_units
        for of, places in tiles.by_end(number, more):
            units_W = np.cumsum(of.by_part(events_B), axis=1)[0]
            for window, place in places.items():
                end = lag + window.gap // tiles.unit_hours
                hours = window.length or max(tiles.units - end, 1) * tiles.unit_hours
                assert of.units[place] == slice(end, end + hours // tiles.unit_hours)
                assert units_W[place] * tiles.unit_hours == hours
                days = of.days[place]
                parts = sum(events_B[0, tiles_].sum() for tiles_ in (of.pieces[place] if of.pieces else ()))
                assert (days.stop - days.start) * tiles.day_units + parts == units_W[place]
            assert len(places) == len([w for w in more if w.gap == of.before * tiles.unit_hours])


def test_a_lifetime_window_begins_with_the_first_event_for_every_date() -> None:
    tiles = Tiles.of([NEWEST, NEWEST - timedelta(days=5)], [3, 10], [Window(days=None)], NEWEST - timedelta(days=100))
    assert tiles.days == tiles.reach == 100
    assert [tiles.length(number, Window(days=None)) for number in (0, 1)] == [95, 100]
