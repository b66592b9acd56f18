"""A report as a page: its tables, figures, links and anchors, from a few lines of Markdown."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.project import ROOT

from sepablate.report import html

REPORT = """\
# Report on `x`

![Claims](scorecard.png)

| Claim | Difference |
| --- | --- |
| a beats b | +1.00 [−0.50, +2.50] |
| c beats d | – |

## Same name

arXiv:1610.02357v3, sections 4.5 and 4.6, table 2; declared in `experiments/borders.py`.

![Curves](one/figure.png)

The layers of `one`:

| Layer | n |
| --- | --- |
| conv | 3 |

## Same name

At 95 % and p < 0.001, n = 6, **holds** ‡, see arXiv:1704.04861, tables 4, 5 and 6.
"""


class Elements(HTMLParser):
    """Every element in order: its tag, its attributes and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[int] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attrs), []))
        if tag not in ("img", "meta"):
            self.open.append(len(self.all) - 1)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("img", "meta"):
            assert self.all[self.open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for index in self.open:
            self.all[index][2].append(data)

    def texts(self, tag: str, **attributes: str) -> list[str]:
        return [
            "".join(text)
            for name, found, text in self.all
            if name == tag and attributes.items() <= found.items()
        ]

    def values(self, tag: str, attribute: str) -> list[str | None]:
        return [found.get(attribute) for name, found, _ in self.all if name == tag]


@pytest.fixture
def page(tmp_path: Path) -> Elements:
    folder = tmp_path / "results/tiny"
    (folder / "one").mkdir(parents=True)
    for name in ("scorecard.svg", "verdicts.json", "one/figure.svg", "one/table.csv"):
        (folder / name).write_text("<svg/>")
    return Elements(html.to_html(REPORT, folder))


@pytest.mark.parametrize(("width", "kind"), [("345.6", "figure first"), ("612", "figure wide")])
def test_a_wide_scorecard_is_shown_wide(width: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "scorecard.svg").write_text(f'<svg viewBox="0 0 {width} 400"/>')
    page = Elements(html.to_html("# Report\n\n![Claims](scorecard.png)\n", tmp_path))
    assert page.values("p", "class")[0] == kind


def test_the_contents_lead_to_every_section(page: Elements) -> None:
    assert page.values("h2", "id") == ["same-name", "same-name-2"]
    assert page.values("a", "href")[:2] == ["#same-name", "#same-name-2"]
    assert page.texts("nav") == ["\n\nSame name\nSame name\n\n"]
    assert len(page.texts("main")) == len(page.texts("h1")) == 1


def test_links_lead_to_the_papers_the_code_and_the_data(page: Elements) -> None:
    links = dict(zip(page.values("a", "href")[2:], page.texts("a")[2:], strict=True))
    assert links == {
        "verdicts.json": "verdicts.json",
        "https://arxiv.org/abs/1610.02357v3": ("arXiv:1610.02357v3, sections 4.5 and 4.6, table 2"),
        "../../experiments/borders.py": "experiments/borders.py",
        "one/table.csv": "table.csv",
        "one/figure.svg": "figure.svg",
        "https://arxiv.org/abs/1704.04861": "arXiv:1704.04861, tables 4, 5 and 6",
    }
    assert (ROOT / "results/laptop/../../experiments/borders.py").exists()


def test_tables_have_captions_and_heads(page: Elements) -> None:
    assert page.texts("caption") == ["Table 1. Report on x", "Table 2. The layers of one"]
    assert page.texts("th", scope="col") == ["Claim", "Difference", "Layer", "n"]
    assert page.texts("th", scope="row") == ["a beats b", "c beats d", "conv"]
    assert page.texts("td") == ["+1.00 [−0.50, +2.50]", "–", "3"]
    assert page.values("div", "class") == ["table", "table"]
    assert "The layers of one:" not in page.texts("p")


def test_figures_say_what_they_show(page: Elements) -> None:
    assert page.values("img", "alt") == [
        "Claims: a beats b, c beats d. Table 1 has the numbers.",
        "Curves: conv. Table 2 has the numbers.",
    ]
    scrolled = {"figure first", "figure", "table"}  # also by the keyboard
    for tag in ("p", "div"):
        for kind, index in zip(
            page.values(tag, "class"), page.values(tag, "tabindex"), strict=True
        ):
            assert (index == "0") == (kind in scrolled)


def test_intervals_stay_on_one_line(page: Elements) -> None:
    whole = page.texts("span", **{"class": "whole"})
    assert whole == ["+1.00 [−0.50, +2.50]", "95 %", "< 0.001", "n = 6"]
    assert "holds\u00a0‡, see" in page.texts("p")[-1]


def test_the_page_reads_in_the_dark() -> None:
    """WCAG's contrast of text on the page, in both modes: at least 4.5 to 1."""
    light, dark = re.findall(r":root \{(.*?)\}", html.STYLE, re.S)[:2]
    for mode in (light, dark):
        colours = dict(re.findall(r"--(\w+): (#\w+)", mode))
        for ink in ("text", "dim", "link"):
            for ground in ("back", "code"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)


def contrast(one: str, other: str) -> float:
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True)))


def test_page_escapes_what_is_not_markup(tmp_path):
    text = "# a < b & c\n\n<script>x</script>\n\n| h |\n| --- |\n| `<i>` |\n"
    made = html.to_html(text, tmp_path)
    assert "<title>a &lt; b &amp; c</title>" in made
    assert "<script" not in made
    assert "<i>" not in made
