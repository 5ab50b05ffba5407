"""Markdown: what is text and what is mark-up, and pages that are made to take long."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.formats import markdown
from pipeline.inputs.formats.markdown import text_of_markdown
from pipeline.inputs.splitting import split_source
from pipeline.text.records import Document
from tests.pipeline.reading import with_options


@pytest.mark.parametrize(
    ("source", "paragraphs"),
    [
        (
            '# A *title*\n\nText with **bold**, `code_x` and a [link](http://a.b "t").',
            ["A title", "Text with bold, code_x and a link."],
        ),
        ("Title\n=====\n\nSub\n---\n\n***\n\nend", ["Title", "Sub", "end"]),
        ("## Heading {#name .class}\n\nText\n{: .note}", ["Heading", "Text"]),
        ("a\nb\nc", ["a b c"]),
        ("*a*  \nb\\\nc<br>d", ["a\nb\nc\nd"]),
        ("- one\n- two\n  - three\n\n    more\n", ["one", "two", "three", "more"]),
        ("1. one\n2. two\n\n0) zero\n1) one\n\n1. a\n1. b", ["one", "two", "zero", "one", "a", "b"]),
        ("- [ ] open\n- [x] done", ["open", "done"]),
        ("> quoted\n> words\n\n> [!NOTE]\n> Useful.", ["quoted words", "Useful."]),
        ("Before.\n\n```python\nx = 1\n```\n\n~~~\ny\n~~~\n\n    z = 2\n\n*After*.", ["Before.", "After."]),
        ("| a | b |\n|---|---|\n| c | d |\n\nafter", ["after"]),
        ("![a badge](x.svg) [![b](y.png)](z)\n\nsee ![it](p.png) here", ["see here"]),
        ("Word[^1] and word.\n\n[^1]: The *note*.\n\n[^2]: Not used.", ["Word and word.", "The note.", "Not used."]),
        ("[a][1] and [b], <https://c.d>\n\n[1]: http://x\n[b]: http://y", ["a and b, https://c.d"]),
        ("a \\*b\\* &amp; &copy; c", ["a *b* & © c"]),
        ("~~gone~~ but kept", ["gone but kept"]),
        ("$$\nx = y\n$$\n\nLet $a_1 * b_1$ be $5 or $10.", ["Let $a_1 * b_1$ be $5 or $10."]),
        ("::: tip Own title\nText *a*.\n\n::: {.callout-note}\nb\n:::\n:::\nend", ["Own title", "Text a.", "b", "end"]),
        ('!!! note\n    Body.\n\n??? warning "Take care"\n    Careful.', ["Body.", "Take care", "Careful."]),
        (
            'A {{< ref "x" >}} b {% raw %}c{% endraw %} {{ d }}\n\n{{% notice %}}\n*In*\n{{% /notice %}}',
            ["A b c {{ d }}", "In "],
        ),
        (
            "import A from './a'\nimport {B} from \"b\";\n\n<Note kind='x'>\nInside.\n</Note>\n\n<A />\n\n*End*",
            ["Inside.", "End"],
        ),
        (
            "<!-- no -->\n\n<p align='c'><b>Name</b> &amp; co<br>more</p>\n<script>\nx\n</script>\n\n"
            "*a<!-- b -->* <kbd>C</kbd>",
            ["Name & co", "more", "a C"],
        ),
        ("<div>\n<pre>code</pre>\n<h1>Title</h1>\n<p>text</p>\n</div>", ["Title", "text"]),
        ("---\ntitle: T\ntags:\n  - a\n---\n\n*Body*", ["Body"]),
        ("+++\ntitle = 'T'\n\n[x]\ny = 1\n+++\n*Body*", ["Body"]),
        ("---\n---\n*Body*", ["Body"]),
        ("---\n\nThe rule above is no front matter.\n\n---\n\n*End*", ["The rule above is no front matter.", "End"]),
        ("```{note}\nSee *this*.\n```\n\n```{code-cell} python\nx = 1\n```\n\n```{r}\ny\n```", ["See this."]),
        (
            "````{admonition} Own *title*\n:class: tip\n\n```{tip}\nIn.\n```\n````\n\n```{note}\n```",
            ["Own *title*", "In."],
        ),
        ("**「重点」**是什么？**注意：**内容，**好**的。", ["「重点」是什么？注意：内容，好的。"]),
    ],
)
def test_text_stays_and_mark_up_goes(source, paragraphs):
    assert text_of_markdown(source) == "\n\n".join(paragraphs)


@pytest.mark.parametrize(
    "source",
    [
        "1986. A great year.",
        "5. So it went on.\n6. And on.",
        "snake_case_names and 2 * 3 * 4",
        "2*3*4 is 24, and 5*x*6 is not",
        "I paid $5 and you $10.",
        "!!! Wow\n\n??? What is that",
        "H~2~O is not ~5 or ~6, and C:\\temp is a path.",
        "Dear all,\n\n    It was a dark night and\nthe rain fell.\n\n    The second paragraph is indented, too.",
        "A #hashtag, an e-mail@a.b, https://a.b/c_d_e and f(x) < g(y) > 0 & more.",
        "He said: [sic] and (see [1]).",
        "What? -- Nothing... + 1 | 2 ~ 3 ^ 4 = 5",
    ],
)
def test_text_that_looks_like_mark_up_stays(source):
    assert text_of_markdown(source).split() == source.split()


def test_marks_that_commonmark_reads_as_mark_up_are_removed_from_plain_text():
    """Nothing tells these from mark-up, so a file of plain text that has them should be called .txt."""
    assert (
        text_of_markdown("# \n\n- A dash.\n\n1. First.\n\n> A reply.\n\nA\n---") == "A dash.\n\nFirst.\n\nA reply.\n\nA"
    )


words = st.text(st.sampled_from("abzé中文019.,;:!?'\"()-/$%@=^}"), min_size=1, max_size=8).filter(
    lambda word: word[0] not in "-=:!" and not word.rstrip(".)").isdigit() and "$" not in word
)
lines = st.lists(words, min_size=1, max_size=6).map(" ".join)
plain = st.lists(st.tuples(lines, st.sampled_from(["\n", "\n", "\n\n", "\n \t\n\n"])), min_size=1, max_size=8).map(
    lambda parts: "".join(map("".join, parts))
)


@settings(max_examples=300, deadline=None)
@given(plain)
def test_plain_text_is_the_same_document_as_in_a_text_file(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("plain")
    found = []
    for name in ("a.md", "a.txt"):
        (folder / name).write_text(text, encoding="utf-8")
        [source] = find_sources([str(folder / name)])
        [split] = split_source(with_options(source, text_layout="file", line_breaks="space"), 1 << 20)
        found.append([record.text for record in read_documents(split) if isinstance(record, Document)])
    assert found[0] == found[1]


def twin(title: str, items: list[str], code: str, quote: str) -> str:
    """A page with these texts in mark-up."""
    listed = "".join(f"* **{item}**\n" for item in items)
    return f"---\nx: y\n---\n# {title}\n\n{listed}\n```\n{code}\n```\n\n> {quote}\n"


@settings(max_examples=100, deadline=None)
@given(lines, st.lists(lines, min_size=1, max_size=4), lines, lines)
def test_texts_in_mark_up_come_back_as_paragraphs(title, items, code, quote):
    assert text_of_markdown(twin(f"T{title}", [f"i{item}i" for item in items], code, f"q{quote}")).split("\n\n") == [
        f"T{title}",
        *(f"i{item}i" for item in items),
        f"q{quote}",
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("[" * 60_000, "60000 brackets, the limit is 50000"),
        ("![a](" * 60_000, "60000 brackets"),
        ("<a " * 600_000, "600000 marks, the limit is 500000"),
        ("a** " * 300_000, "600000 marks"),
        ("*_a" * 20_000, "40000 marks of emphasis in a row, the limit is 20000"),
        ("a\n\n" * 110_000, "220000 lines, the limit is 200000"),
        (">" * 1000, "nested 40 deep"),
        ("".join("`" * i + "{note}\n" for i in range(20, 3, -1)), "notes are nested more than 5 deep"),
        ("- " * 1000 + "a", "nested 40 deep"),
        ("".join("  " * i + "- a\n" for i in range(100)), "nested 40 deep"),
        ("".join(" " * i + "!!! a\n" for i in range(0, 400, 4)), "nested 40 deep"),
    ],
)
def test_a_page_that_would_take_long_or_lose_text_is_refused(source, message):
    with pytest.raises(ValueError, match=message):
        text_of_markdown(source)


@pytest.mark.parametrize(
    "unit",
    [
        "[",
        "![a](",
        "*a ",
        "`a ",
        "<!--",
        "<a ",
        "&a;",
        "a|b\n",
        "- a\n",
        "[^a]: b\n",
        ":::a\n",
        "{%",
        "<b\n",
        "$a ",
        "\\",
    ],
)
def test_what_is_below_the_limits_is_read(unit):
    text_of_markdown(unit * 2000)


def test_the_limits_hold_for_megabytes_of_one_mark():
    for mark in "[*<`&$\\{|_~":
        with pytest.raises(ValueError, match="the limit is"):
            text_of_markdown(mark * 8_000_000)


def test_lines_that_nearly_are_front_matter_or_imports_take_linear_time():
    assert text_of_markdown("---\n" + "\n" * 1000 + "Text.") == "Text."
    assert text_of_markdown("---\n\n\na: b: c\nd\n---\nText.") == "Text."
    imports = "import a from 'b' " * 1000
    assert text_of_markdown(f"*c*\n\n{imports}\n{imports}") == "c"
    assert text_of_markdown(f"*c*\n\n{imports}d") == f"c\n\n{imports}d"


def test_a_limit_is_the_most_that_is_read(monkeypatch):
    monkeypatch.setattr(markdown, "MAX_BRACKETS", 2)
    assert text_of_markdown("[a](b) [c](d)") == "a c"
    with pytest.raises(ValueError, match="3 brackets, the limit is 2"):
        text_of_markdown("[a](b) [c](d) [e](f)")
