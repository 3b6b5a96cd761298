"""The text: files, domains, splits, windows, batches, baselines."""

import numpy as np
import pytest

from experiments.lm import data
from experiments.lm.config import BadInput
from tests.experiments import corpus

SIZES = {"length": 16, "valid_fraction": 0.1, "valid_windows": 40}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return data.load(corpus.write(tmp_path_factory.mktemp("text")), **SIZES)


def test_the_standard_library_is_there_and_its_tests_are_not():
    text = data.load(None, length=128, valid_fraction=0.05, valid_windows=64)
    assert text.about["bytes"] > 5e6
    assert {"encodings", "email", "asyncio", "single files"} <= set(text.domains)
    assert not {"test", "idlelib", "site-packages"} & set(text.domains)
    assert 0.04 < text.about["valid_bytes"] / text.about["bytes"] < 0.12
    counted = data.baselines(text)
    assert 4.2 < counted["unigram"].overall < 5.2
    assert 3.2 < counted["bigram"].overall < 4.0


def test_every_byte_is_a_target_once(text, tmp_path):
    files = sorted(p for p in corpus.write(tmp_path).rglob("*") if p.is_file())
    whole = data.load(tmp_path, **SIZES | {"valid_windows": 10**6})
    windows = [w[i] for w in (whole.train, whole.valid) for i in range(len(w))]
    seen = sorted(bytes(w["targets"][w["mask"]].astype(np.uint8)) for w in windows)
    assert sum(map(len, seen)) == sum(p.stat().st_size for p in files)
    texts = [p.read_bytes() for p in files]
    assert seen == sorted(t[i : i + 16] for t in texts for i in range(0, len(t), 16))


def test_a_window_begins_with_nul_and_is_shifted_by_one(text):
    last = next(i for i in range(len(text.train)) if not text.train[i]["mask"].all())
    for i in (0, last):
        window = text.train[i]
        n = window["mask"].sum()
        assert window["inputs"][0] == 0
        assert window["id"] == i
        np.testing.assert_array_equal(window["inputs"][1:], window["targets"][:-1])
        assert window["mask"][:n].all()
        assert (window["targets"][:n] > 0).all()
        assert (window["targets"][n:] == 0).all()


def test_small_entries_are_grouped_and_each_domain_is_held_out(text):
    domains = ("alpha", "beta", "gamma", "single files", "small folders")
    assert text.domains == domains
    # A domain of one file has nothing to hold out.
    assert set(text.valid.domain) == {0, 1, 2, 3}
    assert set(text.train.domain) == {0, 1, 2, 3, 4}
    np.testing.assert_allclose(text.shares.sum(), 1)


def test_the_split_depends_on_a_file_s_path_not_on_the_others_content(text, tmp_path):
    folder = corpus.write(tmp_path)
    again = data.load(folder, **SIZES)
    assert again.about["digest"] == text.about["digest"]
    path = folder / "alpha" / "part0.py"
    path.write_text(path.read_text().upper())
    changed = data.load(folder, **SIZES)
    assert changed.about["digest"] != text.about["digest"]
    np.testing.assert_array_equal(changed.valid.start, text.valid.start)


def test_batches_are_the_same_for_all_and_go_on_from_a_state(text):
    one, two = (data.batches(text.train, batch_size=4, seed=7) for _ in range(2))
    first = [next(one) for _ in range(3)]
    for batch in first[:2]:
        assert (next(two)["id"] == batch["id"]).all()
    late = data.batches(text.train, batch_size=4, seed=7)
    late.set_state(two.get_state())
    assert (next(late)["id"] == first[2]["id"]).all()
    shapes = {name: (x.shape, x.dtype.name) for name, x in first[0].items()}
    assert shapes == {
        "id": ((4,), "int32"),
        "domain": ((4,), "int32"),
        "inputs": ((4, 16), "int32"),
        "targets": ((4, 16), "int32"),
        "mask": ((4, 16), "bool"),
    }


def test_an_epoch_shows_every_example_and_the_next_another_order(text):
    n = len(text.train)
    stream = data.batches(text.train, batch_size=1, seed=0)
    ids = [int(next(stream)["id"][0]) for _ in range(2 * n)]
    assert sorted(ids[:n]) == sorted(ids[n:]) == list(range(n))
    assert ids[:n] != ids[n:]


def test_bits_weigh_domains_by_their_share(text):
    lengths = text.valid.stop - text.valid.start
    nll = lengths * np.log(2) * (text.valid.domain + 1)
    bits = data.bits(nll, text)
    names = text.domains[:4]
    assert bits.domains == pytest.approx(dict(zip(names, (1, 2, 3, 4), strict=True)))
    shares = text.shares[:4] / text.shares[:4].sum()
    assert bits.overall == pytest.approx(shares @ [1, 2, 3, 4])


def test_baselines_equal_counting_by_hand(text):
    single, double = np.ones(256), np.zeros((256, 256))
    for window in (text.train[i] for i in range(len(text.train))):
        live = window["mask"]
        for before, byte in zip(
            window["inputs"][live], window["targets"][live], strict=True
        ):
            single[byte] += 1
            double[before, byte] += 1
    single /= single.sum()
    double = (double + single) / (double.sum(1)[:, None] + 1)
    nll = {"unigram": [], "bigram": []}
    for window in (text.valid[i] for i in range(len(text.valid))):
        live = window["mask"]
        before, byte = window["inputs"][live], window["targets"][live]
        nll["unigram"].append(-np.log(single[byte]).sum())
        nll["bigram"].append(-np.log(double[before, byte]).sum())
    for name, bits in data.baselines(text).items():
        assert bits.overall == pytest.approx(
            data.bits(np.array(nll[name]), text).overall
        )


def test_stack_fills_the_last_batch_with_masked_rows(text):
    batches = data.stack(text.valid, 7)
    assert all(batch["inputs"].shape == (7, 16) for batch in batches)
    ids = np.concatenate([batch["id"] for batch in batches])
    assert (ids[: len(text.valid)] == np.arange(len(text.valid))).all()
    assert (ids[len(text.valid) :] == -1).all()
    assert not batches[-1]["mask"][batches[-1]["id"] == -1].any()


def test_files_that_are_no_text_are_left_out(tmp_path):
    folder = corpus.write(tmp_path)
    (folder / "picture.png").write_bytes(b"\x89PNG\0\1")
    (folder / "empty.txt").write_bytes(b"")
    (folder / ".hidden.txt").write_text("hidden")
    with_them = data.load(folder, **SIZES)
    assert with_them.about["files"] == 19
    assert with_them.about["binary_files_left_out"] == 1


def test_two_files_are_enough_whatever_their_domains(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "one.txt").write_text("first")
    (tmp_path / "two.txt").write_text("second")
    text = data.load(tmp_path, **SIZES)
    assert text.domains == ("single files", "small folders")
    assert len(text.train) == len(text.valid) == 1


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"--data: .*nowhere is not a folder"):
        data.load(tmp_path / "nowhere", **SIZES)
    with pytest.raises(BadInput, match="--data: no text in "):
        data.load(tmp_path, **SIZES)
    (tmp_path / "one.txt").write_text("alone")
    with pytest.raises(BadInput, match="a split by file needs two"):
        data.load(tmp_path, **SIZES)
    (tmp_path / "two.txt").symlink_to(tmp_path / "gone")
    with pytest.raises(BadInput, match=r"--data: cannot read .*two\.txt: No such file"):
        data.load(tmp_path, **SIZES)
