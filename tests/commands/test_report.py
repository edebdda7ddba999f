"""The command `report`: a page on request, and damaged records by name."""

import pytest


@pytest.mark.slow
def test_the_report_is_a_page_too(call, capsys, tmp_path):
    asked = ["cost", "--variants", "pico", "--resolutions", "32", "--results", str(tmp_path)]
    assert call(capsys, *asked)[0] == 0
    code, out, _ = call(capsys, "report", "--html", "--results", str(tmp_path))
    assert code == 0
    assert out.splitlines()[-1] == str(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>")
    assert "What each change does" in page


def test_a_report_names_the_records_that_it_leaves_out(call, capsys, tmp_path):
    arms = ("v1", "v1+ope")
    call(capsys, "cost", "--variants", "pico", "--arms", *arms, "--resolutions", "32", "--results", str(tmp_path))
    path = next((tmp_path / "records" / "cost").iterdir())
    path.write_text("{")
    code, _, err = call(capsys, "report", "--results", str(tmp_path))
    first, *others = err.splitlines()
    assert (code, first) == (1, f"damaged, and left out: records/cost/{path.name}: not JSON")
    assert others
    assert all(line.startswith("left as it was: ") for line in others)
