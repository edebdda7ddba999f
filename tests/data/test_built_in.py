"""Built-in data sets: what is loaded, from where, and what is refused."""

import re
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.datasets import FashionMNIST

from ablations.data import digits
from ablations.data.loading import check_data, load_data
from ablations.errors import InputError
from ablations.measure import Accuracy

FASHION = Accuracy(data="fashion-mnist")


def write_idx(path: Path, array: torch.Tensor) -> None:
    """Writes bytes in the format of MNIST: two zeros, the type 8, the number of dimensions, the sizes, the data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.to(torch.uint8).numpy().tobytes())


def write_fashion_mnist(folder: Path, train: int = 40, test: int = 10) -> None:
    for name, count in (("train", train), ("t10k", test)):
        levels = torch.arange(count * 28 * 28).reshape(count, 28, 28) % 251
        write_idx(folder / f"FashionMNIST/raw/{name}-images-idx3-ubyte", levels)
        write_idx(folder / f"FashionMNIST/raw/{name}-labels-idx1-ubyte", torch.arange(count) % 10)


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])


def test_digits_are_split_by_class_and_always_the_same_way():
    data = load_data(Accuracy(seed=0), None)
    assert data.train_images.shape == (1437, 1, 32, 32)
    assert data.eval_images.shape == (360, 1, 32, 32)
    assert data.train_images.dtype == torch.uint8
    train, validation = torch.bincount(data.train_labels), torch.bincount(data.eval_labels)
    share = validation / (train + validation)
    assert len(share) == 10
    assert ((share - 0.2).abs() < 0.005).all()
    assert torch.equal(load_data(Accuracy(seed=7), None).eval_images, data.eval_images)
    together = torch.cat([data.train_images, data.eval_images]).flatten(1)
    assert len(together.unique(dim=0)) == 1797, "an image is in both splits, or was lost"


def test_digits_use_the_whole_range_and_the_other_resolution_is_the_same_split():
    small, large = (load_data(Accuracy(resolution=resolution), None) for resolution in (8, 64))
    assert (small.train_images.min(), small.train_images.max()) == (0, 255)
    assert large.train_images.shape == (1437, 1, 64, 64)
    assert torch.equal(small.train_labels, large.train_labels)


def test_fashion_mnist_is_padded_to_32_pixels(tmp_path):
    write_fashion_mnist(tmp_path)
    data = load_data(FASHION, tmp_path)
    assert data.train_images.shape == (40, 1, 32, 32)
    assert data.eval_images.shape == (10, 1, 32, 32)
    inner = torch.arange(40 * 28 * 28).reshape(40, 1, 28, 28) % 251
    assert torch.equal(data.train_images[:, :, 2:30, 2:30].long(), inner)
    assert data.train_images.long().sum() == inner.sum(), "the border is not zero"
    assert data.train_labels.tolist() == [index % 10 for index in range(40)]


def test_fashion_mnist_is_resized_to_other_resolutions(tmp_path):
    write_fashion_mnist(tmp_path)
    data = load_data(replace(FASHION, resolution=56, train_images=20), tmp_path)
    assert data.train_images.shape == (20, 1, 56, 56)
    assert data.eval_images.shape == (10, 1, 56, 56)
    assert torch.bincount(data.train_labels).tolist() == [2] * 10


def test_fashion_mnist_without_files_and_network_is_one_line(tmp_path, no_network):
    for act in (lambda: load_data(FASHION, tmp_path), lambda: check_data("fashion-mnist", 10, tmp_path)):
        with pytest.raises(InputError, match=r"fashion-mnist can be neither read from .* nor downloaded") as caught:
            act()
        assert "\n" not in str(caught.value)
        assert str(tmp_path / "FashionMNIST" / "raw") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_of_fashion_mnist_is_one_line(tmp_path):
    write_fashion_mnist(tmp_path)
    path = tmp_path / "FashionMNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="fashion-mnist can be neither read"):
        check_data("fashion-mnist", 10, tmp_path)


def test_the_real_fashion_mnist(shared_data):
    check_data("fashion-mnist", 10, shared_data)
    data = load_data(replace(FASHION, train_images=1000), shared_data)
    assert torch.bincount(data.train_labels).tolist() == [100] * 10
    assert torch.bincount(data.eval_labels).tolist() == [1000] * 10
    assert data.train_images.shape == (1000, 1, 32, 32)
    assert 55 < data.mean < 56.5  # 0.286 of 255 on 28 x 28 pixels, over 32 x 32 pixels with their zero border
    assert data.may_flip


@pytest.mark.parametrize(
    ("file", "labels", "message"),
    [
        ("train", [*range(10), 10, 200], "has a label 10; allowed: 0 to 9"),
        ("t10k", [*range(9), 255], "has a label 255; allowed: 0 to 9"),
        ("train", [0, 1, 2, 3, 5, 6, 7, 8, 9], "has 40 images and 9 labels in one split"),
        ("t10k", [0, 1, 2, 3, 5, 6, 7, 8, 9, 9], "has no images of class 4"),
    ],
)
def test_labels_that_are_not_the_images_are_one_line(tmp_path, file, labels, message):
    write_fashion_mnist(tmp_path, train=40)
    labels = labels * 40 if len(labels) > 10 else labels
    write_idx(tmp_path / f"FashionMNIST/raw/{file}-labels-idx1-ubyte", torch.tensor(labels[:40]))
    with pytest.raises(
        InputError, match=rf"^fashion-mnist in FashionMNIST/raw of the data directory {message}"
    ) as caught:
        check_data("fashion-mnist", 10, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.rand(10, 1, 8, 8), torch.arange(10), "has images of torch.float32 and shape (10, 1, 8, 8)"),
        (torch.zeros(10, 8, 8, dtype=torch.uint8), torch.arange(10), "has images of torch.uint8 and shape (10, 8, 8)"),
        (torch.zeros(10, 1, 8, 8, dtype=torch.uint8), torch.arange(1, 11), "has a label 10; allowed: 0 to 9"),
    ],
)
def test_what_a_reader_without_files_may_not_return_is_one_line(monkeypatch, images, labels, message):
    monkeypatch.setattr(digits, "read_digits", lambda name, directory: ((images, labels), (images, labels)))
    with pytest.raises(InputError, match=f"^digits {re.escape(message)}"):
        check_data("digits", 10, None)
