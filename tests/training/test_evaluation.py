"""Evaluation of finished models: known answers, timm's own loop, and folders that are not as they must be."""

import math
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.utils import accuracy
from torch import Tensor, nn

from ablations.config import PUBLISHED_MODELS, PVTConfig, build_config
from ablations.data.protocols import normalise_bytes
from ablations.errors import InputError
from ablations.model import PVT, build_model
from ablations.model.checkpoint import load_weights, save_weights
from ablations.training.evaluation import (
    EXPECTED,
    evaluate_checkpoint,
    expected_calibration_error,
    expected_top1,
    imagenet_synsets,
    label_classes,
    score_images,
)

SETTINGS = {
    "protocol": "timm",
    "resolution": 32,
    "batch_size": 4,
    "device": "cpu",
    "precision": "float32",
    "workers": 2,
}


class ReadsTheAnswer(nn.Module):
    """Takes 256 times the green level plus the red for the class, as sure as `scale` says; keeps what it was shown."""

    def __init__(self, num_classes: int, scale: float = 2.0) -> None:
        super().__init__()
        self.num_classes, self.scale = num_classes, scale
        self.seen: list[int] = []
        # What normalised bytes are, to find the byte again.
        levels = torch.arange(256, dtype=torch.uint8)
        self.register_buffer("levels", normalise_bytes(levels[None, None, :, None].expand(1, 3, 256, 1))[0, :, :, 0])

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        red, green = ((x[:, i, 0, 0, None] - self.levels[i]).abs().argmin(dim=1) for i in (0, 1))
        answers = 256 * green + red
        self.seen += answers.tolist()
        return self.scale * F.one_hot(answers, self.num_classes).float()


