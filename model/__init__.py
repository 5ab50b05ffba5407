"""BERT in PyTorch: the encoder, the loader of shards, the training step, checkpoints, fine-tuning. No Beam.

Imports point one way, from the right to the left:

    distributed, normalization, packing < encoder < bert < encoders < optimizer, schedule < heads < compiling
    < loading < step < runs < hub < tasks < inference

`encoder` is the interface, `bert` implements it, `encoders` is the registry; nothing after it names an encoder.
"""
