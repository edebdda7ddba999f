"""The command `run`: cells of a study are chosen, and a study of a reader's file runs."""

from ablations import cli


def test_published_models_choose_among_a_study_s_cells():
    cells = cli.parse(["run", "paper", "--arms", "PVTv2-B2", "PVTv1-Small", "--resolutions", "224"]).cells()
    assert {cell.source for cell in cells} == {"pvt:b2/v1+ope+cffn/published", "pvt:b2/v1/published"}


def test_a_study_file_of_ones_own_runs(call, capsys, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[[grid]]\nmeasurement = "cost"\nvariants = ["pico"]\nresolution = 32\narms = ["v1", "v1+lsra"]\n')
    code, out, _ = call(capsys, "run", str(path), "--results", str(tmp_path / "out"))
    assert (code, "2 cells measured" in out) == (0, True)
    path.write_text('[[grid]]\nmeasurement = "cost"\nvariant = ["pico"]\n')
    code, out, err = call(capsys, "run", str(path), "--results", str(tmp_path / "out"))
    assert (code, out) == (2, "")
    assert err.startswith("error: mine.toml, grid 1: key='variant' is not possible; allowed: measurement, variants")