def write_images(root: Path, answers: dict[str, list[int]]) -> Path:
    """Writes images by class; each carries the answer that ReadsTheAnswer reads."""
    for name, values in answers.items():
        (root / name).mkdir(parents=True)
        for index, value in enumerate(values):
            Image.new("RGB", (10, 8), (value % 256, value // 256, 0)).save(root / name / f"{index}.png")
    return root


def write_noise(root: Path, classes: int, images: int) -> Path:
    random = torch.Generator().manual_seed(0)
    for label in range(classes):
        (root / f"{label}").mkdir(parents=True)
        for index in range(images):
            noise = torch.randint(256, (6, 8, 3), generator=random, dtype=torch.uint8)
            image = Image.fromarray(noise.numpy()).resize((60, 45))
            image.save(root / f"{label}" / f"{index}.png")
    return root


def build_pico(arm: str = "v1+ope+cffn", **overrides) -> PVT:
    torch.manual_seed(0)
    model = build_model(build_config("pico", arm, **overrides))
    nn.init.normal_(model.head.weight, std=0.5)  # else all logits are nearly equal
    return model


@pytest.mark.parametrize("batch_size", [1, 3, 10, 64])
def test_scores_of_known_answers_and_every_image_once(tmp_path, batch_size):
    folder = write_images(tmp_path, {"a": [0, 0, 1], "b": [1, 1, 1], "c": [2, 0, 2], "d": [0]})
    model = ReadsTheAnswer(4)
    scores = evaluate_checkpoint(model, folder, **SETTINGS | {"batch_size": batch_size})
    assert model.seen == [0, 0, 0, 1, 1, 1, 1, 2, 0, 2, 0], "the trial's black image, then all in order"
    # Logits are one 2 and three 0: the first has e² / (e² + 3), and the loss is log(e² + 3), less 2 where it is right.
    total = math.exp(2) + 3
    assert scores == {
        "top1": 0.7,
        "top5": 1.0,
        "loss": pytest.approx(math.log(total) - 2 * 0.7, rel=1e-9),
        "ece": pytest.approx(abs(math.exp(2) / total - 0.7), rel=1e-9),
        "n_images": 10,
        "skipped": [],
        "n_classes": 4,
        "classes": "the folder's 4 classes, in order of name",
        "expected_top1": None,
    }


def test_a_split_of_its_own_is_used_where_there_is_one(tmp_path):
    write_images(tmp_path / "set/val", {"a": [0], "b": [1]})
    write_images(tmp_path / "set/train", {"a": [0] * 3, "b": [0] * 3})
    for folder in (tmp_path / "set", tmp_path / "set/val"):
        scores = evaluate_checkpoint(ReadsTheAnswer(2), folder, **SETTINGS)
        assert (scores["n_images"], scores["top1"]) == (2, 1.0)


def test_some_of_imagenets_classes_have_imagenets_labels(tmp_path):
    # A tench, a springer and a parachute, which is taken for a tench once; 701 is ImageNet's parachute.
    folder = write_images(
        tmp_path / "val", {"n03888257": [701, 0], "n01440764": [0], "n02102040": [217, 217], "n15075141": [999]}
    )
    scores = evaluate_checkpoint(ReadsTheAnswer(1000), tmp_path, **SETTINGS)
    assert scores["top1"] == 5 / 6
    assert scores["top5"] == 5 / 6
    assert scores["n_images"] == 6
    assert scores["n_classes"] == 4
    assert scores["classes"] == "4 of ImageNet's 1000 classes, among all 1000 logits"
    assert scores["expected_top1"] is None
    # Beside a model that has been trained on these four alone, they are 0 to 3.
    own = write_images(tmp_path / "own", {path.name: [i] for i, path in enumerate(sorted(folder.iterdir()))})
    scores = evaluate_checkpoint(ReadsTheAnswer(4), own, **SETTINGS)
    assert (scores["top1"], scores["classes"]) == (1.0, "the folder's 4 classes, in order of name")


@pytest.mark.slow
def test_all_of_imagenets_classes_have_an_expected_accuracy(tmp_path):
    synsets = imagenet_synsets()
    assert list(synsets.values()) == list(range(1000))
    assert list(synsets) == sorted(synsets)
    # One image of each is the same file under a thousand names, whose answer is class 5.
    source = write_images(tmp_path / "source", {"x": [5]}) / "x/0.png"
    for name in synsets:
        (tmp_path / "imagenet" / name).mkdir(parents=True)
        (tmp_path / "imagenet" / name / "0.png").symlink_to(source)
    model = ReadsTheAnswer(1000)
    model.config = build_config("b2")
    for resolution, expected in ((224, 0.82062), (32, None)):
        conditions = SETTINGS | {"resolution": resolution, "batch_size": 100}
        scores = evaluate_checkpoint(model, tmp_path / "imagenet", **conditions)
        assert scores["top1"] == 0.001
        assert scores["top5"] == 0.005, "of equal logits the lower labels come first: 5, 0, 1, 2, 3"
        assert scores["expected_top1"] == expected
    assert scores["classes"] == "1000 of ImageNet's 1000 classes, among all 1000 logits"


def test_a_thousand_classes_of_other_names_are_numbered_in_order():
    assert label_classes([f"class{index:03}" for index in range(1000)], 1000)[0] == list(range(1000))
    assert label_classes(["n02102040", "n01440764"], 1000)[0] == [217, 0]


@pytest.mark.parametrize(
    ("classes", "num_logits", "labels"),
    [
        (sorted(map(str, range(1000))), 1000, [int(name) for name in sorted(map(str, range(1000)))]),
        (["3", "12", "999"], 1000, [3, 12, 999]),
        (["000", "007", "010"], 11, [0, 7, 10]),
        (["1", "2", "3"], 3, [0, 1, 2]),  # 3 is no logit's number, so they are in order
        (["class9", "class10"], 2, [0, 1]),
    ],
)
def test_classes_that_are_numbers_have_their_number(classes, num_logits, labels):
    assert label_classes(classes, num_logits)[0] == labels


@pytest.mark.parametrize("classes", [["7", "07"], ["5", "x"]])
def test_numbers_that_are_not_plain_are_refused_among_more_logits(classes):
    with pytest.raises(InputError, match="allowed: 10, as the model has logits, and not 2"):
        label_classes(classes, 10)


def test_how_the_classes_were_told_is_said(tmp_path):
    write_images(tmp_path / "numbers", {"0": [0], "10": [10], "9": [9]})
    scores = evaluate_checkpoint(ReadsTheAnswer(11), tmp_path / "numbers", **SETTINGS)
    assert (scores["top1"], scores["classes"]) == (1.0, "3 classes by their number, among all 11 logits")
    write_images(tmp_path / "names", {"c10": [1], "c9": [0]})
    scores = evaluate_checkpoint(ReadsTheAnswer(2), tmp_path / "names", **SETTINGS)
    order = "in order of name as timm sorts, numbers by value"
    assert (scores["top1"], scores["classes"]) == (1.0, f"the folder's 2 classes, {order}")


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "Validation"), ("cat", "dog", "valid")])
def test_splits_are_never_classes(tmp_path, names):
    write_images(tmp_path / "pets", {name: [0] for name in names})
    with pytest.raises(
        InputError, match=r"which is a split and no class; allowed: images as val/CLASS/\* or CLASS/\*$"
    ):
        evaluate_checkpoint(ReadsTheAnswer(len(names)), tmp_path / "pets", **SETTINGS)


