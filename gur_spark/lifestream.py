"""What a pytorch-lifestream script needs of GUR, in one import (extra ``sequences``)."""

from gur_spark.batches.sequences import GURDataset, GURIterableDataset
from gur_spark.models.sequence_door import AutoEncoderSeqEncoder
from gur_spark.models.sequence_module import GURModule

__all__ = ["AutoEncoderSeqEncoder", "GURDataset", "GURIterableDataset", "GURModule"]
