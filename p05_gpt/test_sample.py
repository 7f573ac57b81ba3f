"""The sample command: its text, when it is written, and where it ends."""

import io
import sys
from itertools import pairwise

import pytest
import torch

from p03_bpe import CharTokenizer, RegexTokenizer
from p05_gpt import kv_cache, run, sample
from p05_gpt.build import GPT
from p05_gpt.sampling import generate, stream

BLOCK = 6
TEXT = "to be or not to be, that is the question\n" * 30


def save_run(folder, tokenizer, favour=None):
    """Write a run with random weights, or one in which each id of `favour` predicts the next."""
    vocab = len(tokenizer.vocab)
    torch.manual_seed(0)
    model = GPT(vocab, 16, 2, 2, BLOCK)
    if favour is not None:  # the prediction depends on the last token alone
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
            model.ln_f.weight.fill_(1)
            model.tok_emb.weight.copy_(torch.randn(vocab, 16))
            for a, b in pairwise(favour):
                model.head.weight[b] = 9 * model.ln_f(model.tok_emb.weight[a])
    run.save_tokenizer(tokenizer, folder)
    kind = "char" if isinstance(tokenizer, CharTokenizer) else "bpe"
    sizes = {"n_embd": 16, "n_head": 2, "n_layer": 2, "block_size": BLOCK}
    run.write_json(folder / "config.json", sizes | {"tokenizer": kind})
    torch.save(model.state_dict(), folder / "model.pt")
    return model


@pytest.fixture(scope="module", params=["bpe", "char"])
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    save_run(folder, run.train_tokenizer(request.param, TEXT, 270))
    return folder


@pytest.fixture
def text(folder, capsys):
    def text(*flags):
        assert sample.main(["--run", str(folder), "--tokens", "11", *flags]) == 0
        return capsys.readouterr().out

    return text


def refusal(argv, capsys):
    with pytest.raises(SystemExit) as ended:
        sample.main(argv)
    said = capsys.readouterr()
    assert ended.value.code == 2 and said.err.count("\n") == 1 and not said.out
    return said.err


@pytest.mark.parametrize("sampling", [[], ["--temperature", "0"], ["--top-p", "0.7"]], ids=str)
def test_the_cache_is_on_by_default_and_the_text_is_the_same(text, sampling, monkeypatch):
    calls = []
    real = kv_cache.CachedGPT.forward
    monkeypatch.setattr(
        kv_cache.CachedGPT, "forward", lambda self, idx: calls.append(1) or real(self, idx)
    )
    with_it = text("--prompt", "to be", *sampling)
    assert calls
    calls.clear()
    assert text("--prompt", "to be", "--no-cache", *sampling) == with_it and not calls
    assert text("--prompt", "to be", "--cache", *sampling) == with_it and calls


def test_the_printed_text_is_that_of_generate(folder, text):
    _, tokenizer, model = run.read_run(folder)
    idx = run.prompt_ids(tokenizer, "that")
    seeded = torch.Generator().manual_seed(5)
    new = generate(model, idx, 11, generator=seeded, top_k=9)[0, idx.shape[1] :]
    assert text("--prompt", "that", "--seed", "5", "--top-k", "9") == (
        "that" + tokenizer.decode(new.tolist()) + "\n"
    )


def test_a_model_that_only_looks_like_the_books_is_not_cached(folder):
    model = run.read_run(folder)[2]
    assert isinstance(kv_cache.with_cache(model), kv_cache.CachedGPT)
    model.tok_emb.register_forward_hook(lambda layer, given, out: out * given[0].shape[1])
    assert kv_cache.with_cache(model) is model, "its embedding depends on the length of the text"
    del model.blocks
    assert kv_cache.with_cache(model) is model


