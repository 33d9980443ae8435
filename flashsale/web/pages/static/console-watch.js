// The live page: a drop's frames, and the switch that stops it.

import { $, ask, enter } from "./console.js";
import { Live, liveHost } from "./console-live.js";
import { Switches } from "./console-switches.js";

const drop = $("page").dataset.drop;

enter(async () => {
  const { status, body, detail } = await ask(`/v1/ops/drops/${drop}`);
  if (status !== 200) {
    $("title").textContent = detail;
    return;
  }
  const switches = new Switches(drop, (now) => {
    $("title").textContent = now.title;
  });
  switches.show(body);
  new Live(liveHost(), (frame) => switches.be(frame)).open(drop);
});
