"""Events -> snapshots of aggregates, sequences and interactions: immutable folders, named in ``snapshots``."""
