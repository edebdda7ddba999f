"""Workers as jobs of a real Slurm of one node: submit, requeue, cancel, a drained node, a controller that restarts."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from ablations.cli import main
from ablations.records.folder import find_record, read_records
from ablations.studies import find_study

START = Path(__file__).with_name("start.sh")
COMMANDS = ("slurmctld", "slurmd", "munged", "sbatch")
PACKAGES = ("slurm-wlm", "munge")
TIMES = ("seconds", "wait_s", "train_s", "train_img_per_s", "wait_fraction")

STUDY = """
question = "Do workers give what one process gives?"
[[grid]]
measurement = "accuracy"
variants = ["pico"]
arms = ARMS
recipe = "smoke"
epochs = EPOCHS
train_images = 100
batch_size = 50
warmup_epochs = 0.0
seed = SEEDS
"""


def missing():
    """Returns why there can be no Slurm here; empty where there can."""
    path = os.environ["PATH"] + ":/usr/sbin"
    lacking = [name for name in COMMANDS if not shutil.which(name, path=path)]
    if lacking:
        return f"no {', '.join(lacking)}, which Debian's packages {' and '.join(PACKAGES)} have"
    if os.geteuid() != 0:
        return "the daemons of Slurm need to be root"
    return "" if find_spec("submitit") else "no submitit, which the extra `slurm` installs"


def could_be_there():
    """Whether what is missing could be installed: as root, where apt knows the packages."""
    if os.geteuid() != 0 or not shutil.which("apt-cache"):
        return False
    return not subprocess.run(["apt-cache", "show", *PACKAGES], capture_output=True, check=False).returncode


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """The folder of a Slurm that runs; SLURM_CONF names its configuration."""
    if lacking := missing():
        if could_be_there():
            pytest.fail(f"{lacking}; it could be there: make test-slow installs it")
        pytest.skip(lacking)
    folder = tmp_path_factory.mktemp("slurm")
    process = subprocess.Popen([START, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PATH", os.environ["PATH"] + ":/usr/sbin")
        patch.setenv("OMP_NUM_THREADS", "1")
        try:
            assert process.stdout.readline() == "ready\n"
            yield folder
        finally:
            subprocess.run(["scancel", "--me", "--signal=KILL", "--full"], check=False)
            process.communicate()


@pytest.fixture
def study(tmp_path):
    """`study(epochs)` writes a study of four trainings, or of so many arms and seeds, and returns its path."""

    def write(epochs, arms=2, seeds=2):
        text = STUDY.replace("EPOCHS", str(epochs)).replace("SEEDS", str(list(range(seeds))))
        path = tmp_path / "small.toml"
        path.write_text(text.replace("ARMS", str(["v1", "v1+ope"][:arms])))
        return path

    return write


def submit(study, results, workers=1):
    """Submits workers and returns their jobs."""
    command = [sys.executable, "run_ablation.py", "run", study, "--devices", "cpu", "--results", results]
    command += [
        "--launcher",
        "slurm",
        "--workers",
        str(workers),
        "--partition",
        "main",
        "--time",
        "30min",
    ]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    jobs = re.findall(r"submitted job (\d+)", told)
    assert len(jobs) == workers
    return jobs


def show(job):
    """Returns the fields of a job as Slurm shows them."""
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=False).stdout
    return dict(field.partition("=")[::2] for field in shown.split())


def wait_for(what, seconds=400):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.2)


def has_ended(job):
    return show(job).get("JobState") in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")


def results_of(study, results):
    """Returns what came of each cell, but for times."""
    found = {}
    for cell in find_study(str(study)).cells():
        record = find_record(results, cell)
        result = {name: value for name, value in record["result"].items() if name not in TIMES}
        result["history"] = [
            {name: value for name, value in epoch.items() if name not in TIMES} for epoch in result["history"]
        ]
        found[record["key"]] = (record["conditions"], record["config"], record["environment"]["threads"], result)
    return found


def begun_trainings(results):
    """Whether a training has logged an epoch."""
    return any(path.stat().st_size for path in results.glob("logs/*.jsonl"))


def test_workers_over_a_restart_of_the_controller_give_what_one_process_gives(slurm, study, tmp_path):
    path, results = study(2), tmp_path / "slurm"
    jobs = submit(path, results, workers=2)
    controller = int((slurm / "slurmctld.pid").read_text())
    os.kill(controller, signal.SIGTERM)
    wait_for(lambda: not Path(f"/proc/{controller}").exists())
    subprocess.run(["slurmctld"], check=True)
    wait_for(lambda: all(map(has_ended, jobs)))
    assert [show(job)["JobState"] for job in jobs] == ["COMPLETED"] * 2
    assert read_records(results).damaged == {}
    alone = tmp_path / "alone"
    assert main(["run", str(path), "--devices", "cpu", "--results", str(alone), "--jobs", "1"]) == 0
    assert results_of(path, results) == results_of(path, alone)


def test_a_worker_whose_time_is_over_leaves_a_checkpoint_and_comes_again(slurm, study, tmp_path, capsys):
    path, results = study(200, arms=1, seeds=1), tmp_path / "slurm"
    (job,) = submit(path, results)
    wait_for(lambda: begun_trainings(results))
    assert main(["status", str(path), "--results", str(results)]) == 0
    told = capsys.readouterr().out
    assert "1 cell: 0 done, 1 running, 0 queued, 0 failed" in told
    assert re.search(rf"running  accuracy pico v1 .*: on \S+, job {job}, since 20\S+\n +{{.*epoch", told)
    assert f"job {job}: running on " in told
    subprocess.run(["scancel", "--signal=USR1", job], check=True)  # as Slurm does before the time is over
    wait_for(lambda: show(job)["Restarts"] == "1")
    assert list(results.glob("checkpoints/*.pt"))
    wait_for(lambda: has_ended(job))
    assert show(job)["JobState"] == "COMPLETED"
    alone = tmp_path / "alone"
    assert main(["run", str(path), "--devices", "cpu", "--results", str(alone), "--jobs", "1"]) == 0
    assert results_of(path, results) == results_of(path, alone)


def test_cancel_stops_a_worker_which_leaves_a_checkpoint(slurm, study, tmp_path, capsys):
    path, results = study(4000), tmp_path / "slurm"
    (job,) = submit(path, results)
    wait_for(lambda: begun_trainings(results))
    assert main(["cancel", "--results", str(results)]) == 0
    assert capsys.readouterr().out == f"stopped job {job}\n"
    wait_for(lambda: list(results.glob("checkpoints/*.pt")), seconds=60)
    wait_for(lambda: has_ended(job))
    assert show(job)["Restarts"] == "0"
    assert not list(results.glob("records/*/*.json"))
    assert main(["cancel", "--results", str(results)]) == 0
    assert capsys.readouterr().out == "no worker runs\n"


def test_a_drained_node_keeps_workers_waiting(slurm, study, tmp_path, capsys):
    path, results = study(1), tmp_path / "slurm"
    node = subprocess.run(["hostname", "-s"], capture_output=True, text=True, check=True).stdout.strip()
    update = ["scontrol", "update", f"NodeName={node}"]
    subprocess.run([*update, "State=DRAIN", "Reason=test"], check=True)
    (job,) = submit(path, results)
    assert main(["status", str(path), "--results", str(results)]) == 0
    told = capsys.readouterr().out
    assert "4 cells: 0 done, 0 running, 4 queued, 0 failed" in told
    assert f"job {job}: pending" in told
    subprocess.run([*update, "State=RESUME"], check=True)
    wait_for(lambda: has_ended(job))
    assert show(job)["JobState"] == "COMPLETED"
    assert len(results_of(path, results)) == 4
