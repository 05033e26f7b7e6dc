"""Data sets from sources: rows are read, fetched, decoded and judged in parallel, then planned and written as shards."""
