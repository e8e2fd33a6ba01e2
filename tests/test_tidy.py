"""The repository's own lint: what ruff, mypy and import-linter don't see.

Each rule is one of CONTRIBUTING.md's. A failure names file and line and says what to do instead.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60

# Words that a rule below looks for are put together here, so that this file passes its own rules.
UNFINISHED = re.compile(
    r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b"
)
FOREIGN = re.compile(
    "|".join(("/wo" + "rk/", r"\.\./sha" + "red", "/tmp/" + "sterna/", "/ho" + "me/[a-z]+/"))
)
SILENCED = re.compile(
    r"#\s*(type:\s*ignore(\[[\w, -]+\])?|noqa(:\s*[A-Z]+[0-9]+(,\s*[A-Z]+[0-9]+)*)?)\s*$"
)
SHORTENED = {"src", "dst", "tgt", "srv"}
NAMED_ELSEWHERE = {
    # Modules whose identifiers are the wire's or QEMU's, kept as their documents spell them.
    "src/sterna/rpc",
}


@cache
def tracked() -> list[Path]:
    """Every text file of the repository; in an unpacked archive without git, every file in it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached"],
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
        text=True,
    )
    names = listed.stdout.split("\0")
    if listed.returncode:
        folders = ("src", "tests", "docs", "bench", "faults", "scripts")
        found = [path for folder in folders for path in (REPOSITORY / folder).rglob("*")]
        names = [str(path.relative_to(REPOSITORY)) for path in [*found, *REPOSITORY.glob("*.md")]]
    paths = (REPOSITORY / name for name in names if name and "__pycache__" not in name)
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


def python_files() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".py"]


def sources() -> list[Path]:
    return [path for path in python_files() if path.is_relative_to(REPOSITORY / "src")]


def at(path: Path, line: int | None = None) -> str:
    place = str(path.relative_to(REPOSITORY))
    return place if line is None else f"{place}:{line}"


def test_files_are_short() -> None:
    long = [
        f"{at(path)}: {lines} lines"
        for path in python_files()
        if (lines := len(path.read_text().splitlines())) >= FILE_LINES_MAX
    ]
    assert not long, f"split these by topic, below {FILE_LINES_MAX} lines:\n" + "\n".join(long)


def test_functions_are_short() -> None:
    long = []
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines >= FUNCTION_LINES_MAX:
                    long.append(f"{at(path, node.lineno)}: {node.name} has {lines} lines")
    assert not long, f"split these, below {FUNCTION_LINES_MAX} lines:\n" + "\n".join(long)


def lines_with(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    found = []
    for path in paths:
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.search(line):
                found.append(f"{at(path, number)}: {line.strip()}")
    return found


def test_nothing_is_left_for_later() -> None:
    found = lines_with(UNFINISHED, [path for path in tracked() if path.name != "requirements.lock"])
    assert not found, "finish it, or open an issue:\n" + "\n".join(found)


def test_nobodys_own_paths() -> None:
    found = lines_with(FOREIGN, tracked())
    assert not found, "these exist on one machine only:\n" + "\n".join(found)


def test_silenced_warnings_say_why() -> None:
    found = []
    for path in python_files():
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            above = lines[number - 1].strip() if number else ""
            if SILENCED.search(line) and not above.startswith("#"):
                found.append(f"{at(path, number + 1)}: {line.strip()}")
    assert not found, "write the reason behind it or above it:\n" + "\n".join(found)


def test_broad_handlers_say_which_boundary_they_are() -> None:
    """What nobody expected is caught at a connection, a guest or a handler, with a reason."""
    found = []
    for path in sources():
        text = path.read_text()
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.ExceptHandler) or not isinstance(node.type, ast.Name):
                continue
            if node.type.id not in ("Exception", "BaseException"):
                continue
            raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            around = lines[node.lineno - 2 : node.body[0].lineno + 1]
            if not raises and not any("#" in line for line in around):
                found.append(at(path, node.lineno))
    assert not found, "narrow these, or say why they catch all:\n" + "\n".join(found)


BLOCKING = {("time", "sleep"), ("os", "system"), ("socket", "create_connection")}


def test_nothing_blocks_the_loop() -> None:
    found = [
        f"{at(path, node.lineno)}: {node.value.id}.{node.attr}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in BLOCKING
    ]
    assert not found, "wait for an event, with a deadline:\n" + "\n".join(found)


def test_modules_say_what_they_are() -> None:
    mute = [at(path) for path in sources() if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not mute, "begin these with a docstring:\n" + "\n".join(mute)


def identifiers(tree: ast.AST) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.append((node.lineno, node.id))
        elif isinstance(node, ast.arg):
            found.append((node.lineno, node.arg))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.append((node.lineno, node.name))
    return found


def test_names_are_whole_words() -> None:
    found = []
    for path in sources():
        if any(path.is_relative_to(REPOSITORY / folder) for folder in NAMED_ELSEWHERE):
            continue
        for line, name in identifiers(ast.parse(path.read_text())):
            if SHORTENED & set(re.split(r"_|(?<=[a-z])(?=[A-Z])", name.lower())):
                found.append(f"{at(path, line)}: {name}")
    assert not found, "source and destination (dest for locals), server:\n" + "\n".join(found)


def test_unit_tests_mirror_the_packages() -> None:
    packages = {path.name for path in (REPOSITORY / "src/sterna").iterdir() if path.is_dir()}
    strays = [
        folder.name
        for folder in (REPOSITORY / "tests/unit").iterdir()
        if folder.is_dir() and folder.name not in {*packages, "support", "__pycache__"}
    ]
    assert not strays, f"no package sterna.X for tests/unit/X: {strays}"


def test_house_plan() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^(```|~~~).*?^\1\s*$", re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The ids that a forge gives to a page's headings."""
    found = set()
    for line in FENCED.sub("", text).splitlines():
        if line.startswith("#"):
            heading = re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower())
            found.add(heading.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", [path for path in tracked() if path.suffix == ".md"], ids=at)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    broken = []
    for link in LINK.findall(FENCED.sub("", text)):
        target, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        goal = page if not target else (page.parent / target).resolve()
        found = goal.exists() and goal.is_relative_to(REPOSITORY)
        if found and anchor and goal.suffix == ".md":
            found = anchor in anchors(goal.read_text())
        if not found:
            broken.append(link)
    assert not broken, f"{at(page)} links to nothing: {broken}"
