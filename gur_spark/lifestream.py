"""One import for pytorch-lifestream scripts that use GUR (extra ``sequences``)."""

from gur_spark.batches.lifestream import GURDataset, GURIterableDataset
from gur_spark.models.gur.sequence_door import AutoEncoderSeqEncoder
from gur_spark.models.gur.sequence_module import GURModule

__all__ = ["AutoEncoderSeqEncoder", "GURDataset", "GURIterableDataset", "GURModule"]
