"""Sources of --inputs: their names, cleaning, budgets and counts, and a data set for each of them."""

import gzip
import json
import shutil
from pathlib import Path

import pytest

from bertloom.manifest import manifest_sha256, manifest_text, read_dataset
from jobs import cli
from jobs.explain import main as explain
from jobs.preprocess import PreprocessConfig, make_all
from jobs.verify import verify
from pipeline.options import compose
from tests.jobs.corpus import digests, run_job, shard_digests, write

ENGLISH = [
    "The river rises in the hills and flows through three old towns before it reaches the sea.",
    "Many small boats cross the lake in summer, when the weather is warm and the days are long.",
    "A teacher wrote the first history of the village and printed it in her own house.",
    "The bridge was built of stone from a quarry that had been closed for a hundred years.",
    "In winter the road over the pass is closed, and letters arrive only once a week.",
    "The library has a room for children, a garden, and a collection of early maps.",
    "Farmers bring apples and honey to the market on the first Saturday of each month.",
    "The railway station is a museum now, and trains stop there only on holidays.",
]
CHINESE = [
    "这条河发源于山区，流经三座古城，最后注入大海。夏天有许多小船来往。",
    "湖边的村庄里有一座石桥，是一百年前用附近的石头建成的。冬天很少有人来。",
    "学校的老师写了第一本村史，并在自己家里印了出来。孩子们都喜欢读这本书。",
    "冬天山路封闭，信件每周只送一次。人们在家里喝茶，讲从前的故事。",
    "图书馆里有儿童阅览室，还有一座花园和许多旧地图。星期天也开门。",
    "每个月的第一个星期六，农民把苹果和蜂蜜带到集市上。城里的人都来买。",
    "火车站现在是一座博物馆，只有节日才有火车停靠。门口有两棵大树。",
    "这座城市的历史很长，城墙和钟楼都保存得很好。晚上的灯光非常漂亮。",
]
ONE = {"max_seq_length": (32,), "dupe_factor": 1, "validation_fraction": 0.0}


def english(number: int, first: int = 0) -> list[list[str]]:
    return [[f"{ENGLISH[i % 8]} {ENGLISH[(i // 8 + i) % 8]} It is page {i}."] for i in range(first, first + number)]


def chinese(number: int, first: int = 0) -> list[list[str]]:
    return [[f"{CHINESE[i % 8]}{CHINESE[(i // 8 + i) % 8]}这是第{i}页。"] for i in range(first, first + number)]


@pytest.fixture
def corpus(tmp_path) -> Path:
    """English with some Chinese pages, Chinese with some English ones, and a few texts of both again."""
    write(tmp_path / "web/a.jsonl", english(40) + chinese(5, 900))
    write(tmp_path / "web/b.txt", english(20, 40))
    write(tmp_path / "zh.txt", chinese(50) + english(4, 900))
    write(tmp_path / "small/both.txt", english(3) + chinese(3) + english(12, 500))
    return tmp_path


def job(folder: Path, toml: str, vocab: Path, out: str = "out", **options) -> list[dict]:
    (folder / "corpus.toml").write_text(toml.replace("DIR", str(folder)), "utf-8")
    config = {**ONE, **options}
    found = make_all(
        compose(PreprocessConfig, inputs=f"{folder}/corpus.toml", vocab=str(vocab), out=str(folder / out), **config)
    )
    assert found is not None
    return found


TWO = """
[[input]]
path = "DIR/web/"
languages = "en"

[[input]]
name = "chinese"
path = "DIR/zh.txt"
languages = ["zh"]
min_characters = 20
"""
BUDGETS = """
[[input]]
path = "DIR/small/*.txt"

[[input]]
path = "DIR/web/"
languages = "en"
tokens = 600

[[input]]
path = "DIR/zh.txt"
sample = 20
"""


