"""The page: what it says, that it is one file that runs nothing, and how it looks."""

import html.parser
import json
import re
import shutil
import subprocess
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from experiments import compare, pictures, report, runs

from . import some_runs

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"
)
EVIL = "<img src=x onerror=document.title='ran'>"
WIDTH, HEIGHT = 1100, 2400


def page(*paths):
    compared = runs.groups(runs.find(paths))
    metric = runs.main_metric(compare.runs_of(compared))
    return report.page(compared, compare.table(compared), metric)


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """Two runs, one of three seeds, and one that is not finished."""
    home = tmp_path_factory.mktemp("runs")
    some_runs.write(home / "adamw", level=2.5)
    for seed, level in enumerate((2.1, 2.3, 2.2)):
        name = f"sam-seed{seed}"
        some_runs.write(home / name, level=level, seed=seed, step_s=0.024,
                        config={"sharpness": ["sam", "rho=0.05"]})  # fmt: skip
    some_runs.write(home / "half", level=2.7, upto=300, age=1e6, config={"lr": 3e-3})
    some_runs.write(home / "wsd", level=2.4, config={"schedule": ["wsd"]},
                    env={"jax": "0.12.0"})  # fmt: skip
    return page(*(home / name for name in ("adamw", "sam-seed0", "sam-seed1",
                                           "sam-seed2", "half", "wsd")))  # fmt: skip


class Tags(html.parser.HTMLParser):
    """Every tag, and that each is closed where it has to be."""

    EMPTY = ("meta", "link", "br", "img")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_is_well_formed_and_asks_for_nothing(four):
    tags = Tags(four)
    ids = [a["id"] for _, a in tags.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in tags.tags:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "action", "data"):
                assert value.startswith(("#", "data:")), (tag, value)
                assert not value.startswith("#") or value[1:] in ids
            assert not name.startswith("on")
            assert "url(" not in value or re.search(r"url\(#", value)
    for match in re.findall(r"url\(#([^)]*)\)", four):
        assert match in ids
    urls = set(re.findall(r"https?://[^\s\"'<)]+", four))
    assert urls <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not tags.named("script")
    (policy,) = [a["content"] for a in tags.named("meta") if "http-equiv" in a]
    assert "default-src 'none'" in policy


def test_the_page_can_be_read_aloud(four):
    tags = Tags(four)
    assert dict(tags.tags)["html"]["lang"] == "en"
    assert [name for name, _ in tags.tags if re.fullmatch(r"h\d", name)] == [
        "h1",
        *["h2"] * 6,
    ]
    drawn = tags.named("svg")
    assert len(drawn) == len(tags.named("figcaption")) == 3
    for attributes in drawn:
        assert attributes["role"] == "img"
        assert attributes["aria-label"]
    assert all(a["scope"] in ("row", "col") for a in tags.named("th"))


def rows(text, heading):
    """Cells of the first table below a heading, as texts."""
    part = text[text.index(f">{heading}</h2>") :]
    part = part[part.index("<tbody>") : part.index("</tbody>")]
    cut = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", r) for r in part.split("</tr>")]
    return [[re.sub(r"<[^>]*>", "", cell) for cell in cells] for cells in cut if cells]


def test_the_page_says_what_differs(four):
    found = {row[0]: row[1:] for row in rows(four, "Config")}
    assert found == {
        "lr": ["0.001", "0.001", "0.001", "0.001", "0.003", "0.001"],
        "seed": ["0", "0", "1", "2", "0", "0"],
        "sharpness": ["none", *["sam rho=0.05"] * 3, "none", "none"],
        "schedule": ["-", "-", "-", "-", "-", "wsd"],
    }
    assert rows(four, "Environment") == [["jax", *["0.10.2"] * 5, "0.12.0"]]
    assert "about.digest" in four  # among what all have in common
    results = {row[0]: row[1:] for row in rows(four, "Results")}
    half = 4.302653 * 0.1 / 3**0.5
    assert results["sam"][:3] == ["3", f"2.200 ± {half:.3f}", "-0.300"]
    assert results["half"][-1] == "300/600 unfinished"
    assert results["sam"][-2:] == ["2.00x", "600"]
    names = [row[0] for row in rows(four, "Domains")]
    assert names == ["small folders", "json", "os"]
    assert rows(four, "Domains")[0][2].startswith("2.400 ± ")


def test_a_pointer_over_a_bar_shows_its_value(four):
    assert "<title>sam, json: 2.300</title>" in four
    assert "<title>wsd</title>" in four


def hostile(home):
    """Runs whose every text tries to get out."""
    evil = {f"</style>{EVIL}": f"</td>{EVIL}", "lr": "$x^$ & \"'"}
    domains = (EVIL, "</title></svg><b>", "_hidden", "a$b$c", "日本")
    some_runs.write(home / EVIL, config=evil, env={EVIL: EVIL}, domains=domains)
    some_runs.write(home / "_first & $last$", level=2.2, domains=domains)
    return home


def test_what_runs_wrote_stays_text(tmp_path):
    text = page(hostile(tmp_path))
    tags = Tags(text)
    assert not tags.named("img")
    assert not tags.named("b")
    assert not [a for _, a in tags.tags if any(k.startswith("on") for k in a)]
    shown = "".join(tags.texts)
    for said in (EVIL, "_first & $last$", "_hidden", "a$b$c", "日本", f"</td>{EVIL}"):
        assert said in shown
    drawn = text[text.rindex("<svg") : text.rindex("</svg>")]
    assert ">a$b$c</text>" in drawn  # and is no formula


