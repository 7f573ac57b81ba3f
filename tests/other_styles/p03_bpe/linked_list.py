"""A doubly linked list of ids: a merge relinks two neighbours, counts are kept up to date."""

import heapq
import json
import os
from collections import defaultdict
from itertools import pairwise

import regex as re

GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
GPT4_PATTERN = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}"""
    r"""| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"""
)


def get_stats(ids, counts=None):
    counts = defaultdict(int) if counts is None else counts
    previous = None
    for position, i in enumerate(ids):
        if position:
            counts[previous, i] = counts.get((previous, i), 0) + 1
        previous = i
    return dict(counts) if isinstance(counts, defaultdict) else counts


class Node:
    __slots__ = ("before", "id", "next", "place")

    def __init__(self, id, place):
        self.id = id
        self.place = place
        self.before = self.next = None


def link(ids, place=0):
    nodes = [Node(i, place + k) for k, i in enumerate(ids)]
    for a, b in pairwise(nodes):
        a.next, b.before = b, a
    return nodes


def walk(node):
    while node is not None:
        yield node.id
        node = node.next


def join(node, new_id):
    """`node` swallows the one after it."""
    gone = node.next
    node.id = new_id
    node.next = gone.next
    if gone.next is not None:
        gone.next.before = node
    gone.id = None
    gone.before = gone.next = None


def merge(ids, pair, new_id):
    nodes = link(ids)
    for node in nodes:
        if node.id == pair[0] and node.next is not None and node.next.id == pair[1]:
            join(node, new_id)
    return list(walk(nodes[0])) if nodes else []


def learn(chunks, n_merges, verbose):
    """The merges of `chunks`, each a list of bytes, as a dict in order."""
    where = defaultdict(set)  # pair -> the nodes at which it begins
    place = 0
    for chunk in chunks:
        nodes = link(chunk, place)
        place += len(nodes)
        for node in nodes[:-1]:
            where[node.id, node.next.id].add(node)
    merges = {}
    while len(merges) < n_merges:
        where = defaultdict(set, {pair: nodes for pair, nodes in where.items() if nodes})
        if not where:
            print(f"only {256 + len(merges)} tokens: every chunk is a single token now")
            break
        most = max(map(len, where.values()))
        ties = [pair for pair, nodes in where.items() if len(nodes) == most]
        pair = min(ties, key=lambda pair: min(node.place for node in where[pair]))
        merges[pair] = new_id = 256 + len(merges)
        if verbose:
            print(f"{new_id}: {pair}, {most} times")
        for node in sorted(where[pair], key=lambda node: node.place):
            if node.id != pair[0] or node.next is None or node.next.id != pair[1]:
                continue  # the second half of a run like aaa
            before, after = node.before, node.next
            where[pair].discard(node)
            if before is not None:
                where[before.id, node.id].discard(before)
            if after.next is not None:
                where[after.id, after.next.id].discard(after)
            join(node, new_id)
            if before is not None:
                where[before.id, new_id].add(before)
            if node.next is not None:
                where[new_id, node.next.id].add(node)
    return merges


def apply(ids, merges):
    """The earliest merge first, from a heap of (new id, place)."""
    nodes = link(ids)
    heap = [(merges[a.id, b.id], a.place) for a, b in pairwise(nodes) if (a.id, b.id) in merges]
    heapq.heapify(heap)
    while heap:
        new_id, place = heapq.heappop(heap)
        node = nodes[place]
        if node.id is None or node.next is None:
            continue
        if merges.get((node.id, node.next.id)) != new_id:
            continue
        join(node, new_id)
        for a in (node.before, node):
            if a is not None and a.next is not None and (a.id, a.next.id) in merges:
                heapq.heappush(heap, (merges[a.id, a.next.id], a.place))
    return list(walk(nodes[0])) if nodes else []


class _Common:
    pattern = ""

    def __init__(self):
        self.merges = {}
        self.specials = {}
        self._fill_vocab()

    def _fill_vocab(self):
        self.vocab = {b: b.to_bytes(1, "big") for b in range(256)}
        for (a, b), i in self.merges.items():
            self.vocab[i] = self.vocab[a] + self.vocab[b]
        for token, i in self.specials.items():
            self.vocab[i] = token.encode("utf-8")

    def split(self, text):
        return re.findall(self.pattern, text) if self.pattern else [text]

    def register_special_tokens(self, tokens):
        self.specials = dict(tokens)
        self._fill_vocab()

    def train(self, text, vocab_size, verbose=False):
        if vocab_size < 256:
            raise ValueError("a byte-level vocabulary has at least 256 tokens")
        chunks = (list(chunk.encode("utf-8")) for chunk in self.split(text))
        self.merges = learn(chunks, vocab_size - 256, verbose)
        self._fill_vocab()

    def encode(self, text, allowed_special="none_raise"):
        names = set(self.specials)
        if isinstance(allowed_special, str):
            use = {"all": names, "none": set(), "none_raise": set()}[allowed_special]
            forbidden = names if allowed_special == "none_raise" else set()
        else:
            use = names & set(allowed_special)
            forbidden = names - use
        bad = [name for name in forbidden if name in text]
        if bad:
            raise ValueError(f"text contains {bad}; pass allowed_special to allow or ignore them")
        parts = [text]
        if use:
            longest_first = sorted(use, key=lambda name: (-len(name), name))
            parts = re.split("|".join(f"({re.escape(name)})" for name in longest_first), text)
        ids = []
        for part in parts:
            if part in use:
                ids.append(self.specials[part])
            elif part:
                for chunk in self.split(part):
                    ids.extend(apply(list(chunk.encode("utf-8")), self.merges))
        return ids

    def decode(self, ids):
        try:
            data = b"".join([self.vocab[i] for i in ids])
        except KeyError as error:
            raise ValueError(f"id {error} is not in the vocabulary") from error
        return data.decode("utf-8", "replace")

    def save(self, prefix):
        path = os.fspath(prefix)
        with open(path + ".model", "w", encoding="utf-8", newline="\n") as f:
            print("minbpe v1", self.pattern, len(self.specials), sep="\n", file=f)
            for token, i in self.specials.items():
                print(token, i, file=f)
            for a, b in self.merges:
                print(a, b, file=f)
        with open(path + ".vocab", "w", encoding="utf-8") as f:
            json.dump({i: t.decode("utf-8", "replace") for i, t in self.vocab.items()}, f)

    def load(self, path):
        with open(path, encoding="utf-8", newline="\n") as f:
            lines = f.read().split("\n")
        if lines[0] != "minbpe v1":
            raise ValueError(f"{path}: the first line is not 'minbpe v1'")
        self.pattern = lines[1]
        n = int(lines[2])
        self.specials = {}
        for line in lines[3 : 3 + n]:
            token, _, i = line.rpartition(" ")
            self.specials[token] = int(i)
        pairs = [tuple(map(int, line.split())) for line in lines[3 + n :] if line]
        self.merges = {pair: 256 + k for k, pair in enumerate(pairs)}
        self._fill_vocab()


class BasicTokenizer(_Common):
    pass


class RegexTokenizer(_Common):
    def __init__(self, pattern=GPT2_PATTERN):
        super().__init__()
        self.pattern = pattern


class CharTokenizer:
    def __init__(self, text):
        self.ids = {}
        for c in sorted(set(text)):
            self.ids[c] = len(self.ids)
        self.characters = {i: c for c, i in self.ids.items()}

    @property
    def vocab(self):
        return self.characters

    def encode(self, text):
        try:
            return [self.ids[c] for c in text]
        except KeyError as error:
            raise ValueError(f"no id for the character {error}") from error

    def decode(self, ids):
        try:
            return "".join([self.characters[i] for i in ids])
        except KeyError as error:
            raise ValueError(f"no character for the id {error}") from error