def test_each_source_has_its_own_cleaning_and_counts(corpus, vocab, capsys):
    [manifest] = job(corpus, TWO, vocab)
    web, zh = manifest["sources"]
    assert (web["name"], web["options"], web["files"]) == ("web", {"languages": ["en"]}, 2)
    assert (zh["name"], zh["options"], zh["files"]) == ("chinese", {"languages": ["zh"], "min_characters": 20}, 1)
    assert web["counters"]["rejected"] == {"other-language": 5}
    assert zh["counters"]["rejected"] == {"other-language": 4}
    assert (web["counters"]["documents_used"], zh["counters"]["documents_used"]) == (60, 50)
    for name in ("documents_in", "documents_used", "documents_rejected", "documents_duplicate", "sentences", "tokens"):
        assert web["counters"][name] + zh["counters"][name] == manifest["counters"][name]
    examples = web["counters"]["examples"]["32"] + zh["counters"]["examples"]["32"]
    assert examples == manifest["counters"]["pairs"]["pairs/32"]
    assert {row["name"]: row["source"] for row in manifest["inputs"]} == {
        "a.jsonl": "web",
        "b.txt": "web",
        "zh.txt": "chinese",
    }
    assert verify(str(corpus / "out"))[0] == []
    assert explain([str(corpus / "out"), "3"]) == 0
    assert "the whole shard has the same sha256" in capsys.readouterr().out


def test_one_source_with_options_gives_the_shards_of_the_flags(corpus, vocab):
    toml = '[[input]]\npath = "DIR/web/"\nlanguages = "en"\nsample = 30\nmin_characters = 40\n'
    job(corpus, toml, vocab)
    flags = {"languages": ("en",), "sample": 30, "min_characters": 40}
    run_job(corpus / "web", corpus / "flags", vocab, **ONE, **flags)
    assert shard_digests(corpus / "out") == shard_digests(corpus / "flags")


def test_a_budget_is_kept_and_what_is_over_it_is_listed(corpus, vocab):
    [manifest] = job(corpus, BUDGETS, vocab)
    small, web, zh = manifest["sources"]
    assert 500 < web["counters"]["tokens"] <= 600
    over = web["counters"]["rejected"]["over-budget"]
    assert web["options"] == {"languages": ["en"], "tokens": 600}
    assert (web["counters"]["documents_duplicate"], small["counters"]["documents_duplicate"]) == (3, 0)
    assert zh["options"] == {"sample": 20}
    assert zh["counters"]["documents_used"] + zh["counters"]["documents_duplicate"] == 20
    with gzip.open(corpus / "out/rejects/rejects.jsonl.gz", "rt") as file:
        rejects = [json.loads(line) for line in file]
    assert sum(reject["reason"] == "over-budget" for reject in rejects) == over
    assert {reject["source"] for reject in rejects if reject["reason"] == "over-budget"} == {"a.jsonl", "b.txt"}
    assert verify(str(corpus / "out"))[0] == []


def test_a_larger_budget_includes_the_documents_of_a_smaller_one(corpus, vocab):
    ids = []
    for tokens in (600, 900):
        job(corpus, BUDGETS.replace("600", str(tokens)), vocab, out=f"out{tokens}")
        manifest, _ = read_dataset(str(corpus / f"out{tokens}"))
        ids.append({row for name in manifest["documents"] for row in ids_of(corpus / f"out{tokens}" / name)})
    assert ids[0] < ids[1]


def ids_of(path: Path) -> list[int]:
    import pyarrow.parquet as pq

    return pq.read_table(path)["id"].to_pylist()


@pytest.mark.parametrize("per_source", [False, True])
def test_splits_and_workers_do_not_change_a_byte(corpus, vocab, per_source):
    options = {"per_source": per_source, "near_duplicates": 0.9}
    job(corpus, BUDGETS, vocab, out="one", **options)
    job(corpus, BUDGETS, vocab, out="two", num_workers=2, split_mb=0.0005, **options)
    names = ("small", "web", "zh") if per_source else (".",)
    for name in names:
        one, two = (digests(corpus / out / name, "train/", "shards.parquet", "documents/") for out in ("one", "two"))
        assert one == two and one
        assert verify(str(corpus / "one" / name))[0] == []


