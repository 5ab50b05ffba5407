"""Groups of splits, and the list in which workers find them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertloom.json_files import Damaged
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.sources import ReadConfig, Source, Split, SplitGroup
from pipeline.inputs.split_list import read_split_list, write_split_list
from pipeline.inputs.splitting import FILE_BYTES, group_splits
from pipeline.stages.splits import MAX_ELEMENTS, ranges_of


def split_of(number: int, size: int, start: int = 0) -> Split:
    source = Source(f"/texts/{number}", str(number), "txt", None, None, size, f"digest of {number}")
    return Split(source, start, None, size)


SPLITS = st.lists(st.integers(0, 100_000), max_size=60).map(
    lambda sizes: [split_of(i, size) for i, size in enumerate(sizes)]
)


@given(SPLITS, st.integers(1, 200_000))
def test_groups_hold_all_splits_in_order_and_only_a_large_split_exceeds_their_size(splits, group_bytes):
    groups = group_splits(splits, group_bytes)
    assert [split for group in groups for split in group.splits] == splits
    for group in groups:
        weight = sum(max(FILE_BYTES, split.num_bytes) for split in group.splits)
        assert len(group.splits) == 1 or weight <= group_bytes


@given(SPLITS.filter(len), st.integers(1, 200_000), st.data())
def test_groups_begin_anew_after_a_file_that_ends_one(splits, group_bytes, data):
    first = data.draw(st.integers(0, len(splits) - 1))
    ends = {group.splits[-1] for group in group_splits(splits, 1 << 60)[:-1]}  # only the files themselves decide
    groups = group_splits(splits, 1 << 60)
    after = group_splits(splits[first:], 1 << 60)
    if first and splits[first - 1] in ends:
        assert groups[-len(after) :] == after


def test_a_new_file_changes_few_groups():
    splits = [split_of(i, 600) for i in range(5000)]
    before, after = (set(group_splits(some, 1_000_000)) for some in (splits, [split_of(-1, 600), *splits]))
    assert len(before) > 30 and len(before - after) <= 4


def test_no_two_files_have_the_same_name_so_that_each_has_its_own_splits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("a/b/x.txt", "a/x.txt", "b/x.txt", "c/x.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
    sources = find_sources(["a", "b"], validation_patterns=["c"])
    assert {source.path: source.name for source in sources} == {
        "a/b/x.txt": "b/x.txt",
        "a/x.txt": "x.txt",
        "b/x.txt": "./b/x.txt",
        "c/x.txt": "c/x.txt",
    }
    group = SplitGroup(tuple(Split(source, 0, None, 1) for source in sources))
    found = read_split_list(write_split_list(str(tmp_path), sources, [group]))
    assert list(found.groups(0, 1)) == [group]


def test_a_list_of_many_sources_is_one_piece_in_memory_so_that_a_group_costs_only_its_own_sources(tmp_path):
    groups = [SplitGroup((split_of(i, 9),)) for i in range(3000)]
    sources = [split.source for group in groups for split in group.splits]
    found = read_split_list(write_split_list(str(tmp_path), sources, groups))
    assert {column.num_chunks for column in found.sources.columns} == {1} and found.all_sources() == sources
    assert list(found.groups(2990, 3000)) == groups[2990:]


def test_a_list_gives_back_groups_and_sources(tmp_path):
    plain = split_of(1, 10)
    named = replace(
        plain.source,
        name="caf\udce9/整.csv.gz",  # not UTF-8
        path="/texts/caf\udce9/整.csv.gz",
        codec="gzip",
        encoding="gb18030",
        read=ReadConfig(text_column="正文", header="yes"),
        held_out=True,
        left_out=True,
    )
    groups = [SplitGroup((Split(named, 5, 9, 4), plain)), SplitGroup((Split(named, 9, None, 1),))]
    path = write_split_list(str(tmp_path), [named, plain.source], groups)
    found = read_split_list(path)
    assert found.num_groups == 2 and list(found.groups(0, 2)) == groups and list(found.groups(1, 2)) == groups[1:]
    assert found.all_sources() == [named, plain.source]
    assert write_split_list(str(tmp_path), [named, plain.source], groups) == path
    assert write_split_list(str(tmp_path), [named, plain.source], groups[::-1]) != path


def test_a_damaged_list_is_an_error(tmp_path):
    path = write_split_list(str(tmp_path), [split_of(1, 10).source], [SplitGroup((split_of(1, 10),))])
    data = bytearray((tmp_path / path).read_bytes())
    data[60] ^= 1
    (tmp_path / path).write_bytes(data)
    with pytest.raises(Damaged, match="is damaged"):
        read_split_list(path)


@pytest.mark.parametrize("number", [0, 1, 7, MAX_ELEMENTS, MAX_ELEMENTS + 1, 3 * MAX_ELEMENTS + 2])
def test_the_elements_of_a_job_cover_all_groups_once(number):
    ranges = ranges_of(number)
    assert [i for first, end in ranges for i in range(first, end)] == list(range(number))
    assert len(ranges) == min(number, MAX_ELEMENTS)
