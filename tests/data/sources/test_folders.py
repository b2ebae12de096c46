"""Folders of images in the layouts that people have them in."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from causalprune.base.errors import DataError
from causalprune.base.specs import DataSpec
from causalprune.data.datasets import load_data
from causalprune.data.sources.listing import IMAGE_SUFFIXES

CLASSES = ("ant", "bee")


def write(folder, count=8, *, classes=CLASSES, ending="png", mode="RGB", first=0):
    """Images of 4×4 whose value is their number, counted from ``first``; returns these numbers."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            value = first + label * count + i
            image = Image.fromarray(np.full((4, 4), value, np.uint8)).convert(mode)
            image.save(folder / name / f"{i}.{ending}", format="png")
    return set(range(first, first + count * len(classes)))


def load(root, **options):
    return load_data(DataSpec(name=f"imagefolder:{root}", validation_fraction=0.25, **options))


def numbers(split):
    return {int(value) for value in split.inputs[:, 0, 0, 0]}


@pytest.mark.parametrize("name", ["test", "Testing", "val", "valid", "validation", "VAL"])
def test_one_other_split_is_the_test_split(tmp_path, name):
    train, other = write(tmp_path / "train"), write(tmp_path / name, 2, first=100)
    data = load(tmp_path)
    assert numbers(data.test) == other
    assert numbers(data.train) | numbers(data.validation) == train
    assert len(data.validation) == 4
    assert any("is the test split" in note for note in data.notes) == (not name.lower().startswith("test"))


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_three_splits_are_used_as_they_are(tmp_path, name):
    train = write(tmp_path / "Train")
    validation, test = write(tmp_path / name, 3, first=50), write(tmp_path / "test", 2, first=100)
    data = load(tmp_path)
    assert [numbers(split) for split in (data.train, data.validation, data.test)] == [train, validation, test]
    assert any("is the validation split" in note for note in data.notes)
    (tmp_path / name / "ant" / "0.png").unlink()
    assert load(tmp_path).fingerprint != data.fingerprint


def test_images_without_classes_are_not_a_test_split(tmp_path):
    train = write(tmp_path / "train")
    write(tmp_path, 5, classes=["test"])
    data = load(tmp_path)
    assert any(f"{tmp_path}/test: not used" in note for note in data.notes)
    assert numbers(data.train) | numbers(data.validation) | numbers(data.test) == train
    # A folder of the other name that has classes is then the test split.
    valid = write(tmp_path / "valid", 2, first=100)
    assert numbers(load(tmp_path).test) == valid


def test_without_any_split_the_folders_are_the_classes(tmp_path):
    every = write(tmp_path)
    data = load(tmp_path)
    assert data.class_names == CLASSES
    assert numbers(data.train) | numbers(data.validation) | numbers(data.test) == every
    assert any("all splits are cut" in note for note in data.notes)


def test_test_images_alone_are_no_training_data(tmp_path):
    write(tmp_path / "test")
    with pytest.raises(DataError, match="expected a folder train beside 'test'"):
        load(tmp_path)


def test_two_folders_of_one_split_are_ambiguous(tmp_path):
    for name in ("train", "val", "valid"):
        write(tmp_path / name)
    with pytest.raises(DataError, match="found 'val' and 'valid'"):
        load(tmp_path)


@pytest.mark.parametrize("ending", ["jfif", "JPG", "JPEG", "Png", "TIFF", "WebP", "jpe"])
def test_endings_in_any_case(tmp_path, ending):
    every = write(tmp_path, ending=ending)
    data = load(tmp_path)
    assert numbers(data.train) | numbers(data.validation) | numbers(data.test) == every


def test_the_documents_list_the_endings():
    text = (Path(__file__).parents[3] / "docs" / "data.md").read_text()
    assert set(re.findall(r"`(\.[a-z]+)`", text.partition("Endings are")[2].partition(", in upper")[0])) == {
        *IMAGE_SUFFIXES
    }


def test_what_is_left_out_is_counted_and_named(tmp_path):
    write(tmp_path / "train")
    (tmp_path / "train" / "ant" / "notes.txt").touch()
    (tmp_path / "train" / "bee" / "deeper").mkdir()
    (tmp_path / "train" / "bee" / "deeper" / "x.gif").touch()
    os.mkfifo(tmp_path / "train" / "bee" / "pipe.png")
    (tmp_path / "train" / "bee" / "circle.png").symlink_to("circle.png")
    (tmp_path / "train" / "loop").symlink_to("loop")
    (tmp_path / "train" / "bee" / "link").symlink_to(tmp_path)
    (tmp_path / "train" / "Thumbs.db").touch()
    (tmp_path / "train" / ".hidden").touch()
    (tmp_path / "tset").mkdir()
    (tmp_path / "labels.csv").touch()
    data = load(tmp_path)
    (note,) = data.notes
    assert "9 left out" in note
    assert "'tset/', 'labels.csv', 'train/Thumbs.db', …" in note
    assert len(data.train) + len(data.validation) + len(data.test) == 16


def test_a_class_whose_files_all_are_left_out(tmp_path):
    write(tmp_path / "train")
    (tmp_path / "train" / "cat").mkdir()
    (tmp_path / "train" / "cat" / "a.gif").touch()
    with pytest.raises(DataError, match=r"cat: expected at least one image, found 1 other files, such as 'train"):
        load(tmp_path)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_color_image_among_gray_ones_makes_all_of_them_colored(tmp_path, monkeypatch, part):
    monkeypatch.setattr("causalprune.data.sources.folders.SAMPLED_HEADERS", 2)
    for name in ("train", "test"):
        write(tmp_path / name, mode="L")
    data = load(tmp_path)
    assert (data.input_shape, data.notes) == ((1, 4, 4), ())
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[..., 0] = 200
    Image.fromarray(pixels).save(tmp_path / part / "ant" / "5.png")
    data = load(tmp_path)
    assert data.input_shape == (3, 4, 4)
    red = [split.inputs for split in (data.train, data.validation, data.test)]
    assert sum(int((images[:, 0] != images[:, 1]).all((1, 2)).sum()) for images in red) == 1
    (note,) = data.notes
    assert f"{part}/ant/5.png: has colors" in note


def test_a_color_image_in_a_set_too_large_for_memory_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("causalprune.data.sources.folders.SAMPLED_HEADERS", 2)
    monkeypatch.setattr("causalprune.data.sources.folders.IN_MEMORY_BYTES", 0)
    write(tmp_path, mode="L")
    write(tmp_path, 1, classes=["ant"], mode="RGBA", first=5)
    (tmp_path / "ant" / "0.png").rename(tmp_path / "ant" / "6.png")
    with pytest.raises(DataError, match=r"ant/6.png: expected a gray image"):
        load(tmp_path)
