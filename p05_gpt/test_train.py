"""The commands end to end, on a small text: files, refusals, determinism."""

import json
import os
import random
import re
import signal
import sys
import textwrap
import threading
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tqdm import tqdm

from p05_gpt import build, run, sample, train

SMALL = [
    "--n-layer",
    "1",
    "--n-head",
    "2",
    "--n-embd",
    "16",
    "--block-size",
    "8",
    "--batch-size",
    "4",
    "--steps",
    "6",
    "--eval-every",
    "3",
    "--vocab-size",
    "270",
    "--device",
    "cpu",
]
ROW = {"step", "seconds", "train_loss", "lr", "grad_norm"}


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    draw = random.Random(0)
    words = ["to", "be", "or", "not", "that", "is", "the", "question"]
    lines = (" ".join(draw.choices(words, k=8)).capitalize() + "." for _ in range(100))
    path = tmp_path_factory.mktemp("data") / "text.txt"
    path.write_bytes("\n".join(lines).encode("utf-8"))
    return str(path)


def shorten_endings(patch):
    """Short samples and no figure, which save two thirds of a run's time."""
    patch.setattr(train, "SAMPLE_TOKENS", 10)
    patch.setattr(train, "preview", partial(train.preview, n_tokens=5))
    patch.setattr(run, "draw_losses", lambda *args: None)


@pytest.fixture(autouse=True)
def short_endings(monkeypatch):
    shorten_endings(monkeypatch)


@pytest.fixture(scope="module", params=["bpe", "char"])
def finished(request, text_file, tmp_path_factory):
    """A finished run, once with each tokenizer."""
    out = tmp_path_factory.mktemp("runs") / request.param
    argv = ["--data", text_file, "--out", str(out), "--tokenizer", request.param, *SMALL]
    assert train.main(argv) == 0
    return out


def rows_of(folder):
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def refusal(main, argv, capsys):
    """The one line with which a command refuses its flags."""
    with pytest.raises(SystemExit) as ended:
        main(argv)
    said = capsys.readouterr()
    assert ended.value.code == 2, f"status {ended.value.code} for {argv}"
    assert said.err.count("\n") == 1 and "usage:" not in said.err, said.err
    return said.err


def test_a_run_writes_the_files_of_the_contract(finished):
    tokenizer = "tokenizer.json" if finished.name == "char" else "tokenizer.model"
    names = {path.name for path in finished.iterdir()} - {"tokenizer.vocab"}
    assert names == {
        "config.json",
        "metrics.jsonl",
        tokenizer,
        "model.pt",
        "loss.png",
        "sample.txt",
    }
    config = json.loads((finished / "config.json").read_text(encoding="utf-8"))
    assert config["n_embd"] == 16 and config["block_size"] == 8 and config["steps"] == 6
    assert len(config["corpus_sha256"]) == 64 and config["device"] == "cpu"
    assert {"seed", "lr", "data", "torch_version", "threads", "tokenizer"} <= set(config)
    assert (finished / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert (finished / "sample.txt").read_text(encoding="utf-8")


def test_metrics_have_a_row_for_every_step(finished):
    rows = rows_of(finished)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for row in rows:
        evaluated = {"val_loss", "val_nats_per_char"} if row["step"] in (3, 6) else set()
        assert set(row) == ROW | evaluated
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds) and seconds[0] > 0
    assert [row["lr"] for row in rows] == pytest.approx([4e-3 * (1 - i / 6) for i in range(6)])


def test_the_learning_rate_rises_and_falls_linearly():
    """Warmup takes a fiftieth of the steps, here 2 of 100."""
    rates = [train.learning_rate(step, 100, 8.0) for step in range(100)]
    assert rates[:3] == pytest.approx([4.0, 7.92, 7.84])
    assert rates[2:] == pytest.approx([8.0 * (1 - step / 100) for step in range(2, 100)])
    assert all(train.learning_rate(step, n, 1.0) > 0 for n in (1, 2, 49) for step in range(n))


