"""Windows and batches of them, against a slow reference."""

import itertools

import numpy as np
import pytest

from experiments.config import BadInput
from experiments.data.packing import Cuts, Documents, best_fit, checked, pack
from experiments.data.store import Parts

HOW = ("windows", "stream", "fit")
LENGTHS = [5, 0, 23, 1, 8, 16, 7, 2, 40, 1, 1, 9, 3, 3, 3]


def some(begin, lengths=LENGTHS, parts=1):
    """Documents whose tokens are all different, 1000 in number at most."""
    stop = np.cumsum(lengths)
    tokens = np.arange(1, stop[-1] + 1, dtype=np.uint16)
    split = np.array_split(tokens, parts)
    return Documents(Parts.of(*split), stop - lengths, stop, begin)


def packed(documents, how, length=8, group=None, groups=1):
    if group is None:
        group = np.zeros(len(documents.start), int)
    return pack(documents, group, groups, how=how, length=length, classes=1000)


def segments(batch):
    """(inputs, targets, positions) of each segment, in the order of the batch."""
    for row in range(len(batch["mask"])):
        of = {name: x[row] for name, x in batch.items()}
        for s in range(1, of["segments"].max() + 1):
            here = of["segments"] == s
            yield tuple(of[name][here] for name in ("inputs", "targets", "positions"))


def reference(documents, how, length, begin):
    """Windows as lists of (inputs, targets), by loops over tokens."""
    tokens = documents.tokens.at(np.arange(documents.tokens.size)).tolist()
    pairs = []  # of each document: (input in a stream, target, is the first)
    for a, b in zip(documents.start, documents.stop, strict=True):
        doc = tokens[a:b] if begin is None else [begin, *tokens[a:b]]
        pairs.append(list(itertools.pairwise(doc)))
    if how == "stream":
        flat = [(d, pair) for d, doc in enumerate(pairs) for pair in doc]
        windows = [flat[i : i + length] for i in range(0, len(flat), length)]
        return [
            [[p for of, p in w if of == d] for d in dict.fromkeys(of for of, _ in w)]
            for w in windows
        ]
    pieces = [d[i : i + length] for d in pairs for i in range(0, len(d), length)]
    if begin is not None:
        pieces = [[(begin, piece[0][1]), *piece[1:]] for piece in pieces]
    if how == "windows":
        return [[piece] for piece in pieces]
    bins = []
    for piece in sorted(pieces, key=len, reverse=True):
        room = [length - sum(map(len, b)) for b in bins]
        fits = [i for i, r in enumerate(room) if r >= len(piece)]
        if fits:
            bins[min(fits, key=lambda i: room[i])].append(piece)
        else:
            bins.append([piece])
    return bins


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("begin", [None, 0, 999])
@pytest.mark.parametrize("parts", [1, 4])
def test_windows_equal_those_made_by_loops(how, begin, parts):
    documents = some(begin, parts=parts)
    (rows,) = packed(documents, how)
    batch = rows.store.take(rows.of(np.arange(len(rows))))
    expected = reference(documents, how, 8, begin)
    assert len(rows) == len(expected)
    found = []
    for row in range(len(rows)):
        one = {name: x[row : row + 1] for name, x in batch.items()}
        found.append([list(zip(i, t, strict=True)) for i, t, _ in segments(one)])
    if how == "fit":  # which bin of equal room is taken is free
        found, expected = (sorted(map(sorted, x)) for x in (found, expected))
        sizes = [sorted(sorted(map(len, b)) for b in x) for x in (found, expected)]
        assert sizes[0] == sizes[1]
        found, expected = (sorted(p for b in x for p in b) for x in (found, expected))
    assert found == expected


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("begin", [None, 0])
def test_every_token_is_a_target_once_whatever_the_documents(how, begin):
    rng = np.random.default_rng(0)
    for _ in range(20):
        documents = some(begin, [*rng.integers(0, 30, rng.integers(1, 12)), 1])
        if (documents.stop - documents.first).max() < 1:
            continue
        length = int(rng.integers(1, 20))
        (rows,) = packed(documents, how, length)
        batch = rows.store.take(rows.of(rng.permutation(len(rows))))
        targets = np.sort(batch["targets"][batch["mask"]])
        wanted = np.arange(1, documents.tokens.size + 1)
        if begin is None:
            wanted = np.setdiff1d(wanted, documents.start + 1)
        np.testing.assert_array_equal(targets, wanted)


