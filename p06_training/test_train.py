"""The training command: its files, resuming after a crash, refusals."""

import errno
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from p01_autograd.lab.cli import UsageError
from p03_bpe import corpus
from p05_gpt import run
from p06_training import build, checkpoints, doctor, train
from p06_training.doctor import Finding

SMALL = ["--n-layer=1", "--n-head=2", "--n-embd=16", "--block-size=8", "--batch-size=4"]
SMALL += ["--steps=30", "--eval-every=7", "--checkpoint-every=5", "--tokenizer=char"]
SMALL += ["--device=cpu"]
POSIX = pytest.mark.skipif(os.name == "nt", reason="sends signals or sets limits as POSIX has them")
FORKS = pytest.mark.skipif(sys.platform != "linux", reason="forks a process with PyTorch")


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    draw = random.Random(0)
    words = ["to", "be", "or", "not", "that", "is", "the", "question"]
    lines = (" ".join(draw.choices(words, k=8)).capitalize() + "." for _ in range(100))
    path = tmp_path_factory.mktemp("data") / "text.txt"
    path.write_bytes("\n".join(lines).encode("utf-8"))
    return str(path)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """One thread, as in the commands that are started; samples and figures are stubs."""
    monkeypatch.setattr(train, "preview", lambda *_: "")
    monkeypatch.setattr(train, "sample_text", lambda *_: "a sample")
    monkeypatch.setattr(run, "draw_losses", lambda *given: given[-1].write_bytes(b"\x89PNG"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def flags(text_file, out, *more):
    return ["--data", text_file, "--out", str(out), *SMALL, *map(str, more)]


@pytest.fixture(scope="module")
def straight(text_file, tmp_path_factory):
    """An uninterrupted run."""
    out, threads = tmp_path_factory.mktemp("runs") / "straight", torch.get_num_threads()
    torch.set_num_threads(1)
    assert train.main(flags(text_file, out)) == 0
    torch.set_num_threads(threads)
    return out


def rows_of(folder):
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def without_time(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def state_of(folder, name="step_0000030.pt"):
    return checkpoints.load_checkpoint(folder / "checkpoints" / name)


def tensors(state):
    """Yield (path, tensor) for all tensors of a nested state."""
    if isinstance(state, torch.Tensor):
        yield "", state
    elif isinstance(state, dict | list):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from ((f"{key}.{name}", tensor) for name, tensor in tensors(value))


def assert_the_same_run(ours, theirs):
    assert without_time(rows_of(ours)) == without_time(rows_of(theirs)), "the metrics differ"
    seconds = [row["seconds"] for row in rows_of(ours)]
    assert seconds == sorted(seconds), "the elapsed time started over"
    for name in ("step_0000030.pt", "best.pt"):
        a, b = dict(tensors(state_of(ours, name))), dict(tensors(state_of(theirs, name)))
        assert a.keys() == b.keys()
        different = [key for key in a if not torch.equal(a[key], b[key])]
        assert not different, f"{name}: {different} differ"
    weights = [torch.load(f / "model.pt", weights_only=True) for f in (ours, theirs)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def refusal(argv, capsys):
    """The one line with which the command refuses its flags."""
    with pytest.raises(SystemExit) as ended:
        train.main(argv)
    said = capsys.readouterr()
    assert ended.value.code == 2, f"status {ended.value.code} for {argv}"
    assert said.err.count("\n") == 1 and "usage:" not in said.err, said.err
    return said.err


class Command:
    """The command in a process of its own, a fork of this one, which has imported PyTorch."""

    def __init__(self, folder, *argv, **environment):
        self.out, self.err = (folder / f"{name}-{os.urandom(4).hex()}" for name in ("out", "err"))
        given = [str(word) for word in argv], environment, self.out, self.err
        self.process = multiprocessing.get_context("fork").Process(target=in_a_fork, args=given)
        with warnings.catch_warnings():  # Python 3.12 warns of threads; ours wait for work
            warnings.simplefilter("ignore", DeprecationWarning)
            self.process.start()

    def wait(self, seconds=60):
        """Wait for the end; returns the status, stdout and stderr."""
        self.process.join(seconds)
        self.process.kill()
        self.process.join()
        return self.process.exitcode, self.out.read_text("utf-8"), self.err.read_text("utf-8")


def in_a_fork(argv, environment, out, err):
    """Run the command with its output in two files; exit with its status."""
    os.environ.update(environment)
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(n), "w", encoding="utf-8") for n in (1, 2))
    torch.set_num_threads(1)
    status = 1
    try:
        status = train.main(argv)
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def wait_for_rows(command, out, n, seconds=60):
    """Wait until metrics.jsonl has n lines."""
    end, path = time.monotonic() + seconds, out / "metrics.jsonl"
    while time.monotonic() < end and command.process.exitcode is None:
        if path.exists() and path.read_bytes().count(b"\n") >= n:
            return
        time.sleep(0.002)
    status, said, complained = command.wait(0)
    pytest.fail(f"no {n} steps: status {status}\n{said}\n{complained}")


# What a run writes


def test_a_run_writes_the_files_of_the_contract(straight):
    assert {path.name for path in straight.iterdir()} == {
        "config.json", "metrics.jsonl", "tokenizer.json", "model.pt", "loss.png", "sample.txt",
        "checkpoints",
    }  # fmt: skip
    assert {path.name for path in (straight / "checkpoints").iterdir()} == {
        "step_0000020.pt", "step_0000025.pt", "step_0000030.pt", "best.pt",
    }  # fmt: skip
    assert (straight / "loss.png").stat().st_size > 5000
    config = json.loads((straight / "config.json").read_text(encoding="utf-8"))
    assert config["optimizer"] == "muon" and config["max_lr"] == 8e-3 and config["clip"] == 1.0
    assert config["min_lr"] == pytest.approx(8e-5) and config["warmup_steps"] == 1
    assert not {"out", "overwrite", "resume"} & set(config) and len(config["corpus_sha256"]) == 64


def test_a_row_for_every_step(straight):
    rows = rows_of(straight)
    assert [row["step"] for row in rows] == list(range(1, 31))
    for row in rows:
        evaluated = {"val_loss", "val_nats_per_char"} if row["step"] in (7, 14, 21, 28, 30) else {}
        assert set(row) == {"step", "seconds", "train_loss", "lr", "grad_norm", *evaluated}
    rates = [
        build.lr_at(i, max_lr=8e-3, min_lr=8e-5, warmup_steps=1, total_steps=30) for i in range(30)
    ]
    assert [row["lr"] for row in rows] == pytest.approx(rates)


def test_the_weights_are_the_best_by_validation_loss(straight, text_file):
    best = min(row["val_loss"] for row in rows_of(straight) if "val_loss" in row)
    config, tokenizer, model = run.read_run(straight)
    text = Path(text_file).read_bytes().decode("utf-8")
    ids = run.encode(tokenizer, run.split_text(text)[1])
    assert build.evaluate(model, ids, config["block_size"]) == pytest.approx(best, rel=1e-5)
    assert state_of(straight, "best.pt")["best_loss"] == best


def test_accumulating_gives_the_losses_of_the_larger_batch(text_file, tmp_path):
    more = ["--steps", 8]
    assert train.main(flags(text_file, tmp_path / "a", *more, "--batch-size", 12)) == 0
    parts = ["--batch-size", 4, "--accumulate", 3]
    assert train.main(flags(text_file, tmp_path / "b", *more, *parts)) == 0
    losses = [[row["train_loss"] for row in rows_of(tmp_path / name)] for name in "ab"]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_the_doctors_findings_are_printed_once_and_the_run_continues(
    text_file, tmp_path, capsys, monkeypatch
):
    found = [Finding("plateau", 3, "it does not fall", "try this")]
    monkeypatch.setattr(doctor, "diagnose", lambda metrics: found)
    assert train.main(flags(text_file, tmp_path / "run")) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "warning:" in line]
    assert len(lines) == 1 and "plateau since step 3: it does not fall; try this" in lines[0]


# Killed and resumed


@FORKS
def test_a_run_killed_twice_and_resumed_ends_exactly_the_same(straight, text_file, tmp_path):
    out = tmp_path / "run"
    more = ["--steps", 30]
    for rows in (7, 19):
        argv = ["--resume", "--out", str(out)] if rows > 7 else flags(text_file, out, *more)
        command = Command(tmp_path, *argv)
        wait_for_rows(command, out, rows)
        command.process.kill()
        command.process.join()
    assert train.main(["--resume", "--out", str(out)]) == 0
    assert_the_same_run(out, straight)


class Killed(BaseException):
    """Raised where a kill would strike."""


MOMENTS = [
    (build.os, "replace", 3, "before the first checkpoint gets its name"),
    (build.os, "replace", 5, "between the best checkpoint and its weights"),
    (build.os, "replace", 18, "before the last checkpoint gets its name"),
    (build.os, "fsync", 3, "while the metrics are forced to the disk"),
    (build, "clip_grad_norm", 8, "in step 8"),
    (build, "evaluate", 5, "in the last validation"),
]


@pytest.mark.parametrize(
    "owner, name, nth", [moment[:3] for moment in MOMENTS], ids=[moment[3] for moment in MOMENTS]
)
def test_a_run_killed_at_any_moment_resumes_exactly(
    straight, text_file, tmp_path, monkeypatch, owner, name, nth
):
    real, calls = getattr(owner, name), []

    def until_killed(*args, **named):
        calls.append(name)
        if len(calls) == nth:
            raise Killed
        return real(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, until_killed)
        with pytest.raises(Killed):
            train.main(flags(text_file, tmp_path / "run"))
    with open(tmp_path / "run" / "metrics.jsonl", "a", encoding="utf-8") as log:
        log.write('{"step": 29, "train_l')  # a last line that was cut short
    (tmp_path / "run" / "checkpoints" / ".step_0000030.pt.partial").write_bytes(b"half")
    assert train.main(["--resume", "--out", str(tmp_path / "run")]) == 0
    assert_the_same_run(tmp_path / "run", straight)
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


def test_a_run_with_dropout_resumes_exactly(text_file, tmp_path, monkeypatch):
    more = ["--dropout", 0.3, "--optimizer", "adamw"]
    assert train.main(flags(text_file, tmp_path / "a", *more)) == 0
    real = build.Trainer.step

    def dies(trainer):
        if trainer.steps_done == 17:
            raise Killed
        return real(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(build.Trainer, "step", dies)
        with pytest.raises(Killed):
            train.main(flags(text_file, tmp_path / "b", *more))
    assert train.main(["--resume", "--out", str(tmp_path / "b")]) == 0
    assert_the_same_run(tmp_path / "b", tmp_path / "a")


def test_the_long_run_begins_with_pytorchs_own_weights():
    _, args, _ = train.parse_flags(["--preset", "long", "--n-layer", "1"])
    config = SimpleNamespace(**vars(args) | {"vocab": 30, "device": "cpu"})
    torch.manual_seed(args.seed)
    expected = train.GPT(30, args.n_embd, args.n_head, args.n_layer, args.block_size)
    assert torch.equal(train.build_model(config).pos_emb.weight, expected.pos_emb.weight)
    config.preset = "default"
    assert train.build_model(config).pos_emb.weight.std() < 0.05


def test_dropout_is_on_embeddings_and_outputs_of_attention_and_mlp():
    def outputs(dropout):
        """The share of zeros in each part's output, in training and in evaluation mode."""
        config = SimpleNamespace(
            seed=1, vocab=30, n_embd=16, n_head=2, n_layer=2, block_size=8, dropout=dropout,
            device="cpu", preset="default",
        )  # fmt: skip
        model, shares = train.build_model(config), []
        parts = [model.tok_emb, *(p for block in model.blocks for p in (block.attn, block.mlp))]
        for part in parts:
            part.register_forward_hook(
                lambda part, _, out: shares.append((out == 0).float().mean().item())
            )
        idx = torch.randint(30, (64, 8), generator=torch.Generator().manual_seed(0))
        model(idx)
        model.eval()(idx)
        return shares[: len(parts)], shares[len(parts) :]

    training, after = outputs(0.25)
    assert training == pytest.approx([0.25] * 5, abs=0.03) and after == [0] * 5
    assert outputs(0.0) == ([0] * 5, [0] * 5)


@FORKS
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_completes_the_step_and_prints_how_to_resume(text_file, tmp_path, capsys, number):
    out = tmp_path / "run"
    more = ["--steps", 100_000, "--eval-every", 50_000]
    command = Command(tmp_path, *flags(text_file, out, *more))
    wait_for_rows(command, out, 8)
    os.kill(command.process.pid, number)
    status, said, complained = command.wait()
    assert status == 0 and "Traceback" not in complained, complained
    assert f"python -m p06_training.train --resume --out {out}" in said
    rows = rows_of(out)
    done = len(rows)
    assert [row["step"] for row in rows] == list(range(1, done + 1))
    assert (out / "checkpoints" / f"step_{done:07d}.pt").exists(), "a checkpoint of the last step"


def interrupted_twice(patch, step):
    """Two Ctrl-C within this step."""
    real = build.Trainer.step

    def interrupted(trainer):
        if trainer.steps_done == step:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return real(trainer)

    patch.setattr(build.Trainer, "step", interrupted)


@pytest.fixture
def in_front():
    """Ctrl-C raises KeyboardInterrupt, however this process was started."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@POSIX
def test_a_second_signal_ends_at_once_and_the_run_resumes_exactly(
    straight, text_file, tmp_path, capsys, monkeypatch, in_front
):
    with monkeypatch.context() as patch:
        interrupted_twice(patch, 17)
        assert train.main(flags(text_file, tmp_path / "run")) == 130
    said = capsys.readouterr().err
    assert "stopped at once" in said and f"--resume --out {tmp_path / 'run'}" in said
    assert len(rows_of(tmp_path / "run")) == 17, "the step was not finished"
    assert train.main(["--resume", "--out", str(tmp_path / "run")]) == 0
    assert_the_same_run(tmp_path / "run", straight)


@POSIX
def test_a_second_signal_ends_a_background_job_too(text_file, tmp_path, monkeypatch, in_front):
    """A shell has such a job ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupted_twice(monkeypatch, 2)
    assert train.main(flags(text_file, tmp_path / "run")) == 130
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN, "the handler should be restored"
    assert len(rows_of(tmp_path / "run")) == 2


def test_resuming_a_finished_run_does_not_change_it(straight, tmp_path):
    shutil.copytree(straight, tmp_path / "run")
    (tmp_path / "run" / "loss.png").unlink()
    assert train.main(["--resume", "--out", str(tmp_path / "run")]) == 0
    assert_the_same_run(tmp_path / "run", straight)
    assert (tmp_path / "run" / "loss.png").exists()


def test_a_resumed_run_keeps_its_number_of_threads(straight, text_file, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(train, "use_free_cores", asked.append)
    shutil.copytree(straight, tmp_path / "run")
    assert train.main(["--resume", "--out", str(tmp_path / "run")]) == 0
    assert train.main(flags(text_file, tmp_path / "new", "--steps", 1)) == 0
    assert asked == [1, None]  # None: as many as there are free cores


# Damaged, foreign and hostile files


def cut_back(straight, folder):
    """A copy of the run as it was after step 25."""
    shutil.copytree(straight, folder)
    (folder / "checkpoints" / "step_0000030.pt").unlink()
    return folder / "checkpoints" / "step_0000025.pt"


def test_a_damaged_newest_checkpoint_is_skipped(straight, tmp_path, capsys):
    newest = cut_back(straight, tmp_path / "run")
    content = newest.read_bytes()
    newest.write_bytes(content[:2000] + b"?" + content[2001:])
    assert train.main(["--resume", "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    assert "step_0000025.pt" in said and "resuming from step_0000020.pt" in said
    assert_the_same_run(tmp_path / "run", straight)


class Hostile:
    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_code_in_a_checkpoint_is_not_run(straight, tmp_path, capsys):
    newest = cut_back(straight, tmp_path / "run")
    state = build.load_checkpoint(newest)
    build.save_checkpoint(newest, state | {"loop": Hostile(tmp_path / "trap")})
    assert train.main(["--resume", "--out", str(tmp_path / "run")]) == 0
    assert not (tmp_path / "trap").exists()
    assert "holds more than tensors and numbers" in capsys.readouterr().err
    assert_the_same_run(tmp_path / "run", straight)


def test_the_checkpoint_of_another_model_is_skipped(straight, text_file, tmp_path, capsys):
    newest = cut_back(straight, tmp_path / "run")
    assert train.main(flags(text_file, tmp_path / "other", "--n-embd", 8, "--steps", 5)) == 0
    shutil.copy(tmp_path / "other" / "checkpoints" / "step_0000005.pt", newest)
    capsys.readouterr()
    assert train.main(["--resume", "--out", str(tmp_path / "run")]) == 0
    assert "another run: n_embd, steps" in capsys.readouterr().err
    assert_the_same_run(tmp_path / "run", straight)


def test_without_a_good_checkpoint_nothing_changes(straight, tmp_path, capsys):
    shutil.copytree(straight, tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.write_bytes(b"")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    said = refusal(["--resume", "--out", str(tmp_path / "run")], capsys)
    assert "no good checkpoint" in said and "best.pt" in said
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert "no checkpoint" in refusal(["--resume", "--out", str(tmp_path / "run")], capsys)
    assert before == (tmp_path / "run" / "metrics.jsonl").read_bytes()


@POSIX
def test_a_full_disk_ends_the_run_with_one_line_and_keeps_the_last_checkpoint(
    straight, text_file, tmp_path, capsys
):
    import resource

    out = tmp_path / "run"
    full = (straight / "checkpoints" / "step_0000020.pt").stat().st_size - 4000
    assert full > (straight / "model.pt").stat().st_size
    first = cut_back(straight, out)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (full, hard))
    try:
        status = train.main(["--resume", "--out", str(out)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capsys.readouterr().err
    assert status == 1 and "Traceback" not in said
    assert re.search(r"cannot write .*Make room, then: python -m p06_training.train", said), said
    assert first.exists() and not (out / "checkpoints" / "step_0000030.pt").exists()
    assert train.main(["--resume", "--out", str(out)]) == 0
    assert_the_same_run(out, straight)


# Refusals


def test_resuming_with_other_settings_lists_them_all(straight, text_file, capsys):
    before = {path: path.read_bytes() for path in straight.rglob("*") if path.is_file()}
    said = refusal(
        [
            "--resume",
            "--out",
            str(straight),
            "--max-lr",
            "0.01",
            "--n-embd",
            "32",
            "--seed",
            "1337",
        ],
        capsys,
    )
    assert "--max-lr 0.01 (it has 0.008)" in said and "--n-embd 32 (it has 16)" in said
    assert "--seed" not in said, "a flag that agrees is no difference"
    said = refusal(["--resume", "--out", str(straight), "--steps", "60"], capsys)
    assert "--steps 60 (it has 30)" in said and "cosine" in said
    assert before == {path: path.read_bytes() for path in straight.rglob("*") if path.is_file()}


def test_settings_that_may_differ_can_be_given_again(straight, text_file, tmp_path, capsys):
    cut_back(straight, tmp_path / "run")
    moved = tmp_path / "moved.txt"
    moved.write_bytes(Path(text_file).read_bytes())
    more = ["--data", str(moved), "--checkpoint-every", "9", "--device", "cpu", "--max-lr", "8e-3"]
    assert train.main(["--resume", "--out", str(tmp_path / "run"), *more]) == 0
    assert_the_same_run(tmp_path / "run", straight)
    capsys.readouterr()
    moved.write_bytes(Path(text_file).read_bytes() + b" or not")
    said = refusal(["--resume", "--out", str(tmp_path / "run"), *more], capsys)
    assert "the text is not the one" in said


def test_an_existing_run_is_not_changed(straight, text_file, capsys):
    before = {path: path.read_bytes() for path in straight.rglob("*") if path.is_file()}
    said = refusal(flags(text_file, straight), capsys)
    assert "--resume" in said and "--overwrite" in said and "--out" in said
    assert before == {path: path.read_bytes() for path in straight.rglob("*") if path.is_file()}


def test_overwrite_starts_over_and_leaves_other_files(straight, text_file, tmp_path):
    shutil.copytree(straight, tmp_path / "run")
    (tmp_path / "run" / "notes.md").write_text("mine", encoding="utf-8")
    more = ["--overwrite", "--steps", 10]
    assert train.main(flags(text_file, tmp_path / "run", *more)) == 0
    assert len(rows_of(tmp_path / "run")) == 10 and (tmp_path / "run" / "notes.md").exists()
    names = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert names == {"step_0000000.pt", "step_0000005.pt", "step_0000010.pt", "best.pt"}


def test_resume_without_a_run_or_with_overwrite(straight, tmp_path, capsys):
    assert "no run" in refusal(["--resume", "--out", str(tmp_path / "none")], capsys)
    said = refusal(["--resume", "--overwrite", "--out", str(straight)], capsys)
    assert "exclude each other" in said
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    assert "config.json" in refusal(["--resume", "--out", str(tmp_path)], capsys)


BAD_SETTINGS = [
    ({"n_embd": "16"}, "n_embd is '16'"),
    ({"n_head": 3}, "--n-head 3"),
    ({"steps": None}, "steps is None"),
    ({"steps": 0}, "--steps"),
    ({"data": 5}, "data is 5"),
    ({"dtype": "float8"}, "--dtype"),
    ({"device": "abacus"}, "abacus"),
    ({"corpus_sha256": ...}, "corpus_sha256"),
    ({"clip": ...}, "clip"),
]


@pytest.mark.parametrize("changed, part", BAD_SETTINGS, ids=[str(c) for c, _ in BAD_SETTINGS])
def test_a_config_that_was_changed_by_hand_is_refused(straight, tmp_path, capsys, changed, part):
    cut_back(straight, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text("utf-8")) | changed
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not ...}), "utf-8")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert part in refusal(["--resume", "--out", str(tmp_path / "run")], capsys)
    assert before == (tmp_path / "run" / "metrics.jsonl").read_bytes()


def test_missing_best_weights_are_reported(straight, tmp_path, capsys):
    shutil.copytree(straight, tmp_path / "run")
    weights = tmp_path / "run" / "model.pt"
    for damage, word in (
        (lambda: weights.write_bytes(b"junk"), "damaged"),
        (weights.unlink, "miss"),
    ):
        damage()
        with pytest.raises(SystemExit):
            train.main(["--resume", "--out", str(tmp_path / "run")])
        last = capsys.readouterr().err.splitlines()[-1]
        assert f"{weights}, the best weights so far, is {word}" in last


BAD_FLAGS = [
    (["--n-embd", "10", "--n-head", "3"], "--n-head"),
    (["--steps", "0"], "--steps"),
    (["--max-lr", "0"], "--max-lr"),
    (["--max-lr", "nan"], "--max-lr"),
    (["--max-lr", "inf"], "--max-lr"),
    (["--min-lr", "-1"], "--min-lr"),
    (["--min-lr", "1"], "above"),
    (["--warmup-steps", "-1"], "--warmup-steps"),
    (["--warmup-steps", "31"], "--warmup-steps"),
    (["--clip", "0"], "--clip"),
    (["--accumulate", "0"], "--accumulate"),
    (["--checkpoint-every", "0"], "--checkpoint-every"),
    (["--optimizer", "sgd"], "--optimizer"),
    (["--dropout", "1"], "--dropout"),
    (["--preset", "short"], "--preset"),
    (["--device", "abacus"], "abacus"),
    (["--block-size", "100000"], "too short"),
    (["--data", "/no/such/file"], "no file"),
]


def test_what_cannot_run_ends_before_a_folder_is_claimed(text_file, tmp_path, monkeypatch, capsys):
    def refuse(model, args, train_ids):
        raise UsageError("one tensor is on the CPU and another is not")

    monkeypatch.setattr(train, "call_everything", refuse)
    with pytest.raises(SystemExit):
        train.main(flags(text_file, tmp_path / "run"))
    assert "one tensor is on the CPU" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrong, part", BAD_FLAGS, ids=[" ".join(f) for f, _ in BAD_FLAGS])
def test_bad_flags_end_with_one_line(text_file, tmp_path, capsys, wrong, part):
    assert part in refusal(flags(text_file, tmp_path / "run", *wrong), capsys)
    assert not (tmp_path / "run").exists(), "a refused run must not leave a folder behind"


def test_a_nan_or_infinite_loss_is_reported(text_file, tmp_path, capsys):
    more = ["--max-lr", "1e30", "--steps", "60"]
    assert train.main(flags(text_file, tmp_path / "run", *more)) == 1
    assert "lower --max-lr" in capsys.readouterr().err
    assert len(rows_of(tmp_path / "run")) < 60, "a run that is lost should end"


@POSIX
def test_a_closed_pipe_does_not_stop_the_run(text_file, tmp_path, monkeypatch):
    """2>&1 | head -1"""
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", encoding="utf-8") as out, open(os.dup(write), "w", encoding="utf-8") as e:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", e)
        assert train.main(flags(text_file, tmp_path / "run")) == 0
        monkeypatch.undo()
    assert len(rows_of(tmp_path / "run")) == 30 and (tmp_path / "run" / "sample.txt").exists()


def test_a_run_in_a_thread(straight, text_file, tmp_path):
    argv, done = flags(text_file, tmp_path / "run"), []
    thread = threading.Thread(target=lambda: done.append(train.main(argv)))
    thread.start()
    thread.join()
    assert done == [0]
    assert_the_same_run(tmp_path / "run", straight)


def test_a_locked_file_is_reported(text_file, tmp_path, capsys, monkeypatch):
    def locked(old, new):
        raise PermissionError(errno.EACCES, "Access is denied")

    monkeypatch.setattr(build.os, "replace", locked)
    monkeypatch.setattr(corpus.time, "monotonic", iter(range(10**6)).__next__)
    status = train.main(flags(text_file, tmp_path / "run"))
    said = capsys.readouterr().err
    assert status == 1 and "locked by another program" in said and str(tmp_path / "run") in said


# A part of the validation text, another run's weights, another dtype


def test_the_final_number_is_over_the_whole_validation_part(straight, text_file, tmp_path, capsys):
    assert train.main(flags(text_file, tmp_path / "run", "--eval-tokens", 40)) == 0
    said = capsys.readouterr().out
    part, whole = (
        {row["step"]: row["val_loss"] for row in rows_of(folder) if "val_loss" in row}
        for folder in (tmp_path / "run", straight)
    )
    assert part[30] == whole[30] and part[7] != whole[7]
    step = state_of(tmp_path / "run", "best.pt")["steps_done"]
    assert f"{whole[step]:.4f} nats per token" in said and f"at step {step}" in said
    assert train.main(["--resume", "--out", str(tmp_path / "run")]) == 0
    assert said.split("\n")[-5:] == capsys.readouterr().out.split("\n")[-5:]


def test_the_best_weights_are_chosen_on_the_whole_validation_part(
    straight, text_file, tmp_path, monkeypatch
):
    """The validations before the last are patched so that step 7 looks best by far."""
    real = build.evaluate
    flattering = iter([0.01, 9.0, 9.0, 9.0, 9.0])
    monkeypatch.setattr(build, "evaluate", lambda *_: next(flattering))
    assert train.main(flags(text_file, tmp_path / "run", "--eval-tokens", 40)) == 0
    assert build.evaluate is not real
    last = {row["step"]: row for row in rows_of(straight)}
    assert last[30]["val_loss"] < last[7]["val_loss"]
    assert state_of(tmp_path / "run", "best.pt")["steps_done"] == 30
    weights = [torch.load(f / "model.pt", weights_only=True) for f in (tmp_path / "run", straight)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.fixture(scope="module")
def other_texts(text_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("others")
    text = Path(text_file).read_bytes()
    (folder / "one.txt").write_bytes(text[-2000:-700])
    (folder / "two.txt").write_bytes(text[-700:] + text[:900])
    return folder


def from_run(source, text, out, *more):
    argv = ["--data", text, "--out", out, "--init-from", source, "--device", "cpu"]
    argv += ["--batch-size", 4, "--steps", 10, "--eval-every", 5, "--checkpoint-every", 5, *more]
    return [str(word) for word in argv]


def test_a_run_starts_from_anothers_weights_and_tokenizer(straight, text_file, tmp_path):
    out = tmp_path / "run"
    assert train.main(from_run(straight, text_file, out, "--max-lr", 1e-3)) == 0
    first = state_of(out, "step_0000010.pt")["recipe"]
    assert first["n_embd"] == 16 and first["tokenizer"] == "char" and first["max_lr"] == 1e-3
    assert first["init_from"] == str(straight) and first["block_size"] == 8
    tokenizers = [(folder / "tokenizer.json").read_bytes() for folder in (out, straight)]
    assert tokenizers[0] == tokenizers[1]
    best = [min(row.get("val_loss", 9) for row in rows_of(folder)) for folder in (out, straight)]
    assert rows_of(out)[0]["train_loss"] < rows_of(straight)[0]["train_loss"] - 0.5
    assert best[0] < best[1] + 0.1, "training starts from the other run's weights"


def test_a_run_from_another_resumes_exactly_even_without_its_source(
    straight, other_texts, tmp_path, monkeypatch
):
    source = tmp_path / "source"
    shutil.copytree(straight, source)
    assert train.main(from_run(source, other_texts, tmp_path / "a")) == 0
    real = build.Trainer.step

    def dies(trainer):
        if trainer.steps_done == 7:
            raise Killed
        return real(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(build.Trainer, "step", dies)
        with pytest.raises(Killed):
            train.main(from_run(source, other_texts, tmp_path / "b"))
    shutil.rmtree(source)
    assert train.main(["--resume", "--out", str(tmp_path / "b")]) == 0
    assert without_time(rows_of(tmp_path / "a")) == without_time(rows_of(tmp_path / "b"))


def test_several_documents_add_a_token_to_another_runs_model(straight, other_texts, tmp_path):
    out = tmp_path / "run"
    assert train.main(from_run(straight, other_texts, out, "--max-lr", 1e-9)) == 0
    _, tokenizer, model = run.read_run(out)
    theirs = torch.load(straight / "model.pt", weights_only=True)
    end, ours = run.end_of_text(tokenizer), model.state_dict()
    for name in ("tok_emb.weight", "head.weight"):
        assert ours[name].shape[0] == end + 1 == theirs[name].shape[0] + 1
        assert torch.allclose(ours[name][:end], theirs[name], atol=1e-5)
        assert torch.allclose(ours[name][end], theirs[name].mean(0), atol=1e-5)


BAD_STARTS = [
    (["--n-embd", "32"], "--n-embd 32 (it has 16)"),
    (["--block-size", "9", "--n-layer", "2"], "--n-layer 2 (it has 1), --block-size 9"),
    (["--tokenizer", "bpe"], "--tokenizer bpe (it has char)"),
    (["--preset", "long"], "--n-embd 192"),
    (["--init-from", "/no/such/run"], "no run folder"),
    (["--init-from", ""], "no config.json"),
]


@pytest.mark.parametrize("wrong, part", BAD_STARTS, ids=[" ".join(f) for f, _ in BAD_STARTS])
def test_another_size_or_tokenizer_is_refused(straight, text_file, tmp_path, capsys, wrong, part):
    argv = from_run(straight, text_file, tmp_path / "run", *wrong)
    assert part in refusal(argv, capsys)
    assert not (tmp_path / "run").exists()


def test_an_unusable_init_from_is_refused(straight, text_file, tmp_path, capsys):
    said = refusal(from_run(straight, text_file, straight, "--overwrite"), capsys)
    assert "same folder" in said and (straight / "model.pt").exists()
    (tmp_path / "new.txt").write_text("こんにちは" * 99, encoding="utf-8")
    said = refusal(from_run(straight, tmp_path / "new.txt", tmp_path / "run"), capsys)
    assert "tokenizer cannot encode" in said and not (tmp_path / "run").exists()
    shutil.copytree(straight, tmp_path / "cut")
    (tmp_path / "cut" / "model.pt").write_bytes(b"junk")
    said = refusal(from_run(tmp_path / "cut", text_file, tmp_path / "run"), capsys)
    assert "model.pt" in said and "damaged" in said
    weights = torch.load(straight / "model.pt", weights_only=True)
    weights["ln_f.bias"][3] = float("nan")
    torch.save(weights, tmp_path / "cut" / "model.pt")
    said = refusal(from_run(tmp_path / "cut", text_file, tmp_path / "run"), capsys)
    assert "NaN or infinite" in said and not (tmp_path / "run").exists()


def test_bfloat16_gives_nearly_the_same_losses(straight, text_file, tmp_path):
    assert train.main(flags(text_file, tmp_path / "run", "--dtype", "bfloat16")) == 0
    pairs = zip(rows_of(tmp_path / "run"), rows_of(straight), strict=True)
    apart = [abs(a["train_loss"] - b["train_loss"]) for a, b in pairs]
    assert 0 < max(apart) < 0.03 and sum(apart) / len(apart) < 0.01
