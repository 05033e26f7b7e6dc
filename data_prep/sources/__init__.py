"""Readers of the places where pictures and edits lie."""

from data_prep.sources.scenes import SceneSource, Source
