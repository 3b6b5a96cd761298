"""Images: sources, augmentation, mixing of rows that other processes have."""

import dataclasses
import sys

import numpy as np
import pytest

from experiments import data
from experiments.config import BadInput, Data
from experiments.data import augment

CONFIG = Data(data=("digits",), batch_size=8, valid_examples=64)
BOTH = ("flip", "crop", "mixup=0.4", "cutmix=1")


def load(*sources, **changed):
    paths = tuple(map(str, sources))
    return data.load(dataclasses.replace(CONFIG, data=paths, **changed), seed=0)


def said(*sources, **changed):
    with pytest.raises(BadInput) as caught:
        load(*sources, **changed)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rows(split):
    return split.store.take(split.of(np.arange(len(split))))


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("sklearn")
    return load("digits")


def stream(dataset, *, process=0, processes=1, seed=3, **changed):
    config = dataclasses.replace(CONFIG, **changed)
    share = {"process": process, "processes": processes}
    return data.stream(dataset, config, steps=10, seed=seed, **share)


def test_digits_are_read_and_split(digits):
    assert (digits.kind, digits.classes, digits.image) == ("images", 10, (8, 8, 1))
    train, valid = rows(digits.train[0]), rows(digits.valid[0])
    assert len(train["labels"]) + len(valid["labels"]) == 1797
    assert len(valid["labels"]) == 90
    assert set(valid["labels"]) == set(range(10))
    whole = np.concatenate([train["image"], valid["image"]])
    assert (whole.min(), whole.max()) == (-1, 1)
    assert len(np.unique(whole.reshape(len(whole), -1), axis=0)) == 1797
    shapes = {k: (x.shape, x.dtype.name) for k, x in next(stream(digits)).items()}
    assert shapes == {
        "id": ((8,), "int32"),
        "domain": ((8,), "int32"),
        "image": ((8, 8, 8, 1), "float32"),
        "labels": ((8,), "int32"),
        "mask": ((8,), "bool"),
    }


def test_without_scikit_learn_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    needs = "--data: digits needs scikit-learn: pip install 'jaxtricks[data]'"
    assert said("digits") == needs


# CIFAR


