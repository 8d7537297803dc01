"""Events -> aggregate snapshots: which dates are made and from what, where they lie, and how a number came about."""
