"""torch.hub finds the models in a checkout, by the names that timm gives them."""

import importlib.util
from pathlib import Path

import torch

from ablations.config import PUBLISHED_MODELS, build_config
from ablations.model import PVT, build_model
from ablations.model.checkpoint import export_weights, save_weights

ROOT = str(Path(__file__).parents[1])


def load(name: str, **options) -> PVT:
    return torch.hub.load(ROOT, name, source="local", **options)


def test_every_published_model_is_an_entry_with_help() -> None:
    spec = importlib.util.spec_from_file_location("hubconf", f"{ROOT}/hubconf.py")
    assert spec
    assert spec.loader
    hubconf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hubconf)
    entries = {name: value for name, value in vars(hubconf).items() if callable(value) and not name.startswith("_")}
    named = [name for name in entries if name.startswith("pvt_v")]
    assert {"pvt_v1_small", "pvt_v2_b0", "pvt_v2_b2_li"} <= set(named)
    assert len(named) == len(PUBLISHED_MODELS)
    assert set(entries) == {"pvt", "pvt_from_file", *named}
    assert "PVTv2-B2-Li" in entries["pvt_v2_b2_li"].__doc__


def test_an_entry_gives_the_model_with_its_weights(tmp_path: Path) -> None:
    config = build_config("b0", "v1+ope+cffn+lsra", "published", num_classes=3)
    model = build_model(config, seed=1).eval()
    torch.save(export_weights(model, "timm"), tmp_path / "weights.pth")
    loaded = load("pvt_v2_b0_li", num_classes=3, weights=str(tmp_path / "weights.pth")).eval()
    assert loaded.config == config
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded(x), model(x))


def test_any_arm_and_weights_that_know_what_they_are(tmp_path: Path) -> None:
    model = load("pvt", variant="pico", arm="v1+ope", base="v1", num_classes=3).eval()
    assert model.config == build_config("pico", "v1+ope", "v1", num_classes=3)
    path = tmp_path / "w.safetensors"
    save_weights(model, path, {"config": vars(model.config), "recipe": {}})
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(load("pvt_from_file", weights=str(path))(x), model(x))
