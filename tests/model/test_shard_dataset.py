"""The data set for other trainers: the order of `pretrain`, exact states, workers, ranks and transformers' names."""

import subprocess
import sys
from itertools import islice

import pytest
import torch
from torch.utils.data import DataLoader

import bertloom
from model.loading.data import DataSet
from tests.model.synthetic import SPECIAL, write_data_set

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # more workers than cores
ROWS = (70, 50)


@pytest.fixture(scope="module")
def location(tmp_path_factory):
    """Two copies of 70 and of 50 examples, of two lengths."""
    folder = tmp_path_factory.mktemp("shards") / "dataset"
    return write_data_set(folder, rows=ROWS, max_seq_lengths=(16, 24), num_validation=10)


def tokens(batch: dict[str, torch.Tensor]) -> list[tuple[int, ...]]:
    return [tuple(row[mask == 1].tolist()) for row, mask in zip(batch["input_ids"], batch["attention_mask"])]


def all_tokens(batches) -> list[tuple[int, ...]]:
    return [row for batch in batches for row in tokens(batch)]


def in_the_order_of_pretrain(location, start: int, stop: int, length: int = 16, seed: int = 3) -> list[tuple[int, ...]]:
    examples = DataSet(location).examples("train", length)
    batch = examples.gather(*examples.order(seed, "global").items(start, stop))
    return [tuple(ids.tolist()) for ids in batch.input_ids.split(list(batch.lengths))]


def make(location, **options) -> bertloom.ShardDataset:
    return bertloom.ShardDataset(location, **{"seed": 3, "batch_size": 8, **options})


def test_an_epoch_has_each_example_once_in_the_order_of_pretrain(location):
    data = make(location)
    for epoch, rows in enumerate((70, 50, 70)):
        start = sum((70, 50)[:epoch]) if epoch < 2 else 120
        assert all_tokens(data) == in_the_order_of_pretrain(location, start, start + rows)
    data.set_epoch(1)
    assert all_tokens(data) == in_the_order_of_pretrain(location, 70, 120)


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_the_number_of_workers_changes_neither_the_order_nor_the_state(location, num_workers, persistent):
    alone, data = make(location), make(location)
    loader = data.loader(num_workers=num_workers, persistent_workers=persistent)
    for _ in range(2):
        assert all_tokens(loader) == all_tokens(alone)
        assert data.state_dict() == alone.state_dict()


@pytest.mark.parametrize("workers", [(0, 0), (2, 0), (0, 2), (1, 2)])
def test_a_loop_that_stops_in_the_middle_goes_on_with_the_next_example(location, workers):
    """Also with another batch size."""
    data = make(location)
    read = all_tokens(islice(data.loader(num_workers=workers[0]), 3))
    state = data.state_dict()
    assert len(read) == 24 and state["position"] == 24
    other = make(location, batch_size=5)
    other.load_state_dict(state)
    read += all_tokens(other.loader(num_workers=workers[1]))
    assert read == in_the_order_of_pretrain(location, 0, 70)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_ranks_share_each_global_batch_and_cover_each_example_once(location, num_workers):
    ranks = [make(location, rank=rank, num_ranks=2) for rank in range(2)]
    found = [[tokens(batch) for batch in data.loader(num_workers=num_workers)] for data in ranks]
    assert [len(batches) for batches in found] == [5, 5]
    together = [row for pair in zip(*found) for part in pair for row in part]
    assert together == in_the_order_of_pretrain(location, 0, 70)
    assert ranks[0].state_dict() == ranks[1].state_dict()
    other = make(location, rank=2, num_ranks=3)
    other.load_state_dict(ranks[0].state_dict())
    assert all_tokens(other)[:8] == in_the_order_of_pretrain(location, 70 + 16, 70 + 24)


def test_a_rank_without_examples_in_the_last_batch_has_the_same_state(location):
    """Of 70 examples, 69 are in batches of three ranks."""
    ranks = [make(location, batch_size=1, rank=rank, num_ranks=3) for rank in range(3)]
    assert sorted(len(all_tokens(data)) for data in ranks) == [23, 23, 24]
    assert len({str(data.state_dict()) for data in ranks}) == 1


def test_phases_follow_each_other_and_go_on_where_a_length_was_left(location):
    data = make(location, phases=[(16, 20), (24, 9), (16, 13)])
    expected = [
        *in_the_order_of_pretrain(location, 0, 20),
        *in_the_order_of_pretrain(location, 0, 9, 24),
        *in_the_order_of_pretrain(location, 20, 33),
    ]
    assert all_tokens(data) == expected and all_tokens(data) == []
    again = make(location, phases=[(16, 20), (24, 9), (16, 13)])
    read = all_tokens(islice(again.loader(num_workers=2), 4))
    other = make(location, phases=[(16, 20), (24, 9), (16, 13)])
    other.load_state_dict(again.state_dict())
    assert read + all_tokens(other.loader(num_workers=3)) == expected


