"""Every data set against its raw source, read in another way."""

import io
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import datasets as sklearn_datasets
from sklearn.preprocessing import StandardScaler

from causalprune.base.errors import UsageError
from causalprune.base.specs import DataSpec
from causalprune.data.datasets import load_data
from causalprune.data.images import ImageFiles
from causalprune.data.names import DATASETS

HOSTILE = ["plain", "with space", "quo'te\"s", "new\nline", "ünïcödé-数"]


def write_images(root, part, classes, count, size=(8, 6), mode="RGB", seed=0):
    rng = np.random.default_rng(seed)
    pixels = {}
    for name in classes:
        folder = root / part / name
        folder.mkdir(parents=True)
        for i in range(count):
            shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
            pixels[f"{part}/{name}/{i:03}.png"] = array = rng.integers(0, 256, shape, np.uint8)
            Image.fromarray(array).save(folder / f"{i:03}.png")
    return pixels


@pytest.mark.parametrize(
    ("name", "bunch", "dtype"),
    [
        ("digits", sklearn_datasets.load_digits(), torch.uint8),
        ("breast-cancer", sklearn_datasets.load_breast_cancer(), torch.float32),
        ("diabetes", sklearn_datasets.load_diabetes(scaled=False), torch.float32),
    ],
)
def test_bundled_splits_are_disjoint_and_complete(name, bunch, dtype):
    data = load_data(DataSpec(name=name))
    splits = (data.train, data.validation, data.test)
    # Sample by sample, target included: the three splits are the published samples, each once.
    raw = np.column_stack([bunch.data, bunch.target]).astype(np.float32)
    ours = np.concatenate([np.column_stack([s.inputs.numpy().reshape(len(s), -1), s.targets]) for s in splits])
    assert sorted(map(bytes, np.ascontiguousarray(ours, np.float32))) == sorted(map(bytes, raw))
    assert all(s.inputs.dtype == dtype for s in splits)
    assert len(data.test) == round(0.2 * len(raw))


@pytest.mark.parametrize("name", ["digits", "breast-cancer", "diabetes"])
def test_statistics_are_those_of_the_training_split_alone(name):
    data = load_data(DataSpec(name=name))
    inputs = data.train.inputs
    table = inputs.movedim(1, -1).reshape(-1, data.input_shape[0]).double().numpy()
    scaler = StandardScaler().fit(table)
    np.testing.assert_allclose(data.normalization.mean, scaler.mean_, rtol=1e-6)
    np.testing.assert_allclose(data.normalization.std, scaler.scale_, rtol=1e-6)
    if name == "diabetes":
        targets = data.train.targets.double().numpy()
        np.testing.assert_allclose(data.task.target_normalization.mean, [targets.mean()], rtol=1e-6)
        np.testing.assert_allclose(data.task.target_normalization.std, [targets.std()], rtol=1e-6)


def test_constant_feature_stays_finite(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 3))
    x[:, 1] = 0.1
    np.savez(tmp_path / "c.npz", x=x, y=np.arange(40) % 2)
    data = load_data(DataSpec(name=f"npz:{tmp_path / 'c.npz'}"))
    assert data.normalization.std[1] == 1.0
    assert torch.isfinite(data.normalization(data.test.inputs)).all()


def test_split_seed_moves_validation_and_never_the_test_split():
    a, b = (load_data(DataSpec(split_seed=seed)) for seed in (0, 1))
    assert a.test.inputs.equal(b.test.inputs)
    assert not a.validation.inputs.equal(b.validation.inputs)
    assert a.fingerprint == b.fingerprint


def test_mnist_is_the_bytes_of_the_idx_files(real_data):
    raw = real_data / "MNIST" / "raw"
    if not raw.is_dir():
        pytest.skip("no MNIST in the folder of real data")
    data = load_data(DataSpec(name="mnist", root=str(real_data)))
    images = (raw / "t10k-images-idx3-ubyte").read_bytes()
    labels = (raw / "t10k-labels-idx1-ubyte").read_bytes()
    assert struct.unpack(">IIII", images[:16]) == (2051, 10_000, 28, 28)
    assert data.test.inputs.numpy().tobytes() == images[16:]
    assert bytes(data.test.targets.tolist()) == labels[8:]
    assert len(data.train) + len(data.validation) == 60_000