def test_below_a_split_a_class_may_be_a_train_but_not_all_of_them_splits(tmp_path):
    write_images(tmp_path / "roads/val", {"bus": [0], "train": [1]})
    assert evaluate_checkpoint(ReadsTheAnswer(2), tmp_path / "roads", **SETTINGS)["top1"] == 1.0
    write_images(tmp_path / "deep/val", {"test": [0], "val": [1]})
    with pytest.raises(InputError, match="has test, val, which is a split and no class"):
        evaluate_checkpoint(ReadsTheAnswer(2), tmp_path / "deep", **SETTINGS)


@pytest.mark.parametrize(
    ("classes", "num_logits", "message"),
    [
        (["cat", "dog"], 1000, "classes='cat, dog' is not possible; allowed: some of ImageNet's, .*or 1000 of other"),
        (["n01440764", "tench"], 1000, "classes='tench' is not possible"),
        ([*list(imagenet_synsets())[:999], "tench"], 1000, "classes='tench' is not possible"),
        (["n01440764", "n02102040"], 10, "classes='n01440764, n02102040' is not possible; allowed: 10,.* not 2"),
        ([f"c{index}" for index in range(9)], 7, "classes='c0, c1, c2, c3, c4 and 4 more' is not possible; allowed: 7"),
    ],
)
def test_classes_that_are_not_the_models_are_refused(classes, num_logits, message):
    with pytest.raises(InputError, match=message) as caught:
        label_classes(classes, num_logits)
    assert "\n" not in str(caught.value)


def test_neither_batches_nor_workers_change_the_scores(tmp_path):
    folder = write_noise(tmp_path, classes=10, images=5)
    model = build_pico(num_classes=10)
    first = evaluate_checkpoint(model, folder, **SETTINGS | {"batch_size": 50, "workers": 1})
    assert 0 < first["top1"] < first["top5"] < 1
    for batch_size, workers in ((50, 3), (1, 1), (7, 2), (64, 4)):
        scores = evaluate_checkpoint(model, folder, **SETTINGS | {"batch_size": batch_size, "workers": workers})
        if batch_size == 50:
            assert scores == first
        assert {**scores, "loss": 0, "ece": 0} == {**first, "loss": 0, "ece": 0}
        assert scores["loss"] == pytest.approx(first["loss"], rel=1e-6)
        assert scores["ece"] == pytest.approx(first["ece"], abs=1e-6)


