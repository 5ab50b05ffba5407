"""The charts: each number is what a slow twin counts, and each bar leads to the examples that it counts."""

import re
import shutil
from collections import Counter
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from bertloom.members import read_shard
from jobs.browser.conditions import Conditions
from jobs.browser.data_set import BrowsedDataSet
from jobs.browser.data_set_pages.charts import counts_of
from jobs.browser.filters import Filters
from jobs.browser.inputs import largest
from jobs.browser.sample_counts import ranges
from pipeline.examples.decoding import true_ids
from pipeline.text.scripts import script_of
from tests.jobs.browser.page_reader import Reader
from tests.jobs.corpus import documents, run_job, write, write_vocabulary


@pytest.fixture(scope="module")
def reader(left_out):
    return Reader(left_out)


@pytest.fixture(scope="module")
def data_set(left_out):
    return BrowsedDataSet(str(left_out), None, 1.0)


@pytest.fixture(scope="module")
def examples(data_set):
    """Every example as plain values, with its split, length and text; the data set is so small that the sample is all."""
    found = []
    for row in data_set.rows:
        for example in read_shard(f"{data_set.location}/{row['path']}").to_pylist():
            ids = true_ids(example)
            found.append(example | {"split": row["split"], "length": row["max_seq_length"], "ids": ids})
    return found


def of_length(examples, length):
    return [one for one in examples if one["length"] == length and one["split"] == "train"]


def is_content(example, at):
    return at not in (0, example["segment_b_start"] - 1, len(example["ids"]) - 1)


@pytest.fixture(scope="module", params=[32, 64])
def counted(request, data_set, examples):
    """(counts of the sample, the examples that it has)."""
    counts = counts_of(data_set, request.param)
    counts.go_on(1e9)
    chosen = {(shard, member) for shard, member, _ in counts.members}
    sampled = [
        one
        for index, one in enumerate(examples)
        if one["length"] == request.param and data_set.locate(index)[:2] in chosen
    ]
    assert len(sampled) == counts.num_examples > 1000
    return counts, sampled


def test_examples_are_counted_by_length_and_label(counted):
    counts, sampled = counted
    for label, numbers in counts.by_label.items():
        twin = [
            sum(one["next_sentence_label"] == label and each.first <= len(one["ids"]) <= each.last for one in sampled)
            for each in counts.lengths
        ]
        assert numbers.tolist() == twin and sum(twin) > 0


def test_masks_are_counted_by_position(counted):
    counts, sampled = counted
    masked = Counter(at for one in sampled for at in one["masked_lm_positions"])
    there = Counter(at for one in sampled for at in range(len(one["ids"])) if is_content(one, at))
    for counter, numbers in ((masked, counts.masked), (there, counts.maskable)):
        assert numbers.tolist() == [sum(counter[at] for at in range(r.first, r.last + 1)) for r in counts.positions]


def test_masked_tokens_are_counted_by_their_true_id(counted):
    counts, sampled = counted
    twin = Counter(word for one in sampled for word in one["masked_lm_ids"])
    assert {i: n for i, n in enumerate(counts.masked_words.tolist()) if n} == twin


def test_unknown_tokens_are_counted_by_the_source_of_their_segment(counted, data_set):
    counts, sampled = counted
    tokens, unknown = Counter(), Counter()
    documents = {one[name] for one in sampled for name in ("document_a", "document_b")}
    sources = {document: data_set.document(document)["source"] for document in documents}
    for one in sampled:
        for at, word in enumerate(one["ids"]):
            if is_content(one, at):
                source = sources[one["document_b" if at >= one["segment_b_start"] else "document_a"]]
                tokens[source] += 1
                unknown[source] += word == data_set.vocabulary.unk
    names = [row["name"] for row in data_set.manifest["inputs"]]
    assert dict(zip(names, counts.words_of_input.tolist())) == {name: tokens[name] for name in names}
    assert dict(zip(names, counts.unknown_of_input.tolist())) == {name: unknown[name] for name in names}
    assert sum(tokens.values()) > 10_000


def test_unknown_tokens_are_counted_by_the_script_of_most_words(counted, data_set):
    counts, sampled = counted
    words = data_set.vocabulary.words
    tokens, unknown = Counter(), Counter()
    for one in sampled:
        content = [words[word] for at, word in enumerate(one["ids"]) if is_content(one, at)]
        scripts = Counter(script_of(word) for word in content if not word.startswith("##"))
        letters = {name: n for name, n in scripts.items() if name in ("Latin", "Chinese characters")}
        most = max(letters.values())
        if [*letters.values()].count(most) > 1:
            script = min((name for name in letters if letters[name] == most), key=counts.scripts.names.index)
        else:
            script = max(letters, key=lambda name: letters[name])
        tokens[script] += len(content)
        unknown[script] += content.count("[UNK]")
    found = dict(zip(counts.scripts.names, counts.words_of_script.tolist()))
    assert {name: n for name, n in found.items() if n} == tokens
    found = dict(zip(counts.scripts.names, counts.unknown_of_script.tolist()))
    assert {name: n for name, n in found.items() if n} == {name: n for name, n in unknown.items() if n}


def test_exact_numbers_are_those_of_all_examples(reader, data_set, examples):
    rows = {row[0]: row for row in reader.get("d0/charts").rows}
    for length in (32, 64):
        for split in ("train", "validation"):
            mine = [one for one in examples if (one["length"], one["split"]) == (length, split)]
            shown = rows[f"length {length}, {split}"]
            assert shown[-3:-1] == [f"{len(mine):,}", f"{sum(len(one['ids']) for one in mine):,}"]
        for label, name in ((0, "next"), (1, "random")):
            number = sum(one["length"] == length and one["next_sentence_label"] == label for one in examples)
            assert rows[f"length {length}, {name}"][-2] == f"{number:,}"
    for row in data_set.manifest["inputs"]:
        assert rows[row["name"]][-2] == f"{row['tokens']:,}"


