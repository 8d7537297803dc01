"""Snapshots -> a model version: training rows with what followed them, epochs, and the artefact."""
