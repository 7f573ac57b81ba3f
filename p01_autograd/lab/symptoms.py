"""The field guide: what you see, and which line it may be. `python scripts/report.py --symptoms`

Every sabotage says what it looks like, how to tell it from its neighbours and which class of fault
it belongs to. This module arranges them by symptom and by class, with the numbers of results that
are given to it. The classes are those of Humbatova et al., "Taxonomy of Real Faults in Deep
Learning Systems" (ICSE 2020); a cell of a table is Markdown.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from p01_autograd.lab.sabotage import Sabotage, change, diff

SOURCE = (
    "N. Humbatova, G. Jahangirova, G. Bavota, V. Riccio, A. Stocco, P. Tonella: Taxonomy of Real "
    "Faults in Deep Learning Systems. ICSE 2020, arXiv:1910.11015"
)


@dataclass(frozen=True)
class Symptom:
    """A heading that one would search for, and the first question to ask."""

    heading: str
    text: str


SYMPTOMS = {
    "first loss": Symptom(
        "The first loss is not ln(vocab_size)",
        "A model that knows nothing gives every token about the same probability, and its first "
        "loss is ln V or a little above: 4.17 for 65 characters, 10.82 for GPT-2's 50,257 tokens. "
        "If it is much higher, the logits of the fresh model are too large or the loss is not a "
        "mean. If it is lower, the loss is not a cross-entropy. One forward pass tells, before any "
        "training.",
    ),
    "nan": Symptom(
        "The loss becomes NaN in the first steps",
        "Find the first step whose loss is not finite, and in that step the first tensor that is "
        "not: a weight that is already NaN comes from the update before, not from the forward "
        "pass.",
    ),
    "flat": Symptom(
        "The loss does not go down at all",
        "Print the gradient of one weight. If it is zero, the backward pass does not reach the "
        "weight. If not, compare it with a finite difference: it may be the gradient of something "
        "else.",
    ),
    "token frequencies": Symptom(
        "The loss is stuck at token frequencies (unigram entropy)",
        "The level is the entropy of the single tokens, 3.35 nats for the characters of Tiny "
        "Shakespeare. A model that ends there knows how often each token occurs and makes no use "
        "of its input.",
    ),
    "counting pairs": Symptom(
        "The loss is stuck at the bigram level, as if attention did nothing",
        "The level is that of a bigram model (counting pairs of tokens), 2.49 nats for the "
        "characters of Tiny Shakespeare. A model that ends there uses the last token and nothing "
        "before it.",
    ),
    "stops higher": Symptom(
        "The loss goes down and then stops too high",
        "Every curve of this kind looks like that of a model that is too small. What tells them "
        "apart is a healthy run beside it, a check of the gradients, and the learning rate at the "
        "end.",
    ),
    "too good": Symptom(
        "The training loss is too good to be true",
        "A loss far below what a model of this size can reach means that the answer stands in the "
        "input, or that every batch is the same. Change the last token of a text: no earlier "
        "output may change. Then compare x and y of two batches by eye.",
    ),
    "falls and rises": Symptom(
        "The loss goes down and then diverges",
        "Find the step at which it turned. A rise from one step to the next is an event in the "
        "data; a rise over many steps comes from the updates themselves.",
    ),
    "lost after a step": Symptom(
        "The loss spikes and does not recover",
        "Look at the gradient norm of that one step, and at the size of the updates after it: "
        "AdamW remembers a large gradient for a thousand steps and makes every later one small.",
    ),
    "bad beginning": Symptom(
        "The loss jumps in the first steps and never makes up for it",
        "The first updates are too large. Compare the largest update of the first steps, as a "
        "share of the weights, with those that follow.",
    ),
    "norm": Symptom(
        "The gradient norm keeps growing or never comes down",
        "Gradients accumulate from step to step. With plain gradient descent the run diverges; "
        "behind clipping and AdamW only the gradient norm shows it.",
    ),
    "restart": Symptom(
        "The loss jumps after resuming from a checkpoint",
        "Some state was not saved or not loaded: the optimizer's moments, the generator "
        "of the batches, the step. Resume a short run and compare it with one that was not "
        "stopped: every number must agree.",
    ),
    "no checkpoint": Symptom(
        "The checkpoint is damaged and the run cannot be resumed",
        "The machine died in the middle of a save. If the save overwrote the only checkpoint, "
        "nothing is left; a save under another name, renamed when it is complete, always leaves "
        "one that is whole.",
    ),
    "validation below": Symptom(
        "The validation loss is as low as the training loss",
        "The loss on held-out text lies above the training loss once a model is trained for long "
        "on little text. If it does not, the two texts overlap or are the same.",
    ),
    "validation above": Symptom(
        "The training loss falls and the validation loss is much higher",
        "Overfitting comes slowly: at the first evaluation the two losses are nearly equal. A gap "
        "that is there from the beginning, or a training loss near zero, is a mistake in the "
        "batches or in the evaluation.",
    ),
    "text": Symptom(
        "The loss is good but the generated text is garbage or repeats itself",
        "Either the loss lies (see: too good to be true) or the sampling is wrong. Compute the "
        "model's loss on the prompt: if it is good too, the model is right and the sampling loop "
        "is wrong.",
    ),
    "crash": Symptom(
        "RuntimeError: shapes or types do not match",
        "The best kind of fault: it stops in the first step and names two shapes. Say for each "
        "what its dimensions are (B, T, C, V), and look for the line where they should have met.",
    ),
    "slightly worse": Symptom(
        "No error, right shapes, and the loss is just a little worse",
        "No curve shows it. What finds it is a test of each part by itself, or a healthy run of "
        "the same size, data and seed.",
    ),
    "one learning rate": Symptom(
        "It trains at one learning rate and stalls at a higher one",
        "What normalisation buys is tolerance of a higher rate. Try eight times the rate on a "
        "short run: a healthy model loses a tenth of a nat.",
    ),
    "nothing": Symptom(
        "Everything looks fine and something is wrong",
        "Loss, curve and text are those of a healthy run. Only an exact comparison tells: of a "
        "gradient with finite differences, of a resumed run with one that was not stopped, of ids "
        "with reference ids.",
    ),
    "unusual inputs": Symptom(
        "Fine in training, wrong or infinite on unusual inputs",
        "Try the trained model on a single example, on very large inputs, and on inputs of "
        "another length than in training.",
    ),
    "round trip": Symptom(
        "The tokenizer does not give the text back",
        "decode(encode(text)) must be the text, for every text; and any list of ids must decode "
        "to something, since a model writes lists that no encoder would.",
    ),
    "ids": Symptom(
        "The tokenizer works, but the ids are not the same as in training",
        "A round trip cannot see it. Compare ids with reference ids: on prose, on code, on runs "
        "of spaces, and with a tokenizer that was saved and loaded.",
    ),
    "special tokens": Symptom(
        "The end-of-text token is not one id, or a user can type it",
        "Two questions: does `<|endoftext|>` between documents become one id, and does the "
        "same text inside a user's prompt not?",
    ),
}

FRAMEWORK = "the framework itself"  # what the taxonomy leaves out

FAULTS = {  # by dimension: each class, and why it is left out; "" where a sabotage stands for it
    "Model: type and properties": {
        "wrong weights initialisation": "",
        "wrong network architecture": "",
        "suboptimal network structure": "",
        "wrong model initialisation": "only weights are initialised: see wrong weights "
        "initialisation",
        "multiple initialisations of a CNN": "there is no convolutional network",
        "wrong selection of model": "the book chooses the model",
    },
    "Model: properties of a layer": {
        "wrong input or output shape, dimensions of layers differ": "",
        "suboptimal number of neurons": "",
        "bias needed": "the model is as good with one: `python -m p05_gpt.measure choices`",
        "wrong filter size, wrong amount or type of pooling": "there is no convolution",
    },
    "Model: missing, redundant or wrong layer": {
        "missing normalisation layer": "",
        "redundant softmax layer": "",
        "missing dense layer": "",
        "missing softmax layer": "see missing softmax activation function",
        "missing dropout layer": "the listings have none",
        "missing flatten layer": "there are no images; for a loss that is not flattened see wrong "
        "shape of input data",
        "missing average pooling layer, wrong type of pooling": "there is no pooling",
        "wrong layer type": "the listing has few types of layer, and in the place of another most "
        "of them raise an error",
    },
    "Model: activation function": {
        "missing softmax activation function": "",
        "missing activation function between linear layers": "",
        "wrong type of activation function": "ReLU and GELU work equally well: "
        "`python -m p05_gpt.measure choices`",
    },
    "Tensors and inputs: wrong tensor shape": {
        "wrong indexing": "",
        "right size, wrong order of dimensions": "",
        "missing squeeze": "no dimension of size 1 is kept anywhere",
        "wrong output padding": "nothing is padded",
    },
    "Tensors and inputs: wrong input": {
        "wrong format of input data": "",
        "wrong shape of input data": "",
        "wrong type of input data, incompatible tensor type": "",
        "wrong input format for an RNN": "there is no recurrent network",
        "wrong format of passed weights": "load_state_dict refuses other names and other shapes",
    },
    "Training: hyperparameters": {
        "suboptimal learning rate": "",
        "suboptimal tuning of hyperparameters": "",
        "wrongly implemented data batching": "",
        "data batching required": "the listing has no other way to read text",
        "suboptimal number of epochs": "the value of a flag, not a line; what more steps buy: "
        "`python -m p05_gpt.measure grid`",
        "suboptimal batch size": "the value of a flag, not a line",
        "missing regularisation": "the listings have none; weight decay is a setting of AdamW",
    },
    "Training: optimiser": {
        "wrong optimisation function": "",
        "epsilon of Adam too low": "",
    },
    "Training: loss function": {
        "wrong calculation of the loss": "",
        "missing masking of invalid values": "",
        "wrong selection of loss function": "",
        "missing loss function": "without one there is nothing to call backward on",
    },
    "Training: validation and testing": {
        "missing validation set": "",
        "wrong performance metric": "",
        "incorrect split into training and validation data": "",
    },
    "Training: preprocessing of the data": {
        "missing preprocessing step": "",
        "wrong preprocessing step (text segmentation, character encoding)": "",
    },
    "Training: quality of the data": {
        "wrong labels": "",
        "not enough training data": "",
        "discarding important features": "",
        "unbalanced or low-quality data": "the corpus is given; one damaged batch is part of the "
        "experiment of `no_clipping`",
        "wrong selection of features, small range of a feature": "the only feature is the token",
        "overlapping or too many output classes": "the classes are the tokens",
    },
    "Training: process": {
        "reference to a checkpoint that does not exist": "",
        "wrong management of memory": "break_it does not record memory; what takes it: "
        "`python -m p05_gpt.measure memory`",
        "model too big for the memory": "the models fit on any laptop",
        "missing or redundant data augmentation": "text is not augmented",
    },
    "GPU usage": {
        "all ten classes, from a missing device to wrong data parallelism": "the experiments run "
        "on a laptop without a GPU, where a tensor cannot be on the wrong device",
    },
    "API": {
        "missing API call": "",
        "wrong API usage": "",
        "deprecated API": "the tests run on the versions of pyproject.toml",
        "wrong position of data shuffle": "windows are drawn at random, nothing is shuffled",
        "graph, placeholders, global variables, argument scoping": "these belong to frameworks "
        "that build a static graph; there is none here",
        "image decoding": "there are no images",
    },
    "outside the taxonomy": {FRAMEWORK: ""},
}

Numbers = Callable[[str, Sabotage], str]  # project and sabotage -> a cell of a table


def seen(sabotages: dict[str, list[Sabotage]], numbers: Numbers) -> dict[Symptom, list[list[str]]]:
    """The first table: for every symptom the rows of the sabotages that look like it."""
    return {
        symptom: [
            [
                f"`{s.name}` ({project})",
                code(change(s)),
                numbers(project, s),
                s.tell,
                named(s),
            ]
            for project, listed in sabotages.items()
            for s in listed
            if key in s.looks_like
        ]
        for key, symptom in SYMPTOMS.items()
    }


HEAD = ["sabotage", "line changed", "healthy → broken", "how to tell it", "what names it"]


def classes(sabotages: dict[str, list[Sabotage]]) -> list[list[str]]:
    """The second table: dimension, class, the sabotages of that class or why there is none."""
    rows = []
    for dimension, found in FAULTS.items():
        for name, left_out in found.items():
            there = [
                f"`{s.name}` ({project[:3]})"
                for project, listed in sabotages.items()
                for s in listed
                if s.fault == name
            ]
            rows.append([dimension, name, ", ".join(there) or f"left out: {left_out}"])
    return rows


def code(text: str) -> str:
    return f"`{text}`"


def named(sabotage: Sabotage) -> str:
    """The test, and the finding of the doctor or the checkup."""
    return "; ".join(filter(None, [code(sabotage.caught_by), sabotage.named_by]))


# Numbers


def measured(project: str, sabotage: Sabotage, output: str) -> str:
    """What a break_it command printed, of the numbers that the sabotage shows.

    "" where the output is not that of today's edit.
    """
    try:
        today = diff(project, sabotage)
    except ValueError:  # the module is the reader's own
        return ""
    if not output.startswith(today):
        return ""
    error = re.search(r"^broken error: (.+)$", output, re.M)
    if error:
        return code(textwrap.shorten(error[1], 90, placeholder=" ..."))
    cells = []
    for name in sabotage.shows:
        words = name.replace("_", " ")
        row = re.search(rf"^{words} {{2,}}(\S.*?) {{2,}}(\S.*)$", output, re.M)
        text = re.search(rf"^broken {words}: (.*)$", output, re.M)
        if row:
            sides = [re.sub(r"\bnan( nan)*", "NaN", side) for side in row.groups()]
            sides = [re.sub(r"\binf( inf)*", "infinite", side) for side in sides]
            cells.append(f"{words} {' → '.join(sides)}")
        elif text:
            cells.append(f"{words} {code(text[1].replace('`', ' ')[:30].strip())}")
    return "; ".join(cells)


def of_chapter(page: Path, sabotage: Sabotage) -> str:
    """What the table of a chapter's page says of the sabotage; "" where it has no row."""
    columns: list[str] = []
    lines = page.read_text(encoding="utf-8").splitlines() if page.is_file() else []
    for line in lines:
        if not line.startswith("|"):
            columns = []
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not columns:
            columns = cells
        elif cells and cells[0] == code(sabotage.name):
            known = ("variant", "sabotage", "line", "prediction", "verdict", "curve", "it writes")
            return "; ".join(
                cell if column in ("measured", "healthy") else f"{column} {cell}"
                for column, cell in zip(columns, cells)
                if not any(word in column for word in known)
            )
    return ""


