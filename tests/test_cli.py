"""The command line as people meet it: refusals in one line, nearest names, exit codes, tracebacks."""

import subprocess
import sys

import pytest
import torch

from ablations.commands.list import List
from ablations.studies import list_studies


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "quik"],
            f"study='quik' is not possible; allowed: {', '.join(list_studies())} (did you mean 'quick'?)",
        ),
        (["--arms", "v1+op"], "arm='v1+op'"),
        (["cost", "--variants", "b7"], "variant='b7'"),
        (["cost", "--bases", "v3"], "base='v3'"),
        (["cost", "--resolutions", "22x"], "resolution='22x' is not possible; allowed: pixels such as 224"),
        (["cost", "--resolutions", "31"], "resolution=31 is not possible; allowed: 32 to 65536 pixels a side"),
        (["cost", "--pool-size", "0", "--arms", "v1+lsra"], "pool_size=0"),
        (["cost", "--no-such-flag"], "flag='--no-such-flag' is not possible; allowed: those that run_ablation.py cost"),
        (["cost", "b2"], "flag='b2' is not possible"),
        (["nonsense"], "command='nonsense' is not possible; allowed: run, cost, counters, memory"),
        (["cost", "--resolutions", "99999999999999999999"], "allowed: 32 to 65536 pixels"),
        (["cost", "--arms"], "arms=() is not possible; allowed: one or more values"),
        (["cost", "--resolutions"], "resolutions=() is not possible; allowed: one or more values"),
        (["cost", "--model"], "model=() is not possible; allowed: one or more values"),
        (["memory", "--modes"], "modes=() is not possible; allowed: one or more values"),
        (["memory", "--budget", "24XB"], "budget='24XB' is not possible; allowed: a number and a unit"),
        (["memory", "--budget", "1MiB", "--arms", "v1"], "budget='1048576B' is not possible; allowed: "),
        (["memory", "--budget", "1GiB", "--dry-run"], "dry_run=True is not possible; allowed: no such flag beside"),
        (["memory", "--verify"], "verify=True is not possible; allowed: False without --budget"),
        (["memory", "--checkpointing", "5", "--modes", "inference"], "checkpointing='5' is not possible"),
        (["speed", "--versus", "keras"], "versus='keras' is not possible; allowed: timm, transformers"),
        (["speed", "--versus", "timm", "--arms", "v1"], "arm='v1' is not possible; allowed: v1+ope+cffn, "),
        (["report", "--check", "--html"], "html=True is not possible; allowed: none with --check"),
        (["evaluate", "--checkpoint", "nowhere.pth"], "checkpoint='nowhere.pth' is not possible; allowed: a file"),
        (["cost", "--model", "timm:resnet81"], "model='resnet81' is not possible; allowed: one of"),
        (["cost", "--model", "timm:resnet18?nonsense=3"], "model='timm:resnet18' cannot be built with {'nonsense': 3}"),
        (["cost", "--model", "resnet18"], "model='resnet18' is not possible; allowed: timm:NAME, transformers:NAME"),
        (["speed", "--model", "timm:resnet18"], "flag='--model' is not possible"),
        (["cost", "--model", "pvt:b2/v1"], "model='pvt:b2/v1' is not possible; allowed: pvt:VARIANT/ARM/BASE"),
        (["cost", "--model", "mine.py"], "model='mine.py' is not possible; allowed: a file and its function"),
        (
            ["cost", "--model", "mine.py:build"],
            "model='mine.py:build' is not possible; allowed: a Python file that exi",
        ),
        (["cost", "--model", "timm:resnet18", "--resolutions", "0"], "resolution=0 is not possible; allowed: 1 to"),
        (["cost", "--model", "baselines:cpvt_s", "--heads", "fcos"], "allowed: timm:NAME, FILE.py:FUNCTION or an arm"),
        (["cost", "--heads", "yolo"], "'yolo'"),
        (["closed-form", "--resolutions", "31"], "resolution=31 is not possible; allowed: 32 to 65536 pixels a side"),
        (["closed-form", "--resolutions"], "resolutions=() is not possible; allowed: one or more values"),
        (["benchmark-count", "--repeats", "5"], "repeats=5 is not possible; allowed: 6 or more"),
        (["speed", "--repeats", "5"], "repeats=5 is not possible; allowed: 6 or more"),
        (["benchmark-count", "--variant", "b9"], "variant='b9'"),
        (["benchmark-count", "--resolution", "31"], "resolution=31 is not possible; allowed: 32 to 65536 pixels"),
        (["report", "--dry-run"], "--dry-run"),
        (["accuracy", "--weight-decay", "nan"], "weight_decay=nan"),
        (["accuracy", "--train-images", "55"], "train_images=55 is not possible; allowed: 0 for all, or a multiple"),
        (["accuracy", "--epochs", "many"], "epochs='many' is not possible; allowed: a whole number"),
        (["accuracy", "--base-lr", "x"], "base_lr='x' is not possible; allowed: a number"),
        (["accuracy", "--epochs"], "argument --epochs: expected one argument"),
        (["accuracy", "--data", "no/such/folder"], "data='no/such/folder' is not possible; allowed: an image folder"),
        (["accuracy", "--data", "a/b", "--data-dir", "c"], "data='a/b' is not possible; allowed: the name of a folder"),
        (["memory", "--modes", "train"], "'train'"),
        (["speed", "--repeats", "many"], "many"),
        (["accuracy", "--epochs", "0"], "epochs=0"),
        (["accuracy", "--data", "nowhere"], "nowhere"),
        (["accuracy", "--recipe", "papper"], "papper"),
        (["accuracy", "--recipe", "paper", "--data", "digits", "--batch-size", "33"], "batch_size=33 is not possible"),
        (["accuracy", "--jobs", "0"], "jobs=0 is not possible; allowed: 1 to "),
        (["accuracy", "--jobs", "1000"], "jobs=1000 is not possible; allowed: 1 to "),
        (
            ["accuracy", "--model", "timm:vit_tiny_patch16_224"],
            "resolution=32 is not possible; allowed: a size that timm:vit_tiny_patch16_224 takes",
        ),
        (["accuracy", "--loading", "streaming", "--rand-augment", "rand"], "loading='streaming' is not possible"),
        (["run", "--time-budget", "soon"], "time_budget='soon' is not possible; allowed: a number with s, min or h"),
        (["report", "--results", "no/such/folder"], "results='no/such/folder'"),
        (["power"], "--difference"),
        (["power", "--difference", "0"], "difference=0.0 is not possible; allowed: more than 0 and less than 100"),
        (["power", "--difference", "1", "--power", "1"], "power=1.0 is not possible; allowed: more than 0 and less"),
        (["power", "--difference", "1", "--results", "no/such"], "results='no/such'"),
        (
            ["cost", "--set", "stage_norm=some", "--arms", "v1"],
            "stage_norm='some' is not possible; allowed: last, every",
        ),
        (["cost", "--set", "norm=every", "--arms", "v1"], "set='norm' is not possible; allowed: position_embedding"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_exit_code_2_and_nothing_written(call, capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *arguments)
    assert code == 2
    # What is trained by is printed before it is looked whether the data are there.
    assert out == "" or arguments[0] == "accuracy"
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["acuracy"], "accuracy"),
        (["quick"], "run quick"),
        (["cost", "--arm", "v1"], "--arms"),
        (["accuracy", "--lr", "0.1"], "--base-lr"),
        (["accuracy", "--seed", "0"], "--seeds"),
        (["accuracy", "--data_dir", "data"], "--data-dir"),
        (["memory", "--resolution=64"], "--resolutions"),
        (["speed", "--batchsize", "2"], "--batch-size"),
        (["cost", "--arms", "v1+op"], "v1+ope"),
        (["cost", "--arms", "PVTv2-B2-Lin"], "PVTv2-B2-Li"),
        (["cost", "--variants", "nanno"], "nano"),
        (["cost", "--bases", "publshed"], "published"),
        (["cost", "--model", "PVTv2-B22"], "PVTv2-B2"),
        (["run", "quik"], "quick"),
        (["run", "quick", "--arms", "v1+op"], "v1+ope"),
        (["run", "quick", "--measurements", "sped"], "speed"),
        (["accuracy", "--data", "Fashion-MNIT"], "fashion-mnist"),
        (["accuracy", "--recipe", "papr"], "paper"),
        (["memory", "--modes", "train"], "training"),
        (["evaluate", "--checkpoint", "w.pth", "--arm", "v1+op"], "v1+ope"),
    ],
    ids=str,
)
def test_what_is_mistyped_gets_the_nearest_name(call, capsys, tmp_path, monkeypatch, arguments, nearest):
    monkeypatch.chdir(tmp_path)
    torch.save({}, tmp_path / "w.pth")
    code, out, err = call(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.endswith(f" (did you mean {nearest!r}?)\n")


def test_a_fault_of_ours_shows_its_traceback_on_request(call, capsys, monkeypatch):
    def broken(*_):
        raise RuntimeError("ours")

    monkeypatch.setattr(List, "run", broken)
    code, _, err = call(capsys, "list")
    assert code == 1
    assert "RuntimeError('ours')" in err
    assert "Traceback" not in err
    assert "Traceback" in call(capsys, "list", "--debug")[2]


def test_a_package_that_is_not_installed_is_named(call, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.delitem(sys.modules, "ablations.analysis.comparison", raising=False)
    code, _, err = call(capsys, "compare", "--results", "results")
    assert code == 2
    assert "error: 'pandas' is not installed here: `make install`" in err


def test_the_script_runs_from_a_shell():
    done = subprocess.run([sys.executable, "run_ablation.py", "list"], capture_output=True, text=True, check=True)
    assert "v1+ope+cffn+lsra" in done.stdout
