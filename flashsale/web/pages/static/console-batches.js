// F-codes: the switch that stops them all, the batches, minting.

import { $, ask, askBack, busy, el, enter, figure, fill, lang, n, ops, tell, tellOf } from "./console.js";
import { blame, clear, complete, explain, fromField } from "./console-fields.js";
import { say, when } from "./page.js";

const batches = [];
const lanes = new Map();

async function showSwitch(body) {
  $("switch").dataset.state = body.stopped ? "stopped" : "honoured";
  $("switch-word").textContent = say(body.stopped ? "off" : "on");
  const drops = body.drops.length ? say("on.drops", { drops: body.drops.join(", ") }) : "";
  $("switch-why").textContent = body.stopped ? say("off.why", { time: when(Date.parse(body.since)), who: body.by, reason: body.reason }) : drops;
  $("stop").hidden = body.stopped;
  $("go").hidden = !body.stopped;
}

async function turn(button, stopped) {
  const words = stopped ? { title: say("stop.title"), text: say("stop.text"), yes: say("stop.yes"), danger: true } : { title: say("go.title"), yes: say("go.yes") };
  const meant = await askBack(button, { ...words, reason: "must" });
  if (!meant) return;
  const answer = await ops("POST", "/v1/ops/fcode-switch", { data: { stopped, reason: meant.reason } });
  if (!tellOf(answer, say("switched"))) return;
  showSwitch(answer.body);
  $(stopped ? "go" : "stop").focus();
}

function row(b) {
  const end = b.expires_at === null ? null : Date.parse(b.expires_at);
  const state = b.revoked_at ? "revoked" : end !== null && end <= Date.now() ? "ended" : "valid";
  return [
    el("th", { scope: "row", "data-cell": "1" }, el("a", { href: `/${lang}/ops/fcodes/${b.batch}` }, b.batch)),
    `${b.drop} / ${b.allocation}`, figure(b.count), say(b.bound ? "bound" : "bearer"), when(Date.parse(b.created_at)),
    end === null ? say("no_end") : when(end), el("td", { "data-cell": "1", class: "state", "data-state": state === "valid" ? "open" : "" }, say(state)), b.note ?? "",
  ];
}

async function page(after = "") {
  const answer = await ask(`/v1/ops/fcodes?limit=50${after}`);
  if (!tellOf(answer)) return;
  if (!after) batches.length = 0;
  batches.push(...answer.body.items);
  fill($("batches").tBodies[0], batches.map(row));
  $("none").hidden = batches.length > 0;
  $("more").hidden = !answer.body.next;
  $("more").onclick = () => page(`&after=${answer.body.next}`);
}

/** The drops that have an allocation for F-codes, and may still sell. */
async function findLanes() {
  const answer = await ask("/v1/ops/drops?limit=500");
  if (!tellOf(answer)) return;
  for (const drop of answer.body.items) {
    const own = drop.allocations.filter((a) => a.access.kind === "fcode");
    if (own.length && !drop.closed) lanes.set(drop.id, own);
  }
  $("drop").replaceChildren(...[...lanes.keys()].map((id) => el("option", { value: id }, id)));
  chooseDrop();
}

function chooseDrop() {
  const own = lanes.get($("drop").value) ?? [];
  $("lane").replaceChildren(...own.map((a) => el("option", { value: a.id }, a.id)));
  chooseLane();
}

function chooseLane() {
  const lane = lanes.get($("drop").value)?.find((a) => a.id === $("lane").value);
  $("lane-hint").textContent = lane ? say("lane.units", { n: n(lane.quantity) }) : say("lane.none");
}

function chooseKind() {
  for (const part of $("mint").querySelectorAll("[data-for]")) {
    part.hidden = part.dataset.for !== $("kind").value;
    part.querySelector("input").disabled = part.hidden;
  }
}

async function mint() {
  tell("");
  clear($("mint"));
  if (!complete($("mint"))) return;
  const path = `/v1/ops/drops/${$("drop").value}/allocations/${$("lane").value}/fcodes`;
  const [expires, note] = [fromField($("expires").value), $("note").value.trim()];
  let answer;
  if ($("kind").value === "bound") {
    const query = new URLSearchParams({ ...(expires ? { expires_at: expires } : {}), ...(note ? { note } : {}) });
    answer = await ops("POST", `${path}?${query}`, { file: $("owners").files[0], type: "text/csv", timeout: 300000 });
    if (answer.status === 422) {
      blame($("owners"), answer.detail, true).focus();
      return;
    }
  } else {
    const data = { count: Number($("count").value), ...(expires ? { expires_at: expires } : {}), ...(note ? { note } : {}) };
    answer = await ops("POST", path, { data, timeout: 120000 });
    if (answer.status === 409 && answer.body.free !== undefined) {
      blame($("count"), answer.detail, true).focus();
      return;
    }
  }
  if (!answer.ok && explain($("mint"), answer)) return;
  if (!tellOf(answer, answer.ok ? say("minted", { n: n(answer.body.count), batch: answer.body.batch }) : "")) return;
  for (const id of ["count", "owners", "note"]) $(id).value = "";
  await page();
}

$("drop").addEventListener("change", chooseDrop);
$("lane").addEventListener("change", chooseLane);
$("kind").addEventListener("change", chooseKind);
$("stop").addEventListener("click", () => busy($("stop"), () => turn($("stop"), true)));
$("go").addEventListener("click", () => busy($("go"), () => turn($("go"), false)));
$("mint").addEventListener("submit", (event) => {
  event.preventDefault();
  busy($("mint-it"), mint);
});

enter(async () => {
  const answer = await ask("/v1/ops/fcode-switch");
  if (tellOf(answer)) showSwitch(answer.body);
  await Promise.all([page(), findLanes()]);
});
