"""The report as files: the same from the same records, complete, and honest about what it left out."""

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ablations.analysis import effects
from ablations.analysis.grouping import caching
from ablations.cells import arm_cell, build_cell
from ablations.cli import main
from ablations.measure import Accuracy, Cost
from ablations.records import load_records, record_file
from ablations.report import build as build_module
from ablations.report import contents as contents_of_reports
from ablations.report.build import Built, build_report, check_report
from ablations.report.images import figure_digest

CELL = arm_cell(variant="pico", arm="v1", base="v2", conditions=Cost(resolution=64))


def write_few_records(results: Path, write_cell: Callable[..., Path]) -> None:
    """Costs of four arms at one resolution, two of them trained from two seeds."""
    for arm in ("v1", "v1+ope", "v1+cffn", "v1+ope+cffn"):
        write_cell(results, CELL.of(arm=arm))
    for arm in ("v1", "v1+ope"):
        for seed in (0, 1):
            write_cell(results, replace(CELL.of(arm=arm), conditions=Accuracy(seed=seed)))


@pytest.fixture
def results(tmp_path, write_cell) -> Path:
    write_few_records(tmp_path, write_cell)
    return tmp_path


@pytest.fixture(scope="module")
def built(tmp_path_factory, write_cell) -> Path:
    """The same records with all tables and figures, to be copied and not written into."""
    results = tmp_path_factory.mktemp("built")
    write_few_records(results, write_cell)
    build_report(results, everything=True)
    return results


@pytest.fixture
def reported(built, tmp_path) -> Path:
    """A copy of these."""
    return shutil.copytree(built, tmp_path / "results")


def contents(results: Path) -> dict[str, bytes]:
    files = (path for path in results.rglob("*") if path.is_file() and "records" not in path.parts)
    return {path.relative_to(results).as_posix(): path.read_bytes() for path in files}


def names_of(folder: str, names: Iterable[str]) -> set[str]:
    """Returns the files of tables or figures of these names."""
    kinds = {"tables": ("md", "csv", "tex"), "figures": ("png", "svg")}[folder]
    return {f"{folder}/{name}.{kind}" for name in names for kind in kinds}


HEADLINES = (
    {"README.md"}
    | names_of("tables", ("comparison", "effects_accuracy"))
    | names_of("figures", ("effects_accuracy_digits_ope",))
)
"""What the report writes unasked: nothing for what was not measured, no curve of one size."""

OF_ONE_EFFECT = names_of("figures", ("effects_accuracy_digits_ope",))
OF_ACCURACY = (
    OF_ONE_EFFECT
    | names_of("tables", ("accuracy", "cumulative_accuracy", "tradeoff", "effects_accuracy"))
    | names_of("tables", ("steps_accuracy", "orders_accuracy", "shapley_accuracy"))
    | names_of("figures", ("accuracy_digits_pico_v2", "cumulative_accuracy_digits_pico_v2"))
)
OF_COST = names_of("tables", ("cost", "operators", "effects_cost"))
OF_BOTH = {"README.md"} | names_of("tables", ("comparison",))
FILES = OF_BOTH | OF_COST | OF_ACCURACY
"""All that those records give.

The costs are a factorial of two toggles, exact and without interactions, so that they need no Shapley values; the
accuracies are one of ope alone.
"""


@pytest.mark.slow
def test_the_headlines_are_written_and_nothing_else(results):
    report = build_report(results)
    assert report.not_rebuilt == {}
    assert {path.relative_to(results).as_posix() for path in report.files} == HEADLINES
    assert set(contents(results)) == HEADLINES
    assert check_report(results) == []
    page = (results / "README.md").read_text()
    for name in HEADLINES - OF_BOTH:
        assert f"({name})" in page
    assert "8 finished records, 0 failed cells, 0 damaged files." in page
    with Image.open(results / "figures/effects_accuracy_digits_ope.png") as image:
        assert image.width == pytest.approx(3.5 * 200, abs=1)


@pytest.mark.slow
def test_everything_is_all_that_there_are_records_of(results):
    report = build_report(results, everything=True)
    assert {path.relative_to(results).as_posix() for path in report.files} == FILES
    assert set(contents(results)) == FILES
    assert check_report(results) == []


