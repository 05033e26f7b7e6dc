"""Ray jobs that build shards, manifests and encoded features."""
