// A drop: what the shopper sees and may do, moment by moment.

import { Clock } from "./clock.js";
import { down, say } from "./words.js";
import { showMember } from "./nav.js";

const drop = document.getElementById("drop").dataset.drop;
const act = document.getElementById("act");
const clock = new Clock(`/v1/drops/${drop}/clock`);
await clock.set();
const opens = Math.min(...[...document.querySelectorAll("#batches li")].map((li) => Date.parse(li.dataset.opens)));
act.dataset.count = "";
setInterval(() => {
  document.getElementById("act-title").textContent = say("upcoming.title");
  document.getElementById("act-count").textContent = down(opens - clock.now());
}, 250);
showMember(null);
