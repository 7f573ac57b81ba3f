"""The lab notebook, on made-up projects whose commands take no time."""

import base64
import html.parser
import importlib.util
import json
import os
import re
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "report.py"
COMMAND = """
import os, pathlib, signal, sys, time, types
SABOTAGES = [types.SimpleNamespace(name=name) for name in {names}]
PARTS = {parts}

def main(name):
    with open("log.txt", "a", encoding="utf-8") as log:
        print(__package__, name, file=log)
    if name == "crash":
        raise ValueError("a <broken> build")
    if name == "left_out":
        print("this one is yours", file=sys.stderr)
        sys.exit(2)
    if name == "slow":
        time.sleep(60)
    if name == "killed":
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(60)
    drawn = f"{{__package__}}-{{name}}.png"
    pathlib.Path(drawn).write_bytes({png})
    print(f"<b> & numbers\\nfigure: {{drawn}}")
    if name not in PARTS:
        print("verdict:", {verdict!r})

if __name__ == "__main__":
    main(sys.argv[1])
"""
PNG = base64.b64decode(  # one pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNg"
    "YGD4DwABBAEAX+XDSwAAAABJRU5ErkJggg=="
)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """scripts/report.py on a folder of made-up projects; `write_project` adds one."""
    spec = importlib.util.spec_from_file_location("report_under_test", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "PROJECTS", [])

    def write(project, names, parts=("count",), verdict="as predicted (1 of 1 seeds)"):
        folder = tmp_path / project
        folder.mkdir()
        (folder / "__init__.py").write_text("", encoding="utf-8")
        text = COMMAND.format(names=names, parts=dict.fromkeys(parts), png=PNG, verdict=verdict)
        for kind in ("break_it", "measure"):
            (folder / f"{kind}.py").write_text(text, encoding="utf-8")
        module.PROJECTS.append(project)

    def run(**options):
        (tmp_path / "log.txt").write_text("", encoding="utf-8")
        status = module.report(module.all_items(), tmp_path / "out", **options)
        ran = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
        return status, sorted(ran), Page((tmp_path / "out/index.html").read_text(encoding="utf-8"))

    module.write_project, module.run_all = write, run
    yield module
    for name in [name for name in sys.modules if name.startswith(tuple(module.PROJECTS))]:
        del sys.modules[name]


class Page(html.parser.HTMLParser):
    """A parsed page: ids, links, images, other references, and text by section."""

    def __init__(self, text):
        super().__init__()
        self.source, self.ids, self.links, self.images, self.references = text, [], [], [], []
        self.sections, self.here = {}, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if "id" in found:
            self.ids.append(found["id"])
            self.here = found["id"]
            self.sections[self.here] = ""
        if tag == "a":
            self.links.append(found["href"])
        elif tag == "img":
            assert found["alt"]
            self.images.append(found["src"])
        else:
            self.references += [found[key] for key in ("src", "href") if key in found]

    def handle_data(self, data):
        if self.here:
            self.sections[self.here] += data


def test_the_page_has_everything_and_needs_no_network(lab):
    lab.write_project("p91_one", ["a", "b"])
    lab.write_project("p92_two", ["c"], verdict="not as predicted (1 of 1 seeds)")
    status, ran, page = lab.run_all()
    assert status == 0
    assert ran == ["p91_one a", "p91_one b", "p91_one count", "p92_two c", "p92_two count"]
    assert len(page.ids) == len(set(page.ids))
    assert all(link.removeprefix("#") in page.ids for link in page.links), page.links
    assert {f"#{item.anchor}" for item in lab.all_items()} <= set(page.links)
    data = "data:image/png;base64,"
    assert [base64.b64decode(src.removeprefix(data)) for src in page.images] == [PNG] * 5
    assert page.references == ["data:,"] and "url(" not in page.source
    assert "<script" not in page.source and "<link rel=stylesheet" not in page.source
    assert "<b> & numbers" in page.sections["p91_one-break_it-a"]
    assert "as predicted" in page.sections["p91_one-break_it-b"]
    assert "not as predicted" in page.sections["p92_two-break_it-c"]
    assert "measured" in page.sections["p92_two-measure-count"]
    assert "2 of 3 sabotages did as the book predicted" in re.sub("<.*?>", "", page.source)


