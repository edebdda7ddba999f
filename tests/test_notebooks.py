"""Every notebook runs from top to bottom on the committed records, and shows what its committed outputs show.

With ABLATIONS_UPDATE_NOTEBOOKS=1, as by `make notebooks`, the outputs are written anew instead of compared. Cells that
begin with MEASURED show what another processor gives otherwise: of these the kinds of outputs are compared.
"""

import base64
import io
import os
import re
import tempfile
from itertools import zip_longest
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image
from PIL.PngImagePlugin import PngInfo

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BUILDING_MODELS = {"05_your_own_ablation.ipynb"}
"""Those that may import torch."""

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
LARGEST_FILE = 400_000  # bytes

MEASURED = "# Measured: another processor gives other last digits.\n"

SHADE = 16  # of 255: other processors may round a colour at an edge otherwise
SMALLEST_FIGURE = 100  # pixels a side


def execute(path: Path) -> NotebookNode:
    """Returns a notebook with the outputs that it has now; an error in a cell is an error here."""
    notebook = nbformat.read(path, as_version=4)
    if path.name not in BUILDING_MODELS:
        notebook.cells.append(nbformat.v4.new_code_cell("import sys\nassert 'torch' not in sys.modules"))
    client = NotebookClient(
        notebook,
        timeout=300,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    if path.name not in BUILDING_MODELS:
        notebook.cells.pop()
    notebook.metadata = METADATA  # the kernel writes its version there
    return notebook


Outcome = tuple[Path, NotebookNode, NotebookNode]
"""A notebook's path, what is committed, and what it gives now."""


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.name)
def outcome(request: pytest.FixtureRequest) -> Outcome:
    path = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # an installed package would do as well
        patch.delenv("MPLBACKEND", raising=False)  # else figures would not be shown
        patch.setenv("OMP_NUM_THREADS", "1")
        current = execute(path)
    if os.environ.get("ABLATIONS_UPDATE_NOTEBOOKS") == "1":
        nbformat.write(current, path)
    return path, nbformat.read(path, as_version=4), current


def shown(notebook: NotebookNode) -> list[list[dict[str, Any]]]:
    """Returns what each cell shows: a list of outputs, each of its texts and images by type."""
    cells = []
    for cell in notebook.cells:
        outputs = []
        for output in cell.get("outputs", ()):
            outputs.append({"name": output["name"], "text": output["text"]} if "text" in output else output["data"])
        cells.append(outputs)
    return cells