@pytest.mark.slow
def test_what_is_there_beside_the_headlines_is_kept_up_to_date(reported, write_cell):
    before = contents(reported)
    write_cell(reported, CELL.of(arm="v1+lsra"))
    build_report(reported)
    after = contents(reported)
    assert set(after) == set(before)
    assert after["tables/cost.md"] != before["tables/cost.md"]


@pytest.fixture
def saved(monkeypatch) -> list[str]:
    """The titles of the figures that were drawn into files, in one line each."""
    titles: list[str] = []
    save = build_module.save_figure

    def note(figure: Figure) -> tuple[bytes, bytes]:
        titles.append(" ".join(figure.get_suptitle().split()))
        return save(figure)

    monkeypatch.setattr(build_module, "save_figure", note)
    return titles


@pytest.mark.slow
def test_only_figures_whose_records_changed_are_drawn_into_files_again(reported, write_cell, saved):
    build_report(reported, everything=True)
    write_cell(reported, CELL.of(arm="v1+lsra"))  # no figure shows it
    build_report(reported, everything=True)
    assert saved == []
    cell = replace(CELL.of(arm="v1+cffn"), conditions=Accuracy(seed=0))
    write_cell(reported, cell, {"top1": 0.5, "n_eval_images": 360, "n_train_images": 1437, "history": []})
    build_report(reported, everything=True)
    assert saved == [
        "How accurate is each arm? digits, pico, base v2",
        "What does each toggle do to accuracy? digits, pico, base v2",  # of cffn; that of ope stays
    ]


@pytest.mark.slow
def test_only_figures_whose_definition_changed_are_drawn_into_files_again(reported, monkeypatch, saved):
    kind = "cumulative_accuracy"
    list_kind = contents_of_reports.FIGURES[kind]
    monkeypatch.setitem(
        contents_of_reports.FIGURES,
        kind,
        lambda records: [replace(spec, title="Another?") for spec in list_kind(records)],
    )
    build_report(reported, everything=True)
    assert saved == ["Another?"]


def test_a_table_and_a_figure_of_one_thing_share_their_values(results, monkeypatch):
    calls = []
    estimate = effects.estimate_effects
    monkeypatch.setattr(effects, "estimate_effects", lambda *given: calls.append(1) or estimate(*given))
    records = load_records(results)
    with caching(records):
        first, second = (effects.effect_values(records, "accuracy") for _ in range(2))
        first["mine"] = 1  # leaves what is remembered as it is
        assert "mine" not in effects.effect_values(records, "accuracy")
    assert len(calls) == 1
    pd.testing.assert_frame_equal(first.drop(columns="mine"), second)
    effects.effect_values(records, "accuracy")
    assert len(calls) == 2  # records may have changed since


@pytest.mark.slow
def test_figures_can_be_left_out(results):
    build_report(results, with_figures=False)
    assert set(contents(results)) == HEADLINES - OF_ONE_EFFECT
    assert "](figures/" not in (results / "README.md").read_text()
    build_report(results)
    (results / "figures" / "effects_accuracy_digits_ope.png").write_bytes(b"of the user")
    build_report(results, with_figures=False)
    assert (results / "figures" / "effects_accuracy_digits_ope.png").read_bytes() == b"of the user"


@pytest.mark.slow
def test_the_same_records_give_the_same_bytes(results):
    build_report(results)
    first = contents(results)
    with mpl.rc_context({"font.size": 20, "lines.linewidth": 7, "svg.fonttype": "none"}):  # a user's own taste
        build_report(results)
    assert contents(results) == first


