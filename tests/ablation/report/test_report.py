"""The report of a small study: its numbers, its warnings, and a report.html that needs no other file."""

import csv
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from study_on_disk import make_study

from retinanet.ablation.cells import CellStatus
from retinanet.ablation.report.collect import CellResult, StudyResult
from retinanet.ablation.report.data import ReportData, detections_path, gather
from retinanet.ablation.report.report import study_findings, write_study_report
from retinanet.ablation.report.tables import RESULT_HEADER, metrics_of_arms_table, results_table, tuning_table
from retinanet.data.ground_truth import load_ground_truth
from retinanet.display.document.blocks import Code, Listing, Paragraph, Table, TableRow
from retinanet.display.document.html import render_html
from retinanet.display.document.markdown import escape_markdown, render_markdown
from retinanet.display.numbers import p_text, points, signed_points
from retinanet.errors import DataError
from retinanet.scoring.evaluation import coco_evaluation

ODD = "x | <b>$\\frac & _y"
ARMS = {"focal": 0.9, "CE": 0.3, "twin": 0.9, ODD: 0.6}
STATUSES = {("CE", 1): "diverged", ("twin", 2): "failed", (ODD, 0): "waiting"}
PANELS = {
    *("points", "differences", "validation_ap", "class_loss", "precision_recall_50", "precision_recall_75"),
    *(f"scores_{number}" for number in range(1, len(ARMS) + 1)),
}
PICTURES = {*(f"{name}.svg" for name in PANELS), "same_images.jpg"}