def test_an_item_that_fails_is_shown_and_stops_nothing(lab):
    lab.write_project("p91_one", ["crash", "left_out", "a"])
    status, ran, page = lab.run_all()
    assert status == 1 and len(ran) == 4
    assert "ValueError: a <broken> build" in page.sections["p91_one-break_it-crash"]
    assert "left out" in page.sections["p91_one-break_it-left_out"]
    assert "this one is yours" in page.sections["p91_one-break_it-left_out"]
    assert "as predicted" in page.sections["p91_one-break_it-a"]


def test_a_project_that_cannot_be_imported_is_an_item_that_fails(lab):
    lab.write_project("p91_one", ["a"])
    (lab.ROOT / "p91_one/break_it.py").write_text("import nothing_of_that_name", encoding="utf-8")
    status, ran, page = lab.run_all()
    assert status == 1 and ran == ["p91_one count"]
    assert "nothing_of_that_name" in page.sections["p91_one-break_it"]


def test_a_second_run_repeats_only_what_failed_or_changed(lab):
    lab.write_project("p91_one", ["a"])
    lab.write_project("p92_two", ["b", "crash"])
    lab.run_all()
    assert lab.run_all()[1] == ["p92_two crash"]
    (lab.ROOT / "p92_two/nn.py").write_text("x = 1", encoding="utf-8")
    assert lab.run_all()[1] == ["p92_two b", "p92_two count", "p92_two crash"]
    (lab.ROOT / "p92_two/test_nn.py").write_text("x = 1", encoding="utf-8")
    assert lab.run_all()[1] == ["p92_two crash"]
    (lab.ROOT / "p91_one/nn.py").write_text("x = 1", encoding="utf-8")
    assert len(lab.run_all()[1]) == 5


