// The line under the header: whether the server can answer, in words, with a bar where something goes on.

import { askHealth } from "./api.js";
import { $ } from "./dom.js";

const SLOW = 80; // degrees Celsius from which the server lets the card work less, unless --heat says others
const RESET = 120; // where the card resets itself
const WORDS = {
  recovering: "The card dropped out and is being brought back. Messages wait until then.",
  stalled: "The card has not brought a token for a while.",
  draining: "The server is being shut down: running answers end, new ones are refused.",
  closed: "The server was shut down.",
  failed: "The model cannot answer.",
};

let loaded = null; // part of the model's files that is loaded, while it is
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
  notice("The server does not answer. It is tried again until it does.");
  document.body.classList.add("away");
}

/** What a document of the live stream says. */
export function noticeStatus({ status, reason, picture }) {
  document.body.classList.remove("away");
  if (status === "ready") return ready(picture?.card.temperature_c ?? 0);
  missed = true;
  if (status === "loading") return load(reason);
  if (status === "hot") return tooHot(reason, picture?.card.temperature_c);
  const words = WORDS[status] ?? `The server is ${status}.`;
  notice(reason ? `${words} (${reason})` : words, "bad", status === "recovering" ? null : undefined);
}

function ready(celsius) {
  loaded = null;
  if (celsius >= SLOW) {
    const words = `The card is hot: ${celsius.toFixed(0)} °C. It works less until it is cooler; give it air.`;
    return notice(words, "bad", Math.min(celsius / RESET, 1));
  }
  if (!missed) return $("notice").className === "bad" && notice("");
  missed = false;
  notice("The server is ready again.", "good");
  setTimeout(() => $("notice").className === "good" && notice(""), 4000);
}

function tooHot(reason, celsius) {
  const degrees = celsius ? `: ${celsius.toFixed(0)} °C, and at ${RESET} °C it resets itself` : "";
  const words = `The card is too hot to work${degrees}. Give it air; ${reason}.`;
  notice(words, "bad", celsius ? Math.min(celsius / RESET, 1) : undefined);
}

/** The server's own words on how far it is; /health tells how long the bar is. */
async function load(reason) {
  const words = reason ? reason[0].toUpperCase() + reason.slice(1) : "The model is being loaded";
  notice(`${words}. Messages wait until then.`, "good", loaded);
  const { loading, status } = (await askHealth()) ?? {};
  if (status !== "loading" || !loading?.files || $("notice-bar").hidden) return;
  loaded = loading.files_done / loading.files;
  $("notice-bar").value = loaded;
}