def test_jpegs_are_what_pillow_decodes(tmp_path, real_data):
    archive = real_data / "cifar10-jpeg.zip"
    if not archive.is_file():
        pytest.skip("no cifar10-jpeg.zip in the folder of real data")
    names = [f"cifar10-jpeg/{p}/{c}/{i:04}.jpg" for p in ("train", "test") for c in ("cat", "truck") for i in range(8)]
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(tmp_path, names)
        expected = [np.asarray(Image.open(io.BytesIO(zipped.read(n))).convert("RGB")) for n in names if "/test/" in n]
    data = load_data(DataSpec(name="imagefolder:cifar10-jpeg", root=str(tmp_path), validation_fraction=0.25))
    assert data.class_names == ("cat", "truck")
    assert data.test.targets.tolist() == [0] * 8 + [1] * 8
    assert np.array_equal(data.test.inputs.permute(0, 2, 3, 1).numpy(), np.stack(expected))
    assert data.augmentation == "crop-flip"


@pytest.mark.parametrize("folder", HOSTILE)
def test_hostile_paths(tmp_path, folder):
    root = tmp_path / folder
    pixels = write_images(root, "train", ["a b", "c'\nd"], 4)
    pixels |= write_images(root, "val", ["c'\nd"], 2, seed=1)
    data = load_data(DataSpec(name=f"imagefolder:{root}", validation_fraction=0.25))
    assert data.class_names == ("a b", "c'\nd")
    assert data.test.targets.tolist() == [1, 1]
    assert np.array_equal(data.test.inputs[0].permute(1, 2, 0), pixels["val/c'\nd/000.png"])
    np.savez(root / "n.npz", x=np.zeros((20, 2)) + np.arange(20)[:, None], y=np.arange(20) % 2)
    assert load_data(DataSpec(name=f"npz:{root / 'n.npz'}")).input_shape == (2,)


def test_fingerprint_of_a_folder_does_not_depend_on_where_it_lies(tmp_path):
    for place in ("one", "two"):
        write_images(tmp_path / place, "train", ["a", "b"], 10)
    one, two = (load_data(DataSpec(name=f"imagefolder:{tmp_path / p}")).fingerprint for p in ("one", "two"))
    assert one == two
    (tmp_path / "two/train/a/000.png").rename(tmp_path / "two/train/a/100.png")
    assert load_data(DataSpec(name=f"imagefolder:{tmp_path / 'two'}")).fingerprint != one


def test_gray_folder_without_test_split(tmp_path):
    pixels = write_images(tmp_path, "train", ["a", "b"], 10, mode="L")
    data = load_data(DataSpec(name=f"imagefolder:{tmp_path}", validation_fraction=0.2))
    assert (data.input_shape, data.augmentation) == ((1, 6, 8), "none")
    # 20 % of 20 for the test, then 20 % of 16, rounded: 3.
    assert [len(s) for s in (data.train, data.validation, data.test)] == [13, 3, 4]
    both = np.concatenate([s.inputs.numpy() for s in (data.train, data.validation, data.test)])
    assert sorted(x.tobytes() for x in both) == sorted(x.tobytes() for x in pixels.values())


def test_images_of_many_sizes_become_squares_of_the_median_side(tmp_path):
    for i, size in enumerate([(20, 30), (24, 24), (40, 28)]):
        write_images(tmp_path / str(i), "train", ["a", "b"], 4, size)
        for name in ("a", "b"):
            (tmp_path / "all" / "train" / name).mkdir(parents=True, exist_ok=True)
            for file in (tmp_path / str(i) / "train" / name).iterdir():
                file.rename(tmp_path / "all" / "train" / name / f"{i}-{file.name}")
    data = load_data(DataSpec(name=f"imagefolder:{tmp_path / 'all'}"))
    assert data.input_shape == (3, 24, 24)


