import numpy as np
import pyarrow as pa
import pytest

from bertloom.arrow_texts import text_lengths


@pytest.mark.parametrize("more", [0, 1, 3, 16])
@pytest.mark.parametrize("offset", [0, 2])
def test_lengths_of_views_are_read_from_a_buffer_of_any_size(more, offset):
    texts = ["a", None, "four", "a text that is longer than twelve bytes", ""]
    column = pa.array(texts, pa.string_view())
    valid, views, *values = column.buffers()
    longer = pa.py_buffer(views.to_pybytes() + bytes(more))
    column = pa.Array.from_buffers(pa.string_view(), len(texts), [valid, longer, *values])[offset:]
    column.validate(full=True)
    assert np.array_equal(text_lengths(column), [len(text or "") for text in texts[offset:]])
