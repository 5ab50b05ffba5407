"""pair: two texts together have a class."""

from dataclasses import dataclass

from model.tasks.sequence import SequenceTask


@dataclass(frozen=True, kw_only=True)
class PairTask(SequenceTask):
    """A class for each pair of texts."""

    name = "pair"
    text_forms = [("text_a", "text_b")]
    has_two_segments = True
    baselines = ("majority", "tf-idf", "word overlap")
