from fractions import Fraction

import pytest

from model.loading.sources import Source, parse_sources, token_shares


def test_entries_are_read_from_their_end():
    assert parse_sources(["data/web:0.7", "b=s3://bucket/a:0.25/books:.3:epochs=1.5"]) == (
        Source(name="web", path="data/web", share=0.7),
        Source(name="b", path="s3://bucket/a:0.25/books", share=0.3, epochs=1.5),
    )
    [source] = parse_sources(["http://localhost:8080/d"])
    assert (source.name, source.path, source.share) == ("d", "http://localhost:8080/d", None)
    [source] = parse_sources(["x=http://localhost:8080"])
    assert (source.path, source.share) == ("http://localhost:8080", None)
    [source] = parse_sources(["https://host/d?version=2"])
    assert (source.name, source.path) == ("d?version=2", "https://host/d?version=2")


def test_names_are_those_of_the_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [source.name for source in parse_sources([".:1", "s3://bucket/数据/:2"])] == [tmp_path.name, "数据"]


@pytest.mark.parametrize(
    ("words", "temperature", "message"),
    [
        (["a:0", "b:0.0"], None, "all shares are 0"),
        (["a:-1", "b:2"], None, "'a:-1' has the share -1, expected a number of at least 0"),
        (["a:nan", "b:2"], None, "'a:nan' has the share nan"),
        (["a:60%", "b:40%"], None, "'a:60%' has the share 60%, expected a number with a point, such as 0.6"),
        (["a:0,6", "b:0,4"], None, "'a:0,6' has the share 0,6, expected a number with a point"),
        (["a:inf", "b:2"], None, "'a:inf' has the share inf"),
        (["a:1:epochs=0", "b:2"], None, "epochs=0, expected a number above 0"),
        (["a:1:epochs=1e9", "b:2"], None, "epochs=1e\\+09, expected a number above 0 and at most 1,000,000"),
        (["a:1:epochs=two", "b:2"], None, "epochs=two, expected a number"),
        (["x/a:1", "y/a:2"], None, "the name 'a' is given twice: give each a name"),
        (["p=a:1", "q=./a:2"], None, "is given twice: give it once"),
        (["a:1", "b"], None, "a has a share and b has none: give each one, or none"),
        (["a", "b"], None, "several data sets without shares"),
        (["a:1", "b:1"], 0.5, "a has the share 1, and temperature=0.5 gives shares, too"),
        (["a", "b"], 1.5, r"temperature=1.5 must be from 0 \(equal shares\) to 1"),
        (["a", "b"], float("nan"), "temperature=nan must be"),
        (["a"], 0.5, "temperature is for several data sets"),
        (["a:epochs=2"], None, "a limit of epochs is for several data sets, and one is given"),
        ([":0.5", "b:1"], None, "':0.5' has no path"),
        (["a=:0.5", "b:1"], None, "'a=:0.5' has no path"),
        (["a" * 256 + ":1", "b:1"], None, "cannot be the name of a data set: expected at most 255 characters"),
        (["a\nb:1", "b:1"], None, r"'a\\nb' cannot be the name of a data set"),
        ([f"s{number}:1" for number in range(33)], None, "33 data sets are given, expected 1 to 32"),
    ],
)
def test_impossible_entries_are_refused(words, temperature, message):
    with pytest.raises(ValueError, match=message):
        parse_sources(words, temperature)


def test_given_shares_are_exact_and_those_of_a_temperature_follow_the_sizes():
    sources = parse_sources(["a:7", "b:2.9", "c:0.1"])
    assert token_shares(sources, [5, 5, 5], None) == [Fraction(7, 10), Fraction(29, 100), Fraction(1, 100)]
    sources = parse_sources(["a", "b"], 0.5)
    assert token_shares(sources, [400, 100], 0.5) == [Fraction(666667, 10**6), Fraction(333333, 10**6)]
    assert token_shares(sources, [400, 100], 1.0) == [Fraction(4, 5), Fraction(1, 5)]
    assert token_shares(sources, [400, 100], 0.0) == [Fraction(1, 2), Fraction(1, 2)]
    assert token_shares(sources, [10**12, 1], 1.0)[1] == Fraction(1, 10**6)  # none has no share
