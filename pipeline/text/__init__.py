"""A text to what can be learnt from: cleaned, cut into sentences, and turned into token ids."""