def write_cifar(folder, label_bytes):
    """The layout of the two, with few images; returns planes and labels of all."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    names = {
        1: [*(f"data_batch_{i}.bin" for i in (1, 2)), "test_batch.bin"],
        2: ["train.bin", "test.bin"],
    }[label_bytes]
    planes = rng.integers(0, 256, (len(names), 6, 3, 32, 32), dtype=np.uint8)
    labels = rng.integers(0, 10, (len(names), 6, label_bytes), dtype=np.uint8)
    for name, pixels, label in zip(names, planes, labels, strict=True):
        content = np.concatenate([label, pixels.reshape(6, -1)], axis=1)
        (folder / name).write_bytes(content.tobytes())
    what = "fine_label_names.txt" if label_bytes == 2 else "batches.meta.txt"
    (folder / what).write_text("names\n")
    return planes, labels


@pytest.mark.parametrize(("label_bytes", "classes"), [(1, 10), (2, 100)])
def test_cifar_folders_are_read(tmp_path, label_bytes, classes):
    folder = tmp_path / "cifar"
    planes, labels = write_cifar(folder, label_bytes)
    dataset = load(folder)
    assert (dataset.classes, dataset.image) == (classes, (32, 32, 3))
    train, valid = rows(dataset.train[0]), rows(dataset.valid[0])
    for split, files in ((train, slice(0, -1)), (valid, slice(-1, None))):
        wanted = planes[files].reshape(-1, 3, 32, 32)
        for channel in range(3):
            pixels = (split["image"][..., channel] + 1) * 127.5
            np.testing.assert_allclose(pixels, wanted[:, channel], atol=1e-3)
        np.testing.assert_array_equal(split["labels"], labels[files, :, -1].ravel())


def test_bad_cifar_gets_one_line(tmp_path):
    folder = tmp_path / "cifar"
    write_cifar(folder, 1)
    path = folder / "data_batch_1.bin"
    content = path.read_bytes()
    path.write_bytes(b"\x0b" + content[1:])
    assert said(folder) == f"--data: {folder}: no CIFAR-10, came label 11"
    path.write_bytes(content[:-1])
    assert said(folder).endswith("bytes are no whole number of CIFAR records of 3073")


# Saved by datasets


@pytest.fixture
def hub():
    return pytest.importorskip("datasets")


def pictures(hub, shape=(6, 7, 3), n=12, **more):
    pixels = np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)
    features = hub.Features(
        {"image": hub.Image(), "label": hub.ClassLabel(num_classes=4)}
    )
    content = {"image": list(pixels), "label": [i % 4 for i in range(n)]} | more
    return hub.Dataset.from_dict(content, features=features), pixels


def test_a_saved_set_of_pictures_is_read(tmp_path, hub):
    made, pixels = pictures(hub)
    splits = {"train": made.select(range(8)), "test": made.select(range(8, 12))}
    hub.DatasetDict(splits).save_to_disk(tmp_path / "set")
    dataset = load(tmp_path / "set")
    assert (dataset.classes, dataset.image) == (4, (6, 7, 3))
    train, valid = rows(dataset.train[0]), rows(dataset.valid[0])
    np.testing.assert_allclose((train["image"] + 1) * 127.5, pixels[:8], atol=1e-3)
    np.testing.assert_allclose((valid["image"] + 1) * 127.5, pixels[8:], atol=1e-3)
    assert valid["labels"].tolist() == [0, 1, 2, 3]


def test_grey_pictures_are_held_out_by_row_and_resized(tmp_path, hub):
    made, _ = pictures(hub, shape=(6, 8))
    made.save_to_disk(tmp_path / "set")
    dataset = load(tmp_path / "set", valid_fraction=0.25, image_size=4)
    assert dataset.image == (4, 4, 1)
    assert (len(dataset.train[0]), len(dataset.valid[0])) == (9, 3)
    batch = next(stream(dataset, workers=2))
    assert batch["image"].shape == (8, 4, 4, 1)


def test_a_saved_set_of_arrays_is_read(tmp_path, hub):
    features = hub.Features(
        {"image": hub.Array3D((4, 4, 3), "uint8"), "fine_label": hub.Value("int64")}
    )
    pixels = np.arange(5 * 48, dtype=np.uint8).reshape(5, 4, 4, 3)
    content = {"image": pixels, "fine_label": [0, 1, 2, 6, 1]}
    hub.Dataset.from_dict(content, features=features).save_to_disk(tmp_path / "set")
    dataset = load(tmp_path / "set")
    assert (dataset.classes, dataset.image) == (7, (4, 4, 3))
    both = [rows(x[0]) for x in (dataset.train, dataset.valid)]
    found = np.concatenate([x["image"] for x in both])
    sums = ((found + 1) * 127.5).sum(axis=(1, 2, 3))
    wanted = pixels.sum(axis=(1, 2, 3))
    np.testing.assert_allclose(np.sort(sums), wanted, rtol=1e-6)
    assert said(tmp_path / "set", image_size=2).startswith("--image-size: only pict")


@pytest.mark.parametrize("pixel", [0.5, -1.0, 256.0])
def test_arrays_of_other_pixels_are_refused(tmp_path, hub, pixel):
    features = {"image": hub.Array2D((4, 4), "float32"), "label": hub.Value("int64")}
    content = {"image": [[[pixel] * 4] * 4] * 6, "label": [0, 1] * 3}
    made = hub.Dataset.from_dict(content, features=hub.Features(features))
    made.save_to_disk(tmp_path / "set")
    with pytest.raises(BadInput, match="wanted whole numbers from 0 to 255"):
        load(tmp_path / "set")


def test_bad_sets_of_pictures_get_one_line(tmp_path, hub):
    made, _ = pictures(hub)
    other, _ = pictures(hub, shape=(5, 5, 3))
    mixed = hub.concatenate_datasets([made, other])
    mixed.save_to_disk(tmp_path / "sizes")
    wanted = "images of (6, 7, 3) and (5, 5, 3); --image-size makes them one"
    assert said(tmp_path / "sizes").endswith(wanted)
    assert load(tmp_path / "sizes", image_size=5).image == (5, 5, 3)
    made.remove_columns("label").save_to_disk(tmp_path / "bare")
    assert said(tmp_path / "bare").endswith("wanted a column label; it has image")
    blank, _ = pictures(hub, label=[None] * 12)
    blank.save_to_disk(tmp_path / "blank")
    assert said(tmp_path / "blank").endswith("wanted a label >= 0 for every image")
    made.save_to_disk(tmp_path / "good")
    shapes = said(tmp_path / "good", "digits")
    assert shapes.startswith("--data: wanted images of one shape, came (6, 7, 3) and")


# Augmentation


def test_flags_of_augmentation():
    assert augment.parse(("crop", "mixup")) == {"crop": 0.0, "mixup": 1.0}
    assert list(augment.parse(BOTH)) == ["flip", "crop", "mixup", "cutmix"]
    for bad, wanted in {
        "turn": "wanted flip, crop, mixup=ALPHA or cutmix=ALPHA, came 'turn'",
        "mixup=0": "wanted mixup=ALPHA > 0, came 'mixup=0'",
        "cutmix=x": "wanted cutmix=ALPHA > 0, came 'cutmix=x'",
        "flip=1": "came 'flip=1'",
    }.items():
        with pytest.raises(BadInput, match=wanted):
            augment.parse((bad,))
    with pytest.raises(BadInput, match="flip is given twice"):
        augment.parse(("flip", "flip"))


def images(n=5, height=16, width=12):
    return np.random.default_rng(0).normal(size=(n, height, width, 3))


def test_a_flip_is_its_own_inverse_and_turns_columns_round():
    x, chosen = images(), np.array([True, False, True, True, False])
    once = augment.flip(x, chosen)
    np.testing.assert_array_equal(augment.flip(once, chosen), x)
    np.testing.assert_array_equal(once[1], x[1])
    np.testing.assert_array_equal(once[0][:, 0], x[0][:, -1])


def test_a_crop_is_a_shift_onto_grey():
    x = images()
    middle = np.full((5, 2), 0.5)
    np.testing.assert_array_equal(augment.crop(x, middle), x)
    corner = augment.crop(x, np.zeros((5, 2)))  # by an eighth: 2 rows, 1 column
    np.testing.assert_array_equal(corner[:, 2:, 1:], x[:, :-2, :-1])
    assert not corner[:, :2].any()
    assert not corner[:, :, :1].any()
    far = augment.crop(x, np.full((5, 2), 1 - 1e-9))
    np.testing.assert_array_equal(far[:, :-2, :-1], x[:, 2:, 1:])


def test_a_box_has_the_area_it_should():
    rng = np.random.default_rng(0)
    share = rng.random(200)
    inside = augment.boxes(share, np.full((200, 2), 0.5), (64, 64))
    np.testing.assert_allclose(inside.mean(axis=(1, 2)), 1 - share, atol=0.03)
    assert augment.boxes(np.array([0.0]), np.array([[0.5, 0.5]]), (8, 8)).all()
    assert not augment.boxes(np.array([1.0]), np.array([[0.5, 0.5]]), (8, 8)).any()
    # At the edge it is cut off.
    corner = augment.boxes(np.array([0.75]), np.zeros((1, 2)), (8, 8))
    assert corner[0].sum() == 4


@pytest.mark.parametrize("each", [(), ("flip", "crop")])
def test_mixup_adds_the_partner_in_its_share(digits, each):
    plain = next(stream(digits, augment=each))
    mixed = next(stream(digits, augment=(*each, "mixup=0.4")))
    share = mixed["share"]
    assert share.dtype == np.float32
    assert mixed["labels_b"].dtype == np.int32
    assert ((share >= 0) & (share <= 1)).all()
    assert len(set(share.tolist())) == 8
    np.testing.assert_array_equal(mixed["id"], plain["id"])
    np.testing.assert_array_equal(mixed["labels"], plain["labels"])
    for row in range(8):
        s = share[row]
        partners = s * plain["image"][row] + (1 - s) * plain["image"]
        error = np.abs(partners - mixed["image"][row]).max(axis=(1, 2, 3))
        assert error.min() < 1e-6
        assert mixed["labels_b"][row] == plain["labels"][error.argmin()]


def test_cutmix_takes_a_box_and_counts_its_pixels(digits):
    plain = next(stream(digits))
    mixed = next(stream(digits, augment=("cutmix=1",)))
    for row in range(8):
        image, own = mixed["image"][row], mixed["image"][row] == plain["image"][row]
        covered = [p for p in range(8) if (own | (image == plain["image"][p])).all()]
        assert mixed["labels_b"][row] in plain["labels"][covered]
        assert own.mean() >= mixed["share"][row] - 1e-6
    assert ((mixed["share"] * 64) % 1 == 0).all()


@pytest.mark.parametrize("spec", [("flip", "crop"), ("mixup=0.4",), BOTH])
def test_the_number_of_processes_changes_no_augmentation(digits, spec):
    whole = stream(digits, augment=spec)
    parts = [
        stream(digits, augment=spec, process=p, processes=4, workers=p % 2)
        for p in range(4)
    ]
    for _ in range(4):
        batches = [next(part) for part in parts]
        joined = {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}
        np.testing.assert_equal(joined, next(whole))
    for part in parts:
        part.close()


def test_augmentation_depends_on_seed_and_batch_and_resumes(digits):
    one, two, other = (stream(digits, augment=BOTH, seed=s) for s in (1, 1, 2))
    next(one)
    two.set_state(one.get_state())
    np.testing.assert_equal(next(one), next(two))
    assert (next(two)["share"] != next(other)["share"]).any()


def test_with_both_a_batch_takes_one_and_each_is_taken(digits):
    cut = []
    mixing = stream(digits, augment=("mixup=1", "cutmix=1"))
    for _ in range(20):
        cut.append(bool(((next(mixing)["share"] * 64) % 1 == 0).all()))
    assert 3 < sum(cut) < 17


def test_validation_is_not_augmented(digits):
    config = dataclasses.replace(CONFIG, augment=BOTH)
    batches = data.validation(digits, config, batch=30)
    assert set(batches[0]) == {"id", "domain", "image", "labels", "mask"}
    assert [int(b["mask"].sum()) for b in batches] == [30, 30, 4]
    held_out = rows(digits.valid[0])
    for batch in batches:
        at = batch["id"][batch["mask"]]
        image = batch["image"][batch["mask"]]
        np.testing.assert_array_equal(image, held_out["image"][at])
        assert (batch["id"][~batch["mask"]] == -1).all()
