"""A Markdown report as one HTML file that opens anywhere: no network, no script, images inside."""

import base64
import html
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from sepablate.report.page_style import STYLE
from sepablate.store.layout import CURVES, LIKE_PAPER

ARXIV = "https://arxiv.org/abs/"
PLACES = r"(?:section|table|figure|equation)s? [\d.]*\d(?:(?:, (?:and )?| and )[\d.]*\d)*"
PAPER = re.compile(rf"arXiv:(\d{{4}}\.\d{{5}}(?:v\d+)?)(?:,? {PLACES})*")
UNBROKEN = re.compile(
    r"(?:[+−]?\d[\d.,]* )?\[[+−\d–][^\]]*\]|\d[\d.,]* %|< [\d.]*\d|± ?[\d.]*\d|n = \d+"
)
SOURCE = re.compile(r"(experiments|sepablate)/[\w/]+\.py")
DATA_FILES = (
    *("table.csv", "curves.csv", "measured.csv", "claims.json", "figure.svg"),
    *("effects.json", "carrying.json", "budget.csv"),
)
LONGEST_LIST = 300  # characters of a figure's alternative text


def to_html(markdown: str, folder: Path) -> str:
    """Return a report as one page, with the figures of `folder` inside as SVG.

    The page links the paper, its own sections, and the files of `folder` and the code, which lie
    where they lie in the project.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    title = next((b.content for a, b in itertools.pairwise(tokens) if a.tag == "h1"), "Report")
    contents = _number_headings(tokens)
    for inline in tokens:
        if inline.type == "inline":
            inline.children = list(_linked(inline.children or ()))
    _describe_figures(tokens)
    tokens = list(_with_data_links(_with_captions(tokens, parser), folder))
    _embed(tokens, folder)
    body = parser.renderer.render(tokens, parser.options, {}).replace("</h1>", f"</h1>{contents}")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title.replace('`', ''))}</title>\n<style>{STYLE}</style>\n"
        f"</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )


def _number_headings(tokens: Sequence[Token]) -> str:
    """Give every heading an anchor; return the contents, if there are at least two sections."""
    links, taken = [], set()
    for heading, inline in itertools.pairwise(tokens):
        if heading.type != "heading_open":
            continue
        name = re.sub(r"[^a-z0-9]+", "-", inline.content.lower()).strip("-") or "section"
        anchor = next(n for n in _numbered(name) if n not in taken)
        taken.add(anchor)
        heading.attrs["id"] = anchor
        if heading.tag == "h2":
            links.append(f'<li><a href="#{anchor}">{html.escape(inline.content)}</a></li>')
    listed = "\n".join(links)
    return f'\n<nav aria-label="Contents">\n<ul>\n{listed}\n</ul>\n</nav>' if links[1:] else ""


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{number}" for number in itertools.count(2))


def _linked(children: Iterable[Token]) -> Iterator[Token]:
    """Link papers and source files; keep intervals, percentages, p and n on one line, and marks."""
    for child in children:
        if child.type == "text":
            yield from _marked_text(child.content)
        elif child.type == "code_inline" and SOURCE.fullmatch(child.content):
            yield _raw(f'<a href="../../{child.content}">')
            yield child
            yield _raw("</a>")
        else:
            yield child


def _marked_text(text: str) -> Iterator[Token]:
    text, position = re.sub(" (?=[†‡])", "\u00a0", text), 0
    for match in re.finditer(f"{PAPER.pattern}|{UNBROKEN.pattern}", text):
        yield Token("text", "", 0, content=text[position : match.start()])
        paper = match[1]
        yield _raw(f'<a href="{ARXIV}{paper}">' if paper else '<span class="whole">')
        yield Token("text", "", 0, content=match[0])
        yield _raw("</a>" if paper else "</span>")
        position = match.end()
    yield Token("text", "", 0, content=text[position:])


def _raw(markup: str) -> Token:
    return Token("html_inline", "", 0, content=markup)


def _block(markup: str) -> Token:
    return Token("html_block", "", 0, content=f"{markup}\n")


def _describe_figures(tokens: Sequence[Token]) -> None:
    """Add to a figure's alternative text where its numbers are, and the rows of their table."""
    table = 0
    for index, token in enumerate(tokens):
        table += token.type == "table_open"
        for image in _images(token):
            rest = itertools.takewhile(lambda later: later.tag != "h2", tokens[index:])
            rows = _first_cells(list(rest))
            if Path(str(image.attrs["src"])).name.startswith(LIKE_PAPER):
                text = f"{image.content}. {CURVES} has the numbers."
                image.children = [Token("text", "", 0, content=text)]
            elif rows:
                listed = ", ".join(rows)
                shown = f": {listed}" if len(listed) <= LONGEST_LIST else ""
                text = f"{image.content}{shown}. Table {table + 1} has the numbers."
                image.children = [Token("text", "", 0, content=text)]


