"""Plan of a snapshot of aggregates: the operations that make its columns."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gur_spark.errors import nearest
from gur_spark.features.declare.manifest import Column, LogFields, Manifest, NumericField
from gur_spark.features.declare.pivots import Pivoted, PivotValue
from gur_spark.features.declare.spec import NUMERIC_STATISTICS, Aggregation, Chosen, FieldKind, aggregation
from gur_spark.features.declare.windows import DAY_HOURS, Window, longest
from gur_spark.features.operations import Derived, Operation, OutputColumn, find
from gur_spark.features.states.base import ValueColumn

_STANDARD: Mapping[FieldKind, Sequence[str]] = {
    "events": ("events", "active_days", "recency", "tenure"),
    "numeric": NUMERIC_STATISTICS,
    "categorical": ("distinct", "ids", "histogram"),
}
"""Operations that every pipeline has, on the events and on each field, in the windows of ``aggregates.windows``."""


@dataclass(frozen=True)
class Planned:
    """One operation of an aggregation, with the windows that it makes columns for."""

    aggregation: Aggregation
    operation: Operation
    windows: Sequence[Window]
    value: str
    """Name of the field's values, such as ``log(amount)``."""
    where: str | None
    """Condition on its events: the declared one, and that they are of a log which has its fields."""
    place: str
    """Place of the declaration in ``aggregates``, such as ``features.0``."""

    @property
    def pivot_values(self) -> Sequence[PivotValue] | None:
        """The values of a pivot, each of which has columns; None: it is no pivot."""
        return self.aggregation.values if isinstance(self.aggregation, Pivoted) else None

    def name(self, output: OutputColumn, window: Window, value: PivotValue | None = None) -> str:
        """Name of a column."""
        ends = "" if self.operation.one_column else window.name
        parts = (self.aggregation.subject, output.name, value and value.name, ends)
        return "_".join(part for part in parts if part)

    def columns(self) -> Iterator[Column]:
        values = (None,) if self.pivot_values is None else self.pivot_values
        for output in self.operation.outputs():
            for window in self.windows:
                for value in values:
                    yield self._column(output, window, value)

    def _column(self, output: OutputColumn, window: Window, value: PivotValue | None) -> Column:
        a = self.aggregation
        conditions = [self.where, value and f"{a.by} is '{value.value}'"]
        condition = " and ".join(c for c in conditions if c)
        within = window.meaning + (f" where {condition}" if condition else "")
        words = {"field": a.field, "value": self.value, "subject": a.subject, "within": within}
        null, meaning = output.null.format(**words), output.meaning.format(**words)
        null = "never" if output.null == "never" else f"{null} {within}"
        several = a.by and not value
        if several:
            meaning, null = f"{meaning}, for each of {a.by}_ids", "never" if null == "never" else f"an element: {null}"
        return Column(
            name=self.name(output, window, value),
            dtype=_LISTS[output.dtype] if several else output.dtype,
            unit=output.unit.format(**words),
            meaning=meaning,
            statistic=output.name,
            field=a.field,
            window_days=window.days,
            window_hours=window.hours,
            before_days=window.before,
            before_hours=window.before_hours,
            where=self.where,
            by=a.by,
            value=value.value if value else None,
            null=null,
        )


_LISTS: Mapping[str, Literal["array<int>", "array<double>"]] = {"long": "array<int>", "double": "array<double>"}


@dataclass(frozen=True)
class Quotient:
    """A column that is the quotient of two others."""

    name: str
    over: tuple[str, str]
    days: tuple[float, float]
    """Divisor of each: the days of its window for a trend, otherwise 1."""
    statistic: str
    """Statistic of the column, such as ``sum_over``."""

    def column(self, planned: Planned, longer: Window) -> Column:
        first, second = (n if d == 1 else f"{n} / {d}" for n, d in zip(self.over, self.days, strict=True))
        return Column(
            name=self.name,
            dtype="double",
            unit="",
            meaning=f"({first}) / ({second})",
            statistic=self.statistic,
            field=planned.aggregation.field,
            window_days=longer.days,
            window_hours=longer.hours,
            where=planned.where,
            null=f"{self.over[1]} is zero or null, or {self.over[0]} null",
        )