def test_the_validation_loss_is_over_the_whole_second_part(finished, text_file):
    config, tokenizer, model = run.read_run(finished)
    text = Path(text_file).read_bytes().decode("utf-8")
    second = text[int(0.9 * len(text)) :]
    data = run.encode(tokenizer, second)
    last = rows_of(finished)[-1]
    nats, n = 0.0, len(data) - 1
    for start in range(0, n, config["block_size"]):
        x = data[start : start + config["block_size"]][: n - start]
        with torch.no_grad():
            logits = model(x[None])[0]
        y = data[start + 1 : start + 1 + len(x)]
        nats += torch.nn.functional.cross_entropy(logits, y, reduction="sum").item()
    assert last["val_loss"] == pytest.approx(nats / n, rel=1e-5)
    assert last["val_nats_per_char"] == pytest.approx(nats / n * len(data) / len(second), rel=1e-5)


def test_the_same_seed_gives_the_same_numbers(finished, text_file, tmp_path):
    numbers = [[row | {"seconds": 0} for row in rows_of(finished)]]
    for seed in ("1337", "2"):
        argv = ["--data", text_file, "--tokenizer", finished.name, *SMALL, "--seed", seed]
        assert train.main([*argv, "--out", str(tmp_path / seed)]) == 0
        numbers.append([row | {"seconds": 0} for row in rows_of(tmp_path / seed)])
    assert numbers[0] == numbers[1] != numbers[2]


def test_sampling_repeats_with_its_seed_and_takes_any_prompt(finished, capsys):
    def text(*flags):
        assert sample.main(["--run", str(finished), "--tokens", "12", *flags]) == 0
        return capsys.readouterr().out

    assert text("--seed", "1") == text("--seed", "1") != text("--seed", "2")
    assert text("--prompt", "the").startswith("the")
    assert text("--prompt", "that is the question " * 20).startswith("that is")
    assert text("--temperature", "0") == text("--top-k", "1")
    assert text("--top-k", "100000") == text() == text("--cache")
    if finished.name == "bpe":
        assert text("--prompt", "東京 ∑").startswith("東京 ∑")


def test_sampling_refuses_invalid_flags(finished, tmp_path, capsys):
    for flags in (
        ["--temperature", "-1"],
        ["--temperature", "nan"],
        ["--top-k", "0"],
        ["--top-p", "0"],
        ["--top-p", "1.5"],
        ["--tokens", "0"],
        ["--tokens", "many"],
    ):
        assert flags[0] in refusal(sample.main, ["--run", str(finished), *flags], capsys)
    assert "no run folder" in refusal(sample.main, ["--run", str(tmp_path / "none")], capsys)
    assert "has no" in refusal(sample.main, ["--run", str(tmp_path)], capsys)
    if finished.name == "char":
        said = refusal(sample.main, ["--run", str(finished), "--prompt", "東"], capsys)
        assert "東" in said


@pytest.mark.parametrize("broken", ["config.json", "model.pt", "tokenizer"])
def test_files_that_do_not_belong_together_are_refused(finished, tmp_path, capsys, broken):
    for path in finished.iterdir():
        content = path.read_bytes()
        (tmp_path / path.name).write_bytes(b"junk" if path.name.startswith(broken) else content)
    assert "damaged or of another run" in refusal(sample.main, ["--run", str(tmp_path)], capsys)


def test_an_existing_run_is_not_changed(finished, text_file, capsys):
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    argv = ["--data", text_file, "--out", str(finished), *SMALL]
    assert "--overwrite" in refusal(train.main, argv, capsys)
    assert before == {path.name: path.read_bytes() for path in finished.iterdir()}


def test_overwrite_replaces_the_run_and_nothing_else(text_file, tmp_path):
    argv = ["--data", text_file, "--out", str(tmp_path), *SMALL]
    (tmp_path / "notes.md").write_text("mine", encoding="utf-8")
    assert train.main([*argv, "--tokenizer", "char"]) == 0
    assert train.main([*argv, "--overwrite"]) == 0
    assert (tmp_path / "notes.md").read_text(encoding="utf-8") == "mine"
    assert not (tmp_path / "tokenizer.json").exists() and (tmp_path / "tokenizer.model").exists()


