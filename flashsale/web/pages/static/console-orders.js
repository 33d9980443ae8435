// Orders on their way to the shop: search, state, delivering one again.

import { $, ask, askBack, busy, el, enter, figure, fill, n, ops, tell, tellOf } from "./console.js";
import { clear, complete, explain, toAmount } from "./console-fields.js";
import { queryOf, restore } from "./console-filters.js";
import { has, say, when } from "./page.js";

const orders = [];
const form = $("filters");
const money = (m) => new Intl.NumberFormat(document.documentElement.lang, { style: "currency", currency: m.currency }).format(Number(toAmount(m)));
const eventOf = (event) => (has(`e.${event}`) ? say(`e.${event}`) : event);

async function replay(button, order) {
  const row = button.closest("tr");
  if (order.state === "delivered") {
    const meant = await askBack($("list-title"), { title: say("replay.title"), text: `${say("replay.text")} ${order.order}`, yes: say("replay.yes") });
    if (!meant) return;
  }
  const answer = await ops("POST", `/v1/ops/orders/${order.order}/replay`, { data: {} });
  if (!tellOf(answer, say("replayed"))) return;
  order.state = answer.body.state;
  row.querySelector(".state").textContent = say(`o.${order.state}`);
  row.querySelector(".state").dataset.state = order.state;
}

function row(order) {
  const button = el("button", { type: "button", class: "change", "aria-label": say("replay.of", { order: order.order }) }, say("replay"));
  button.addEventListener("click", () => busy(button, () => replay(button, order)));
  return [
    el("th", { scope: "row", "data-cell": "1" }, el("code", {}, order.order), order.reason ? el("span", { class: "soft", lang: "en" }, ` ${order.reason}`) : null),
    el("td", { "data-cell": "1", class: "state", "data-state": order.state }, say(`o.${order.state}`)),
    eventOf(order.event), `${order.drop} / ${order.allocation}`, String(order.member), el("td", { "data-cell": "1", class: "num" }, money(order.money)),
    when(Date.parse(order.created_at)), figure(order.tries), el("td", { "data-cell": "1", class: "acts" }, button),
  ];
}

function queue(health) {
  $("waiting-orders").textContent = n(health.waiting);
  $("oldest").textContent = `${n(Math.round(health.oldest_seconds * 10) / 10)} s`;
  $("dead").textContent = n(health.dead);
  $("dead").closest("div").classList.toggle("alarm", health.dead > 0);
  $("tries").textContent = n(health.tries_max);
  $("disabled").textContent = health.disabled ? say("disabled") : "";
}

async function page(after = "") {
  const query = queryOf(form);
  query.set("limit", "50");
  if (after) query.set("after", after);
  const answer = await ask(`/v1/ops/orders?${query}`);
  if (!answer.ok) {
    if (!explain(form, answer)) tellOf(answer);
    return;
  }
  if (!after) orders.length = 0;
  orders.push(...answer.body.items);
  queue(answer.body.queue);
  fill($("list").tBodies[0], orders.map(row));
  $("none").hidden = orders.length > 0;
  $("more").hidden = !answer.body.next;
  $("more").onclick = () => page(answer.body.next);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  busy($("search"), async () => {
    tell("");
    clear(form);
    if (!complete(form)) return;
    history.replaceState(null, "", `?${queryOf(form)}`);
    await page();
  });
});

enter(() => {
  restore(form);
  return page();
});
