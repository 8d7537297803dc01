"""What reads embeddings: training sets, neighbours, files, and an example model."""
