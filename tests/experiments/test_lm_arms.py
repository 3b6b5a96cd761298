"""The demo's arms: what they add, what they share, and what counting reaches."""

import numpy as np
import pytest

from experiments import data
from experiments.config import Data
from experiments.lm import arms, counting
from experiments.lm.config import ARMS, parse
from tests.experiments import corpus


def test_an_arm_is_the_demo_s_flags_and_its_tricks():
    demo = parse(["--steps=50", "--decay=0.3", "--rho=0.1", "--lr=0.01", "--name=x"])
    found = {arm: arms.config(arm, demo) for arm in ARMS[:-1]}
    assert found["adamw"].training == demo.training
    assert found["wsd"].training.schedule == ("wsd", "decay_steps=15")
    assert found["sam"].training.sharpness == ("sam", "rho=0.1")
    assert found["reweight"].training.weighting == ("linupper", "temperature=1.0")
    together = found["all"].training
    assert together.schedule == found["wsd"].training.schedule
    assert together.sharpness == found["sam"].training.sharpness
    assert together.weighting == found["reweight"].training.weighting
    for arm, config in found.items():
        assert (config.run.name, config.run.runs) == (arm, demo.home)
        assert (config.training.lr, config.data) == (0.01, demo.data)


def test_the_last_checkpoints_are_known_beforehand():
    def saved(*words):
        return parse(list(words)).steps_saved()

    assert saved("--steps=40", "--save-every=8", "--keep=3") == [24, 32, 40]
    assert saved("--steps=41", "--save-every=8", "--keep=2") == [40, 41]
    assert saved("--steps=5", "--save-every=8") == [5]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = corpus.write(tmp_path_factory.mktemp("text"))
    flags = Data(data=(str(folder),), seq_len=16, valid_examples=40, valid_fraction=0.1)
    dataset = data.load(flags)
    return dataset, data.validation(dataset, flags, batch=7)


def test_baselines_equal_counting_by_hand(text):
    dataset, valid = text
    single, double = np.ones(256), np.zeros((256, 256))
    for rows in dataset.train:
        windows = rows.store.take(rows.of(np.arange(len(rows))))
        for i, t, live in zip(
            *(windows[k] for k in ("inputs", "targets", "mask")), strict=True
        ):
            for before, byte in zip(i[live], t[live], strict=True):
                single[byte] += 1
                double[before, byte] += 1
    single /= single.sum()
    double = (double + single) / (double.sum(1)[:, None] + 1)
    found = counting.baselines(dataset, valid)
    total, count = {"unigram": {}, "bigram": {}}, {}
    for batch in valid:
        for i, t, live, d in zip(
            *(batch[k] for k in ("inputs", "targets", "mask", "domain")), strict=True
        ):
            name = dataset.domains[d]
            for kind, p in (("unigram", single[t]), ("bigram", double[i, t])):
                before = total[kind].get(name, 0.0)
                total[kind][name] = before - np.log2(p[live]).sum()
            count[name] = count.get(name, 0) + live.sum()
    for kind, by_domain in total.items():
        wanted = {k: v / count[k] for k, v in by_domain.items() if count[k]}
        assert found[kind]["domains"] == pytest.approx(wanted)
        shares = {
            k: s
            for k, s in zip(dataset.domains, dataset.shares, strict=True)
            if k in wanted
        }
        overall = sum(wanted[k] * s for k, s in shares.items()) / sum(shares.values())
        assert found[kind]["bits_per_byte"] == pytest.approx(overall)


def test_counting_the_standard_library_gives_what_text_gives():
    flags = Data(valid_examples=64)
    dataset = data.load(flags)
    found = counting.baselines(dataset, data.validation(dataset, flags, batch=8))
    assert 4.2 < found["unigram"]["bits_per_byte"] < 5.2
    assert 3.2 < found["bigram"]["bits_per_byte"] < 4.0
    large = dataset._replace(classes=counting.LARGEST + 1)
    assert counting.baselines(large, []) == {}
