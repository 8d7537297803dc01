"""Every operation that can be declared, by the kind of field it works on."""

from gur_spark.features.operations import categorical, events, numeric, ordered
from gur_spark.features.operations.base import REGISTRY, Derived, Operation, Output, find, operation

__all__ = [
    "REGISTRY",
    "Derived",
    "Operation",
    "Output",
    "categorical",
    "events",
    "find",
    "numeric",
    "operation",
    "ordered",
]
