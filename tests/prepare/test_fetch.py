"""Downloads from a real local server and real zip files, harmless and malicious."""

import hashlib
import http.server
import io
import shutil
import stat
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from retinanet.errors import ConfigError, DataError, ResourceError
from retinanet.prepare import fetch
from retinanet.prepare.fetch import Archive, extract_archive, fetch_archive, fetch_coco


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`; `server.cuts` holds how many bytes to send before each of the next cuts."""

    server: "Server"

    def do_GET(self) -> None:
        body = self.server.files.get(self.path)
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        if body is None:
            self.send_error(404)
            return
        start = 0
        if asked and self.server.ranges:
            start = int(asked.removeprefix("bytes=").partition("-")[0])
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


def get(server: Server, destination: Path, attempts: int = 3) -> None:
    fetch_archive(server.url("/a.zip"), destination, MD5, len(BODY), attempts=attempts, pause=0.0)


def test_a_download_arrives_whole_and_leaves_no_part(server: Server, tmp_path: Path) -> None:
    server.files["/a.zip"] = BODY
    get(server, tmp_path / "new" / "a.zip")
    assert (tmp_path / "new" / "a.zip").read_bytes() == BODY
    assert names(tmp_path / "new") == ["a.zip"]


def test_a_cut_connection_is_resumed_at_the_byte_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.files["/a.zip"], server.cuts = BODY, [4000, 2500]
    get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert [asked for _, asked in server.requests] == [None, "bytes=4000-", "bytes=6500-"]


def test_a_part_of_an_earlier_call_is_resumed(server: Server, tmp_path: Path) -> None:
    server.files["/a.zip"] = BODY
    (tmp_path / "a.zip.part").write_bytes(BODY[:7000])
    get(server, tmp_path / "a.zip")
    assert server.requests == [("/a.zip", "bytes=7000-")]
    assert (tmp_path / "a.zip").read_bytes() == BODY


def test_a_server_that_ignores_ranges_starts_the_file_again(server: Server, tmp_path: Path) -> None:
    server.files["/a.zip"], server.ranges = BODY, False
    (tmp_path / "a.zip.part").write_bytes(BODY[:7000])
    get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert len(server.requests) == 1


@pytest.mark.parametrize("held", [b"x" * 7000, b"x" * len(BODY), b"x" * (len(BODY) + 1)])
def test_a_wrong_part_is_thrown_away(server: Server, tmp_path: Path, held: bytes) -> None:
    server.files["/a.zip"] = BODY
    (tmp_path / "a.zip.part").write_bytes(held)
    get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY


def test_cuts_without_end_keep_what_arrived_and_say_what_to_do(server: Server, tmp_path: Path) -> None:
    server.files["/a.zip"], server.cuts = BODY, [3000, 0, 0, 0]
    with pytest.raises(ResourceError, match="3000 of 10000") as caught:
        get(server, tmp_path / "a.zip")
    assert str((tmp_path / "a.zip").resolve()) in str(caught.value)
    assert MD5 in str(caught.value)
    assert (tmp_path / "a.zip.part").read_bytes() == BODY[:3000]


def test_offline_says_which_file_to_put_where(tmp_path: Path) -> None:
    with Server() as closed:
        url = closed.url("/a.zip")
    with pytest.raises(ResourceError, match="Without this machine's network") as caught:
        fetch_archive(url, tmp_path / "a.zip", MD5, len(BODY), attempts=2, pause=0.0)
    assert url in str(caught.value)
    assert str((tmp_path / "a.zip").resolve()) in str(caught.value)


def test_a_missing_file_is_not_asked_for_twice(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="404"):
        get(server, tmp_path / "a.zip")
    assert len(server.requests) == 1


def test_another_file_than_the_published_is_refused(server: Server, tmp_path: Path) -> None:
    server.files["/a.zip"] = BODY[:-1] + b"!"
    with pytest.raises(DataError, match="MD5"):
        get(server, tmp_path / "a.zip")
    server.files["/a.zip"] = b"<html>log in</html>"
    with pytest.raises(DataError, match="19 bytes"):
        get(server, tmp_path / "a.zip")
    assert not list(tmp_path.iterdir())


def test_a_file_put_there_by_hand_is_verified_not_fetched(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(BODY)
    get(server, tmp_path / "a.zip")
    (tmp_path / "a.zip").write_bytes(BODY[::-1])
    with pytest.raises(DataError, match="not the published file"):
        get(server, tmp_path / "a.zip")
    assert server.requests == []


def test_too_little_disk_is_told_before_the_download(server: Server, tmp_path: Path) -> None:
    server.files["/a.zip"] = BODY
    with pytest.raises(ResourceError, match="GB are needed"):
        fetch_archive(server.url("/a.zip"), tmp_path / "a.zip", MD5, 10**18, pause=0.0)
    assert server.requests == []


def test_only_http_addresses_are_opened(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(BODY)
    with pytest.raises(ConfigError, match="http"):
        fetch_archive((tmp_path / "secret").as_uri(), tmp_path / "a.zip", MD5, len(BODY))


def zipped(entries: dict[str, bytes]) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as content:
        for name, data in entries.items():
            content.writestr(name, data)
    return memory.getvalue()


def small_coco(server: Server) -> dict[str, Archive]:
    bodies = {
        "annotations": {"annotations/instances_train2017.json": b"{}", "annotations/instances_val2017.json": b"{}"},
        "val": {"val2017/1.jpg": b"one"},
        "train": {"train2017/2.jpg": b"two" * 5000},
    }
    archives = {}
    for name, entries in bodies.items():
        body = zipped(entries)
        server.files[f"/{name}.zip"] = body
        archives[name] = Archive(server.url(f"/{name}.zip"), hashlib.md5(body).hexdigest(), len(body), 10_000)
    return archives


def test_coco_comes_in_its_usual_layout_and_is_not_fetched_twice(server: Server, tmp_path: Path) -> None:
    archives = small_coco(server)
    fetch_coco(tmp_path, ["val"], archives)
    assert (tmp_path / "val2017/1.jpg").read_bytes() == b"one"
    assert (tmp_path / "annotations/instances_val2017.json").is_file()
    assert not (tmp_path / "train2017").exists()
    (tmp_path / "downloads/val.zip").unlink()
    server.requests.clear()
    fetch_coco(tmp_path, ["train", "val"], archives)
    assert [path for path, _ in server.requests] == ["/train.zip"]
    assert (tmp_path / "train2017/2.jpg").read_bytes() == b"two" * 5000


def test_coco_continues_with_a_zip_that_a_user_put_there(server: Server, tmp_path: Path) -> None:
    archives = small_coco(server)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/val.zip").write_bytes(server.files["/val.zip"])
    fetch_coco(tmp_path, ["val"], archives)
    assert [path for path, _ in server.requests] == ["/annotations.zip"]
    assert (tmp_path / "val2017/1.jpg").is_file()


def test_offline_names_every_archive_that_is_still_to_come(server: Server, tmp_path: Path) -> None:
    archives = small_coco(server)
    server.files.clear()
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/val.zip").write_bytes(b"brought by hand")
    with pytest.raises(ResourceError) as caught:
        fetch_coco(tmp_path, ["train", "val"], archives)
    for name, told in (("annotations", True), ("train", True), ("val", False)):
        assert (str((tmp_path / f"downloads/{name}.zip").resolve()) in str(caught.value)) is told
        assert (archives[name].md5 in str(caught.value)) is told


def test_a_file_lost_after_unpacking_is_brought_back(server: Server, tmp_path: Path) -> None:
    archives = small_coco(server)
    fetch_coco(tmp_path, ["val"], archives)
    (tmp_path / "val2017/1.jpg").unlink()
    fetch_coco(tmp_path, ["val"], archives)
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


def test_another_file_of_the_same_name_is_never_overwritten(tmp_path: Path) -> None:
    archive = saved(tmp_path, zipped({"a.txt": b"new one", "b.txt": b"b"}))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.txt").write_bytes(b"mine")
    with pytest.raises(DataError, match="move it away"):
        extract_archive(archive, tmp_path / "out")
    assert (tmp_path / "out/a.txt").read_bytes() == b"mine"
    assert not (tmp_path / "out/b.txt").exists()


def test_a_link_in_the_folder_is_not_written_through(tmp_path: Path) -> None:
    archive = saved(tmp_path, zipped({"a.txt": b"four"}))
    (tmp_path / "out").mkdir()
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "out/a.txt").symlink_to(tmp_path / "victim")
    with pytest.raises(DataError, match="move it away"):
        extract_archive(archive, tmp_path / "out")
    assert (tmp_path / "victim").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "C:/evil", "..\\evil", "a\nb", "a/../b"])
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    archive = saved(tmp_path, zipped({"good.txt": b"x", name: b"evil"}))
    with pytest.raises(DataError, match="unsafe"):
        extract_archive(archive, tmp_path / "out")
    assert names(tmp_path) == ["a.zip"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as content:
        entry = zipfile.ZipInfo("link")
        entry.external_attr = (kind | 0o644) << 16
        content.writestr(entry, "/etc/passwd")
    with pytest.raises(DataError, match="link or device"):
        extract_archive(saved(tmp_path, memory.getvalue()), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_entries_that_hide_each_other_are_refused(tmp_path: Path) -> None:
    archive = saved(tmp_path, zipped({"a": b"file", "a/b": b"below it", "Pic.jpg": b"1", "pic.JPG": b"2"}))
    with pytest.raises(DataError, match="2 errors"):
        extract_archive(archive, tmp_path / "out")


def test_bombs_are_refused_by_size_and_by_count(tmp_path: Path) -> None:
    archive = saved(tmp_path, zipped({"bomb": bytes(1 << 20), "b": b"", "c": b""}))
    with pytest.raises(DataError, match="more than"):
        extract_archive(archive, tmp_path / "out", most_bytes=1 << 19)
    with pytest.raises(DataError, match="more than"):
        extract_archive(archive, tmp_path / "out", most_files=2)
    assert not (tmp_path / "out").exists()


def test_a_listing_that_tells_less_than_the_data_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped({"bomb": bytes(1 << 20)}))
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = (10).to_bytes(4, "little")
    with pytest.raises(DataError, match="damaged"):
        extract_archive(saved(tmp_path, bytes(data)), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_damaged_entry_leaves_no_half_file(tmp_path: Path) -> None:
    data = bytearray(zipped({"a.bin": BODY}))
    data[5000] ^= 0xFF
    with pytest.raises(DataError, match="damaged"):
        extract_archive(saved(tmp_path, bytes(data)), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_text_file_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="damaged zip"):
        extract_archive(saved(tmp_path, b"not a zip"), tmp_path / "out")


def test_too_little_disk_is_told_before_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "SPARE_BYTES", shutil.disk_usage(tmp_path).free + 1)
    with pytest.raises(ResourceError, match="GB are needed"):
        extract_archive(saved(tmp_path, zipped({"a": b"x"})), tmp_path / "out")
    assert not (tmp_path / "out").exists()
