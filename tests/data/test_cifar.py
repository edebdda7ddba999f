"""CIFAR: its records, its download, and what is refused."""

import tarfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from hashlib import md5
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch

from ablations.data import cifar as cifar_module
from ablations.data.cifar import CIFARS, _read_records, fetch_cifar, read_cifar
from ablations.data.loading import check_data, load_data
from ablations.data.registry import DATA_SETS
from ablations.errors import InputError
from ablations.measure import Accuracy

CONDITIONS = {name: Accuracy(data=name, num_classes=DATA_SETS[name].num_classes) for name in CIFARS}


def draw_images(count: int, seed: int) -> torch.Tensor:
    return torch.randint(256, (count, 3, 32, 32), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def write_cifar(directory: Path, name: str, labels: torch.Tensor) -> None:
    """Writes each file of a set with one image for each of the labels (N,); coarse labels, if any, are 19."""
    cifar = CIFARS[name]
    (directory / DATA_SETS[name].folder).mkdir(parents=True)
    for number, file in enumerate((*cifar.train, *cifar.validation)):
        before = torch.full((len(labels), cifar.labels), 19, dtype=torch.uint8)
        before[:, -1] = labels
        records = torch.cat([before, draw_images(len(labels), number).flatten(1)], dim=1)
        (directory / DATA_SETS[name].folder / file).write_bytes(records.numpy().tobytes())


@pytest.fixture(params=CIFARS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar_module, "SITE", "http://127.0.0.1:9/")


def test_images_and_labels_are_those_of_the_records(tmp_path: Path, name: str) -> None:
    classes, files = DATA_SETS[name].num_classes, len(CIFARS[name].train)
    labels = torch.randperm(classes, generator=torch.Generator().manual_seed(0))
    write_cifar(tmp_path, name, labels)
    check_data(name, classes, tmp_path)
    data = load_data(CONDITIONS[name], tmp_path)
    assert torch.equal(data.train_images, torch.cat([draw_images(classes, number) for number in range(files)]))
    assert torch.equal(data.eval_images, draw_images(classes, files))
    assert data.train_labels.tolist() == labels.tolist() * files
    assert data.eval_labels.tolist() == labels.tolist()
    assert (data.train_labels.dtype, data.may_flip, data.skipped) == (torch.int64, True, ())
    levels = data.train_images.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(data.mean, levels.mean(dim=1).float())
    torch.testing.assert_close(data.std, levels.std(dim=1, correction=0).float())
    assert data.mean.shape == data.std.shape == (3,)


def test_a_subset_at_another_resolution(tmp_path: Path) -> None:
    write_cifar(tmp_path, "cifar10", torch.arange(10))
    data = load_data(replace(CONDITIONS["cifar10"], train_images=20, resolution=40), tmp_path)
    assert data.train_images.shape == (20, 3, 40, 40)
    assert data.eval_images.shape == (10, 3, 40, 40)
    assert torch.bincount(data.train_labels).tolist() == [2] * 10


def test_the_sets_are_known_by_their_classes(tmp_path: Path, name: str) -> None:
    write_cifar(tmp_path, name, torch.arange(DATA_SETS[name].num_classes))
    check_data(name, {"cifar10": 10, "cifar100": 100}[name], tmp_path)
    with pytest.raises(
        InputError, match=f"num_classes=20 is not possible; allowed: {DATA_SETS[name].num_classes}, which"
    ):
        check_data(name, 20, tmp_path)


def test_labels_out_of_range_and_classes_without_an_image_are_one_line(tmp_path: Path, name: str) -> None:
    classes = DATA_SETS[name].num_classes
    write_cifar(tmp_path / "over", name, torch.arange(classes + 1))
    write_cifar(tmp_path / "under", name, torch.arange(classes - 1))
    for place, message in (
        ("over", f"has a label {classes}; allowed: 0 to {classes - 1}"),
        ("under", f"has no images of class {classes - 1}$"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            check_data(name, classes, tmp_path / place)
        assert str(caught.value).startswith(f"{name} in {DATA_SETS[name].folder} of the data directory has ")


@pytest.mark.parametrize("size", [0, 3072])
def test_a_file_that_holds_no_whole_records_is_one_line(tmp_path: Path, name: str, size: int) -> None:
    write_cifar(tmp_path, name, torch.arange(DATA_SETS[name].num_classes))
    file = tmp_path / DATA_SETS[name].folder / CIFARS[name].validation[0]
    file.write_bytes(file.read_bytes()[:size])
    place = f"{name}: {DATA_SETS[name].folder}/{file.name}"
    with pytest.raises(InputError, match=rf"^{place} is not one of its files \(ValueError: {size} bytes") as caught:
        check_data(name, DATA_SETS[name].num_classes, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_opened_is_named_without_its_place(tmp_path: Path, name: str) -> None:
    write_cifar(tmp_path, name, torch.arange(DATA_SETS[name].num_classes))
    file = tmp_path / DATA_SETS[name].folder / CIFARS[name].validation[0]
    file.unlink()
    with pytest.raises(InputError, match=f"{file.name} is not one of its files .FileNotFoundError") as caught:
        _read_records(name, file, 3073)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.usefixtures("no_network")
def test_without_files_and_network_it_is_one_line(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "data"
    for act in (lambda: load_data(CONDITIONS[name], directory), lambda: fetch_cifar(name, directory)):
        with pytest.raises(InputError, match=f"{name} can be neither read from .* nor downloaded") as caught:
            act()
        assert "\n" not in str(caught.value)
        assert str(directory / DATA_SETS[name].folder) in str(caught.value)
        assert "the binary version" in str(caught.value)
    assert not directory.exists()


@pytest.mark.usefixtures("no_network")
def test_a_set_that_is_there_in_part_is_left_alone(tmp_path: Path, name: str) -> None:
    write_cifar(tmp_path, name, torch.arange(2))
    (tmp_path / DATA_SETS[name].folder / CIFARS[name].train[-1]).unlink()
    with pytest.raises(InputError, match="some of its files are missing there"):
        fetch_cifar(name, tmp_path)
    assert (tmp_path / DATA_SETS[name].folder / CIFARS[name].validation[0]).is_file()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *values: object) -> None:
        pass


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is served where the sets are looked for."""
    folder = tmp_path_factory.mktemp("site")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setattr(cifar_module, "SITE", f"http://127.0.0.1:{server.server_port}/")
        yield folder
        server.shutdown()
        thread.join()


def test_it_is_downloaded_checked_and_unpacked(
    tmp_path: Path, site: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cifar = CIFARS[name]
    write_cifar(tmp_path / "made", name, torch.arange(DATA_SETS[name].num_classes))
    with tarfile.open(site / cifar.archive, "w:gz") as archive:
        archive.add(tmp_path / "made" / DATA_SETS[name].folder, arcname=DATA_SETS[name].folder)
    with pytest.raises(InputError, match=r"neither read .*RuntimeError: File not found or corrupted"):
        fetch_cifar(name, tmp_path / "data")  # what is served is not what the checksum says
    right = replace(cifar, md5=md5((site / cifar.archive).read_bytes()).hexdigest())
    monkeypatch.setitem(CIFARS, name, right)
    fetch_cifar(name, tmp_path / "data")
    assert {path.name for path in (tmp_path / "data").iterdir()} == {cifar.archive, DATA_SETS[name].folder}
    splits = [read_cifar(name, tmp_path / place) for place in ("data", "made")]
    for got, made in zip(*splits, strict=True):
        assert all(map(torch.equal, got, made))