def test_the_picture_takes_odd_names_too(tmp_path):
    compared = runs.groups(runs.find([hostile(tmp_path / "runs")]))
    pictures.png(tmp_path / "p.png", compared, runs.METRICS[0])
    with Image.open(tmp_path / "p.png") as image:
        assert image.size == (1500, 1200)
        seen = np.asarray(image.convert("RGB"))
    for color in pictures.COLORS[:2]:
        assert count(seen, color) > 2000


@pytest.mark.parametrize("many", [1, 9, 30])
def test_many_runs_are_told_apart(tmp_path, many):
    looks = [pictures.look(i) for i in range(min(many, 28))]
    assert len(set(looks)) == len(looks)
    for i in range(many):
        some_runs.write(tmp_path / f"run-{i:02}", level=2 + i / 10, config={"lr": i})
    Tags(page(tmp_path))


def test_a_run_without_rows_has_a_page(tmp_path):
    home = some_runs.write(tmp_path / "a", upto=0)
    text = page(home)
    Tags(text)
    assert "No run has an evaluation yet." in text
    assert rows(text, "Results")[0][-1] == "0/600 empty"


def test_the_hardest_domains_are_drawn_and_all_are_listed(tmp_path):
    names = tuple(f"d{i:02}" for i in range(30))
    home = some_runs.write(tmp_path / "a", domains=names)
    text = page(home)
    assert "The 16 hardest of 30; all are below." in text
    assert [row[0] for row in rows(text, "Domains")][:2] == ["d29", "d28"]
    assert len(rows(text, "Domains")) == 30


# In a browser.


def browse(tmp_path, text, *flags):
    """What chromium says of the page, run without any connection but to itself."""
    path = tmp_path / "report.html"
    path.write_text(text)
    home = tmp_path / "chromium"
    shutil.rmtree(home, ignore_errors=True)
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu"]
    words += ["--disable-background-networking", "--disable-component-update"]
    words += ["--disable-sync", "--hide-scrollbars", f"--user-data-dir={home}"]
    words += ["--host-resolver-rules=MAP * ~NOTFOUND", "--force-device-scale-factor=1"]
    words += [f"--window-size={WIDTH},{HEIGHT}", *flags, path.as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def screenshot(tmp_path, text, *flags):
    browse(tmp_path, text, f"--screenshot={tmp_path / 'shot.png'}", *flags)
    with Image.open(tmp_path / "shot.png") as image:
        return np.asarray(image.convert("RGB"))


def near(seen, color):
    """Where the picture has that colour."""
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return np.abs(seen.astype(int) - rgb).max(-1) <= 12


def count(seen, color):
    return int(near(seen, color).sum())


def longest(column):
    """The most True in a row."""
    edges = np.flatnonzero(np.diff(np.r_[0, column.astype(int), 0]))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def looks_right(seen, paper, ink, colors):
    assert seen.shape == (HEIGHT, WIDTH, 3)
    assert np.median(seen.reshape(-1, 3), axis=0) == pytest.approx(
        [int(paper[i : i + 2], 16) for i in (1, 3, 5)]
    )
    assert count(seen, ink) > 3000  # texts, axes, and the first run
    for color in colors:
        found = near(seen, color)
        assert found.sum() > 3000
        lines = found[:1500]  # of the tables' swatches and the curves
        assert np.ptp(np.flatnonzero(lines.any(0))) > 600
        bars = [longest(found[:, x]) for x in np.flatnonzero(found.any(0))]
        assert sum(height > 150 for height in bars) > 100  # three domains, 30 wide


@needs_chromium
def test_the_page_looks_right_in_light_and_dark(tmp_path, four):
    light = screenshot(tmp_path, four, "--blink-settings=preferredColorScheme=1")
    looks_right(light, "#ffffff", "#1b1b1b", pictures.COLORS[1:4])
    dark = screenshot(tmp_path, four, "--blink-settings=preferredColorScheme=0")
    looks_right(dark, "#16181b", "#e8e8e8", report.DARK[1:4])
    assert count(dark, "#000000") < 50  # no text is black on black


@needs_chromium
def test_the_page_has_its_table_and_asks_the_network_for_nothing(tmp_path, four):
    log = tmp_path / "net.json"
    shown = browse(tmp_path, four, "--dump-dom", f"--log-net-log={log}")
    assert {row[0] for row in rows(shown, "Results")} == {"adamw", "sam", "half", "wsd"}
    assert shown.count("<svg") == 3
    assert hosts(log) == set()
    there = ("127.0.0.1:9", "fonts.googleapis.com")
    asking = "".join(f'<img src="https://{host}/a.png">' for host in there)
    browse(tmp_path, f"<!doctype html>{asking}", "--dump-dom", f"--log-net-log={log}")
    assert hosts(log) == set(there)  # so that a request would be seen


def hosts(log):
    """Whom a page asked; what the browser asks by itself has no origin."""
    own = "not an origin"
    events = json.loads(log.read_text())["events"]
    params = [event.get("params", {}) for event in events]
    asked = [p["url"] for p in params if p.get("initiator", own) != own]
    return {urlsplit(url).netloc for url in asked}


@needs_chromium
def test_nothing_of_a_hostile_run_is_executed(tmp_path):
    text = page(hostile(tmp_path / "runs"))
    open_to_all = re.sub(
        r'<meta http-equiv="Content-Security.*?>', "", text, flags=re.S
    )
    assert open_to_all != text
    shown = browse(tmp_path, open_to_all, "--dump-dom")
    assert "<title>2 runs compared</title>" in shown  # escaping alone is enough
    through = open_to_all.replace("<main>", f"<main>{EVIL}")
    assert "<title>ran</title>" in browse(tmp_path, through, "--dump-dom")
    through = text.replace("<main>", f"<main>{EVIL}")  # and so is the policy
    assert "<title>2 runs compared</title>" in browse(tmp_path, through, "--dump-dom")
