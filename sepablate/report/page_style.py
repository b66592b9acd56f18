"""The style sheet of the reports' pages: on a telephone, on a screen at night, on A4."""

STYLE = """
:root { color-scheme: light dark; --text: #1a1a1a; --dim: #555; --back: #fff; --code: #f1f1f1;
  --line: #d0d0d0; --strong: #777; --link: #0b57a4; }
@media screen and (prefers-color-scheme: dark) {
  :root { --text: #e4e4e4; --dim: #b0b0b0; --back: #16181a; --code: #2a2d30;
    --line: #44484c; --strong: #8a8f94; --link: #8ab8ff; }
}
body { margin: 0; color: var(--text); background: var(--back);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
main { max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.25rem; margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); }
a { color: var(--link); }
a:focus-visible, .table:focus-visible, p.figure:focus-visible {
  outline: 2px solid var(--link); outline-offset: 2px; }
nav { border-left: 3px solid var(--line); padding-left: 1rem; margin: 1rem 0; }
nav ul { list-style: none; margin: 0; padding: 0; }
code { font-size: 0.9em; background: var(--code); padding: 0 0.2em; }
.whole { white-space: nowrap; }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; min-width: 100%; font-size: 0.9rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--dim); padding-bottom: 0.3rem; }
caption span { display: inline-block; position: sticky; left: 0;
  max-width: min(60rem, 100vw - 2rem); }
caption .whole { display: inline; position: static; }
th, td { text-align: left; vertical-align: top; padding: 0.35rem 0.6rem;
  border-bottom: 1px solid var(--line); overflow-wrap: normal; }
th[scope="row"] { font-weight: normal; min-width: 7rem; }
thead th { border-bottom: 2px solid var(--strong); }
p.figure { overflow-x: auto; margin-bottom: 0.3rem; }
p.figure img { display: block; width: 100%; min-width: 34rem; max-width: 56rem;
  background: #fff; border-radius: 0.2rem; }
p.figure.first img { min-width: 0; max-width: 40rem; }
p.data { margin-top: 0; color: var(--dim); font-size: 0.9em; }
@page { size: A4; margin: 15mm; }
@media print {
  main { max-width: none; padding: 0; font: 9.5pt/1.35 system-ui, sans-serif; }
  table { font-size: 7.5pt; line-height: 1.3; }
  th, td { padding: 0.06rem 0.3rem; }
  th[scope="row"] { min-width: 0; }
  .table, p.figure { overflow: visible; margin: 0.5rem 0; }
  caption span { max-width: none; }
  h2 { margin-top: 1.5rem; padding-top: 0.5rem; }
  h2, h3, caption { break-after: avoid; }
  tr, p.figure, li { break-inside: avoid; }
  .table:not(:has(tr:nth-child(16))) { break-inside: avoid; }
  #setup ~ .table:not(:has(th:nth-child(4))) {
    columns: 2; break-inside: avoid; }
  .table + .table:not(#setup ~ .table), main > :last-child { break-before: avoid; }
  thead { display: table-header-group; }
  p.figure img { min-width: 0; max-width: 15cm; }
  p.figure.wide img { max-width: 18cm; }
  p.figure.first img { width: auto; max-width: 11cm; max-height: 24cm; }
  a { color: inherit; text-decoration: none; }
}
"""
