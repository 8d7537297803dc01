"""Evaluation: how much embeddings know about users, beside baselines made from the same data.

The baselines are raw windows, PCA, an untrained encoder, hand-made statistics and CoLES. ``labels`` makes the answers
with Spark. ``features`` and ``baselines`` make the representations that the embedding is compared with. ``probe`` fits
small models on each representation for the questions in ``questions``, and measures them over splits (``pooling``) and
``segments``. ``report``, ``plots`` and ``page`` show the result.
"""
