"""The rules of the house: what may import what, what files may be called, and what no file may say.

Imports are read from the source, never executed. A rule is a row of a table.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from itertools import chain
from pathlib import Path

import pytest

import ablations

ROOT = Path(__file__).parents[1]
PACKAGE = "ablations"


@dataclass(frozen=True)
class Import:
    """One import of the source: `module` is the deepest module it names, in the file `path` at `line`.

    `deferred` ones stand inside a function and run when it is called, or are for types alone.
    """

    module: str
    path: str
    line: int
    deferred: bool

    def is_within(self, names: tuple[str, ...]) -> bool:
        return any(self.module == name or self.module.startswith(f"{name}.") for name in names)

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.module}"


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    paths = sorted((ROOT / PACKAGE).rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


@cache
def imports_of(module: str) -> tuple[Import, ...]:
    """All imports of a module, those inside functions too."""
    path = modules()[module]
    return tuple(find_imports(ast.parse(path.read_text(encoding="utf-8")), path.relative_to(ROOT).as_posix()))


def find_imports(tree: ast.AST, path: str, deferred: bool = False) -> Iterator[Import]:
    """Yields the imports below a node of the syntax tree."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(name.name, path, node.lineno, deferred)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            for name in node.names:
                full = f"{node.module}.{name.name}"
                yield Import(full if full in modules() else str(node.module), path, node.lineno, deferred)
        for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        inside = deferred or for_types or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from find_imports(node, path, inside)


def modules_of(part: str) -> list[str]:
    """The modules of one part of the package: a file, or a folder with all below it."""
    prefix = f"{PACKAGE}.{part}"
    return [module for module in modules() if module == prefix or module.startswith(f"{prefix}.")]


def parts(*names: str) -> tuple[str, ...]:
    return tuple(f"{PACKAGE}.{name}" for name in names)


DESCRIBE = parts(
    *("errors", "files", "units", "conditions", "config", "recipes", "cells", "cost", "studies", "paper"),
    *("toggle_files", "dense_recipes", "baselines.registry", "data.listing", "data.registry", "data.dense_registry"),
    *(f"measure.{name}" for name in ("measurement", "metrics", "cost", "memory", "speed", "accuracy", "evaluation")),
    *(f"measure.{name}" for name in ("dense", "detection", "segmentation")),
)
"""What says what a model, a cell and a study are: the standard library alone, and nothing that runs."""

MODELS = parts("model", "baselines", "heads")
RUNS = (*MODELS, *parts("data", "training", "measure", "runner"))
REPORTS = parts("analysis", "report")
COMMAND_LINE = parts("flags", "commands", "launch", "cli")
TORCH = ("torch", "torchvision", "timm", "transformers", "fvcore", "safetensors")
STANDARD_LIBRARY = tuple(sys.stdlib_module_names)

ALLOWED_IMPORTS = {
    "errors": (),
    "units": parts("errors"),
    "files": (),
    "conditions": parts("errors"),
    "config": parts("errors"),
    "toggle_files": parts("errors", "config"),
    "skeletons": parts("errors"),
    "cost": parts("errors", "config", "toggle_files"),
    "recipes": parts("errors", "conditions"),
    "dense_recipes": parts("errors", "conditions", "config"),
    "cells": DESCRIBE + parts("measure"),
    "studies": DESCRIBE + parts("measure"),
    "baselines.registry": DESCRIBE,
    "data.listing": DESCRIBE,
    "data.registry": DESCRIBE,
    "data.dense_registry": DESCRIBE,
    "schema": (*DESCRIBE, *parts("measure")),
    "records": (*DESCRIBE, *parts("measure", "schema", "records"), "filelock", "numpy", "pandas"),
    "model": (*DESCRIBE, *parts("model"), "torch", "timm", "safetensors", "numpy"),
    "heads": (*DESCRIBE, *parts("heads"), "torch", "torchvision"),
    "baselines": (*DESCRIBE, *parts("model", "baselines"), "torch", "torchvision", "timm", "transformers", "numpy"),
}
"""A part of the package, and all that it may import beside the standard library, anywhere in its files."""

FORBIDDEN_IMPORTS = {
    "paper": (*RUNS, *COMMAND_LINE, *TORCH),
    "data": (*MODELS, *REPORTS, *COMMAND_LINE, *parts("training", "runner", "studies")),
    "training": (*REPORTS, *COMMAND_LINE, *parts("runner", "studies")),
    "measure": (*REPORTS, *COMMAND_LINE, *parts("schema", "records", "runner", "studies")),
    "runner": (*REPORTS, *COMMAND_LINE),
    "analysis": (*parts("report", "runner", "model", "data", "training"), *COMMAND_LINE, *TORCH, "matplotlib"),
    "report": (*parts("runner", "model", "data", "training"), *COMMAND_LINE, *TORCH),
}
"""A part of the package, and what it never imports, anywhere in its files."""

OPENS_WITHOUT_TORCH = (
    *("errors", "units", "conditions", "config", "recipes", "cells", "studies", "cost", "schema", "records", "paper"),
    *("toggle_files", "skeletons", "dense_recipes", "baselines.registry", "data.listing", "data.registry"),
    *("data.dense_registry",),
    *("analysis", "report", "flags", "commands", "launch", "cli"),
)
"""Importing these imports no torch, not even by way of others, so that help, tables and notebooks open at once."""