def test_single_examples_are_collated_to_the_same_batches(location):
    one, examples = make(location), list(make(location, batch_size=None))
    batches = list(one)
    assert len(examples) == 70 and examples[0].keys() == {
        "input_ids",
        "segment_b_start",
        "masked_lm_positions",
        "masked_lm_ids",
        "next_sentence_label",
    }
    for start, batch in zip(range(0, 70, 8), batches):
        collated = bertloom.collate(examples[start : start + 8])
        assert collated.keys() == batch.keys() and all(torch.equal(collated[name], batch[name]) for name in batch)
    plain = DataLoader(make(location, batch_size=None), batch_size=8, collate_fn=bertloom.collate)
    assert all_tokens(plain) == all_tokens(batches)


def test_a_batch_has_what_the_shards_have(location):
    examples = DataSet(location).examples("train", 16)
    copies, rows = examples.order(3, "global").items(0, 8)
    packed, batch = examples.gather(copies, rows), next(iter(make(location, pad_to_max=True)))
    assert {name: (tuple(values.shape), values.dtype) for name, values in batch.items()} == {
        **dict.fromkeys(("input_ids", "token_type_ids", "attention_mask", "labels"), ((8, 16), torch.int64)),
        "next_sentence_label": ((8,), torch.int64),
    }
    mask = batch["attention_mask"] == 1
    assert torch.equal(batch["input_ids"][mask], packed.input_ids)
    assert torch.equal(batch["token_type_ids"][mask], packed.token_type_ids)
    assert (batch["input_ids"][~mask] == SPECIAL.index("[PAD]")).all() and (batch["token_type_ids"][~mask] == 0).all()
    is_masked = torch.zeros(len(packed.input_ids), dtype=torch.bool)
    is_masked[packed.masked_positions] = True
    assert torch.equal(batch["labels"][mask][is_masked], packed.masked_ids)
    assert (batch["labels"][mask][~is_masked] == -100).all() and (batch["labels"][~mask] == -100).all()
    assert torch.equal(batch["next_sentence_label"], packed.next_sentence_label)


def test_single_segments_have_no_label_of_a_pair(tmp_path):
    folder = write_data_set(tmp_path / "single", rows=(20,), max_seq_lengths=(16,), pairs=False)
    batch = next(iter(make(folder)))
    assert "next_sentence_label" not in batch and (batch["token_type_ids"] == 0).all()


def test_a_plain_loop_trains_the_bert_of_transformers(location):
    from transformers import BertConfig, BertForPreTraining

    torch.manual_seed(0)
    data = make(location)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = BertForPreTraining(BertConfig(vocab_size=53, max_position_embeddings=16, hidden_dropout_prob=0.0, **sizes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(6):
        for batch in data.loader(num_workers=1):
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])


def test_ranks_are_those_of_torch_distributed_also_in_workers(location, tmp_path):
    """Spawned workers have no process group; they get the rank with the data set."""
    code = (
        "import sys, torch.distributed as dist, bertloom\n"
        "if __name__ == '__main__':\n"
        "    rank = int(sys.argv[1])\n"
        "    dist.init_process_group('gloo', init_method='file://' + sys.argv[3], rank=rank, world_size=2)\n"
        "    data = bertloom.ShardDataset(sys.argv[2], batch_size=8, seed=3)\n"
        "    loader = data.loader(num_workers=1, multiprocessing_context='spawn')\n"
        "    print([batch['input_ids'][0].tolist() for batch in loader])\n"
    )
    script = tmp_path / "ranks.py"
    script.write_text(code)
    arguments = [str(location), str(tmp_path / "store")]
    started = [
        subprocess.Popen([sys.executable, str(script), str(rank), *arguments], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for rank, process in enumerate(started):
        out, _ = process.communicate(timeout=120)
        expected = [batch["input_ids"][0].tolist() for batch in make(location, rank=rank, num_ranks=2)]
        assert process.returncode == 0 and out.strip() == str(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: expected 1 or more"),
        ({"max_seq_length": 99}, "99"),
        ({"rank": 2, "num_ranks": 2}, "rank=2, num_ranks=2: give both, with rank 0 to num_ranks - 1"),
        ({"rank": 0}, "rank=0, num_ranks=None: give both"),
        ({"phases": []}, r"give one of the two, and phases as \[\(max_seq_length"),
        ({"phases": [(16, 5)], "max_seq_length": 16}, "give one of the two"),
        ({"phases": [(99, 5)]}, "99"),
        ({"shuffle": "all"}, "expected global, or window:16"),
    ],
)
def test_wrong_options_are_errors_that_say_what_is_expected(location, options, message):
    with pytest.raises(ValueError, match=message):
        make(location, **options)


def test_a_state_of_another_order_and_one_that_is_not_known_are_refused(location):
    data, other = make(location), make(location, seed=4)
    with pytest.raises(
        ValueError, match="the state is damaged or belongs to another order: it differs in seed: expected"
    ):
        other.load_state_dict(data.state_dict())
    with pytest.raises(ValueError, match="it differs in position: expected"):
        data.load_state_dict({**data.state_dict(), "position": -1})
    next(iter(DataLoader(data, batch_size=None, num_workers=1)))
    with pytest.raises(ValueError, match=r"iterate over data.loader\(num_workers=...\)"):
        data.state_dict()
    with pytest.raises(ValueError, match="give batch_size to ShardDataset"):
        data.loader(batch_size=4)
