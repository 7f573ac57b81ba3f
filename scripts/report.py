"""Your lab notebook: every break-it and every measurement of this machine on one page.

    python scripts/report.py              every sabotage, and what measure runs without a name
    python scripts/report.py --quick      as much of it as fits into two and a half minutes
    python scripts/report.py --all        with the long measurements, which train many models
    python scripts/report.py --symptoms   write SYMPTOMS.md from the stored results; run nothing

The page is runs/report/index.html, one file that needs no network. Results are stored beside it, so
that a run that was stopped continues, after --quick too. A result is reused until a source file of
its project, or of an earlier one, changes.

Sabotages run one per core; measurements run alone. Projects take turns. --quick gives sabotages and
measurements half the time each and stops what is still running.

The page ends with the field guide (p01_autograd/lab/symptoms.py), which is also SYMPTOMS.md.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import html
import importlib
import itertools
import json
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

from p01_autograd.lab import symptoms
from p01_autograd.lab.cli import Parser, UsageError, output_folder, print_anything

ROOT = Path(__file__).resolve().parent.parent
PROJECTS = sorted(path.parent.name for path in ROOT.glob("p[0-9][0-9]_*/__init__.py"))
OUT = ROOT / "runs" / "report"
KINDS = ("break_it", "measure", "engine")  # engine, in p05_gpt: the cost of project 2's tensors
QUICK = 150  # seconds
LIMIT = 600  # seconds per item


@dataclass(frozen=True)
class Item:
    """One command whose output is a section of the page."""

    project: str
    kind: str  # the module to run
    name: str = ""

    @property
    def arguments(self) -> list[str]:
        return ["-m", f"{self.project}.{self.kind}", *([self.name] if self.name else [])]

    @property
    def anchor(self) -> str:
        return "-".join(part for part in (self.project, self.kind, self.name) if part)


@dataclass
class Result:
    """A command's output, figures and exit status; `key` identifies its code and machine."""

    key: str
    status: int
    seconds: float
    output: str
    errors: str = ""
    figures: list[str] = field(default_factory=list)  # PNGs in base64

    @property
    def verdict(self) -> str:
        """One of VERDICTS; that of break_it if it printed one."""
        if self.status:
            return "left out" if self.status == 2 else "failed"
        if " is not installed" in self.output and not self.figures:
            return "left out"
        said = re.search(r"^verdict: (as predicted|mixed|not as predicted)", self.output, re.M)
        return said[1] if said else "measured"


VERDICTS = {  # with their marks in the list of contents
    "as predicted": "✓",
    "not as predicted": "≠",
    "mixed": "±",
    "measured": "▪",
    "left out": "–",
    "failed": "✗",
    "not run yet": "…",
}


# Items


def all_items(long: bool = False) -> list[Item]:
    """Every sabotage and the parts of measure.py, with the long ones if asked, in book order."""
    return [
        Item(project, kind, name)
        for project in PROJECTS
        for kind in KINDS
        if (ROOT / project / f"{kind}.py").is_file()
        for name in names(project, kind, long)
    ]


def names(project: str, kind: str, long: bool) -> list[str]:
    """The names that a command takes; [""] if it takes none or cannot be imported."""
    try:
        module = importlib.import_module(f"{project}.{kind}")
        if kind == "break_it":
            return [sabotage.name for sabotage in module.SABOTAGES]
        parts = getattr(module, "PARTS", [""])
        short = getattr(module, "QUICK", parts)
        return list(parts if long else short)
    except Exception:
        return [""]


def by_turns(items: list[Item]) -> list[Item]:
    """Interleave the projects: the first item of each, then the second of each, and so on."""
    groups = [list(g) for _, g in itertools.groupby(items, key=lambda item: item.project)]
    return [item for row in itertools.zip_longest(*groups) for item in row if item]