# timm leaves the images' files open.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("resolution", [48, 64])
def test_the_real_imagenette_as_timms_validation_has_it(shared_data, tmp_path, resolution):
    folder = shared_data / "imagenette224"
    if not folder.is_dir():
        pytest.skip("no imagenette224 in the data directory")
    (tmp_path / "val").mkdir()
    for source in sorted((folder / "val").iterdir()):
        (tmp_path / "val" / source.name).mkdir()
        for image in sorted(source.iterdir())[:4]:
            (tmp_path / "val" / source.name / image.name).symlink_to(image)
    model = build_pico(num_classes=1000)
    scores = evaluate_checkpoint(model, tmp_path, **SETTINGS | {"resolution": resolution, "batch_size": 16})
    assert (scores["n_images"], scores["n_classes"]) == (40, 10)

    config = resolve_data_config(
        {"img_size": resolution}, pretrained_cfg=timm.get_pretrained_cfg("pvt_v2_b2").to_dict()
    )
    loader = create_loader(
        create_dataset("", root=tmp_path, split="val"),
        batch_size=16,
        num_workers=0,
        pin_memory=False,
        device=torch.device("cpu"),
        **config,
    )
    # Imagenette's classes in ImageNet: tench, springer, cassette player, chain saw, church, horn, ...
    labels_of = torch.tensor([0, 217, 482, 491, 497, 566, 569, 571, 574, 701])
    with torch.no_grad():
        batches = [(model(images), labels_of[labels]) for images, labels in loader]
    logits, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    top1, top5 = accuracy(logits, labels, topk=(1, 5))
    assert scores["top1"] == pytest.approx(top1.item() / 100)
    assert scores["top5"] == pytest.approx(top5.item() / 100)
    assert scores["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)


def test_scores_of_single_images():
    logits = torch.tensor([[1.0, 3, 2, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]])
    scores = score_images(logits, torch.tensor([3, 0, 5]))
    assert scores.dtype == torch.float64
    total = sum(math.exp(x) for x in logits[0].tolist())
    expected = [
        [0, 1, math.log(total), math.exp(3) / total],
        [1, 1, math.log(7), 1 / 7],  # of equal ones the first is the first
        [0, 0, math.log(7), 1 / 7],
    ]
    torch.testing.assert_close(scores, torch.tensor(expected, dtype=torch.float64))


def test_calibration_error_is_the_distance_of_confidence_and_accuracy_by_bin():
    # Bins are a fifteenth wide: 0.51 and 0.53 share the eighth, (7/15, 8/15]; 0.95 and 1 the last, 0.6 the ninth.
    confidence = torch.tensor([0.51, 0.53, 0.95, 1.0, 0.6], dtype=torch.float64)
    hits = torch.tensor([1, 0, 1, 1, 0], dtype=torch.float64)
    by_bin = [2 * abs(0.5 - 0.52), 2 * abs(1 - 0.975), 1 * abs(0 - 0.6)]
    assert expected_calibration_error(confidence, hits) == pytest.approx(sum(by_bin) / 5)


def test_a_bin_holds_its_upper_edge_and_sure_models_that_are_right_are_calibrated():
    # 0.2 = 3/15 is in the third bin with 0.15, whose errors cancel; in the fourth bin they would not.
    confidence = torch.tensor([0.2, 0.15], dtype=torch.float64)
    assert expected_calibration_error(confidence, torch.tensor([0.0, 1.0], dtype=torch.float64)) == pytest.approx(
        (1 - 0.35) / 2
    )
    assert expected_calibration_error(torch.ones(4).double(), torch.ones(4).double()) == 0


def test_images_that_cannot_be_read_end_it_or_are_left_out_and_named(tmp_path):
    folder = write_images(tmp_path, {"a": [0, 0, 1], "b": [1, 1, 1]})
    (folder / "a/1.png").write_bytes((folder / "a/1.png").read_bytes()[:45])
    (folder / "b/0.png").write_text("no image")
    model = ReadsTheAnswer(2)
    counted = []
    with pytest.raises(
        InputError, match=r"2 of 6 images cannot be read, first a/1\.png \([^/]*\); mend or .* by --skip-unreadable"
    ) as caught:
        evaluate_checkpoint(
            model, folder, **SETTINGS | {"batch_size": 1}, progress=lambda done, total: counted.append((done, total))
        )
    assert "\n" not in str(caught.value)
    assert model.seen == [0, 0], "after the trial and one image the model rests"
    assert counted == [(done, 6) for done in range(1, 7)]
    for batch_size in (1, 2, 64):
        conditions = SETTINGS | {"batch_size": batch_size, "skip_unreadable": True}
        scores = evaluate_checkpoint(ReadsTheAnswer(2), folder, **conditions)
        assert (scores["top1"], scores["n_images"]) == (0.75, 4)
        assert scores["skipped"] == ["a/1.png", "b/0.png"]


def test_a_folder_without_one_image_that_can_be_read(tmp_path):
    folder = write_images(tmp_path, {"a": [0], "b": [0]})
    for path in folder.glob("*/*"):
        path.write_text("no image")
    with pytest.raises(InputError, match=r"2 of 2 images cannot be read, first a/0\.png \(.*\)$"):
        evaluate_checkpoint(ReadsTheAnswer(2), folder, **SETTINGS, skip_unreadable=True)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere", "{root}/nowhere is missing or has no class folders; allowed: images as val/CLASS"),
        ("flat", "{root}/flat is missing or has no class folders; allowed: images as val/CLASS"),
        ("empty", "{root}/empty has no images .* of class b"),
        ("three", "classes='a, b, c' is not possible; allowed: 2, as the model has logits, and not 3"),
    ],
)
def test_a_folder_that_is_not_laid_out_as_it_must_be_is_one_line(tmp_path, place, message):
    write_images(tmp_path / "flat", {"a": [0]})
    (tmp_path / "flat/a").rename(tmp_path / "moved")
    (tmp_path / "flat/0.png").write_bytes((tmp_path / "moved/0.png").read_bytes())
    write_images(tmp_path / "empty", {"a": [0], "b": []})
    write_images(tmp_path / "three", {"a": [0], "b": [1], "c": [0]})
    with pytest.raises(InputError, match=message.format(root=tmp_path)) as caught:
        evaluate_checkpoint(ReadsTheAnswer(2), tmp_path / place, **SETTINGS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": "papers"}, "protocol='papers'"),
        ({"resolution": 0}, "resolution=0"),
        ({"batch_size": 0}, "batch_size=0 is not possible; allowed: 1 or more"),
        ({"workers": 0}, "workers=0 is not possible; allowed: 1 or more"),
        ({"precision": "fp8"}, "precision='fp8'"),
        ({"device": "tpu"}, "device='tpu'"),
        ({"resolution": 16}, "input shape"),
    ],
)
def test_conditions_that_are_not_possible_are_refused(tmp_path, change, message):
    folder = write_images(tmp_path, {"a": [0], "b": [1]})
    with pytest.raises(InputError, match=message):
        evaluate_checkpoint(build_pico(num_classes=2), folder, **SETTINGS | change)


