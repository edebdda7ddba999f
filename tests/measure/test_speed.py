"""What a record of speed holds beside times: operators, roofline and the machine's two peaks."""

import json
from functools import partial
from typing import Any

import pytest

from ablations.cells import arm_cell
from ablations.measure import Speed, operators, peaks
from ablations.measure.measurement import Setting
from ablations.measure.operators import measure_operators
from ablations.schema import check_result


@pytest.fixture
def known_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peaks of the machine that nobody has to measure, 1000 MACs and 1 byte a second; one profiled step."""
    monkeypatch.setattr(operators, "measure_operators", partial(measure_operators, repeats=1))
    monkeypatch.setattr(peaks, "measure_matmul_peak", lambda *_: {"macs_per_s": 1e3, "samples": {"8": [1.0]}})
    bandwidth = {"bytes_per_s": 1.0, "rates": {8: 1.0}, "samples": {"8": [8.0]}}
    monkeypatch.setattr(peaks, "measure_bandwidth", lambda *_: bandwidth)


def measure(**conditions: Any) -> dict[str, Any]:
    timed = Speed(resolution=32, batch_size=1, repeats=6, **conditions)
    return timed.run(arm_cell("pico", "v1+ope+cffn", "published", timed), Setting())


@pytest.mark.usefixtures("known_peaks")
@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.slow
def test_operators_of_ours_and_of_the_libraries_in_their_default_layout(mode: str) -> None:
    result = measure(reference="timm+transformers", mode=mode)
    check_result("speed", json.loads(json.dumps(result)))
    assert set(result) <= set(Speed.columns)
    with_operators = {name for name, each in result["references"].items() if "operators" in each}
    assert with_operators == {"timm", "transformers"} < set(result["references"])
    for timed in (result, *(result["references"][name] for name in with_operators)):
        kinds = {row["kind"] for row in timed["operators"]}
        always = {"matrix products", "convolutions", "depth-wise convolutions", "attention", "normalisation"}
        assert always <= kinds
        assert ("optimizer" in kinds) == (mode == "training")
        assert timed["step_overhead_s"] > 0
    assert all(row["bound_s"] >= row["bytes"] for row in result["roofline"])  # at a byte a second
    assert result["uncounted"] == []
    # What a training step multiplies is three forward passes, but that images have no gradient.
    forward = result["macs_per_s"] * result["latency_s"] / (3 if mode == "training" else 1)
    ratio = sum(row["macs"] for row in result["roofline"]) / forward
    assert ratio == pytest.approx(1) if mode == "inference" else 2.9 < ratio < 3
    assert (result["peak_bytes_per_s"], result["bandwidth_samples"]) == (1.0, {"8": [8.0]})


@pytest.mark.usefixtures("known_peaks")
def test_an_arm_beside_v1_has_no_operators() -> None:
    assert not {"operators", "roofline", "peak_bytes_per_s", "references"} & set(measure(reference="v1"))


@pytest.mark.usefixtures("known_peaks")
def test_a_compiled_model_has_no_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.nn.Module.compile", lambda self, **_: None)
    result = measure(reference="timm", compiled=True)
    assert set(result["references"]) == {"timm", "timm, channels-last"}
    of_operators = {"operators", "roofline", "uncounted", "step_overhead_s", "peak_bytes_per_s"}
    assert not of_operators & {*result, *result["references"]["timm"]}
