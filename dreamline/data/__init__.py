"""The sample contract, batches and the reader."""