def test_without_out_the_next_free_name_is_taken_and_sampled(
    text_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert train.main(["--data", text_file, *SMALL]) == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["p05_gpt", "p05_gpt-2"]
    capsys.readouterr()
    assert sample.main(["--tokens", "5"]) == 0
    newest = capsys.readouterr().out
    assert sample.main(["--tokens", "5", "--run", "runs/p05_gpt-2"]) == 0
    assert capsys.readouterr().out == newest


BAD_FLAGS = [
    (["--n-embd", "10", "--n-head", "3"], "--n-head"),
    (["--n-layer", "0"], "--n-layer"),
    (["--n-embd", "-4"], "--n-embd"),
    (["--block-size", "0"], "--block-size"),
    (["--batch-size", "x"], "--batch-size"),
    (["--steps", "0"], "--steps"),
    (["--eval-every", "0"], "--eval-every"),
    (["--lr", "0"], "--lr"),
    (["--lr", "inf"], "--lr"),
    (["--vocab-size", "255"], "--vocab-size"),
    (["--device", "abacus"], "abacus"),
    (["--tokenizer", "words"], "--tokenizer"),
    (["--seed", "-1"], "--seed"),
    (["--no-such-flag"], "--no-such-flag"),
    (["--block-size", "100000"], "too short"),
]


@pytest.mark.parametrize("flags, part", BAD_FLAGS, ids=[" ".join(f) for f, _ in BAD_FLAGS])
def test_bad_flags_end_with_one_line(text_file, tmp_path, capsys, flags, part):
    argv = ["--data", text_file, "--out", str(tmp_path / "run"), *SMALL, *flags]
    assert part in refusal(train.main, argv, capsys)
    assert not (tmp_path / "run").exists(), "a refused run must not leave a folder behind"


@pytest.mark.parametrize(
    "content, part",
    [
        (None, "no file"),
        (b"", "empty"),
        (b" \n", "empty"),
        (b"\xff\xfe\x00x" * 99, "UTF-8"),
        (b"short", "too"),
        (b"x", "too"),
        (b"a" * 3400 + b"z" * 100, None),
    ],
    ids=["missing", "empty", "blank", "utf-16", "short", "one", "unseen"],
)
def test_a_text_that_cannot_be_used_ends_with_one_line(tmp_path, capsys, content, part):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    argv = ["--data", str(path), "--out", str(tmp_path / "run"), *SMALL]
    if part is None:  # characters that the training part does not have
        assert "--tokenizer bpe" in refusal(train.main, [*argv, "--tokenizer", "char"], capsys)
    else:
        assert part in refusal(train.main, argv, capsys)
    assert not (tmp_path / "run").exists()


def test_a_folder_without_texts_and_a_file_as_out_are_refused(text_file, tmp_path, capsys):
    assert "folder" in refusal(train.main, ["--data", str(tmp_path), *SMALL], capsys)
    argv = ["--data", text_file, "--out", text_file, *SMALL]
    assert "cannot write" in refusal(train.main, argv, capsys)


def test_a_nan_or_infinite_loss_is_reported(text_file, tmp_path, capsys):
    argv = ["--data", text_file, "--out", str(tmp_path / "run"), *SMALL, "--lr", "1e30"]
    assert train.main(argv) == 1
    assert "lower --lr" in capsys.readouterr().err


def test_ctrl_c_keeps_the_run_so_far(text_file, tmp_path, monkeypatch, capsys):
    out, batches = tmp_path / "run", []

    def get_batch(*given):
        batches.append(given)
        if len(batches) == 6:  # the first call is that of call_everything
            signal.raise_signal(signal.SIGINT)
        return build.get_batch(*given)

    monkeypatch.setattr(train, "get_batch", get_batch)
    before = signal.getsignal(signal.SIGINT)
    argv = ["--data", text_file, "--out", str(out), *SMALL, "--steps", "100", "--eval-every", "50"]
    assert train.main(argv) == 0
    assert signal.getsignal(signal.SIGINT) is before
    said, complained = capsys.readouterr()
    assert "stopping after this step" in complained and "nats per character" in said
    assert [row["step"] for row in rows_of(out)] == [1, 2, 3, 4, 5], "the step is finished"
    run.read_run(out)


# Errors while a run is written, read or watched


def locked(monkeypatch, times):
    """os.replace as on Windows while another program has the file open: refused `times` times."""
    replace, left = os.replace, [times]

    def refuse(source, target):
        if left[0] > 0:
            left[0] -= 1
            raise PermissionError(13, "Access is denied", str(source), 5, str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)


def test_a_short_lock_is_waited_for(tmp_path, monkeypatch):
    locked(monkeypatch, 3)
    run.write_atomically(tmp_path / "x.txt", lambda file: file.write(b"whole"))
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]
    assert (tmp_path / "x.txt").read_bytes() == b"whole"


