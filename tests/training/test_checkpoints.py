"""Checkpoints: whole or not at all, read without running anything, resumed only by what wrote them."""

import os
import pickle
import signal
from pathlib import Path

import pytest
import torch

from ablations.errors import InputError
from ablations.training import resume
from ablations.training.resume import load_checkpoint, save_checkpoint, state_digest

MADE_BY = {"commit": "abc", "torch": "2.8", "device_name": "a CPU"}
STATE = {
    "model": {"weight": torch.arange(6.0).reshape(2, 3)},
    "step": 7,
    "history": [{"epoch": 1, "loss": 0.5}],
    "rates": [0.1, 0.2],
    "generators": [{"cpu": torch.get_rng_state()}],
    "made_by": MADE_BY,
}


def test_a_state_comes_back_as_it_was(tmp_path):
    path = tmp_path / "folder" / "one.pt"
    assert load_checkpoint(path, MADE_BY) is None
    save_checkpoint(path, STATE)
    back = load_checkpoint(path, MADE_BY)
    assert torch.equal(back["model"]["weight"], STATE["model"]["weight"])
    assert torch.equal(back["generators"][0]["cpu"], STATE["generators"][0]["cpu"])
    for name in ("step", "history", "rates", "made_by"):
        assert back[name] == STATE[name]
    assert list(path.parent.iterdir()) == [path], "nothing is left beside it"


def test_a_fault_amid_writing_leaves_the_last_good_one(tmp_path, monkeypatch):
    path = tmp_path / "one.pt"
    save_checkpoint(path, STATE)

    def break_off(state, file):
        file.write(b"half of a file")
        raise RuntimeError("no more")

    monkeypatch.setattr(resume.torch, "save", break_off)
    with pytest.raises(InputError, match=r"checkpoint='.*one.pt' is not possible; allowed: .* \(.*no more\)"):
        save_checkpoint(path, STATE | {"step": 8})
    assert load_checkpoint(path, MADE_BY)["step"] == 7
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_kill_amid_writing_leaves_the_last_good_one(tmp_path, monkeypatch):
    path = tmp_path / "one.pt"
    save_checkpoint(path, STATE)

    def die(state, file):
        file.write(b"half of a file")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(resume.torch, "save", die)
    child = os.fork()
    if child == 0:
        try:
            save_checkpoint(path, {"step": 8})
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2, "the half file lies beside it"
    assert load_checkpoint(path, MADE_BY)["step"] == 7


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match=r"checkpoint=.* is not possible; allowed: a file that can be written"):
        save_checkpoint(tmp_path / "one.pt", STATE)


def test_a_file_in_the_folder_s_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"checkpoint=.* is not possible; allowed: a file that can be written"):
        save_checkpoint(tmp_path / "file" / "one.pt", STATE)


def damage(content: bytes, how: str) -> bytes:
    if how == "empty":
        return b""
    if how == "truncated":
        return content[: len(content) // 2]
    if how == "text":
        return b"not a checkpoint"
    changed = bytearray(content)  # "zeros": what a machine without power may leave
    changed[64:-64] = bytes(len(content) - 128)
    return bytes(changed)


@pytest.mark.parametrize("how", ["empty", "truncated", "text", "zeros"])
def test_a_damaged_file_is_not_gone_on_from_and_named_in_one_line(tmp_path, capsys, how):
    path = tmp_path / "one.pt"
    save_checkpoint(path, STATE)
    path.write_bytes(damage(path.read_bytes(), how))
    assert load_checkpoint(path, MADE_BY) is None
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"warning: {path} is damaged (")
    assert complaint.endswith("; that training starts over\n")
    assert complaint.count("\n") == 1


@pytest.mark.parametrize("name", MADE_BY)
def test_what_another_wrote_is_not_gone_on_from_and_both_are_named(tmp_path, capsys, name):
    path = tmp_path / "one.pt"
    save_checkpoint(path, STATE)
    assert load_checkpoint(path, MADE_BY | {name: "new"}) is None
    complaint = capsys.readouterr().err
    assert f"written with another {name} ({MADE_BY[name]}; now new); that training starts over\n" in complaint
    assert complaint.count("\n") == 1


def test_a_file_that_does_not_say_who_wrote_it_is_damaged(tmp_path, capsys):
    path = tmp_path / "one.pt"
    save_checkpoint(path, {"step": 7})
    assert load_checkpoint(path, MADE_BY) is None
    assert "is damaged (KeyError" in capsys.readouterr().err


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["torch", "pickle"])
def test_code_in_a_file_is_not_run(tmp_path, capsys, kind):
    path, sprung = tmp_path / "one.pt", tmp_path / "sprung"
    state = STATE | {"history": Trap(sprung)}
    if kind == "torch":
        torch.save(state, path)
        torch.load(path, weights_only=False)
        assert sprung.exists(), "the trap works"
        sprung.unlink()
    else:
        path.write_bytes(pickle.dumps(state))
    assert load_checkpoint(path, MADE_BY) is None
    assert not sprung.exists()
    complaint = capsys.readouterr().err
    assert "is damaged (" in complaint
    assert complaint.count("\n") == 1


def test_a_state_of_a_model_of_other_shapes_is_not_gone_on_from(tmp_path, capsys):
    path = tmp_path / "one.pt"
    save_checkpoint(path, STATE | {"model": {"weight": torch.zeros(2, 3)}})
    assert load_checkpoint(path, MADE_BY, {"weight": torch.Size([2, 3])}) is not None
    for shapes in ({"weight": torch.Size([3, 2])}, {"weight": torch.Size([2, 3]), "bias": torch.Size([2])}):
        assert load_checkpoint(path, MADE_BY, shapes) is None
        assert "is of another model; that training starts over" in capsys.readouterr().err


def test_what_a_user_can_set_as_it_was_is_asked_for(tmp_path):
    path = tmp_path / "one.pt"
    save_checkpoint(path, STATE | {"made_by": MADE_BY | {"threads": 2}})
    with pytest.raises(
        InputError, match="was written with threads=2, and this is threads=1: resume as then, or remove"
    ):
        load_checkpoint(path, MADE_BY | {"threads": 1})
    assert path.exists()


def test_one_flipped_bit_of_a_tensor_shows(tmp_path, capsys):
    path = tmp_path / "one.pt"
    save_checkpoint(path, STATE | {"model": {"weight": torch.arange(999.0)}})
    content = bytearray(path.read_bytes())
    place = content.index(torch.arange(999.0).numpy().tobytes()) + 500
    content[place] ^= 1
    path.write_bytes(content)
    changed = torch.load(path, weights_only=True)["model"]["weight"]
    assert not torch.equal(changed, torch.arange(999.0)), "torch does not see it"
    assert load_checkpoint(path, MADE_BY) is None
    assert "is damaged (ValueError: its content was changed); that training starts over" in capsys.readouterr().err


def test_a_digest_is_of_types_shapes_and_names():
    states = [
        {"a": 1}, {"a": 1.0}, {"a": True}, {"b": 1}, {"a": [1]}, {"a": [[1]]}, {"a": torch.ones(2)}, {"a": "1"},
        {"a": torch.ones(2, 1)}, {"a": torch.ones(2, dtype=torch.bfloat16)}, {"a": {}}, {"a": None},
        {"a": torch.ones(())},
    ]  # fmt: skip
    assert len({state_digest(state) for state in states}) == len(states)
    assert state_digest({"a": torch.ones(3, 2).T}) == state_digest({"a": torch.ones(2, 3)})
