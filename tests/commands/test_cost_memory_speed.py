"""The commands `cost`, `closed-form`, `memory` and `speed`: what they count, predict, answer and time."""

import re
import subprocess
import sys

import pytest

from ablations.config import ARMS, build_config
from ablations.cost import count_macs, count_params
from ablations.studies import find_study


@pytest.fixture
def plan(call):
    """`plan(capsys, *arguments)` returns what would be measured, one line a cell."""

    def plan_cost(capsys, *arguments):
        code, out, _ = call(capsys, "cost", *arguments, "--dry-run")
        assert code == 0
        *lines, total = out.splitlines()
        assert total == f"{len(lines)} cell{'s' if len(lines) > 1 else ''}, 0 done"
        return [line.removeprefix("missing  cost ") for line in lines]

    return plan_cost


def test_the_cost_without_flags_is_the_paper_s(plan, capsys, tmp_path):
    lines = plan(capsys, "--results", str(tmp_path / "out"))
    assert lines == [cell.label.removeprefix("cost ") for cell in find_study("paper").cells()]
    assert "timm:resnet18" in lines
    assert "b2 v1+lsra base=v1 resolution=(800, 1280) head=retinanet" in lines
    assert not (tmp_path / "out").exists()


def test_what_is_named_is_what_is_counted(plan, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("")
    assert plan(capsys, "--model", "timm:resnet18") == ["timm:resnet18"]
    assert plan(capsys, "--model", "mine.py:build", "--heads", "fcos") == ["mine.py:build head=fcos"]
    both = plan(capsys, "--model", "timm:resnet18", "pvt:b0/v1/v1", "--arms", "v1+ope")
    assert both == ["timm:resnet18", "b0 v1 base=v1", "b2 v1+ope base=v2"]
    assert plan(capsys, "--model", "timm:resnet18", "--variants", "pico")[1:] == [f"pico {a} base=v2" for a in ARMS]
    assert plan(capsys, "--model", "pvt:b2/v1/v2", "--arms", "v1") == ["b2 v1 base=v2"]  # once
    assert plan(capsys, "--bases", "v1") == [f"b2 {arm} base=v1" for arm in ARMS]
    assert plan(capsys, "--pool-size", "3", "--arms", "v1") == ["b2 v1 base=v2 pool_size=3"]
    assert plan(capsys, "--resolutions", "64")[:2] == [
        "b2 v1 base=v2 resolution=64",
        "b2 v1+ope base=v2 resolution=64",
    ]
    sizes = ["--resolutions", "64", "224x96", "--heads", "classifier", "retinanet"]
    assert plan(capsys, "--model", "baselines:cpvt_s", *sizes) == [
        f"baselines:cpvt_s{size}{head}"
        for head in ("", " head=retinanet")
        for size in (" resolution=64", " resolution=(224, 96)")
    ]


@pytest.mark.slow
def test_a_model_of_one_s_own_stands_in_a_table_with_others(call, capsys, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from torch import nn\ndef build():\n    return nn.Conv2d(3, 1000, 10)\n")
    models = [f"{path}:build", "timm:resnet18", "timm:swin_tiny_patch4_window7_224"]
    arguments = ["cost", "--model", *models, "--resolutions", "64", "--results", str(tmp_path / "out")]
    code, out, _ = call(capsys, *arguments, "--breakdown")
    assert code == 0
    assert "3 cells measured in" in out
    for model in ("mine.py:build", *models[1:]):
        assert model in out
    assert str(tmp_path / "mine.py") not in out
    assert "0.301" in out  # 3 * 10 * 10 * 1000 + 1000 parameters, in M
    assert "Input height (64) doesn't match model (224)" in out
    assert "layer1" in out
    assert call(capsys, "report", "--check", "--results", str(tmp_path / "out"))[0] == 0


def run_script(*arguments):
    command = [sys.executable, "-X", "importtime", "run_ablation.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True)


@pytest.mark.slow
def test_the_closed_form_of_everything_needs_no_torch():
    done = run_script("closed-form")
    header, *rows = [line.split(",") for line in done.stdout.splitlines()]
    assert header == ["variant", "base", "arm", "resolution", "params", "macs"]
    assert len(rows) == 8 * 6 * 3 * 10
    assert len({tuple(row[:4]) for row in rows}) == len(rows)
    assert {row[0] for row in rows} == {f"b{size}" for size in range(6)}
    (small,) = [row for row in rows if row[:4] == ["b2", "v1", "v1", "224"]]
    assert [f"{int(small[4]) / 1e6:.2f}", f"{int(small[5]) / 1e9:.2f}"] == ["24.49", "3.82"]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "ablations" in imported
    assert imported & {"torch", "timm", "transformers", "pandas", "matplotlib"} == set()
    assert done.stderr.splitlines()[-1].startswith("1,440 counts in ")


def test_the_closed_form_takes_resolutions(call, capsys):
    code, out, err = call(capsys, "closed-form", "--resolutions", "64x96", "512")
    rows = [line.split(",") for line in out.splitlines()[1:]]
    assert code == 0
    assert len(rows) == 8 * 6 * 3 * 2
    assert {row[3] for row in rows} == {"64x96", "512"}
    config = build_config("b4", "v1+lsra", "v1")
    expected = ["b4", "v1", "v1+lsra", "64x96", str(count_params(config)), str(count_macs(config, (64, 96)))]
    assert expected in rows
    assert err.startswith("288 counts in ")


@pytest.mark.slow
def test_memory_is_predicted_for_a_device_that_is_not_there(call, capsys, tmp_path):
    sizes = ["--resolutions", "32", "64", "--modes", "inference", "--device", "cuda"]
    code, out, _ = call(
        capsys,
        *("memory", "--predict", "--variants", "pico", "--arms", "v1", "v1+lsra"),
        *sizes,
        "--results",
        str(tmp_path),
    )
    assert code == 0
    assert "memory_growth.md" in out
    assert "Predicted from shapes alone" in out
    code, out, _ = call(capsys, "memory", "--predict", "--model", "timm:resnet18", *sizes, "--results", str(tmp_path))
    assert code == 0
    assert "`timm:resnet18`  " in out


def test_predictions_go_further_by_default(call, capsys, tmp_path):
    code, out, _ = call(capsys, "memory", "--predict", "--arms", "v1", "--dry-run", "--results", str(tmp_path))
    assert (code, out.count("resolution=4096"), out.count("method=predicted")) == (0, 4, 20)


@pytest.mark.slow
def test_a_budget_is_answered_and_verified(call, capsys):
    asked = ["memory", "--budget", "4MiB", "--variants", "pico", "--arms", "v1", "--modes", "training"]
    code, out, _ = call(capsys, *asked, "--resolutions", "32", "--verify")
    assert code == 0
    assert "\nWhat fits into 4.0 MiB\n" in out
    answer = re.search(r"^v1 +(\d+) \(([\d.]+) MiB\) +(\d+) \(([\d.]+) MiB\)$", out, re.MULTILINE)
    side, of_side, batch, of_batch = map(float, answer.groups())
    assert side % 32 == 0
    assert max(of_side, of_batch) <= 4
    assert f"at {side:.0f} px, batch 1: predicted {of_side} MiB, measured {of_side} MiB: fits" in out
    assert f"at 32 px, batch {batch:.0f}: predicted {of_batch} MiB, measured {of_batch} MiB: fits" in out


@pytest.mark.slow
def test_a_budget_is_answered_for_models_that_refuse_sizes(call, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    models = ["--model", "timm:vit_tiny_patch16_224", "timm:resnet18"]
    sizes = ["--resolutions", "224", "256", "--modes", "inference"]
    code, out, _ = call(capsys, "memory", "--budget", "1GiB", *models, *sizes)
    assert code == 0
    vit, resnet = (re.split(r" {2,}", line) for line in out.splitlines() if re.match(r"timm:\S+  ", line))
    assert [answer == "-" for answer in vit[1:]] == [True, False, True]
    assert all(re.fullmatch(r"\d+ \([\d.]+ MiB\)", answer) for answer in resnet[1:])
    assert "timm:vit_tiny_patch16_224 refuses a size on the way" in out


@pytest.mark.slow
def test_what_is_not_verified_is_no_success(call, capsys, monkeypatch):
    monkeypatch.setattr("ablations.measure.budget.available_memory", lambda device: 2**20)
    asked = ["memory", "--budget", "4MiB", "--variants", "pico", "--arms", "v1", "--modes", "training"]
    code, out, _ = call(capsys, *asked, "--resolutions", "32", "--verify")
    assert code == 1
    assert "not verified: not run: predicted to need" in out


@pytest.mark.slow
def test_models_are_timed_beside_libraries(call, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    sizes = ["--resolutions", "32", "--batch-size", "1", "--repeats", "6", "--modes", "inference"]
    code, out, _ = call(
        capsys, "speed", "--versus", "timm", "transformers", "--variants", "pico", *sizes, "--results", str(tmp_path)
    )
    assert code == 0
    assert call(capsys, "report", "--all", "--no-figures", "--results", str(tmp_path))[0] == 0
    shares = (tmp_path / "tables" / "speed_operators.md").read_text()
    beside = [line for line in out.splitlines() if re.match(r"pico \S+, .*  ", line)]
    shares = [line for line in shares.splitlines() if line.startswith("| pico")]
    models = ["pico v1+ope+cffn, 32 px, batch 1", "pico v1+ope+cffn+lsra, 32 px, batch 1"]
    assert [re.split(r" {2,}", row)[0] for row in beside] == models
    assert all(len(re.findall(r"\d \([\d.]+ to [\d.]+\)", row)) == 4 for row in beside)
    assert [[cell.strip() for cell in row.split("|")[1:3]] for row in shares] == [
        [model, implementation] for model in models for implementation in ("ours", "timm", "transformers")
    ]
    code, out, err = call(capsys, "cost", "--variants", "pico", "--resolutions", "32", "--results", str(tmp_path))
    assert (code, "\nParameters and MACs\n" in out, "error" in err) == (0, True, False)