def test_weights_are_saved_under_another_name_if_the_first_is_locked(tmp_path, monkeypatch, capsys):
    attempts = []

    def write(path, write):
        attempts.append(path.name)
        if path.name == "model.pt":
            raise PermissionError(13, "locked by another program", str(path))

    monkeypatch.setattr(run, "write_atomically", write)
    train.save_weights(torch.nn.Linear(2, 2), tmp_path)
    assert attempts == ["model.pt", "model-rescued.pt"]
    assert "model.pt is locked by another program" in capsys.readouterr().err


def test_a_truncated_model_file_is_reported_in_one_line(finished, tmp_path, capsys):
    for path in finished.iterdir():
        content = path.read_bytes()
        cut = len(content) // 2 if path.name == "model.pt" else len(content)
        (tmp_path / path.name).write_bytes(content[:cut])
    said = refusal(sample.main, ["--run", str(tmp_path)], capsys)
    assert "model.pt" in said and "damaged" in said and len(said) < 200 + len(str(tmp_path))


def test_training_works_in_a_thread(text_file, tmp_path):
    status = []
    argv = ["--data", text_file, "--out", str(tmp_path / "run"), *SMALL]
    thread = threading.Thread(target=lambda: status.append(train.main(argv)))
    thread.start()
    thread.join()
    assert status == [0] and (tmp_path / "run/model.pt").exists()


def test_an_unfinished_build_is_reported_in_one_line(text_file, tmp_path, monkeypatch, capsys):
    def forward(self, idx):
        raise NotImplementedError

    monkeypatch.setattr(build.GPT, "forward", forward)
    argv = ["--data", text_file, "--out", str(tmp_path / "run"), *SMALL]
    said = refusal(train.main, argv, capsys)
    assert "forward in" in said and "is not written yet" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(os.name == "nt", reason="a closed pipe is another error there")
def test_a_closed_pipe_leaves_no_traceback(finished, monkeypatch, capsys):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert sample.main(["--run", str(finished), "--tokens", "20"]) == 0
        pipe.write("buffered until the process ends")
    assert not capsys.readouterr().err


def test_auto_is_the_cpu_where_there_is_no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert run.pick_device("auto") == torch.device("cpu")


# Several documents, a part of the validation text, another dtype


@pytest.fixture(scope="module")
def folder_of_texts(text_file, tmp_path_factory):
    """Three documents, one with a byte-order mark and CRLF."""
    folder = tmp_path_factory.mktemp("texts")
    text = Path(text_file).read_bytes()
    for i, start in enumerate((0, 1000, 2500)):
        (folder / f"{i}.txt").write_bytes(text[start : start + 1200])
    (folder / "1.txt").write_bytes(b"\xef\xbb\xbf" + text[1000:2200].replace(b"\n", b"\r\n"))
    return folder


