"""JSON lines as columns of text. Numbers keep their digits, and a dotted name reaches into objects."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gur_spark.events.csv_rows import line_problems
from gur_spark.events.raw import RawRows, first_of

_NUMBERS = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)
"""Decoder that leaves numbers as they are written."""


@dataclass(kw_only=True)
class MetKeys:
    """Keys of the objects of a file."""

    wanted: set[str] = field(default_factory=set)
    """The mapped keys that some object has."""
    sample: list[str] = field(default_factory=list)
    """All keys of the first object."""


def json_rows(lines: pa.StringArray, valid: pa.BooleanArray | None, names: Sequence[str], met: MetKeys) -> RawRows:
    """Read one JSON object per line.

    Args:
        names: wanted keys. A key with dots that an object lacks is a path into objects.
        met: gets the keys that objects have.
    """
    paths = [(name, name.split(".")) for name in names]
    rows: list[list[str | None]] = []
    problems: list[str | None] = []
    places: list[int] = []
    own: list[str] = []
    for place, line in enumerate(lines.to_pylist()):
        for found, text in _objects(line):
            places.append(place)
            own.append(text)
            problems.append("malformed_json" if found is None else None)
            rows.append([None] * len(paths) if found is None else [_met(found, n, path, met) for n, path in paths])
            met.sample = met.sample or list(found or ())
    if len(places) != len(lines):
        # Each of several objects on a line is a row.
        lines = pa.array(own, pa.string())
        valid = None if valid is None else valid.take(pa.array(places, pa.int64()))
    texts, bad = _columns(rows, names)
    problem = first_of([*line_problems(lines, valid), *bad], len(lines))
    return RawRows(texts=texts, problem=pc.coalesce(problem, pa.array(problems, pa.string())), lines=lines)


def _objects(line: str) -> Iterator[tuple[dict[str, Any] | None, str]]:
    """The objects of a line, mostly one, with their texts; None stands for a rest that is no object."""
    text = line.strip()
    end = 0
    while end < len(text):
        start = end
        try:
            found, end = _NUMBERS.raw_decode(text, start)
        except (ValueError, RecursionError):
            yield None, text[start:]
            return
        yield found if isinstance(found, dict) else None, text[start:end]
        while end < len(text) and text[end].isspace():
            end += 1


def _met(found: Mapping[str, Any], name: str, path: Sequence[str], met: MetKeys) -> str | None:
    """Text of a wanted key of an object."""
    there, value = _reach(found, name, path)
    if there:
        met.wanted.add(name)
    return _text(value)


def _reach(found: Mapping[str, Any], name: str, path: Sequence[str]) -> tuple[bool, Any]:
    """Whether an object has a key, or the path of keys, and its value."""
    if name in found or len(path) == 1:
        return name in found, found.get(name)
    value: Any = found
    for step in path:
        if not isinstance(value, dict) or step not in value:
            return False, None
        value = value[step]
    return True, value


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    # Numbers inside are texts by now, and are written in quotes.
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _columns(
    rows: Sequence[Sequence[str | None]], names: Sequence[str]
) -> tuple[dict[str, pa.StringArray], list[tuple[str, pa.BooleanArray]]]:
    """Columns of the rows, and the rows with half of a character (a lone surrogate), which no text can hold."""
    columns = list(zip(*rows, strict=True)) if rows else [() for _ in names]
    try:
        return {name: pa.array(column, pa.string()) for name, column in zip(names, columns, strict=True)}, []
    except UnicodeEncodeError:
        halves = [any(text is not None and _is_half(text) for text in row) for row in rows]
        whole = [[None if half else text for text in row] for row, half in zip(rows, halves, strict=True)]
        columns = list(zip(*whole, strict=True))
        texts = {name: pa.array(column, pa.string()) for name, column in zip(names, columns, strict=True)}
        return texts, [("lone_surrogate", pa.array(halves))]


def _is_half(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