# The page in Markdown


def markdown(guide: dict[Symptom, list[list[str]]], rows: list[list[str]]) -> str:
    """The whole page: what you see, then the classes of faults."""
    guide = {symptom: found for symptom, found in guide.items() if found}
    count = len({line[0] for found in guide.values() for line in found})
    parts = [
        "# Symptoms: what you see, and which line it may be",
        f"{count} mistakes, most of them in one line, each made on purpose in one of the six "
        "projects and measured on a small run against the healthy one. Find what you see, read "
        "the first thing to check, and go down the rows: each says how to tell the mistake from "
        "its neighbours. The last column is the test that fails on it, and the finding of the "
        "doctor or the checkup that names it.",
        "`python -m PROJECT.break_it NAME` shows one beside a healthy run, `python -m "
        "p06_training.doctor PATH` reads a training log, `python -m p05_gpt.checkup TARGET` "
        "examines a model. Losses are in nats, ± is half the range over several seeds; numbers "
        "without an arrow are from a chapter, whose table has the healthy run's as well. `python "
        "scripts/report.py` measures everything on your machine, and `python scripts/report.py "
        "--symptoms` writes this page.",
        "\n".join(f"- [{s.heading}](#{anchor(s.heading)})" for s in guide)
        + f"\n- [{CLASSES}](#{anchor(CLASSES)})",
    ]
    for symptom, found in guide.items():
        parts += [f"## {symptom.heading}", symptom.text, table(HEAD, found)]
    parts += [
        f"## {CLASSES}",
        f"The dimensions and classes are those of {SOURCE}; some are merged. Each has a sabotage "
        "or the reason why it is left out. The last row is not part of the taxonomy, which looks "
        "at programs that use a framework: it holds the faults of the framework itself, here "
        "projects 1 and 2.",
        table(CLASSES_HEAD, rows),
    ]
    return "\n\n".join(parts) + "\n"


CLASSES = "The same by class of fault"
CLASSES_HEAD = ["dimension", "class", "sabotages"]


def anchor(heading: str) -> str:
    """The name that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(escaped, line))} |" for line in lines)


def escaped(cell: str) -> str:
    """For a cell of a Markdown table."""
    return re.sub(r"\\?\|", r"\\|", cell)