@pytest.fixture(scope="module", params=["bpe", "char"])
def of_documents(request, folder_of_texts, tmp_path_factory):
    """A run on several documents, once with each tokenizer."""
    out = tmp_path_factory.mktemp("documents") / request.param
    argv = ["--data", str(folder_of_texts), "--out", str(out), "--tokenizer", request.param]
    with pytest.MonkeyPatch.context() as patch:
        shorten_endings(patch)
        assert train.main([*argv, *SMALL]) == 0
    return out


def test_documents_are_separated_by_a_token_in_the_tokenizers_file(of_documents, folder_of_texts):
    config, tokenizer, model = run.read_run(of_documents)
    end = run.end_of_text(tokenizer)
    assert end == config["vocab"] - 1 == model.tok_emb.num_embeddings - 1
    assert config["data"] == [str(folder_of_texts)]
    args = SimpleNamespace(data=[str(folder_of_texts)], block_size=8)
    data = run.load_data(args, tokenizer)
    first, second = data.train_ids, data.val_ids
    assert data.sha256 == config["corpus_sha256"]
    assert (first == end).sum() == 2 and not (second == end).any(), "three texts, cut in the last"
    documents = run.read_documents([str(folder_of_texts)])
    text = "".join(documents)
    whole = torch.cat([first, second]).tolist()
    assert tokenizer.decode([i for i in whole if i != end]) == text
    assert tokenizer.decode(first.tolist()).split(run.END)[:2] == documents[:2]
    assert "\r" not in text and "\ufeff" not in text


def test_changes_to_a_text_are_reported_in_a_line_each(folder_of_texts, capsys):
    run.read_documents([str(folder_of_texts)])
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and "byte-order mark" in said[0] and "CRLF" in said[1]


@pytest.mark.parametrize("cut", [[5, 5], [1, 8, 1], [20], [3, 6, 1, 10]], ids=str)
def test_documents_are_split_as_their_text_is(cut):
    text = "".join(chr(65 + i) for i in range(sum(cut)))
    documents, start = [], 0
    for n in cut:
        documents.append(text[start : start + n])
        start += n
    first, second = run.split_documents(documents)
    assert ("".join(first), "".join(second)) == run.split_text(text)
    assert all(first) and all(second)


