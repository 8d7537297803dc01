"""CSV lines split into columns of text.

A line is a row. Values may be in double quotes; inside quotes a quote is doubled. Lines without quotes are split by
Arrow's kernels, lines whose quotes stand where they should by Arrow's CSV reader, and the others one by one.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from gur_spark.config.source import BLANKS, QUOTE, Source
from gur_spark.events.ranges import Lines
from gur_spark.events.raw import RawRows, first_of

MOST_REPEATS = 1000
"""Greatest number of repetitions in a regular expression of Arrow."""

Splitter = Callable[[str], list[str]]

_Columns = tuple[dict[str, pa.StringArray], pa.BooleanArray]
"""Texts of the wanted columns, empty ones null, and the lines with another number of values than columns."""


def header_of(line: str, source: Source) -> list[str]:
    """Column names of a header line, without blanks around them."""
    return header_names(delimited(pa.array([line]), source)[0].as_py(), _delimiter(source))


def delimited(lines: pa.StringArray, source: Source) -> pa.StringArray:
    """Lines with one character between two values; any number of blanks becomes a tab, but not inside quotes."""
    if source.delimiter != BLANKS:
        return lines
    trimmed = pc.ascii_trim_whitespace(lines)
    if not holds(lines, QUOTE):
        return pc.replace_substring_regex(trimmed, "[ \t]+", "\t")
    outside = re.compile(r'("(?:[^"]|"")*")|[ \t]+')
    made = [outside.sub(lambda found: found[1] or "\t", line) for line in trimmed.to_pylist()]
    return pa.array(made, pa.string())


def _delimiter(source: Source) -> str:
    return "\t" if source.delimiter == BLANKS else source.delimiter


def header_names(line: str, delimiter: str) -> list[str]:
    """Column names of a header line, without blanks around them."""
    names = next(csv.reader([line], delimiter=delimiter, quotechar=QUOTE), [])
    return [name.strip() for name in names]


def csv_rows(
    lines: pa.StringArray,
    valid: pa.BooleanArray | None,
    names: Sequence[str],
    positions: dict[str, int],
    source: Source,
) -> RawRows:
    """Split lines into the wanted columns.

    Args:
        valid: the lines that are text in the file's encoding; None: all.
        names: all columns of the file, in order.
        positions: wanted raw column -> its position among ``names``.
    """
    problems = line_problems(lines, valid)
    if source.widths:
        texts, ragged = _cut(lines, source.widths, positions)
    elif holds(lines, QUOTE):
        quoted = pc.match_substring(lines, QUOTE)
        texts, ragged = _split_quoted(delimited(lines, source), quoted, len(names), positions, _delimiter(source))
        odd = pc.equal(pc.bit_wise_and(pc.count_substring(lines, QUOTE), 1), 1)
        problems.append(("unbalanced_quote", odd))
    else:
        texts, ragged = _split(delimited(lines, source), len(names), positions, _delimiter(source))
    problem = first_of([*problems, ("ragged_row", ragged)], len(lines))
    if problem.null_count < len(problem):
        whole = pc.is_null(problem)
        texts = {name: pc.if_else(whole, values, None) for name, values in texts.items()}
    return RawRows(texts=texts, problem=problem, lines=lines)


def _cut(lines: pa.StringArray, widths: Sequence[int], positions: dict[str, int]) -> _Columns:
    """Texts of columns with a width, without blanks around them; a line is ragged that is longer or misses one."""
    ends = list(accumulate(widths))
    length = pc.utf8_length(pc.utf8_rtrim_whitespace(lines))
    ragged = pc.or_(pc.greater(length, ends[-1]), pc.less(pc.utf8_length(lines), ends[-2] if len(ends) > 1 else 0))
    columns = {
        name: _no_empty(pc.utf8_trim_whitespace(pc.utf8_slice_codeunits(lines, ends[n] - widths[n], ends[n])))
        for name, n in positions.items()
    }
    return columns, ragged


def rows_of_lines(blocks: Iterable[Lines]) -> Iterator[Lines]:
    """Join lines whose quoted value goes on in the next line.

    The lines after a quote that is never closed are rows by themselves, so that they are counted.
    """
    held: list[str] = []
    held_valid = True
    for lines, valid in blocks:
        odd = pc.equal(pc.bit_wise_and(pc.count_substring(lines, QUOTE), 1), 1)
        if not held and not pc.any(odd).as_py():
            yield lines, valid
            continue
        rows, valid_rows = [], []
        marks = [True] * len(lines) if valid is None else valid.to_pylist()
        for line, is_odd, is_valid in zip(lines.to_pylist(), odd.to_pylist(), marks, strict=True):
            held_valid = is_valid and (held_valid or not held)
            inside = bool(held)
            held.append(line)
            # An odd number of quotes opens a value, or closes the one that is open.
            if is_odd == inside:
                rows.append("\n".join(held))
                valid_rows.append(held_valid)
                held = []
        yield pa.array(rows, pa.string()), pa.array(valid_rows, pa.bool_())
    if held:
        yield pa.array(held, pa.string()), pa.array([held_valid] * len(held))


def line_problems(lines: pa.StringArray, valid: pa.BooleanArray | None) -> list[tuple[str, pa.BooleanArray]]:
    """Reason codes of lines that are no text, and the lines."""
    problems = [] if valid is None else [("invalid_utf8", pc.invert(valid))]
    return [*problems, ("nul_byte", pc.match_substring(lines, "\0"))] if holds(lines, "\0") else problems


def holds(lines: pa.StringArray, text: str) -> bool:
    """Whether some line may hold a text; asking all at once is ten times as fast as each."""
    return text.encode() in lines.buffers()[2].to_pybytes()


def _split(lines: pa.StringArray, width: int, positions: dict[str, int], delimiter: str) -> _Columns:
    """Texts of the wanted columns, empty ones null, and the lines with another number of values."""
    values = pc.split_pattern(lines, delimiter)
    ragged = pc.not_equal(pc.list_value_length(values), width)
    if pc.any(ragged).as_py():
        values = pc.if_else(ragged, pa.scalar([""] * width, values.type), values)
    return {name: _no_empty(pc.list_element(values, position)) for name, position in positions.items()}, ragged


def _no_empty(texts: pa.StringArray) -> pa.StringArray:
    empty = pc.equal(texts, "")
    return pc.if_else(empty, None, texts) if pc.any(empty).as_py() else texts


def _split_quoted(
    lines: pa.StringArray, quoted: pa.BooleanArray, width: int, positions: dict[str, int], delimiter: str
) -> _Columns:
    """As ``_split``, of lines of which some have quotes."""
    d = re.escape(delimiter)
    value = f'(?:"(?:[^"]|"")*"|[^"{d}]*)'
    regular = pa.repeat(False, len(lines))
    if width <= MOST_REPEATS and delimiter.isascii():
        regular = pc.match_substring_regex(lines, f"^{value}(?:{d}{value}){{{width - 1}}}$")
    parts: list[tuple[pa.BooleanArray, Callable[[pa.StringArray], _Columns]]] = [
        (pc.invert(quoted), lambda some: _split(some, width, positions, delimiter)),
        (pc.and_(quoted, regular), lambda some: _read(some, width, positions, delimiter)),
        (pc.and_(quoted, pc.invert(regular)), lambda some: _split_each(some, width, positions, delimiter)),
    ]
    order, ragged = [], []
    columns: dict[str, list[pa.StringArray]] = {name: [] for name in positions}
    for mask, split in parts:
        some = lines.filter(mask)
        if not len(some):
            continue
        order.append(pc.indices_nonzero(mask))
        texts, odd = split(some)
        ragged.append(odd)
        for name in positions:
            columns[name].append(texts[name])
    back = pc.sort_indices(pa.concat_arrays(order))
    return (
        {name: pa.concat_arrays(some).take(back) for name, some in columns.items()},
        pa.concat_arrays(ragged).take(back),
    )


def _read(lines: pa.StringArray, width: int, positions: dict[str, int], delimiter: str) -> _Columns:
    """Lines with as many values as there are columns, and quotes around whole values."""
    text = "\n".join(lines.to_pylist())
    names = [str(number) for number in range(width)]
    table = arrow_csv.read_csv(
        io.BytesIO(text.encode()),
        arrow_csv.ReadOptions(use_threads=False, column_names=names, block_size=max(1 << 20, 2 * len(text) + 1024)),
        arrow_csv.ParseOptions(delimiter=delimiter, ignore_empty_lines=False, newlines_in_values=True),
        arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            include_columns=list(dict.fromkeys(names[position] for position in positions.values())),
            strings_can_be_null=False,
        ),
    )
    columns = {name: _no_empty(table.column(names[position]).combine_chunks()) for name, position in positions.items()}
    return columns, pa.repeat(False, len(lines))


def _split_each(lines: pa.StringArray, width: int, positions: dict[str, int], delimiter: str) -> _Columns:
    """Lines with quotes in odd places: a quote that is not closed before a delimiter begins no quoted value."""
    split = splitter(delimiter)
    rows = [split(line) for line in lines.to_pylist()]
    whole = [row if len(row) == width else [""] * width for row in rows]
    columns = {
        name: _no_empty(pa.array([row[position] for row in whole], pa.string())) for name, position in positions.items()
    }
    return columns, pa.array([len(row) != width for row in rows])


def splitter(delimiter: str) -> Splitter:
    """A function that splits a line as Spark's ``from_csv`` does."""
    d, q = re.escape(delimiter), QUOTE
    blanks = " \t".replace(delimiter, "")
    value = re.compile(rf"{q}((?:[^{q}]|{q}{q})*+){q}[{blanks}]*(?={d}|\Z)|([^{d}]*)")

    def split(line: str) -> list[str]:
        values, end = [], -1
        while end < len(line):
            found = value.match(line, end + 1)
            assert found is not None  # the pattern also matches an empty text
            quoted = found[1]
            values.append(found[2] if quoted is None else quoted.replace(QUOTE * 2, QUOTE))
            end = found.end()
        return values

    return split
