"""Fields, attributes and declared features -> the manifest of aggregates."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from gur_spark.features.declare.manifest import ID_UNIT, AttributeField, Column, LogFields, Manifest, NumericField
from gur_spark.features.declare.plan import plan
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
        features: declared features, then pivots with their values.
        logs: fields of each log of events, where there are several logs.
        attributes: attributes of users, from logs of attributes.

    Raises:
        ValueError: a declaration does not fit, or two columns would have one name.
    """
    columns = [
        Column(name="user_id", dtype=user_id_type, unit="", meaning="the user", statistic="key"),
        Column(name="as_of", dtype="date", unit="", meaning="the UTC date the row is for", statistic="key"),
        *plan(windows, numeric, categorical, features, logs).columns,
        *map(_attribute, attributes),
    ]
    names = [column.name for column in columns]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(
            f"two aggregate columns would be named '{twice[0]}'; rename a field, or name the feature or the pivot"
        )
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
