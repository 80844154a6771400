// The live view of the card: follows /live/stream, says when the server is away, and comes back by itself.

import { streamLive } from "./api.js";
import { drawBars, drawLine } from "./charts.js";
import { $, count, el, many, rate } from "./dom.js";
import { notice, noticeLost, noticeStatus } from "./notice.js";
import { find, isOwn } from "./own.js";
import { assignColours, colourClass, showBanks } from "./rows.js";

const MINUTE = 120; // snapshots
const PASSES = 48;
const LONGEST_WAIT = 5000; // ms between two tries
const [WARM, HOT] = [75, 85]; // degrees Celsius, as `axpress doctor` has them
const SERVING = ["ready", "draining"];
const STATES = { prompt: "reads its prompt", answer: "answers", paused: "paused" };

const speeds = [];
let latest = null;
let control = null;

/** `facts(document)` is called with every document, `locked()` where the server wants another key. */
export function startLive(facts, locked) {
  const run = () => {
    control?.abort();
    control = new AbortController();
    follow(control.signal, facts, locked);
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? control?.abort() : run()));
  const redraw = () => latest?.picture && drawAll(latest.picture);
  new ResizeObserver(redraw).observe($("banks"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  run();
  return run; // to begin anew, with another key
}

async function follow(signal, facts, locked) {
  for (let wait = 500; !signal.aborted; wait = Math.min(wait * 1.6, LONGEST_WAIT)) {
    try {
      for await (const document of streamLive(signal)) {
        wait = 500;
        noticeStatus(document);
        facts(document);
        show(document);
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 401 || error.status === 403) {
        notice(error.message);
        return locked(error.message);
      }
      if (error.status) notice(`The live view is not to be had: ${error.message}`);
    }
    if (signal.aborted) return;
    noticeLost();
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

// ---- figures ----

function show(document) {
  latest = document;
  $("card").classList.remove("unknown");
  const { emulated, toy, profile, picture } = document;
  const cards = picture?.cards ?? [];
  $("card-title").textContent = (emulated ? "Emulated card" : "Card") + (cards.length > 1 ? "s" : "");
  const some = cards.some(({ state }) => SERVING.includes(state));
  $("card-states").textContent = (some ? cards : [])
    .filter(({ state }) => !SERVING.includes(state))
    .map(({ name, state }) => `Card ${name} is ${state === "failed" ? "out of order" : "being brought back"}; `)
    .join("")
    .replace(/; $/, ": the others answer meanwhile.");
  const pace =
    profile && profile !== "none" ? `paced like ${profile} (modelled)` : "as fast as this computer's CPU goes";
  $("card-note").textContent = emulated
    ? `No card is involved: it is emulated, ${pace}.${toy ? " The model is a toy." : ""}`
    : "";
  if (!picture) return;
  speeds.push(picture.tokens_per_s);
  if (speeds.length > MINUTE) speeds.shift();
  find(picture.running);
  assignColours(picture.running.map((answer) => answer.number));
  drawAll(picture);
  showRunning(picture);
}

function drawAll(picture) {
  const { card, cards, tokens_per_s: speed, passes, running } = picture;
  const idle = !running.length;
  const all = cards.length ? cards.map((one) => one.card) : [card];
  const degrees = all.map((one) => one.temperature_c).filter((one) => one !== null);
  const celsius = degrees.length ? Math.max(...degrees) : null;
  $("temperature").textContent = celsius === null ? "–" : `${celsius.toFixed(0)} °C`;
  $("temperature-note").textContent = celsius === null ? "" : celsius >= HOT ? "hot" : celsius >= WARM ? "warm" : "";
  showMemory(all);
  $("speed-note").hidden = idle || speed === null;
  $("speed").textContent = idle || speed === null ? "–" : rate(speed);
  drawLine($("speed-chart"), speeds, MINUTE);
  const [tokens, answers] = (!idle && passes.at(-1)) || [];
  $("width").textContent = tokens ? count(tokens) : "–";
  $("width-note").textContent = tokens ? `for ${many(answers, "answer")}` : "";
  const said = tokens
    ? `The latest pass carried ${many(tokens, "token")} for ${many(answers, "answer")}`
    : "Nothing is computed";
  $("width-chart").setAttribute("aria-label", said);
  drawBars($("width-chart"), passes, PASSES);
  showBanks(picture.banks, cards);
}

function showMemory(cards) {
  const sum = (name) => cards.reduce((all, card) => (all === null || card[name] === null ? null : all + card[name]), 0);
  const [total, free] = [sum("memory_bytes"), sum("memory_free_bytes")];
  const known = total !== null && free !== null;
  const mib = (bytes) => count(Math.round(bytes / 2 ** 20));
  $("memory").textContent = known ? mib(total - free) : "–";
  $("memory-note").textContent = known ? `of ${mib(total)} MiB` : "";
  $("memory-bar").hidden = !known;
  if (known) $("memory-bar").value = (total - free) / total;
}

/** The table of answers, row by row brought up to date, so that a reader's place in it stays. */
function showRunning({ running, num_waiting: waiting }) {
  const body = $("running").tBodies[0];
  const known = new Map(Array.from(body.rows, (row) => [Number(row.dataset.number), row]));
  for (const answer of running) {
    const row = known.get(answer.number) ?? body.appendChild(newRow(answer.number));
    known.delete(answer.number);
    const state = STATES[answer.state] + (answer.background ? ", in the background" : "");
    const read = answer.state === "prompt" ? `${count(Math.min(answer.computed, answer.prompt_tokens))} of ` : "";
    const prompt = read + count(answer.prompt_tokens);
    row.classList.toggle("own", isOwn(answer.number));
    row.cells[0].lastElementChild.hidden = !isOwn(answer.number);
    [state, prompt, count(answer.generated)].forEach((text, i) => {
      const cell = row.cells[i + 1];
      if (cell.textContent !== text) cell.textContent = text;
    });
  }
  for (const row of known.values()) row.remove();
  $("running").hidden = !running.length;
  $("nobody").hidden = running.length > 0;
  $("waiting").textContent = `${count(running.length)} running, ${count(waiting)} waiting`;
}

function newRow(number) {
  const row = el(
    "tr",
    {},
    el(
      "th",
      { scope: "row" },
      el("i", { className: `swatch ${colourClass(number)}` }),
      `${number}`,
      el("span", { className: "you" }, "yours"),
    ),
  );
  row.dataset.number = number;
  for (let i = 0; i < 3; i++) row.append(el("td"));
  return row;
}

/** The maps have no size while the card is not on show. */
export function cardShown() {
  if (latest?.picture) drawAll(latest.picture);
}
