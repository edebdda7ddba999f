"""The benchmark of the count."""

import re

import pytest

from ablations.config import build_config
from ablations.cost import count_macs


@pytest.mark.slow
def test_the_benchmark_of_the_count_prints_a_ratio(call, capsys):
    arguments = ["--variant", "pico", "--resolution", "64", "--repeats", "6"]
    code, out, err = call(capsys, "benchmark-count", *arguments)
    assert (code, err) == (0, "")
    head, ours, theirs, counts, beside, ratio = out.splitlines()
    macs = f"{count_macs(build_config('pico', 'v1+ope+cffn'), 64):,}"
    assert counts == f"MACs: closed form {macs}, trace {macs}, fvcore {macs}"
    assert beside.startswith("fvcore counts beside them: ")
    assert "layer_norm" in beside
    assert head == "pico v1+ope+cffn at 64 px, 6 repeats of each interleaved"
    assert ours.startswith("trace on meta")
    assert theirs.startswith("fvcore, real")
    number = r"\d+\.\d\d"
    line = rf"fvcore takes {number} times as long as the trace \(95 % interval {number} to {number}\)"
    assert re.fullmatch(line, ratio)
