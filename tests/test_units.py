"""Amounts of memory and of time: what their units are worth, and what is no amount."""

import subprocess
import sys
from pathlib import Path

import pytest

from ablations.errors import InputError
from ablations.units import count_cells, format_bytes, parse_bytes, parse_duration


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("24GiB", 24 * 2**30),
        ("512MiB", 512 * 2**20),
        ("1.5GB", 1_500_000_000),
        ("800 MB", 800_000_000),
        ("3KiB", 3072),
        ("3kB", 3000),
        ("1TiB", 2**40),
        ("2TB", 2 * 10**12),
        ("4096B", 4096),
        ("0.7GB", 700_000_000),  # 0.7 times a billion is a little less in floating point
        ("1.5B", 1),
        (" 24gib ", 24 * 2**30),
        ("1024TiB", 2**50),
    ],
)
def test_amounts(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    "text",
    [
        *("24XB", "24", "GiB", "", "24G", "24Gib/s", "1,5GB", "1e3MB", "0x10B", "٣GB"),
        *("-1GB", "0GiB", "0.1B", "nan", "nanGiB", "infGB", "1025TiB", f"{'9' * 5000}B"),
    ],
)
def test_what_is_no_amount_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_bytes(text)
    message = str(caught.value)
    assert message.startswith(f"budget={text!r} is not possible; allowed: ")
    assert "KiB" in message
    assert "\n" not in message


def test_amounts_are_shown_in_the_larger_unit_that_they_fill() -> None:
    assert format_bytes(24 * 2**30) == "24.0 GiB"
    assert format_bytes(2**30 - 1) == "1024.0 MiB"
    assert format_bytes(3 * 2**19) == "1.5 MiB"


def test_no_torch_is_needed() -> None:
    code = "import sys, ablations.units; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=True)


@pytest.mark.parametrize("text", ["90s", "1.5min", "0.025h"])
def test_durations(text: str) -> None:
    assert parse_duration(text) == 90


def test_one_cell_is_no_cells() -> None:
    assert [count_cells(number) for number in (0, 1, 2)] == ["0 cells", "1 cell", "2 cells"]