def test_a_damaged_result_is_run_again(lab):
    lab.write_project("p91_one", ["a"])
    lab.run_all()
    (file,) = (lab.ROOT / "out/items").glob("*break_it-a.json")
    for text in ("", "{}", "[1]", json.dumps({"key": "x"})):
        file.write_text(text, encoding="utf-8")
        assert lab.run_all()[1] == ["p91_one a"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to catch")
def test_a_stopped_report_continues(lab, monkeypatch, capsys):
    monkeypatch.setattr(lab, "cores", lambda: 1)  # one after the other
    lab.write_project("p91_one", ["a", "killed", "b"])
    start = time.monotonic()
    status, ran, page = lab.run_all()
    assert time.monotonic() - start < 20
    assert status == 130 and ran == ["p91_one a", "p91_one killed"]
    assert "continues from here" in capsys.readouterr().err
    assert "as predicted" in page.sections["p91_one-break_it-a"]
    assert "not run yet" in page.sections["p91_one-break_it-killed"]
    items = [item for item in lab.all_items() if item.name != "killed"]
    assert lab.report(items, lab.ROOT / "out") == 0
    log = (lab.ROOT / "log.txt").read_text(encoding="utf-8").splitlines()
    assert log[2:] == ["p91_one b", "p91_one count"]


def test_quick_stops_what_is_still_running(lab, monkeypatch):
    monkeypatch.setattr(lab, "QUICK", 4)
    lab.write_project("p91_one", ["a", "slow"])
    start = time.monotonic()
    status, ran, page = lab.run_all(quick=True)
    assert time.monotonic() - start < 20
    assert status == 0 and ran == ["p91_one a", "p91_one count", "p91_one slow"]
    assert "as predicted" in page.sections["p91_one-break_it-a"]
    assert "not run yet" in page.sections["p91_one-break_it-slow"]


def test_a_prediction_is_a_paragraph_that_wraps(lab):
    item = lab.Item("p91_one", "break_it", "a")
    output = "--- a\n+++ b\n\nprediction: The loss\n  stalls.\n\nloss  1.0\n"
    text = lab.section(item, lab.Result("", 0, 1.0, output), "measured")
    assert "<p>prediction: The loss stalls.<pre>$ python" in text and text.count("stalls") == 1
    assert "+++ b\n\nloss  1.0" in text


def test_a_missing_library_is_left_out(lab):
    assert lab.Result("", 0, 1.0, "micrograd is not installed; with it ...").verdict == "left out"


def test_the_readers_own_work_is_on_the_page(lab, monkeypatch):
    lab.write_project("p91_one", ["a"])
    assert "own" not in lab.run_all()[2].ids
    for name, text in (
        ("p91_one/break_it/quiz.txt", "5 of 7\n"),
        ("p05_gpt-2/mine/p04_attention.py", ""),
        ("p05_gpt-2/metrics.jsonl", '{"step": 9, "val_loss": 2.5}\n{"step": 10}\n'),
    ):
        path = lab.ROOT / "runs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(lab, "own_checks", lambda: {"p91_one": "7 of 9 checks pass"})
    own = lab.run_all()[2].sections["own"]
    assert "5 of 7" in own and "7 of 9 checks pass" in own
    assert "p05_gpt-2 with p04_attention: validation loss 2.500 after 9 steps" in own


def test_a_file_of_the_readers_is_checked_in_a_process(lab):
    class Checked:
        counts, error, passed = {1: (2, 2), 2: (1, 4)}, "", False
        start = stop = lambda *_: None

        def first_open(self):
            return 2

        def result(self):
            return self

    assert lab.own_check(Checked(), Path("x")) == "3 of 6 checks pass, step 2 is open"


def test_an_unwritable_folder_is_reported_in_one_line(lab, monkeypatch, capsys):
    (lab.ROOT / "runs").write_text("", encoding="utf-8")
    monkeypatch.setattr(lab, "OUT", lab.ROOT / "runs/report")
    with pytest.raises(SystemExit) as ended:
        lab.main(["--quick"])
    assert ended.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_projects_take_turns(lab):
    items = [lab.Item(p, "break_it", n) for p, n in ("1a", "1b", "1c", "2a", "3a", "3b")]
    assert "".join(i.project + i.name for i in lab.by_turns(items)) == "1a2a3a1b3b1c"


# The field guide

SABOTAGED = """
from p01_autograd.lab.sabotage import Sabotage

SABOTAGES = [
    Sabotage("halved", "x = 2", "x = 1", "half", None, "test_x", looks_like=("flat", "text"),
             shows=("val_loss", "sample"), fault="wrong labels", tell="a | b of `x`"),
    Sabotage("unknown", "y = 2", "y = 1", "half", None, "test_y"),
]
"""
PRINTED = """{diff}

prediction: half

            healthy      broken
val loss  2 \N{PLUS-MINUS SIGN}0.1  nan nan nan
healthy sample: ab
broken sample: cd
ef

verdict: as predicted (3 of 3 seeds)
"""


@pytest.fixture
def guide(lab):
    """The lab with a project whose only sabotage has two symptoms."""
    folder = lab.ROOT / "p93_three"
    folder.mkdir()
    for name, text in (("__init__", ""), ("break_it", SABOTAGED), ("build", "x = 2\ny = 2\n")):
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    lab.PROJECTS.append("p93_three")
    return lab


def kept(lab, output):
    (sabotage,) = lab.sabotages()["p93_three"]
    file = lab.Runner(lab.ROOT / "out").file(lab.Item("p93_three", "break_it", "halved"))
    edit = lab.symptoms.diff("p93_three", sabotage)
    lab.write(file, json.dumps({"output": output.format(diff=edit)}))


def test_the_field_guide_needs_no_numbers(guide):
    text = guide.symptoms_page(guide.ROOT / "out")
    assert text.count("not run yet: `python -m p93_three.break_it halved`") == 2
    assert "| `halved` (p93_three) | `= 2 -> = 1` |" in text
    assert r"| a \| b of `x` | `test_x` |" in text
    assert "| wrong labels | `halved` (p93) |" in text
    assert "loss does not go down" in text and "NaN in the first" not in text


def test_the_field_guide_shows_numbers_of_the_current_edit_only(guide):
    kept(guide, PRINTED)
    text = guide.symptoms_page(guide.ROOT / "out")
    assert text.count("| val loss 2 ±0.1 → NaN; sample `cd` |") == 2
    kept(guide, "--- another edit\n" + PRINTED)
    assert "not run yet" in guide.symptoms_page(guide.ROOT / "out")
    kept(guide, "{diff}\n\nbroken error: RuntimeError: shapes\n")
    assert "| `RuntimeError: shapes` |" in guide.symptoms_page(guide.ROOT / "out")


def test_without_a_result_the_field_guide_quotes_the_chapter(guide):
    (guide.ROOT / "p93_three/NOTES.md").write_text(
        "| variant | line changed | loss | verdict |\n|---|---|---|---|\n"
        "| `halved` | `a \\| b` | 2.5 | as predicted |\n",
        encoding="utf-8",
    )
    text = guide.symptoms_page(guide.ROOT / "out")
    assert text.count("| loss 2.5 (from [the chapter](p93_three/NOTES.md)) |") == 2


def test_the_page_ends_in_the_field_guide(guide):
    items = guide.all_items()
    page = Page(guide.page(items, {}))
    assert "not run yet" in page.sections["symptom-3"] and "halved" in page.sections["faults"]
    assert "#symptoms" in page.links and all(link[1:] in page.ids for link in page.links)
    assert len(page.ids) == len(set(page.ids))


def real_sabotages():
    from test_sabotage_is_caught import ALL, SABOTAGES

    from p01_autograd.lab import symptoms

    return symptoms, ALL, SABOTAGES


def test_every_sabotage_is_in_the_field_guide():
    symptoms, every, _ = real_sabotages()
    known = {name for classes in symptoms.FAULTS.values() for name in classes}
    for project, sabotage in every:
        where = f"{project}.break_it: {sabotage.name}"
        assert sabotage.looks_like and set(sabotage.looks_like) <= set(symptoms.SYMPTOMS), where
        assert sabotage.fault in known, f"{where} has no class of fault"
        assert sabotage.tell, f"{where} does not say how to tell it from its neighbours"
    used = {key for _, sabotage in every for key in sabotage.looks_like}
    assert used == set(symptoms.SYMPTOMS), f"without a sabotage: {set(symptoms.SYMPTOMS) - used}"


def test_every_class_of_fault_has_a_sabotage_or_a_reason():
    symptoms, every, _ = real_sabotages()
    there = {sabotage.fault for _, sabotage in every}
    for dimension, classes in symptoms.FAULTS.items():
        for name, left_out in classes.items():
            assert (name in there) != bool(left_out), f"{dimension}: {name}"


def test_the_findings_that_the_field_guide_names_exist():
    _, every, _ = real_sabotages()
    found = {
        tool: (SCRIPT.parents[1] / path).read_text(encoding="utf-8")
        for tool, path in (("doctor", "p06_training/doctor.py"), ("checkup", "p05_gpt/checkup.py"))
    }
    for _, sabotage in every:
        if sabotage.named_by:
            tool, _, name = sabotage.named_by.partition(": ")
            assert f'"{name}"' in found[tool], f"{sabotage.name}: {sabotage.named_by}"


def test_the_numbers_that_the_field_guide_shows_are_measured():
    import dataclasses
    import importlib

    _, _, listed = real_sabotages()
    for project, sabotages in listed.items():
        numbers = importlib.import_module(f"{project}.break_it").Numbers
        names = {field.name for field in dataclasses.fields(numbers)}
        for sabotage in sabotages:
            assert set(sabotage.shows) <= names, f"{project}: {sabotage.name}"


def test_symptoms_md_is_up_to_date():
    symptoms, _, listed = real_sabotages()
    root = SCRIPT.parents[1]
    text = (root / "SYMPTOMS.md").read_text(encoding="utf-8")
    again = "SYMPTOMS.md is out of date: python scripts/report.py --symptoms"
    for symptom, rows in symptoms.seen(listed, lambda project, sabotage: "").items():
        section = text.partition(f"\n## {symptom.heading}\n")[2].partition("\n## ")[0]
        assert symptom.text in section, again
        for name, line, _, tell, by in rows:
            assert all(symptoms.escaped(cell) in section for cell in (name, line, tell, by)), again
    assert symptoms.table(symptoms.CLASSES_HEAD, symptoms.classes(listed)) in text, again
    anchors = {symptoms.anchor(h) for h in re.findall(r"^## (.+)$", text, re.M)}
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert link[1:] in anchors if link[0] == "#" else (root / link).is_file(), link
