// How a message looks. Its node is made once and brought up to date as the answer grows.

import { copyButton, count, el, many, rate } from "./dom.js";
import { code, show } from "./markup.js";

const NOTES = {
  stopped: "Stopped by you.",
  cut: "Cut off by a reload of the page.",
  length: "It ended at the token limit.",
};

/** The list item of a message. `actions` are the buttons under an answer. */
export function messageNode(message, actions = []) {
  if (message.role === "user") {
    const bubble = el("div", { className: "bubble" }, message.content);
    return el("li", { className: "user" }, el("h3", { className: "hidden" }, "You"), bubble);
  }
  const node = el("li", { className: "assistant" }, el("h3", { className: "hidden" }, "Answer"));
  const thoughts = el("div", { className: "text" });
  const reasoning = el("details", { className: "reasoning", hidden: true }, el("summary", {}, "Reasoning"), thoughts);
  const text = el("div", { className: "text" });
  const tools = el("div", { className: "tools" });
  const error = el("p", { className: "error", hidden: true });
  const note = el("p", { className: "figures", hidden: true });
  node.append(reasoning, text, tools, error, note, el("div", { className: "actions" }, ...actions));
  node.parts = { reasoning, text, tools, error, note };
  updateAnswer(node, message);
  return node;
}

/** Shows what an answer has become. */
export function updateAnswer(node, message) {
  const { reasoning, text, tools, error, note } = node.parts;
  node.dataset.state = message.state;
  node.setAttribute("aria-busy", String(message.state === "streaming"));
  reasoning.hidden = !message.reasoning;
  if (message.reasoning) show(reasoning.lastElementChild, message.reasoning);
  show(text, message.content);
  showTools(tools, message.tools ?? []);
  error.hidden = !message.error;
  error.textContent = message.error ?? "";
  const figures = [NOTES[message.state] ?? NOTES[message.finish], ...usage(message)].filter(Boolean);
  note.hidden = !figures.length;
  note.textContent = figures.join(" · ");
}

function showTools(box, tools) {
  if (!tools.length) return;
  const shown = ({ name, arguments: given }) =>
    el("div", {}, el("p", { className: "tool" }, `Calls the tool ${name}`), code(given, "arguments"));
  box.replaceChildren(...tools.map(shown));
}

/** What the answer cost, as phrases. */
function usage(message) {
  const { usage: used, timing } = message;
  const phrases = [];
  if (used) {
    const cached = used.prompt_tokens_details?.cached_tokens ?? 0;
    const thought = used.completion_tokens_details?.reasoning_tokens ?? 0;
    phrases.push(`prompt ${many(used.prompt_tokens, "token")}${cached ? ` (${count(cached)} cached)` : ""}`);
    phrases.push(`answer ${many(used.completion_tokens, "token")}${thought ? ` (${count(thought)} reasoning)` : ""}`);
  }
  if (timing) {
    phrases.push(`first after ${timing.first.toFixed(2)} s`);
    if (timing.rate) phrases.push(`${rate(timing.rate)} tokens/s${timing.emulated ? ", emulated" : ""}`);
  }
  return phrases;
}

/** Buttons under an answer: retry where it is the last one, copies of it and of its request. */
export function answerActions({ retry, text, asCurl, asPython }) {
  const buttons = [];
  if (retry) {
    const button = el("button", { type: "button", className: "quiet retry", textContent: "Retry" });
    button.addEventListener("click", retry);
    buttons.push(button);
  }
  return [
    ...buttons,
    copyButton("Copy", "Copy the answer", text),
    copyButton("curl", "Copy the request as a curl command", asCurl),
    copyButton("Python", "Copy the request as a Python program", asPython),
  ];
}