def test_a_model_of_a_fixed_size_says_so(tmp_path):
    folder = write_images(tmp_path, {"a": [0], "b": [1]})
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=2)
    assert evaluate_checkpoint(model, folder, **SETTINGS)["n_images"] == 2
    with pytest.raises(InputError, match=r"resolution=48 is not possible for this model: .*48") as caught:
        evaluate_checkpoint(model, folder, **SETTINGS | {"resolution": 48})
    assert "\n" not in str(caught.value)


def test_answers_that_are_no_finite_numbers_are_no_result(tmp_path):
    folder = write_images(tmp_path, {"a": [0, 0, 0], "b": [1]})
    with pytest.raises(FloatingPointError, match="the loss of 4 of 4 images is not finite"):
        evaluate_checkpoint(ReadsTheAnswer(2, scale=math.nan), folder, **SETTINGS)


def test_bf16_is_nearly_the_same_and_not_the_same(tmp_path):
    folder = write_noise(tmp_path, classes=3, images=2)
    model = build_pico(num_classes=3)
    exact, rounded = (
        evaluate_checkpoint(model, folder, **SETTINGS | {"precision": precision}) for precision in ("float32", "bf16")
    )
    assert rounded["loss"] != exact["loss"]
    assert rounded["loss"] == pytest.approx(exact["loss"], rel=0.05)


@pytest.mark.parametrize("arm", ["v1", "v1+ope+cffn"])
def test_one_model_at_several_resolutions(tmp_path, arm):
    folder = write_noise(tmp_path, classes=3, images=2)
    model = build_pico(arm, num_classes=3)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    scores = [evaluate_checkpoint(model, folder, **SETTINGS | {"resolution": side}) for side in (32, 48, 80)]
    assert len({entry["loss"] for entry in scores}) == 3
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())


