"""Consumers of embeddings: training sets, nearest users, exports to files, and an example model."""