def test_each_token_is_written_before_the_next_is_computed(folder, monkeypatch):
    class Paper(io.StringIO):
        def flush(self):
            if self.getvalue():
                seen.append((len(drawn), self.getvalue()))

    drawn, seen, paper = [], [], Paper()

    def counted(*args, **kwargs):
        for token in stream(*args, **kwargs):
            drawn.append(token)
            yield token

    monkeypatch.setattr(sample, "stream", counted)
    monkeypatch.setattr(sys, "stdout", paper)
    assert sample.main(["--run", str(folder), "--prompt", "to", "--tokens", "6"]) == 0
    assert seen[0] == (0, "to")
    assert [n for n, _ in seen[1:7]] == [1, 2, 3, 4, 5, 6]


def test_samples_have_consecutive_seeds(text):
    said = text("--samples", "3", "--seed", "7", "--prompt", "to")
    parts = said.split("--- sample ")[1:]
    assert [part.split("\n", 1)[0] for part in parts] == [
        f"{i} of 3, seed {6 + i}" for i in (1, 2, 3)
    ]
    for i, part in enumerate(parts):
        assert part.split("\n", 1)[1] == text("--seed", str(7 + i), "--prompt", "to")


def test_the_text_ends_before_the_stop(text):
    whole = text("--prompt", "to").removesuffix("\n")
    for stop in (whole[5], whole[5:8], whole[10:]):
        expected = whole[:2] + whole[2:].partition(stop)[0]
        assert text("--prompt", "to", "--stop", stop) == expected + "\n"
    assert text("--prompt", "to", "--stop", "never there") == whole + "\n"


@pytest.mark.parametrize("stop", ["aab", "b", "aaaa", "ba", "aabaab"])
def test_the_stop_is_found_across_pieces(stop):
    text = "aaabaabaaab"
    for size in (1, 2, 3, 11):
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        assert "".join(sample.until(stop, pieces)) == text.partition(stop)[0]


def test_a_character_of_several_tokens_is_written_once_complete():
    tokenizer = RegexTokenizer()
    content = "né 東😀".encode() + b"\xe6\x9d" + b"a" + b"\xf0\x9f"
    pieces = list(sample.decoded(tokenizer, content))
    assert "".join(pieces) == content.decode("utf-8", "replace")
    assert pieces[:3] == ["n", "", "é"]


@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_sampling_starts_and_ends_at_document_boundaries(kind, tmp_path, capsys):
    tokenizer = run.train_tokenizer(kind, TEXT, 256)
    run.add_end_of_text(tokenizer)
    a, b, c = (tokenizer.encode(char)[0] for char in "abe" if char in TEXT)
    end = run.end_of_text(tokenizer)
    save_run(tmp_path, tokenizer, [end, a, b, c, end])
    argv = ["--run", str(tmp_path), "--temperature", "0", "--tokens", "50"]
    assert sample.main(argv) == 0
    assert capsys.readouterr().out == "abe\n"
    assert sample.main([*argv, "--prompt", "b", "--samples", "2", "--no-cache"]) == 0
    assert capsys.readouterr().out.splitlines()[1::2] == ["be", "be"]


@pytest.mark.parametrize("ends", [b"", b"\n", b"\r\n"], ids=repr)
def test_a_prompt_from_standard_input(text, monkeypatch, ends):
    given = io.TextIOWrapper(io.BytesIO(b"to be\n\nor" + ends), encoding="ascii")
    monkeypatch.setattr(sys, "stdin", given)
    piped = text("--prompt", "-")
    assert piped == text("--prompt", "to be\n\nor")


def test_bad_flags_and_input_are_reported_in_one_line(folder, capsys, monkeypatch):
    argv = ["--run", str(folder)]
    assert "--stop" in refusal([*argv, "--stop", ""], capsys)
    assert "--samples" in refusal([*argv, "--samples", "0"], capsys)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), encoding="utf-8"))
    assert "not UTF-8" in refusal([*argv, "--prompt", "-"], capsys)
    monkeypatch.setattr(sys, "stdin", None)
    assert "no standard input" in refusal([*argv, "--prompt", "-"], capsys)
