"""Toggles from files of a reader's: declared, registered, measured, analysed; and what is refused, in one line each."""

import importlib
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from ablations.analysis.effects import PartialDesign, effect_values, find_partial, partial_effect_values
from ablations.cells import arm_cell
from ablations.cli import main
from ablations.config import PAPER_TOGGLES, SLOTS, TOGGLES, PVTConfig, Toggle, arms_of, as_pair, build_config
from ablations.cost import count_macs, count_params, has_closed_form
from ablations.errors import InputError
from ablations.measure import Accuracy, Cost
from ablations.measure.macs import trace_macs
from ablations.model import build_model, timm_registry
from ablations.model.toggle_checks import check_toggles
from ablations.records import load_records
from ablations.records.folder import read_records
from ablations.report.build import build_report
from ablations.report.contents import headline_figures, list_figures
from ablations.skeletons import render_skeleton
from ablations.toggle_files import file_digests, importing_from, take_toggles
from ablations.training.recipe import build_optimizer

EXAMPLES = Path(__file__).parents[1] / "notebooks"
WINDOW, SE, SINE = (
    str(EXAMPLES / word) for word in ("window_attention.py:window", "squeeze_excite.py:se", "sine_positions.py:sine")
)

GATED = """
import torch
from torch import nn
from ablations.toggle_files import NewToggle
import parts

class Gated(nn.Module):
    def __init__(self, dim, num_prefix_tokens):
        super().__init__()
        self.num_prefix_tokens = num_prefix_tokens
        self.fc1 = nn.Linear(dim, dim)
        {init}

    def forward(self, x, size):
        {forward}

def build(config, stage):
    {build}
    return Gated(config.embed_dims[stage], config.num_prefix_tokens(stage))

mine = NewToggle(name="{name}", slot="mlp", build=build{more})
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def write_file(**parts: str) -> str:
        """Writes a file with a toggle, and its neighbour, and returns the toggle's word."""
        usual = {"init": "pass", "forward": "return self.fc1(x)", "build": "pass", "name": "mine", "more": ""}
        (tmp_path / "parts.py").write_text("WIDTH = 1\n")
        (tmp_path / "gated.py").write_text(GATED.format(**(usual | parts)))
        return f"{tmp_path / 'gated.py'}:mine"

    return write_file


def test_examples_are_registered_behind_the_package_s_in_order_of_name() -> None:
    assert take_toggles([WINDOW, "ope", SE, SINE]) == ("ope", "se", "sine", "window")
    assert tuple(TOGGLES) == (*PAPER_TOGGLES, "se", "sine", "window")
    assert arms_of(("lsra", "window")) == ("v1", "v1+lsra", "v1+window")
    assert arms_of(("cffn", "se", "sine")) == ("v1", "v1+cffn", "v1+se", "v1+sine", "v1+cffn+sine", "v1+se+sine")
    with pytest.raises(InputError, match=r"^arm='v1\+cffn\+se' is not possible; allowed: cffn or se: both replace"):
        build_config("pico", "v1+cffn+se")


def test_examples_are_short() -> None:
    assert all(len((EXAMPLES / word.rpartition(":")[0]).read_text().splitlines()) < 60 for word in (WINDOW, SE, SINE))


@pytest.mark.parametrize("base", ["v1", pytest.param("v2", marks=pytest.mark.slow)])
def test_examples_keep_to_their_slots_and_count_as_they_say(base: str) -> None:
    names = take_toggles([WINDOW, SE, SINE])
    check_toggles(names)
    counted = 0
    for arm in arms_of(("ope", "lsra", *names)):
        config = build_config("pico", arm, base)
        with torch.device("meta"):
            model = build_model(config)
        if not has_closed_form(config):
            assert "window" in arm
            continue
        counted += 1
        assert count_params(config) == sum(weights.numel() for weights in model.parameters())
        for size in (32, (40, 56)):
            assert count_macs(config, size) == trace_macs(model, (1, 3, *as_pair(size))).total
    assert counted == 2 ** len(("ope", "lsra", "se", "sine"))


