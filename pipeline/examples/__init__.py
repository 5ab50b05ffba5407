"""Sentences of a bucket to examples: pairs, masks, and the shards that hold them."""
