"""Indexing tars that others wrote where they lie."""