def test_windows_do_not_see_each_other_and_the_class_token_passes_by() -> None:
    take_toggles([WINDOW])
    model = build_model(build_config("pico", "v1+window", "v1"), seed=0).eval()
    attention = model.stages[3].blocks[0].attn
    tokens = torch.randn(1, 1 + 8 * 8, 64)
    changed = tokens.clone()
    changed[:, 1] += 1  # the first token of the first window, behind the class token
    with torch.no_grad():
        before, after = (attention(each, (8, 8)) for each in (tokens, changed))
    torch.testing.assert_close(before[:, 0], tokens[:, 0], rtol=0, atol=0)
    moved = (before != after).any(dim=2)[0, 1:].unflatten(0, (8, 8))
    assert moved[:4, :4].all()
    assert not moved[4:].any()
    assert not moved[:, 4:].any()


def test_a_toggle_in_a_confounder_s_slot_replaces_the_base_s_choice() -> None:
    take_toggles([SINE])
    for base in ("v1", "v2"):
        model = build_model(build_config("pico", "v1+sine", base))
        assert not any("pos_embed" in name for name, _ in model.named_parameters())
    assert any("pos_embed" in name for name, _ in build_model(build_config("pico", "v1", "v1")).named_parameters())


def test_what_arms_share_starts_equal_and_own_weights_follow_the_seed(write: Callable[..., str]) -> None:
    take_toggles([write(init="self.own = nn.Parameter(torch.randn(dim))", forward="return self.fc1(x) * self.own")])
    config = build_config("pico", "v1+ope+mine", "v1")
    torch.manual_seed(5)
    one, again, other = (dict(build_model(config, seed=seed).named_parameters()) for seed in (0, 0, 1))
    without = dict(build_model(build_config("pico", "v1+ope", "v1"), seed=0).named_parameters())
    shared = [name for name, value in one.items() if name in without and without[name].shape == value.shape]
    assert len(shared) > 40
    assert [name for name in shared if not torch.equal(one[name], without[name])] == []
    own = [name for name in one if name.endswith("mlp.own")]
    assert len(own) == 4
    assert all(torch.equal(one[name], again[name]) and not torch.equal(one[name], other[name]) for name in own)
    assert not torch.equal(one[own[2]][:8], one[own[3]][:8])


@pytest.mark.parametrize("base", ["v1", "v2"])
@pytest.mark.parametrize("word", [WINDOW, SE, SINE])
def test_what_arms_share_starts_equal_with_and_without_an_example(word: str, base: str) -> None:
    (name,) = take_toggles([word])
    with_it, without = (
        dict(build_model(build_config("pico", arm, base), seed=3).named_parameters()) for arm in (f"v1+{name}", "v1")
    )
    shared = [key for key, value in with_it.items() if key in without and without[key].shape == value.shape]
    assert [key for key in shared if not torch.equal(with_it[key], without[key])] == []
    assert {key.rpartition(".")[0] for key in shared} >= {"head", "stages.0.patch_embed.proj", "stages.3.norm"}
    assert len(shared) > 30


@pytest.fixture
def pooling(tmp_path: Path) -> str:
    """A toggle in the slot `pool`, as `new-toggle` prints it."""
    (tmp_path / "pooling.py").write_text(render_skeleton("pool"))
    return f"{tmp_path / 'pooling.py'}:mine"


@pytest.mark.parametrize("base", ["v1", "v2"])
def test_a_pooling_replaces_the_base_s_and_leaves_the_class_token_out(pooling: str, base: str) -> None:
    check_toggles(take_toggles([pooling]))
    model, plain = (build_model(build_config("pico", arm, base), seed=0).eval() for arm in ("v1+mine", "v1"))
    assert not any("cls_token" in name for name, _ in model.named_parameters())
    assert sum(each.numel() for each in model.pool.parameters()) == 64 + 1
    images = torch.randn(2, 3, 32, 64)
    feature_map = model.forward_features(images)
    assert feature_map.shape == (2, 64, 2, 4)
    with torch.no_grad():
        model.pool.score.weight.zero_()  # every place weighs the same
        torch.testing.assert_close(model.forward_head(feature_map, pre_logits=True), feature_map.mean(dim=(2, 3)))
        if base == "v2":
            torch.testing.assert_close(model(images), plain(images))
    assert model.global_pool == "mine"
    model.reset_classifier(0, "")
    assert model(images).shape == (2, 64, 2, 4)
    model.reset_classifier(5, "mine")
    assert model(images).shape == (2, 5)
    model.prune_intermediate_layers([1])
    model.reset_classifier(3, "avg")
    assert model(images).shape == (2, 3)
    assert model.config.toggles == ()


