"""Serving: snapshots are scored by a version, and its rows are checked and published."""
