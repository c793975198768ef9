"""Pieces of a self-contained HTML page: style, tables, figures; nothing is fetched from anywhere.

Every function escapes the text that it is given; what it returns is HTML.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype
from PIL import Image

STYLE = """
:root{--ink:#1c2733;--soft:#4d5c6b;--line:#d9e0e7;--mark:#00588a;--ground:#f3f5f7}
*{box-sizing:border-box}
html{scroll-padding-top:3rem;-webkit-text-size-adjust:100%}
body{font:16px/1.55 system-ui,"Segoe UI",Roboto,Helvetica,Arial,sans-serif;color:var(--ink);
margin:0;background:var(--ground);overflow-wrap:break-word}
main{max-width:1120px;margin:0 auto;background:#fff;padding:1.6rem 2.5rem 4rem}
h1{font-size:1.75rem;line-height:1.25;margin:.4rem 0}
h2{font-size:1.3rem;margin:2.8rem 0 .8rem;border-bottom:2px solid var(--line);
padding-bottom:.25rem}
h3{font-size:1.05rem;margin:1.8rem 0 .5rem}
a{color:var(--mark)}
nav{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;font-size:.95rem;margin:.8rem 0}
.ribbon{position:sticky;top:0;z-index:1;background:#b00020;color:#fff;text-align:center;
font-size:.85rem;font-weight:600;letter-spacing:.04em;padding:.2rem 1rem}
.note{background:#fff6dd;border-left:5px solid #e69f00;padding:.6rem 1rem;margin:.8rem 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:.7rem;
margin:1.2rem 0}
.card{border:1px solid var(--line);border-radius:8px;padding:.6rem .9rem;line-height:1.3}
.card b{display:block;font-size:1.6rem}.card span,.soft{color:var(--soft);font-size:.92rem}
.scroll{overflow-x:auto;margin:.6rem 0}
table{border-collapse:collapse;font-size:.88rem;width:100%}
caption{caption-side:top;text-align:left;color:var(--soft);font-size:.92rem;padding:.2rem 0}
th,td{border-bottom:1px solid var(--line);padding:.34rem .6rem;text-align:left;
vertical-align:top}
th{background:var(--ground);white-space:nowrap}
td.n,th.n{text-align:right}
td.n{font-variant-numeric:tabular-nums;white-space:nowrap}
td.w{min-width:16rem}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:0 2rem}
figure{margin:1.2rem 0}img{max-width:100%;height:auto;display:block}
figcaption{color:var(--soft);font-size:.92rem;margin-top:.4rem}
details{border:1px solid var(--line);border-radius:6px;margin:.5rem 0;padding:.4rem .9rem}
summary{cursor:pointer;font-weight:600}
input{font:inherit;padding:.35rem .6rem;width:100%;max-width:22rem;border:1px solid #8795a3;
border-radius:6px}
code{overflow-wrap:anywhere;font-size:.9em}
li{margin:.25rem 0}
@media(max-width:600px){main{padding:1rem 1rem 3rem}h1{font-size:1.4rem}
figure img{max-width:none;width:auto;height:300px}}
@media print{body,main{background:#fff;padding:0;max-width:none}.ribbon{position:static}
nav,.search{display:none}.scroll{overflow:visible}table{font-size:.7rem}td,th{white-space:normal}
figure,tr{break-inside:avoid}h2,h3{break-after:avoid}}
"""

SCRIPT = """
const entries=[...document.querySelectorAll('[data-search]')];
const box=document.getElementById('search');
if(box){box.parentElement.hidden=false;box.addEventListener('input',()=>{
const wanted=box.value.trim().toLowerCase();
entries.forEach(e=>{e.hidden=!e.dataset.search.toLowerCase().includes(wanted)})})}
const reveal=()=>{const e=document.getElementById(decodeURIComponent(location.hash.slice(1)));
if(e&&e.tagName==='DETAILS')e.open=true};
addEventListener('hashchange',reveal);reveal();
addEventListener('beforeprint',()=>document.querySelectorAll('details').forEach(d=>d.open=true));
"""


def page(title: str, ribbon: str, body: Iterable[str]) -> str:
    """A whole document; `ribbon` stays at the top while reading, empty for none."""
    band = f"<div class=ribbon>{escape(ribbon)}</div>" if ribbon else ""
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>\n"
        '<meta name=viewport content="width=device-width,initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style></head>\n"
        f"<body>{band}<main>\n{chr(10).join(body)}\n</main>\n<script>{SCRIPT}</script></body></html>\n"
    )


def section(identifier: str, title: str, *parts: str) -> str:
    """A part of the page with a heading that can be jumped to."""
    return (
        f'<section id="{escape(identifier)}"><h2>{escape(title)}</h2>\n{"".join(parts)}</section>'
    )


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph; `kind` is a class of the style."""
    return f'<p class="{escape(kind)}">{_text(text)}</p>' if kind else f"<p>{_text(text)}</p>"


def bullets(items: Iterable[str]) -> str:
    """A list of sentences."""
    return "<ul>" + "".join(f"<li>{_text(item)}</li>" for item in items) + "</ul>"


def cards(pairs: Iterable[tuple[object, str]]) -> str:
    """Large numbers, each with the words for it."""
    shown = "".join(
        f"<div class=card><b>{escape(str(number))}</b><span>{escape(words)}</span></div>"
        for number, words in pairs
    )
    return f"<div class=cards>{shown}</div>"


def folded(summary: str, *parts: str, identifier: str = "", search: str = "") -> str:
    """What opens on a click; `search` are the words by which the search box finds it."""
    attributes = f' id="{escape(identifier)}"' if identifier else ""
    attributes += f' data-search="{escape(search)}"' if search else ""
    return f"<details{attributes}><summary>{escape(summary)}</summary>{''.join(parts)}</details>"


def link(target: str, words: str) -> str:
    """A link within the page or to a file beside it."""
    return f'<a href="{escape(target)}">{escape(words)}</a>'


def table(
    data: pd.DataFrame,
    caption: str = "",
    links: Sequence[str] | None = None,
    search: Sequence[str] | None = None,
    digits: Mapping[str, int] | None = None,
) -> str:
    """A table that scrolls inside the page.

    Parameters
    ----------
    links
        For each row, where its first cell leads; empty for nowhere.
    search
        For each row, the words by which the search box finds it.
    digits
        Places after the point by column; four significant figures elsewhere.
    """
    places = [(digits or {}).get(str(column)) for column in data.columns]
    head = "".join(
        f"<th scope=col{' class=n' if is_numeric_dtype(data[c]) else ''}>"
        f"{escape(str(c)).replace('_', ' ')}</th>"
        for c in data.columns
    )
    rows = []
    for number, row in enumerate(data.itertuples(index=False)):
        cells = [_cell(value, count) for value, count in zip(row, places)]
        if links is not None and links[number]:
            cells[0] = f"<td>{link(links[number], str(row[0]))}</td>"
        attributes = f' data-search="{escape(search[number])}"' if search is not None else ""
        rows.append(f"<tr{attributes}>{''.join(cells)}</tr>")
    words = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f"<div class=scroll tabindex=0><table>{words}<thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def figure(source: str, alternative: str, caption: str = "") -> str:
    """A picture; `source` is a data address or a relative path."""
    words = f"<figcaption>{_text(caption)}</figcaption>" if caption else ""
    return (
        f'<figure><div class=scroll tabindex=0><img loading=lazy alt="{escape(alternative)}" '
        f'src="{escape(source)}"></div>{words}</figure>'
    )


def embedded_png(picture: Path) -> str:
    """A PNG as it is, as a data address."""
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()


def embedded_small(picture: Path) -> str:
    """A picture as WebP at a third of the PNG's size, as a data address."""
    buffer = io.BytesIO()
    with Image.open(picture) as image:
        image.convert("RGB").save(buffer, format="WEBP", quality=86, method=3)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _text(text: str) -> str:
    """Text in which a figure is never parted from its name."""
    return escape(text).replace(" = ", "\u00a0=\u00a0")


def _cell(value: Any, places: int | None) -> str:
    if value is None or pd.isna(value):
        return "<td></td>"
    if isinstance(value, float):
        shown = f"{value:.4g}" if places is None else f"{value:.{places}f}"
        return f"<td class=n>{shown}</td>"
    if isinstance(value, int):
        return f"<td class=n>{value}</td>"
    words = str(value)
    kind = ' class="w"' if len(words) > 40 else ""
    return f"<td{kind}>{escape(words)}</td>"
