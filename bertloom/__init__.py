"""What both halves share: storage, locks, keyed draws, manifests, the shard reader. No torch, no Beam."""
