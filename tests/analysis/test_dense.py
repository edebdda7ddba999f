"""AP and mIoU of arms, seed by seed."""

import pytest

from ablations.analysis.dense import dense_values


@pytest.mark.parametrize(("measurement", "main"), [("detection", "ap"), ("segmentation", "miou")])
def test_arms_are_compared_seed_by_seed_and_trials_are_left_out(dense_records, measurement, main):
    values = dense_values(dense_records, measurement).set_index(["arm"])
    arm = values.loc["v1+ope+cffn"]
    assert arm["n_seeds"] == 6
    assert arm[f"{main}_mean"] == pytest.approx(0.35 + 0.011 * 2.5)
    assert arm[f"{main}_difference_mean"] == pytest.approx(0.05 + 0.001 * 2.5)
    assert arm[f"{main}_difference_low"] < arm[f"{main}_difference_mean"] < arm[f"{main}_difference_high"]
    assert bool(arm[f"{main}_difference_resolved"])
    assert bool(arm[f"{main}_difference_paired"]), "another model beside them changes nothing"
    assert values[f"{main}_mean"].max() < 0.5, "the trial is not among them"
