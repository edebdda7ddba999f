"""Images of what detectors and segmentation networks found, for a user's own page: they hold a data set's images."""

from base64 import b64encode
from html import escape
from pathlib import Path
from typing import Any

from ablations.cells import file_name
from ablations.records.rows import conditions_of

EXAMPLES = "examples"
"""The folder of these images in a results folder; nothing in it is committed."""

MOST_SHOWN = 8
"""In a page: a megabyte each, about."""

CAPTION = (
    "The first validation images: the ground truth on the left, what the network found on the right. Boxes are drawn "
    "from a score of 0.3 on."
)


def find_examples(results: Path, records: list[dict[str, Any]]) -> dict[str, bytes]:
    """Returns the images of finished records as PNG, by a title: of each model's smallest seed, MOST_SHOWN at most."""
    found: dict[str, bytes] = {}
    for record in sorted(records, key=lambda record: conditions_of(record).get("seed", 0)):
        path = results / EXAMPLES / f"{file_name(record, record['key'])}.png"
        if record["status"] != "done" or len(found) == MOST_SHOWN or not path.is_file():
            continue
        conditions = conditions_of(record)
        model = record.get("model") or f"{record['variant']} {record['arm']}, base {record['base']}"
        start = f", from {conditions['init']}" if conditions.get("init") else ""
        title = f"{record['measurement']} on {conditions['data']}, {conditions['head']}: {model}{start}"
        found.setdefault(title, path.read_bytes())
    return found


def render_examples(examples: dict[str, bytes]) -> str:
    """Returns the images as HTML, each in the page itself."""
    images = [
        f'<h3>{escape(title)}</h3>\n<figure>\n<img alt="{escape(title)}" style="max-width: 100%" '
        f'src="data:image/png;base64,{b64encode(content).decode()}">\n'
        f"<figcaption>{escape(CAPTION)}</figcaption>\n</figure>\n"
        for title, content in examples.items()
    ]
    return "".join(images)