def open_image(data: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    image.load()
    return image


def is_same_image(old: str, new: str) -> bool:
    """Whether two PNGs show the same, as far as the library that drew them, which each of them names, is the same."""
    before, now = open_image(old), open_image(new)
    if before.info.get("Software") != now.info.get("Software"):
        return True  # another version draws other pixels
    if before.size != now.size:
        return False
    difference = np.asarray(before.convert("RGB"), dtype=int) - np.asarray(now.convert("RGB"), dtype=int)
    return bool(np.abs(difference).max() <= SHADE)


def is_same(kind: str, old: str, new: str) -> bool:
    """Whether two outputs of one kind show the same."""
    return is_same_image(old, new) if kind == "image/png" else old == new


def find_stale(old: NotebookNode, new: NotebookNode) -> list[str]:
    """Returns which cells show something else now, and where."""
    stale = []
    is_measured = [cell.source.startswith(MEASURED) for cell in new.cells]
    cells = zip_longest(shown(old), shown(new), is_measured, fillvalue=[])
    for place, (before, now, measured) in enumerate(cells):
        for was, is_now in zip_longest(before, now, fillvalue={}):
            same = was.keys() == is_now.keys() and (
                measured or all(is_same(kind, was[kind], is_now[kind]) for kind in was)
            )
            if not same:
                stale.append(f"cell {place}: {sorted({*was, *is_now})}")
    return stale


def test_there_are_notebooks():
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05"]
    assert {path.name for path in NOTEBOOKS} >= BUILDING_MODELS


@pytest.mark.slow
def test_a_notebook_runs_without_warnings(outcome):
    _, _, current = outcome
    outputs = [output for cell in current.cells for output in cell.get("outputs", ())]
    assert [output["text"] for output in outputs if output.get("name") == "stderr"] == []


@pytest.mark.slow
def test_committed_outputs_are_current(outcome):
    path, committed, current = outcome
    stale = find_stale(committed, current)
    rewrite = "make notebooks"
    assert not stale, f"{path.name} shows something else now; {rewrite} writes it anew: {stale}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_every_figure_shows_something(path):
    committed = nbformat.read(path, as_version=4)
    images = [output["image/png"] for outputs in shown(committed) for output in outputs if "image/png" in output]
    assert images
    for image in map(open_image, images):
        assert min(image.size) > SMALLEST_FIGURE
        assert len(image.convert("RGB").getcolors(maxcolors=2**24)) > 2  # more than paper and ink


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_outputs_name_no_place_or_machine(path):
    committed = nbformat.read(path, as_version=4)
    for outputs in shown(committed):
        for output in outputs:
            texts = [text for kind, text in output.items() if kind != "image/png"]
            assert not any(place in text for text in texts for place in (str(ROOT), tempfile.gettempdir()))
            assert not any(re.search(r" at 0x[0-9a-f]+", text) for text in texts)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_committed_clean(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata == METADATA
    assert path.stat().st_size < LARGEST_FILE
    assert all(cell.metadata == {} for cell in notebook.cells)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


def text_notebook(text: str, number: int = 1) -> NotebookNode:
    cell = nbformat.v4.new_code_cell("", outputs=[nbformat.v4.new_output("stream", text=text)] * number)
    return nbformat.v4.new_notebook(cells=[cell])


def image_notebook(shade: int, software: str = "drawer 1", size: int = 4) -> NotebookNode:
    content, tags = io.BytesIO(), PngInfo()
    tags.add_text("Software", software)
    Image.new("RGB", (size, size), (shade, shade, shade)).save(content, "PNG", pnginfo=tags)
    data = {"image/png": base64.b64encode(content.getvalue()).decode()}
    cell = nbformat.v4.new_code_cell("", outputs=[nbformat.v4.new_output("display_data", data)])
    return nbformat.v4.new_notebook(cells=[cell])


def test_stale_text_is_found():
    assert find_stale(text_notebook("87.6"), text_notebook("87.6")) == []
    assert find_stale(text_notebook("87.6"), text_notebook("87.7")) == ["cell 0: ['name', 'text']"]
    assert find_stale(text_notebook("87.6"), text_notebook("87.6", number=2)) == ["cell 0: ['name', 'text']"]
    assert find_stale(text_notebook("87.6"), nbformat.v4.new_notebook()) == ["cell 0: ['name', 'text']"]


def test_of_measured_cells_the_kinds_of_outputs_are_compared():
    old, new = text_notebook("87.6"), text_notebook("87.7")
    for notebook in (old, new):
        notebook.cells[0].source = MEASURED
    assert find_stale(old, new) == []
    assert find_stale(old, text_notebook("87.7")) == ["cell 0: ['name', 'text']"]
    assert find_stale(text_notebook("87.6", number=2), new) == ["cell 0: ['name', 'text']"]
    assert find_stale(image_notebook(100), new) == ["cell 0: ['image/png', 'name', 'text']"]


def test_stale_images_are_found():
    old = image_notebook(100)
    assert find_stale(old, image_notebook(100 + SHADE)) == []
    assert find_stale(old, image_notebook(101 + SHADE)) == ["cell 0: ['image/png']"]
    assert find_stale(old, image_notebook(100, size=5)) == ["cell 0: ['image/png']"]
    assert find_stale(old, image_notebook(255, software="drawer 2")) == []
    assert find_stale(old, text_notebook("gone")) == ["cell 0: ['image/png', 'name', 'text']"]
