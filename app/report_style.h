// The style sheet of the reports.
#pragma once
#include <cstddef>

namespace cald {

/// Colours --s0 ... of the style sheet.
inline constexpr std::size_t kPageColours = 7;

inline constexpr const char* kPageStyle = R"css(
:root { color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --text: #1c2128; --soft: #5c6673; --line: #dfe3e8; --mark: #eaf1fd;
  --s0: #2563eb; --s1: #d9480f; --s2: #2b8a3e; --s3: #9c36b5; --s4: #0b7f95; --s5: #c2255c; --s6: #8a6d00; }
@media (prefers-color-scheme: dark) { :root {
  --page: #14171c; --card: #1d2127; --text: #e4e8ee; --soft: #9aa5b3; --line: #343b45; --mark: #22304a;
  --s0: #74a5ff; --s1: #ff9152; --s2: #5fce7b; --s3: #d78bea; --s4: #4cc9dd; --s5: #ff7fa8; --s6: #e0c04a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 28px 20px 60px; }
header p { color: var(--soft); margin: 0; overflow-wrap: anywhere; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 0 0 12px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px;
  margin-top: 18px; }
p { margin: 0 0 10px; max-width: 75ch; }
section > :last-child { margin-bottom: 0; }
.missing { color: var(--soft); font-style: italic; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: 12px; margin-top: 18px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; }
.card span { display: block; color: var(--soft); font-size: 13px; }
.card b { display: block; font-size: 22px; font-weight: 650; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; margin-bottom: 10px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 12px; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; font-size: 13px; border-bottom-width: 2px; }
td.right, th.right { text-align: right; white-space: nowrap; }
td:first-child { white-space: nowrap; }
tbody tr:last-child td { border-bottom: 0; }
tr.marked td { background: var(--mark); font-weight: 600; }
figure { margin: 0 0 18px; }
figcaption { font-weight: 600; font-size: 14px; margin-bottom: 4px; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
svg .halo { paint-order: stroke; stroke: var(--card); stroke-width: 5px; stroke-linejoin: round; }
svg .label { font-size: 12.5px; fill: var(--text); }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .axis { stroke: var(--soft); stroke-width: 1; }
svg .marker { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 3 3; }
svg .curve { fill: none; stroke: var(--c); stroke-width: 1.9; stroke-linejoin: round; }
svg .dashed { stroke-dasharray: 6 4; }
svg .band { fill: var(--c); fill-opacity: 0.16; stroke: none; }
svg circle { fill: var(--c); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13px; color: var(--soft); padding-top: 4px; }
.legend b { color: var(--text); font-variant-numeric: tabular-nums; }
.legend i { display: inline-block; width: 20px; border-top: 3px solid var(--c); vertical-align: middle;
  margin-right: 6px; }
.legend i.dashed { border-top-style: dashed; }
.legend i.box { width: 12px; height: 12px; border: 0; background: var(--c); border-radius: 3px; }
.bar { display: flex; height: 26px; border-radius: 6px; overflow: hidden; background: var(--line); }
.bar i { display: block; background: var(--c); height: 100%; }
.bar + .legend { margin-bottom: 16px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(400px, 1fr)); gap: 8px 24px; }
.axis-switch > input { position: absolute; opacity: 0; pointer-events: none; }
.axis-switch > label { display: inline-block; font-size: 12px; color: var(--soft); padding: 1px 10px; cursor: pointer;
  border: 1px solid var(--line); border-radius: 12px; margin-right: 6px; }
.axis-switch > input:checked + label { color: var(--text); background: var(--mark); font-weight: 600; }
.axis-switch > input:focus-visible + label { outline: 2px solid var(--s0); }
.axis-switch > .linear-plot, .axis-switch > .log-plot { display: none; }
.axis-switch > .linear:checked ~ .linear-plot, .axis-switch > .log:checked ~ .log-plot { display: block; }
details { margin-top: 12px; }
summary { cursor: pointer; color: var(--soft); }
@media print { body { background: none; } section { break-inside: avoid; } }
)css";

}  // namespace cald
