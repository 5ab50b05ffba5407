"""Short names for the types of arrays, and the type of token ids."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]


def id_type(vocabulary_size: int) -> np.dtype[Any]:
    """Return the type of the token ids of a vocabulary with this number of words."""
    return np.dtype(np.uint16 if vocabulary_size < 65536 else np.uint32)
