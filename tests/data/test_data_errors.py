"""Bad data: the right type, hence exit code, on one line that names the culprit."""

import io
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from causalprune.base.errors import CorruptError, DataError, StorageError, UsageError
from causalprune.base.specs import DataSpec
from causalprune.data.datasets import load_data

X, Y = np.arange(80.0).reshape(40, 2), np.arange(40) % 2


def fails(error, spec, *words, **options):
    with pytest.raises(error) as caught:
        load_data(spec, **options)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (DataSpec(name="cifar_10"), ("did you mean 'cifar10'", "digits")),
        (DataSpec(name="npz:"), ("npz:",)),
        (DataSpec(name="mnist"), ("`data_root`",)),
        (DataSpec(validation_fraction=1.5), ("`validation_fraction`", "1.5")),
        (DataSpec(name="diabetes", augment="crop"), ("`augment`",)),
        (DataSpec(name="diabetes", task="classification"), ("`task`", "regression for diabetes")),
        (DataSpec(task="clusters"), ("`task`", "'clusters'")),
        (DataSpec(channels="last"), ("`channels`", "digits")),
        (DataSpec(name="npz:a\0b"), ("`dataset`",)),
        (DataSpec(name="no_such_module_here:make"), ("no_such_module_here",)),
        (DataSpec(name="json:no_such_function"), ("no_such_function",)),
    ],
)
def test_usage(spec, words):
    fails(UsageError, spec, *words)


def test_untrusted_code_is_not_run():
    fails(CorruptError, DataSpec(name="json:loads"), "`trust_code`", trust_code=False)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100", "imagenet", "tiny-imagenet"])
def test_missing_files(tmp_path, name):
    fails(DataError, DataSpec(name=name, root=str(tmp_path)), str(tmp_path), "`data_root`")


def test_damaged_mnist(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{kind}-ubyte").write_bytes(b"\0\0\x08\x03\0\0\xff\xff")
    fails(CorruptError, DataSpec(name="mnist", root=str(tmp_path)), str(raw))
    (raw / "t10k-labels-idx1-ubyte").unlink()
    os.mkfifo(raw / "t10k-labels-idx1-ubyte")
    fails(DataError, DataSpec(name="mnist", root=str(tmp_path)), "a special file")


@pytest.mark.parametrize(
    ("arrays", "error", "words"),
    [
        ({"x": X, "y": Y[:-1]}, DataError, ("40 and 39",)),
        ({"x": X}, DataError, ("y_train",)),
        ({"x": X[:0], "y": Y[:0]}, DataError, ("at least one sample",)),
        ({"x": np.where(X == 3, np.nan, X), "y": Y}, DataError, ("1 NaN", "sample 1")),
        ({"x": X * 1e300, "y": Y}, DataError, ("infinite",)),
        ({"x": X, "y": np.arange(40) * 3}, DataError, ("40 different", "`task=classification`")),
        ({"x": X, "y": np.arange(40).astype(str)}, DataError, ("40 different", "`task=classification`")),
        ({"x": X, "y": np.eye(40)[:, :3]}, DataError, ("one-hot", "row 3")),
        ({"x": X, "y": np.ones((40, 2, 1))}, DataError, ("shape (40, 2, 1)",)),
        ({"x": X, "y": np.full((40, 2), "a")}, DataError, ("shape (40, 2)",)),
        ({"x": X, "y": np.array([b"\xff", b"b"])[Y]}, DataError, ("UTF-8",)),
        ({"x": X, "y": np.array([np.nan, 1])[Y]}, DataError, ("20 NaN",)),
        ({"x": X, "y": X[:, 0].astype("M8[s]")}, DataError, ("datetime64",)),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y.astype(str)}, DataError, ("y_test like y_train",)),
        ({"x": X, "y": np.array(["a", "b"])[Y], "class_names": np.array(["a", "c"])}, DataError, ("'b'",)),
        ({"x": X, "y": np.array(["a", "b"])[Y], "class_names": np.array(["a", "a"])}, DataError, ("each once",)),
        ({"x": X, "y": Y * 0}, DataError, ("2 classes",)),
        ({"x": X, "y": Y * 0.0}, DataError, ("vary",)),
        ({"x": X[:, 0], "y": Y}, DataError, ("shape (40,)",)),
        ({"x": np.full((40, 8, 8), 256), "y": Y}, DataError, ("256",)),
        ({"x": X.astype(str), "y": Y}, DataError, ("dtype",)),
        ({"x": X, "y": Y.astype(object)}, CorruptError, ("pickle",)),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y + 1}, DataError, ("label 2", "y_test")),
        ({"x_train": X, "y_train": Y, "x_test": X[:, :1], "y_test": Y}, DataError, ("x_test",)),
        ({"x": X, "y": Y, "class_names": np.array(["a"])}, DataError, ("2 strings",)),
    ],
)
def test_npz_contents(tmp_path, arrays, error, words):
    np.savez(tmp_path / "d.npz", **arrays)
    fails(error, DataSpec(name="npz:d.npz", root=str(tmp_path)), "d.npz", *words)


