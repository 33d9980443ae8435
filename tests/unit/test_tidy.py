"""Rules of this repository that no other tool checks. Each one also has to find a planted violation."""

import ast
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]

FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 400
SCRIPT_LINES_MAX = 60
# A decision is one call, a code or another stripe's units included, a crowd is refused at once, and no script includes
# another.
LONGER_SCRIPTS = {"flashsale/gate/lua/decide.lua": 226, "flashsale/gate/lua/take.lua": 65}

TOP_LEVEL = {
    ".ci",
    ".editorconfig",
    ".gitignore",
    ".luacheckrc",
    "LICENSE",
    "Makefile",
    "README.md",
    "deploy",
    "fcodes",
    "flashsale",
    "loadtests",
    "pyproject.toml",
    "requirements.lock",
    "tests",
}

# Spelled with brackets, so that this file obeys the rules it states.
UNFINISHED = re.compile(r"\b(?:T[O]DO|F[I]XME|X[X]X)\b")
PACKAGE_HOSTS = re.compile(
    r"p[y]pi\.\w|p[y]thonhosted\.|d[e]bian\.org|u[b]untu\.com|n[p]mjs\.|n[p]mmirror|c[r]ates\.io|r[u]bygems\."
    r"|proxy\.g[o]lang|(?:index-url|find-links)[= ]\s*\S*/",
    re.IGNORECASE,
)
CLOCKS = {"now", "utcnow", "today"}


class Violation(NamedTuple):
    """Where a rule is broken, as an editor can open it, and how."""

    path: str
    line: int
    what: str


def ignored_names(root: Path) -> list[str]:
    """Return the name patterns that version control leaves out, `.git` included."""
    lines = (root / ".gitignore").read_text(encoding="utf-8").splitlines() if (root / ".gitignore").exists() else []
    return [".git", *(line.rstrip("/") for line in lines if line and not line.startswith("#"))]


def tree(root: Path) -> Iterator[Path]:
    """Yield the repository's files below `root`, without what version control ignores."""
    ignored = ignored_names(root)
    folders = [root]
    while folders:
        for entry in sorted(folders.pop().iterdir()):
            if any(fnmatch(entry.name, pattern) for pattern in ignored):
                continue
            if entry.is_dir():
                folders.append(entry)
            else:
                yield entry


def texts(root: Path, *globs: str) -> Iterator[tuple[str, str]]:
    """Yield path and content of each text file that matches one of `globs`; `**` crosses folders."""
    for path in tree(root):
        name = path.relative_to(root).as_posix()
        if not any(fnmatch(name, glob) for glob in globs):
            continue
        content = path.read_bytes()
        if b"\0" in content:
            continue
        yield name, content.decode("utf-8")


def nodes(root: Path, *globs: str) -> Iterator[tuple[str, ast.AST]]:
    """Yield path and each syntax node of the Python modules that match one of `globs`."""
    for name, text in texts(root, *globs):
        for node in ast.walk(ast.parse(text, name)):
            yield name, node


def matches(root: Path, pattern: re.Pattern[str], what: str) -> Iterator[Violation]:
    """Yield a violation for each line of any text file in which `pattern` is found."""
    for name, text in texts(root, "*"):
        for number, line in enumerate(text.splitlines(), 1):
            if found := pattern.search(line):
                yield Violation(name, number, f"{found.group()}: {what}")


def long_functions(root: Path) -> Iterator[Violation]:
    """Functions fit on one screen."""
    for name, node in nodes(root, "*.py"):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                yield Violation(name, node.lineno, f"{node.name} has {length} lines, at most {FUNCTION_LINES_MAX}")


def long_modules(root: Path) -> Iterator[Violation]:
    """Modules are about one thing."""
    for name, text in texts(root, "*.py"):
        length = len(text.splitlines())
        if length > MODULE_LINES_MAX:
            yield Violation(name, length, f"{length} lines, at most {MODULE_LINES_MAX}")


def long_scripts(root: Path) -> Iterator[Violation]:
    """Lua scripts stay small: the gate waits while one runs. Comments and blank lines do not count."""
    for name, text in texts(root, "*.lua"):
        code = re.sub(r"--\[(=*)\[.*?\]\1\]", "", text, flags=re.DOTALL)
        stripped = [line.strip() for line in code.splitlines()]
        length = sum(1 for line in stripped if line and not line.startswith(("--", "#!")))
        at_most = LONGER_SCRIPTS.get(name, SCRIPT_LINES_MAX)
        if length > at_most:
            yield Violation(name, length, f"{length} lines of code, at most {at_most}")