def machine() -> dict[str, str]:
    """The hardware and software that the numbers depend on."""
    found = {"processor": processor(), "cores": str(cores()), "system": platform.platform()}
    with contextlib.suppress(AttributeError, ValueError, OSError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        found["memory"] = f"{memory / 2**30:.1f} GiB"
    found["Python"] = platform.python_version()
    for library in ("torch", "numpy", "tiktoken", "micrograd", "tokenizers"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[library] = metadata.version(library)
    return found


def processor() -> str:
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def key(item: Item) -> str:
    """A hash of the machine and of every source file that the item may depend on."""
    digest = hashlib.sha256(repr((item.arguments, machine())).encode())
    for project in PROJECTS[: PROJECTS.index(item.project) + 1]:
        for path in sorted((ROOT / project).glob("*.py")):
            if not path.name.startswith("test_"):
                digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


# Running


class Runner:
    """Runs items in processes of their own; `stop` ends those that are running."""

    def __init__(self, out: Path):
        self.out = out
        self.stopped = threading.Event()
        self.lock = threading.Lock()
        self.running: set[subprocess.Popen] = set()

    def file(self, item: Item) -> Path:
        return self.out / "items" / f"{item.anchor}.json"

    def kept(self, item: Item) -> Result | None:
        """A stored, successful result of the same code on the same machine; or None."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            result = Result(**json.loads(self.file(item).read_text(encoding="utf-8")))
            if result.key == key(item) and result.status == 0:
                return result
        return None

    def run(self, item: Item, threads: int, deadline: float = float("inf")) -> Result | None:
        """Run an item and store its result; None if it was stopped or ran out of time."""
        left = min(LIMIT, deadline - time.monotonic())
        if left <= 0:
            return None
        env = {"OMP_NUM_THREADS": str(threads), "PYTHONUTF8": "1", "COLUMNS": "90"}
        start = time.perf_counter()
        with self.lock:
            if self.stopped.is_set():
                return None
            process = subprocess.Popen(
                [sys.executable, *item.arguments],
                cwd=ROOT,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            self.running.add(process)
        try:
            output, errors = process.communicate(timeout=left)
        except subprocess.TimeoutExpired:
            kill(process)
            output, errors = process.communicate()
            if left < LIMIT:
                return None
            errors += f"\nstopped after {LIMIT} seconds"
        finally:
            self.running.discard(process)
        if self.stopped.is_set():
            return None
        seconds = time.perf_counter() - start
        result = Result(key(item), process.returncode, seconds, output, errors)
        if process.returncode == 0:
            result.figures = [encoded(path) for path in figures_of(output)]
        write(self.file(item), json.dumps(asdict(result)))
        return result

    def stop(self) -> None:
        with self.lock:
            self.stopped.set()
        for process in list(self.running):
            kill(process)


def kill(process: subprocess.Popen) -> None:
    """Kill a process and its children."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def figures_of(output: str) -> list[Path]:
    paths = [ROOT / name.strip() for name in re.findall(r"^figure: (.+)$", output, re.M)]
    return [path for path in paths if path.is_file()]


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")


def write(path: Path, text: str) -> None:
    """Write a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_text(text, encoding="utf-8", newline="\n")
    unfinished.replace(path)


def report(items: list[Item], out: Path = OUT, quick: bool = False) -> int:
    """Run all items without a result, rewriting the page after each; returns the exit status."""
    from tqdm import tqdm

    runner = Runner(out)
    results = {item: runner.kept(item) for item in items}
    todo = by_turns([item for item in items if results[item] is None])
    print(f"{len(items) - len(todo)} of {len(items)} results are stored; {len(todo)} to run")
    groups = [  # items, how many at once, threads of each, deadline as a share of the time
        ([item for item in todo if item.kind == "break_it"], cores(), 1, 0.5),
        ([item for item in todo if item.kind != "break_it"], 1, cores(), 1.0),
    ]
    page_file = out / "index.html"
    checks = own_checks()
    start = time.monotonic()
    write(page_file, page(items, results, checks))
    with tqdm(total=len(todo), unit="item", disable=None) as bar, sigterm_as_ctrl_c():
        try:
            for group, at_once, threads, share in groups:
                deadline = start + share * QUICK if quick else float("inf")
                with ThreadPoolExecutor(at_once) as pool:
                    jobs = {pool.submit(runner.run, i, threads, deadline): i for i in group}
                    try:
                        for job in as_completed(jobs):
                            item, result = jobs[job], job.result()
                            results[item] = result
                            if result is not None:
                                bar.write(said(item, result))
                                write(page_file, page(items, results, checks))
                            bar.update()
                    except BaseException:
                        runner.stop()
                        raise
        except KeyboardInterrupt:
            print("\nstopped; the same command continues from here", file=sys.stderr)
            return 130
        finally:
            print(f"the page: {page_file}")
    return 1 if any(result and result.verdict == "failed" for result in results.values()) else 0


def said(item: Item, result: Result) -> str:
    return f"{' '.join(item.arguments[1:]):45} {result.verdict:17} {result.seconds:4.0f} s"


@contextlib.contextmanager
def sigterm_as_ctrl_c():
    """Treat SIGTERM as Ctrl-C inside the block."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# The field guide


def sabotages() -> dict[str, list]:
    """The sabotages with symptoms, by project."""
    found = {}
    for project in PROJECTS:
        with contextlib.suppress(Exception):  # a project that cannot be imported is left out
            listed = importlib.import_module(f"{project}.break_it").SABOTAGES
            found[project] = [s for s in listed if getattr(s, "looks_like", ())]
    return found


def numbers(project: str, sabotage, output: str) -> str:
    """A sabotage's measured numbers, from its output or else from its chapter's pages.

    Without any it is the command that measures them.
    """
    here = symptoms.measured(project, sabotage, output)
    if here:
        return here
    for page in ("README.md", "NOTES.md"):
        said = symptoms.of_chapter(ROOT / project / page, sabotage)
        if said:
            return f"{said} (from [the chapter]({project}/{page}))"
    return f"not run yet: `python -m {project}.break_it {sabotage.name}`"


def stored(out: Path, project: str, sabotage) -> str:
    """The stored output of a sabotage, even if other code has changed since; "" if none."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        file = Runner(out).file(Item(project, "break_it", sabotage.name))
        return json.loads(file.read_text(encoding="utf-8"))["output"]
    return ""


def symptoms_page(out: Path) -> str:
    """The field guide in Markdown."""
    guide = symptoms.seen(sabotages(), lambda p, s: numbers(p, s, stored(out, p, s)))
    return symptoms.markdown(guide, symptoms.classes(sabotages()))


def symptoms_section(results: dict[Item, Result | None]) -> str:
    """The field guide as the last section of the page; "" without any sabotage."""

    def cell(project: str, sabotage) -> str:
        result = results.get(Item(project, "break_it", sabotage.name))
        return numbers(project, sabotage, result.output if result else "")

    listed = sabotages()
    if not any(listed.values()):
        return ""
    parts = ['<h2 id="symptoms">Symptoms: what you see, and which line it may be</h2>']
    for number, (symptom, rows) in enumerate(symptoms.seen(listed, cell).items(), 1):
        if rows:
            parts.append(f'<h3 id="symptom-{number}">{inline(symptom.heading)}</h3>')
            parts.append(f"<p>{inline(symptom.text)}{html_table(symptoms.HEAD, rows)}")
    parts.append('<h3 id="faults">The same by class of fault</h3>')
    parts.append(f"<p>The classes are those of {inline(symptoms.SOURCE)}.")
    parts.append(html_table(symptoms.CLASSES_HEAD, symptoms.classes(listed)))
    return "\n".join(parts)


def html_table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["".join(f"<th>{inline(cell)}" for cell in head)]
    lines += ["".join(f"<td>{inline(cell)}" for cell in row) for row in rows]
    return f'<div class="wide"><table><tr>{"<tr>".join(lines)}</table></div>'


def inline(text: str) -> str:
    """Convert Markdown's code spans to HTML and links to their text."""
    text = quoted(re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", text.replace(r"\|", "|")), quote=False)
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", text)


# The reader's own work


def own_checks() -> dict[str, str]:
    """The verdicts of the checks on the reader's files, by project.

    The files are checked one after the other, in the processes of scripts/study.py.
    """
    files = {p: ROOT / "my" / f"{p}.py" for p in PROJECTS}
    files = {p: file for p, file in files.items() if file.is_file()}
    if not files:
        return {}
    sys.path.insert(0, str(ROOT / "scripts"))
    import study

    return {project: own_check(study.Runner(project), file) for project, file in files.items()}


def own_check(runner, file: Path) -> str:
    """How many checks a file passes, and which step is open."""
    try:
        runner.start(file, None)
        while (result := runner.result()) is None:
            time.sleep(0.05)
    finally:
        runner.stop()
    if result.error:
        return result.error
    passed = sum(p for p, _ in result.counts.values())
    total = sum(n for _, n in result.counts.values())
    open_at = "" if result.passed else f", step {result.first_open()} is open"
    return f"{passed} of {total} checks pass{open_at}"


def own_runs() -> list[str]:
    """The training runs that used the reader's files, newest first, with their losses."""
    found = []
    for folder in sorted((ROOT / "runs").glob("*/mine"), key=os.path.getmtime, reverse=True):
        run, last = folder.parent, ""
        files = ", ".join(sorted(path.stem for path in folder.glob("p[0-9][0-9]_*.py")))
        with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
            lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            rows = [row for row in map(json.loads, lines) if "val_loss" in row]
            last = f": validation loss {rows[-1]['val_loss']:.3f} after {rows[-1]['step']:,} steps"
        found.append(f"{run.name} with {files}{last}")
    return found


def quiz_score(project: str) -> str:
    with contextlib.suppress(OSError):
        path = ROOT / "runs" / project / "break_it" / "quiz.txt"
        return path.read_text(encoding="utf-8").strip()
    return ""


def own_section(checks: dict[str, str]) -> str:
    """The reader's files, runs and quiz scores; "" if there are none."""
    rows = [
        [f"`{project}`", checks.get(project, "-"), quiz_score(project) or "-"]
        for project in PROJECTS
        if project in checks or quiz_score(project)
    ]
    parts = [html_table(["project", "my own file", "quiz"], rows)] if rows else []
    parts += [f"<p>Trained by me: {quoted(text)}." for text in own_runs()]
    return "\n".join(['<h2 id="own">My own</h2>', *parts]) if parts else ""


# The page

STYLE = """
:root { color-scheme: light dark; --text: #1b1b1b; --page: #fff; --dim: #5c5c5c; --line: #d8d8d8;
  --code: #f4f4f2; --link: #005a8f; --good: #00684a; --bad: #a83f00; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e4e4; --page: #17181a; --dim: #a3a3a3;
  --line: #3a3b3e; --code: #212226; --link: #7cc4f5; --good: #5fd0a8; --bad: #ff9d5c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 58rem; background: var(--page);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif; }
a { color: var(--link); }
h1 { line-height: 1.2; }
h2 { margin-top: 3rem; padding-top: .5rem; border-top: 2px solid var(--line); }
section div a { float: right; }
h3 { margin: 2.5rem 0 .25rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; }
td, th { padding: .15rem 1rem .15rem 0; text-align: left; vertical-align: top;
  overflow-wrap: anywhere; }
th { font-weight: normal; color: var(--dim); white-space: nowrap; }
nav ul { columns: 17rem; padding: 0; list-style: none; }
nav li { break-inside: avoid; }
nav li span { display: inline-block; width: 1.4em; }
pre { padding: .75rem; overflow-x: auto; background: var(--code); border-radius: 6px;
  font: .8125rem/1.45 ui-monospace, Consolas, monospace; }
img { max-width: 100%; height: auto; border-radius: 6px; background: #fff; }
.wide { overflow-x: auto; }
.wide td { min-width: 8rem; font-size: .875rem; }
.dim { color: var(--dim); }
.good { color: var(--good); }
.bad { color: var(--bad); font-weight: 600; }
"""


def page(
    items: list[Item], results: dict[Item, Result | None], checks: dict[str, str] | None = None
) -> str:
    """The notebook as one HTML document with embedded images; `checks` come from own_checks."""
    verdicts = {i: results[i].verdict if results.get(i) else "not run yet" for i in items}
    seconds = sum(result.seconds for result in results.values() if result)
    broken = [item for item in items if item.kind == "break_it"]
    rows = "".join(f"<tr><th>{name}<td>{quoted(text)}" for name, text in machine().items())
    contents, sections = [], []
    for project, group in itertools.groupby(items, key=lambda item: item.project):
        members = list(group)
        contents.append(f'<h3><a href="#{project}">{project}</a></h3><ul>')
        contents += [entry(item, verdicts[item]) for item in members] + ["</ul>"]
        sections.append(f'<h2 id="{project}">{project}</h2>')
        sections += [section(item, results.get(item), verdicts[item]) for item in members]
    surprises = [i for i in broken if verdicts[i] in ("not as predicted", "mixed")]
    as_predicted = sum(verdicts[item] == "as predicted" for item in broken)
    ran = as_predicted + len(surprises)
    troubled = [item for item in items if verdicts[item] in ("failed", "left out")]
    waiting = sum(verdict == "not run yet" for verdict in verdicts.values())
    guide, own = symptoms_section(results), own_section(checks or {})
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>Lab notebook: build it, break it, measure it</title>
<style>{STYLE}</style>
<header>
<h1>Lab notebook</h1>
<p>Build it, break it, measure it: what this machine found, {time.strftime("%d %B %Y, %H:%M")}.
<table>{rows}</table>
<p><b>{as_predicted} of {ran}</b> sabotages did as the book predicted, one seed each.
{linked("Did not, or not quite", surprises)}
{linked("Left out or failed", troubled)}
<p class="dim">{len(items) - waiting} of {len(items)} items have run, {minutes(seconds)} of
computing in all. Sabotages ran one on each core with one thread each, measurements alone with all
threads.
{own}
</header>
<nav id="contents" aria-label="contents">
<h2>Contents</h2>
<p class="dim">{"; ".join(f"{mark} {verdict}" for verdict, mark in VERDICTS.items())}
{"".join(contents)}
{'<h3><a href="#symptoms">symptoms</a></h3>' if guide else ""}
</nav>
<main>
{"".join(sections)}
{guide}
</main>
</html>
"""


def entry(item: Item, verdict: str) -> str:
    """One line of the contents."""
    return (
        f'<li><span class="{colour(verdict)}" title="{verdict}">{VERDICTS[verdict]}</span>'
        f'<a href="#{item.anchor}">{title(item)}</a>'
    )


PREDICTION = re.compile(r"^prediction: .+\n(?:  .+\n)*\n?", re.M)


def section(item: Item, result: Result | None, verdict: str) -> str:
    """The section of one item: its output and figures."""
    took = f'<span class="dim">, {minutes(result.seconds)}</span>' if result else ""
    output = result.output.strip() if result else ""
    said = PREDICTION.search(output)
    prediction = f"<p>{quoted(' '.join(said[0].split()))}" if said else ""  # wraps on a phone
    text = [
        f'\n<section><h3 id="{item.anchor}">{title(item)}</h3>'
        f'<div><span class="{colour(verdict)}">{verdict}</span>{took}'
        f' <a class="dim" href="#contents">contents</a></div>'
        f"{prediction}<pre>$ python {quoted(' '.join(item.arguments))}"
    ]
    if result:
        text.append(f"\n\n{quoted(PREDICTION.sub('', output))}")
        if result.status:
            last = "\n".join(result.errors.strip().splitlines()[-20:])
            text.append(f"\n{quoted(last)}\n\nexit status {result.status}")
    text.append("</pre>")
    for figure in result.figures if result else []:
        text.append(f'<img alt="figure of {title(item)}" src="data:image/png;base64,{figure}">')
    return "".join([*text, "</section>"])


def title(item: Item) -> str:
    if item.kind == "break_it" and item.name:
        return quoted(item.name)
    return quoted(f"{item.kind} {item.name}".strip())


def linked(text: str, items: list[Item]) -> str:
    """A paragraph that lists items as links; "" without any."""
    links = ", ".join(f'<a href="#{i.anchor}">{i.project}: {title(i)}</a>' for i in items)
    return f"<p>{text}: {links}." if items else ""


def colour(verdict: str) -> str:
    if verdict == "as predicted":
        return "good"
    return "bad" if verdict in ("not as predicted", "mixed", "failed") else "dim"


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def quoted(text: str, quote: bool = True) -> str:
    return html.escape(text, quote)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    print_anything()
    parser = Parser(
        prog="python scripts/report.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help=f"stop after {QUICK} seconds")
    parser.add_argument("--all", action="store_true", help="include the long measurements")
    parser.add_argument("--symptoms", action="store_true", help="only write SYMPTOMS.md")
    flags = parser.parse_args(argv)
    try:
        output_folder(str(OUT))
    except UsageError as error:
        parser.error(str(error))
    if flags.symptoms:
        write(ROOT / "SYMPTOMS.md", symptoms_page(OUT))
        print("SYMPTOMS.md")
        return 0
    return report(all_items(flags.all), quick=flags.quick)


if __name__ == "__main__":
    sys.exit(main())
