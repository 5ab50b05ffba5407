"""The page of rejects: exact numbers by reason, and every line of the log on a page of its reason."""

import gzip
import hashlib
import json
import random
import shutil

import pytest

from jobs.browser import reject_log
from jobs.browser.reject_log import PAGE, RejectLog
from pipeline.dataset import read_rejects
from tests.jobs.browser.page_reader import Reader

LOG = "rejects/rejects.jsonl.gz"
REASONS = ("empty-text", "not-json", "no-text-field")


@pytest.fixture(scope="module")
def reader(left_out):
    return Reader(left_out)


def test_the_numbers_of_rejects_are_those_of_the_log(left_out, reader):
    page = reader.get("d0/rejects")
    log = list(read_rejects(str(left_out), LOG))
    for reason in REASONS:
        number = sum(reject["reason"] == reason for reject in log)
        assert [row for row in page.rows if row[0] == reason][0][1] == f"{number:,}"
        assert f"/token/d0/rejects?reason={reason}" in page.links
    assert "144 of 404 records" in page.text
    assert ["b.jsonl", "144", "50"] in page.rows


@pytest.mark.parametrize("reason", REASONS)
def test_the_pages_of_a_reason_show_each_of_its_rejects_once_with_its_place(left_out, reader, reason):
    log = [reject for reject in read_rejects(str(left_out), LOG) if reject["reason"] == reason]
    shown, path = [], f"d0/rejects?reason={reason}"
    while path:
        page = reader.whole(path)
        shown.append(page.text)
        path = next((link for link in page.links if f"page={len(shown) + 1}" in link), None)
    assert len(shown) == -(-len(log) // PAGE)
    for i, reject in enumerate(log):
        text = shown[i // PAGE]
        assert f"{reject['source']}, byte {reject['position']:,}" in text and reject["text"] in text
        assert reject["detail"] in text
    assert f"Rejects 1 to {min(PAGE, len(log))} of {len(log)}" in shown[0]


def test_a_text_of_the_log_is_text_on_the_page(reader):
    assert "{broken &lt;b&gt;line 0" in reader.whole("d0/rejects?reason=not-json").source


def test_a_reason_or_page_that_is_not_there_is_a_clear_error(reader):
    assert "no rejects with this reason" in reader.get("d0/rejects?reason=<i>", 400).text
    assert "page=4: expected a whole number from 1 to 3" in reader.get("d0/rejects?reason=not-json&page=4", 400).text


def test_the_page_is_in_chinese_for_a_chinese_browser(reader):
    page = reader.get("d0/rejects", language="zh-CN")
    assert "404 条记录中有 144 条未采用" in page.text and "按原因统计" in page.text


def test_a_damaged_log_shows_what_verify_prints(left_out, tmp_path):
    copy = shutil.copytree(left_out, tmp_path / "copy")
    content = bytearray((copy / LOG).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / LOG).write_bytes(content)
    for _ in range(2):
        page = Reader(copy).get("d0/rejects?reason=not-json", 400)
        assert f"{LOG}: its sha256 differs from the one in manifest.json; `bertloom verify" in page.text


def write_log(folder, reasons, member_lines):
    """Write a log whose line i has the reason `reasons[i]` and the position i. Return the manifest."""
    lines = [
        json.dumps({"source": "a", "position": i, "reason": reason, "detail": '"reason": "x"', "text": f"文 {i}"})
        for i, reason in enumerate(reasons)
    ]
    (folder / "rejects").mkdir()
    members = [lines[i : i + member_lines] for i in range(0, len(lines), member_lines)]
    content = b"".join(gzip.compress("".join(f"{line}\n" for line in member).encode()) for member in members)
    (folder / LOG).write_bytes(content)
    counts = {reason: reasons.count(reason) for reason in set(reasons)}
    return {"files": {LOG: hashlib.sha256(content).hexdigest()}, "counters": {"rejected": counts}}


@pytest.mark.parametrize("seed", range(4))
def test_any_page_of_a_long_log_is_found_from_any_other(seed, tmp_path, monkeypatch):
    monkeypatch.setattr(reject_log, "PIECE", 100)
    monkeypatch.setattr(reject_log, "FIRST_STEP", 16)
    monkeypatch.setattr(reject_log, "MOST_PLACES", 8)
    draw = random.Random(seed)
    reasons = draw.choices(["often", "seldom", "一"], [90, 9, 1], k=3000)
    log = RejectLog(str(tmp_path), write_log(tmp_path, reasons, draw.randint(1, 900)))
    of_reason = {reason: [i for i, one in enumerate(reasons) if one == reason] for reason in set(reasons)}
    pages = [(reason, n) for reason, lines in of_reason.items() for n in range(-(-len(lines) // PAGE))]
    draw.shuffle(pages)
    for reason, number in pages:
        num_slices = 0
        while (page := log.page(reason, number, 0.0)).place:  # one piece in each slice
            num_slices += 1
        expected = of_reason[reason][number * PAGE : (number + 1) * PAGE]
        assert [reject["position"] for reject in page.rejects] == expected
        assert [reject["text"] for reject in page.rejects] == [f"文 {i}" for i in expected]


def test_a_log_that_ends_inside_a_member_or_holds_other_numbers_is_damaged(tmp_path):
    manifest = write_log(tmp_path, ["a"] * 100, 10)
    manifest["counters"]["rejected"]["a"] = 101
    with pytest.raises(ValueError, match="holds {'a': 100}, but manifest.json counts {'a': 101}"):
        RejectLog(str(tmp_path), manifest).page("a", 2, 9.0)
    content = (tmp_path / LOG).read_bytes()[:-5]
    (tmp_path / LOG).write_bytes(content)
    manifest["files"][LOG] = hashlib.sha256(content).hexdigest()
    for _ in range(2):
        with pytest.raises(ValueError, match="not a complete gzip file"):
            RejectLog(str(tmp_path), manifest).page("a", 2, 9.0)
