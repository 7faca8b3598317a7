"use strict";
/* Draws the home's quality over time, and lets a slider look back. Everything shown is text, never markup. */

const known = JSON.parse(document.getElementById("known").textContent);
const holder = document.getElementById("chart");
const slider = document.querySelector("#slide input");
const select = document.querySelector(".days select");
const panel = document.getElementById("day");
const percent = (share) => `${(100 * share).toFixed(1)}%`;
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const DAY = 86400, LANE = 26;
let selected = known.as_of.length - 1;
const realised = (of) => known.realised.map((share) => share && share[of]);

function add(parent, tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  parent.append(made);
  return made;
}

function sentence(at) {
  const champion = known.champion[at] === null ? "No champion." : `Version ${known.champion[at]} was champion.`;
  const seen = known.realised[at], expected = known.estimated[at], drifted = known.drifted[at];
  const parts = [champion], other = known.version[at] !== known.champion[at] ? ` by version ${known.version[at]}` : "";
  if (seen) parts.push(`Realised${other} ${percent(seen.value)} (${percent(seen.low)} to ${percent(seen.high)}, ${seen.rows} rows).`);
  if (expected !== null) parts.push(`Estimated${other} ${percent(expected)}.`);
  if (drifted !== null) parts.push(drifted ? "Drift." : "No drift.");
  return parts.join(" ");
}

function show(at) {
  panel.replaceChildren();
  add(panel, "h3", `What was known and decided as of ${known.as_of[at]}`);
  add(panel, "p", sentence(at));
  const list = add(panel, "ul", "");
  for (const event of known.events[at]) {
    const item = add(list, "li", `${event.title}.`);
    for (const why of event.why.slice(0, 3)) add(item, "p", `${why[0].toUpperCase()}${why.slice(1)}.`).className = "why";
  }
}

function look(at, plot) {
  selected = at;
  slider.value = at;
  slider.setAttribute("aria-valuetext", `As of ${known.as_of[at]}. ${sentence(at)}`);
  select.value = known.as_of[at];
  show(at);
  plot.redraw(false);
}

function bands(plot) {
  const {ctx, bbox} = plot, ratio = devicePixelRatio;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  known.reigns.forEach((reign, nth) => {
    const from = plot.valToPos(reign.since, "x", true);
    const to = reign.until === null ? bbox.left + bbox.width : plot.valToPos(reign.until, "x", true);
    ctx.fillStyle = color(nth % 2 ? "other-band" : "band");
    ctx.fillRect(from, bbox.top, to - from, bbox.height);
    ctx.fillStyle = color("soft");
    ctx.font = `${13 * ratio}px system-ui, sans-serif`;
    const name = `version ${reign.version}`;
    if (ctx.measureText(name).width < to - from - 8 * ratio) ctx.fillText(name, Math.max(from, bbox.left) + 6 * ratio, bbox.top + 16 * ratio);
  });
  ctx.restore();
}

const SHAPES = {
  drift: [[0, -1], [1, 1], [-1, 1]],
  rejection: [[-1, -0.6], [-0.6, -1], [0, -0.4], [0.6, -1], [1, -0.6], [0.4, 0], [1, 0.6], [0.6, 1], [0, 0.4], [-0.6, 1], [-1, 0.6], [-0.4, 0]],
  rollback: [[1, -1], [-1, 0], [1, 1]],
  withdrawal: [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]],
  alert: [[0, -1.1], [1.1, 0], [0, 1.1], [-1.1, 0]],
};

function marks(plot) {
  const {ctx, bbox} = plot, size = 5.5 * devicePixelRatio;
  ctx.fillStyle = color("ink");
  ctx.fillRect(plot.valToPos(known.seconds[selected], "x", true) - devicePixelRatio / 2, bbox.top, devicePixelRatio, bbox.height);
  known.marks.forEach((names, at) => names.forEach((name, nth) => {
    const x = plot.valToPos(known.seconds[at], "x", true);
    const y = bbox.top + bbox.height - (LANE / 2 + 14 * nth) * devicePixelRatio;
    ctx.fillStyle = color(name);
    ctx.beginPath();
    if (SHAPES[name]) SHAPES[name].forEach(([across, down]) => ctx.lineTo(x + size * across, y + size * down));
    else ctx.arc(x, y, size, 0, 2 * Math.PI);
    ctx.fill();
  }));
}

