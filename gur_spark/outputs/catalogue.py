"""The outputs, found by name."""

from gur_spark.outputs.embeddings import EMBEDDINGS
from gur_spark.outputs.output import Output
from gur_spark.outputs.recommendations import ITEM_EMBEDDINGS, RECOMMENDATIONS

OUTPUTS = {output.name: output for output in (EMBEDDINGS, RECOMMENDATIONS, ITEM_EMBEDDINGS)}


def find_output(name: str) -> Output:
    """Return the output of this name."""
    return OUTPUTS[name]