def script_headers(root: Path) -> Iterator[Violation]:
    """A Lua script has its shebang (with flags, if it needs any) and says purpose, KEYS, ARGV and what it returns."""
    for name, text in texts(root, "flashsale/gate/lua/*.lua"):
        lines = text.splitlines() or [""]
        if not re.fullmatch(r"#!lua( flags=[a-z,-]+)?", lines[0]):
            yield Violation(name, 1, "the first line is neither `#!lua` nor `#!lua flags=…`")
        header = []
        for line in lines[1:]:
            if not line.startswith("--"):
                break
            header.append(line.lstrip("-").strip())
        if not header or not header[0] or header[0].startswith(("KEYS", "ARGV", "Returns")):
            yield Violation(name, 2, "the header does not begin with the purpose")
        for word in ("KEYS", "ARGV", "Returns"):
            if not any(re.match(rf"{word}\b", line) for line in header):
                yield Violation(name, 2, f"the header does not say {word}")


def sleeping_tests(root: Path) -> Iterator[Violation]:
    """Tests wait for a named condition; time alone proves nothing.

    A pause is part of waiting when it stands in a `while` loop under a `timeout(…)`; `sleep(0)` only yields.
    """
    for name, text in texts(root, "tests/*.py"):
        for line in _sleeps(ast.parse(text, name), polling=False, deadline=False):
            yield Violation(name, line, "a test sleeps instead of waiting for a condition")


def _sleeps(node: ast.AST, *, polling: bool, deadline: bool) -> Iterator[int]:
    if isinstance(node, ast.Call):
        yields = len(node.args) == 1 and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
        if _called(node) == "sleep" and not yields and not (polling and deadline):
            yield node.lineno
    if isinstance(node, ast.While):
        polling = True
    if isinstance(node, ast.With | ast.AsyncWith):
        contexts = [item.context_expr for item in node.items]
        deadline = deadline or any(isinstance(each, ast.Call) and _called(each) == "timeout" for each in contexts)
    for child in ast.iter_child_nodes(node):
        yield from _sleeps(child, polling=polling, deadline=deadline)


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def unfinished_work(root: Path) -> Iterator[Violation]:
    """What is left to do is an issue, not a remark."""
    yield from matches(root, UNFINISHED, "unfinished work")


def package_hosts(root: Path) -> Iterator[Violation]:
    """Where packages come from is the machine's business: no host or address of an index in any file."""
    yield from matches(root, PACKAGE_HOSTS, "a package index")


def prints(root: Path) -> Iterator[Violation]:
    """Only the command line writes to standard output; everything else logs or returns."""
    for name, node in nodes(root, "flashsale/*.py", "fcodes/*.py"):
        if isinstance(node, ast.Call) and _called(node) == "print":
            yield Violation(name, node.lineno, "print(): the command line writes through its `output`, the rest logs")


def clocks_in_core(root: Path) -> Iterator[Violation]:
    """The core is told the time; that it imports no clock is a contract of import-linter."""
    for name, node in nodes(root, "fcodes/*.py", "flashsale/domain.py", "flashsale/eligibility.py"):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _called(node) in CLOCKS:
            yield Violation(name, node.lineno, f"reads a clock: {_called(node)}()")


def open_last_lines(root: Path) -> Iterator[Violation]:
    """Every text file ends with a newline."""
    for name, text in texts(root, "*"):
        if text and not text.endswith("\n"):
            yield Violation(name, len(text.splitlines()), "no newline at the end")


def top_level_strays(root: Path) -> Iterator[Violation]:
    """The top level holds what everyone expects there, and nothing else."""
    ignored = ignored_names(root)
    for entry in sorted(root.iterdir()):
        if entry.name not in TOP_LEVEL and not any(fnmatch(entry.name, pattern) for pattern in ignored):
            yield Violation(entry.name, 1, "not a name of the top level")


HEADER = "#!lua flags=no-writes\n-- Tell the time.\n-- KEYS none\n-- ARGV none\n-- Returns: seconds\n"

POLL = "async def f():\n    async with asyncio.timeout(9):\n        while go():\n            await asyncio.sleep(0.1)\n"

