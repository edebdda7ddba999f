"""What a record says of its machine, and what it must not say."""

import getpass
import json
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from ablations.errors import InputError
from ablations.measure import environment
from ablations.measure.environment import check_device, default_device, describe_environment, find_commit


def test_environment_is_plain_and_names_the_versions() -> None:
    described = describe_environment("cpu")
    assert json.loads(json.dumps(described)) == described
    assert described["device"] == "cpu"
    assert described["torch"] == torch.__version__
    assert described["threads"] == torch.get_num_threads()
    assert described["cores"] >= 1
    assert described["cuda"] is None
    for key in ("device_name", "python", "platform", "torchvision", "timm"):
        assert described[key]


def test_environment_names_no_host_user_or_path() -> None:
    text = json.dumps(describe_environment("cpu")).lower()
    assert platform.node().lower() not in text
    assert f'"{getpass.getuser().lower()}"' not in text
    assert str(Path.cwd()).lower() not in text


def test_cuda_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert default_device() == "cpu"
    assert check_device(default_device()) == torch.device("cpu")
    with pytest.raises(InputError, match="device='cuda' is not possible; allowed: cpu"):
        check_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert default_device() == "cuda"
    assert check_device(torch.device("cuda")) == torch.device("cuda")


def test_unknown_device_is_refused() -> None:
    with pytest.raises(InputError, match=r"device='gpu' .* cpu, cuda"):
        check_device("gpu")


def test_processor_has_a_name_without_linux_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_to_read(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(environment.Path, "read_text", refuse_to_read)
    assert environment.cpu_name() in (platform.processor(), platform.machine())


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_commit_is_dirty_only_by_the_folders_own_files(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        names = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        command = ["git", "-C", str(tmp_path), *names, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    package = tmp_path / "package"
    package.mkdir()
    assert find_commit(package) is None  # no checkout
    git("init", "-q")
    (tmp_path / "page.md").write_text("one")
    git("add", ".")
    git("commit", "-qm", "one")
    (package / "code.py").write_text("one")
    assert find_commit(package) is None  # inside a checkout, but not part of it
    git("add", ".")
    git("commit", "-qm", "two")
    commit = git("rev-parse", "HEAD")
    assert len(commit) == 40
    (tmp_path / "page.md").write_text("two")
    assert find_commit(package) == commit
    (package / "untracked.py").write_text("")
    assert find_commit(package) == f"{commit}-dirty"
    (package / "untracked.py").unlink()
    (package / "code.py").write_text("two")
    assert find_commit(package) == f"{commit}-dirty"
    git("add", ".")
    assert find_commit(package) == f"{commit}-dirty"
