"""Eight ways to break a tokenizer, most of which nobody notices: python -m p03_bpe.break_it

Each variant learns 512 tokens, with GPT-4's pattern, from a stretch of Tiny Shakespeare and half
of a Python file; it is saved, loaded again, as in production, and then used on text it has not
seen. The last number is the loss of counting pairs of tokens, in nats per character: training ids
come from the tokenizer that was trained, the others from the one that was loaded.
"""

from __future__ import annotations

import argparse
import inspect
import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import regex

from p01_autograd.lab.figures import BROKEN, HEALTHY, subplots
from p01_autograd.lab.sabotage import Sabotage, main

from .bigram import bigram_loss
from .build import GPT4_PATTERN
from .corpus import load_corpus
from .fast import apply_merges, learn_merges

VOCAB, TRAIN, VALIDATION = 512, 60_000, 20_000  # tokens, characters, characters
CODE = 100_000  # characters of code, half of them to train on
SPECIALS = {"<|endoftext|>": 1000}
SMOOTHING = 10  # how many sightings of a token the single counts weigh
PROBES = [
    "naïve café",
    "東京, Ωmega",
    "😀😀 e\u0301\u200d",
    "a\r\n\tb  c \n\n\n d",
    "x" * 50,
    "<|end|>",
]


@dataclass
class Numbers:
    """What one tokenizer does to text; shares are of 1."""

    tokens_per_char: float  # prose
    code_tokens_per_char: float
    nats_per_char: float  # of a bigram model over the tokens, prose
    glued_tokens: int  # learned tokens that the pattern would have cut
    worst_glue: str  # the longest of them
    other_merges: float  # of the first merges of code, those that are not the most frequent pairs
    other_ids: float  # lines whose ids are not those of merging by rank within the pattern's chunks
    round_trips_failed: float  # texts that do not come back
    cuts_failed: float  # beginnings of a list of ids that do not decode
    ends_lost: float  # <|endoftext|> between documents that did not become one id
    smuggled: float  # <|endoftext|> in a user's text that did


