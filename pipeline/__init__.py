"""Raw text to shards: an Apache Beam pipeline of array kernels. It never imports torch, `model` or `jobs`.

Imports point one way. A module or package of this list imports only from the lines above its own (and from `bertloom`):

    options, places, storage_flags
    text
    inputs
    vocabulary, tokens
    tokenizer
    examples
    job
    stages
    preprocess
    output
    local
    checks
"""
