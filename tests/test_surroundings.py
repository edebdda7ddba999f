"""Where people start it: encodings, terminals, homes, interrupts, little shared memory, warnings of libraries."""

import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

from ablations.cli import parse
from ablations.data import stream
from ablations.errors import InputError, warn_in_one_line

ROOT = Path(__file__).parents[1]
COST = ("cost", "--variants", "pico", "--arms", "v1", "--resolutions", "64", "--results", "runs")


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(ROOT / "run_ablation.py"), *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1251", "shift_jis"])
@pytest.mark.parametrize("arguments", [("--help",), ("accuracy", "--help-all"), ("list",)])
def test_it_prints_where_the_terminal_has_not_all_signs(
    tmp_path: Path, encoding: str, arguments: tuple[str, ...]
) -> None:
    done = run(tmp_path, *arguments, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    done.stdout.decode(encoding)


@pytest.mark.parametrize("words", [("--results=~/out",), ("--results", "~/out")])
def test_the_tilde_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse(["cost", *words]).results == tmp_path / "out"
    monkeypatch.setenv("ABLATIONS_DATA_DIR", "~/sets")
    (tmp_path / "sets/pets/train").mkdir(parents=True)
    for name in ("cat", "dog"):
        (tmp_path / "sets/pets/train" / name).mkdir()
    assert {cell.conditions.num_classes for cell in parse(["accuracy", "--data", "pets"]).cells()} == {2}
    (tmp_path / "mine.py").write_text("def build(): ...\n")
    assert parse(["cost", "--model=~/mine.py:build"]).cells()[0].source == f"{tmp_path}/mine.py:build"


def test_a_home_that_nobody_knows_is_one_line() -> None:
    with pytest.raises(InputError, match="results='~nobody-of-this-name/x' is not possible; allowed: a path; the home"):
        parse(["cost", "--results", "~nobody-of-this-name/x"])


def test_a_warning_is_its_message_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    warn_in_one_line()
    assert warnings.formatwarning("old\n  way", UserWarning, "mine.py", 3) == "warning: old way\n"


@pytest.mark.slow
def test_a_librarys_warning_is_one_line_without_its_source(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import warnings\nfrom torch import nn\nwarnings.warn('old\\n  way')\ndef build(): return nn.Conv2d(3, 4, 1)\n"
    )
    done = run(tmp_path, "cost", "--model", "mine.py:build", "--resolutions", "32")
    assert done.returncode == 0
    assert b"warning: old way\n" in done.stderr
    assert b"mine.py:3" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("times", [2, 4])
def test_several_interrupts_are_one(tmp_path: Path, times: int) -> None:
    """The process is interrupted before and while it trains; whichever it is, it ends at once and cleanly."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run_ablation.py"), "accuracy", "--variants", "pico", "--epochs", "500"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(4)
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said


@pytest.mark.parametrize(("free", "joins"), [(10**12, stream._join), (10**6, stream._join_for_pipe)])
def test_little_shared_memory_is_not_used(monkeypatch: pytest.MonkeyPatch, free: int, joins: object) -> None:
    monkeypatch.setattr(stream.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free}))
    reader = stream._Reader(lambda image: torch.zeros(1), workers=0, batch_bytes=3 * 224 * 224 * 40)
    assert reader._loader.collate_fn is joins


def test_batches_are_the_same_however_they_come() -> None:
    images = [torch.full((3, 4, 4), level, dtype=torch.uint8) for level in range(5)]
    assert torch.equal(torch.from_numpy(stream._join_for_pipe(images)), stream._join(images))
    assert stream._join_for_pipe([images[0], {"a.png": "no image"}]) == {"a.png": "no image"}


@pytest.mark.slow
def test_without_colour_there_is_none(tmp_path: Path) -> None:
    done = run(tmp_path, *COST, NO_COLOR="1", TERM="xterm-256color", COLUMNS="40")
    assert done.returncode == 0
    assert not re.search(rb"\x1b\[", done.stdout + done.stderr)
