"""reStructuredText: what is text and what is mark-up, directives of strangers, and pages that are made to take long."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.inputs.formats import rst_parser
from pipeline.inputs.formats.restructured_text import text_of_rst
from pipeline.text.records import join_text_lines


@pytest.mark.parametrize(
    ("source", "paragraphs"),
    [
        (
            "Title\n=====\n\nHello *world*, ``code_x`` and `a link <http://a.b>`_.\n\nSub\n---\n\nMore\nlines.",
            ["Title", "Hello world, code_x and a link.", "Sub", "More lines."],
        ),
        ("T\n=\n\n:Author: me\n:Date: now\n\nText.", ["T", "Text."]),
        ("Text.\n\n:param x: the *value*\n:returns: all of it", ["Text.", "the value", "all of it"]),
        ("* one\n* two\n\n  * three\n\n#. four\n#. five", ["one", "two", "three", "four", "five"]),
        ("1. one\n2. two\n\n(a) x\n(b) y\n\n5. five\n6. six", ["one", "two", "x", "y", "5. five", "6. six"]),
        ("Term\n  Its meaning.\n\nterm : kind\n  Another.", ["Term", "Its meaning.", "term", "Another."]),
        ("-a, --all   Show all.", ["Show all."]),
        ("  A quotation.\n\n  -- Author", ["A quotation.", "Author"]),
        ("| Roses are red,\n| violets are\n  blue.", ["Roses are red,\nviolets are blue."]),
        ("Code::\n\n    x = 1\n\n>>> y\n2\n\n.. code-block:: c\n   :linenos:\n\n   z\n\nEnd.", ["Code:", "End."]),
        ("===  ===\na    b\n===  ===\nc    d\n===  ===\n\n+---+\n| a |\n+---+\n\nEnd.", ["End."]),
        (
            ".. A comment\n   of lines.\n\n.. _target:\n.. _other: http://a.b\n\n"
            "See target_ and `the other`__.\n\n__ other_",
            ["See target and the other."],
        ),
        (
            "The |name| and |logo| of |version| [1]_.\n\n"
            ".. |name| replace:: *long* name\n.. |logo| image:: a.png\n.. [1] A note.\n.. [CIT] A book.",
            ["The long name and of version.", "A note.", "A book."],
        ),
        (
            "See :ref:`the title <x>`, :class:`~a.b.C`, :func:`!f`, `x`, :odd:`text`, :math:`x^2` and `H`:sub:.",
            ["See the title, C, f, x, text, x^2 and H."],
        ),
        ("一个段落，\n有两行。\n\n* 一项\n  两行", ["一个段落，有两行。", "一项两行"]),
        (r"Escaped \*stars\* and C\ s.", ["Escaped *stars* and Cs."]),
    ],
)
def test_text_stays_and_mark_up_goes(source, paragraphs):
    assert text_of_rst(source) == "\n\n".join(paragraphs)


@pytest.mark.parametrize(
    ("source", "paragraphs"),
    [
        (".. note:: This is a note\n   of two lines.\n\n   And more.", ["This is a note of two lines.", "And more."]),
        (".. warning::\n   :class: x\n\n   *Careful*.", ["Careful."]),
        (
            ".. nobody-knows:: Some words here.\n   :option: x\n   :other:\n\n   The body.",
            ["Some words here.", "The body."],
        ),
        (".. topic:: A title\n\n   Its body.", ["A title", "Its body."]),
        (
            ".. py:function:: spam(eggs)\n   :noindex:\n\n   Cooks *it*.\n\n   :param eggs: the eggs",
            ["Cooks it.", "the eggs"],
        ),
        (
            ".. versionadded:: 3.2\n   It is new.\n\n.. deprecated:: 1.0 Use other.\n\n.. versionchanged:: 4",
            ["It is new.", "Use other."],
        ),
        (".. figure:: a.png\n   :alt: no\n\n   A *caption*.\n\n   A legend.", ["A caption.", "A legend."]),
        (".. only:: html\n\n   For readers.", ["For readers."]),
        (".. toctree::\n   :maxdepth: 2\n\n   a\n   b\n\n.. math::\n\n   x\n\n.. image:: x.png\n\nEnd.", ["End."]),
        (".. glossary::\n\n   word\n      Its meaning.", ["word", "Its meaning."]),
        (".. seealso:: `This <http://a.b>`_.", ["This."]),
    ],
)
def test_directives_keep_their_text_whether_known_or_not(source, paragraphs, capfd):
    assert text_of_rst(source) == "\n\n".join(paragraphs)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "directive",
    [
        ".. include:: {}",
        ".. include:: {}\n   :literal:",
        ".. csv-table:: t\n   :file: {}",
        ".. raw:: html\n   :file: {}",
        ".. raw:: text\n   :url: file://{}",
        ".. literalinclude:: {}",
        ".. code::\n   :class: x\n\n   .. include:: {}",
        ".. |x| include:: {}\n\n|x|",
        ".. note::\n\n   .. include:: {}",
        ".. role:: x(raw)\n   :format: html\n\n:x:`{}`",
        ".. default-role:: raw\n",
        ".. image:: {}\n.. figure:: {}",
    ],
)
def test_a_file_cannot_read_another(directive, tmp_path, capfd):
    secret = tmp_path / "secret.txt"
    secret.write_text("The secret words.")
    assert "secret words" not in text_of_rst(directive.format(secret, secret) + "\n\nEnd.")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("=====\nTitle that is too long\n=====\n\nText.", ["Title that is too long", "Text."]),
        ("A\n=\n\nB\n-\n\nC\n~\n\nD\n-\n\nE\n~\n\nF\n=\n\nG\n~\n\nText.", [*"ABCDEFG", "Text."]),
        ("* item\nwithout a blank line", ["item", "without a blank line"]),
        ("An *unclosed mark and `another, |third and ``last.", ["An *unclosed mark and `another, |third and ``last."]),
        ("Shorter\n====\n\nText.", ["Shorter", "Text."]),
        (".. note::\n\n   Head\n   ====\n\n   Text.", ["Head", "Text."]),
        (".. |x|\n\nText |x|.", ["Text x."]),
    ],
)
def test_what_docutils_reports_as_an_error_is_kept_and_not_printed(source, kept, capfd):
    assert text_of_rst(source).split("\n\n") == kept
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "source",
    ["1986. A great year.", "A. Einstein was here.", "snake_case_names and 2 * 3 * 4, or f(x) and e-mail@a.b."],
)
def test_text_that_looks_like_mark_up_stays(source):
    assert text_of_rst(source) == source


marks = st.text(st.sampled_from("abzé中文09,;!?'\"()/%@^}#$&<>~"), max_size=7)
words = st.builds("{}{}".format, st.sampled_from("aZé中"), marks)
lines = st.lists(words, min_size=2, max_size=6).map(" ".join)


@settings(max_examples=200, deadline=None)
@example([["a) a)"]])
@given(st.lists(st.lists(lines, min_size=1, max_size=3), min_size=1, max_size=4))
def test_plain_text_stays_as_it_is(blocks):
    source = "\n\n".join(map("\n".join, blocks))
    joined = (join_text_lines("\r".join(block).encode()).decode() for block in blocks)
    assert text_of_rst(source) == "\n\n".join(joined)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a\n" * 60_000, "60000 lines, the limit is 50000"),
        ("`<" * 20_000, "steps, the limit is 200000000"),
        ("*a " * 20_000, "steps, the limit"),
        ("a-" * 20_000, "steps, the limit"),
        ("- " * 1000 + "a", "nested more than 40 deep"),
        ("".join("  " * i + "a\n" for i in range(100)), "nested more than 40 deep"),
        ("".join("   " * i + ".. a::\n\n" for i in range(100)), "nested more than 40 deep"),
    ],
)
def test_a_page_that_would_take_long_is_refused(source, message):
    with pytest.raises(ValueError, match=message):
        text_of_rst(source)


def test_the_words_of_a_role_of_any_length_are_read():
    words = "a" + " " * 1_000_000 + "b"
    assert text_of_rst(f":r:`{words}` :r:`{words} <c>` :r:`a > b`") == f"{words} {words} a > b"


def test_after_a_page_that_was_refused_the_next_is_read():
    with pytest.raises(ValueError, match="deep"):
        text_of_rst("- " * 1000 + "a")
    assert text_of_rst("- " * 10 + "a") == "a"


@pytest.mark.parametrize(
    "unit",
    [
        "*a ",
        "`a ",
        "`a <",
        "|a ",
        "_`a ",
        "[1]_ ",
        "a_ ",
        "http://a ",
        "a\n=\n\n",
        "| a\n",
        ".. |a| replace:: b\n",
        ":a: b\n",
    ],
)
def test_what_is_below_the_limits_is_read(unit):
    text_of_rst(unit * 500)


def test_titles_of_any_number_of_kinds_are_kept():
    marks = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
    source = "".join(f"T{i}\n{mark * 4}\n\n" for i, mark in enumerate(marks))
    assert text_of_rst(source).split("\n\n") == [f"T{i}" for i in range(len(marks))]


def test_the_tables_of_directives_are_disjoint():
    assert not (rst_parser.LEFT_OUT & rst_parser.WITH_NAMES or rst_parser.VERSIONS & rst_parser.WITH_NAMES)
