"""The chart of the sources of --inputs."""

from jobs.preprocess import PreprocessConfig, make_all
from pipeline.options import compose
from tests.jobs.browser.page_reader import Reader
from tests.jobs.corpus import documents, write, write_vocabulary


def test_the_charts_show_each_source_of_the_job(tmp_path):
    texts = documents(60)
    write(tmp_path / "a/one.txt", texts[:40])
    write(tmp_path / "b.txt", texts[30:])
    (tmp_path / "corpus.toml").write_text(f'[[input]]\npath = "{tmp_path}/a"\n[[input]]\npath = "{tmp_path}/b.txt"\n')
    options = {"max_seq_length": (32,), "dupe_factor": 1, "validation_fraction": 0.0}
    places = {"vocab": str(write_vocabulary(tmp_path / "vocab.txt")), "out": f"{tmp_path}/out"}
    make_all(compose(PreprocessConfig, inputs=f"{tmp_path}/corpus.toml", **places, **options))
    page = Reader(tmp_path / "out").get("d0/charts")
    rows = {row[0]: row[1:] for row in page.rows if row and row[0] in ("a", "b")}
    assert rows["a"][-3:] == ["39", "1", "0"] and rows["b"][-3:] == ["20", "0", "10"]
    assert "Tokens by source of --inputs" in page.text
