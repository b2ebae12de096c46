"""Order, resume and augmentation of batches are pure functions of (seed, epoch, step)."""

import dataclasses
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from causalprune.base.compute.runtime import Processes
from causalprune.base.errors import CorruptError, DataError, MismatchError, StorageError, UsageError
from causalprune.base.specs import DataSpec
from causalprune.data.augmentation import CropFlip, RandomCrops
from causalprune.data.batches import Batches
from causalprune.data.datasets import load_data


@pytest.fixture(scope="module")
def digits():
    return load_data(DataSpec())


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Image files of many sizes that are decoded as they are used."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 256, (30 + i, 44 - i, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "train" / name / f"{i:02}.png")
    monkeypatch.setattr("causalprune.data.sources.folders.IN_MEMORY_BYTES", 0)
    return load_data(DataSpec(name=f"imagefolder:{tmp_path}"))


def batches(data, split="train", **options):
    defaults = {"batch_size": 4, "device": "cpu", "seed": 5, "shuffle": True}
    return Batches(data, split, **(defaults | options))


def same(left, right):
    left, right = list(left), list(right)
    return len(left) == len(right) and all(
        a.equal(c) and b.equal(d) for (a, b), (c, d) in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("augment", ["none", "crop", "crop-flip"])
def test_resume_inside_an_epoch_is_bit_identical(digits, augment):
    walk = {"batch_size": 100, "augment": augment}
    whole = list(batches(digits, **walk).epoch(3))
    assert same(batches(digits, **walk).epoch(3, start=5), whole[5:])
    assert not same(batches(digits, **walk).epoch(4), whole)
    assert not same(batches(digits, **walk, seed=6).epoch(3), whole)


def test_an_epoch_visits_every_sample_once(digits):
    walk = batches(digits, batch_size=100)
    assert walk.steps_per_epoch == 13
    assert sorted(walk.order(2).tolist()) == list(range(len(digits.train)))
    labels = torch.cat([targets for _, targets in walk.epoch(2)])
    assert labels.equal(digits.train.targets[walk.order(2)])


def test_normalised_training_data_have_mean_0_and_std_1(digits):
    values = torch.cat([x for x, _ in batches(digits, shuffle=False, batch_size=999).epoch(0)]).double()
    assert values.mean().abs() < 1e-6
    assert (values.std(correction=0) - 1).abs() < 1e-6


@pytest.mark.parametrize("augment", ["none", "crop-flip"])
@pytest.mark.parametrize("count", [2, 3])
def test_processes_gather_their_shares_of_what_one_has(digits, monkeypatch, augment, count):
    walk = {"batch_size": 100, "augment": augment}
    whole = list(batches(digits, **walk).epoch(1))
    gathered, real = [], CropFlip.__call__
    monkeypatch.setattr(CropFlip, "__call__", lambda self, images: gathered.append(len(images)) or real(self, images))
    parts = [list(batches(digits, **walk, group=Processes(rank, count)).epoch(1)) for rank in range(count)]
    joined = [tuple(torch.cat(tensors) for tensors in zip(*own, strict=True)) for own in zip(*parts, strict=True)]
    assert same(joined, whole)
    if augment != "none":
        assert sum(gathered) == len(digits.train)


def test_every_third_batch(digits):
    whole = list(batches(digits, batch_size=100).epoch(1))
    assert same(batches(digits, batch_size=100).epoch(1, start=1, every=3), whole[1::3])


def test_regression_targets_are_standardised_columns():
    data = load_data(DataSpec(name="diabetes"))
    targets = torch.cat([y for _, y in batches(data, shuffle=False).epoch(0)])
    assert targets.shape == (len(data.train), 1)
    raw = data.train.targets.double()
    expected = (raw - raw.mean()) / raw.std(correction=0)
    torch.testing.assert_close(targets[:, 0].double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["crop", "crop-flip"])
@pytest.mark.parametrize("size", [(32, 32), (28, 28), (8, 12)])
def test_batched_augmentation_is_what_torchvision_does_image_by_image(kind, size):
    images = torch.randint(0, 256, (40, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    choice = CropFlip.draw(kind, 40, size, torch.Generator().manual_seed(1))
    v, h = choice.padding
    expected = []
    for image, top, left, flip in zip(images, choice.top, choice.left, choice.flip, strict=True):
        cropped = functional.crop(functional.pad(image, [h, v]), int(top), int(left), *size)
        expected.append(functional.hflip(cropped) if flip else cropped)
    assert choice(images).equal(torch.stack(expected))
    assert choice.flip.any() == (kind == "crop-flip")
    assert (choice.top.min(), choice.top.max()) == (0, 2 * v)
    if size == (32, 32):
        assert choice.padding == (4, 4)


def test_random_resized_crop_is_torchvisions():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8))
    crops = RandomCrops.draw("crop-flip", 60, (24, 24), torch.Generator().manual_seed(0))
    for place in range(60):
        left, top, right, bottom = crops.box(place, *image.size)
        assert 0 <= left < right <= 70 and 0 <= top < bottom <= 50  # noqa: PT018
        assert (right - left) * (bottom - top) > 0.08 * 3500 * 0.9
        expected = functional.resized_crop(image, top, left, bottom - top, right - left, [24, 24])
        expected = functional.hflip(expected) if crops.flip[place] else expected
        assert np.array_equal(np.asarray(crops(image, place)), np.asarray(expected))
    assert 10 < int(crops.flip.sum()) < 50


def test_crop_of_a_narrow_image_falls_back_to_its_centre():
    crops = RandomCrops.draw("crop", 1, (8, 8), torch.Generator().manual_seed(0))
    left, top, right, bottom = crops.box(0, 300, 4)
    assert (right - left, bottom - top) == (5, 4)
    assert left == (300 - 5) // 2


@pytest.mark.parametrize("augment", ["none", "crop-flip"])
def test_workers_change_nothing(photos, augment):
    here = list(batches(photos, augment=augment).epoch(1))
    assert same(batches(photos, augment=augment, num_workers=2).epoch(1), here)
    assert same(batches(photos, augment=augment).epoch(1, start=2), here[2:])
    assert len(here[0][0]) == 4


def test_files_give_what_memory_gives(photos, monkeypatch):
    monkeypatch.undo()
    memory = load_data(photos.spec)
    assert memory.train.inputs.dtype == torch.uint8
    assert memory.fingerprint == photos.fingerprint
    torch.testing.assert_close(memory.normalization.mean, photos.normalization.mean)
    assert same(batches(memory).epoch(0), batches(photos).epoch(0))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_generator_is_left_alone(photos, digits, workers):
    before = torch.get_rng_state()
    list(batches(photos, augment="auto", num_workers=workers).epoch(0))
    list(batches(digits, augment="crop-flip").epoch(0))
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("workers", [0, 1])
def test_corrupt_image_in_an_epoch(photos, workers):
    victim = photos.train.inputs.path(3)
    victim.write_bytes(victim.read_bytes()[:60])
    with pytest.raises(CorruptError, match=victim.name) as caught:
        list(batches(photos, num_workers=workers).epoch(0))
    assert "\n" not in str(caught.value)


def test_an_epoch_that_is_still_alive_at_exit_does_not_keep_the_process_alive(photos):
    # The generator is referred to until the end, and its workers ignore SIGTERM.
    program = (
        "import sys; from causalprune.data.sources import folders; folders.IN_MEMORY_BYTES = 0\n"
        "from causalprune.data.datasets import load_data; from causalprune.data.batches import Batches\n"
        "from causalprune.base.specs import DataSpec\n"
        "data = load_data(DataSpec(name=sys.argv[1]))\n"
        "keep = Batches(data, 'train', batch_size=2, device='cpu', seed=0, shuffle=True, num_workers=2).epoch(0)\n"
        "next(keep); sys.exit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, photos.spec.name], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (3, b"")


def _die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_is_one_line(photos, monkeypatch):
    monkeypatch.setattr("causalprune.data.images.ImageFiles.read", _die)
    with pytest.raises(StorageError, match="`num_workers`") as caught:
        list(batches(photos, num_workers=1).epoch(0))
    assert "\n" not in str(caught.value)


def test_features_cannot_be_cropped():
    with pytest.raises(UsageError, match=r"^`augment`: expected auto or none for features, found crop$"):
        batches(load_data(DataSpec(name="diabetes")), augment="crop")


def test_a_split_without_samples_is_refused(digits):
    empty = dataclasses.replace(digits, test=digits.test.subset(torch.arange(0)))
    with pytest.raises(DataError, match="test split: expected at least one sample, found none"):
        batches(empty, "test")


def sizes(data, batch_size, smallest, count=1, rank=0):
    walk = batches(data, batch_size=batch_size, smallest=smallest, group=Processes(rank, count))
    found = [len(targets) for _, targets in walk.epoch(0)]
    assert len(found) == walk.steps_per_epoch
    return found


@pytest.mark.parametrize(
    ("samples", "batch_size", "expected"),
    [(21, 10, [10, 11]), (22, 10, [10, 10, 2]), (20, 10, [10, 10]), (11, 10, [11]), (2, 10, [2]), (5, 2, [2, 3])],
)
def test_a_last_batch_of_one_joins_the_batch_before(digits, samples, batch_size, expected):
    data = dataclasses.replace(digits, train=digits.train.subset(torch.arange(samples)))
    assert sizes(data, batch_size, 2) == expected
    # What needs no second sample gets the batches that it always had.
    assert sizes(data, batch_size, 1) == [len(part) for part in torch.arange(samples).split(batch_size)]
    merged, plain = batches(data, batch_size=batch_size, smallest=2), batches(data, batch_size=batch_size)
    assert torch.cat([y for _, y in merged.epoch(1)]).equal(torch.cat([y for _, y in plain.epoch(1)]))
    assert same(merged.epoch(1, start=len(expected) - 1), list(merged.epoch(1))[-1:])


@pytest.mark.parametrize("samples", range(48, 56))
def test_no_process_is_left_with_one_sample(digits, samples):
    data = dataclasses.replace(digits, train=digits.train.subset(torch.arange(samples)))
    shares = [sizes(data, 16, 2, count=3, rank=rank) for rank in range(3)]
    assert min(map(min, shares)) >= 2
    assert sum(map(sum, shares)) == samples
    walks = [batches(data, batch_size=16, smallest=2, group=Processes(rank, 3)) for rank in range(3)]
    for step, counts in enumerate(zip(*shares, strict=True)):
        weights = [walk.weight(step) for walk in walks]
        assert weights == pytest.approx([3 * count / sum(counts) for count in counts])


def test_files_are_batched_as_memory_is(photos):
    assert len(photos.train) == 17
    assert sizes(photos, 8, 2) == [8, 9]
    assert sizes(photos, 8, 1) == [8, 8, 1]


def test_batches_that_are_too_small_are_refused_by_name(digits):
    with pytest.raises(UsageError, match=r"^`batch_size`: expected at least 2: .*, found 1$"):
        batches(digits, batch_size=1, smallest=2)
    with pytest.raises(UsageError, match=r"^`batch_size`: expected at least 8: .*, found 4$"):
        batches(digits, batch_size=4, smallest=2, group=Processes(0, 4))
    single = dataclasses.replace(digits, train=digits.train.subset(torch.arange(1)))
    with pytest.raises(DataError, match=r"train split: expected at least 2 samples.*found 1"):
        batches(single, smallest=2)


def test_a_start_beyond_the_epoch(digits):
    walk = batches(digits, batch_size=100)
    assert list(walk.epoch(0, start=13)) == []
    with pytest.raises(MismatchError):
        next(walk.epoch(0, start=14))
