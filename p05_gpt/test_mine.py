"""The training commands on the reader's own files."""

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from p04_attention import build as attention
from p05_gpt import mine, sample, train

ROOT = Path(__file__).resolve().parents[1]
SIZES = ["--n-layer=1", "--n-head=2", "--n-embd=8", "--block-size=8", "--steps=2"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with an empty my/ and a small text."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my").mkdir()
    (tmp_path / "text.txt").write_text("to be or not to be, " * 50, encoding="utf-8")
    return tmp_path


def write(name, text):
    Path("my", name).write_text(text, encoding="utf-8")


# Correct, in another style: one projection for queries, keys and values.
FUSED = """

class CausalSelfAttention(nn.Module):
    def __init__(self, n_embd, n_head):
        super().__init__()
        if n_embd % n_head:
            raise ValueError(f"{n_head} heads cannot share {n_embd} channels")
        self.n_head = n_head
        self.qkv = nn.Linear(n_embd, 3 * n_embd)
        self.out = nn.Linear(n_embd, n_embd)

    def forward(self, x):
        B, T, C = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.n_head, C // self.n_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = scaled_dot_product_attention(q, k, v, causal_mask(T))
        return self.out(y.transpose(1, 2).reshape(B, T, C))
"""


def write_attention(before=""):
    ours = (ROOT / "p04_attention/build.py").read_text(encoding="utf-8")
    write("p04_attention.py", before + ours.replace("from __future__", "# from __future__") + FUSED)


def test_passing_files_replace_ours_and_verdicts_are_printed(folder, capsys, monkeypatch):
    verdicts = {
        "p04_attention": (True, "my/p04_attention.py: 94 of 94 pass"),
        "p05_gpt": (False, "my/p05_gpt.py: 61 of 66 pass; next: loss"),
    }
    check = mine.check  # the real one, for files that are missing
    monkeypatch.setattr(mine, "check", lambda name, file: verdicts.get(name) or check(name, file))
    write_attention()
    write("p05_gpt.py", "def loss(logits, targets):\n    return logits.mean()\n")
    write("p01_autograd.py", "")
    flags = ["--mine", "my/", "--data", "text.txt", "--tokenizer", "char", "--out", "run", *SIZES]
    before = dict(sys.modules)
    assert train.main(flags) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [
        ["p01_autograd", "ours"],
        ["p03_bpe", "ours"],
        ["p04_attention", "yours"],
        ["p05_gpt", "ours"],
    ]
    assert "is not used by this command" in lines[0]
    assert "there is no my/p03_bpe.py" in lines[1]
    assert "my/p04_attention.py:" in lines[2] and lines[2].endswith("pass")
    assert "next: loss" in lines[3]
    assert json.loads(Path("run/config.json").read_text("utf-8"))["mine"] == "my/"
    assert any(line.endswith("omit --mine") for line in lines), "the book's own, to compare"

    # The run was trained with the reader's layer, and sampling uses it too.
    assert [path.name for path in Path("run/mine").iterdir()] == ["p04_attention.py"]
    assert sample.main(["--run", "run", "--tokens", "5"]) == 0
    assert capsys.readouterr().out.strip("\n")

    # The modules of this process are those from before.
    projects = {name: m for name, m in sys.modules.items() if mine.PROJECT.match(name)}
    assert projects == {name: m for name, m in before.items() if mine.PROJECT.match(name)}
    assert sys.modules["p04_attention.build"] is attention

    # A run on our files alone that replaces it keeps none of the reader's.
    assert train.main([*flags[2:], "--overwrite"]) == 0
    assert not Path("run/mine").exists()
    assert sample.main(["--run", "run", "--tokens", "5"]) == 0


def test_a_mask_that_stays_on_the_cpu_is_reported_in_one_line(folder, capsys, monkeypatch):
    monkeypatch.setattr(mine, "check", lambda name, file: (name == "p04_attention", "as if"))
    write_attention()
    with open("my/p04_attention.py", "a", encoding="utf-8") as file:  # as on a GPU
        said = (
            "expected self and mask to be on the same device, but got mask on cpu and self on cuda"
        )
        file.write(f"def causal_mask(T):\n    raise RuntimeError('{said}')\n")
    flags = ["--mine", "my/", "--data", "text.txt", "--tokenizer", "char", "--out", "run", *SIZES]
    with pytest.raises(SystemExit):
        train.main(flags)
    last = capsys.readouterr().err.splitlines()[-1]
    line = len(Path("my/p04_attention.py").read_text(encoding="utf-8").splitlines())
    where = f"{Path('my/p04_attention.py')}, line {line}: one tensor is on the CPU"
    assert where in last and "--device cpu" in last
    assert not Path("run").exists()


