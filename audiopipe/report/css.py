"""The style sheets of reports: one for the pieces, in JupyterLab and in exported pages, and one for exported pages.

In a notebook the theme of JupyterLab sets the colors, so pieces use `currentColor` and translucent grays. An exported
page chooses light or dark by `prefers-color-scheme`.
"""

from __future__ import annotations

from audiopipe.report.segment_css import STYLES

__all__ = ["PAGE", "PIECES"]

PIECES = """
.ap { line-height: 1.45; max-width: 1180px; font-variant-numeric: tabular-nums }
.ap * { box-sizing: border-box }
.ap p { margin: .3em 0 .6em; max-width: 100ch }
.ap .dim, .ap small { opacity: .72; font-size: .86em }
.ap .cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 10px; margin: 8px 0 14px }
.ap .card { border: 1px solid #8883; border-radius: 8px; padding: 10px 12px; background: #8881 }
.ap .card b { display: block; font-size: 1.5em; line-height: 1.2; font-weight: 650; overflow-wrap: anywhere }
.ap .card span { font-size: .86em; opacity: .8 }
.ap .verdict { border-left: 5px solid; border-radius: 4px; padding: 9px 14px; margin: 10px 0; background: #8881 }
.ap .verdict p { margin: .15em 0 }
.ap .verdict b.sign { margin-right: .5em }
.ap .good { border-color: #1b9e77 } .ap .warn { border-color: #e08214 } .ap .bad { border-color: #d73a3a }
.ap .good .sign { color: #1b9e77 } .ap .warn .sign { color: #e08214 } .ap .bad .sign { color: #d73a3a }
.ap .wide { overflow-x: auto; margin: 6px 0 12px }
.ap table { border-collapse: collapse; font-size: .92em; margin: 0; width: auto }
.ap th, .ap td { padding: 4px 12px 4px 0; border: 0; border-bottom: 1px solid #8883; text-align: right;
  vertical-align: top; background: none; white-space: nowrap; unicode-bidi: plaintext }
.ap tbody tr, .ap thead tr, .ap tbody tr:hover { background: none }
.ap th { font-weight: 600; border-bottom: 1px solid #8888 }
.ap table .l, .ap table .w { text-align: left !important }
.ap .w { white-space: normal; min-width: min(26ch, 40vw); max-width: 70ch }
.ap .w, .ap .verdict { overflow-wrap: anywhere }
.ap tr.sum td { font-weight: 600; border-bottom: 0 }
.ap .bar { display: inline-block; width: 120px; height: .75em; border-radius: 3px; background: #8883; overflow: hidden;
  vertical-align: -.05em; white-space: nowrap; font-size: 1em; line-height: 0 }
.ap .bar i { display: inline-block; height: 100% }
.ap .grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(320px, 100%), 1fr)); gap: 14px 18px }
.ap .two { grid-template-columns: repeat(auto-fill, minmax(min(440px, 100%), 1fr)) }
.ap figure { margin: 0 0 10px; break-inside: avoid }
.ap figcaption { font-size: .9em; margin: 0 0 2px } .ap figcaption b { font-weight: 650 }
.ap figure svg { display: block; width: 100%; height: auto; overflow: visible }
.ap figure.chart { position: relative } .ap figure.chart svg { touch-action: pan-y }
.ap figure .save { position: absolute; right: 0; bottom: -4px; opacity: .45 } .ap figure:hover .save,
.ap figure .save:focus-within { opacity: 1 }
.ap figure .save button { font: inherit; font-size: .72em; color: inherit; background: #8882; border: 0;
  border-radius: 4px; padding: 1px 6px; margin-left: 4px; cursor: pointer }
.ap .key { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin: 0 .35em 0 0;
  vertical-align: -.05em }
.ap .legend span.entry { display: inline-block; max-width: 100%; margin-right: 1.2em; font-size: .9em;
  overflow-wrap: anywhere }
.ap .legend { margin: 0 0 8px }
.ap .sample { border: 1px solid #8883; border-radius: 8px; padding: 10px 12px; break-inside: avoid; min-width: 0 }
.ap .sample audio { width: 100%; height: 34px; margin: 6px 0 2px; display: block }
.ap .sample .where { overflow-wrap: anywhere; font-size: .84em; opacity: .75 }
.ap .sample .text { unicode-bidi: plaintext; font-style: italic; margin: 2px 0 }
.ap .chips span { display: inline-block; border: 1px solid #8884; border-radius: 999px; padding: 0 8px;
  margin: 2px 4px 2px 0; font-size: .82em; white-space: nowrap }
.ap .chips span.near { border-color: #e08214; border-width: 2px; font-weight: 600 }
.ap .explorer { border: 1px solid #8883; border-radius: 8px; padding: 10px 14px; margin: 8px 0 14px }
.ap .explorer { position: relative } .ap .explorer .cards { position: sticky; top: 0; z-index: 2; padding: 8px 0;
  background: var(--paper, var(--jp-layout-color0, #fff)) }
.ap .explorer .cards .card { padding: 5px 10px } .ap .explorer .cards .card b { font-size: 1.2em }
.ap .explorer .panels { display: grid; grid-template-columns: minmax(0, 5fr) minmax(250px, 2fr); gap: 6px 26px }
.ap .explorer .rules, .ap .explorer .langs { max-height: min(62vh, 560px); overflow-y: auto; padding-right: 8px }
.ap .explorer .row { display: grid; grid-template-columns: minmax(150px, 240px) minmax(120px, 1fr) 130px 110px;
  gap: 4px 14px; align-items: center; margin: 5px 0 }
.ap .explorer .row label { display: grid; grid-template-columns: auto minmax(0, 1fr); column-gap: .4em;
  align-items: baseline } .ap .explorer .row small { grid-column: 2 }
.ap .explorer .row input[type=range] { width: 100%; margin: 0; accent-color: #3b8bc4 }
.ap .explorer .row input[type=number] { width: 80px; font: inherit; color: inherit; background: #8881;
  border: 1px solid #8886; border-radius: 4px; padding: 1px 4px }
/* All bars have the same length, whatever the width of the counts next to them. */
.ap .explorer .langs { display: grid; grid-template-columns: auto minmax(50px, 1fr) auto; column-gap: 14px;
  align-content: start; font-size: .88em }
.ap .explorer .langs .row { grid-template-columns: subgrid; grid-column: 1 / -1 }
.ap .explorer .langs .count { text-align: right }
.ap .two .bar { width: 80px } .ap .explorer .row .bar { width: 100% } .ap .explorer .row .bar i { display: block }
.ap .explorer button { font: inherit; color: inherit; background: #8882; border: 1px solid #8886; border-radius: 6px;
  padding: 3px 12px; cursor: pointer }
.ap .steps .good { border-color: #1b9e77 } .ap .steps .bad { border-color: #d73a3a; border-width: 2px }
.ap h4 { margin: 16px 0 4px; font-size: 1.02em; font-weight: 650 }
.ap code { font-size: .92em; background: #8882; padding: 0 .3em; border-radius: 3px; overflow-wrap: anywhere }
.ap pre code, main pre code { background: none; padding: 0 }
@media (max-width: 600px) { .ap figure .save { position: static; display: block; text-align: right }
  .ap .stack, .ap .stack tbody, .ap .stack tr, .ap .stack td.w, .ap .stack td:first-child {
  display: block; min-width: 0; max-width: none } .ap .stack thead { display: none }
  .ap .stack tr { border-bottom: 1px solid #8883; padding: 6px 0 }
  .ap .stack td { display: inline-block; border: 0; padding: 1px 14px 1px 0; white-space: normal; text-align: left }
  .ap .stack td:first-child { font-weight: 650 }
  .ap .stack td[data-name]:not(:first-child, .w)::before { content: attr(data-name) " "; opacity: .72 } }
@media print { .ap .explorer .rules, .ap .explorer .langs { max-height: none }
  .ap .grid { grid-template-columns: repeat(2, 1fr) } .ap audio, .ap .save { display: none !important }
  .ap .wide { overflow: visible } .ap table { font-size: .82em; max-width: 100% } .ap .w { min-width: 14ch }
  .ap th, .ap td { white-space: normal; padding-right: 7px; overflow-wrap: break-word } .ap .bar { width: 56px } }
"""
PIECES += STYLES

