"""Model versions: their artefacts and table, and how the space of one lies in that of another."""
