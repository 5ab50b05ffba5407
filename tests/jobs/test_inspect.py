"""`bertloom inspect` shows what is in a data set or a shard, and examples as text with their masks marked."""

import json
import shutil

import pytest

from bertloom.members import read_shard
from jobs import cli
from jobs.inspect_shards import InspectConfig, inspect
from pipeline.examples.decoding import decode
from pipeline.vocabulary import Vocabulary
from pipeline.vocabulary_files import read_vocabulary
from tests.jobs.corpus import documents, run_job, write, write_vocabulary

WORDS = ("[PAD] [UNK] [CLS] [SEP] [MASK] we know ##ing ##s paris is , . 上 海 很 大 。 ## cat ##er").split()
VOCABULARY = Vocabulary(tuple(WORDS))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect")
    source = write(folder / "in.txt", documents(150))
    run_job(source, folder / "out", write_vocabulary(folder / "vocab.txt"))
    return folder / "out"


def shown(words, masks, label=0):
    """(A, B) as decoded; `masks`: position -> the true word."""
    words = words.split()
    row = {
        "input_ids": [WORDS.index(word) for word in words],
        "segment_b_start": words.index("[SEP]") + 1,
        "masked_lm_positions": sorted(masks),
        "masked_lm_ids": [WORDS.index(masks[at]) for at in sorted(masks)],
        "next_sentence_label": label,
        "document_a": 255,
        "token_a": 3,
        "document_b": 2**63,
        "token_b": 0,
    }
    found = decode(row, VOCABULARY, {0: "next", 1: "random"})
    return found["a"], found["b"]


def test_masked_replaced_and_kept_words_are_marked_in_english():
    text = "[CLS] we [MASK] ##ing paris [SEP] cat is paris . [SEP]"
    masks = {2: "know", 4: "paris", 6: "we", 9: "."}
    assert shown(text, masks) == ("we ⟦MASK→know⟧ing ⟦=paris⟧", "⟦cat→we⟧ is paris ⟦=.⟧")


def test_a_masked_piece_is_shown_without_a_space():
    assert shown("[CLS] know [MASK] ##s [SEP] paris ##er [SEP]", {2: "##ing", 6: "##s"}) == (
        "know⟦MASK→ing⟧s",
        "paris⟦er→s⟧",
    )
    assert shown("[CLS] know ##s [SEP] ## is [SEP]", {2: "we", 4: "##"}) == ("know ⟦s→we⟧", "⟦=##⟧ is")


def test_chinese_has_no_spaces_around_its_masks():
    assert shown("[CLS] 上 [MASK] 很 大 。 [SEP] 海 cat 上 is 大 [SEP]", {2: "海", 7: "海", 8: "大", 10: "is"}) == (
        "上⟦MASK→海⟧很大。",
        "⟦=海⟧⟦cat→大⟧上 ⟦=is⟧ 大",
    )


def test_documents_are_named_by_16_hexadecimal_digits(whole):
    found = inspect(InspectConfig(path=str(whole), examples=1))["examples"][0]
    assert len(found["document_a"]) == len(found["document_b"]) == 16 and int(found["document_a"], 16) >= 0


def test_a_decoded_example_equals_the_text_of_its_source(whole):
    """Without the marks its words are a passage of the corpus."""
    text = " ".join(paragraph.lower() for paragraphs in documents(150) for paragraph in paragraphs)
    squeezed = "".join(text.split())
    for example in inspect(InspectConfig(path=str(whole), examples=60, max_seq_length=64))["examples"]:
        for segment in (example["a"], example["b"]):
            plain = ""
            for part in segment.replace("⟦", "\0").replace("⟧", "\0").split("\0"):
                plain += part.split("→")[-1] if "→" in part else part.removeprefix("=")
            assert "".join(plain.split()) in squeezed


def test_statistics_equal_a_count_of_the_rows(whole):
    path = whole / "train/seq32/copy0/00000.tar"
    rows = read_shard(str(path)).to_pylist()
    found = inspect(InspectConfig(path=str(path)))
    counted = found["statistics"]
    lengths = [len(row["input_ids"]) for row in rows]
    labels = [row["next_sentence_label"] for row in rows]
    assert counted["examples"] == len(rows) and counted["tokens"] == sum(lengths)
    assert counted["labels"] == {"next": labels.count(0), "random": labels.count(1)}
    assert counted["length_quartiles"][0] == min(lengths) and counted["length_quartiles"][-1] == max(lengths)
    assert sum(counted["length_histogram"].values()) == len(rows)
    mask = read_vocabulary(str(whole / "vocab.txt")).mask
    drawn = {"mask": 0, "random": 0, "kept": 0}
    for row in rows:
        for position, truth in zip(row["masked_lm_positions"], row["masked_lm_ids"], strict=True):
            there = row["input_ids"][position]
            drawn["mask" if there == mask else "kept" if there == truth else "random"] += 1
    total = sum(drawn.values())
    assert counted["masks_as_drawn"] == {name: round(number / total, 4) for name, number in drawn.items()}
    next_b = [len(row["input_ids"]) - row["segment_b_start"] - 1 for row in rows if row["next_sentence_label"] == 0]
    assert counted["segment_b_mean"]["next"] == round(sum(next_b) / len(next_b), 2)
    assert list(found["schema"]) == list(rows[0])


