"""Whatever is typed or configured ends in an answer or in one clear line."""

import contextlib
import io
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ablations.cli import main
from ablations.config import ARMS, BASES, VARIANTS, build_config
from ablations.cost import count_macs, count_params
from ablations.errors import InputError

SHORT = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
LONG = settings(SHORT, max_examples=1000)

WORDS = st.one_of(
    st.sampled_from(
        [
            *("", "0", "-1", "32", "224x", "0x0", "800x1280", "nan", "1e9", "v1", "v1+ope", "v9", "pico", "b0", "--"),
            *("timm:", "timm:resnet18?x=__import__('os')", "pvt:b0", "../../x", "\n", "é", "\ud800", "9" * 30, "24GiB"),
        ]
    ),
    st.text(max_size=6),
)

FLAGS = {
    "cost": ["--variants", "--arms", "--bases", "--model", "--resolutions", "--heads", "--breakdown", "--time-budget"],
    "memory": ["--predict", "--budget", "--resolutions", "--modes", "--attention", "--checkpointing", "--batch-size"],
    "speed": ["--resolutions", "--modes", "--repeats", "--compiled", "--device", "--precision"],
    "accuracy": ["--recipe", "--epochs", "--data", "--batch-size", "--base-lr", "--seeds", "--mixup", "--eval-every"],
    "evaluate": ["--checkpoint", "--variant", "--arm", "--data", "--num-classes", "--resolutions"],
    "run": ["--measurements", "--variants", "--seeds", "--jobs", "--time-budget"],
    "report": ["--check", "--all"],
    "detect": ["--heads", "--data", "--decay-epochs", "--long-side", "--smallest-anchor", "--init", "--set"],
    "segment": ["--heads", "--data", "--epochs", "--void-label", "--short-side", "--max-class-share", "--num-classes"],
    "counters": ["--tools", "--arms", "--resolutions", "--attention", "--set", "--toggles", "--pool-size"],
    "compare": ["--format", "--rename", "--toggles"],
    "power": ["--difference", "--power"],
    "plan": ["--devices", "--device", "--toggles"],
    "status": ["--devices", "--toggles"],
    "records": ["--where"],
    "new-toggle": [],
    "nothing": [],
}
FIRST = {
    "run": ["quick", "digits", "speed", "missing.toml", ""],
    **{name: ["digits", "imagenette", "missing.toml", "", "\n"] for name in ("compare", "plan", "status")},
    "records": ["pack", "unpack", "merge", "drop"],
    "new-toggle": ["attn", "mlp", "block", "\n"],
}
MEASURES = ("cost", "memory", "speed", "accuracy", "detect", "segment", "counters", "evaluate", "run")


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    command = draw(st.sampled_from([*FLAGS]))
    line = [command]
    if command in FIRST:
        line += draw(st.lists(st.sampled_from(FIRST[command]), max_size=1))
    for flag in draw(st.lists(st.sampled_from(FLAGS[command] or ["--x"]), max_size=3)):
        line += [flag, *draw(st.lists(WORDS, max_size=2))]
    return [*line, "--dry-run"] if command in MEASURES else line


def check_line(line: list[str], folder: Any) -> None:
    out, complaint = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(complaint):
        try:
            code = main([*line, *(["--results", str(folder)] if line[0] != "new-toggle" else [])])
        except SystemExit as stop:
            code = stop.code
    said = complaint.getvalue()
    assert code in (0, 1, 2), (line, code, said)
    assert "internal error" not in said, (line, said)
    assert "Traceback" not in said, (line, said)
    if code == 2:
        assert len(said.splitlines()) == 1, (line, said)


@pytest.mark.slow
@SHORT
@given(line=command_lines())
def test_a_command_line_is_answered_or_refused_in_one_line(tmp_path, line):
    check_line(line, tmp_path / "runs")


@pytest.mark.slow
@LONG
@given(line=command_lines())
def test_many_command_lines_are_answered_or_refused_in_one_line(tmp_path, line):
    check_line(line, tmp_path / "runs")


ODD = st.one_of(st.none(), st.booleans(), st.integers(-2, 9), st.floats(), st.text(max_size=3), st.lists(st.integers()))
FOUR = st.lists(st.integers(1, 8), min_size=4, max_size=4).map(tuple)
OVERRIDES = {
    **{name: st.one_of(FOUR, ODD) for name in ("embed_dims", "depths", "num_heads", "mlp_ratios", "sr_ratios")},
    **{name: st.one_of(st.integers(0, 64), ODD) for name in ("img_size", "num_classes", "in_chans", "pool_size")},
    **dict.fromkeys(("stem_stride", "drop_path_rate", "qkv_bias", "attention", "pooling", "ffn_relu"), ODD),
}


@SHORT
@given(
    names=st.tuples(st.sampled_from([*VARIANTS]), st.sampled_from(ARMS), st.sampled_from(BASES)),
    overrides=st.fixed_dictionaries({}, optional=OVERRIDES),
)
def test_a_config_is_counted_or_refused(names, overrides):
    try:
        config = build_config(*names, **overrides)
        assert count_params(config) > 0
        assert count_macs(config, config.smallest_side) > 0
    except InputError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017, most are no error