# rule, path of the plant, content that breaks the rule, content at its edge that does not. A `~` is left out when
# planting: it keeps this file within the rules.
PLANTS = [
    (long_functions, "a.py", "def f():\n" + "    x = 1\n" * 70, "def f():\n" + "    x = 1\n" * 69),
    (long_functions, "a.py", "class A:\n    async def f(self):\n" + "        x = 1\n" * 70, "x = 1\n" * 71),
    (long_modules, "a.py", "x = 1\n" * 401, "x = 1\n" * 400),
    (long_scripts, "a.lua", "x = 1\n" * 61, "#!lua\n--[[ a\n b ]]\n\n" + "x = 1\n" * 60 + "-- c\n"),
    (script_headers, "flashsale/gate/lua/a.lua", HEADER.replace("#!lua flags=no-writes", "--"), HEADER),
    (script_headers, "flashsale/gate/lua/a.lua", HEADER.replace("#!lua", "#!/usr/bin/lua"), HEADER),
    (script_headers, "flashsale/gate/lua/a.lua", HEADER.replace("-- Tell the time.\n", ""), HEADER),
    (script_headers, "flashsale/gate/lua/a.lua", HEADER.replace("KEYS none", "no keys"), HEADER),
    (script_headers, "flashsale/gate/lua/a.lua", HEADER.replace("ARGV none", "none"), HEADER),
    (script_headers, "flashsale/gate/lua/a.lua", HEADER.replace("Returns: seconds", "seconds"), HEADER),
    (sleeping_tests, "tests/unit/test_a.py", "import time\ntime.sleep(1)\n", "time.sleep(0)\n"),
    (sleeping_tests, "tests/test_a.py", "async def f(s):\n    await asyncio.sleep(s)\n", "asyncio.sleep(0)\n"),
    (sleeping_tests, "tests/test_a.py", "while go():\n    sleep(1)\n", POLL),
    (sleeping_tests, "tests/test_a.py", POLL.replace("while go()", "if go()"), POLL),
    (sleeping_tests, "tests/test_a.py", "from time import sleep\nsleep(0.1)\n", "sleeper(1)\n"),
    (unfinished_work, "a.sql", "-- TO~DO: later\n", "-- TO~DOS is a word of its own\n"),
    (unfinished_work, "Makefile", "# X~XX\n", "mktemp /tmp/XXXXXX\n"),
    (package_hosts, "a.lock", "--index-url~ https://example.com/simple\n", "--no-emit-index-url --quiet\n"),
    (package_hosts, "a/b/Dockerfile", "RUN fetch https://deb.debian~.org/debian\n", "FROM debian:12\n"),
    (package_hosts, "a.md", "see pypi~.org/project/x\n", "published on PyPI.\n"),
    (prints, "flashsale/gate/a.py", "def f():\n    print(1)\n", "def f(pprint):\n    pprint(1)\n"),
    (prints, "flashsale/web.py", "print(1)\n", "x = 'print(1)'\n"),
    (clocks_in_core, "flashsale/domain.py", "datetime.now(UTC)\n", "datetime.fromisoformat(text)\n"),
    (clocks_in_core, "fcodes/codec.py", "date.today()\n", "now = 1\n"),
    (open_last_lines, "a.txt", "a\nb", "a\nb\n"),
    (top_level_strays, "notes.txt", "a\n", None),
]

RULES = [*{rule: None for rule, *_ in PLANTS}]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_repository_obeys(rule: Callable[[Path], Iterator[Violation]]) -> None:
    """Nothing in the repository breaks the rule."""
    assert [f"{path}:{line}: {what}" for path, line, what in rule(ROOT)] == []


@pytest.mark.parametrize(("rule", "path", "bad", "good"), PLANTS)
def test_planted_violation_is_found(
    rule: Callable[[Path], Iterator[Violation]], path: str, bad: str, good: str | None, tmp_path: Path
) -> None:
    """A file that breaks the rule is named, and one just inside the rule is not."""
    planted = tmp_path / path
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text(bad.replace("~", ""), encoding="utf-8")
    assert [violation.path for violation in rule(tmp_path)] == [path]
    if good is not None:
        planted.write_text(good.replace("~", ""), encoding="utf-8")
        assert list(rule(tmp_path)) == []


def test_ignored_files_are_no_part_of_the_repository(tmp_path: Path) -> None:
    """What version control ignores is not judged, wherever it lies."""
    (tmp_path / ".gitignore").write_text("# caches\n.venv/\n*.egg-info/\n", encoding="utf-8")
    for folder in (".git", ".venv", "a/x.egg-info", "a/b"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "f.txt").write_text("f\n", encoding="utf-8")
    assert [path.relative_to(tmp_path).as_posix() for path in tree(tmp_path)] == [".gitignore", "a/b/f.txt"]
