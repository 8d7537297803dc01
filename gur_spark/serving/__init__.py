"""A version and a snapshot -> the embeddings that consumers read: scored, checked, published."""
