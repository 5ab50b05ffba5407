"""The bytes of the log of rejects."""

import gzip

from pipeline.inputs.rejects import gzip_member, rejects_log
from pipeline.text.records import Reject

MEMBER = bytes.fromhex("1f8b0800000000000203cb48cdc9c95728cf2fca49010085114a0d0b000000")  # Python 3.11, gzip.compress


def test_a_gzip_member_has_the_same_bytes_with_every_version_of_python():
    assert gzip_member(b"hello world") == MEMBER
    assert gzip.decompress(MEMBER) == b"hello world"


def test_the_rejects_of_several_parts_are_one_gzip_file():
    logs = [rejects_log([("a.txt", Reject(position, "no-tokens", text="é"))]) for position in (0, 7)]
    lines = gzip.decompress(b"".join([*logs, rejects_log([])])).decode().splitlines()
    assert [line.partition(', "reason"')[0] for line in lines] == [
        '{"source": "a.txt", "position": 0',
        '{"source": "a.txt", "position": 7',
    ]
