"""Pictures as files: headers, decoding, resizing, encoding, aspect buckets and perceptual hashes."""
