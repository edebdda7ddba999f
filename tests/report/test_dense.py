"""The tables of detection and segmentation."""

from ablations.report.dense import TABLES
from ablations.report.tables import render_markdown


def test_tables_name_the_data_and_say_what_bccd_is_no_evidence_of(dense_records):
    texts = {table.name: render_markdown(table, table.values(dense_records)) for table in TABLES}
    assert "bccd, retinanet, nano, base v2" in texts["detection"]
    assert "no evidence about COCO" in texts["detection"]
    assert "camvid, semantic_fpn, nano, base v2" in texts["segmentation"]
    assert "AP50 of constant boxes" in texts["detection"]
    for text in texts.values():
        assert "resolved" in text
        assert "**" not in text, "the best of noisy means is not claimed"
        assert "timm:resnet18" in text