@dataclass(frozen=True)
class Plan:
    """Operations, quotients and columns of a snapshot."""

    planned: Sequence[Planned]
    quotients: Sequence[Quotient]
    columns: Sequence[Column]
    conditions: Mapping[str, str | None]
    """Field -> condition that an event is of a log which has the field; None where every log has it."""

    def derived(self) -> dict[str, Derived]:
        """Columns that Spark computes for each event, by name."""
        made: dict[str, Derived] = {}
        for p in self.planned:
            made |= p.operation.derived()
            if p.where:
                made[self.where_column(p.where)] = Derived(f"if({p.where}, 1, 0)", bits=1)
        return made

    def where_column(self, where: str) -> str:
        """Name of the column that tells whether an event satisfies a condition."""
        conditions = list(dict.fromkeys(p.where for p in self.planned if p.where))
        return f"_where_{conditions.index(where)}"

    def ids_counted(self, where: str | None, by: str | None) -> list[int] | None:
        """The ids of a category that count where events with a condition are counted per id; None: all of them."""
        pivots = [p.pivot_values for p in self.planned if (p.where, p.aggregation.by) == (where, by)]
        if by is None or None in pivots:
            return None
        return sorted({value.id for values in pivots for value in values or ()})


def plan(
    windows: Sequence[int | str],
    numeric: Sequence[NumericField],
    categorical: Sequence[str],
    features: Sequence[Aggregation] = (),
    logs: Sequence[LogFields] = (),
) -> Plan:
    """Plan the standard columns and those of declared features.

    Raises:
        ValueError: a declaration does not fit; the message begins with its place, such as ``features.0``.
    """
    standard = [aggregation(None, *_STANDARD["events"])]
    standard += [aggregation(field.name, *_STANDARD["numeric"]) for field in numeric]
    standard += [aggregation(name, *_STANDARD["categorical"]) for name in categorical]
    fields = _Fields(tuple(map(Window.of, windows)), {field.name: field for field in numeric}, list(categorical), logs)
    planned: list[Planned] = []
    quotients: list[Quotient] = []
    columns: list[Column] = []
    for place, declared in [*(("standard features", feature) for feature in standard), *places(features)]:
        try:
            whole = fields.complete(declared)
            made = [fields.planned(whole, chosen, place) for chosen in whole.operations]
            over = [(p, q, longer) for p in made for q, longer in _quotients(p)]
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
        planned, quotients = [*planned, *made], [*quotients, *(q for _, q, _ in over)]
        columns += [column for p in made for column in p.columns()]
        columns += [q.column(p, longer) for p, q, longer in over]
    return Plan(planned, quotients, columns, {name: fields.condition(name) for name in fields.names})


def plan_of(manifest: Manifest) -> Plan:
    """The plan that a manifest was made from."""
    return plan(manifest.windows, manifest.numeric, manifest.categorical, manifest.features, manifest.logs)


def places(features: Sequence[Aggregation]) -> Iterator[tuple[str, Aggregation]]:
    """Each declaration with its place in ``aggregates``."""
    numbers = Counter[str]()
    for declared in features:
        kind = "pivots" if isinstance(declared, Pivoted) else "features"
        yield f"{kind}.{numbers[kind]}", declared
        numbers[kind] += 1


