// My reservations: what I have, and what I may still do about it.

import { ask, list, titleOf } from "./list.js";
import { lang, say, when } from "./page.js";

async function fill(li, item) {
  const find = (name) => li.querySelector(name);
  li.dataset.state = item.state;
  const title = find(".title");
  title.href = `/${lang}/d/${item.drop}`;
  const many = item.quantity > 1 ? `${item.quantity} × ` : "";
  title.textContent = many + item.drop;
  find(".state").textContent = say(item.state, { time: when(Date.parse(item.expires_at)) });
  find(".detail").textContent = item.order ? say("order", { order: item.order.slice(-6).toUpperCase() }) : "";
  const acts = find(".acts");
  if (item.state !== "held") acts.hidden = true;
  const pay = find(".pay");
  if (pay) pay.href = pay.dataset.pay.replace("{reservation}", item.id);
  const act = (name, method, path) =>
    find(name)?.addEventListener("click", async () => {
      acts.hidden = true;
      const { status, body } = await ask(method, path, { body: method === "POST" ? {} : undefined });
      const found = status === 200 ? body : (await ask("GET", `/v1/reservations/${item.id}`)).body;
      fill(li, found?.state ? found : item);
      document.getElementById("say").textContent = status === 200 ? find(".state").textContent : (body?.detail ?? "");
    });
  if (item.state === "held" && !li.dataset.wired) {
    li.dataset.wired = "yes";
    act(".yes", "POST", `/v1/reservations/${item.id}/confirm`);
    act(".no", "DELETE", `/v1/reservations/${item.id}`);
  }
  title.textContent = many + (await titleOf(item.drop, lang));
}

list("/v1/me/reservations", fill);
