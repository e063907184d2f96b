"""The style sheet of the segment table."""

from __future__ import annotations

__all__ = ["STYLES"]

STYLES = """
.ap .browse { margin: 8px 0 14px; scroll-margin-top: 8px; container-type: inline-size }
.ap .browse button, .ap .browse select, .ap .browse input:not([type=checkbox]) { font: inherit; color: inherit;
  background: #8882; border: 1px solid #8886; border-radius: 6px; padding: 3px 10px; margin: 0; max-width: 100% }
.ap .browse option { color: CanvasText; background: Canvas }
.ap .browse button { cursor: pointer } .ap .browse button:disabled { opacity: .4; cursor: default }
.ap .browse :focus-visible { outline: 2px solid #3b8bc4; outline-offset: 1px }
.ap .browse .tools { display: flex; flex-wrap: wrap; gap: 6px 10px; align-items: center; margin: 6px 0;
  max-width: none }
.ap .browse .tools input[type=search] { flex: 1 1 200px; max-width: 360px }
.ap .browse .choice { white-space: nowrap; font-size: .92em } .ap .browse .choice small { opacity: .7 }
.ap .browse .menu { position: relative } .ap .browse summary { cursor: pointer; padding: 3px 4px }
.ap .browse .menu[open] { flex-basis: 100% }
.ap .browse .options { display: flex; flex-wrap: wrap; gap: 2px 14px; max-height: 130px; overflow-y: auto }
.ap .browse .filters { display: flex; flex-wrap: wrap; gap: 6px 8px }
.ap .browse fieldset { display: flex; flex-wrap: wrap; gap: 4px 6px; align-items: center; border: 1px solid #8885;
  border-radius: 8px; padding: 2px 8px 6px; margin: 0; min-width: 0; max-width: 100%; font-size: .92em }
.ap .browse legend { font-weight: 600; padding: 0 4px; width: auto; margin: 0; font-size: 1em; border: 0 }
.ap .browse fieldset input[type=number] { width: 90px } .ap .browse fieldset button { padding: 0 7px }
.ap .browse .status { margin: 8px 0 4px; min-height: 1.5em; max-width: none }
.ap .browse .scroll { margin: 0; border: 1px solid #8883; border-radius: 8px }
.ap .browse table { width: 100%; font-size: .9em; table-layout: auto }
.ap .browse caption, .ap .browse .hidden { position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%) }
.ap .browse th, .ap .browse td { padding: 4px 8px; vertical-align: middle }
.ap .browse th { vertical-align: bottom; min-width: 92px; white-space: normal }
.ap .browse th:first-child { min-width: 0 }
.ap .browse td:first-child { padding-right: 0; width: 1px }
.ap .browse .sort { border: 0; background: none; padding: 0; font-weight: 600; text-align: inherit;
  min-height: 1.5em }
.ap .browse th[aria-sort] .sort::after { content: " ▲"; font-size: .7em }
.ap .browse th[aria-sort=descending] .sort::after { content: " ▼" }
.ap .browse th[aria-sort]::after { content: none }
.ap .browse .bars { display: flex; align-items: stretch; gap: 1px; height: 30px; margin-top: 3px }
.ap .browse .bars span { position: relative; flex: 1; min-width: 2px; cursor: pointer }
.ap .browse .bars span:hover, .ap .browse .shares i:hover { background: #8883 }
.ap .browse .bars i { position: absolute; left: 0; right: 0; bottom: 0; background: #8886; border-radius: 1px 1px 0 0 }
.ap .browse .bars i.match { background: #3b8bc4 }
.ap .browse .shares { display: flex; gap: 1px; height: 9px; margin: 3px 0 0; min-width: 60px }
.ap .browse .shares i { background: #3b8bc4; cursor: pointer; min-width: 3px; border-radius: 1px }
.ap .browse .shares i.missing { background: #8886 } .ap .browse .shares i:nth-child(even) { opacity: .65 }
.ap .browse tbody tr.segment { cursor: pointer; background: none }
.ap .browse tbody tr.segment:hover { background: #8881 }
.ap .browse tbody tr.open, .ap .browse tbody tr.more, .ap .browse tbody tr.more:hover { background: #3b8bc41c }
.ap .browse td { border-bottom: 1px solid #8882 } .ap .browse tr.open td { border-bottom-color: #0000 }
.ap .browse td.text { text-align: left; white-space: normal; min-width: 220px; width: 34% }
.ap .browse td.text span { unicode-bidi: plaintext; display: -webkit-box; -webkit-line-clamp: 2;
  -webkit-box-orient: vertical; overflow: hidden;
  overflow-wrap: anywhere }
.ap .browse td.l { max-width: 210px; overflow: hidden; text-overflow: ellipsis }
.ap .browse tr.more td { max-width: none; overflow: visible; white-space: normal; padding: 4px 0 12px }
.ap .browse mark { background: #e0b44e99; color: inherit; border-radius: 2px }
.ap .browse .play { width: 2.2em; padding: 1px 0; text-align: center }
.ap .browse .detail { position: sticky; left: 0; width: calc(100cqw - 2px); padding: 0 12px; display: grid;
  grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 6px 20px }
.ap .browse .detail audio { width: 100%; height: 34px; display: block; margin: 2px 0 6px }
.ap .browse .picture { position: relative; cursor: pointer }
.ap .browse canvas { width: 100%; height: 210px; display: block }
.ap .browse .cursor { position: absolute; top: 0; bottom: 20px; left: -9px; width: 1.5px; background: #d73a3a }
.ap .browse .words { unicode-bidi: plaintext; font-size: 1.06em; margin: 4px 0 8px; overflow-wrap: anywhere }
.ap .browse dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 1px 14px; margin: 0;
  width: auto }
.ap .browse dl div { display: flex; flex-wrap: wrap; justify-content: space-between;
  align-content: start; gap: 0 6px; border-bottom: 1px solid #8882;
  min-width: 0 } .ap .browse dt, .ap .browse dd { float: none; clear: none; width: auto;
  display: block } .ap .browse dt { opacity: .72; font-weight: 400; margin: 0 }
.ap .browse dd { unicode-bidi: plaintext; margin: 0; overflow-wrap: anywhere; min-width: 0 }
.ap .browse .pager { display: flex; flex-wrap: wrap; gap: 6px; align-items: center; margin: 8px 0 }
.ap .browse pre { white-space: pre-wrap; overflow-wrap: anywhere }
@container (max-width: 640px) { .ap .browse .detail { grid-template-columns: minmax(0, 1fr); padding: 0 8px }
  .ap .browse td.text { min-width: 190px } }
@media print { .ap .browse .tools, .ap .browse .pager, .ap .browse .filters, .ap .browse .play { display: none }
  .ap .browse th, .ap .browse td.text { min-width: 0 } .ap .browse td.l { max-width: none; overflow-wrap: anywhere }
  .ap .browse .shares { min-width: 30px } }
"""
