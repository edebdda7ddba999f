"""Images of what was found: the page shows them beside the truth, and none is committed."""

from pathlib import Path

from PIL import Image

from ablations.cells import arm_cell
from ablations.measure import Detection
from ablations.report.examples import find_examples, render_examples


def test_the_page_shows_what_was_found_beside_the_truth(write_dense, tmp_path):
    from ablations.records.folder import read_records

    cell = arm_cell("nano", "v1", "v2", Detection())
    write_dense(tmp_path, cell, 0.3)
    assert find_examples(tmp_path, read_records(tmp_path).records) == {}
    (tmp_path / "examples").mkdir()
    Image.new("RGB", (20, 10)).save(tmp_path / "examples" / f"{cell.file_name}.png")
    found = find_examples(tmp_path, read_records(tmp_path).records)
    assert list(found) == ["detection on bccd, retinanet: nano v1, base v2"]
    assert 'src="data:image/png;base64,' in render_examples(found)


def test_no_image_of_a_data_set_is_committed():
    root = Path(__file__).parents[2]
    assert "/results/examples/" in (root / ".gitignore").read_text().splitlines()
    assert not list((root / "results" / "examples").glob("*"))
