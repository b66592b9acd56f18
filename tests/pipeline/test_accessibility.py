"""Pages that everybody can read, by axe-core in Chromium: light and dark, narrow and wide.

Without Chromium or axe-core (`npm install --no-save axe-core@4.14.1`) they are skipped.
"""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers.project import ROOT

BROWSERS = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
BROWSER = next(BROWSERS, None)
AXE = ROOT / "node_modules/axe-core/axe.min.js"
MKDOCS = ROOT / ".venv-docs/bin/mkdocs"
REPORTS = sorted(ROOT.glob("results/*/*.html"))
SCHEMES = {"light": 1, "dark": 0}  # Chromium's numbers
WIDTHS = (320, 1400)  # of a page, in pixels: WCAG 2.1's reflow, and a screen
RUN = """
addEventListener("load", async () => {
  const found = await axe.run(document, {resultTypes: ["violations"]});
  const serious = found.violations.filter(rule => ["serious", "critical"].includes(rule.impact));
  const faults = serious.flatMap(rule => rule.nodes.map(node =>
    `${rule.impact} ${rule.id}: ${node.html.slice(0, 200)} ${node.failureSummary}`));
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const wide = document.documentElement.scrollWidth;
  parent.postMessage({faults, dark, wide, width: innerWidth}, "*");
});
"""
COLLECT = """
const answers = [];
addEventListener("message", event => {
  answers.push(event.data);
  if (answers.length == COUNT) document.body.innerHTML = `<pre>${
    JSON.stringify(answers).replaceAll("&", "&amp;").replaceAll("<", "&lt;")}</pre>`;
});
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BROWSER, reason="needs Chromium"),
    pytest.mark.skipif(not AXE.exists(), reason="needs axe-core in node_modules/"),
]


def examine(page: Path, scheme: str) -> list[dict[str, Any]]:
    """What axe-core says of a page in frames of all widths, next to which it may write."""
    text = page.read_text().replace("</body>", f"<script>{AXE.read_text()}</script></body>")
    copy, frames = page.with_suffix(".axe.html"), page.with_suffix(".frames.html")
    copy.write_text(text.replace("</body>", f"<script>{RUN}</script></body>"))
    shown = "".join(
        f'<iframe src="{copy.name}" width="{width}" height="900"></iframe>' for width in WIDTHS
    )
    collect = COLLECT.replace("COUNT", str(len(WIDTHS)))
    frames.write_text(f"<!doctype html><body><script>{collect}</script>{shown}</body>")
    done = subprocess.run(
        [
            str(BROWSER),
            *("--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            "--allow-file-access-from-files",  # its palette is kept in the storage of a page
            f"--user-data-dir={page.parent / 'browser'}",
            f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
            "--virtual-time-budget=120000",
            frames.as_uri(),
        ],
        capture_output=True,
        text=True,
    )
    (answers,) = re.findall("<pre>(.*)</pre>", done.stdout, re.S)
    return list(json.loads(html.unescape(answers)))


def check(page: Path, scheme: str) -> None:
    answers = examine(page, scheme)
    assert sorted(each["width"] for each in answers) == sorted(WIDTHS)
    for each in answers:
        assert each["dark"] == (scheme == "dark")
        assert not each["faults"], "\n".join(each["faults"])
        assert each["wide"] <= each["width"], "the page scrolls sideways"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("report", REPORTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_report_has_no_barriers(report: Path, scheme: str, tmp_path: Path) -> None:
    check(Path(shutil.copy(report, tmp_path)), scheme)


def test_a_barrier_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        '<!doctype html><html lang="en"><title>A page</title><body><main><h1>A page</h1>'
        '<p style="color: #bbb; background: #fff; width: 400px">pale</p></main></body></html>'
    )
    narrow, wide = sorted(examine(page, "light"), key=lambda each: each["width"])
    for each in (narrow, wide):
        (fault,) = each["faults"]
        assert fault.startswith("serious color-contrast: <p ")
    assert narrow["wide"] > 320
    assert wide["wide"] == 1400


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [str(MKDOCS), "build", "--strict", "--quiet", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)
    return folder


@pytest.mark.skipif(not MKDOCS.exists(), reason="needs the environment of `make docs`")
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("page", ["index", "docs/verdicts", "docs/api", "results/laptop/REPORT"])
def test_a_page_of_the_site_has_no_barriers(site: Path, page: str, scheme: str) -> None:
    check(site / f"{page}.html", scheme)
