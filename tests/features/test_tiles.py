"""Tiles: every window of every date is a run of whole tiles."""

from datetime import date, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gur_spark.features.declare.spec import Window
from gur_spark.features.states.tiles import Tiles

NEWEST = date(2024, 7, 1)
windows = st.builds(Window, days=st.one_of(st.none(), st.integers(1, 40)), before=st.integers(0, 20))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=3), st.lists(windows, max_size=5, unique=True))
def test_every_window_of_every_date_is_a_run_of_whole_tiles(lags: list[int], more: list[Window]) -> None:
    dates = [NEWEST - timedelta(days=lag) for lag in lags]
    oldest = min(dates) - timedelta(days=25)
    tiles = Tiles.of(dates, [3, 10], more, oldest)
    events_B = np.bincount(tiles.of_day, minlength=len(tiles))[None, :]
    for number, day in enumerate(tiles.dates):
        lag = (tiles.newest - day).days
        for of, places in tiles.by_end(number, more):
            days_W = np.cumsum(of.by_part(events_B), axis=1)[0]
            for window, place in places.items():
                end = lag + window.before
                expected = window.days or max(tiles.days - end, 1)
                assert of.days[place] == slice(end, end + expected)
                assert days_W[place] == expected
            assert len(places) == len([w for w in more if w.before == of.before])


def test_a_lifetime_window_begins_with_the_first_event_for_every_date() -> None:
    tiles = Tiles.of([NEWEST, NEWEST - timedelta(days=5)], [3, 10], [Window(days=None)], NEWEST - timedelta(days=100))
    assert tiles.days == tiles.reach == 100
    assert [tiles.length(number, Window(days=None)) for number in (0, 1)] == [95, 100]
