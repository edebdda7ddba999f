"""The command `list`: it names all that flags take."""

import re

from ablations.cli import main
from ablations.config import ARMS, PUBLISHED_MODELS
from ablations.studies import list_studies


def test_list_names_arms_and_studies(call, capsys):
    code, out, _ = call(capsys, "list")
    assert code == 0
    for name in (*ARMS, *list_studies(), "fashion-mnist", "pico", "large"):
        assert name in out


def test_every_published_model_is_listed(call, capsys):
    out = call(capsys, "list")[1]
    for name, (variant, arm) in PUBLISHED_MODELS.items():
        assert re.search(rf"^  {name} +variant {variant}, arm {re.escape(arm)}, base published$", out, re.MULTILINE)
    assert {"PVTv1-Tiny", "PVTv2-B0", "PVTv2-B2", "PVTv2-B2-Li"} <= PUBLISHED_MODELS.keys()


def test_list_names_sets_layouts_and_recipes(capsys):
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    for words in ("coco-1x", "ade20k-40k", "camvid", "bccd", "ImageSets/Main", "instances_{train,val}2017.json"):
        assert words in said
