"""Quality filters by their published thresholds, and languages by a model that is in its wheel."""

import ast
import json
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inputs.discovery import find_sources
from pipeline.inputs.sources import Split
from pipeline.text import language
from pipeline.text.cleaning import CleanConfig, clean
from pipeline.text.filters import gopher, registry
from pipeline.text.filters.c4 import c4_fault, c4_lines
from pipeline.text.filters.filter import QualityFilter
from pipeline.text.filters.gopher import gopher_fault
from pipeline.text.filters.registry import FILTERS
from pipeline.text.language import language_of
from pipeline.text.records import Document
from tests.pipeline.reading import read_with

ROOT = Path(__file__).parent.parent.parent
PROSE = (
    "The harbour lay quiet in the early morning, and nobody was to be seen on the quay but an old man with a basket. "
    "He had come down from the village before the sun was up, as he did every day of the year, to look at the boats. "
    "Some of them would go out with the tide; others had not left their moorings for a long time, and would rot there."
)


# ---- filters of a user's own


def _broken(text: str) -> str:
    raise KeyError("no such word")


@pytest.mark.parametrize(
    "functions, says",
    [
        (
            {"find_fault": _broken},
            "find_fault of the quality filter 'own' failed on the text that begins with 'The harbour",
        ),
        (
            {"without_lines": _broken},
            "without_lines of the quality filter 'own' failed on .*: KeyError: 'no such word'. Mend",
        ),
        (
            {"find_fault": lambda text: None},
            "find_fault of the quality filter 'own' returned None for .*: expected a str",
        ),
        ({"find_fault": lambda text: True}, "returned True for the text that begins with 'The harbour"),
        ({"without_lines": lambda text: b"x"}, "without_lines of the quality filter 'own' returned b'x' for"),
    ],
)
def test_a_filter_that_fails_or_returns_no_text_is_named(monkeypatch, functions, says):
    monkeypatch.setattr(registry, "FILTERS", [QualityFilter(name="own", summary="own.", **functions)])
    with pytest.raises(ValueError, match=says):
        list(clean([Document(PROSE.encode(), 0)], CleanConfig(quality_filter=("own",))))


def test_two_filters_of_one_name_are_refused_before_the_work_begins(monkeypatch):
    monkeypatch.setattr(registry, "FILTERS", [*FILTERS, QualityFilter(name="c4", summary="own.")])
    with pytest.raises(ValueError, match="--quality-filter c4: FILTERS holds 2 filters of this name; expected one"):
        CleanConfig(quality_filter=("c4",))


# ---- C4


@pytest.mark.parametrize(
    "line, kept",
    [
        ("This line has five words.", True),
        ("Is this one a question?", True),
        ('He said: "I do not."', True),
        ("This line has no end mark", False),
        ("Only four words here.", False),
        ("It goes on and on...", False),
        ("Please enable JavaScript to see this.", False),
        ("We use cookies to make this better.", False),
        ("Please read our Privacy Policy before anything else.", False),
        ("这是一个很长的句子，没有空格。", False),
    ],
)
def test_c4_keeps_lines_that_end_as_sentences_do(line, kept):
    assert c4_lines(f"A first line of text.\n{line}\n") == "A first line of text." + f"\n{line}" * kept


def test_c4_leaves_out_the_marks_of_citations():
    assert c4_lines("Water is wet[1][2] as they say[citation needed].") == "Water is wet as they say."


@pytest.mark.parametrize(
    "text, fault",
    [
        ("One. Two! Three?", ""),
        ("One. Two.", "2 sentences"),
        ("", "0 sentences"),
        ('He said "Yes." She said "No." They left.', ""),
        ("One. Two. Three {x}.", "a curly bracket"),
        ("Lorem ipsum dolor. Two. Three.", "lorem ipsum"),
    ],
)
def test_c4_rejects_pages(text, fault):
    assert c4_fault(text) == fault


# ---- Gopher


def test_gopher_accepts_prose():
    assert gopher_fault(PROSE) == ""


@pytest.mark.parametrize(
    "text, fault",
    [
        ("too few words", "3 words"),
        ("a b c d e f g h " * 10, "words of 1.0 characters"),
        ("internationalization " * 60, "words of 20.0 characters"),
        (PROSE.replace(" the ", " # the ## "), "hash marks a word"),
        (PROSE.replace(" the ", " ... the ... "), "ellipses a word"),
        ("\n".join(f"- {line}" for line in PROSE.split(",")), "100% of the lines begin with a bullet"),
        ("\n".join(f"{line}..." for line in PROSE.split(". ")), "100% of the lines end in an ellipsis"),
        (PROSE + " 1234" * 20, "of the words have no letter"),
        ("lorem dolor amet " * 30, "fewer than two of the words the, be"),
        ("\n".join([PROSE, "and the end", "and the end", "and the end"]), "50% of the lines repeat another"),
        ("\n".join([PROSE, PROSE, *"abcd"]), "% of the characters are in lines that repeat another"),
        (PROSE + " old days" * 20, "of the characters are in the most frequent run of 2 words"),
        (PROSE + " " + PROSE.upper().lower().replace(".", ";") + " " + PROSE[:250], "runs of 5 words that occur again"),
    ],
)
def test_gopher_reports_why_it_rejects_a_text(text, fault):
    assert fault in gopher_fault(text)