PAGE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1d2329; --link: #0b62a8 }
@media (prefers-color-scheme: dark) { :root { --paper: #14181d; --ink: #dfe5ea; --link: #7cbcf0 } }
html { -webkit-text-size-adjust: 100% }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif;
  font-size: 15px }
main { max-width: 1180px; margin: 0 auto; padding: 18px 22px 60px }
h1 { font-size: 1.7em; line-height: 1.2; margin: .3em 0 .3em } h2 { font-size: 1.25em; margin: 1.7em 0 .3em;
  padding-top: .7em; border-top: 1px solid #8883 } h3 { font-size: 1.08em; margin: 1.2em 0 .2em }
main > .markdown p, main > .markdown ul { max-width: 100ch; margin: .35em 0 .6em }
code { font-size: .92em; background: #8882; padding: 0 .3em; border-radius: 3px; overflow-wrap: anywhere }
a { color: var(--link) }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .86em; background: #8881; padding: 8px 12px;
  border-radius: 6px; line-height: 1.35 }
summary { cursor: pointer; opacity: .8 }
nav { display: flex; flex-wrap: wrap; gap: 2px 18px; margin: .2em 0 1em; font-size: .92em }
th.sorts { cursor: pointer } th.sorts:hover { text-decoration: underline }
th[aria-sort]::after { content: " ▲"; font-size: .7em } th[aria-sort=descending]::after { content: " ▼" }
input.filter { font: inherit; color: inherit; background: #8881; border: 1px solid #8886; border-radius: 4px;
  padding: 2px 8px; margin: 4px 0; width: 16em; max-width: 100% }
/* A shadow where a table extends beyond the edge. */
.ap .wide { background: linear-gradient(to left, var(--paper) 40%, #0000) right / 40px 100% no-repeat local,
  linear-gradient(to left, #8888, #0000) right / 14px 100% no-repeat scroll }
tr.folded { display: none } button.unfold { font: inherit; font-size: .9em; color: inherit; background: #8882;
  border: 1px solid #8886; border-radius: 6px; padding: 2px 12px; margin: 0 0 12px; cursor: pointer }
footer { margin-top: 40px; opacity: .65; font-size: .84em; border-top: 1px solid #8883; padding-top: 8px }
@media (max-width: 600px) { nav { flex-wrap: nowrap; overflow-x: auto; white-space: nowrap }
  main { padding: 10px 14px 40px } body { font-size: 14.5px }
  .ap .cards { grid-template-columns: repeat(2, 1fr) } .ap .card b { font-size: 1.25em }
  .ap .explorer .rules .row { grid-template-columns: 1fr 1fr }
  .ap .explorer .rules .row > :nth-child(-n+2) { grid-column: 1 / 3 }
  .ap .explorer .panels { grid-template-columns: 1fr } .ap .explorer .langs { max-height: 34vh }
  .ap .explorer .rules { max-height: 52vh } .ap .explorer .cards { grid-template-columns: repeat(3, 1fr); gap: 4px }
  .ap .explorer .cards .card { padding: 3px 6px } .ap .explorer .cards .card b { font-size: .95em }
  .ap .explorer .cards .card span { font-size: .72em } }
@page { margin: 14mm }
@media print { :root { --paper: #ffffff; --ink: #000000 } main { max-width: none; padding: 0 } h2, h3, h4, figcaption {
  break-after: avoid } figure, .sample, .card, .cards, .verdict, tr { break-inside: avoid } body { font-size: 12.5px }
  nav, input.filter, button.unfold { display: none } tr.folded { display: table-row } }
"""
