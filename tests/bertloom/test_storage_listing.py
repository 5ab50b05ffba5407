"""A listing of many objects: a request for each thousand."""

from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

import pytest

from bertloom import storage
from tests.model.object_store import KEYS, forget_clients, object_store, serve

NUMBER = 100_000
PAGE = 1000


class Lister(BaseHTTPRequestHandler):
    """An S3 server that lists objects of one byte. It holds none of them."""

    protocol_version = "HTTP/1.1"
    requests: list[str] = []

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        type(self).requests.append(self.path)
        start = int(query.get("continuation-token", 0))
        end = min(start + PAGE, NUMBER)
        entries = "".join(
            f"<Contents><Key>in/{i // PAGE:03d}/{i:06d}.txt</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>a</ETag><Size>1</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for i in range(start, end)
        )
        more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < NUMBER else ""
        body = (
            f"<ListBucketResult><Name>bucket</Name><Prefix>in/</Prefix><KeyCount>{end - start}</KeyCount><MaxKeys>{PAGE}"
            f"</MaxKeys><IsTruncated>{'true' if more else 'false'}</IsTruncated>{more}{entries}</ListBucketResult>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/xml")
        self.end_headers()
        self.wfile.write(body)


def test_the_object_of_a_folder_is_no_file():
    with object_store() as store:
        store.client().create_bucket(Bucket="bucket")
        for key in ("in/", "in/empty/", "in/sub/", "in/sub/a.txt", "in/b.txt"):
            store.client().put_object(Bucket="bucket", Key=key, Body=b"x" * key.endswith(".txt"))
        url = "s3://bucket/in"
        assert storage.find(url).keys() == {f"{url}/b.txt", f"{url}/sub/a.txt"}
        assert storage.match(f"{url}/**")[0].keys() == {f"{url}/b.txt", f"{url}/sub/a.txt"}
        files, folders = storage.match(f"{url}/*")
        assert files.keys() == {f"{url}/b.txt"} and folders == [f"{url}/empty", f"{url}/sub"]
    forget_clients()


@pytest.mark.slow
def test_100_000_objects_are_listed_with_a_request_for_each_thousand(monkeypatch):
    with serve(Lister) as url:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": url}).items():
            monkeypatch.setenv(name, value)
        forget_clients()
        found = storage.find("s3://bucket/in")
        forget_clients()
    assert len(found) == NUMBER and len(Lister.requests) == NUMBER // PAGE
    assert found["s3://bucket/in/099/099999.txt"][0] == 1
