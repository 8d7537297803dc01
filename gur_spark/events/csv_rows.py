"""CSV lines split into columns of text.

A line is a row. Values may be in double quotes; inside quotes a quote is doubled. Lines without quotes are split by
Arrow's kernels, lines whose quotes stand where they should by Arrow's CSV reader, and the others one by one.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from gur_spark.config.logs import BLANKS, QUOTE, Source
from gur_spark.events.ranges import Lines
from gur_spark.events.raw import RawRows, first_of

Splitter = Callable[[str], list[str]]

_Columns = tuple[dict[str, pa.StringArray], pa.BooleanArray]
"""Texts of the wanted columns, empty ones null, and the lines with another number of values than columns."""


def delimiter_of(source: Source) -> str:
    """The character between the values of ``delimited`` lines."""
    return "\t" if source.widths or source.delimiter == BLANKS else source.delimiter


def delimited(lines: pa.StringArray, source: Source) -> pa.StringArray:
    """Lines with one character between two values, where the source has none or many."""
    if source.widths:
        ends = [sum(source.widths[: n + 1]) for n in range(len(source.widths))]
        starts = [0, *ends[:-1]]
        parts = [pc.utf8_slice_codeunits(lines, start, end) for start, end in zip(starts, ends, strict=True)]
        return pc.binary_join_element_wise(*map(pc.utf8_trim_whitespace, parts), "\t")
    if source.delimiter == BLANKS:
        return pc.replace_substring_regex(pc.ascii_trim_whitespace(lines), "[ \t]+", "\t")
    return lines


def header_names(line: str, delimiter: str) -> list[str]:
    """Column names of a header line, without blanks around them."""
    names = next(csv.reader([line], delimiter=delimiter, quotechar=QUOTE), [])
    return [name.strip() for name in names]


def csv_rows(
    lines: pa.StringArray,
    valid: pa.BooleanArray | None,
    names: Sequence[str],
    positions: dict[str, int],
    delimiter: str,
) -> RawRows:
    """Split lines into the wanted columns.

    Args:
        valid: the lines that are text in the file's encoding; None: all.
        names: all columns of the file, in order.
        positions: wanted raw column -> its position among ``names``.
    """
    if not holds(lines, QUOTE):
        texts, ragged = _split(lines, len(names), positions, delimiter)
        unbalanced = None
    else:
        texts, ragged = _split_quoted(lines, pc.match_substring(lines, QUOTE), len(names), positions, delimiter)
        unbalanced = pc.equal(pc.bit_wise_and(pc.count_substring(lines, QUOTE), 1), 1)
    problems = line_problems(lines, valid)
    if unbalanced is not None:
        problems.append(("unbalanced_quote", unbalanced))
    problems.append(("ragged_row", ragged))
    problem = first_of(problems, len(lines))
    if problem.null_count < len(problem):
        whole = pc.is_null(problem)
        texts = {name: pc.if_else(whole, values, None) for name, values in texts.items()}
    return RawRows(texts=texts, problem=problem, lines=lines)


def rows_of_lines(blocks: Iterable[Lines]) -> Iterator[Lines]:
    """Join lines whose quoted value goes on in the next line.

    A quote that is never closed makes one row of the rest of the file.
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
        yield pa.array(["\n".join(held)], pa.string()), pa.array([held_valid])


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
