"""The shipped sample is small, clean, and what its README says."""

import json
import re
from pathlib import Path

SAMPLE = Path(__file__).parent.parent.parent / "jobs" / "sample"


def documents():
    english = [json.loads(line)["text"] for line in (SAMPLE / "en.jsonl").read_text("utf-8").splitlines()]
    chinese = (SAMPLE / "zh.txt").read_text("utf-8").strip().split("\n\n")
    return english, chinese


def test_the_sample_is_under_two_megabytes_and_half_of_it_chinese():
    english, chinese = (sum(len(text.encode()) for text in texts) for texts in documents())
    assert sum(path.stat().st_size for path in SAMPLE.iterdir()) < 2_000_000
    assert 0.9 < english / chinese < 1.1


def test_there_are_enough_documents_and_none_is_long_or_twice_there():
    for texts in documents():
        assert len(texts) >= 100
        assert len(set(texts)) == len(texts)
        assert all(500 < len(text.encode()) < 10_000 for text in texts)


def test_the_text_holds_no_debris_of_markup_or_conversion():
    english, chinese = documents()
    assert not re.search(r"[<>{}\[\]|_^~\\\ufffd\u00ad\u0080-\u009f]", "".join(english + chinese))
    assert not re.search(r"[A-Za-z0-9?□]", "".join(chinese))


def test_the_readme_counts_the_documents():
    english, chinese = documents()
    rows = re.findall(r"^\| `[^|]*\| (\d+) \|", (SAMPLE / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sum(map(int, rows[:3])) == len(english) and int(rows[3]) == len(chinese)