def test_a_pooling_is_refused_under_a_head_that_reads_maps(pooling: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["cost", "--variants", "pico", "--arms", "v1+mine", "--toggles", pooling, "--resolutions", "64"]
    assert main([*command, "--heads", "retinanet"]) == 2
    assert "arm='v1+mine' is not possible; allowed: one without mine" in capsys.readouterr().err


def test_a_layer_of_one_s_own_says_what_is_not_decayed(write: Callable[..., str]) -> None:
    own = "self.scale = nn.Parameter(torch.ones(1, dim))\n        self.no_weight_decay = lambda: {'scale'}"
    take_toggles([write(init=own, forward="return self.fc1(x) * self.scale")])
    model = build_model(build_config("pico", "v1+mine", "v1"), seed=0)
    scales = {f"stages.{stage}.blocks.0.mlp.scale" for stage in range(4)}
    assert model.no_weight_decay() == scales | {"stages.3.cls_token.weight"}
    groups = build_optimizer(model, Accuracy(weight_decay=0.1)).param_groups
    decayed = {id(each) for group in groups if group["weight_decay"] for each in group["params"]}
    assert not decayed & {id(value) for name, value in model.named_parameters() if name in scales}


def test_timm_builds_an_arm_with_it() -> None:
    take_toggles([SE])
    names = {"arm": "v1+ope+se", "base": "v1"}
    assert "ablation_pvt_pico" in timm_registry.__all__
    model = timm.create_model("ablation_pvt_pico", **names, num_classes=10).eval()
    twin = build_model(build_config("pico", **names, num_classes=10), seed=4).eval()
    assert [name for name, _ in model.named_modules() if name.endswith("mlp.gate")]
    model.load_state_dict(twin.state_dict())
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(images), twin(images), rtol=0, atol=0)
    maps = timm.create_model("ablation_pvt_pico", **names, features_only=True)(images)
    assert [tuple(each.shape[1:]) for each in maps] == [(8, 16, 16), (16, 8, 8), (32, 4, 4), (64, 2, 2)]


@pytest.mark.slow
def test_memory_is_measured_of_it_in_a_fresh_process(tmp_path: Path) -> None:
    command = ["memory", "--variants", "pico", "--toggles", SE, "--arms", "v1+ope+se", "--resolutions", "32"]
    assert main([*command, "--attention", "fused", "--results", str(tmp_path)]) == 0
    records = load_records(tmp_path, "memory").set_index("mode")
    assert set(records.index) == {"inference", "training"}
    params = count_params(build_config("pico", "v1+ope+se", "v2"))
    assert (records["parameter_bytes"] == 4 * params).all()
    assert (records["method"] == "measured").all()
    assert records["peak_memory_bytes"]["training"] > records["peak_memory_bytes"]["inference"] > 4 * params


