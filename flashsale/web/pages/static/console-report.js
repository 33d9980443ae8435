// After the sale: what happened second by second, and whether who came first was served first.

import { $, ask, el, enter, figure, fill, n, tellOf } from "./console.js";
import { Chart, sample } from "./console-chart.js";
import { wordOf } from "./console-verdicts.js";
import { say } from "./page.js";

const drop = $("page").dataset.drop;
const SERIES = ["granted", "confirmed", "refused"];
const ROWS_MAX = 1000;
const BARS_MIN = 12;
const clock = new Intl.DateTimeFormat(document.documentElement.lang, {
  timeZone: document.documentElement.dataset.zone, month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const ms = (value) => `${n(value)} ms`;
const refusedOf = (row) => Object.values(row.refused).reduce((a, b) => a + b, 0);
const valueOf = (row, name) => (name === "refused" ? refusedOf(row) : row[name]);
const define = (list, rows) => list.replaceChildren(...rows.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value))));

/** Every step from the first to the last, also those in which nothing happened. */
function columns({ seconds, step_s: step }) {
  const data = [[], ...SERIES.map(() => [])];
  let before = null;
  const add = (at, row) => {
    data[0].push(at);
    SERIES.forEach((name, i) => data[i + 1].push(row ? valueOf(row, name) : 0));
  };
  if (seconds.length) add(Date.parse(seconds[0].at) / 1000 - step, null);
  for (const row of seconds) {
    const at = Date.parse(row.at) / 1000;
    if (before !== null && at > before + step) {
      add(before + step, null);
      if (at - step > before + step) add(at - step, null);
    }
    add(at, row);
    before = at;
  }
  for (let after = 1; after <= 1 || data[0].length < BARS_MIN; after += 1) add(before + after * step, null);
  return data;
}

function fairness(f) {
  const judged = f.judged > 1 && f.pairs > 0;
  $("fair").dataset.state = judged && f.out_of_order === 0 ? "good" : "";
  $("fair").textContent = !judged ? say("fair.none") : f.out_of_order === 0 ? say("fair.yes") : say("fair.no", { share: n(f.share_out_of_order * 1000) });
  const rows = [
    [say(f.capped ? "f.capped" : "f.judged"), n(f.judged)], [say("f.pairs"), n(f.pairs)], [say("f.out_of_order"), n(f.out_of_order)],
    [say("f.overtaking"), n(f.overtaking)], [say("f.ties"), n(f.ties)], [say("f.p50"), ms(f.displacement_ms.p50)],
    [say("f.p99"), ms(f.displacement_ms.p99)], [say("f.max"), ms(f.displacement_ms.max)],
  ];
  if (f.wait_ms) rows.push([say("f.wait"), ms(f.wait_ms.p99)]);
  define($("fairness"), rows);
  $("arrival").textContent = f.arrival;
  $("grant").textContent = f.grant;
}

function show(report) {
  const { seconds, totals } = report;
  $("step").textContent = say(report.more ? "step.more" : "step", { s: n(report.step_s) });
  $("none").hidden = seconds.length > 0;
  $("granted").hidden = $("table-box").hidden = !seconds.length;
  if (seconds.length) {
    const chart = new Chart($("granted"), { series: SERIES.map((name) => ({ label: say(`t.${name}`), fill: name === "granted" })), kind: "steps" });
    chart.set(columns(report));
    $("legend").append(...SERIES.map((name, at) => el("li", {}, sample(at), say(`t.${name}`))));
    document.addEventListener("console:shown", () => chart.resize());
  }
  fill($("seconds").tBodies[0], seconds.slice(0, ROWS_MAX).map((row) => [
    clock.format(Date.parse(row.at)), ...["granted", "confirmed", "cancelled", "expired", "returned", "refused"].map((name) => figure(valueOf(row, name))),
  ]));
  define($("totals"), ["granted", "confirmed", "cancelled", "expired", "returned"].map((name) => [say(`t.${name}`), n(totals[name])]));
  define($("refused"), Object.entries(totals.refused).sort((a, b) => b[1] - a[1]).map(([word, count]) => [wordOf(word), n(count)]));
  $("kept").textContent = report.refusals.note;
  fairness(report.fairness);
}

enter(async () => {
  const [answer, of] = await Promise.all([ask(`/v1/ops/drops/${drop}/report`), ask(`/v1/ops/drops/${drop}`)]);
  if (of.ok) $("title").textContent = of.body.title;
  if (tellOf(answer)) show(answer.body);
});
