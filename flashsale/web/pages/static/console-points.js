// Points: snapshots, how many qualify at each threshold, importing with progress.

import { $, ask, busy, el, enter, figure, fill, n, ops, tell, tellOf, told } from "./console.js";
import { Chart } from "./console-chart.js";
import { blame, clear, complete, explain, fromField } from "./console-fields.js";
import { say, when } from "./page.js";

const LOOK_MS = 1000;
const TYPED_MS = 300;
const MB = 1000000;
const megabytes = new Intl.NumberFormat(document.documentElement.lang, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const snapshots = [];
const chosen = { name: null, least: 0 };
let chart = null;

/** How many have so many points: read anew, exactly. */
async function qualify() {
  const least = $("least").value.trim();
  clear($("ask-it"));
  if (!complete($("ask-it"))) return;
  const answer = await ops("GET", `/v1/ops/points/${chosen.name}/thresholds?at_least=${least}`);
  if (!answer.ok) {
    if (!explain($("ask-it"), answer)) tellOf(answer);
    return;
  }
  const { members, thresholds, asked } = answer.body;
  chosen.least = asked.at_least;
  $("qualify").textContent = say("qualify", { n: n(asked.members), all: n(members), least: n(asked.at_least) });
  const rows = thresholds.filter((t) => t.at_least >= 1);
  chart ??= new Chart($("chart"), { series: [{ label: "" }], kind: "steps", time: false, log: true, marks: () => [Math.max(1, chosen.least)] });
  $("chart").hidden = rows.length < 2;
  if (rows.length >= 2) chart.set([rows.map((t) => t.at_least), rows.map((t) => t.members)]);
  fill($("thresholds").tBodies[0], thresholds.map((t) => [el("th", { scope: "row", class: "num", "data-cell": "1" }, n(t.at_least)), figure(t.members)]));
}

async function choose(name) {
  chosen.name = name;
  $("choose").hidden = false;
  $("choose-title").textContent = say("choose.of", { snapshot: name });
  await qualify();
  chart?.resize();
}

async function page(after = "") {
  const answer = await ask(`/v1/ops/points?limit=100${after}`);
  if (!tellOf(answer)) return;
  if (!after) snapshots.length = 0;
  snapshots.push(...answer.body.items);
  fill($("list").tBodies[0], snapshots.map((s) => [
    s.snapshot, when(Date.parse(s.cutoff)), figure(s.members), when(Date.parse(s.created_at)), s.created_by,
    el("td", { class: "acts", "data-cell": "1" }, el("button", {
      type: "button", "aria-label": say("choose.of", { snapshot: s.snapshot }), click: () => choose(s.snapshot).then(() => $("choose-title").focus()),
    }, say("choose"))),
  ]));
  $("none").hidden = snapshots.length > 0;
  $("more").hidden = !answer.body.next;
  $("more").onclick = () => page(`&after=${encodeURIComponent(answer.body.next)}`);
}

/** Send a file and hear how far it is: fetch() does not say. */
function send(path, file, onprogress) {
  return new Promise((settle) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.setRequestHeader("Content-Type", "text/csv");
    request.setRequestHeader("Accept", "application/json");
    request.upload.addEventListener("progress", (event) => onprogress(event.loaded, file.size));
    request.addEventListener("loadend", () => settle(told(request.status, request.responseText, (name) => request.getResponseHeader(name))));
    request.send(file);
  });
}

function wrongLines(title, rows) {
  $("wrong").hidden = !rows.length;
  $("wrong-title").textContent = title;
  fill($("wrong").querySelector("tbody"), rows.map(({ line, detail }) => [el("th", { scope: "row", class: "num", "data-cell": "1" }, n(line)), el("td", { "data-cell": "1", lang: "en" }, detail)]));
  if (rows.length) $("wrong-title").focus();
}

function begin(text) {
  tell("");
  clear($("import"));
  wrongLines("", []);
  $("under-way").hidden = false;
  $("how-far").textContent = text;
  $("bar").value = 0;
}

function sent(done, all) {
  $("bar").value = all ? done / all : 0;
  if (done < all) $("how-far").textContent = say("sending", { done: megabytes.format(done / MB), all: megabytes.format(all / MB) });
}

async function check() {
  const [file] = $("file").files;
  if (!file) {
    blame($("file"), say("c.empty")).focus();
    return;
  }
  begin(say("checking"));
  const answer = await send("/v1/ops/points/check", file, sent);
  $("under-way").hidden = true;
  if (!answer.ok) {
    blame($("file"), answer.detail, true).focus();
    return;
  }
  const { members, wrong, more } = answer.body;
  if (!wrong.length) tell(say("fine", { n: n(members) }));
  else wrongLines(say(more ? "wrong.more" : "wrong", { n: n(wrong.length) }), wrong);
}

/** Imports of all processes, our own among them. */
async function imports(own) {
  const answer = await ops("GET", "/v1/ops/points/imports");
  const items = answer.ok ? answer.body.items : [];
  const mine = items.find((one) => one.snapshot === own);
  if (mine && $("bar").value >= 1) $("how-far").textContent = say("storing", { n: n(mine.lines) });
  const others = items.filter((one) => one.snapshot !== own);
  $("others").hidden = !others.length;
  $("imports").replaceChildren(...others.map((one) => el("li", {}, say("other", { snapshot: one.snapshot, who: one.actor, n: n(one.lines) }))));
}

async function bring() {
  clear($("import"));
  if (!complete($("import"))) return;
  const [file] = $("file").files;
  const name = $("name").value.trim();
  begin(say("checking"));
  const query = new URLSearchParams({ name, cutoff: fromField($("cutoff").value) });
  const looking = setInterval(() => imports(name), LOOK_MS);
  const answer = await send(`/v1/ops/points?${query}`, file, sent);
  clearInterval(looking);
  $("under-way").hidden = true;
  if (answer.ok) {
    tell(say("imported", { n: n(answer.body.members), snapshot: answer.body.snapshot }));
    await page();
    return;
  }
  if (answer.body?.line !== undefined) wrongLines(say("one.wrong"), [{ line: answer.body.line, detail: answer.detail }]);
  else if (answer.status === 409) blame($("name"), answer.detail, true).focus();
  else if (!explain($("import"), answer)) tellOf(answer);
}

let typed = 0;
$("ask-it").addEventListener("submit", (event) => {
  event.preventDefault();
  qualify();
});
$("least").addEventListener("input", () => {
  clearTimeout(typed);
  typed = setTimeout(qualify, TYPED_MS);
});
$("import").addEventListener("submit", (event) => {
  event.preventDefault();
  busy($("import-it"), bring);
});
$("check").addEventListener("click", () => busy($("check"), check));

enter(async () => {
  await page();
  await imports(null);
  if (snapshots.length) await choose(snapshots[0].snapshot);
  document.addEventListener("console:shown", () => chart?.resize());
});
