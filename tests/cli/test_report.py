# SPDX-License-Identifier: MIT
"""The report: one page that shows everything, fetches nothing and runs nothing."""

import base64
import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan_fast.report import curves, page

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "a&b;&#x3c;script&#x3e;",
    "'; DROP TABLE runs; --",
    "../../etc/passwd",
    "new\nline\ttab",
    "日本語 ünï 🎄",
]


def facts(text="plain"):
    return {
        "title": text,
        "subtitle": text,
        "verdict": {"passed": True, "text": text, "lines": [text]},
        "cards": [{"value": text, "label": text}],
        "quality": [
            {
                "direction": text,
                "metric": "psnr",
                "name": text,
                "higher_is_better": True,
                "values": {"input as is": 9.1234, "this run": 18.26, "floor": None},
            }
        ],
        "quality_rows": ["input as is", "colour match", "this run", "floor"],
        "quality_about": text,
        "speed": text,
        "served": [{"op": text, "backend": text, "calls": 1234567}],
        "command": text,
        "config": [{"name": text, "value": text, "changed": True}],
        "versions": {text: text},
        "data": text,
        "files": [{"path": text, "what": text}],
        "next": [{"what": text, "command": text}],
        "footer": text,
    }


def gallery(text="plain", rows=3, columns=3, size=8):
    pictures = {f"{text} {i}": torch.rand(rows, 3, size, size) * 2 - 1 for i in range(columns)}
    return page.Gallery.of(text, text, pictures)


class Page(HTMLParser):
    """What a browser would find in the page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts, self.images = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag == "img":
            self.images.append(dict(attrs)["src"])

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("text", HOSTILE)
def test_every_value_is_text_and_nothing_more(text):
    plain = Page(page.render(facts(), [gallery()], gallery(), b"<svg/>"))
    shown = Page(page.render(facts(text), [gallery(text)], gallery(text), b"<svg/>"))
    assert shown.tags == plain.tags
    names = [(tag, name) for tag, name, _ in shown.attributes]
    assert names == [(tag, name) for tag, name, _ in plain.attributes]
    assert "".join(shown.texts).count(text) >= 15


def test_nothing_is_fetched_and_no_script_can_run():
    text = page.render(facts(), [gallery()], gallery(), b"<svg/>")
    found = Page(text)
    assert not {"script", "iframe", "object", "embed", "link", "base", "form", "a"} & set(
        found.tags
    )
    assert not [name for _, name, _ in found.attributes if name.startswith("on")]
    assert all(image.startswith("data:image/") for image in found.images)
    policy = next(value for _, name, value in found.attributes if name == "content")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert "http:" not in text and "https:" not in text and "url(" not in text


def test_pictures_are_inside_and_exact():
    shown = gallery(rows=2, columns=2)
    found = Page(page.render(facts(), [shown]))
    inside = []
    for image in found.images:
        data = base64.b64decode(image.removeprefix("data:image/png;base64,"))
        inside.append(np.array(Image.open(io.BytesIO(data))))
    expected = [picture for row in shown.rows for picture in row]
    assert len(inside) == 4
    assert all(np.array_equal(a, b) for a, b in zip(inside, expected, strict=True))


def test_figures_and_gaps():
    text = "".join(Page(page.render(facts(), [])).texts)
    for said in ("9.12", "18.3", "–", "1,234,567"):
        assert said in text
    assert [page.figure(v) for v in (0.0123, 1.234, 12.34, None)] == ["0.012", "1.23", "12.3", "–"]


def test_parts_that_are_missing_are_left_out():
    text = page.render({**facts(), "quality": []}, [])
    assert "Quality" not in text and "Losses" not in text and "<img" not in text


def test_written_whole_with_its_figures_beside(tmp_path):
    path = page.write(tmp_path, facts("日本"), [gallery()])
    assert json.loads((tmp_path / "report.json").read_text("utf-8")) == facts("日本")
    assert "日本" in path.read_text("utf-8")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.json"]


def losses_csv(path, lines):
    names = ["step", "epoch", "images", "lr", "D_A", "G_A", "cycle_A", "idt_A"]
    names += ["D_B", "G_B", "cycle_B", "idt_B"]
    rows = [",".join(str(i + j) for j in range(len(names))) for i in range(lines)]
    path.write_text("\n".join([",".join(names), *rows]) + "\n3,1,4")
    return path


def test_losses_are_read_but_for_a_half_line(tmp_path):
    losses = curves.read_losses(losses_csv(tmp_path / "losses.csv", 5))
    assert losses["step"].tolist() == [0, 1, 2, 3, 4]
    assert losses["idt_B"].tolist() == [11, 12, 13, 14, 15]
    (tmp_path / "empty.csv").touch()
    assert curves.read_losses(tmp_path / "empty.csv") == {}


def test_smoothing_keeps_a_constant_and_the_length():
    assert np.allclose(curves.smoothed(np.full(100, 3.0)), 3.0)
    assert len(curves.smoothed(np.arange(1.0))) == 1
    ramp = np.arange(200.0)
    assert np.allclose(curves.smoothed(ramp)[10:-10], ramp[10:-10])


def test_curves_are_the_same_bytes_for_the_same_losses(tmp_path):
    losses = curves.read_losses(losses_csv(tmp_path / "losses.csv", 50))
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        first, second = (curves.image(curves.draw(losses, ("a", "b")), kind) for _ in range(2))
        assert first == second and first.startswith(start)