def test_npz_files(tmp_path):
    spec = DataSpec(name="npz:d.npz", root=str(tmp_path))
    path = tmp_path / "d.npz"
    fails(DataError, spec, "nothing")
    path.touch()
    fails(DataError, spec, "an empty file")
    path.write_bytes(b"\x80\x04nonsense")
    fails(CorruptError, spec, str(path))
    np.savez(path, x=X, y=Y)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    fails(CorruptError, spec)
    path.write_bytes(whole[:300] + bytes([whole[300] ^ 1]) + whole[301:])
    fails(CorruptError, spec)
    path.unlink()
    path.mkdir()
    fails(DataError, spec, "a directory")
    path.rmdir()
    os.mkfifo(path)
    fails(DataError, spec, "a special file")
    path.unlink()
    path.symlink_to(path)
    fails(DataError, spec, "a circle")
    fails(DataError, DataSpec(name="npz:/dev/zero"), "a special file")
    fails(DataError, DataSpec(name="npz:~nobody-of-this-name/d.npz"), "~nobody-of-this-name")
    fails(StorageError, DataSpec(name=f"npz:{'a' * 300}"), "too long")


@pytest.mark.parametrize("shape", ["(1000000000000000000,)", "(40, 3)", "(-1, -80)"])
def test_npz_header_that_lies_about_its_size(tmp_path, shape):
    header = ("{'descr': '<f8', 'fortran_order': False, 'shape': " + shape + "}").ljust(117) + "\n"
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr(
            "x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + X.tobytes()
        )
        buffer = io.BytesIO()
        np.save(buffer, Y)
        archive.writestr("y.npy", buffer.getvalue())
    fails(CorruptError, DataSpec(name="npz:d.npz", root=str(tmp_path)), "x in")


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / "train" / name / f"{i}.jpg")
    return tmp_path


@pytest.mark.parametrize("damage", [b"", b"not an image", None])
def test_corrupt_image_is_named(folder, damage):
    victim = folder / "train" / "b" / "3.jpg"
    victim.write_bytes(victim.read_bytes()[:-200] if damage is None else damage)
    fails(CorruptError, DataSpec(name=f"imagefolder:{folder}"), str(victim))


def test_folder_errors(folder):
    spec = DataSpec(name=f"imagefolder:{folder}")
    fails(DataError, DataSpec(name=f"imagefolder:{folder / 'absent'}"), "absent")
    (folder / "test" / "c").mkdir(parents=True)
    fails(DataError, spec, "'c'")
    (folder / "test" / "c").rmdir()
    fails(DataError, spec, "test")
    (folder / "test").rmdir()
    (folder / "train" / "empty").mkdir()
    fails(DataError, spec, "empty", "at least one image")


@pytest.mark.parametrize(
    ("image", "word"), [(Image.new("I;16", (8, 8)), "8 bits"), (Image.new("L", (1, 900)), "100:1")]
)
def test_images_that_cannot_be_used(folder, image, word):
    image.save(folder / "train" / "a" / "0.png")
    fails(DataError, DataSpec(name=f"imagefolder:{folder}"), "0.png", word)


def test_factory_failures(tmp_path, monkeypatch):
    (tmp_path / "bad_factories.py").write_text(
        "def raises():\n    raise ValueError('two\\nlines')\ndef wrong():\n    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    fails(DataError, DataSpec(name="bad_factories:raises"), "ValueError: two\\nlines")
    fails(DataError, DataSpec(name="bad_factories:wrong"), "int")


def test_too_few_samples_to_split(tmp_path):
    np.savez(tmp_path / "d.npz", x_train=X[:4], y_train=Y[:4], x_test=X, y_test=Y)
    fails(
        DataError, DataSpec(name="npz:d.npz", root=str(tmp_path), validation_fraction=0.1), "validation split", "0 of 4"
    )
