"""The report of a data set with sources: counts, scripts and languages of each, and gates of their own."""

import json

import pytest

from jobs import cli
from jobs.verify import verify
from tests.jobs.corpus import write
from tests.jobs.test_sources_of_jobs import BUDGETS, TWO, chinese, corpus, english, job

__all__ = ["corpus"]
STRICT = TWO + "[input.gates]\nmax_rejected = 0.001\n"


def command(folder, vocab, toml, out, *flags):
    (folder / "corpus.toml").write_text(toml.replace("DIR", str(folder)), "utf-8")
    words = ["--vocab", str(vocab), "--max-seq-length", "32", "--dupe-factor", "1", "--validation-fraction", "0"]
    inputs = ["--inputs", f"{folder}/corpus.toml", "--out", f"{folder}/{out}"]
    return cli.main(["preprocess", *inputs, *words, "--gates.max-unknown", "1", *flags])


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


def test_the_report_shows_each_source(corpus, vocab, capsys):
    command(corpus, vocab, TWO, "out", "--detect-languages", "--gates.no-fail")
    printed = capsys.readouterr().out
    assert "  source web: 65 documents in = 60 used + 5 rejected + 0 duplicate; " in printed
    assert "    rejected             5 other-language" in printed
    report = report_of(corpus / "out")
    web, zh = report["sources"]
    assert max(web["scripts"], key=web["scripts"].get) == "Latin"
    assert web["languages"]["en"] > 0.9 > zh["languages"].get("en", 0)
    assert report["languages"]["en"] > 0.4
    assert (web["files"], web["num_empty"], web["counters"]["documents_used"]) == (2, 0, 60)
    assert abs(web["share"] + zh["share"] - 1) < 1e-9
    page = (corpus / "out/report.html").read_text("utf-8")
    assert "<h2>Sources</h2>" in page and "<td>chinese</td>" in page and "<code>languages = en</code>" in page
    assert verify(str(corpus / "out"))[0] == []
    cli.main(["report", str(corpus / "out"), "--gates.no-fail"])
    assert "languages" not in report_of(corpus / "out")


def test_gates_are_checked_per_source_and_name_it(corpus, vocab, capsys):
    write(corpus / "zh.txt", chinese(40) + english(30, 900))
    loose = STRICT.replace("0.001", "0.9")
    assert command(corpus, vocab, loose, "loose", "--gates.max-border-guess", "1") == 0
    names = [(gate["name"], gate.get("source")) for gate in report_of(corpus / "loose")["gates"]]
    assert ("max_rejected", "web") in names and ("max_rejected", "chinese") in names
    assert ("max_rejected", None) not in names
    capsys.readouterr()
    assert command(corpus, vocab, STRICT, "strict") == 1
    message = capsys.readouterr().err
    assert "gate: chinese: 42.9 % of the documents were rejected, at most 0.1 %" in message
    assert "(max_rejected in [input.gates] of chinese 0.001)" in message
    assert cli.main(["report", str(corpus / "strict")]) == 1  # report.json has the limits of the source
    assert "gate: chinese: 42.9 %" in capsys.readouterr().err
    assert command(corpus, vocab, loose, "strict", "--gates.max-border-guess", "1") == 0  # the data set is unchanged


def test_documents_over_a_budget_are_not_a_fault(corpus, vocab):
    toml = BUDGETS.replace("600", "200")
    command(corpus, vocab, toml, "out", "--gates.no-fail")
    report = report_of(corpus / "out")
    assert report["sources"][1]["counters"]["rejected"]["over-budget"] > 40
    [gate] = [one for one in report["gates"] if (one["name"], one.get("source")) == ("max_rejected", "web")]
    assert gate["passed"] and gate["value"] == 5 / 65


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ("max_reject = 0.1", r"unknown key 'input\[1\].gates.max_reject': did you mean 'max_rejected'"),
        ("max_border_guess = 0.1", r"unknown key 'input\[1\].gates.max_border_guess': .*max_unknown, max_rejected"),
        ("max_rejected = 3", r"input\[1\]: --gates.max-rejected 3.0: expected a share from 0 to 1"),
        ('max_rejected = "a"', r"input\[1\].gates.max_rejected = 'a': expected a number"),
    ],
)
def test_wrong_gates_of_a_source_are_one_clear_error(corpus, vocab, gates, message):
    with pytest.raises(ValueError, match=message):
        job(corpus, f"{TWO}[input.gates]\n{gates}\n", vocab)


def test_a_data_set_without_sources_has_the_report_of_before(corpus, vocab):
    words = ["--vocab", str(vocab), "--max-seq-length", "32", "--dupe-factor", "1", "--gates.no-fail"]
    cli.main(["preprocess", "--input", f"{corpus}/web", "--out", f"{corpus}/out", *words])
    assert not {"sources", "source_gates", "languages"} & report_of(corpus / "out").keys()
