"""The progress bar of `preprocess`."""

import types

import pytest

from jobs.support import progress
from pipeline.places import Places


@pytest.mark.parametrize(("number", "said"), [(0, "0 documents, "), (1, "1 document, "), (1234, "1,234 documents, ")])
def test_documents_are_counted_in_the_right_number(monkeypatch, tmp_path, number, said):
    part = types.SimpleNamespace(read_bytes=10, text_bytes=10, num_documents=number)
    monkeypatch.setattr(progress, "read_finished", lambda *_: part)
    places = Places(str(tmp_path / "out"), str(tmp_path / "work"))
    (tmp_path / "work/parts").mkdir(parents=True)
    with progress.JobProgress(places, total_bytes=10) as bar:
        (tmp_path / "work/parts/0.part").touch()
    assert bar.bar.postfix.startswith(said)