def test_the_command_prints_counts_columns_lengths_and_examples(whole, capsys):
    assert cli.main(["inspect", str(whole), "--examples", "4"]) == 0
    out = capsys.readouterr().out
    counters = json.loads((whole / "manifest.json").read_text())["counters"]
    assert f"documents {counters['documents_in']:,} in = {counters['documents_used']:,} used" in out
    assert f"examples of {whole}/train/seq32/copy0/00000.tar" in out
    assert "input_ids            list<item: uint16 not null>" in out
    assert out.count("\nexample ") == 4 and "\n  A " in out and "⟦MASK→" in out


def test_an_example_with_one_segment_is_shown_without_b(tmp_path, capsys):
    source, vocab = write(tmp_path / "in.txt", documents(20)), write_vocabulary(tmp_path / "vocab.txt")
    run_job(source, tmp_path / "out", vocab, pairs="none")
    capsys.readouterr()
    assert cli.main(["inspect", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert out.count("\n  A ") == out.count("\nexample ") == 3 and "\n  B " not in out


def test_the_json_has_what_the_text_has(whole, capsys):
    assert cli.main(["inspect", str(whole), "--json", "--examples", "5", "--seed", "3"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == inspect(InspectConfig(path=str(whole), examples=5, seed=3))
    assert len(found["examples"]) == 5 and found["shards"] == 8
    assert cli.main(["inspect", str(whole), "--examples", "5", "--seed", "3"]) == 0
    text = capsys.readouterr().out
    assert all(example["a"] in text and f"example {example['row']}: " in text for example in found["examples"])


def test_the_seed_decides_which_examples_are_shown(whole):
    rows = [
        [example["row"] for example in inspect(InspectConfig(path=str(whole), seed=seed))["examples"]]
        for seed in (1, 1, 2)
    ]
    assert rows[0] == rows[1] != rows[2]


def test_split_and_length_choose_the_shard(whole):
    found = inspect(InspectConfig(path=str(whole), split="validation", max_seq_length=64))
    assert found["shard"] == f"{whole}/validation/seq64/copy0/00000.tar"
    assert found["metadata"]["max_seq_length"] == "64"


def test_a_shard_outside_its_data_set_is_decoded_with_a_given_vocabulary(whole, tmp_path, capsys):
    path = shutil.copyfile(whole / "train/seq32/copy0/00000.tar", tmp_path / "away.tar")
    assert "examples" not in inspect(InspectConfig(path=str(path)))
    assert cli.main(["inspect", str(path)]) == 0
    assert "unknown without a vocabulary" in capsys.readouterr().out
    assert len(inspect(InspectConfig(path=str(path), vocab=str(whole / "vocab.txt")))["examples"]) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{tmp}/nothing"], "/nothing does not exist: expected a folder with manifest.json"),
        (["{tmp}"], " is not a data set, or not a finished one: expected a folder with manifest.json"),
        (["{tmp}/nothing.tar"], "nothing.tar cannot be read as a shard"),
        (["{tmp}/empty.tar"], "empty.tar cannot be read as a shard"),
        (["{tmp}/text.tar"], "text.tar cannot be read as a shard"),
        (["{tmp}/text.txt"], "text.txt is not a data set"),
        (["{set}", "--split", "test"], "--split test: the data set has train and validation"),
        (["{set}", "--max-seq-length", "128"], "--max-seq-length 128: the data set has 32, 64"),
        (["{set}", "--examples", "-1"], "--examples -1: expected 0 or more"),
        (["{set}", "--vocab", "{tmp}/other.txt"], "was not made with the vocabulary of"),
    ],
)
def test_what_cannot_be_shown_is_a_clear_error(whole, tmp_path, capsys, words, message):
    (tmp_path / "empty.tar").write_bytes(b"\0" * 1024)
    (tmp_path / "text.tar").write_bytes(b"no archive\n" * 200)
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "other.txt").write_text("".join(f"{word}\n" for word in WORDS if word != "##er"))
    assert cli.main(["inspect", *(word.format(tmp=tmp_path, set=whole) for word in words)]) == 2
    out, err = capsys.readouterr()
    assert message in err and "Traceback" not in err and not out


def test_a_data_set_without_its_list_of_shards_is_a_clear_error(whole, tmp_path, capsys):
    copy = shutil.copytree(whole, tmp_path / "set")
    (copy / "shards.parquet").write_bytes(b"nothing")
    assert cli.main(["inspect", str(copy)]) == 2
    assert "shards.parquet" in capsys.readouterr().err
    (copy / "shards.parquet").unlink()
    assert cli.main(["inspect", str(copy)]) == 2
    assert "shards.parquet" in capsys.readouterr().err
    (copy / "manifest.json").write_text("{")
    assert cli.main(["inspect", str(copy)]) == 2
    assert "manifest.json" in capsys.readouterr().err
