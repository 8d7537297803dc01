"""Model versions: their artefacts, the table ``models``, and the switches of ``published``."""