def test_their_names_replace_ours_in_all_projects(folder):
    write("helper.py", "FACTOR = 3\n")
    write_attention("import helper\n")
    write("p05_gpt.py", "def loss(logits, targets):\n    return 'theirs'\n")
    files = {name: Path("my", f"{name}.py") for name in ("p04_attention", "p05_gpt")}
    with mine.imported_on(files):
        import p04_attention
        import p05_gpt
        from p05_gpt import train as fresh

        model = p05_gpt.GPT(10, 8, 2, 1, 8)
        assert hasattr(model.blocks[0].attn, "qkv"), "our GPT uses their attention"
        assert p04_attention.CausalSelfAttention is type(model.blocks[0].attn)
        assert fresh.loss(None, None) == "theirs" and p05_gpt.build.loss is fresh.loss
        assert p05_gpt.build.generate.__module__ == "p05_gpt.build", "they have no generate"
    from p05_gpt import GPT

    assert not hasattr(GPT(10, 8, 2, 1, 8).blocks[0].attn, "qkv")


def test_a_run_keeps_the_modules_that_a_file_imports(folder, monkeypatch):
    write("helper.py", "")
    write("p04_attention.py", "import helper\n")
    write("p05_gpt.py", "does not pass\n")
    monkeypatch.setattr(mine, "in_use", {"p04_attention": Path("my/p04_attention.py")})
    Path("run").mkdir()
    mine.copy_into_run(Path("run"))
    names = {path.name for path in Path("run/mine").iterdir()}
    assert names == {"helper.py", "p04_attention.py"}
    assert mine.files_of_run(Path("run")) == {"p04_attention": Path("run/mine/p04_attention.py")}


@pytest.mark.parametrize(
    "text, says",
    [("def (", "does not parse"), ("import torchh", "torchh, which is not installed")],
    ids=["syntax", "import"],
)
def test_a_file_that_does_not_load_is_reported_in_one_line(folder, text, says):
    write("p01_autograd.py", text)
    passes, verdict = mine.check("p01_autograd", Path("my/p01_autograd.py"))
    assert not passes and says in verdict and "\n" not in verdict


def test_the_verdict_is_that_of_the_projects_checks(folder):
    Path("begun").mkdir()
    files = [Path("my/p03_bpe.py"), Path("begun/p03_bpe.py")]
    files[0].write_bytes((ROOT / "p03_bpe/build.py").read_bytes())
    begun = "def get_stats(ids, counts=None):\n    raise NotImplementedError\n"
    files[1].write_text(begun, encoding="utf-8")
    with ThreadPoolExecutor() as pool:  # at once, since each starts a process
        (passes, verdict), (fails, next_one) = pool.map(partial(mine.check, "p03_bpe"), files)
    assert passes and re.fullmatch(r"my/p03_bpe\.py: (\d+) of \1 pass", verdict), verdict
    assert not fails and "next: get_stats" in next_one


def test_a_missing_folder_is_refused(folder, capsys):
    with pytest.raises(SystemExit) as end:
        train.main(["--mine", "nowhere"])
    out, err = capsys.readouterr()
    assert end.value.code == 2 and not out
    assert err.count("\n") == 1 and "no folder nowhere" in err


def test_a_folder_without_a_passing_file_is_refused(folder, capsys, monkeypatch):
    monkeypatch.setattr(mine, "check", lambda project, file: (False, "61 of 66 pass"))
    write("p05_gpt.py", "def loss(logits, targets):\n    return logits.mean()\n")
    with pytest.raises(SystemExit) as end:
        train.main(["--mine", "my", "--data", "text.txt", "--tokenizer", "char", *SIZES])
    err = capsys.readouterr().err
    assert end.value.code == 2 and err.count("\n") == 1 and "omit --mine" in err
    assert not Path("runs").exists()


def test_the_gpt_trains_on_a_core_in_another_style(folder, capsys, monkeypatch):
    core = ROOT / "tests/other_styles/p02_tensors/closures.py"
    write("p02_tensors.py", core.read_text(encoding="utf-8"))
    monkeypatch.setattr(mine, "check", lambda project, file: (file.is_file(), "checked elsewhere"))
    flags = ["--engine=p02_tensors", "--mine=my", "--data=text.txt", "--tokenizer=char"]
    assert train.main([*flags, "--batch-size=2", *SIZES]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:2] == ["p02_tensors", "yours"] for line in lines)
    rows = [line.split() for line in lines if line.strip()[:1] in ("1", "2")]
    assert len(rows) == 2 and all(abs(float(row[1]) - float(row[2])) < 1e-4 for row in rows)
    files = {"p02_tensors": Path("my/p02_tensors.py")}
    with mine.imported_on(files):
        import p02_tensors

        tensor = p02_tensors.build.tensor([1.0])
        assert type(tensor).__module__ == "p02_tensors.build_of_yours"
