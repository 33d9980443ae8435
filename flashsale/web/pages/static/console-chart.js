// Charts by uPlot, in the page's colours. What a chart shows stands in a table behind it, too.

import uPlot from "./uplot.js";

const HEIGHT = 220;
const zone = document.documentElement.dataset.zone;
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
  /** `series`: [{label}], `kind` "line", "steps" or "bars"; `time`: x is Unix seconds; `log`: x by its magnitude. */
  constructor(host, { series, kind = "line", time = true, log = false, unit = "", marks = () => [] }) {
    Object.assign(this, { host, series, kind, time, log, unit, marks });
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
      this.time ? common : { ...common, values: (_, at) => at.map((v) => (v === null ? "" : short.format(v))) },
      { ...common, size: 56, values: (_, at) => at.map((v) => (v === null ? "" : `${short.format(v)}${this.unit}`)) },
    ];
  }

  draw() {
    const width = this.host.clientWidth;
    if (!this.data || !width) return;
    this.plot?.destroy();
    const paths = { line: undefined, steps: uPlot.paths.stepped({ align: -1 }), bars: uPlot.paths.bars({ size: [0.9, 60] }) }[this.kind];
    const options = {
      width,
      height: HEIGHT,
      legend: { show: false },
      cursor: { show: false },
      select: { show: false },
      padding: [12, 12, 0, 0],
      tzDate: (s) => uPlot.tzDate(new Date(s * 1000), zone),
      scales: { x: { time: this.time, distr: this.log ? 3 : 1 }, y: { range: (_, low, high) => [0, Math.max(high * 1.1, 1)] } },
      axes: this.axes(),
      series: [
        {},
        ...this.series.map(({ label, width: thick = 2 }, at) => {
          const { color, dash } = strokeOf(at);
          return { label, stroke: color, width: thick, dash, paths, points: { show: false }, fill: this.kind === "bars" ? color : undefined, spanGaps: false };
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
