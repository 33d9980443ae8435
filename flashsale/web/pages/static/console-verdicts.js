// The words of verdicts and states.

import { has, say } from "./page.js";

const word = (kind) => (name) => (has(`${kind}.${name}`) ? say(`${kind}.${name}`) : name);

/** A verdict in words. */
export const wordOf = word("v");
/** An allocation's state in words. */
export const stateOf = word("s");