function range(_, low, high) {
  if (low === null) return [0, 1];
  const lowest = Math.max(0, Math.floor(10 * low - 1) / 10), highest = Math.min(1, Math.ceil(20 * high + 0.6) / 20);
  return [lowest, highest];
}

/* Of a single as-of uPlot would show the thousand days that follow. */
function span() {
  const from = known.seconds[0], to = known.seconds.at(-1), margin = (to - from) * 0.02 || 4 * DAY;
  return [from - margin, to + margin];
}

/* Pixels between two labels: at least those of a day, unless as-ofs have hours. */
function space(_, __, from, to, width) {
  return Math.max(90, known.as_of[0].length > 10 ? 0 : 0.9 * DAY * width / (to - from));
}

/* Where another champion answers, another line begins. */
function gaps(plot, series, first, last, found) {
  for (let at = first + 1; at <= last; at++) {
    if (known.version[at] !== known.version[at - 1]) {
      found.push([at - 1, at].map((end) => Math.round(plot.valToPos(known.seconds[end], "x", true))));
    }
  }
  const merged = [];
  for (const [from, to] of found.sort(([from], [other]) => from - other)) {
    const last = merged.at(-1);
    if (last && from <= last[1]) last[1] = Math.max(last[1], to);
    else merged.push([from, to]);
  }
  return merged;
}

function dates(_, seconds, __, ___, step) {
  return seconds.map((second) => new Date(1000 * second).toISOString().slice(0, step < DAY ? 13 : 10));
}

function options() {
  const axis = {stroke: color("soft"), grid: {stroke: color("edge"), width: 1}, ticks: {show: false}, font: "13px system-ui"};
  const points = {show: known.as_of.length < 60, size: 7};
  const line = {gaps, width: 2.5, points};
  return {
    width: holder.clientWidth - 16, height: 320, padding: [null, 36, null, null],
    scales: {x: {range: span}, y: {range}},
    legend: {show: false},
    cursor: {y: false, drag: {x: false, y: false}, points: {show: true}},
    axes: [{...axis, space, size: 36, gap: 10, values: dates}, {...axis, size: 56, values: (_, values) => values.map((value) => `${Number((100 * value).toFixed(1))}%`)}],
    series: [
      {},
      {gaps, stroke: "transparent", points: {show: false}},
      {gaps, stroke: "transparent", points: {show: false}},
      {...line, stroke: color("estimated"), dash: [8, 6], points: {...points, fill: color("card"), stroke: color("estimated")}},
      {...line, stroke: color("realised"), points: {...points, fill: color("realised")}},
    ],
    bands: [{series: [2, 1], fill: `color-mix(in srgb, ${color("realised")} 18%, transparent)`}],
    hooks: {drawClear: [bands], draw: [marks]},
    tzDate: (seconds) => uPlot.tzDate(new Date(1000 * seconds), "UTC"),
  };
}

function draw(at) {
  holder.replaceChildren();
  const data = [known.seconds, realised("low"), realised("high"), known.estimated, realised("value")];
  const plot = new uPlot(options(), data, holder);
  plot.over.addEventListener("click", () => { if (plot.cursor.idx !== null) look(plot.cursor.idx, plot) });
  slider.oninput = () => look(Number(slider.value), plot);
  select.onchange = () => look(known.as_of.indexOf(select.value), plot);
  look(at, plot);
}

document.getElementById("drawn").hidden = false;
holder.setAttribute("role", "img");
holder.setAttribute("aria-label", `Quality over ${known.as_of.length} as-ofs; the table below has the same numbers.`);
document.getElementById("slide").hidden = false;
const again = () => draw(selected);
again();
new ResizeObserver(() => { if (holder.dataset.width !== String(holder.clientWidth)) { holder.dataset.width = holder.clientWidth; again() } }).observe(holder);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
