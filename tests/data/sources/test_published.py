"""CIFAR and Fashion-MNIST in the published formats, written here byte by byte; and downloads that fail."""

import hashlib
import pickle
import urllib.error

import numpy as np
import pytest
import torch
import torchvision.datasets

from causalprune.base.errors import CorruptError, DataError
from causalprune.base.specs import DataSpec
from causalprune.data.datasets import load_data


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Ten images a file, each row 1024 red, 1024 green, 1024 blue values, as the CIFAR-10 page describes."""
    cls, rng = torchvision.datasets.CIFAR10, np.random.default_rng(0)
    folder = tmp_path / cls.base_folder
    folder.mkdir()
    written = {}

    def write(name, content):
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch(name):
        written[name] = rng.integers(0, 256, (10, 3072), np.uint8)
        return write(name, {"data": written[name], "labels": list(range(10))})

    monkeypatch.setattr(cls, "train_list", [batch(f"data_batch_{i}") for i in range(1, 6)])
    monkeypatch.setattr(cls, "test_list", [batch("test_batch")])
    name, md5 = write("batches.meta", {"label_names": [f"class {i}" for i in range(10)]})
    monkeypatch.setattr(cls, "meta", {"filename": name, "key": "label_names", "md5": md5})
    return tmp_path, written


def test_cifar_pixels_are_the_rows_of_the_files(cifar):
    root, written = cifar
    data = load_data(DataSpec(name="cifar10", root=str(root), validation_fraction=0.2))
    assert np.array_equal(data.test.inputs, written["test_batch"].reshape(10, 3, 32, 32))
    assert data.test.targets.tolist() == list(range(10))
    assert (data.augmentation, data.class_names[3]) == ("crop-flip", "class 3")
    assert torch.bincount(data.validation.targets).tolist() == [1] * 10


def test_damaged_cifar_is_never_unpickled(cifar):
    root, _ = cifar
    (root / "cifar-10-batches-py" / "data_batch_2").write_bytes(b"cposix\nsystem\n(S'false'\ntR.")
    with pytest.raises(CorruptError, match="cifar-10-batches-py"):
        load_data(DataSpec(name="cifar10", root=str(root)))


def test_fashion_mnist_from_idx_files(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    rng, images = np.random.default_rng(0), {}
    for part, count in (("train", 40), ("t10k", 20)):
        images[part] = rng.integers(0, 256, (count, 28, 28), np.uint8)
        header = b"".join(n.to_bytes(4, "big") for n in (2051, count, 28, 28))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + images[part].tobytes())
        labels = bytes(i % 10 for i in range(count))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes((2049).to_bytes(4, "big") + count.to_bytes(4, "big") + labels)
    data = load_data(DataSpec(name="fashion-mnist", root=str(tmp_path), validation_fraction=0.25))
    assert np.array_equal(data.test.inputs[:, 0], images["t10k"])
    assert data.class_names[9] == "Ankle boot"


def test_a_download_without_network_is_one_line(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", refuse)
    with pytest.raises(DataError, match="no route to host>; check the network"):
        load_data(DataSpec(name="cifar100", root=str(tmp_path), download=True))