def repetition_by_hand(words: list[str]) -> list[tuple[int, bool]]:
    """(n, whether it is too much) for each n, with Python's lists and sets."""
    size, found = sum(map(len, words)), []
    for n in range(2, 11):
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        counts = Counter(grams)
        if n < 5:
            top = max(counts.values(), default=0)
            most = max((len("".join(gram)) * count for gram, count in counts.items() if count == top > 1), default=0)
            found.append((n, most > gopher.MAX_TOP_NGRAM[n] * size))
        else:
            covered = {i + k for i, gram in enumerate(grams) if counts[gram] > 1 for k in range(n)}
            found.append((n, sum(len(words[i]) for i in covered) > gopher.MAX_REPEATED_NGRAMS[n] * size))
    return found


@settings(max_examples=200)
@given(
    st.lists(
        st.sampled_from(["the", "of", "and", "harbour", "quiet", "morning", "sea", "old", "boats"]),
        min_size=50,
        max_size=90,
    )
)
def test_gopher_counts_repeated_runs_like_a_plain_count(words):
    fault = gopher_fault(" ".join(words))
    expected = next((n for n, too_much in repetition_by_hand(words) if too_much), None)
    if "words" in fault and "run" in fault:
        assert f"of {expected} words" in fault
    elif not fault:
        assert expected is None


# ---- languages


@pytest.mark.parametrize(
    "text, code",
    [
        (PROSE, "en"),
        ("话说天下大势，分久必合，合久必分。这是我们在中国的生活。", "zh"),
        ("Der Hafen lag still am frühen Morgen, und niemand war zu sehen.", "de"),
        ("Гавань была тиха ранним утром, и никого не было видно.", "ru"),
        ("港は早朝静かで、老人のほかには誰も見えなかった。", "ja"),
    ],
)
def test_languages_are_identified(text, code):
    assert language_of(text)[0] == code
    [kept] = clean([Document(text.encode(), 0)], CleanConfig(languages=("xh", code)))
    [other] = clean([Document(text.encode(), 0)], CleanConfig(languages=("xh",)))
    assert kept.text == text.encode()
    assert other.reason == "other-language" and other.detail.startswith(f"{code}, ")


def test_an_unknown_language_is_refused():
    with pytest.raises(ValueError, match="--languages english: unknown. Expected some of the codes .* en "):
        CleanConfig(languages=("en", "english"))


def test_a_missing_package_is_reported_before_the_work_begins(monkeypatch):
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    language.load_identifier.cache_clear()
    with pytest.raises(ValueError, match='--languages needs the extra "langid"'):
        CleanConfig(languages=("en",))
    language.load_identifier.cache_clear()


# ---- as cleaning


def test_filters_reject_documents_with_their_name_as_the_reason():
    texts = [PROSE, "Short one here now. " * 3, "No end mark\n" + PROSE, "{} " + PROSE, "menu\nhome"]
    items = list(
        clean(
            [Document(text.encode(), i) for i, text in enumerate(texts)], CleanConfig(quality_filter=("c4", "gopher"))
        )
    )
    assert [getattr(item, "reason", "") for item in items] == ["", "quality-gopher", "", "quality-c4", "empty-text"]
    assert items[2].text == PROSE.encode() and items[2].cleaned == ("quality-c4",)
    assert items[3].detail == "a curly bracket" and items[4].detail == "nothing is left after quality-c4"


def read_json(folder, text: str, **config) -> list:
    (folder / "a.jsonl").write_text(json.dumps({"text": text}) + "\n")
    [source] = find_sources([str(folder / "a.jsonl")])
    return read_with(Split(source, 0, None), None, line_breaks="space", **config)


def test_filters_count_lines_also_when_line_breaks_become_spaces(tmp_path):
    sentences = "This is a good sentence. Here is one more.\nAnd a third one is here."
    [item] = read_json(
        tmp_path, f"Home\nAbout us\n{sentences}\n\nA new paragraph begins here.\nLog in", quality_filter=("c4",)
    )
    assert item.text.decode() == sentences.replace("\n", " ") + "\nA new paragraph begins here."
    bullets = "\n".join(f"- {line}" for line in PROSE.split(", "))
    [item] = read_json(tmp_path, bullets, quality_filter=("gopher",))
    assert item.detail == "100% of the lines begin with a bullet" and "\r" not in item.text
    assert item.text.startswith("- The harbour lay quiet in the early morning - and nobody")


def test_a_wrapped_text_that_a_filter_accepts_is_unchanged(tmp_path):
    wrapped = PROSE.replace(", ", ",\n")
    assert read_json(tmp_path, wrapped, quality_filter=("gopher",)) == read_json(tmp_path, wrapped)


def test_lorem_ipsum_is_found_across_a_line_break(tmp_path):
    text = "This is the lorem\nipsum that everyone knows.\nIt is on two lines.\nAnd it goes on here."
    assert read_json(tmp_path, text, quality_filter=("c4",))[0].reason == "quality-c4"


def test_no_other_code_names_a_filter():
    names = {one.name for one in FILTERS} | {one.reason for one in FILTERS}
    found = []
    for path in [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "jobs").rglob("*.py")]:
        if ROOT / "pipeline/text/filters" not in path.parents:
            nodes = ast.walk(ast.parse(path.read_text("utf-8")))
            constants = (node for node in nodes if isinstance(node, ast.Constant) and node.value in names)
            found += [f"{path.relative_to(ROOT)}:{node.lineno}: {node.value!r}" for node in constants]
    assert found == []