def test_a_data_set_for_each_source(corpus, vocab, capsys):
    manifests = job(corpus, BUDGETS, vocab, per_source=True)
    assert [Path(manifest["out"]).name for manifest in manifests] == ["small", "web", "zh"]
    assert sorted(path.name for path in (corpus / "out").iterdir() if path.name != ".lock") == ["small", "web", "zh"]
    ids = []
    for manifest in manifests:
        assert verify(manifest["out"])[0] == []
        [source] = manifest["sources"]
        for name in ("documents_in", "documents_used", "documents_rejected", "documents_duplicate", "tokens"):
            assert source["counters"][name] == manifest["counters"][name], name
        assert {row["source"] for row in manifest["inputs"]} == {source["name"]}
        ids.append({row for name in manifest["documents"] for row in ids_of(Path(manifest["out"]) / name)})
        assert explain([manifest["out"], "1"]) == 0
    assert not (ids[0] & ids[1] or ids[0] & ids[2] or ids[1] & ids[2])
    [one] = job(corpus, BUDGETS, vocab, out="one")
    assert set.union(*ids) == {row for name in one["documents"] for row in ids_of(corpus / "one" / name)}
    capsys.readouterr()
    job(corpus, BUDGETS, vocab, per_source=True)
    assert "already complete: nothing to do" in capsys.readouterr().err


def test_the_first_source_alone_has_the_same_shards(corpus, vocab):
    job(corpus, TWO, vocab, per_source=True)
    job(corpus, TWO.partition("[[input]]\nname")[0], vocab, out="alone")
    assert shard_digests(corpus / "out/web") == shard_digests(corpus / "alone")


def test_files_of_input_are_one_more_source(corpus, vocab):
    toml = '[[input]]\npath = "DIR/zh.txt"\n'
    [manifest] = job(corpus, toml, vocab, input=(str(corpus / "web"), str(corpus / "zh.txt")))
    assert [source["name"] for source in manifest["sources"]] == ["zh", "input"]
    assert [source["files"] for source in manifest["sources"]] == [1, 2]


def test_texts_of_the_validation_split_belong_to_no_source(corpus, vocab):
    write(corpus / "held.txt", english(10))
    [manifest] = job(corpus, BUDGETS, vocab, validation_input=(str(corpus / "held.txt"),))
    sums = [sum(source["counters"][name] for source in manifest["sources"]) for name in ("documents_in", "tokens")]
    assert sums[0] == manifest["counters"]["documents_in"] - 10
    assert verify(str(corpus / "out"))[0] == []


def test_another_table_for_a_file_is_another_job(corpus, vocab):
    toml = '[[input]]\npath = "DIR/web/"\n[[input]]\npath = "DIR/{}"\nname = "second"\n'
    write(corpus / "web/c.txt", english(8, 700))
    job(corpus, toml.format("web/b.txt"), vocab)
    with pytest.raises(ValueError, match="made from other input files"):
        job(corpus, toml.format("web/c.txt"), vocab)
    with pytest.raises(ValueError, match="the sources of --inputs, or --per-source, differ"):
        job(corpus, toml.format("web/b.txt") + "tokens = 500\n", vocab)
    with pytest.raises(ValueError, match="the sources of --inputs, or --per-source, differ"):
        job(corpus, toml.format("web/b.txt"), vocab, per_source=True)


def test_a_folder_with_the_data_sets_of_sources_is_not_one_data_set(corpus, vocab):
    job(corpus, TWO, vocab, per_source=True)
    with pytest.raises(ValueError, match="out holds the data set chinese of another job"):
        job(corpus, TWO, vocab)
    with pytest.raises(ValueError, match="it holds other data sets: give one of them, such as .*/out/chinese"):
        verify(str(corpus / "out"))
    with pytest.raises(ValueError, match="it holds other data sets: give one of them, such as .*/out/chinese"):
        read_dataset(str(corpus / "out"))


