// Style sheet of the report page. Colours are variables, so that figures follow the reader's light or dark
// theme.
#pragma once

#include <string_view>

namespace tersor::model_detail {

inline constexpr std::string_view kReportStyle = R"css(
:root {
  color-scheme: light dark;
  --page: #f4f6f8; --card: #ffffff; --text: #1b2129; --muted: #57616d; --rule: #d9dfe5; --grid: #e7ebef;
  --l1: #1b4f9c; --l2: #3b82d6; --l3: #85b6ec; --l4: #c3dcf7; --l5: #c8501b;
  --rest: #8c97a3; --raw: #b9a06a; --records: #d3b8e6; --ideal: #2f8f5b; --edge: #6f93bd;
  --keys: #1f66c1; --values: #c8501b; --on-strong: #ffffff; --on-soft: #1b2129;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0e1217; --card: #171c23; --text: #e6ebf0; --muted: #9aa6b2; --rule: #2b333d; --grid: #262e38;
    --l1: #9cc8fb; --l2: #5a9ae6; --l3: #356bb0; --l4: #25456f; --l5: #f0894f;
    --rest: #6b7682; --raw: #a58c55; --records: #8c6aa8; --ideal: #4fbd82; --edge: #4d76a8;
    --keys: #6aaeff; --values: #f0894f; --on-strong: #ffffff; --on-soft: #0e1217;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 48px; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 40px 0 12px; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 0 0 2px; }
p { margin: 0 0 10px; }
.lead, .explain, footer { color: var(--muted); }
.explain { font-size: .875rem; }
.key { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 22px 0 0; padding: 0; }
.key div { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 12px 14px; }
.key dt { font-size: .8125rem; color: var(--muted); }
.key dd { margin: 0; font-size: 1.375rem; font-weight: 650; line-height: 1.3; font-variant-numeric: tabular-nums; }
.key dd small { display: block; font-size: .8125rem; font-weight: 400; color: var(--muted); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 16px; }
figure { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 16px; min-width: 0; }
figcaption { margin-bottom: 8px; }
figure svg { display: block; width: 100%; max-width: 520px; height: auto; margin: 0 auto; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 8px 0 0; padding: 0;
  font-size: .8125rem; color: var(--muted); }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px; vertical-align: -1px;
  border: 1px solid transparent; }
.legend i.line { height: 4px; vertical-align: 3px; }
.legend i.mark { width: 3px; height: 13px; background: var(--text); border: 0; }
details { margin-top: 10px; font-size: .875rem; }
summary { cursor: pointer; color: var(--muted); padding: 4px 0; }
.scroll { overflow-x: auto; }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--keys); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-size: .8125rem; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
th { font-weight: 600; color: var(--muted); vertical-align: bottom; }
th:first-child, td:first-child, .left { text-align: left; }
tr.group th { padding-top: 12px; color: var(--muted); font-weight: 600; white-space: normal; }
.tight table { font-size: .75rem; } .tight th, .tight td { padding: 5px; } .tight .tensor { min-width: 110px; font-size: .7rem; }
tbody th { font-weight: 400; color: var(--text); }
.tensor { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; font-size: .75rem;
  unicode-bidi: isolate; white-space: normal; overflow-wrap: anywhere; min-width: 210px; }
.card + .explain, section + .explain { margin-top: 10px; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 10px 16px 14px; }
footer { margin-top: 40px; font-size: .8125rem; }
svg text { font: 11px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; fill: var(--text); }
svg .tick { fill: var(--muted); }
svg .note { font-weight: 600; }
svg .label { font-size: 12px; }
svg .name { font: 10.5px ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; unicode-bidi: isolate; }
svg .in { font-weight: 600; fill: var(--on-soft); }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .axis { stroke: var(--muted); stroke-width: 1; }
svg .leader { stroke: var(--muted); stroke-width: 1; stroke-dasharray: 2 2; }
svg .mark { stroke: var(--text); stroke-width: 2; }
svg .track { fill: var(--grid); }
svg .band { fill: var(--keys); opacity: .14; }
svg .curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .curve.keys { stroke: var(--keys); } svg .curve.values { stroke: var(--values); }
svg .dot { stroke: var(--card); stroke-width: 1; }
svg .dot.keys { fill: var(--keys); } svg .dot.values { fill: var(--values); }
svg .seg { stroke: var(--card); stroke-width: 1; }
svg .l4 { stroke: var(--edge); stroke-width: .6; }
.l1 { fill: var(--l1); background: var(--l1); } .l2 { fill: var(--l2); background: var(--l2); }
.l3 { fill: var(--l3); background: var(--l3); } .l5 { fill: var(--l5); background: var(--l5); }
.l4 { fill: var(--l4); background: var(--l4); } .legend i.l4 { border-color: var(--edge); }
.rest { fill: var(--rest); background: var(--rest); } .raw { fill: var(--raw); background: var(--raw); }
.records { fill: var(--records); background: var(--records); } .ideal { fill: var(--ideal); background: var(--ideal); }
i.band { background: var(--keys); opacity: .3; }
i.keys { background: var(--keys); } i.values { background: var(--values); }
svg .on-l1, svg .on-l2, svg .on-ideal { fill: var(--on-strong); }
@media (prefers-color-scheme: dark) {
  svg .on-l1, svg .on-l2, svg .on-ideal { fill: var(--on-soft); }
  svg .on-l3, svg .on-l4, svg .on-rest { fill: var(--on-strong); }
}
@media (max-width: 520px) {
  main { padding: 20px 12px 36px; }
  h1 { font-size: 1.4rem; }
  figure { padding: 12px; }
  .key { grid-template-columns: repeat(2, 1fr); gap: 8px; }
  .card { padding: 6px 10px 10px; }
  .tensor { min-width: 150px; }
}
@media print { body { background: none; } figure, .card { break-inside: avoid; } }
)css";

}  // namespace tersor::model_detail
