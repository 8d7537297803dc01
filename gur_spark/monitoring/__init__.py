"""Monitoring: how the inputs and embeddings of a date differ from those before, and how fresh they are.

``features``, ``sequences``, ``embeddings`` and ``freshness`` measure; ``findings`` judges the measurements by the
thresholds of ``gur_spark.config.monitoring``; ``monitor`` does all of it for a date and writes the table ``drift``;
``page`` and ``plots`` show the result.
"""
