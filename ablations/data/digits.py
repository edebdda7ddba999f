"""The hand-written digits that scikit-learn ships."""

from pathlib import Path

import torch

from ablations.data.splits import SPLIT_SEED, LabelledImages


def read_digits(name: str, directory: Path) -> tuple[LabelledImages, LabelledImages]:
    """Returns 80 % for training and 20 % for validation: the split is stratified and always the same."""
    # Deferred: scikit-learn takes a second to import and no other data set needs it.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = torch.from_numpy(digits.images[:, None] * (255 / 16)).round().to(torch.uint8)  # its levels are 0 to 16
    labels = torch.from_numpy(digits.target).long()
    train, validation = train_test_split(
        torch.arange(len(labels)), test_size=0.2, stratify=labels, random_state=SPLIT_SEED
    )
    return (images[train], labels[train]), (images[validation], labels[validation])
