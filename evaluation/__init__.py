"""Benchmarks: what was asked, what came out, and how sure the score is."""