@pytest.mark.parametrize("per_source", [False, True])
def test_a_source_without_a_document_left_is_an_error(corpus, vocab, per_source):
    toml = TWO + '\n[[input]]\nname = "french"\npath = "DIR/small/"\nlanguages = "fr"\n'
    with pytest.raises(ValueError, match=r"the source french has no document left \(18 other-language\): change"):
        job(corpus, toml, vocab, per_source=per_source)
    toml = TWO + '\n[[input]]\npath = "DIR/small/"\ntokens = 1\n'
    with pytest.raises(ValueError, match=r"small has no document left \(.* over its budget of 1 tokens"):
        job(corpus, toml, vocab, per_source=per_source)
    toml = TWO + '\n[[input]]\nname = "all"\npath = ["DIR/web/", "DIR/small/"]\n'
    with pytest.raises(ValueError, match="the source web has no file, because other tables of --inputs name all"):
        job(corpus, toml, vocab, per_source=per_source)
    job(corpus, TWO, vocab, per_source=per_source)  # in the same folder


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('name = "a/b"', r"input\[0\]: name = 'a/b': expected up to 100 letters"),
        ('name = ".."', "expected up to 100 letters"),
        ('name = "Manifest.json"', "and not manifest.json, because a folder may get this name"),
        ("tokens = 0", r"input\[0\]: tokens = 0: expected the largest number of tokens to use, from 1"),
        ("tokens = 1.5", r"input\[0\].tokens = 1.5: expected an integer"),
        ("tokens = 5\nsample = 0.5", "sample = 0.5 and tokens = 5: both limit how much of the source is used"),
        ("sample = 0", "--sample 0.0: expected a share above 0"),
        ('languages = "xx"', "--languages xx: unknown. Expected some of the codes"),
        ("languages = 3", r"input\[0\].languages = 3: expected a list"),
        ('language = "en"', "unknown key 'input\\[0\\].language': did you mean 'languages'"),
        ('min_characters = "5"', r"input\[0\].min_characters = '5': expected an integer"),
        ("zzz = 1", r"unknown key 'input\[0\].zzz': the keys here are path, name, like, tokens"),
    ],
)
def test_wrong_options_of_a_source_are_one_clear_error(corpus, vocab, table, message):
    with pytest.raises(ValueError, match=message):
        job(corpus, f'[[input]]\npath = "DIR/web"\n{table}\n', vocab)


def test_a_name_twice_is_an_error(corpus, vocab):
    toml = '[[input]]\npath = "DIR/web"\nname = "a"\n[[input]]\npath = "DIR/zh.txt"\nname = "A"\n'
    with pytest.raises(
        ValueError, match=r"input\[1\] has the name 'A', as input\[0\] has: give each table its own name"
    ):
        job(corpus, toml, vocab)


def test_a_source_whose_documents_give_no_example_is_named(corpus, vocab):
    write(corpus / "words.txt", [["a"], ["b"]])
    with pytest.raises(ValueError, match="the source words: --max-seq-length 32: the documents give no example"):
        job(corpus, TWO + '\n[[input]]\npath = "DIR/words.txt"\n', vocab, per_source=True)


def test_a_data_set_for_each_source_needs_sources(corpus, vocab):
    with pytest.raises(ValueError, match="--per-source: the sources are the tables of a TOML file"):
        run_job(corpus / "web", corpus / "out", vocab, **ONE, per_source=True)
    with pytest.raises(ValueError, match="--per-source and --validation-input"):
        job(corpus, TWO, vocab, per_source=True, validation_input=(str(corpus / "zh.txt"),))


def test_the_vocabulary_and_the_preview_use_the_cleaning_of_each_source(corpus, vocab, capsys):
    toml = corpus / "corpus.toml"
    toml.write_text((TWO + "tokens = 100\n").replace("DIR", str(corpus)), "utf-8")
    assert cli.main(["build-vocab", "--inputs", str(toml), "--vocab-size", "300", "--out", f"{corpus}/v.txt"]) == 0
    printed = capsys.readouterr()
    assert "from       110 documents" in printed.out and "9 other-language" in printed.out
    assert "chinese: tokens = 100 is for `bertloom preprocess`" in printed.err
    assert cli.main(["preview", "--inputs", str(toml)]) == 0
    printed = capsys.readouterr().out
    assert cli.main(["preview", "--inputs", str(toml), "--html", f"{corpus}/preview.html"]) == 0
    assert "<h2>web: 1 file, JSON Lines</h2>" in (corpus / "preview.html").read_text("utf-8")
    assert "web: 1 file, JSON Lines" in printed and "rejected    5 other-language" in printed
    assert "chinese: tokens = 100 is for `bertloom preprocess`" in printed


