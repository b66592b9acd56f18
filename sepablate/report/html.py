"""A Markdown report as one HTML file that opens anywhere: no network, no script, images inside."""

import base64
import html
import itertools
from collections.abc import Iterable
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

STYLE = """
:root { color-scheme: light; }
body { max-width: 62rem; margin: 0 auto; padding: 1rem; color: #1a1a1a; background: #fff;
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.25rem; margin-top: 3rem; padding-top: 1rem; border-top: 1px solid #ccc; }
code { font-size: 0.9em; background: #f3f3f3; padding: 0 0.2em; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; font-size: 0.9rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 0.35rem 0.6rem;
  border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #888; }
p.figure { overflow-x: auto; }
p.figure img { display: block; width: 100%; min-width: 34rem; max-width: 56rem; }
p.figure.first img { min-width: 0; max-width: 40rem; }
@media (max-width: 44rem) {
  thead { display: none; }
  table, tbody, tr, td { display: block; }
  tr { border-bottom: 2px solid #888; padding: 0.4rem 0; }
  td { border: 0; padding: 0.1rem 0; }
  td::before { content: attr(data-label) ": "; color: #555; }
  td:first-child { font-weight: 600; }
  td:first-child::before { content: ""; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  table { font-size: 8pt; margin: 0.5rem 0; }
  th, td { padding: 0.15rem 0.4rem; }
  h2 { break-before: page; border: 0; margin: 0; padding: 0; }
  h2, h3 { break-after: avoid; }
  tr, p.figure, li { break-inside: avoid; }
  p.figure { overflow: visible; }
  p.figure img { min-width: 0; max-width: 14cm; }
  p.figure.first img { max-width: 10cm; }
}
"""


def to_html(markdown: str, folder: Path) -> str:
    """Return a report as one page, with the figures of `folder` inside as SVG."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    title = next((b.content for a, b in itertools.pairwise(tokens) if a.tag == "h1"), "Report")
    _embed(tokens, folder)
    _label_cells(tokens)
    body = parser.renderer.render(tokens, parser.options, {})
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title.replace('`', ''))}</title>\n<style>{STYLE}</style>\n"
        f"</head>\n<body>\n{body}</body>\n</html>\n"
    )


def _embed(tokens: list[Token], folder: Path) -> None:
    """Embed every image as a data URI, and mark its paragraph."""
    first = True
    for paragraph, inline in itertools.pairwise(tokens):
        for image in _images(inline):
            svg = (folder / str(image.attrs["src"])).with_suffix(".svg").read_bytes()
            image.attrs["src"] = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
            paragraph.attrs["class"] = "figure first" if first else "figure"
            first = False


def _images(token: Token) -> Iterable[Token]:
    return (child for child in token.children or () if child.type == "image")


def _label_cells(tokens: list[Token]) -> None:
    """Give every cell the head of its column, which a narrow screen shows before it."""
    heads: list[str] = []
    column = 0
    for token, inline in itertools.pairwise(tokens):
        if token.type == "thead_open":
            heads = []
        elif token.type == "tr_open":
            column = 0
        elif token.type == "th_open":
            heads.append(inline.content)
        elif token.type == "td_open":
            token.attrs["data-label"] = heads[column]
            column += 1
