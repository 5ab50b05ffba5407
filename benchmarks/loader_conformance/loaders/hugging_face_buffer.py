"""Hugging Face datasets: Parquet files as a stream, shuffled in a buffer.

https://huggingface.co/docs/datasets/stream: `IterableDataset.shuffle(seed, buffer_size)`, `set_epoch`,
`split_dataset_by_node` and `StatefulDataLoader`. The same page warns that the rows in the buffer are lost when a training
resumes. Mixtures: `interleave_datasets(probabilities=...)`.
"""

from typing import Any

from loader_conformance.loaders.hugging_face import LACKS, PACKAGES, StatefulSession, files_of, write

__all__ = ["LACKS", "PACKAGES", "Session", "write"]
BUFFER_SIZE = 100


class Session(StatefulSession):
    def data(self, epoch: int) -> Any:
        from datasets import interleave_datasets, load_dataset

        sets = [
            load_dataset("parquet", data_files=files_of(folder), split="train", streaming=True)
            for folder in self.setting.folders
        ]
        mixed = {"probabilities": list(self.setting.shares), "seed": self.setting.seed}
        data = sets[0] if len(sets) == 1 else interleave_datasets(sets, **mixed)
        data = data.shuffle(seed=self.setting.seed, buffer_size=BUFFER_SIZE)
        data.set_epoch(epoch)
        return data