REFUSED = {
    r"mine \(gated.py, slot mlp\) returns \(2, 512, 7\) for \(2, 512, 8\) in stage 1; allowed: \(2, 512, 8\)": {
        "forward": "return x[:, :, 1:]"
    },
    r"ignores the class token: it returns \(2, 8, 64\) in stage 4": {
        "forward": "return self.fc1(x[:, self.num_prefix_tokens:])"
    },
    r"fails in stage 4 on \(2, 9, 64\), where a class token stands before": {
        "forward": "return self.fc1(x.unflatten(1, size)).flatten(1, 2)"
    },
    r"puts own on cpu, not on the default device": {"init": "self.own = nn.Parameter(torch.zeros(dim, device='cpu'))"},
    r"makes a tensor in stage 1 on another device than its input's": {
        "forward": "return x + torch.arange(x.shape[2], device='cpu')"
    },
    r"gives stages.0.blocks.0.mlp.own other values when it is built twice with one seed": {
        "init": "self.own = nn.Parameter(torch.full((dim,), __import__('random').random()))"
    },
    r"returns numbers that are not finite in stage 1": {"forward": "return x / 0"},
    r"gated.py: build returns a int; allowed: a torch.nn.Module": {"build": "return 3"},
    r"has a module with forward\(input: .*Tensor\) -> .*; allowed: forward\(x, size\), where size is the map's": {
        "build": "return nn.GELU()"
    },
    r"cannot be built in stage 1: ZeroDivisionError": {"build": "1 / 0"},
    r"has a cost of 0 parameters in stage 1; the module has 72": {"more": ", cost=lambda *_: iter(())"},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_breaks_a_slot_s_promise_is_one_line(message: str, write: Callable[..., str]) -> None:
    names = take_toggles([write(**REFUSED[message])])
    with pytest.raises(InputError, match=message) as error:
        check_toggles(names)
    assert "\n" not in str(error.value)


def test_what_is_no_toggle_is_one_line(write: Callable[..., str], tmp_path: Path) -> None:
    word = write()
    for given, message in {
        "gone.py:mine": "FILE.py:NAME: a Python file that exists",
        "gated.py": "FILE.py:NAME, a file and the name of a toggle",
        f"{word}x": r"toggle of gated.py='minex' is not possible; allowed: mine: .* \(did you mean 'mine'\?\)",
        "nothing": "toggle='nothing' is not possible; allowed: ope, cffn, lsra",
    }.items():
        with pytest.raises(InputError, match=message):
            take_toggles([given])
    for parts, message in (
        ({"name": "cffn"}, "cffn is Convolutional feed-forward"),
        ({"name": "v1"}, "v1 is the arm without toggles"),
        ({"name": "A b"}, "name='A b' is not possible; allowed: up to 24 lower-case letters"),
        ({"more": ", excludes='ope'"}, "excludes='ope' is not possible"),
        ({"build": "("}, "a file of Python"),
    ):
        with pytest.raises(InputError, match=message):
            take_toggles([write(**parts)])
    take_toggles([write()])
    (tmp_path / "other.py").write_text((tmp_path / "gated.py").read_text())
    with pytest.raises(InputError, match=r"a name that is not taken; mine is gated\.py"):
        take_toggles([f"{tmp_path / 'other.py'}:mine"])


def test_the_key_follows_the_file_and_what_it_imports(write: Callable[..., str], tmp_path: Path) -> None:
    plain = arm_cell("pico", "v1+ope", "v2", Cost())
    take_toggles([write()])
    assert arm_cell("pico", "v1+ope", "v2", Cost()).describe() == plain.describe()
    first = arm_cell("pico", "v1+mine", "v2", Cost())
    assert set(file_digests(tmp_path / "gated.py")) == {"gated.py", "parts.py"}
    (tmp_path / "parts.py").write_text("WIDTH = 2\n")
    take_toggles([f"{tmp_path / 'gated.py'}:mine"])
    second = arm_cell("pico", "v1+mine", "v2", Cost())
    (tmp_path / "parts.py").write_text("WIDTH = 1\n")
    (tmp_path / "unrelated.py").write_text("")
    take_toggles([f"{tmp_path / 'gated.py'}:mine"])
    assert first.key == arm_cell("pico", "v1+mine", "v2", Cost()).key != second.key
    assert str(tmp_path) not in str(first.describe())


@pytest.mark.slow
def test_records_of_a_file_that_changed_or_is_gone_are_shown_and_named(
    write: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "runs"
    command = ["cost", "--variants", "pico", "--resolutions", "32", "--results", str(results), "--toggles"]
    assert main([*command, write()]) == 0
    assert main([*command, write(init="self.fc2 = nn.Linear(dim, 2)")]) == 0
    arms = load_records(results)["arm"].tolist()
    (earlier,) = (arm for arm in arms if "@" in arm)
    assert sorted(arms) == sorted(["v1", "v1+mine", earlier])
    for word in ("gated.py", "parts.py"):
        (tmp_path / word).unlink()
    for name in [name for name in TOGGLES if name not in PAPER_TOGGLES]:
        del TOGGLES[name]
    assert read_records(results).damaged == {}
    report = build_report(results, everything=True, with_figures=False, with_page=True)
    assert report.not_rebuilt == {}
    assert earlier in (results / "tables" / "cost.md").read_text()
    assert "mine (not at hand: gated.py)" in (results / "report.html").read_text()
    with pytest.raises(InputError, match="one whose file is named by --toggles"):
        build_model(build_config("pico", "v1+mine", "v2"))
    capsys.readouterr()
    assert (
        main(["cost", "--variants", "pico", "--arms", "v1+mine", "--results", str(results), "--resolutions", "64"]) == 2
    )
    assert "one whose file is named by --toggles" in capsys.readouterr().err


STUDY = """
toggles = ["ope", "lsra", "gated.py:mine"]

[[grid]]
measurement = "cost"
variants = ["pico"]
resolution = 32
"""


@pytest.mark.parametrize("name", ["ablations.skeletons", "neighbour"])
def test_a_file_beside_the_package_leaves_one_copy_of_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "neighbour.py").write_text("")
    with importing_from(EXAMPLES.parent if "." in name else tmp_path):
        importlib.import_module(name)
    assert (name in sys.modules) == ("." in name)


@pytest.mark.slow
def test_a_study_names_a_file_beside_it(write: Callable[..., str], tmp_path: Path) -> None:
    write(more=", excludes=('lsra',)")
    (tmp_path / "mine.toml").write_text(STUDY)
    results = tmp_path / "runs"
    assert main(["run", str(tmp_path / "mine.toml"), "--results", str(results)]) == 0
    arms = {"v1", "v1+ope", "v1+lsra", "v1+mine", "v1+ope+lsra", "v1+ope+mine"}
    assert {record["arm"] for record in read_records(results).records} == arms
    effects = effect_values(load_records(results), "cost")
    # Two toggles that exclude each other have factorials of their own.
    assert set(effects["toggles"]) == {"ope, lsra", "ope, mine"}


def test_run_takes_toggles_instead_of_the_study_s_own(
    write: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "quick", "--toggles", "ope", "lsra", write(), "--dry-run", "--results", str(tmp_path / "runs")]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert " pico v1+ope+lsra+mine " in shown
    assert "cffn" not in shown


def test_effects_on_accuracy_of_alternatives_are_as_made_up(
    write: Callable[..., str], write_cell: Callable[..., Path], tmp_path: Path
) -> None:
    take_toggles([WINDOW])
    adds = {"ope": 2.0, "lsra": -1.0, "window": 0.5}
    for arm in arms_of(adds):
        for seed in range(3):
            points = 50 + sum(adds[name] for name in arm.split("+")[1:]) + seed
            result = {"top1": points / 100, "n_eval_images": 100, "n_train_images": 100}
            write_cell(tmp_path, arm_cell("pico", arm, "v2", Accuracy(seed=seed)), result)
    values = effect_values(load_records(tmp_path), "accuracy").set_index(["toggles", "effect"])["top1_effect_mean"]
    assert round(100 * values["ope, lsra", "lsra"], 9) == -1.0
    assert round(100 * values["ope, window", "window"], 9) == 0.5
    assert round(100 * values["ope, window", "ope"], 9) == 2.0


def test_every_slot_is_one_of_the_model_s() -> None:
    assert set(SLOTS) == {"patch_embed", "norm", "attn", "mlp", "pos_embed", "block", "pool"}


class WholeBlock(nn.Module):
    """A block without anything learned but one scale."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return x * self.scale


def build_whole_block(config: PVTConfig, stage: int) -> nn.Module:
    return WholeBlock()


def test_a_whole_block_excludes_its_parts_and_has_stochastic_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TOGGLES, "whole", Toggle(title="W", slot="block", builder=f"{__name__}:build_whole_block"))
    assert arms_of(("ope", "cffn", "whole")) == ("v1", "v1+ope", "v1+cffn", "v1+whole", "v1+ope+cffn", "v1+ope+whole")
    model = build_model(build_config("pico", "v1+whole", "v2", drop_path_rate=0.5))
    assert isinstance(model.stages[0].blocks[0], WholeBlock)
    last = model.stages[3].blocks[0]
    tokens = torch.randn(64, 4, 64)
    last.block.scale.data.fill_(3.0)
    out = last.train()(tokens, (2, 2))
    kept = (out != tokens).flatten(1).any(dim=1)
    assert 0 < kept.sum() < len(kept)
    torch.testing.assert_close(out[kept], tokens[kept] + 2 * (3 * tokens[kept] - tokens[kept]))


@pytest.mark.parametrize("slot", [*SLOTS, "attention", "feed-forward"])
def test_a_skeleton_runs_at_once(slot: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-toggle", slot]) == 0
    (tmp_path / "skeleton.py").write_text(capsys.readouterr().out)
    check_toggles(take_toggles([f"{tmp_path / 'skeleton.py'}:mine"]))
    model = build_model(build_config("pico", "v1+mine", "v1"), seed=0)
    model(torch.randn(2, 3, 32, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_an_unknown_slot_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-toggle", "attentoin"]) == 2
    assert "did you mean 'attention'?" in capsys.readouterr().err


def test_aliased_effects_of_a_half_fraction_are_named() -> None:
    """I = ABC: each main effect is one with the interaction of the two others."""
    design = PartialDesign(("v1+ope", "v1+cffn", "v1+lsra", "v1+ope+cffn+lsra"))
    assert design.aliases == {
        "ope": ("cffn:lsra",),
        "cffn": ("ope:lsra",),
        "lsra": ("ope:cffn",),
        "ope:cffn": ("lsra",),
        "ope:lsra": ("cffn",),
        "cffn:lsra": ("ope",),
        "ope:cffn:lsra": ("mean",),
    }


@pytest.mark.slow
def test_effects_without_one_arm_are_as_made_up_and_the_highest_is_aliased(
    write_cell: Callable[..., Path], tmp_path: Path
) -> None:
    adds = {"ope": 2.0, "cffn": 4.0, "lsra": -1.0}
    arms = arms_of(adds)[:-1]
    assert find_partial(arms_of(adds)) is None
    for arm in arms:
        for seed in range(3):
            points = 50 + sum(adds[name] for name in arm.split("+")[1:]) + seed
            result = {"top1": points / 100, "n_eval_images": 100, "n_train_images": 100}
            write_cell(tmp_path, arm_cell("pico", arm, "v2", Accuracy(seed=seed)), result)
    values = partial_effect_values(load_records(tmp_path)).set_index("effect")
    estimated = values["top1_effect_mean"].dropna()
    assert {name: round(100 * mean, 9) + 0.0 for name, mean in estimated.items()} == {
        **adds,
        "ope:cffn": 0.0,
        "ope:lsra": 0.0,
        "cffn:lsra": 0.0,
    }
    assert values["aliases"]["ope:cffn:lsra"].split(", ")[1:] == list(estimated.index)
    assert (values["aliases"][estimated.index] == "ope:cffn:lsra").all()
    report = build_report(tmp_path, everything=True, with_figures=False)
    assert report.not_rebuilt == {}
    assert "7 arms, 1 missing. n = 3" in (tmp_path / "tables" / "effects_incomplete.md").read_text()


def test_the_figure_of_a_toggle_of_one_s_own_is_a_headline_beside_the_paper_s(
    write_cell: Callable[..., Path], tmp_path: Path
) -> None:
    take_toggles([SINE])
    for arms, epochs in ((arms_of(PAPER_TOGGLES), 3), (arms_of(("ope", "sine")), 1)):
        for arm, seed in product(arms, range(6)):
            result = {"top1": 0.5, "n_eval_images": 100, "n_train_images": 100}
            write_cell(tmp_path, arm_cell("pico", arm, "v2", Accuracy(seed=seed, epochs=epochs)), result)
    shown = [spec.name for spec in headline_figures(list_figures(load_records(tmp_path), kinds=["effects_accuracy"]))]
    assert shown == ["effects_accuracy_digits_ope-cffn-lsra", "effects_accuracy_digits_ope-sine"]


@pytest.mark.slow
def test_captions_say_what_a_toggle_replaces_and_which_count_stands_alone(tmp_path: Path) -> None:
    results = tmp_path / "runs"
    command = ["cost", "--variants", "pico", "--resolutions", "32", "--results", str(results), "--toggles"]
    assert main([*command, SINE, WINDOW]) == 0
    build_report(results, everything=True, with_figures=False)
    text = (results / "tables" / "cost.md").read_text()
    assert "Toggle sine replaces the base's position embedding." in text
    assert "the traced count stands alone: v1+window, v1+sine+window." in text


@pytest.mark.slow
def test_captions_of_figures_say_what_a_toggle_replaces(
    pooling: str, write_cell: Callable[..., Path], tmp_path: Path
) -> None:
    take_toggles([pooling, SINE])
    for arm in arms_of(("mine", "sine")):
        for seed in range(6):
            result = {"top1": 0.5 + 0.01 * seed + 0.1 * len(arm) / 20, "n_eval_images": 100, "n_train_images": 100}
            write_cell(tmp_path, arm_cell("pico", arm, "v1", Accuracy(seed=seed)), result)
    specs = [spec for spec in list_figures(load_records(tmp_path)) if spec.kind in ("accuracy", "effects_accuracy")]
    assert len(specs) == 2
    sentences = "Toggle mine replaces the base's pooling. Toggle sine replaces the base's position embedding."
    assert all(sentences in spec.caption for spec in specs)
    assert main(["report", "--results", str(tmp_path)]) == 0
    assert sentences in (tmp_path / "README.md").read_text().partition("](figures/effects_accuracy")[2]


def forget() -> None:
    """What a process that starts anew does not know."""
    for name in [name for name in TOGGLES if name not in PAPER_TOGGLES]:
        del TOGGLES[name]


@pytest.mark.slow
def test_report_and_compare_take_the_file_of_a_record(
    write: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, words = tmp_path / "runs", ["--variants", "pico", "--resolutions", "32"]
    word = write(more=", title='Gated'")
    assert main(["cost", *words, "--results", str(results), "--toggles", word]) == 0
    for command in (["report", "--html"], ["compare"]):
        for given, title in (((), "Gated (not at hand: gated.py)"), (("--toggles", word), "Gated (mine)")):
            forget()
            capsys.readouterr()
            assert main([*command, *given, "--results", str(results)]) == 0
            shown = capsys.readouterr().out if command == ["compare"] else (results / "report.html").read_text()
            assert title in shown.replace("\n", " ")
            assert ("not at hand" in shown) == (not given)
    forget()
    assert main(["compare", "--toggles", word[:-4] + "other", "--results", str(results)]) == 2
    assert "toggle of gated.py='other' is not possible; allowed: mine" in capsys.readouterr().err


def test_compare_takes_a_study_s_arms_with_its_toggles(
    write: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    word = write()
    (tmp_path / "mine.toml").write_text(STUDY.replace('"gated.py:mine"', '"cffn"'))
    given = [str(tmp_path / "mine.toml"), "--toggles", "ope", word, "--results", str(tmp_path / "runs")]
    assert main(["run", *given]) == 0
    capsys.readouterr()
    forget()
    assert main(["compare", *given, "--format", "csv"]) == 0
    rows = capsys.readouterr().out
    assert all(f",{arm}," in rows for arm in ("v1", "v1+ope", "v1+mine", "v1+ope+mine"))
    assert "lsra" not in rows
    assert main(["status", *given]) == 0
    assert "4" in capsys.readouterr().out


@pytest.mark.slow
def test_arguments_of_a_model_of_one_s_own_follow_a_question_mark(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from ablations.config import build_config\nfrom ablations.model import build_model\n"
        "def build(arm='v1', variant='pico', num_classes=10):\n"
        "    return build_model(build_config(variant, arm, 'v2', num_classes=num_classes))\n"
    )
    results = tmp_path / "runs"
    models = [f"{tmp_path / 'mine.py'}:build{rest}" for rest in ("", "?arm=v1+ope", "?arm=v1+ope,num_classes=3")]
    assert main(["cost", "--model", *models, "--resolutions", "32", "--results", str(results)]) == 0
    params = load_records(results).set_index("model")["params"]
    for name, arm, classes in (
        ("", "v1", 10),
        ("?arm=v1+ope", "v1+ope", 10),
        ("?arm=v1+ope,num_classes=3", "v1+ope", 3),
    ):
        assert params[f"mine.py:build{name}"] == count_params(build_config("pico", arm, "v2", num_classes=classes))