def test_a_released_checkpoint_from_its_file(tmp_path):
    folder = write_noise(tmp_path / "images", classes=3, images=2)
    model = build_pico(num_classes=3)
    expected = evaluate_checkpoint(model, folder, **SETTINGS)
    save_weights(model, tmp_path / "weights.pth")
    fresh = build_model(model.config)
    assert evaluate_checkpoint(fresh, folder, **SETTINGS)["loss"] != expected["loss"]
    load_weights(fresh, tmp_path / "weights.pth")
    assert evaluate_checkpoint(fresh, folder, **SETTINGS) == expected


@pytest.mark.parametrize("other", [{"arm": "v1+ope"}, {"variant": "nano"}, {"num_classes": 5}, {"base": "v1"}])
def test_a_checkpoint_of_another_model_is_one_line(tmp_path, other):
    save_weights(build_pico(), tmp_path / "weights.pth")
    with pytest.raises(InputError, match="does not fit the model, of arm v1") as caught:
        load_weights(build_model(build_config(**{"variant": "pico"} | other)), tmp_path / "weights.pth")
    assert "\n" not in str(caught.value)


def test_weights_that_know_their_classes_are_told_them_by_name(tmp_path):
    folder = write_images(tmp_path, {"cat": [3, 3], "ant": [0]})
    names = ["ant", "bee", "cow", "cat"]
    scores = evaluate_checkpoint(ReadsTheAnswer(4), folder, **SETTINGS, class_names=names)
    assert (scores["top1"], scores["n_classes"]) == (1.0, 2)
    assert scores["classes"] == "2 of the weights' 4 classes, by name, among all 4 logits"
    with pytest.raises(InputError, match="classes='cat' is not possible; allowed: some of those that the weights tell"):
        evaluate_checkpoint(ReadsTheAnswer(4), folder, **SETTINGS, class_names=["ant", "bee", "cow", "dog"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_cuda_scores_as_the_cpu_does(tmp_path, precision):
    folder = write_noise(tmp_path, classes=3, images=3)
    model = build_pico(num_classes=3)
    on_cpu = evaluate_checkpoint(model, folder, **SETTINGS)
    on_cuda = evaluate_checkpoint(model, folder, **SETTINGS | {"device": "cuda", "precision": precision})
    assert on_cuda["n_images"] == 9
    assert on_cuda["loss"] == pytest.approx(on_cpu["loss"], rel=0.05)


@pytest.mark.parametrize(
    ("config", "timm_top1", "paper_top1"),
    [
        (build_config("b0"), 0.70654, 0.705),
        (build_config("b2"), 0.82062, 0.82),
        (build_config("b2", "v1+ope+cffn+lsra"), 0.822, 0.821),
        (build_config("b3"), 0.8312, 0.832),
        (build_config("b5"), 0.8376, 0.838),
        (build_config("tiny", "v1"), None, 0.751),
        (build_config("large", "v1"), None, 0.817),
        # What changes no answer of the released weights:
        (build_config("b2", attention="explicit", drop_path_rate=0.1, img_size=384), 0.82062, 0.82),
        # What makes another model:
        (build_config("b2", "v1+ope"), None, None),
        (build_config("b2", "v1+ope+cffn+lsra", "v2"), None, None),  # no ReLU
        (build_config("b2", "v1", "v2"), None, None),
        (build_config("b2", "v1", img_size=384), None, None),
        (build_config("b2", num_classes=100), None, None),
        (build_config("b0", "v1+ope+cffn+lsra"), None, None),
        (build_config("pico"), None, None),
    ],
)
def test_released_checkpoints_have_an_expected_accuracy(
    config: PVTConfig, timm_top1: float | None, paper_top1: float | None
):
    assert expected_top1(config, "timm") == timm_top1
    assert expected_top1(config, "paper") == pytest.approx(paper_top1)


def test_an_unknown_protocol_has_no_expected_accuracy():
    with pytest.raises(InputError, match="protocol='papers'"):
        expected_top1(build_config("b2"), "papers")


def test_expected_accuracies_are_those_at_224_pixels():
    assert expected_top1(build_config("b2"), "timm", 224) == 0.82062
    assert expected_top1(build_config("b2"), "timm", 256) is None


def test_both_protocols_expect_nearly_the_same():
    for name, top1 in EXPECTED.items():
        assert expected_top1(build_config(*PUBLISHED_MODELS[name]), "paper") == pytest.approx(top1, abs=0.002)
