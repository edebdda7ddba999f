"""The command `records`."""

import pytest


@pytest.mark.slow
def test_records_are_packed_unpacked_merged_and_moved_aside(call, capsys, tmp_path):
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    asked = ["cost", "--variants", "pico", "--resolutions", "32"]
    assert call(capsys, *asked, "--arms", "v1", "--results", here)[0] == 0
    assert call(capsys, *asked, "--arms", "v1+ope", "v1+cffn", "--results", there)[0] == 0
    assert call(capsys, "records", "pack", "--results", there)[:2] == (0, "cost             2 records\n")
    assert call(capsys, "records", "merge", there, "--results", here)[:2] == (0, f"2 records copied to {here}\n")
    assert call(capsys, *asked, "--arms", "v1", "v1+ope", "v1+cffn", "--results", here, "--dry-run")[1].endswith(
        "3 done\n"
    )
    code, out, _ = call(capsys, "records", "drop", "--where", "arm=v1+ope", "measurement=cost", "--results", here)
    assert (code, "moved to" in out) == (0, True)
    assert call(capsys, "records", "drop", "--where", "arm=v1+ope", "--results", here)[1] == "no such record\n"
    for arguments, message in (
        (["pack", there], "folders=("),
        (["merge"], "folders=() is not possible; allowed: one or more"),
        (["drop"], "where=() is not possible; allowed: one or more"),
        (["drop", "--where", "colour=red", "--results", here], "where='colour' is not possible"),
        (["pack", "--results", str(tmp_path / "none")], "results="),
    ):
        code, out, err = call(capsys, "records", *arguments)
        assert (code, out) == (2, "")
        assert message in err
