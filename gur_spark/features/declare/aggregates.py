"""Fields, attributes and declared features -> the manifest of aggregates."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Literal

from gur_spark.features.declare.manifest import ID_UNIT, AttributeField, Column, LogFields, Manifest, NumericField
from gur_spark.features.declare.pivots import Pivoted
from gur_spark.features.declare.plan import Plan, places, plan
from gur_spark.features.declare.spec import Aggregation


def make_manifest(
    user_id_type: Literal["long", "string"],
    windows: Sequence[int | str],
    numeric: Sequence[NumericField],
    categorical: Sequence[str],
    features: Sequence[Aggregation] = (),
    logs: Sequence[LogFields] = (),
    attributes: Sequence[AttributeField] = (),
) -> Manifest:
    """Make the manifest of a pipeline's aggregates. Its columns are in the order of the Parquet files.

    Args:
        windows: ascending lengths, each in days or a text such as ``6h``.
        features: declared features, then pivots with their values. Where columns of a pivot would have the name of
            another column, the value's name takes its id.
        logs: fields of each log of events, where there are several logs.
        attributes: attributes of users, from logs of attributes.

    Raises:
        ValueError: a declaration does not fit, or two columns would have one name.
    """
    keys = [
        Column(name="user_id", dtype=user_id_type, unit="", meaning="the user", statistic="key"),
        Column(name="as_of", dtype="date", unit="", meaning="the UTC date the row is for", statistic="key"),
    ]
    named, features = None, list(features)
    while named != features:
        named = features
        planned = plan(windows, numeric, categorical, named, logs)
        columns = [*keys, *planned.columns, *map(_attribute, attributes)]
        features = _apart(named, planned, columns)
    return Manifest(
        user_id_type=user_id_type,
        windows=tuple(windows),
        numeric=tuple(numeric),
        categorical=tuple(categorical),
        features=tuple(features),
        logs=tuple(logs),
        attributes=tuple(attributes),
        columns=tuple(columns),
    )


def _apart(features: list[Aggregation], planned: Plan, columns: Sequence[Column]) -> list[Aggregation]:
    """The features, with ids in the names of those values of pivots that have a column of another's name.

    Raises:
        ValueError: two columns have one name, and ids cannot tell them apart.
    """
    twice = [name for name, count in Counter(column.name for column in columns).items() if count > 1]
    if not twice:
        return features
    of_pivots = [(p.place, column) for p in planned.planned if p.pivot_values for column in p.columns()]
    alike = dict.fromkeys((place, column.value) for place, column in of_pivots if column.name in twice)
    made = [_numbered(feature, place, alike) for place, feature in places(features)]
    if made == features:
        place = f"{list(alike)[-1][0]}: " if alike else ""
        raise ValueError(
            f"{place}two aggregate columns would be named '{twice[0]}'; rename a field, or name the feature or the "
            "pivot"
        )
    return made


def _numbered(feature: Aggregation, place: str, alike: Collection[tuple[str, str | None]]) -> Aggregation:
    """The feature; of a pivot, values that are among ``alike`` have their ids in their names."""
    if not isinstance(feature, Pivoted):
        return feature
    values = (value.numbered() if (place, value.value) in alike else value for value in feature.values)
    return feature.model_copy(update={"values": tuple(values)})


def _attribute(field: AttributeField) -> Column:
    if field.separator:
        return Column(
            name=field.name,
            dtype="array<int>",
            unit=ID_UNIT,
            meaning=f"each {field.name} of the newest row of {field.log} before as_of, ascending; empty: not known",
            statistic="attribute",
            field=field.name,
        )
    transformed = field.numeric is not None and field.numeric.transform != "none"
    value = f"{field.numeric.transform}({field.name})" if field.numeric and transformed else field.name
    return Column(
        name=field.name,
        dtype="double" if field.numeric else "long",
        unit=value if field.numeric else ID_UNIT,
        meaning=f"{value} of the newest row of {field.log} before as_of",
        statistic="attribute",
        field=field.name,
        null="not known" if field.numeric else "never",
    )
