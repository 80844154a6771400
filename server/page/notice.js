// The line under the header: whether the server can answer, in words, with a bar where something goes on.

import { askHealth } from "./api.js";
import { $ } from "./dom.js";

const LOOK_AGAIN = 1000; // ms, while the server is not ready
const HOT = 85; // degrees Celsius at the chip, as `axpress doctor` has it
const RESET = 120; // where the card resets itself
const WORDS = {
  recovering: "The card dropped out and is being brought back. Messages wait until then.",
  stalled: "The card has not brought a token for a while.",
  draining: "The server is being shut down: running answers end, new ones are refused.",
  closed: "The server was shut down.",
  failed: "The model cannot answer.",
};

let timer = 0;
let missed = false; // the server, or its model, was away

/** Says `text`; `bar`: 0 to 1, null where nobody knows how far it is, undefined for none. */
export function notice(text, kind = "bad", bar = undefined) {
  const box = $("notice");
  const said = $("notice-said");
  if (said.textContent !== text) said.textContent = text;
  box.className = text ? kind : "";
  const progress = $("notice-bar");
  progress.hidden = bar === undefined;
  if (typeof bar === "number") progress.value = bar;
  else progress.removeAttribute("value");
}

export function noticeLost() {
  missed = true;
  clearInterval(timer);
  timer = 0;
  notice("The server does not answer. It is tried again until it does.");
  document.body.classList.add("away");
}

/** What a document of the live stream says. */
export function noticeStatus({ status, reason, picture }) {
  document.body.classList.remove("away");
  if (status !== "ready") {
    missed = true;
    if (status === "loading") return load();
  }
  clearInterval(timer);
  timer = 0;
  if (status !== "ready") {
    const words = WORDS[status] ?? `The server is ${status}.`;
    return notice(reason ? `${words} (${reason})` : words, "bad", status === "recovering" ? null : undefined);
  }
  const celsius = picture?.card.temperature_c ?? 0;
  if (celsius >= HOT) {
    const words = `The card is hot: ${celsius.toFixed(0)} °C. At ${RESET} °C it resets itself; give it air.`;
    return notice(words, "bad", Math.min(celsius / RESET, 1));
  }
  if (!missed) return $("notice").className === "bad" && notice("");
  missed = false;
  notice("The server is ready again.", "good");
  setTimeout(() => $("notice").className === "good" && notice(""), 4000);
}

function load() {
  if (timer) return;
  const look = async () => {
    const health = await askHealth();
    if (timer && health?.status === "loading") notice(...loadingWords(health.loading));
  };
  notice("The model is being loaded. Messages wait until then.", "good", null);
  timer = setInterval(look, LOOK_AGAIN);
  look();
}

function loadingWords(loading) {
  if (!loading) return ["The model is being loaded. Messages wait until then.", "good", null];
  const { stage, files_done: done, files, seconds_left: left, unanswered } = loading;
  const bar = files ? done / files : null;
  if (unanswered) return [`The model is being loaded, but the card is slow to answer: ${unanswered}`, "bad", bar];
  if (stage === "probing") return ["The model is loaded; the card is being tried out.", "good", bar];
  const rest = left === null ? "" : `, about ${Math.ceil(left)} s left`;
  return [`The model is being loaded: ${done} of ${files} files${rest}. Messages wait until then.`, "good", bar];
}
