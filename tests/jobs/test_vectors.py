"""Models for vectors: sentence-transformers loads them, and `bertloom evaluate` measures as its evaluators do."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import (
    EmbeddingSimilarityEvaluator,
    InformationRetrievalEvaluator,
)
from transformers import AutoModel

import bertloom
from jobs.bench_tasks import main as bench_main
from jobs.embed import main as embed_main
from jobs.evaluate import main as evaluate_main
from jobs.export import ExportConfig, export
from jobs.finetune import finetune
from jobs.import_model import main as import_main
from model.heads import PretrainingModel
from model.hub.weights import save_pretrained
from tests.jobs.small_finetune import config
from tests.model.small_task import VOCABULARY, search_rows, small_tokenizer, write_jsonl
from tests.model.test_modern_bert import modern_config, with_random_weights

TEXTS = ["where is paris ?", "anna lives in london .", "北京是中国的首都", "good " * 100, "x"]


@pytest.fixture(scope="module")
def tuned(encoder, task_files, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("vectors") / "tuned"
    finetune(config(encoder, task_files, out, "embed", num_epochs=1.0, max_seq_length=24))
    return out


def evaluated(capsys, *words) -> dict:
    assert evaluate_main([*map(str, words), "--device", "cpu", "--json"]) is None
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("pooling, normalize", [("mean", None), ("cls", False)])
def test_sentence_transformers_loads_a_run_and_its_export_with_the_same_vectors(
    pooling, normalize, encoder, task_files, tmp_path
):
    changes = {"num_epochs": 0.2, "max_seq_length": 24, "pooling": pooling, "normalize": normalize}
    finetune(config(encoder, task_files, tmp_path / "run", "embed", **changes))
    export(ExportConfig(checkpoint=tmp_path / "run", out=tmp_path / "exported"))
    ours = bertloom.embed(tmp_path / "run", TEXTS, device="cpu")
    for directory in (tmp_path / "run" / "model", tmp_path / "exported"):
        theirs = SentenceTransformer(str(directory), device="cpu")
        assert theirs.max_seq_length == 24
        np.testing.assert_allclose(theirs.encode(TEXTS), ours, atol=1e-5)
        _, info = AutoModel.from_pretrained(directory, output_loading_info=True)
        assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert (np.abs(np.linalg.norm(ours, axis=1) - 1) < 1e-5).all() == (normalize is None)
    card = (tmp_path / "exported" / "README.md").read_text()
    assert "pipeline_tag: sentence-similarity" in card and 'SentenceTransformer("exported")' in card
    np.testing.assert_allclose(bertloom.embed(tmp_path / "exported", TEXTS, device="cpu"), ours, atol=1e-6)


def test_a_modern_bert_is_trained_for_vectors_that_sentence_transformers_has_too(task_files, tmp_path):
    model = with_random_weights(PretrainingModel(modern_config(vocab_size=len(VOCABULARY))))
    save_pretrained(model, tmp_path / "modern", small_tokenizer())
    finetune(config(tmp_path / "modern", task_files, tmp_path / "run", "embed", num_epochs=0.2, max_seq_length=24))
    directory = tmp_path / "run" / "model"
    theirs = SentenceTransformer(str(directory), device="cpu")
    np.testing.assert_allclose(theirs.encode(TEXTS), bertloom.embed(directory, TEXTS, device="cpu"), atol=1e-5)
    _, info = AutoModel.from_pretrained(directory, output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_what_sentence_transformers_saves_is_read_with_its_pooling(tuned, tmp_path):
    theirs = SentenceTransformer(str(tuned / "model"), device="cpu")
    theirs.save(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "modules.json").exists()
    np.testing.assert_allclose(bertloom.embed(tmp_path / "saved", TEXTS, device="cpu"), theirs.encode(TEXTS), atol=1e-5)


def test_embed_writes_the_vectors_of_the_model_unless_flags_say_otherwise(tuned, tmp_path):
    file = write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS])
    common = ["--model", str(tuned), "--input", str(file), "--device", "cpu", "--out"]
    embed_main([*common, str(tmp_path / "own.parquet")])
    embed_main([*common, str(tmp_path / "other.parquet"), "--pooling", "cls", "--normalize", "False"])
    own, other = (
        np.array(pq.read_table(tmp_path / name)["vector"].to_pylist()) for name in ("own.parquet", "other.parquet")
    )
    np.testing.assert_allclose(own, bertloom.embed(tuned, TEXTS, device="cpu"), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(own, axis=1), 1, atol=1e-5)
    assert np.abs(np.linalg.norm(other, axis=1) - 1).max() > 0.1


def test_an_imported_model_for_vectors_stays_one(tuned, tmp_path):
    import_main(["--hf", str(tuned / "model"), "--out", str(tmp_path / "imported")])
    ours = bertloom.embed(tmp_path / "imported", TEXTS, device="cpu")
    np.testing.assert_allclose(ours, bertloom.embed(tuned, TEXTS, device="cpu"), atol=1e-6)
    theirs = SentenceTransformer(str(tmp_path / "imported" / "model"), device="cpu")
    np.testing.assert_allclose(theirs.encode(TEXTS), ours, atol=1e-5)


@pytest.mark.parametrize(
    "file, change, message",
    [
        (
            "modules.json",
            lambda modules: modules + [{"path": "3_Dense", "type": "x.Dense"}],
            "its modules are Transformer, P",
        ),
        (
            "modules.json",
            lambda modules: [modules[0], modules[1] | {"path": "../x"}],
            "path is '../x', expected the name of",
        ),
        ("modules.json", lambda modules: {}, "modules is {}, expected a list"),
        ("modules.json", lambda modules: [{"path": ""}], "has lost a part: it has no modules.*type"),
        ("1_Pooling/config.json", lambda found: {"pooling_mode": "max"}, "the pooling is 'max': expected mean or cls"),
        (
            "1_Pooling/config.json",
            lambda found: {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            "the pooling is .*: expected mean or cls",
        ),
        ("sentence_bert_config.json", lambda found: {"do_lower_case": True}, "do_lower_case is set"),
        ("config_sentence_transformers.json", lambda found: {"default_prompt_name": "q"}, "default_prompt_name is 'q'"),
    ],
)
def test_modules_that_bertloom_does_not_have_are_refused(file, change, message, tuned, tmp_path):
    directory = shutil.copytree(tuned / "model", tmp_path / "model")
    path = directory / file
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=message):
        bertloom.embed(directory, ["a"], device="cpu")


def test_similarity_is_that_of_sentence_transformers(tuned, tmp_path, capsys):
    draw = np.random.default_rng(1)
    rows = [
        {"sentence1": row["query"], "sentence2": row["positive"], "score": round(float(draw.random()), 3)}
        for row in search_rows(30)
    ]
    found = evaluated(capsys, "--model", tuned, "--similarity", write_jsonl(tmp_path / "sts.jsonl", rows))
    theirs = EmbeddingSimilarityEvaluator(
        *([row[name] for row in rows] for name in ("sentence1", "sentence2", "score"))
    )
    expected = theirs(SentenceTransformer(str(tuned / "model"), device="cpu"))
    for name in ("spearman", "pearson"):
        assert found[name] == pytest.approx(expected[f"{name}_cosine"], abs=1e-4)
    assert found["num_pairs"] == 30 and found["num_truncated"] == 0


def test_retrieval_is_that_of_sentence_transformers_in_a_file_and_in_a_folder(tuned, tmp_path, capsys):
    draw = np.random.default_rng(3)
    words = ["paris", "london", "北京", "上海", "france", "good", "film", "capital"]
    texts = sorted({" ".join(draw.choice(words, 3)) for _ in range(60)})
    queries = {f"q{number}": " ".join(draw.choice(words, 2)) + f" {number}" for number in range(20)}
    relevant = {name: set(map(str, draw.choice(len(texts), draw.integers(1, 4)))) for name in queries}

    theirs = InformationRetrievalEvaluator(queries, {str(number): text for number, text in enumerate(texts)}, relevant)
    expected = theirs(SentenceTransformer(str(tuned / "model"), device="cpu"))
    names = {
        "ndcg_at_10": "cosine_ndcg@10",
        "mrr_at_10": "cosine_mrr@10",
        "recall_at_10": "cosine_recall@10",
        "accuracy_at_1": "cosine_accuracy@1",
    }
    rows = [
        {"query": query, "relevant": [texts[int(number)] for number in sorted(relevant[name])]}
        for name, query in queries.items()
    ]
    rows[0]["negatives"] = texts
    file = write_jsonl(tmp_path / "rows.jsonl", [{"negatives": []} | row for row in rows])
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": str(number), "title": "", "text": text} for number, text in enumerate(texts)]
    write_jsonl(folder / "corpus.jsonl", corpus)
    asked = [{"_id": name, "text": query} for name, query in queries.items()]
    write_jsonl(folder / "queries.jsonl", [*asked, {"_id": "q-none", "text": "good"}])
    lines = [f"{name}\t{number}\t1" for name in queries for number in sorted(relevant[name])]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines, "q1\t0\t0", ""]))
    plain = shutil.copytree(folder, tmp_path / "plain", ignore=shutil.ignore_patterns("qrels"))
    write_jsonl(plain / "queries.jsonl", [row | {"relevant": sorted(relevant[row["_id"]])} for row in asked])
    for path in (file, folder, plain):
        found = evaluated(capsys, "--model", tuned, "--retrieval", path)
        for name, their_name in names.items():
            assert found[name] == pytest.approx(expected[their_name], abs=1e-6), (path, name)
        assert (found["num_queries"], found["num_texts"]) == (20, len(texts))
        assert found["num_queries_without_relevant_text"] == (path == folder)


def test_faults_of_a_folder_are_named_or_counted(tuned, tmp_path, capsys):
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    write_jsonl(folder / "corpus.jsonl", [{"_id": "1", "text": "good film"}, {"_id": "2", "text": "bad film"}])
    write_jsonl(folder / "queries.jsonl", [{"_id": "a", "text": "good"}, {"_id": "b", "text": "bad"}])
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\na\t1\t1\nb\t9\t1\nother\t1\t1\n")
    words = ["--model", tuned, "--retrieval", folder]
    with pytest.raises(
        ValueError, match="1 relevant text not among the texts, such as '9': add them, or leave them out"
    ):
        evaluated(capsys, *words)
    found = evaluated(capsys, *words, "--on-bad-row", "skip")
    assert (
        found["num_queries"] == found["num_unknown_relevant_texts"] == found["num_queries_without_relevant_text"] == 1
    )
    write_jsonl(folder / "corpus.jsonl", [{"_id": "1", "text": "good film"}, {"_id": "1", "text": "bad film"}])
    with pytest.raises(ValueError, match="two texts have the id '1'"):
        evaluated(capsys, *words, "--on-bad-row", "skip")
    write_jsonl(folder / "corpus.jsonl", [{"_id": "1", "text": ""}, {"_id": "2", "text": "bad film"}])
    with pytest.raises(ValueError, match="corpus.jsonl: line 1: text is empty"):
        evaluated(capsys, *words)
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n")
    with pytest.raises(ValueError, match=r"qrels has 2 files \(dev.tsv, train.tsv\): leave one, or name one test.tsv"):
        evaluated(capsys, *words)
    (folder / "queries.jsonl").unlink()
    with pytest.raises(ValueError, match="has no queries.jsonl: expected BEIR's layout"):
        evaluated(capsys, *words)


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "give one of --data, --similarity and --retrieval"),
        (["--data", "x", "--retrieval", "y"], "give one of --data, --similarity and --retrieval"),
        (["--data", "x", "--pooling", "cls"], "are for --similarity and --retrieval: omit them"),
    ],
)
def test_what_is_measured_is_said_once(words, message, capsys):
    with pytest.raises((ValueError, SystemExit)) as error:
        evaluate_main(["--model", "m", *words])
    assert message in str(error.value) + capsys.readouterr().err


def test_scores_of_the_dev_rows_choose_the_best_model_for_texts_alone(encoder, tmp_path):
    texts = write_jsonl(tmp_path / "texts.jsonl", [{"text": row["query"]} for row in search_rows(40)])
    scored = [
        {"sentence1": row["query"], "sentence2": row["positive"], "score": number % 5}
        for number, row in enumerate(search_rows(20))
    ]
    files = {"embed": (texts, write_jsonl(tmp_path / "dev.jsonl", scored))}
    result = finetune(config(encoder, files, tmp_path / "run", "embed", num_epochs=1.0))
    assert list(result.mean) == ["spearman", "pearson"]
    content = json.loads((tmp_path / "run" / "model" / "config.json").read_text())["bertloom"]
    assert content["temperature"] == 0.05 and content["pooling"] == "mean" and not content["symmetric"]
    with pytest.raises(ValueError, match="dropout=0: the training rows are single texts"):
        finetune(config(encoder, files, tmp_path / "other", "embed", dropout=0.0))


def test_bench_tasks_compares_a_model_for_search_with_words(encoder, task_files, tmp_path, capsys):
    train, dev = task_files["embed"]
    tasks = f'num_epochs = 0.5\ndevice = "cpu"\n[search]\ntask = "embed"\ntrain = "{train}"\ndev = "{dev}"\n'
    (tmp_path / "tasks.toml").write_text(tasks)
    bench_main([str(tmp_path / "tasks.toml"), "--model", str(encoder), "--out", str(tmp_path / "bench")])
    results = json.loads((tmp_path / "bench" / "results.json").read_text())["search"]
    assert results["metric"] == "ndcg_at_10" and results["mean"]["tf-idf vectors"]["ndcg_at_10"] > 0.6
