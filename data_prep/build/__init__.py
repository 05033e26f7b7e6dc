"""Data sets: rows of sources are read, fetched, decoded and judged in parallel, then planned and written as shards."""