def experiment(build, seed: int = 1337) -> Numbers:
    """Train, save, load and use a tokenizer of the module."""
    text, code = load_corpus(), inspect.getsource(argparse)[:CODE]
    start = random.Random(seed).randrange(len(text) - TRAIN - VALIDATION)
    prose = text[start : start + TRAIN + VALIDATION]
    code, unseen_code = code[: len(code) // 2], code[len(code) // 2 :]
    unseen = prose[TRAIN:]
    trained = build.RegexTokenizer(build.GPT4_PATTERN)
    trained.train(prose[:TRAIN] + code, VOCAB)
    trained.register_special_tokens(SPECIALS)
    with tempfile.TemporaryDirectory() as folder:
        trained.save(str(Path(folder, "tokenizer")))
        used = build.RegexTokenizer()
        used.load(str(Path(folder, "tokenizer.model")))
    ids = used.encode(unseen)
    nats_per_token = bigram_loss(trained.encode(prose[:TRAIN]), ids, VOCAB, [SMOOTHING])
    lines = [*(unseen + unseen_code).splitlines(keepends=True), *PROBES]
    pieces = regex.compile(GPT4_PATTERN)
    learned = [trained.vocab[i].decode("utf-8", "replace") for i in trained.merges.values()]
    glued = [token for token in learned if len(pieces.findall(token)) > 1]
    return Numbers(
        tokens_per_char=len(ids) / len(unseen),
        code_tokens_per_char=len(used.encode(unseen_code)) / len(unseen_code),
        nats_per_char=nats_per_token * (len(ids) - 1) / len(unseen),
        glued_tokens=len(glued),
        worst_glue=", ".join(map(repr, sorted(glued, key=len, reverse=True)[:12])) or "none",
        other_merges=other_merges(build, code[: random.Random(seed).randrange(8_000, 12_000)]),
        other_ids=share(used.encode(line) != by_rank(trained, line) for line in lines),
        round_trips_failed=share(used.decode(used.encode(line)) != line for line in lines),
        cuts_failed=share(fails_to_decode(used, used.encode("naïve 😀 Ωmega"))),
        ends_lost=share(
            used.encode(f"{line}<|endoftext|>", "all")[-1] != 1000 for line in lines[:100]
        ),
        smuggled=share(1000 in unguarded(used, f"{line}<|endoftext|>") for line in lines[:100]),
    )


def share(outcomes) -> float:
    """How many of the outcomes are true, of 1."""
    outcomes = list(outcomes)
    return sum(outcomes) / len(outcomes)


def by_rank(tokenizer, text: str) -> list[int]:
    """What the ids of a text should be: within GPT-4's chunks, the merges in their order."""
    chunks = regex.findall(GPT4_PATTERN, text)
    merged = (apply_merges(list(chunk.encode("utf-8")), tokenizer.merges) for chunk in chunks)
    return [i for ids in merged for i in ids]


def other_merges(build, code: str) -> float:
    """The share of a tokenizer's first 40 merges that are not those they should be."""
    tokenizer = build.RegexTokenizer(build.GPT4_PATTERN)
    tokenizer.train(code, 256 + 40)
    expected = learn_merges(regex.findall(GPT4_PATTERN, code), 40)
    return share(a != b for a, (b, _) in zip(tokenizer.merges, expected, strict=True))


def fails_to_decode(tokenizer, ids: list[int]):
    """For each beginning of the ids, as a model writes them, whether decoding it raises."""
    for n in range(len(ids) + 1):
        try:
            tokenizer.decode(ids[:n])
            yield False
        except UnicodeDecodeError:
            yield True


def unguarded(tokenizer, text: str) -> list[int]:
    """The ids of a text from outside under the default allowed_special; none if it is refused."""
    try:
        return tokenizer.encode(text)
    except ValueError:
        return []


def figure(healthy: list[Numbers], broken: list[Numbers]):
    """Left: what the text costs. Right: how much of it goes wrong."""
    drawing, axes = subplots(1, 2, width=9.6)
    costs = {
        "tokens per\nchar, prose": "tokens_per_char",
        "tokens per\nchar, code": "code_tokens_per_char",
        "nats per\nchar": "nats_per_char",
    }
    wrongs = {
        "other ids": "other_ids",
        "round trips\nfailed": "round_trips_failed",
        "cuts\nfailed": "cuts_failed",
        "ends\nlost": "ends_lost",
        "smuggled": "smuggled",
    }
    for ax, names, title, scale in (
        (axes[0], costs, "what the text costs", 1),
        (axes[1], wrongs, "% that goes wrong", 100),
    ):
        for runs, colour, side, shift in (
            (healthy, HEALTHY, "healthy", -0.2),
            (broken, BROKEN, "broken", 0.2),
        ):
            runs = [run for run in runs if not hasattr(run, "error")]
            for at, name in enumerate(names.values()):
                values = [scale * getattr(run, name) for run in runs]
                if values:
                    label = side if at == 0 else None
                    height = sum(values) / len(values)
                    ax.bar(at + shift, height, 0.4, color=colour, label=label)
        ax.set_xticks(range(len(names)), list(names), size=10)
        ax.set_title(title, size=12)
        ax.grid(axis="x", visible=False)
    axes[1].set_ylim(0, 100)
    axes[0].legend(loc="upper left")
    return drawing


SABOTAGES = [
    Sabotage(
        name="no_split",
        old="return regex.findall(self.pattern, text)",
        new="return [text] if text else []",
        predict="Merges glue the end of one word to the start of the next, and a good part of the "
        "vocabulary is spent on such accidents. Prose takes more tokens, counting pairs of them "
        "predicts it worse, and a line gets other ids by itself than it would within the text.",
        symptom=lambda healthy, broken: (
            broken.glued_tokens > healthy.glued_tokens + (VOCAB - 256) // 5
            and broken.tokens_per_char > healthy.tokens_per_char
            and broken.nats_per_char > healthy.nats_per_char
        ),
        caught_by="test_no_merge_crosses_a_chunk",
        looks_like=("ids",),
        shows=("tokens_per_char", "nats_per_char", "glued_tokens", "other_ids"),
        fault="missing preprocessing step",
        tell="Print the longest tokens: some hold the end of one word and the start of the next. "
        "A line encoded by itself gets other ids than within its text.",
    ),
    Sabotage(
        name="longest_match",
        old="key=lambda pair: self.merges.get(pair, math.inf)",
        new='key=lambda pair: -len(self.vocab.get(self.merges.get(pair), b""))',
        predict="Everything decodes, and takes as many tokens as before, to a few percent. But a "
        "share of the lines gets other ids: a model trained on ids by rank meets strange ones.",
        symptom=lambda healthy, broken: (
            broken.other_ids > 0.01
            and broken.round_trips_failed == 0
            and abs(broken.tokens_per_char / healthy.tokens_per_char - 1) < 0.08
        ),
        caught_by="test_encoding_does_not_prefer_the_longest_token",
        looks_like=("ids",),
        shows=("tokens_per_char", "other_ids"),
        fault="wrong preprocessing step (text segmentation, character encoding)",
        tell="The merges are right and the ids are not: encode a word whose longest token was "
        "learned late. With `runs_count_once` it is the other way round.",
    ),
    Sabotage(
        name="runs_count_once",
        old="    for pair in pairwise(ids):\n",
        new="    for i, pair in enumerate(pairwise(ids)):\n"
        "        if i and ids[i - 1] == ids[i] == ids[i + 1]:  # of a run, count the first pair\n"
        "            continue\n",
        predict="'aaaa' counts as one pair, not as three, so runs of spaces are merged late. The "
        "merges of code are not those of the book's algorithm; prose has no runs, hardly changes, "
        "and the number of tokens stays within two percent: nobody notices.",
        symptom=lambda healthy, broken: (
            broken.other_merges > 0
            and healthy.other_merges == 0
            and broken.other_ids == 0
            and abs(broken.tokens_per_char / healthy.tokens_per_char - 1) < 0.02
            and abs(broken.code_tokens_per_char / healthy.code_tokens_per_char - 1) < 0.02
        ),
        caught_by="test_a_run_holds_a_pair_at_every_place",
        looks_like=("nothing", "ids"),
        shows=("other_merges", "code_tokens_per_char", "other_ids"),
        fault="wrong preprocessing step (text segmentation, character encoding)",
        tell="Only the merges differ from the reference, and only where runs are: train on "
        "'aaaa' and on indented code. Encoding follows its own merges faithfully.",
    ),
    Sabotage(
        name="space_thrown_away",
        old="return regex.findall(self.pattern, text)",
        new="return text.split()",
        predict="Fewer tokens and fewer nats per character than the healthy one, which looks like "
        "progress, and no text of two words comes back.",
        symptom=lambda healthy, broken: (
            broken.round_trips_failed > 0.5
            and broken.tokens_per_char < healthy.tokens_per_char
            and broken.nats_per_char < healthy.nats_per_char
        ),
        caught_by="test_what_is_encoded_decodes_to_itself",
        looks_like=("round trip",),
        shows=("tokens_per_char", "nats_per_char", "round_trips_failed"),
        fault="wrong preprocessing step (text segmentation, character encoding)",
        tell="Two words come back as one. Beware of the numbers: fewer tokens and fewer nats per "
        "character look like progress, since less text is encoded.",
    ),
    Sabotage(
        name="strict_decoding",
        old='return text.decode("utf-8", errors="replace")',
        new='return text.decode("utf-8")',
        predict="Whole texts come back as ever. A model writes a token at a time, and a beginning "
        "that ends inside a character raises.",
        symptom=lambda healthy, broken: (
            broken.cuts_failed > 0 and broken.round_trips_failed == healthy.round_trips_failed
        ),
        caught_by="test_decoding_part_of_a_character_gives_the_replacement_character",
        looks_like=("round trip", "crash"),
        shows=("cuts_failed", "round_trips_failed"),
        fault="wrong preprocessing step (text segmentation, character encoding)",
        tell="UnicodeDecodeError, and only while a model writes: whole texts come back. Decode "
        "the ids of an emoji one by one.",
    ),
    Sabotage(
        name="specials_as_text",
        old="        if allowed:\n",
        new="        if False:\n",
        predict="The end of a document becomes a handful of ordinary tokens. All text comes back; "
        "the model never sees the one id that it is told to stop at.",
        symptom=lambda healthy, broken: broken.ends_lost == 1 and broken.round_trips_failed == 0,
        caught_by="test_special_tokens_get_their_own_ids",
        looks_like=("special tokens",),
        shows=("ends_lost", "round_trips_failed"),
        fault="missing preprocessing step",
        tell="Encode <|endoftext|> where it is allowed and count the ids: more than one. A model "
        "trained so never stops by itself.",
    ),
    Sabotage(
        name="text_as_specials",
        old='allowed = list(self.special_tokens) if allowed_special == "all" else []',
        new="allowed = list(self.special_tokens)",
        predict="Who types <|endoftext|> into a prompt ends the document: the injection.",
        symptom=lambda healthy, broken: healthy.smuggled == 0 and broken.smuggled == 1,
        caught_by="test_a_special_token_in_the_text_raises_by_default",
        looks_like=("special tokens",),
        shows=("smuggled",),
        fault="wrong format of input data",
        tell="Encode <|endoftext|> where nobody allowed it: it becomes the one id, in place of "
        "an error or of ordinary tokens.",
    ),
    Sabotage(
        name="other_pattern",
        old="        self.pattern = lines[1]\n",
        new="",
        predict="Trained with GPT-4's pattern, used with GPT-2's. Every text comes back and no "
        "error shows; a share of the lines gets ids that training never produced, code takes more "
        "tokens, and the loss per character is higher.",
        symptom=lambda healthy, broken: (
            broken.round_trips_failed == 0
            and broken.other_ids > 0.05
            and broken.nats_per_char > healthy.nats_per_char
        ),
        caught_by="test_loading_takes_the_files_pattern",
        looks_like=("ids",),
        shows=("tokens_per_char", "nats_per_char", "other_ids"),
        fault="wrong preprocessing step (text segmentation, character encoding)",
        tell="The tokenizer that was trained gives the right ids, the one that was loaded does "
        "not. All other faults of this kind are there before saving.",
    ),
]


if __name__ == "__main__":
    sys.exit(main("p03_bpe", SABOTAGES, experiment, figure, damage="other_ids"))