def _first_cells(tokens: Sequence[Token]) -> list[str]:
    """Return the first cell of each row of the first table."""
    cells = []
    for row, cell, inline in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if row.type == "table_close":
            break
        if row.type == "tr_open" and cell.type == "td_open":
            cells.append(inline.content.replace("`", ""))
    return cells


def _with_captions(tokens: Sequence[Token], parser: MarkdownIt) -> list[Token]:
    """Number the tables, and put each into a box that scrolls.

    Its caption is the paragraph before it that ends with a colon, or the title of its section. The
    first cell of a row is its head.
    """
    done: list[Token] = []
    title, count = "", 0
    for index, token in enumerate(tokens):
        if token.type == "inline" and tokens[index - 1].type == "heading_open":
            title = parser.renderInline(token.content)
        if token.type == "table_open":
            count += 1
            text = _lead(done, parser) or title
            name = f"Table {count}"
            done += [
                _block(f'<div class="table" role="region" aria-label="{name}" tabindex="0">'),
                token,
                _block(f"<caption><span>{name}. {text}</span></caption>"),
            ]
            continue
        done.append(token)
        if token.type == "table_close":
            done.append(_block("</div>"))
        elif token.type == "th_open":
            token.attrs["scope"] = "col"
        elif token.type == "td_open" and tokens[index - 1].type == "tr_open":
            token.tag = tokens[index + 2].tag = "th"
            token.attrs["scope"] = "row"
    return done


def _lead(done: list[Token], parser: MarkdownIt) -> str:
    """Take the paragraph at the end that ends with a colon off; return it without the colon."""
    if len(done) < 3 or done[-1].type != "paragraph_close" or not done[-2].content.endswith(":"):
        return ""
    text = done[-2].content.removesuffix(":")
    del done[-3:]
    return parser.renderInline(text)


def _with_data_links(tokens: Sequence[Token], folder: Path) -> Iterator[Token]:
    """Put a line with the files of each figure after it."""
    paths: list[Path] = []
    for token in tokens:
        yield token
        paths += [Path(str(image.attrs["src"])) for image in _images(token)]
        if token.type == "paragraph_close" and paths:
            files = [path for image in paths for path in _data_files(image)]
            links = [
                f'<a href="{html.escape(path.as_posix())}">{html.escape(path.name)}</a>'
                for path in files
                if (folder / path).is_file()
            ]
            paths = []
            if links:
                yield _block(f'<p class="data">Files of this page: {", ".join(links)}</p>')


def _data_files(image: Path) -> list[Path]:
    """Return the files that may hold the numbers of a study's figure, or of a scorecard."""
    if image.name.startswith(LIKE_PAPER):
        return [image.with_name(CURVES), image.with_suffix(".svg")]
    if image.parent == Path():
        return [image.with_name(image.name.replace("scorecard.png", "verdicts.json"))]
    return [image.with_name(name) for name in DATA_FILES]


def _embed(tokens: Sequence[Token], folder: Path) -> None:
    """Embed every image as a data URI, and mark its paragraph; the first also by its width."""
    shown = 0
    for paragraph, inline in itertools.pairwise(tokens):
        for image in _images(inline):
            svg = (folder / str(image.attrs["src"])).with_suffix(".svg").read_bytes()
            image.attrs["src"] = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
            wide = re.search(rb'viewBox="0 0 [4-9]\d\d', svg)  # points
            paragraph.attrs["class"] = (
                "figure" if shown else f"figure {'wide' if wide else 'first'}"
            )
            paragraph.attrs["tabindex"] = "0"  # a narrow screen scrolls it, also by the keyboard
            shown += 1


def _images(token: Token) -> Iterable[Token]:
    return (child for child in token.children or () if child.type == "image")