def test_an_older_reports_files_go(reported, write_cell):
    for path in (reported / "records" / "accuracy").iterdir():
        path.unlink()
    (reported / "LOG.md").write_text("kept by hand")
    assert check_report(reported) == sorted([*OF_BOTH, *OF_ACCURACY])
    build_report(reported)
    assert set(contents(reported)) == OF_COST | OF_BOTH | {"LOG.md"}
    assert check_report(reported) == []


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {
            "README.md": append,
            "tables/cost.md": append,
            "tables/cost.csv": spoil,
            "tables/accuracy.csv": Path.unlink,
            "figures/accuracy_digits_pico_v2.png": spoil,
            "figures/accuracy_digits_pico_v2.svg": Path.unlink,
            "figures/left_over.png": lambda path: path.write_bytes(b""),
            "tables/left_over.md": lambda path: path.write_text(""),
        },
        {
            "tables/cost.tex": append,
            "figures/accuracy_digits_pico_v2.svg": spoil,
            "tables/left_over.tex": lambda path: path.write_text(""),
        },
    ],
    ids=["many", "few"],
)
def test_check_names_what_is_stale_and_nothing_else(reported, changes):
    for name, change in changes.items():
        change(reported / name)
    assert check_report(reported) == sorted(changes)


@pytest.mark.slow
def test_check_sees_that_a_record_came(reported, write_cell):
    write_cell(reported, replace(CELL, conditions=Accuracy(seed=2)))
    # The effects' tables say that a seed without v1+ope was left out; their figure shows the two that have both arms.
    assert check_report(reported) == sorted([*OF_BOTH, *OF_ACCURACY - OF_ONE_EFFECT])


@pytest.mark.slow
def test_failed_and_damaged_records_are_counted_and_named(results, write_failure):
    write_failure(results, CELL.of(arm="v1+lsra"))
    baseline = build_cell(model="timm:no_such_layer", conditions=Cost())
    write_failure(results, baseline)
    (results / "records" / "cost" / "broken.json").write_text("{")
    (results / "records" / "cost" / "notes.txt").write_text("mine")
    build_report(results, everything=True)
    page = (results / "README.md").read_text()
    assert "8 finished records, 2 failed cells, 2 damaged files." in page
    key = CELL.of(arm="v1+lsra").key
    assert f"- cost pico v1+lsra, base v2, {key}: RuntimeError: out of memory" in page
    assert f"- cost timm:no_such_layer, {baseline.key}: RuntimeError: out of memory" in page
    assert "- records/cost/broken.json: not JSON\n- records/cost/notes.txt: neither MEASUREMENT/NAME.json nor" in page
    assert "v1+lsra" not in (results / "tables" / "cost.md").read_text()


def test_the_page_says_where_numbers_come_from(results):
    build_report(results)
    page = (results / "README.md").read_text().partition("## Where the numbers come from")[2]
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert [cell.strip() for cell in rows[2].split("|")[1:-1]] == [
        *("cost", "4", "quick", "Imaginary CPU", "2.8.0", "0123abc", "2026-01-02", "0.00")
    ]


def test_no_records_make_a_page_that_says_so(tmp_path):
    assert build_report(tmp_path) == Built([tmp_path / "README.md"], {})
    assert "0 finished records" in (tmp_path / "README.md").read_text()
    assert check_report(tmp_path) == []


def test_a_digest_is_of_what_is_shown_and_not_of_rounding():
    def digest(length: float, **style: str) -> str:
        figure = Figure()
        ax = figure.add_subplot()
        ax.barh(["v1"], [length], **style)
        ax.set_xlim(0, 10)
        return figure_digest(figure)

    assert digest(5.0) == digest(5.0 + 1e-9)
    assert len({digest(5.0), digest(5.001), digest(5.0, color="red")}) == 3


def test_a_hollow_marker_is_part_of_what_a_figure_shows():
    digests = set()
    for look in ({}, {"markerfacecolor": "white"}, {"fillstyle": "none"}):
        figure = Figure()
        figure.add_subplot().plot([1], [1], "o", **look)
        digests.add(figure_digest(figure))
    assert len(digests) == 3


def test_a_band_is_part_of_what_a_figure_shows():
    digests = set()
    for width in (1, 2):
        figure = Figure()
        ax = figure.add_subplot()
        ax.fill_between([1, 2], [0, 0], [width, 1])
        ax.set_ylim(0, 3)
        digests.add(figure_digest(figure))
    assert len(digests) == 2