def test_other_jobs_share_the_tokens_of_a_source(corpus, vocab, capsys):
    job(corpus, TWO, vocab, out="one", work_dir=str(corpus / "work"))
    capsys.readouterr()
    order = "[[input]]\nname" + TWO.partition("[[input]]\nname")[2] + TWO.partition("[[input]]\nname")[0]
    [manifest] = job(corpus, order, vocab, out="two", work_dir=str(corpus / "work"))
    assert "3 of 3 splits tokenized" in capsys.readouterr().err
    assert [source["name"] for source in manifest["sources"]] == ["chinese", "web"]
    assert manifest["sources"][0]["counters"]["documents_used"] == 50


def test_a_data_set_of_sources_is_extended(corpus, vocab, capsys):
    toml = TWO.replace('languages = ["zh"]\n', "")
    job(corpus, toml, vocab)
    write(corpus / "web/c.txt", english(8, 30) + english(12, 700))  # 8 are known
    [manifest] = job(corpus, toml, vocab, out="more", extend=(str(corpus / "out"),))
    web, zh = manifest["sources"]
    assert (web["counters"]["documents_used"], web["counters"]["documents_duplicate"]) == (12, 8)
    assert (zh["files"], zh["counters"]["documents_in"]) == (0, 0)
    assert verify(str(corpus / "more"))[0] == []
    assert "the options of the source" not in capsys.readouterr().err
    run_job(corpus / "web/c.txt", corpus / "flags", vocab, extend=(str(corpus / "out"),), **ONE)
    said = capsys.readouterr().err
    assert "the options of the source web differ from those in out (languages en): to have the same, give" in said
    assert "the options of the source chinese differ from those in out (min_characters 20)" in said
    with pytest.raises(ValueError, match="--extend and tokens of the source web: a budget would not count"):
        job(corpus, BUDGETS, vocab, out="again", extend=(str(corpus / "out"),))
    with pytest.raises(ValueError, match="--per-source and --extend: the data sets of sources cannot be extended"):
        job(corpus, toml, vocab, out="again", extend=(str(corpus / "out"),), per_source=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory, vocab) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write(folder / "web/a.jsonl", english(40))
    write(folder / "zh.txt", chinese(50))
    job(folder, TWO, vocab)
    return folder / "out"


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.update(sources=3),
        lambda manifest: manifest.update(sources=[{}]),
        lambda manifest: manifest["sources"].pop(),
        lambda manifest: manifest["sources"][0].update(name=[]),
        lambda manifest: manifest["sources"][0].update(files=-1),
        lambda manifest: manifest["sources"][0].update(files=9),
        lambda manifest: manifest["sources"][0].update(options={"languages": 3}),
        lambda manifest: manifest["sources"][0].update(options={"seed": 3}),
        lambda manifest: manifest["sources"][0].update(options={"sample": -1.0, "tokens": []}),
        lambda manifest: manifest["sources"][0]["counters"].update(documents_used=1),
        lambda manifest: manifest["sources"][0]["counters"].update(tokens=1),
        lambda manifest: manifest["sources"][0]["counters"].update(rejected={"a": "b"}),
        lambda manifest: manifest["inputs"][0].update(source=[]),
        lambda manifest: manifest["inputs"][0].update(source="another"),
    ],
)
def test_a_strange_list_of_sources_is_refused_or_read(made, tmp_path, change, capsys):
    dataset = tmp_path / "set"
    shutil.copytree(made, dataset)
    manifest = json.loads((dataset / "manifest.json").read_text())
    change(manifest)
    manifest["sha256"] = manifest_sha256(manifest)
    (dataset / "manifest.json").write_bytes(manifest_text(manifest))
    assert verify(str(dataset))[0]
    for words in (["report", str(dataset), "--gates.no-fail"], ["explain", str(dataset), "1"]):
        assert cli.main(words) in (0, 1, 2)
        assert "Traceback" not in capsys.readouterr().err
