"""Single line breaks, as places where lines were wrapped or as ends of paragraphs."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.wrapping import shapes, wrap
from pipeline.inputs import streams
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.formats import plain_text
from pipeline.inputs.sources import Split
from pipeline.text import line_breaks, records
from pipeline.text.line_breaks import decide
from pipeline.text.records import join_text_lines, paragraphs
from tests.pipeline.reading import read_with, with_options

SAMPLE = Path(__file__).parents[2] / "jobs" / "sample"
PROSE = (
    "The Time Traveller (for so it will be convenient to speak of him) was expounding a recondite matter to us.",
    "His grey eyes shone and twinkled, and his usually pale face was flushed and animated. The fire burned brightly.",
)
PROSE_ZH = ("且说董卓字仲颖，陇西临洮人也，官拜河东太守，自来骄傲。当日怠慢了玄德，张飞性发，便欲杀之。",) * 2
CODE = "def lines(path):\n    with open(path) as file:\n        return file.read()\n\nfor line in lines(a):\n    print(line)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("breaks")


def found(text: str) -> str:
    return decide(paragraphs(text)[0], "auto")


@pytest.mark.parametrize(
    "text, expected",
    [
        pytest.param(wrap(PROSE[1], 60), "space", id="one wrapped paragraph"),
        pytest.param("\n\n".join(wrap(text, 60) for text in PROSE), "space", id="blank lines"),
        pytest.param("Chapter I\n\n" + wrap(PROSE[0], 72), "space", id="heading and blank line"),
        pytest.param("\n".join(wrap(text, 60) for text in PROSE), "space", id="no blank lines"),
        pytest.param(wrap(PROSE[1], 60).replace("\n", "\n   "), "space", id="indented"),
        pytest.param(wrap(PROSE[1], 60).replace("\n", "  \n"), "space", id="spaces at line ends"),
        pytest.param(wrap(PROSE[1], 60).upper(), "space", id="capitals"),
        pytest.param(wrap(PROSE[1], 60).lower(), "space", id="small letters"),
        pytest.param(wrap(PROSE_ZH[0], 40), "space", id="Chinese"),
        pytest.param("\n".join(PROSE_ZH[0][i : i + 24] for i in range(0, 45, 24)), "space", id="24 Chinese characters"),
        pytest.param("We would like to know how many of these there are and\nwhere.", "space", id="two lines"),
        pytest.param("\n".join(PROSE), "paragraph", id="two paragraphs"),
        pytest.param("\n".join(PROSE).upper(), "paragraph", id="two paragraphs of capitals"),
        pytest.param("\n".join(PROSE_ZH), "paragraph", id="two Chinese paragraphs"),
        pytest.param("Introduction\n" + PROSE[0], "paragraph", id="heading and paragraph"),
        pytest.param("第二回 张翼德怒鞭督邮\n" + PROSE_ZH[0], "paragraph", id="Chinese heading and paragraph"),
        pytest.param("\n\n".join([*PROSE, "Line one\nLine two"]), "paragraph", id="two short lines after paragraphs"),
        pytest.param("床前明月光，\n疑是地上霜。\n举头望明月，\n低头思故乡。", "paragraph", id="Chinese verse"),
        pytest.param(
            "感聖皇之化有燉煌都法師悟真上人來朝\n名出燉煌郡，身游日月宮。\n柳烟輕古塞，邊草靡春風。\n鼓舞千年聖，車書萬里同。",
            "paragraph",
            id="verse and title",
        ),
        pytest.param("Tyger Tyger, burning bright,\nIn the forests of the night;\nWhat hand", "paragraph", id="verse"),
        pytest.param("milk\nbread\nbutter\nsalted anchovies\ncheese", "paragraph", id="list"),
        pytest.param("name | age | city\nAnn | 31 | Rome\nBob | 4 | Oslo", "paragraph", id="table"),
        pytest.param(CODE, "paragraph", id="code"),
    ],
)
def test_a_document_decides_by_its_lines(text, expected):
    assert found(text) == expected


def test_what_the_user_decides_holds_for_every_document():
    for text in ("\n".join(PROSE), wrap(PROSE[0], 60)):
        raw, _ = paragraphs(text)
        assert decide(raw, "space") == "space" and decide(raw, "paragraph") == "paragraph"


def test_nearly_all_documents_of_the_sample_are_read_rightly_in_every_shape():
    """On larger corpora: benchmarks/results/line_breaks_en.md."""
    english = [json.loads(line)["text"].split("\n\n") for line in (SAMPLE / "en.jsonl").read_text("utf-8").splitlines()]
    chinese = [text.split("\n") for text in (SAMPLE / "zh.txt").read_text("utf-8").strip().split("\n\n")]
    for texts in (english[::4], chinese[::4]):
        for lines in texts:
            for shape, (text, expected) in shapes(lines).items():
                assert found(text) == expected, (shape, text)


def wrapped_by_twin(text: str) -> bool:
    """Try every column and add up what the lines say, for text without Chinese characters."""
    parts = [[line.strip(" ") for line in lines.split("\r")] for lines in text.split("\n")]
    lines = [line for part in parts for line in part]
    if sum(map(len, lines)) + len(lines) - 1 > 140 * len(lines):
        return False
    sums = []
    for column in range(30, 142):
        total = 0
        for line, following in (pair for part in parts for pair in zip(part, part[1:])):
            full = column < 141 and len(line) <= column < len(line) + 1 + len(following.split(" ")[0])
            if line[-1] in ".!?…:;\"'”’)]»*":
                total -= 1
            elif full and following[0].islower():
                total += 32
            elif full and len(parts) > 1:
                total += 16
            else:
                total -= 16
        longer = sum(len(line) > column and " " in line for line in lines)
        sums.append((total, column, total - 64 * longer))
    return max(sums)[2] > 0


TWIN_WORDS = st.sampled_from(["a", "the", "words", "Capital", "ends.", "longer-than-most", "x" * 45])
TWIN_LINES = st.lists(st.lists(TWIN_WORDS, min_size=1, max_size=14).map(" ".join), min_size=2, max_size=12)


@settings(max_examples=300)
@given(TWIN_LINES, st.lists(st.sampled_from("\r\r\r\n"), min_size=12, max_size=12))
def test_the_rule_equals_a_sum_over_every_column(lines, ends):
    text = "".join(line + end for line, end in zip(lines, ends))[:-1]
    assert line_breaks.is_wrapped(text.encode()) == wrapped_by_twin(text)


# ---- which lines decide


@pytest.mark.parametrize("size", [110, 111, 112, 113, 150])
def test_only_the_beginning_decides(monkeypatch, size):
    monkeypatch.setattr(line_breaks, "SAMPLE_BYTES", size)
    wrapped, short = wrap(PROSE[1], 30) + "\n", "A short line\nand another one\n"
    assert found(wrapped + short * 50) == "space"
    assert found(short * 6 + wrapped * 50) == "paragraph"


def test_a_line_that_the_limit_cuts_does_not_count(monkeypatch):
    monkeypatch.setattr(line_breaks, "SAMPLE_BYTES", 40)
    assert line_breaks.sample_of(b"\n One line.\rA second one.\rA third, which is cut") == b"One line.\rA second one."
    assert line_breaks.sample_of("好".encode() * 20) == b""
    assert line_breaks.sample_of(b"x" * 40 + b" \r\n") == b"x" * 40


# ---- the same text in every form

WORDS = st.sampled_from(["a", "to", "word", "The", "ends.", "中文", "没有空格的文字，", "é"])
TEXTS = st.lists(st.lists(WORDS, min_size=1, max_size=60).map(" ".join), min_size=1, max_size=6)
BETWEEN = st.sampled_from(["\n", "\n\n", "\n \n\n"])


@settings(max_examples=150)
@given(
    texts=TEXTS,
    columns=st.sampled_from([30, 40, 1000]),
    between=BETWEEN,
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    around=st.sampled_from(["", "\n", " \n\n  "]),
    chunk=st.sampled_from([1, 7, 1 << 20]),
    sizes=st.sampled_from([(None, None), (150, 100), (300, 290)]),
)
def test_a_text_decides_alike_in_every_form_and_however_it_arrives(
    folder, texts, columns, between, end, around, chunk, sizes
):
    text = around + between.join(wrap(text, columns) for text in texts).replace("\n", end) + around
    (folder / "a.txt").write_text(text, "utf-8", newline="")
    (folder / "a.jsonl").write_text(json.dumps({"text": text}), "utf-8")
    pq.write_table(pa.table({"text": [text]}), folder / "a.parquet")
    with pytest.MonkeyPatch.context() as patch:
        most, sample = sizes
        if most:
            patch.setattr(records, "MAX_DOCUMENT_BYTES", most)
            patch.setattr(plain_text, "MAX_DOCUMENT_BYTES", most)
            patch.setattr(line_breaks, "SAMPLE_BYTES", sample)
        for module in (streams, plain_text):
            patch.setattr(module, "CHUNK", chunk)
        results = []
        for name in ("a.txt", "a.jsonl", "a.parquet"):
            [source] = find_sources([str(folder / name)])
            split = Split(with_options(source, text_layout="file"), 0, None)
            results.append([(item.text, item.piece, item.source_key) for item in read_documents(split)])
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
@pytest.mark.parametrize(
    "option, expected",
    [
        ("auto", ["A line and\nanother\nEnd"]),
        ("space", ["A line and another\nEnd"]),
        ("paragraph", ["A line and\nanother\nEnd"]),
    ],
)
def test_the_option_decides_what_a_line_break_is(folder, name, option, expected):
    text = "A line and\r\nanother\n\nEnd\n"
    (folder / name).write_text(json.dumps({"text": text}) if name == "a.jsonl" else text)
    [source] = find_sources([str(folder / name)])
    items = read_with(Split(source, 0, None), text_layout="file", line_breaks=option)
    assert [item.text.decode() for item in items] == expected


@pytest.mark.parametrize("columns", [60, 72, 100])
def test_a_wrapped_text_has_the_id_of_the_text_that_was_wrapped(folder, columns):
    for texts in (PROSE, PROSE_ZH):
        ids = set()
        for text in ("\n\n".join(texts), "\n\n".join(wrap(text, columns) for text in texts)):
            (folder / "a.jsonl").write_text(json.dumps({"text": text}))
            [source] = find_sources([str(folder / "a.jsonl")])
            ids |= {records.document_id(item.text) for item in read_documents(Split(source, 0, None))}
        assert len(ids) == 1


# ---- joining


@pytest.mark.parametrize(
    "lines, joined",
    [
        ("of\rlines", "of lines"),
        ("中文\r没有", "中文没有"),
        ("仮名と\rカナ", "仮名とカナ"),
        ("逗号，\r然后", "逗号，然后"),
        ("他说：\r“好”\r了", "他说：“好”了"),
        ("使用\rPython\r语言", "使用 Python 语言"),
        ("“one”\r“two”", "“one” “two”"),
        ("한국어\r문장", "한국어 문장"),
        ("naïve\rété", "naïve été"),
    ],
)
def test_a_space_joins_lines_except_between_chinese_characters(lines, joined):
    assert join_text_lines(lines.encode()).decode() == joined