@pytest.fixture
def reads(results, monkeypatch) -> Counter[str]:
    """How often each record's file was opened since the last report began, by name."""
    opened: Counter[str] = Counter()
    really_open, really_build = record_file.opened_regular, build_module.build_report

    def note(path: Path, most_bytes: int) -> Any:
        opened[path.name] += 1
        return really_open(path, most_bytes)

    def build(*args: Any, **how: Any) -> Built:
        opened.clear()
        return really_build(*args, **how)

    monkeypatch.setattr(record_file, "opened_regular", note)
    monkeypatch.setattr(build_module, "build_report", build)
    return opened


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["report", "--html", "--no-figures", "--readme", "TEXT"],
        ["compare"],
        ["run", "STUDY"],
        ["cost", "--variants", "pico", "--arms", "v1", "v1+ope", "--resolutions", "64"],
    ],
)
def test_records_are_read_once(results, tmp_path, reads, monkeypatch, capsys, command):
    monkeypatch.setattr("ablations.report.figures.FigureSpec.draw", lambda spec: Figure())
    (tmp_path / "text.md").write_text("Nothing to fill in.\n")
    (tmp_path / "two.toml").write_text(
        'question = "What do two arms cost?"\ntime = "a second"\n[[grid]]\nmeasurement = "cost"\n'
        'variants = ["pico"]\narms = ["v1", "v1+ope"]\nbases = ["v2"]\nresolution = [64]\n'
    )
    places = {"TEXT": str(tmp_path / "text.md"), "STUDY": str(tmp_path / "two.toml")}
    assert main([*(places.get(word, word) for word in command), "--results", str(results)]) == 0
    assert set(reads.values()) == {1}
    assert len(reads) == len(list((results / "records").glob("*/*.json")))
    assert capsys.readouterr().out


@pytest.mark.slow
def test_reading_needs_no_torch(results):
    code = (
        "import sys; from pathlib import Path; from ablations.report.build import build_report; "
        "build_report(Path(sys.argv[1])); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(results)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["table", "figure"])
def test_what_raises_is_named_and_hinders_nothing_else(built, tmp_path, monkeypatch, part):
    results = shutil.copytree(built, tmp_path / "results")
    before = contents(results)
    (results / "tables" / "operators.md").unlink()

    def fail(*args: object, **kwargs: object) -> None:
        raise ValueError("made to fail\nsecond line")

    if part == "table":
        (table,) = (table for table in contents_of_reports.TABLES if table.name == "cost")
        broken = tuple(replace(each, values=fail) if each is table else each for each in contents_of_reports.TABLES)
        monkeypatch.setattr(contents_of_reports, "TABLES", broken)
        name = "table cost"
    else:
        monkeypatch.setattr("ablations.report.figures.FigureSpec.draw", fail)
        name = "figure accuracy_digits_pico_v2"
    report = build_report(results)
    assert report.not_rebuilt[name] == "ValueError: made to fail"
    assert contents(results) == before  # the failed one's old file stays, the others are built


def test_damaged_records_leave_what_they_gave(built, tmp_path):
    results = shutil.copytree(built, tmp_path / "results")
    before = contents(results)
    for path in (results / "records" / "accuracy").iterdir():
        spoil(path)
    report = build_report(results)
    assert "table accuracy" in report.not_rebuilt
    assert "damaged" in report.not_rebuilt["table accuracy"]
    after = contents(results)
    assert {name: after[name] for name in after if name not in OF_BOTH} == {
        name: before[name] for name in before if name not in OF_BOTH
    }


@pytest.mark.slow
def test_the_command_names_a_table_that_raises_and_leaves_its_file(built, tmp_path, monkeypatch, capsys):
    results = shutil.copytree(built, tmp_path / "results")
    before = contents(results)
    (results / "tables" / "accuracy.md").unlink()

    def fail(records: object) -> None:
        raise ValueError("made to fail")

    broken = tuple(
        replace(each, values=fail) if each.name == "effects_cost" else each for each in contents_of_reports.TABLES
    )
    monkeypatch.setattr(contents_of_reports, "TABLES", broken)
    assert main(["report", "--results", str(results)]) == 1
    assert capsys.readouterr().err == "left as it was: table effects_cost: ValueError: made to fail\n"
    assert contents(results) == before
    monkeypatch.undo()
    assert main(["report", "--results", str(results)]) == 0
    assert capsys.readouterr().err == ""
    assert contents(results) == before
