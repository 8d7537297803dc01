"""Training: snapshots become a model version, through training inputs, epochs and the artefact."""
