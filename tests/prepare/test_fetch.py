"""Downloads from a real local server, and unpacking real zip files."""

import hashlib
import http.server
import io
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from retinanet.errors import ConfigError, DataError, ResourceError
from retinanet.prepare import fetch
from retinanet.prepare.fetch import Archive, Download, extract_archive, fetch_archive, fetch_coco


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`; `server.cuts` holds how many bytes to send before each of the next cuts."""

    server: "Server"

    def do_GET(self) -> None:
        body = self.server.files.get(self.path)
        requested = self.headers.get("Range")
        self.server.requests.append((self.path, requested))
        if body is None:
            self.send_error(404)
            return
        start = 0
        if requested and self.server.ranges:
            start = int(requested.removeprefix("bytes=").partition("-")[0])
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if self.server.cuts:
            self.wfile.write(body[start : start + self.server.cuts.pop(0)])
            self.close_connection = True
        else:
            self.wfile.write(body[start:])

    def log_message(self, format: str, *args: object) -> None: ...


class Server(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.cuts: list[int] = []
        self.ranges = True

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch, "BLOCK", 1000)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


BODY = bytes(hashlib.shake_256(b"body").digest(10_000))
MD5 = hashlib.md5(BODY).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def get(url: str, destination: Path, attempts: int = 3, size: int = len(BODY)) -> None:
    archive = Archive(url=url, md5=MD5, size=size, unpacked=0)
    fetch_archive(Download(archive, destination), attempts=attempts, pause=0.0)


@pytest.fixture
def served(server: Server) -> Server:
    """A server that has BODY at /a.zip."""
    server.files["/a.zip"] = BODY
    return server


@pytest.mark.parametrize("cuts", [[], [4000, 2500]])
def test_a_download_arrives_whole_whatever_cuts_it(served: Server, tmp_path: Path, cuts: list[int]) -> None:
    served.cuts = list(cuts)
    get(served.url("/a.zip"), tmp_path / "new" / "a.zip")
    assert (tmp_path / "new" / "a.zip").read_bytes() == BODY
    assert names(tmp_path / "new") == ["a.zip"]
    ranges = [None, "bytes=4000-", "bytes=6500-"] if cuts else [None]
    assert [requested for _, requested in served.requests] == ranges


@pytest.mark.parametrize("supports_ranges", [True, False])
def test_a_part_of_an_earlier_call_is_resumed_where_the_server_can(
    served: Server, tmp_path: Path, supports_ranges: bool
) -> None:
    served.ranges = supports_ranges
    (tmp_path / "a.zip.part").write_bytes(BODY[:7000])
    get(served.url("/a.zip"), tmp_path / "a.zip")
    assert served.requests == [("/a.zip", "bytes=7000-")]
    assert (tmp_path / "a.zip").read_bytes() == BODY


@pytest.mark.parametrize("length", [7000, len(BODY), len(BODY) + 1])
def test_a_wrong_part_is_thrown_away(served: Server, tmp_path: Path, length: int) -> None:
    (tmp_path / "a.zip.part").write_bytes(b"x" * length)
    get(served.url("/a.zip"), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert names(tmp_path) == ["a.zip"]


def test_endless_cuts_keep_what_arrived_and_name_the_remedy(served: Server, tmp_path: Path) -> None:
    served.cuts = [3000, 0, 0, 0]
    with pytest.raises(ResourceError, match="3000 of 10000") as caught:
        get(served.url("/a.zip"), tmp_path / "a.zip")
    assert str((tmp_path / "a.zip").resolve()) in str(caught.value)
    assert MD5 in str(caught.value)
    assert (tmp_path / "a.zip.part").read_bytes() == BODY[:3000]


def test_offline_names_the_file_and_where_to_put_it(tmp_path: Path) -> None:
    with Server() as closed:
        url = closed.url("/a.zip")
    with pytest.raises(ResourceError, match="If this machine has no network access") as caught:
        get(url, tmp_path / "a.zip", attempts=2)
    assert url in str(caught.value)
    assert str((tmp_path / "a.zip").resolve()) in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_not_requested_twice(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="404"):
        get(server.url("/a.zip"), tmp_path / "a.zip")
    assert len(server.requests) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("body", "message"), [(BODY[:-1] + b"!", "MD5"), (b"<html>log in</html>", "19 bytes")])
def test_another_file_than_the_published_is_refused(server: Server, tmp_path: Path, body: bytes, message: str) -> None:
    server.files["/a.zip"] = body
    with pytest.raises(DataError, match=message):
        get(server.url("/a.zip"), tmp_path / "a.zip")
    assert not list(tmp_path.iterdir())


def test_a_file_put_there_by_hand_is_verified_not_downloaded(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(BODY)
    get(server.url("/a.zip"), tmp_path / "a.zip")
    (tmp_path / "a.zip").write_bytes(BODY[::-1])
    with pytest.raises(DataError, match="not the published file"):
        get(server.url("/a.zip"), tmp_path / "a.zip")
    assert server.requests == []


def test_too_little_disk_space_is_reported_before_the_download(served: Server, tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="GB are needed"):
        get(served.url("/a.zip"), tmp_path / "a.zip", size=10**18)
    assert served.requests == []


def test_only_http_addresses_are_opened(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(BODY)
    with pytest.raises(ConfigError, match="http"):
        get((tmp_path / "secret").as_uri(), tmp_path / "a.zip")


def zipped(entries: dict[str, bytes]) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as content:
        for name, data in entries.items():
            content.writestr(name, data)
    return memory.getvalue()


@pytest.fixture
def small_coco(server: Server) -> dict[str, Archive]:
    """Archives of COCO's layout with a file or two each."""
    contents = {
        "annotations": {"annotations/instances_train2017.json": b"{}", "annotations/instances_val2017.json": b"{}"},
        "val": {"val2017/1.jpg": b"one"},
        "train": {"train2017/2.jpg": b"two" * 5000},
    }
    server.files = {f"/{name}.zip": zipped(entries) for name, entries in contents.items()}
    return {
        path.strip("/").removesuffix(".zip"): Archive(
            url=server.url(path), md5=hashlib.md5(body).hexdigest(), size=len(body), unpacked=10_000
        )
        for path, body in server.files.items()
    }


def test_coco_gets_its_usual_layout_and_is_not_downloaded_twice(
    server: Server, small_coco: dict[str, Archive], tmp_path: Path
) -> None:
    fetch_coco(tmp_path, ["val"], small_coco)
    assert (tmp_path / "val2017/1.jpg").read_bytes() == b"one"
    assert (tmp_path / "annotations/instances_val2017.json").is_file()
    assert not (tmp_path / "train2017").exists()
    (tmp_path / "downloads/val.zip").unlink()
    server.requests.clear()
    fetch_coco(tmp_path, ["train", "val"], small_coco)
    assert [path for path, _ in server.requests] == ["/train.zip"]
    assert (tmp_path / "train2017/2.jpg").read_bytes() == b"two" * 5000


def test_coco_continues_with_a_zip_that_a_user_put_there(
    server: Server, small_coco: dict[str, Archive], tmp_path: Path
) -> None:
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/val.zip").write_bytes(server.files["/val.zip"])
    fetch_coco(tmp_path, ["val"], small_coco)
    assert [path for path, _ in server.requests] == ["/annotations.zip"]
    assert (tmp_path / "val2017/1.jpg").is_file()


def test_offline_names_every_archive_that_is_still_needed(
    server: Server, small_coco: dict[str, Archive], tmp_path: Path
) -> None:
    server.files.clear()
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/val.zip").write_bytes(b"brought by hand")
    with pytest.raises(ResourceError) as caught:
        fetch_coco(tmp_path, ["train", "val"], small_coco)
    for name, is_named in (("annotations", True), ("train", True), ("val", False)):
        assert (str((tmp_path / f"downloads/{name}.zip").resolve()) in str(caught.value)) is is_named
        assert (small_coco[name].md5 in str(caught.value)) is is_named


def test_a_file_lost_after_unpacking_is_restored(small_coco: dict[str, Archive], tmp_path: Path) -> None:
    fetch_coco(tmp_path, ["val"], small_coco)
    (tmp_path / "val2017/1.jpg").unlink()
    fetch_coco(tmp_path, ["val"], small_coco)
    assert (tmp_path / "val2017/1.jpg").read_bytes() == b"one"


@pytest.mark.parametrize("splits", [[], ["test"], ["train", "tset"]])
def test_unknown_splits_are_refused(tmp_path: Path, splits: list[str]) -> None:
    with pytest.raises(ConfigError, match="splits"):
        fetch_coco(tmp_path, splits)


def saved(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / "a.zip").write_bytes(data)
    return tmp_path / "a.zip"


def test_unpacking_keeps_what_is_there_with_the_right_size(tmp_path: Path) -> None:
    archive = saved(tmp_path, zipped({"d/a.txt": b"new", "d/b.txt": b"bb", "c.txt": b""}))
    folder = tmp_path / "out"
    (folder / "d").mkdir(parents=True)
    (folder / "d/a.txt").write_bytes(b"old")
    assert extract_archive(archive, folder) == {"d/a.txt": 3, "d/b.txt": 2, "c.txt": 0}
    assert (folder / "d/a.txt").read_bytes() == b"old"
    assert (folder / "d/b.txt").read_bytes() == b"bb"
    assert names(folder) == ["c.txt", "d"]


@pytest.mark.parametrize("is_link", [False, True])
def test_another_file_of_the_same_name_is_never_overwritten(tmp_path: Path, is_link: bool) -> None:
    archive = saved(tmp_path, zipped({"a.txt": b"four" if is_link else b"new one", "b.txt": b"b"}))
    (tmp_path / "out").mkdir()
    victim = tmp_path / "victim" if is_link else tmp_path / "out/a.txt"
    victim.write_bytes(b"mine")
    if is_link:
        (tmp_path / "out/a.txt").symlink_to(victim)
    with pytest.raises(DataError, match="move it away"):
        extract_archive(archive, tmp_path / "out")
    assert victim.read_bytes() == b"mine"
    assert not (tmp_path / "out/b.txt").exists()


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil-entry", "a/../../evil"])
def test_nothing_is_written_outside_the_folder(tmp_path: Path, name: str) -> None:
    extract_archive(saved(tmp_path, zipped({name: b"evil"})), tmp_path / "out")
    assert names(tmp_path) == ["a.zip", "out"]
    assert not Path("/tmp/evil-entry").exists()


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


@pytest.mark.parametrize("data", [b"not a zip", flipped(zipped({"a.bin": BODY}), 5000)], ids=["text", "flipped"])
def test_a_damaged_archive_leaves_no_half_file(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DataError, match="damaged zip"):
        extract_archive(saved(tmp_path, data), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_too_little_disk_space_is_reported_before_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "SPARE_BYTES", shutil.disk_usage(tmp_path).total)  # free space may grow meanwhile
    with pytest.raises(ResourceError, match="GB are needed"):
        extract_archive(saved(tmp_path, zipped({"a": b"x"})), tmp_path / "out")
    assert not (tmp_path / "out").exists()
