"""Readers of the places where pictures, captions and edits lie: tables, archives, folders, and the scene world."""