@dataclass(frozen=True)
class _Fields:
    """Fields and logs that an aggregation may name."""

    standard: tuple[Window, ...]
    numeric: Mapping[str, NumericField]
    categorical: Sequence[str]
    logs: Sequence[LogFields]

    @property
    def names(self) -> list[str]:
        return [*self.numeric, *self.categorical]

    def condition(self, *names: str | None) -> str | None:
        """Condition that an event is of a log with these fields; None where every log has them."""
        wanted = [name for name in names if name]
        having = [log.name for log in self.logs if set(wanted) <= set(log.fields)]
        if len(having) == len(self.logs):
            return None
        if not having:
            raise ValueError(f"no log has events with both {' and '.join(map(repr, wanted))}")
        return f"source IN ({', '.join(map(repr, having))})"

    def complete(self, aggregation: Aggregation) -> Aggregation:
        """The aggregation with its windows filled in, and with ``ids`` where ``histogram`` needs it."""
        if aggregation.by and aggregation.by not in self.categorical:
            known = list(self.categorical)
            raise ValueError(
                f"by: no categorical field '{aggregation.by}'; available: {known}{nearest(aggregation.by, known)}"
            )
        numbers = list(self.numeric)
        if isinstance(aggregation, Pivoted) and aggregation.field not in numbers:
            near = nearest(aggregation.field or "", numbers)
            raise ValueError(f"of: no numeric field '{aggregation.field}'; available: {numbers}{near}")
        operations = list(aggregation.operations)
        names = [chosen.name for chosen in operations]
        if "histogram" in names and "ids" not in names:
            operations.insert(names.index("histogram"), Chosen(name="ids"))
        return aggregation.model_copy(
            update={"operations": tuple(operations), "windows": aggregation.windows or self.standard}
        )

    def planned(self, aggregation: Aggregation, chosen: Chosen, place: str) -> Planned:
        kind = self._kind(aggregation.field)
        field = self.numeric.get(aggregation.field or "")
        try:
            made = find(kind, chosen.name)(ValueColumn(aggregation.field, field), chosen.parameter)
            windows = made.windows(aggregation.windows)
        except ValueError as error:
            prefix = "" if str(error).startswith("no operation") else f"operation '{chosen.name}' "
            raise ValueError(f"{prefix}{error}") from error
        crossed = _crossed(aggregation)
        if crossed and (not made.one_number or made.one_column):
            raise ValueError(f"operation '{chosen.name}' is not one number per window: it cannot take {crossed}")
        transformed = field is not None and field.transform != "none"
        value = f"{field.transform}({field.name})" if field and transformed else aggregation.field or "events"
        conditions = [self.condition(aggregation.field, aggregation.by), aggregation.where]
        where = " AND ".join(f"({c})" if all(conditions) else c for c in conditions if c) or None
        return Planned(aggregation, made, windows, value, where, place)

    def _kind(self, field: str | None) -> FieldKind:
        if field is None:
            return "events"
        if field in self.numeric:
            return "numeric"
        if field in self.categorical:
            return "categorical"
        known = self.names
        raise ValueError(f"no field '{field}'; available: {known}{nearest(field, known)}")


def _crossed(aggregation: Aggregation) -> str:
    """The part of a declaration that needs operations of one number per window; empty: there is none."""
    if aggregation.by:
        return "a pivot" if isinstance(aggregation, Pivoted) else "by"
    return "ratios and trends" if aggregation.ratios or aggregation.trends else ""


def _quotients(planned: Planned) -> Iterator[tuple[Quotient, Window]]:
    """Ratios and trends of an operation, each with its longer window."""
    a = planned.aggregation
    for pair in (*a.ratios, *a.trends):
        for length in pair:
            if Window.of(length) not in planned.windows:
                raise ValueError(f"window {length} of {list(pair)} is not among its windows")
    for output in planned.operation.outputs():
        for pairs, word, rated in ((a.ratios, "over", False), (a.trends, "rate_over", True)):
            for first, second in (map(Window.of, pair) for pair in pairs):
                names = planned.name(output, first), planned.name(output, second)
                name = f"{names[0]}_{word}_{second.name}"
                divided = (_days(first), _days(second)) if rated else (1, 1)
                yield Quotient(name, names, divided, f"{output.name}_{word}"), longest([first, second])


def _days(window: Window) -> float:
    """Days of a window, as a whole number where it has whole days."""
    assert window.days is not None
    return window.days + window.hours / DAY_HOURS if window.hours else window.days
