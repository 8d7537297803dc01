"""Tables that kinds of models write: embeddings, recommendations, item embeddings."""
