// How full the model's context is, and what is left out when it is too full.

import { askJson } from "./api.js";
import { $, count } from "./dom.js";
import { served } from "./model.js";
import { promptOf } from "./request.js";

const PAUSE = 500; // ms without a key pressed before the server is asked to count
const ROOM = 512; // tokens kept for an answer whose length nobody limited, or a quarter of a small context
const FULL = 0.75; // from here on the way out is offered

/** Tokens of these messages as the model reads them, counted by the server. */
export async function countTokens(settings, nodes, signal) {
  const prompt = promptOf(settings, nodes);
  if (!prompt.messages.length) return 0;
  return (await askJson("/tokenize", prompt, signal)).count;
}

const room = ({ max_tokens: most }) => Math.min(most ?? ROOM, Math.floor(served.context / 4));

/** The messages that fit, without the oldest turns where there are too many: a question goes with its answer. Also
 *  `count`, their tokens. */
export async function fitting(settings, nodes, signal) {
  const starts = nodes.flatMap((node, i) => (node.role === "user" ? [i] : []));
  const fits = (tokens) => !settings.leave_out || tokens + room(settings) <= served.context;
  const counted = async (turn) => {
    const kept = nodes.slice(turn ? starts[turn] : 0);
    return { kept, count: await countTokens(settings, kept, signal) };
  };
  let best = await counted(0);
  if (fits(best.count) || starts.length < 2) return best;
  let low = 1;
  let high = starts.length - 1;
  best = await counted(high);
  while (low < high) {
    const middle = (low + high) >> 1;
    const tried = await counted(middle);
    if (fits(tried.count)) [best, high] = [tried, middle];
    else low = middle + 1;
  }
  return best;
}

let timer = 0;
let control = null;

/** Counts anew in a moment. `look()` gives the settings and the messages with what is being written, or null. */
export function countSoon(look, pause = PAUSE) {
  clearTimeout(timer);
  timer = setTimeout(async () => {
    const now = look();
    if (!now || !served.context) return;
    control?.abort();
    control = new AbortController();
    try {
      showMeter((await fitting(now.settings, now.nodes, control.signal)).count, now.settings);
    } catch {
      // loading, or a key is wanted: said elsewhere
    }
  }, pause);
}

/** The meter by the message box; nothing while nothing is said. */
export function showMeter(tokens, { leave_out: leaveOut }) {
  const known = tokens > 0 && served.context > 0;
  const part = tokens / served.context;
  $("context").hidden = !known;
  $("leave-out").checked = Boolean(leaveOut);
  if (!known) return;
  $("context-bar").value = Math.min(part, 1);
  $("context-said").textContent = `${count(tokens)} of ${count(served.context)} tokens of context`;
  $("leave-out").parentElement.hidden = !leaveOut && part < FULL;
  $("context").classList.toggle("full", part > 0.95);
}