def test_a_text_that_looks_like_the_token_is_plain_text(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(f"one {run.END} two", encoding="utf-8")
    documents = run.read_documents([str(tmp_path)])
    for kind in ("bpe", "char"):
        tokenizer = run.train_tokenizer(kind, documents, 260)
        run.add_end_of_text(tokenizer)
        ids = run.encode_documents(tokenizer, documents)
        assert (ids == run.end_of_text(tokenizer)).sum() == 1


def test_tokenizing_in_pieces_gives_the_same_result(text_file, monkeypatch):
    text = run.read_text(text_file)
    kept = []
    for size in (run.PIECE, 100):
        monkeypatch.setattr(run, "PIECE", size)
        tokenizer = run.train_tokenizer("bpe", text, 300)
        kept.append((tokenizer.merges, run.encode(tokenizer, text).tolist()))
        kept[-1] += (run.digest_of([text]),)
    assert kept[0] == kept[1]
    assert kept[0][1] == tokenizer.encode(text)


def test_ids_take_eight_bytes_each(text_file):
    text = run.read_text(text_file) * 20
    ids = run.encode(run.train_tokenizer("char", text, 0), text)
    assert ids.dtype == torch.int64 and ids.untyped_storage().nbytes() <= 8 * len(text)


def test_a_spread_sample_has_evenly_spaced_stretches():
    ids = torch.arange(10_000)
    part = run.spread_sample(ids, 1600, 10)
    assert len(part) == 1600 and part[0] == 0 and part[-1] == 9999
    starts = [int(i) for i, step in zip(part[1:], part.diff(), strict=True) if step != 1]
    gaps = [b - a for a, b in pairwise(starts)]
    assert len(starts) == 7 and max(gaps) - min(gaps) <= 1
    assert (
        run.spread_sample(ids, 10_000, 10) is ids
        and run.spread_sample(ids[:5], 4096, 8) is not None
    )
    for n in (2, 3, 7, 100, 9999):
        assert 2 <= len(run.spread_sample(ids, n, 1)) <= len(ids)


def test_the_last_validation_reads_the_whole_validation_part(finished, text_file, tmp_path):
    argv = ["--data", text_file, "--out", str(tmp_path), "--tokenizer", finished.name, *SMALL]
    assert train.main([*argv, "--eval-tokens", "40"]) == 0
    ours, whole = (
        [row["val_loss"] for row in rows_of(folder) if "val_loss" in row]
        for folder in (tmp_path, finished)
    )
    assert ours[-1] == whole[-1] and ours[0] != whole[0] and abs(ours[0] - whole[0]) < 0.3
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["eval_tokens"] == 40
    assert train.parse_flags([])[1].eval_tokens == 19_200


def test_bfloat16_gives_nearly_the_same_losses(finished, text_file, tmp_path):
    argv = ["--data", text_file, "--out", str(tmp_path), "--tokenizer", finished.name, *SMALL]
    assert train.main([*argv, "--dtype", "bfloat16"]) == 0
    ours, theirs = rows_of(tmp_path), rows_of(finished)
    for key in ("train_loss", "val_loss"):
        pairs = [(a[key], b[key]) for a, b in zip(ours, theirs, strict=True) if key in a]
        assert 0 < max(abs(a - b) for a, b in pairs) < 0.01
    weights = torch.load(tmp_path / "model.pt", weights_only=True)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def test_an_unsupported_dtype_is_reported_in_one_line(text_file, tmp_path, monkeypatch, capsys):
    def refuse(*_, **__):
        raise RuntimeError("no such thing")

    monkeypatch.setattr(torch, "autocast", refuse)
    argv = ["--data", text_file, "--out", str(tmp_path / "run"), *SMALL, "--dtype", "bfloat16"]
    assert "omit --dtype" in refusal(train.main, argv, capsys)
    assert not (tmp_path / "run").exists()


def test_a_run_is_read_without_this_repository(of_documents, tmp_path, monkeypatch):
    """The lines of NOTES.md, in the run's folder."""
    if of_documents.name == "char":
        pytest.skip("tiktoken has no tokenizer of characters")
    page = (Path(run.__file__).parent / "NOTES.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^(?: {4}.*)?\n)+", page.partition("## A run without")[2], re.M)
    load, use = (textwrap.dedent(block).strip() for block in blocks if "weights" in block)
    assert load.count("\n") == 5 and "p05_gpt" not in load + use, "an import and five lines"
    _, tokenizer, model = run.read_run(of_documents)
    ids = torch.randint(len(tokenizer.vocab), (2, 8), generator=torch.Generator().manual_seed(0))
    names = {"idx": ids, "heads": 2}
    monkeypatch.chdir(of_documents)
    exec(f"{load}\n{use}", names)
    text = f"To be or not, naïve 東京\n\n{run.END}that"
    theirs = names["encoding"].encode(text, allowed_special="all")
    assert theirs == tokenizer.encode(text, allowed_special="all")
    assert theirs == tokenizer.to_tiktoken("mine").encode(text, allowed_special="all")
    with torch.no_grad():
        assert torch.allclose(names["logits"], model(ids), atol=1e-4)


def test_progress_of_calls_shows_a_bar_and_does_not_change_results(monkeypatch, capsys):
    monkeypatch.setattr(run, "tqdm", partial(tqdm, mininterval=0, miniters=1))
    monkeypatch.setattr(run, "progress", lambda *args: run.tqdm(total=args[0], desc=args[1]))
    model = build.GPT(9, 8, 2, 1, 4)
    ids = torch.arange(40) % 9
    expected = build.evaluate(model, ids, 4)
    with run.progress_of_calls(model, len(ids), "validating"):
        assert build.evaluate(model, ids, 4) == expected
    assert "validating" in capsys.readouterr().err and not model._forward_hooks
