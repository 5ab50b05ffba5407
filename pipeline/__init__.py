"""Raw text to shards: an Apache Beam pipeline of array kernels. It never imports torch, `model` or `jobs`."""
