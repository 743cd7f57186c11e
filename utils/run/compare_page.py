"""compare.html: tables and curves of several runs in one file that needs no network."""

import base64
from collections.abc import Mapping, Sequence
from html import escape

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1100px; padding: 0 1rem;
  color: #222; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
div { overflow-x: auto }
table { border-collapse: collapse } th, td { padding: .25rem .7rem; text-align: right }
th:first-child, td:first-child { text-align: left } tr { border-bottom: 1px solid #8884 }
.note { border-left: 4px solid #d80; padding-left: .8rem }
img { width: 100%; min-width: 640px; background: #fff }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818 } }
"""


def render_page(tables: Mapping[str, Sequence[Sequence[str]]], notes: Sequence[str], curves: bytes) -> bytes:
    """The page; the first row of a table holds its titles. `curves` is a PNG."""
    image = f'<img alt="curves of the runs" src="data:image/png;base64,{base64.b64encode(curves).decode()}">'
    parts = [f'<p class="note">{escape(note)}</p>' for note in notes]
    parts += [f"<h2>{escape(title)}</h2><div>{render_table(rows)}</div>" for title, rows in tables.items()]
    parts.insert(len(notes) + 1, f"<h2>Curves</h2><div>{image}</div>")  # after the scores
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    page = f"<!doctype html><html lang=en><head>{head}<title>Runs side by side</title><style>{STYLE}</style></head>"
    return f"{page}<body><h1>Runs side by side</h1>{''.join(parts)}</body></html>\n".encode()


def render_table(rows: Sequence[Sequence[str]]) -> str:
    def cells(row: Sequence[str], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{escape(cell)}</{kind}>" for cell in row) + "</tr>"

    return f"<table>{cells(rows[0], 'th')}{''.join(cells(row, 'td') for row in rows[1:])}</table>"
