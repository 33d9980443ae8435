// My F-codes: those that are bound to me, and what became of each.

import { list, titleOf } from "./list.js";
import { lang, say, when } from "./page.js";

async function fill(li, item) {
  const find = (name) => li.querySelector(name);
  li.dataset.state = item.state;
  find(".title").textContent = item.code;
  find(".state").textContent = say(item.state);
  find(".acts").hidden = item.state !== "unspent";
  find(".acts a").href = `/${lang}/d/${item.drop}#code=${encodeURIComponent(item.code)}`;
  const until = item.expires_at ? say("until", { time: when(Date.parse(item.expires_at)) }) : "";
  find(".detail").textContent = [await titleOf(item.drop, lang), item.note, until].filter(Boolean).join(" · ");
}

list("/v1/me/fcodes", fill);
