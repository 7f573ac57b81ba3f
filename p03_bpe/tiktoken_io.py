"""To tiktoken and back.

tiktoken stores the bytes of each token and its rank, not the pair that it was merged from; and the
id of a byte need not be its value (GPT-2's begin with the printable bytes).
"""

from __future__ import annotations

import tiktoken

from .build import BasicTokenizer
from .fast import Pair, apply_merges


def to_tiktoken(tokenizer: BasicTokenizer, name: str) -> tiktoken.Encoding:
    """The same tokenizer as a tiktoken.Encoding.

    Raises ValueError when two merges give the same bytes, which tiktoken cannot express.
    """
    specials = set(tokenizer.special_tokens.values())
    ranks = {token: i for i, token in tokenizer.vocab.items() if i not in specials}
    if len(ranks) < 256 + len(tokenizer.merges):
        raise ValueError("two merges give the same bytes, which tiktoken cannot express")
    return tiktoken.Encoding(
        name,
        pat_str=tokenizer.pattern or r"(?s:.+)",
        mergeable_ranks=ranks,
        special_tokens=tokenizer.special_tokens,
    )


def merges_of(encoding: tiktoken.Encoding) -> tuple[list[int], dict[Pair, int]]:
    """The id of each byte, and the merges {pair: id} in their order.

    The pair of a token is what its bytes become when only earlier merges are applied. Raises
    ValueError when that is not a pair, or when a byte is missing.
    """
    ranks = encoding._mergeable_ranks
    if any(bytes([byte]) not in ranks for byte in range(256)):
        raise ValueError(f"{encoding.name} does not know all 256 bytes")
    byte_ids = [ranks[bytes([byte])] for byte in range(256)]
    merges: dict[Pair, int] = {}
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            pair = tuple(apply_merges([byte_ids[byte] for byte in token], merges))
            if len(pair) != 2:
                raise ValueError(f"{token!r} of {encoding.name} is not made of two tokens")
            merges[pair] = rank
    return byte_ids, merges
