"""How today differs from what the model knows: inputs, embeddings, and how fresh both are.

``measures`` compares two samples in numbers (publishing's gates ask them too); ``features``, ``embeddings`` and
``freshness`` say what is measured of each; ``findings`` judges it by the thresholds of ``settings``; ``monitor`` does
all of it for a date and keeps it in ``drift``; ``page`` and ``plots`` show it.
"""
