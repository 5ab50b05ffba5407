"""BERT from raw text: preprocessing with Apache Beam, pretraining with PyTorch, and what to do with the model.

    >>> import bertloom
    >>> bertloom.load("tuned").predict(["a text"])

These names are loaded when they are first used, so importing the package loads neither torch nor Beam. The modules of the
package hold what preprocessing and training share.
"""

import os
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertloom.members import read_shard
    from model.batch import PackedBatch
    from model.inference.embed import Embedder, embed
    from model.inference.predict import TaskPredictor, WordPredictor, load
    from model.inference.score import log_likelihoods
    from model.loading.data import DataSet
    from model.loading.shard_dataset import ShardDataset
    from model.loading.transformers_batch import collate
    from model.loading.webdataset_pipeline import example_pipeline, member_pipeline

__all__ = [
    "DataSet",
    "Embedder",
    "PackedBatch",
    "ShardDataset",
    "TaskPredictor",
    "WordPredictor",
    "collate",
    "embed",
    "example_pipeline",
    "load",
    "log_likelihoods",
    "member_pipeline",
    "read_shard",
]

# Threads that wait for each other sleep instead of spinning. This costs nothing on idle cores; on shared cores a step of
# the tiny model became 2 to 15 times faster. torch reads the variable when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

_MODULES = {
    "DataSet": "model.loading.data",
    "Embedder": "model.inference.embed",
    "PackedBatch": "model.batch",
    "ShardDataset": "model.loading.shard_dataset",
    "TaskPredictor": "model.inference.predict",
    "WordPredictor": "model.inference.predict",
    "collate": "model.loading.transformers_batch",
    "embed": "model.inference.embed",
    "example_pipeline": "model.loading.webdataset_pipeline",
    "load": "model.inference.predict",
    "log_likelihoods": "model.inference.score",
    "member_pipeline": "model.loading.webdataset_pipeline",
    "read_shard": "bertloom.members",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; its names are {', '.join(__all__)}")
    _check_not_hidden(_MODULES[name].partition(".")[0])
    try:
        value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    except ModuleNotFoundError as error:
        from bertloom.extras import extra_of, needs

        if extra := extra_of(error):
            raise ImportError(needs(f"bertloom.{name}", extra)) from None
        raise
    return value


def _check_not_hidden(package: str) -> None:
    """Raise an error if a file of the user's has the name of one of our packages and is found before it."""
    ours = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), package, "__init__.py")
    found = find_spec(package)
    if found and found.origin and os.path.realpath(found.origin) != os.path.realpath(ours):
        raise ImportError(f"{found.origin} hides {ours}, which bertloom needs: rename it or move it")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
