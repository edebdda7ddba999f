"""What is committed under results/: whole, current, and of this code."""

from pathlib import Path

import pytest

from ablations.records.folder import find_record, read_records
from ablations.report.build import check_report
from ablations.studies import find_study

RESULTS = Path(__file__).parents[1] / "results"


@pytest.mark.parametrize("study", ["paper", "counters", "quick", "memory", "speed", "tuning-digits"])
def test_every_cell_of_the_committed_studies_is_measured(study):
    cells = find_study(study).cells()
    if study == "quick":  # its trainings, which take seconds, are not committed; the accuracy study's are
        cells = [cell for cell in cells if not cell.conditions.trains]
    assert [cell.label for cell in cells if find_record(RESULTS, cell) is None] == []


def test_no_record_is_damaged_or_failed():
    assert read_records(RESULTS).damaged == {}
    assert [record["key"] for record in read_records(RESULTS).records if record["status"] != "done"] == []


def test_every_record_names_a_commit_without_changes():
    commits = {record["environment"]["commit"] for record in read_records(RESULTS).records}
    assert commits
    assert [commit for commit in commits if commit is None or commit.endswith("-dirty")] == []


@pytest.mark.slow
def test_tables_and_figures_are_what_the_records_give():
    assert check_report(RESULTS) == []
