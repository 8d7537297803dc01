"""What the embeddings know, beside raw windows, PCA, a random encoder, hand-made statistics and CoLES.

``settings`` says what is asked. ``labels`` makes the answers with Spark; ``features`` and ``sequence_baselines`` make
what the embedding is compared with; ``probe`` fits small models on each, for the questions in ``tasks``, and measures
them over splits (``pooling``, ``bootstrap``) and ``segments``; ``report``, ``plots`` and ``page`` show the result.
"""