def test_each_bar_leads_to_the_examples_that_it_counts(reader, data_set, examples):
    """The sample of so small a data set is all examples of the train split."""
    page = reader.whole("d0/charts/sample?length=32")
    counts = counts_of(data_set, 32)
    counts.go_on(1e9)
    wanted = of_length(examples, 32)
    assert counts.num_examples == len(wanted)
    links = [Filters.of({name: one[0] for name, one in parse_qs(urlsplit(link).query).items()}) for link in page.links]
    assert {name for link in links for name in link.given()} == {
        *("split", "length", "label", "tokens", "masked_at", "masked", "source", "unknown", "script")
    }
    for label, numbers in counts.by_label.items():
        for each, number in zip(counts.lengths, numbers.tolist(), strict=True):
            link = Filters(split="train", length=32, label=label, tokens=each)
            assert link in links and number_of_examples(data_set, link) == number
    for link in [Filters(split="train", length=32, masked_at=counts.positions[3]), *links[-3:]]:
        assert link in links
        assert number_of_examples(data_set, link) == sum(holds(data_set, one, link) for one in wanted) > 0


def number_of_examples(data_set, filters):
    conditions = Conditions(data_set, filters)
    members = [(shard, i) for shard, row in enumerate(data_set.rows) for i in range(len(row["member_offsets"]))]
    return sum(len(conditions.rows(*member)) for member in members if conditions.shards()[member[0]])


def holds(data_set, one, filters):
    if filters.masked_at:
        return any(filters.masked_at.first <= at <= filters.masked_at.last for at in one["masked_lm_positions"])
    if filters.masked is not None:
        return filters.masked in one["masked_lm_ids"]
    words = [data_set.vocabulary.words[word] for word in one["ids"]]
    if filters.unknown and "[UNK]" not in words:
        return False
    if filters.source:
        return filters.source in (data_set.document(one[name])["source"] for name in ("document_a", "document_b"))
    scripts = Counter(script_of(word) for word in words if not word.startswith("##"))
    return max(("Latin", "Chinese characters"), key=lambda name: scripts[name]) == filters.script


def test_a_chart_can_be_read_without_seeing_it(reader):
    page = reader.whole("d0/charts/sample?length=32")
    labels = re.findall(r'<a href="[^"]*" aria-label="([^"]*)"', page.source)
    assert len(labels) == 48 and all(re.search(r": [\d.,]+ ", label) for label in labels)
    titles = re.findall(r'<figcaption id="([^"]*)">([^<]*)<', page.source)
    assert len(titles) == len(re.findall("<figure", page.source)) == 6
    for name, _ in titles:
        assert f'aria-labelledby="{name}"' in page.source
    assert page.source.count("<table") == 6


def test_many_files_are_the_largest_and_the_sum_of_the_rest(tmp_path):
    texts = documents(90)
    for i in range(30):
        write(tmp_path / f"in/{i:02}.txt", texts[3 * i : 3 * i + 3])
    run_job(tmp_path / "in", tmp_path / "out", write_vocabulary(tmp_path / "vocab.txt"))
    reader = Reader(tmp_path / "out")
    rows = reader.get("d0/charts").rows
    inputs = reader.client.app.app.state.targets.data_sets["d0"].manifest["inputs"]
    tokens = sorted((row["tokens"] for row in inputs), reverse=True)
    shown = [row[-2] for row in rows if row and row[0].endswith(".txt")]
    assert shown == [f"{number:,}" for number in tokens[:20]]
    assert [row[-2] for row in rows if row and row[0] == "10 other files"] == [f"{sum(tokens[20:]):,}"]
    assert any(row and row[0] == "10 other files" for row in reader.whole("d0/charts/sample").rows)


def test_ranges_hold_each_number_once():
    for number in range(1, 200):
        for least in (0, 1):
            found = ranges(number, least)
            assert [n for each in found for n in range(each.first, each.last + 1)] == [*range(least, least + number)]


def test_the_largest_are_chosen():
    values = np.array([5, 0, 7, 7, 1])
    assert largest(values, 2) == ([2, 3], 2, 6) and largest(values, 9) == ([2, 3, 0, 4], 0, 0)


def test_a_damaged_shard_shows_what_verify_prints(left_out, tmp_path):
    copy = shutil.copytree(left_out, tmp_path / "copy")
    for shard in (copy / "train/seq32").rglob("*.tar"):
        content = bytearray(shard.read_bytes())
        content[3000:3100] = bytes(100)
        shard.write_bytes(content)
    reader = Reader(copy)
    for _ in range(2):
        page = reader.get("d0/charts/sample?length=32", 400)
        assert re.search(r"train/seq32/copy\d/00000.tar: .*`bertloom verify", page.text)
    assert reader.get("d0/charts").rows and reader.whole("d0/charts/sample?length=64").rows


def test_a_length_that_is_not_there_is_a_clear_error(reader):
    assert "length=128: expected one of the lengths" in reader.get("d0/charts?length=128", 400).text


def test_the_page_is_in_chinese_for_a_chinese_browser(reader):
    assert "各来源的词元数" in reader.get("d0/charts", language="zh").text
    assert "各位置的掩码比例" in reader.whole("d0/charts/sample", "zh").text