class Page(HTMLParser):
    """The content of an HTML file; fails on tags that do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def feed(self, data: str) -> None:
        super().feed(data)
        assert self.open == []


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    made = make_study(tmp_path_factory.mktemp("report"), ARMS, STATUSES)
    return made._replace(title="Losses <script>alert(1)</script> & more")


@pytest.fixture(scope="module")
def written(study: StudyResult) -> Path:
    folder = study.test_images.parents[1] / "out"
    write_study_report(study, folder)
    return folder


@pytest.fixture(scope="module")
def data(study: StudyResult) -> ReportData:
    return gather(study, resamples=200)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def changed(cell: CellResult, **fields: object) -> CellResult:
    """The cell with other fields of its record."""
    return cell._replace(record=cell.record._replace(**fields))


def test_html_stands_alone_and_escapes_everything(written: Path) -> None:
    text = (written / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 1
    assert sum(tag == "svg" for tag, _ in page.tags) == len(PANELS)
    assert all(str(image["src"]).startswith("data:image/") and image["alt"] for image in images)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "b", "a"}
    assert not re.search(r"url\((?!#p)|@import|https?://", text)
    assert "Losses <script>alert(1)</script> & more" in page.text
    assert ODD in page.text


def test_files_of_every_picture_and_table_are_there(written: Path) -> None:
    names = {path.name for path in (written / "report").iterdir()}
    tables = "results cells learning_curves precision_recall score_histograms same_images"
    assert names == {*PICTURES, *(f"{name}.csv" for name in f"{tables} config_differences".split())}
    markdown = (written / "report.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\((report/[^)]+)\)", markdown)
    assert sorted(linked) == sorted(f"report/{name}" for name in PICTURES)


def test_markdown_tables_are_even(written: Path) -> None:
    lines = (written / "report.md").read_text(encoding="utf-8").splitlines()
    tables = "\n".join(line if line.startswith("|") else "" for line in lines).split("\n\n")
    for table in filter(None, (part.strip() for part in tables)):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


def test_every_seeds_ap_is_pycocotools_own(study: StudyResult, written: Path) -> None:
    truth = load_ground_truth(study.test_annotations)
    rows = {(row["arm"], row["seed"]): row for row in rows_of(written / "report" / "cells.csv")}
    for cell in study.cells:
        status = cell.record.status
        row = rows[cell.record.arm, str(cell.record.seed)]
        assert row["status"] == status
        if status == "done":
            results = json.loads(detections_path(cell).read_text(encoding="utf-8"))
            expected = coco_evaluation(truth, results).metrics
            assert row["detections_sha256"] == hashlib.sha256(detections_path(cell).read_bytes()).hexdigest()
            assert all(float(row[name]) == pytest.approx(expected[name]) for name in ("AP", "AP50", "APs"))
        else:
            assert row["AP"] == ("0.0" if status == "diverged" else "")


def test_table_shows_every_seed_and_the_papers_own_row(data: ReportData) -> None:
    rows, metrics = results_table(data).rows, metrics_of_arms_table(data).rows
    by_arm = {row.cells[0]: row for row in metrics if row.kind != "paper"}
    assert list(by_arm) == [row.cells[0] for row in rows if row.kind != "paper"] == list(ARMS)
    seeds = {name: row.cells[1].replace("\u00a0", " ").split(" · ") for name, row in by_arm.items()}
    assert seeds["CE"][1] == "diverged"
    assert seeds["twin"][2] == "failed"
    assert seeds[ODD][0] == "waiting"
    assert by_arm["CE"].kind == by_arm["twin"].kind == by_arm[ODD].kind == "incomplete"
    assert by_arm["focal"].kind == "reference"
    assert [row.kind for row in rows[:4]] == ["reference", "paper", "incomplete", "paper"]
    assert rows[1].cells[:3] == ("the paper's own", "34.0", "not comparable")
    assert metrics[1].cells[:4] == ("the paper's own", "", "52.5", "–")
    assert [row.cells[2] for row in rows if row.kind != "paper"][:2] == ["reference", "worse"]
    assert all(len(row.cells) == len(RESULT_HEADER) for row in rows)


def test_diverged_seeds_count_as_zero_and_failed_ones_not_at_all(data: ReportData) -> None:
    focal, ce, twin, _ = data.arms
    aps = [float(cell.points_M[0]) for cell in ce.measured]
    assert aps[1] == 0.0
    assert ce.mean() == pytest.approx(np.mean(aps))
    assert [cell.record.seed for cell in twin.measured] == [0, 1]
    assert twin.comparison is not None
    common = [float(a.points_M[0] - b.points_M[0]) for a, b in zip(twin.measured, focal.measured)]
    assert twin.comparison.difference == pytest.approx(np.mean(common))
    text = " ".join(data.remarks)
    assert "arm CE: diverged, which counts as AP 0 (seed 1)" in text
    assert "arm twin: failed, which enters no number (seed 2)" in text
    assert f"arm {ODD}: not finished, which enters no number (seed 0" in text


def test_findings_say_worse_and_not_distinguishable(data: ReportData) -> None:
    text = "\n".join(study_findings(data))
    assert re.search(r"Worse than focal in AP: CE \(−\d", text)
    # The twin has the reference's very detections, seed by seed.
    assert re.search(r"Not distinguishable from focal in AP on this test split: twin \(\+0\.0\)", text)


def test_where_no_arm_has_learned_anything_that_is_the_finding(study: StudyResult) -> None:
    cells = tuple(changed(cell, status=CellStatus.DIVERGED) for cell in study.cells)
    (text,) = study_findings(gather(study._replace(cells=cells), resamples=10))
    assert text.startswith("No arm has learned anything: the best training of all has AP50 0.0 on the test split")
    one = tuple(
        changed(cell, status=CellStatus.DIVERGED) if cell.record.arm == "twin" else cell for cell in study.cells
    )
    data = gather(study._replace(cells=one), resamples=10)
    assert study_findings(data)[0] == "Has learned nothing (AP50 below 1.0 with every seed): twin."
    assert {row.cells[0]: row.cells[2] for row in results_table(data).rows}["twin"] == "has learned nothing"


def test_the_mean_lies_in_its_interval(data: ReportData) -> None:
    for arm in data.arms:
        low, high = arm.interval()
        assert low <= arm.mean() <= high


def test_numbers_are_the_same_again(study: StudyResult, data: ReportData) -> None:
    again = gather(study, resamples=200)
    # Text, because NaN differs from itself.
    assert str([arm.comparison for arm in again.arms]) == str([arm.comparison for arm in data.arms])


def test_exchanged_detections_are_noticed(study: StudyResult) -> None:
    assert study.cells[0].record.status == CellStatus.DONE
    cells = (changed(study.cells[0], test_metrics={"AP": 0.123}),)
    remarks = gather(study._replace(cells=cells), resamples=10).remarks
    assert any("recorded as 12.30" in remark and "arm focal, seed 0" in remark for remark in remarks)


def test_arms_that_lack_the_same_seeds_share_a_remark(study: StudyResult) -> None:
    cells = tuple(
        changed(cell, status=CellStatus.FAILED) if cell.record.arm in ("CE", "twin") and cell.record.seed == 1 else cell
        for cell in study.cells
    )
    remarks = gather(study._replace(cells=cells), resamples=10).remarks
    failed = [remark for remark in remarks if "failed, which" in remark]
    assert failed == [
        "arm CE: failed, which enters no number (seed 1)",
        "arm twin: failed, which enters no number (seed 1, 2)",
    ]
    cells = tuple(
        changed(cell, status=CellStatus.FAILED) if cell.record.arm != "focal" and cell.record.seed == 2 else cell
        for cell in study.cells
    )
    remarks = gather(study._replace(cells=cells), resamples=10).remarks
    assert f"arms CE, twin, {ODD}: failed, which enters no number (seed 2)" in remarks


@pytest.mark.slow
def test_a_study_that_has_not_begun_is_reported(study: StudyResult, tmp_path: Path) -> None:
    cells = tuple(changed(cell, status=CellStatus.WAITING)._replace(folder=tmp_path / "none") for cell in study.cells)
    write_study_report(study._replace(cells=cells), tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "0 of 12 trainings finished" in text
    assert "Not compared, because there is no finished seed: CE; twin" in text


def test_without_the_reference_nothing_is_compared(study: StudyResult) -> None:
    cells = tuple(
        changed(cell, status=CellStatus.FAILED) if cell.record.arm == "focal" else cell for cell in study.cells
    )
    data = gather(study._replace(cells=cells), resamples=10)
    assert all(arm.comparison is None for arm in data.arms)
    assert any("the reference focal has no measured seed" in remark for remark in data.remarks)
    assert results_table(data).rows[0].kind == "incomplete"


def test_missing_detections_are_an_error_that_names_the_file(study: StudyResult, tmp_path: Path) -> None:
    cells = (study.cells[0]._replace(folder=tmp_path / "moved"), *study.cells[1:])
    with pytest.raises(DataError, match=r"moved.*detections\.json"):
        gather(study._replace(cells=cells), resamples=10)


def test_learning_rates_tried_are_listed_and_the_selected_one_marked(study: StudyResult) -> None:
    tried = changed(study.cells[0], lr=0.02, val_metrics={"AP": 0.2})._replace(tuning=True)
    data = gather(study._replace(cells=(*study.cells, tried)), resamples=10)
    table = tuning_table(data)
    assert table is not None
    assert [row.cells[1::2] for row in table.rows] == [("0.01", "54.0", "selected"), ("0.02", "20.0", "")]
    assert len(data.arms[0].cells) == 3
    assert tuning_table(gather(study, resamples=10)) is None


def test_numbers_as_text() -> None:
    assert [points(0.3404), points(-1.0), points(float("nan"))] == ["34.0", "–", "–"]
    assert [signed_points(-0.012), signed_points(0.01), signed_points(float("nan"))] == ["−1.2", "+1.0", "–"]
    assert [p_text(0.0009), p_text(0.25), p_text(float("nan"))] == ["<0.001", "0.250", "–"]


def test_markdown_shows_text_as_it_is(tmp_path: Path) -> None:
    table = Table("t*t", ("a|b", "c"), (TableRow(("`x`", "<i>"), "paper"),))
    blocks = [Paragraph("- no list\nand # no title"), Listing(("a_b",)), table, Code("base", "key: ```")]
    text = render_markdown("A # title", blocks, tmp_path)
    assert "\\- no list and \\# no title" in text
    assert "| a\\|b | c |" in text
    assert "| *\\`x\\`* | *\\<i\\>* |" in text
    assert "````yaml\nkey: ```\n````" in text
    assert escape_markdown("1 < 2") == "1 \\< 2"


def test_html_marks_kinds_of_rows() -> None:
    text = render_html("t", [Table("x", ("a", "b"), (TableRow(("1", "2"), "paper"), TableRow(("3", "4"))))])
    assert '<tr class="paper"><th scope="row">1</th><td>2</td></tr>' in text
    assert '<tr><th scope="row">3</th><td>4</td></tr>' in text
