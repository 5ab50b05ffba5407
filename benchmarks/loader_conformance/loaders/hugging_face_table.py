"""Hugging Face datasets: a table whose rows are shuffled before it becomes iterable, so no rows are in a buffer.

https://huggingface.co/docs/datasets/about_mapstyle_vs_iterable and https://huggingface.co/docs/datasets/stream, "Save a
dataset checkpoint and resume iteration": the state is exact unless `IterableDataset.shuffle` is used. Hence
`Dataset.shuffle` with a seed for each epoch, then `to_iterable_dataset(num_shards=...)`, `split_dataset_by_node` and
`StatefulDataLoader`. Mixtures: `interleave_datasets(probabilities=...)`.
"""

from typing import Any

from loader_conformance.loaders.hugging_face import LACKS, NUM_FILES, PACKAGES, StatefulSession, files_of, write

__all__ = ["LACKS", "PACKAGES", "Session", "write"]


class Session(StatefulSession):
    def data(self, epoch: int) -> Any:
        from datasets import Dataset, interleave_datasets

        sets = [
            Dataset.from_parquet(files_of(folder), cache_dir=f"{folder}-cache")
            .shuffle(seed=self.setting.seed + epoch)
            .to_iterable_dataset(num_shards=NUM_FILES)
            for folder in self.setting.folders
        ]
        if len(sets) == 1:
            return sets[0]
        return interleave_datasets(sets, probabilities=list(self.setting.shares), seed=self.setting.seed)