@pytest.mark.parametrize("how", HOW)
def test_positions_count_within_a_piece_and_padding_is_blank(how):
    (rows,) = packed(some(0), how)
    batch = rows.store.take(rows.of(np.arange(len(rows))))
    for _, targets, positions in segments(batch):
        np.testing.assert_array_equal(positions, np.arange(len(positions)))
        np.testing.assert_array_equal(np.diff(targets), 1)
    live = batch["mask"]
    np.testing.assert_array_equal(live, batch["segments"] > 0)
    for name in ("targets", "positions"):
        assert not batch[name][~live].any()
    assert (np.diff(live.astype(int), axis=1) <= 0).all()  # only at the end
    assert {x.dtype.name for x in batch.values()} == {"int32", "bool"}


def test_a_row_is_the_same_in_any_batch():
    (rows,) = packed(some(None), "fit")
    whole = rows.store.take(np.arange(len(rows)))
    for name, x in rows.store.take(np.array([3, 0, 3])).items():
        np.testing.assert_array_equal(x, whole[name][[3, 0, 3]])


@pytest.mark.parametrize("how", HOW)
def test_groups_are_packed_apart(how):
    documents = some(0)
    group = np.arange(len(LENGTHS)) % 3
    together = packed(documents, how, group=group, groups=3)
    for g, rows in enumerate(together):
        (alone,) = packed(documents.select(group == g), how)
        np.testing.assert_equal(
            rows.store.take(rows.of(np.arange(len(rows)))),
            alone.store.take(np.arange(len(alone))),
        )


def test_best_fit_is_tight_and_fast():
    size = np.random.default_rng(0).integers(1, 513, 200_000)
    where = best_fit(size, 512)
    load = np.bincount(where, size)
    assert load.max() <= 512
    assert load.mean() > 0.998 * 512
    np.testing.assert_array_equal(where, best_fit(size, 512))


@pytest.mark.parametrize("eos", [None, 3])
def test_plain_cuts_are_like_a_stream_of_the_files_documents(eos):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 6, n).astype(np.uint16) for n in (50, 1, 33, 0, 17)]
    parts = Parts.of(*arrays)
    cuts = Cuts.of(parts, length=8, eos=eos, classes=6)
    batch = cuts.take(np.arange(len(cuts)))
    at = 0
    for array in (a.tolist() for a in arrays):
        before = array[:-1] if eos is None else [eos, *array[:-1]]
        after = array[1:] if eos is None else array
        for i in range(0, len(after), 8):
            n = len(after[i : i + 8])
            assert batch["mask"][at].tolist() == [True] * n + [False] * (8 - n)
            assert batch["inputs"][at, :n].tolist() == before[i : i + 8]
            assert batch["targets"][at, :n].tolist() == after[i : i + 8]
            segment, position = 1, 0
            for j in range(n):
                if j and before[i + j] == eos:
                    segment, position = segment + 1, 0
                assert batch["segments"][at, j] == segment
                assert batch["positions"][at, j] == position
                position += 1
            assert not batch["segments"][at, n:].any()
            at += 1
    assert at == len(cuts)
    assert {x.dtype.name for x in batch.values()} == {"int32", "bool"}


def test_cuts_of_a_huge_file_cost_no_memory(tmp_path):
    path = tmp_path / "huge.bin"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a hole
    parts = Parts.of(np.asarray(np.memmap(path, np.uint16, "r")))
    cuts = Cuts.of(parts, length=1024, eos=None, classes=9)
    assert len(cuts) == 1 << 29
    assert cuts.take(np.array([len(cuts) - 1]))["mask"].sum() == 1023


def test_the_tail_is_the_last_documents_or_the_end_of_one():
    train, valid = some(0).tail(0.1)
    assert valid.start[0] == train.stop[-1]
    held_out = (valid.stop - valid.start).sum()
    assert held_out == 9  # 9 more would be too many
    train, valid = some(0, [100]).tail(0.1)
    assert (train.stop[0], valid.start[0], valid.stop[0]) == (90, 90, 100)


def test_a_last_document_that_is_most_of_it_is_cut():
    train, valid = some(0, [8, 93]).tail(0.1)
    assert (train.stop.tolist(), valid.start.tolist()) == ([8, 91], [91])
    train, valid = some(0, [1, 2]).tail(0.9)
    assert (train.stop.tolist(), valid.start.tolist()) == ([1, 2], [2])
    train, valid = some(0, [50, 50, 0]).tail(0.1)  # an empty one is no validation
    assert (train.stop.tolist(), valid.start.tolist()) == ([50], [50])


def test_a_token_outside_the_vocabulary_is_named():
    with pytest.raises(BadInput, match=r"--data: wanted tokens in \[0, 7\), came 8"):
        checked(np.array([3, 8], np.uint16), 7)
    with pytest.raises(BadInput, match="came -2"):
        checked(np.array([3, -2], np.int64), 7)
    with pytest.raises(BadInput, match=str(2**40)):
        checked(np.array([2**40], np.int64), 7)
    assert checked(np.zeros(0, np.uint8), 7).dtype == np.int32
