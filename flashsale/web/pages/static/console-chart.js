// Charts by uPlot, in the page's colours. What a chart shows stands in a table behind it, too.

import uPlot from "./uplot.js";

const HEIGHT = 220;
const zone = document.documentElement.dataset.zone;
const form = (options) => new Intl.DateTimeFormat(document.documentElement.lang, { timeZone: zone, hourCycle: "h23", ...options });
const [bySecond, byMinute, byDay] = [
  form({ hour: "2-digit", minute: "2-digit", second: "2-digit" }), form({ hour: "2-digit", minute: "2-digit" }), form({ month: "short", day: "numeric" }),
];
const timeOf = (s, step) => (step >= 86400 ? byDay : step >= 60 ? byMinute : bySecond).format(s * 1000);
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const dashes = [[], [8, 4], [2, 3], [10, 3, 2, 3], [5, 5], [12, 4]];

/** How a series is drawn, told apart by dashes as well as by colour. */
export const strokeOf = (at) => ({ color: style(`--c${(at % 6) + 1}`), dash: dashes[at % 6] });

/** A sample of a series' line, for a legend. */
export function sample(at) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  for (const [name, value] of Object.entries({ width: 28, height: 10, "aria-hidden": "true" })) svg.setAttribute(name, value);
  for (const [name, value] of Object.entries({ x1: 0, x2: 28, y1: 5, y2: 5, class: `c${(at % 6) + 1}`, "stroke-dasharray": dashes[at % 6].join(" ") })) line.setAttribute(name, value);
  svg.append(line);
  return svg;
}

export class Chart {
  /**
   * `series`: [{label, fill?}], `kind` "line" or "steps"; `time`: x is Unix seconds, `span` of which are shown; `log`: x
   * by its magnitude.
   */
  constructor(host, { series, kind = "line", time = true, log = false, unit = "", span = 0, marks = () => [] }) {
    Object.assign(this, { host, series, kind, time, log, unit, span, marks });
    this.data = null;
    this.plot = null;
    this.sizes = new ResizeObserver(() => this.resize());
    this.sizes.observe(host);
    for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
      matchMedia(query).addEventListener("change", () => this.draw());
    }
  }

  set(data) {
    this.data = data;
    if (this.plot) this.plot.setData(data);
    else this.draw();
  }

  /** Other series: everything is drawn anew. */
  become(series, data) {
    this.series = series;
    this.data = data;
    this.draw();
  }

  resize() {
    const width = this.host.clientWidth;
    if (!width) return;
    if (this.plot) this.plot.setSize({ width, height: HEIGHT });
    else this.draw();
  }

  axes() {
    const common = { stroke: style("--soft"), grid: { stroke: style("--hair"), width: 1 }, ticks: { stroke: style("--hair"), width: 1 }, font: "13px system-ui, sans-serif" };
    const short = new Intl.NumberFormat(document.documentElement.lang, { notation: "compact" });
    return [
      this.time ? { ...common, space: 80, incrs: [1, 5, 15, 30, 60, 300, 900, 3600, 10800, 43200, 86400, 604800], values: (_, at, __, ___, step) => at.map((v) => timeOf(v, step)) } : { ...common, values: (_, at) => at.map((v) => (v === null ? "" : short.format(v))) },
      { ...common, size: this.unit ? 72 : 56, values: (_, at) => at.map((v) => (v === null ? "" : `${short.format(v)}${this.unit}`)) },
    ];
  }

  draw() {
    const width = this.host.clientWidth;
    if (!this.data || !width) return;
    this.plot?.destroy();
    const paths = this.kind === "steps" ? uPlot.paths.stepped({ align: this.time ? 1 : -1 }) : undefined;
    const options = {
      width,
      height: HEIGHT,
      legend: { show: false },
      cursor: { show: false },
      select: { show: false },
      padding: [12, 36, 0, 0],
      tzDate: (s) => uPlot.tzDate(new Date(s * 1000), zone),
      scales: { x: { time: this.time, distr: this.log ? 3 : 1, ...(this.span ? { range: (_, __, high) => [high - this.span, high] } : {}) }, y: { range: (_, low, high) => [0, Math.max(high * 1.1, 1)] } },
      axes: this.axes(),
      series: [
        {},
        ...this.series.map(({ label, fill = false }, at) => {
          const { color, dash } = strokeOf(at);
          return { label, stroke: color, width: 2, dash, paths, points: { show: false }, fill: fill && color.startsWith("#") ? `${color}33` : undefined };
        }),
      ],
      hooks: { draw: [(plot) => this.mark(plot)] },
    };
    this.plot = new uPlot(options, this.data, this.host);
    this.plot.root.setAttribute("aria-hidden", "true");
  }

  /** Lines across the chart: moments, or the threshold that was chosen. */
  mark(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = style("--ink");
    ctx.setLineDash([3, 3]);
    for (const at of this.marks()) {
      const x = Math.round(plot.valToPos(at, "x", true));
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }
}
