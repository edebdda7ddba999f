"""Amounts of memory, time and work as people write them."""

import re
from fractions import Fraction

from ablations.errors import refuse

UNITS = {
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate(("k", "M", "G", "T"), start=1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate(("K", "M", "G", "T"), start=1)},
}
"""Bytes in each unit: the SI's are powers of 1000, the IEC's of 1024."""

LARGEST_BYTES = 1024 * UNITS["TiB"]

_AMOUNT = re.compile(r"(\d{1,15}(?:\.\d{1,15})?) ?([A-Za-z]+)", re.ASCII)


def parse_bytes(text: str) -> int:
    """Returns the whole bytes in an amount such as `24GiB`, `1.5 GB` or `4096B`; capitals or not make no difference.

    Raises InputError, as for a budget, for whatever is no number with a unit or not between 1 B and 1024 TiB.
    """
    factors = {unit.lower(): factor for unit, factor in UNITS.items()}
    amount = _AMOUNT.fullmatch(text.strip())
    if amount and (factor := factors.get(amount[2].lower())):
        count = int(Fraction(amount[1]) * factor)  # exact: 0.7 GB is no byte short
        if 1 <= count <= LARGEST_BYTES:
            return count
    raise refuse("budget", text, f"a number and a unit ({', '.join(UNITS)}) such as 24GiB, from 1 B to 1024 TiB")


def count_cells(number: int) -> str:
    """Returns a number of cells in words: `1 cell`, `2 cells`."""
    return f"{number} cell{'s' * (number != 1)}"


def format_bytes(count: int) -> str:
    """Returns bytes as `1.5 GiB`, or as MiB where that is less than one."""
    unit = "GiB" if count >= UNITS["GiB"] else "MiB"
    return f"{count / UNITS[unit]:.1f} {unit}"


def parse_duration(text: str, name: str = "time_budget") -> float:
    """Returns seconds for a text such as `90s`, `20min` or `1.5h`; raises InputError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)", text)
    if not match:
        raise refuse(name, text, "a number with s, min or h, such as 20min")
    return float(match[1]) * {"s": 1, "min": 60, "h": 3600}[match[2]]