def test_resize_is_torchvisions_resize_with_centre_crop(tmp_path):
    from torchvision.transforms import functional

    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    ours = ImageFiles.from_names(tmp_path, ["a.png"], (3, 28, 28)).read(torch.tensor([0]))[0]
    theirs = functional.center_crop(functional.resize(Image.fromarray(pixels), 32), [28, 28])
    assert np.array_equal(ours.permute(1, 2, 0), np.asarray(theirs))


def test_threads_decode_what_one_thread_decodes(tmp_path, monkeypatch):
    pixels = write_images(tmp_path, "train", ["a"], 9)
    files = ImageFiles.from_names(tmp_path, list(pixels), (3, 6, 8))
    alone = files.read(torch.arange(9))
    monkeypatch.setattr("causalprune.data.images.THREADED_PIXELS", 0)
    assert files.read(torch.arange(9)).equal(alone)
    assert np.array_equal(alone.permute(0, 2, 3, 1), np.stack(list(pixels.values())))


def test_imagenet_has_the_published_constants(tmp_path):
    write_images(tmp_path, "train", ["n01", "n02"], 5, (30, 20))
    write_images(tmp_path, "val", ["n01", "n02"], 2, (224, 224))
    data = load_data(DataSpec(name="imagenet", root=str(tmp_path)))
    assert data.input_shape == (3, 224, 224)
    torch.testing.assert_close(data.normalization.mean / 255, torch.tensor([0.485, 0.456, 0.406]))
    assert len(data.test) == 4


def test_tiny_imagenet_in_its_published_layout(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    for wnid in ("n2", "n1"):
        write_images(root, f"train/{wnid}", ["images"], 4, (64, 64))
    pixels = write_images(root, "val", ["images"], 2, (64, 64), seed=9)
    (root / "val/val_annotations.txt").write_text("001.png\tn1\t0\t0\t9\t9\n000.png\tn2\t0\t0\t9\t9\n")
    data = load_data(DataSpec(name="tiny-imagenet", root=str(tmp_path), validation_fraction=0.25))
    assert data.class_names == ("n1", "n2")
    assert data.test.targets.tolist() == [0, 1]
    assert np.array_equal(data.test.inputs[0].permute(1, 2, 0), pixels["val/images/001.png"])


@pytest.mark.parametrize("layout", ["first", "last", "gray"])
def test_npz_images_in_either_layout(tmp_path, layout):
    first = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 9), np.uint8)
    x = {"first": first, "last": first.transpose(0, 2, 3, 1), "gray": first[:, 0]}[layout]
    np.savez_compressed(tmp_path / "d.npz", x_train=x, y_train=np.arange(20) % 2, x_test=x, y_test=np.arange(20) % 2)
    data = load_data(DataSpec(name="npz:d.npz", root=str(tmp_path)))
    assert np.array_equal(data.test.inputs, first[:, :1] if layout == "gray" else first)


def test_factory_from_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / "my_factory_module.py").write_text(
        "import torch\n"
        "def make():\n"
        "    x = torch.arange(60.0).view(30, 2)\n"
        "    return {'x': x, 'y': [i % 3 for i in range(30)], 'class_names': ['p', 'q', 'r']}\n"
    )
    monkeypatch.chdir(tmp_path)
    data = load_data(DataSpec(name="my_factory_module:make"))
    assert data.class_names == ("p", "q", "r")
    assert sorted(torch.cat([s.inputs[:, 0] for s in (data.train, data.validation, data.test)])) == list(
        range(0, 60, 2)
    )


def test_a_registered_data_set_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "registered_data.py").write_text(
        "from causalprune.data.sources.arrays import read_arrays\n"
        "def stripes(spec):\n"
        "    x = [[i, int(spec.folder().name)] for i in range(30)]\n"
        "    return read_arrays({'x': x, 'y': [i % 2 for i in range(30)]}, 'stripes')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(DATASETS, "stripes", "registered_data:stripes")
    assert load_data(DataSpec(name="stripes", root="/7")).normalization.mean[1] == 7
    with pytest.raises(UsageError, match="`data_root`: expected the folder with the files of stripes"):
        load_data(DataSpec(name="stripes"))
