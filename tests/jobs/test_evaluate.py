import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from jobs.evaluate import EvaluateConfig, evaluate_model, main
from jobs.export import ExportConfig, export
from model.runs.metrics import read_metrics
from tests.jobs.small_run import TINY, VOCABULARY, make_data, make_run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return make_run(data, tmp_path_factory.mktemp("runs") / "run", max_seq_length=64)


def measure(run, data, **changes):
    return evaluate_model(
        EvaluateConfig(**{"model": run, "data": str(data), "device": "cpu", "num_threads": 1} | changes)
    )


def test_results_equal_those_of_pretraining_at_the_same_checkpoint(run, data):
    line = [line for line in read_metrics(run / "metrics.jsonl") if line["split"] == "validation"][-1]
    found = measure(run, data, max_examples=40, batch_size=8)
    assert found.lengths.keys() == {32, 64} and found.lengths[64].num_examples == 40
    assert {**line, **vars(found.lengths[64])} == line
    assert found == measure(run, data, max_examples=40, batch_size=8)


def test_a_run_and_its_export_have_equal_results_at_all_lengths(run, data, tmp_path):
    export(ExportConfig(checkpoint=run, out=tmp_path / "out"))
    ours, theirs = measure(run, data), measure(tmp_path / "out", data)
    assert ours.lengths == theirs.lengths
    parts, total = ours.lengths.values(), ours.total
    assert total.num_examples == 120 and total.num_masked == sum(part.num_masked for part in parts)
    assert total.mlm_loss == pytest.approx(sum(part.mlm_loss * part.num_masked for part in parts) / total.num_masked)
    assert total.nsp_accuracy == pytest.approx(sum(part.nsp_accuracy * part.num_pairs for part in parts) / 120)


def test_results_are_printed_as_a_table_or_json(run, data, capsys):
    main(["--model", str(run), "--data", str(data), "--max-examples", "20"])
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table[2:]] == ["32", "64", "all"] and "on the validation examples" in table[0]
    main(["--model", str(run), "--data", str(data), "--max-examples", "20", "--split", "train", "--json"])
    content = json.loads(capsys.readouterr().out)
    assert content["split"] == "train" and content["all"]["num_examples"] == 40
    assert content["lengths"]["32"].keys() == {
        "mlm_loss",
        "mlm_accuracy",
        "nsp_loss",
        "nsp_accuracy",
        "num_examples",
        "num_masked",
        "num_pairs",
    }


def test_without_pairs_or_a_head_for_them_only_words_are_evaluated(run, data, tmp_path, capsys):
    bare = make_data(tmp_path / "bare", pairs=False)
    assert measure(run, bare).total.num_pairs == 0
    export(ExportConfig(checkpoint=run, out=tmp_path / "out"))
    weights = load_file(tmp_path / "out/model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "seq_relationship" not in name}
    save_file(kept, tmp_path / "out/model.safetensors")
    main(["--model", str(tmp_path / "out"), "--data", str(data), "--json"])
    content = json.loads(capsys.readouterr().out)
    assert content["all"]["nsp_loss"] is None and content["all"]["num_pairs"] == 0
    assert content["all"]["mlm_loss"] == pytest.approx(measure(run, data).total.mlm_loss)
    main(["--model", str(tmp_path / "out"), "--data", str(data)])
    assert "the model has no head for next sentence prediction: pairs were not evaluated" in capsys.readouterr().out


def test_lengths_above_the_models_positions_are_reported(data, tmp_path, capsys):
    short = make_run(
        data, tmp_path / "short", num_steps=1, model=type(TINY)(**vars(TINY) | {"max_position_embeddings": 32})
    )
    assert measure(short, data).too_long == [64]
    main(["--model", str(short), "--data", str(data)])
    assert "length 64 was not evaluated: the model has fewer positions" in capsys.readouterr().out
    long = make_data(tmp_path / "long", max_seq_lengths=(64,))
    with pytest.raises(ValueError, match="has 32 positions, but the shortest length of .* is 64"):
        measure(short, long)


def test_a_model_that_does_not_fit_the_data_set_is_refused(run, data, tmp_path):
    other = make_data(tmp_path / "other", vocabulary=VOCABULARY.replace(b"house", b"home"))
    with pytest.raises(ValueError, match="'home' and 'house'; preprocess with the model's vocab.txt"):
        measure(run, other)
    empty = make_data(tmp_path / "empty", num_validation=0)
    with pytest.raises(ValueError, match="has no validation examples: preprocess with a --validation-fraction"):
        measure(run, empty)
    export(ExportConfig(checkpoint=run, out=tmp_path / "out"))
    weights = load_file(tmp_path / "out/model.safetensors")
    save_file(
        {n: tensor for n, tensor in weights.items() if "predictions" not in n}, tmp_path / "out/model.safetensors"
    )
    with pytest.raises(ValueError, match="which has no head for masked words"):
        measure(tmp_path / "out", data)
    with pytest.raises(ValueError, match="max_examples=0 must be at least 1"):
        measure(run, data, max_examples=0)
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(ValueError, match="out is no model"):
        measure(tmp_path / "out", data)
