"""`preprocess --extend` with data sets, texts and the output on s3://: what a local job gives."""

import json

from bertloom import storage
from jobs import cli
from tests.jobs.corpus import documents, write
from tests.model.object_store import object_store

FLAGS = ["--max-seq-length", "32", "--dupe-factor", "1", "--validation-fraction", "0", "--near-duplicates", "0.8"]


def test_data_sets_in_a_store_are_extended_there(vocab, tmp_path, monkeypatch):
    texts = documents(60, seed=4)
    write(tmp_path / "a.txt", texts[:40])
    write(tmp_path / "b.txt", [*texts[30:], *([*text, "And a sentence more."] for text in texts[:5])])
    storage.connect({})
    with object_store() as store:
        monkeypatch.delenv("AWS_ENDPOINT_URL")  # the flag alone leads there
        client = store.client()
        client.create_bucket(Bucket="sets")
        for name in ("a.txt", "b.txt"):
            client.put_object(Bucket="sets", Key=f"in/{name}", Body=(tmp_path / name).read_bytes())
        digests = []
        for places in (["s3://sets", "--", f"--s3_endpoint_url={store.endpoint}"], [str(tmp_path)]):
            root, flags = places[0], places[1:]
            source = "s3://sets/in" if flags else root
            one = ["--input", f"{source}/a.txt", "--vocab", str(vocab), "--out", f"{root}/one", *FLAGS]
            two = ["--extend", f"{root}/one", "--input", f"{source}/b.txt", "--out", f"{root}/two"]
            assert cli.main(["preprocess", *one, *flags]) == 0
            assert cli.main(["preprocess", *two, *flags]) == 0
            manifest = json.loads(storage.read(f"{root}/two/manifest.json"))
            digests.append((manifest["shards_digest"], manifest["counters"]))
    storage.connect({})
    assert digests[0] == digests[1]
    assert digests[0][1]["duplicates_of"]["one"]["equal"] == 10
