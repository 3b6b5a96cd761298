"""The small parts: names of layers, settings, sizes, the line that is drawn."""

import io

import pytest

from jaxtricks.merging.files import _layers, _settings, _yaml
from jaxtricks.merging.files._command import _size
from jaxtricks.merging.files._progress import Progress, bytes_said, clock
from jaxtricks.merging.files._tensors import MergeError


@pytest.mark.parametrize(
    ("name", "stack", "layer"),
    [
        ("model.layers.3.mlp.experts.5.w1.weight", "model.layers.", 3),
        ("h.11.attn.weight", "h.", 11),
        ("params/layers_2/kernel", "params/layers_", 2),
        ("params.Block_1.kernel", "params.Block_", 1),
        ("0.weight", "", 0),
    ],
)
def test_the_layer_of_a_name(name, stack, layer):
    found = _layers.place(name)
    assert found is not None
    assert (found.stack, found.layer) == (stack, layer)
    assert found.at(layer) == name


@pytest.mark.parametrize("name", ["lm_head.weight", "layer_norm_1.weight", "conv2d.w"])
def test_names_in_no_layer(name):
    assert _layers.place(name) is None
    assert _layers.pattern(name) == name


def test_what_comes_after_the_layers():
    names = ("lm_head.weight", "model.norm.weight", "transformer.ln_f.bias", "score.w")
    assert all(map(_layers.is_after, names))
    names = ("model.embed_tokens.weight", "wte.weight", "embeddings.LayerNorm.weight")
    assert not any(map(_layers.is_after, names))


def setting(text):
    return _yaml.parse(f"x: {text}", "c.yml").value["x"]


@pytest.mark.parametrize(
    ("text", "t", "want"),
    [
        ("0.5", 0.3, 0.5),
        ("1e-5", 0.3, 1e-5),  # text in YAML 1.1
        ("true", 0.3, 1.0),
        ("[0, 1]", 0.25, 0.25),
        ("[0, 0.3, 0.7, 1]", 0.5, 0.5),
        ("[1, 0.7, 0.1]", 1.0, 0.1),
        ("[{filter: mlp, value: 2}, {value: [3, 5]}]", 0.5, 4.0),
        ("[{filter: attn, value: 2}, {value: 3}]", 0.5, 2.0),
        ("[{filter: '*', value: 2}]", 0.5, 2.0),
        ("[{filter: nothing, value: 2}]", 0.5, None),
        ("{filter: attn, value: 7}", 0.5, 7.0),
    ],
)
def test_settings(text, t, want):
    got = _settings.evaluate(setting(text), "layers.1.attn.q", t)
    assert got == (None if want is None else pytest.approx(want))


def test_a_gradient_of_switches_picks_one():
    values = setting("[true, false]")
    got = [_settings.evaluate(values, "w", t, discrete=True) for t in (0.0, 0.9, 1.0)]
    assert got == [1.0, 1.0, 0.0]


def test_merge_keys_and_aliases_of_yaml():
    text = "a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\nc: *a"
    plain = _yaml.parse(text, "c.yml").plain()
    assert plain["b"] == {"x": 1, "y": 3}
    assert plain["c"] == plain["a"]


def test_aliases_that_explode_are_refused():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]" for i in range(1, 20)]
    with pytest.raises(MergeError, match="nested too deep"):
        _yaml.parse("\n".join(lines), "c.yml")


def test_sizes_and_clocks():
    assert [_size(x) for x in ("5B", "500M", "1k", "12")] == [
        5 * 10**9,
        5 * 10**8,
        1000,
        12,
    ]
    for bad in ("", "x", "-1", "5Q", "1e999"):
        with pytest.raises(MergeError, match="--shard-size"):
            _size(bad)
    sizes = [bytes_said(n) for n in (0, 999, 735e6, 999_600, 1e15)]
    assert sizes == ["0 B", "999 B", "735 MB", "1 MB", "1 PB"]
    assert [clock(s) for s in (0.4, 61, 3723)] == ["0:00", "1:01", "1:02:03"]


def test_the_line_says_speed_and_time_left():
    stream = io.StringIO()
    progress = Progress(1000, stream)
    progress.add(250)
    progress.end()
    line = progress.line(progress._start + 5)
    assert "25 %" in line
    assert "250 B of 1 kB" in line
    assert "50 B/s  0:15 left" in line
    assert "25 %" in stream.getvalue()


def test_the_line_fits_on_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    stream = io.StringIO()
    progress = Progress(1_230_000_000_000, stream)
    progress.add(1_230_000_000)
    assert len(progress.line(progress._start + 36.7)) < 80
    monkeypatch.setenv("COLUMNS", "20")
    progress._drawn = 0.0
    progress.add(1)
    drawn = stream.getvalue().rsplit("\r", 1)[1]
    assert len(drawn.removesuffix("\x1b[K")) == 19