TOP_LEVEL = {
    *("ablations", "notebooks", "results", "tests", "run_ablation.py", "hubconf.py"),
    *("pyproject.toml", "constraints.txt", "Makefile", "README.md", "LICENSE", "CONTRIBUTING.md"),
}
"""All that stands at the project's root, beside names that begin with a dot."""

NAMES_THAT_SAY_NOTHING = {"util", "utils", "helper", "helpers", "misc", "common"}

UNWANTED_TEXT = {
    "a path of one machine": r"(?<![\w.~}])/(?:home|root|work|tmp|Users)/\w",
    "a package index": r"https?://[^\s\"')]*(?:\bpypi\b|pythonhosted|/simple\b|/whl\b)|(?:index|find)[-_](?:url|links)",
}
"""What no text file of the project says, as patterns."""


@pytest.mark.parametrize("part", [*ALLOWED_IMPORTS, *FORBIDDEN_IMPORTS, *OPENS_WITHOUT_TORCH])
def test_every_part_that_a_rule_names_is_there(part: str) -> None:
    assert (ROOT / PACKAGE / part).is_dir() or modules_of(part)


@pytest.mark.parametrize("part", ALLOWED_IMPORTS)
def test_a_part_imports_only_what_it_may(part: str) -> None:
    allowed = (*ALLOWED_IMPORTS[part], *STANDARD_LIBRARY)
    found = [line for module in modules_of(part) for line in imports_of(module)]
    assert [str(line) for line in found if not line.is_within(allowed)] == []


@pytest.mark.parametrize("part", FORBIDDEN_IMPORTS)
def test_a_part_never_imports_what_it_must_not_know(part: str) -> None:
    found = [line for module in modules_of(part) for line in imports_of(module)]
    assert [str(line) for line in found if line.is_within(FORBIDDEN_IMPORTS[part])] == []


@pytest.mark.parametrize("part", OPENS_WITHOUT_TORCH)
def test_what_describes_and_reports_opens_without_torch(part: str) -> None:
    reached, waiting = set(), modules_of(part)
    while waiting:
        module = waiting.pop()
        if module in reached:
            continue
        reached.add(module)
        at_once = [line for line in imports_of(module) if not line.deferred]
        assert [str(line) for line in at_once if line.is_within(TORCH)] == []
        # Importing a.b.c runs a and a.b first.
        names = [*(line.module for line in at_once), module.rpartition(".")[0]]
        waiting += [name for name in names if name in modules()]


def test_public_names_come_from_the_package_and_describing_with_them_needs_no_torch() -> None:
    for name, module in ablations.PUBLIC.items():
        assert getattr(ablations, name) is getattr(import_module(f"{PACKAGE}.{module}"), name)
    assert {*ablations.PUBLIC} < {*dir(ablations)}
    with pytest.raises(AttributeError, match="no attribute 'build_modle'"):
        ablations.build_modle  # noqa: B018
    code = "import sys; from ablations import build_config, count_macs, load_records; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_imports_run_in_no_circle() -> None:
    # What a function imports when it is called closes no circle: a measurement so reaches what runs it.
    graph = {
        module: {line.module for line in imports_of(module) if not line.deferred} & modules().keys()
        for module in modules()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_help_opens_without_torch_and_pandas() -> None:
    command = [sys.executable, "-X", "importtime", "run_ablation.py", "--help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "usage" in shown.stdout.lower()
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in shown.stderr.splitlines()}
    assert PACKAGE in imported
    assert imported & {*TORCH, "pandas", "matplotlib"} == set()


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """The files in git, as paths from the project's root."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_the_top_level_holds_only_what_belongs_there(tracked: list[Path]) -> None:
    names = {path.parts[0] for path in tracked}
    assert {name for name in names if not name.startswith(".")} - TOP_LEVEL == set()


def test_every_file_is_named_for_what_it_holds(tracked: list[Path]) -> None:
    words = {path: {Path(part).stem.strip("_").lower() for part in path.parts} for path in tracked}
    assert [str(path) for path, names in words.items() if names & NAMES_THAT_SAY_NOTHING] == []


@pytest.mark.parametrize("what", UNWANTED_TEXT)
def test_no_file_names(what: str, tracked: list[Path]) -> None:
    pattern, found = re.compile(UNWANTED_TEXT[what]), []
    for path in tracked:
        content = (ROOT / path).read_bytes()
        if b"\0" in content:
            continue  # an image
        lines = enumerate(content.decode().splitlines(), start=1)
        found += [f"{path}:{number} {line[:120]}" for number, line in lines if pattern.search(line)]
    assert found == []


def test_constraints_pin_every_requirement_and_nothing_else_stands_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    pinned = {distribution_name(line) for line in pins}
    assert {distribution_name(line) for line in required} - pinned == set()


def distribution_name(requirement: str) -> str:
    """The name in a requirement such as `torch>=2.8`, in the one spelling that indexes compare."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s<>=!~\[;]", requirement)[0]).lower()
