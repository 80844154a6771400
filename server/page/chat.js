// The conversation of this tab: send, stream, stop, retry, keep.

import { ApiError, getKey, streamChat } from "./api.js";
import { $ } from "./dom.js";
import { answerActions, messageNode, updateAnswer } from "./messages.js";
import { curl, python } from "./snippets.js";
import { finish, hear, say } from "./speech.js";
import { newChat, openChat, saveChat, showChat } from "./store.js";

const SAVE_EVERY = 400; // ms, while an answer grows

let chat = openChat();
let answering = null; // AbortController of the answer that grows
let served = { model: "default", emulated: false };
let saving = 0;
let leaving = false; // the page goes: a broken answer is then no failure
let cannotKeep = () => {};

export const currentChat = () => chat;
export const isAnswering = () => answering !== null;

/** What the server said it serves, for requests to copy and for the figures under an answer. */
export function setServed(facts) {
  served = { model: facts.model || "default", emulated: Boolean(facts.emulated) };
}

export function startChat(onCannotKeep) {
  cannotKeep = onCannotKeep;
  const prompt = $("prompt");
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  prompt.addEventListener("keydown", (event) => {
    const newline = event.shiftKey || event.isComposing || matchMedia("(pointer: coarse)").matches;
    if (event.key !== "Enter" || newline) return;
    event.preventDefault();
    send();
  });
  prompt.addEventListener("input", fit);
  $("stop").addEventListener("click", () => stop());
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && answering && !document.querySelector("dialog[open]")) stop();
  });
  addEventListener("pagehide", () => {
    leaving = true;
    keep();
  });
  // its answer broke when it was put away
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  showChat(chat);
  drawAll();
}

/** Leaves the conversation as it is kept and shows another one, or a new one. */
export function switchChat(other = newChat()) {
  stop();
  keep();
  chat = other;
  showChat(chat);
  drawAll();
  say(chat.messages.length ? "Conversation opened." : "New conversation.");
  $("prompt").focus();
}

/** After a change of its settings. */
export function settingsChanged() {
  keep();
  drawSystem();
}

export function stop() {
  answering?.abort();
}

function fit() {
  const prompt = $("prompt");
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight}px`;
}

function send() {
  const prompt = $("prompt");
  const content = prompt.value.trim();
  if (!content || answering) return;
  prompt.value = "";
  fit();
  chat.messages.push({ role: "user", content });
  answer();
}

function retry() {
  if (answering) return;
  if (chat.messages.at(-1)?.role === "assistant") chat.messages.pop();
  $("prompt").focus();
  answer();
}

/** The request whose answer comes after the first `length` messages. */
function requestBody(length) {
  const { system, ...sampling } = chat.settings;
  const messages = chat.messages.slice(0, length).filter((m) => m.content);
  return {
    model: served.model,
    messages: [
      ...(system ? [{ role: "system", content: system }] : []),
      ...messages.map(({ role, content }) => ({ role, content })),
    ],
    ...sampling,
    stream: true,
    stream_options: { include_usage: true },
  };
}

async function answer() {
  const mine = chat; // another one may be shown before this ends
  const body = requestBody(chat.messages.length);
  const message = { role: "assistant", content: "", state: "streaming" };
  mine.messages.push(message);
  const control = (answering = new AbortController());
  drawAll();
  keep();
  busy(true);
  say("Answering.");
  const node = $("messages").lastElementChild;
  const began = performance.now();
  let first = 0;
  let last = 0;
  try {
    for await (const chunk of streamChat(body, control.signal)) {
      if (chunk.usage) message.usage = chunk.usage;
      const choice = chunk.choices?.[0];
      if (!choice) continue;
      if (take(message, choice)) {
        last = performance.now();
        first ||= last;
        draw(node, message);
        keepSoon(mine);
      }
    }
    message.state = "done";
  } catch (error) {
    if (leaving) return;
    message.state = control.signal.aborted ? "stopped" : "failed";
    if (message.state === "failed") message.error = explain(error);
  }
  if (first) message.timing = timing(message, began, first, last);
  clearTimeout(saving);
  saving = 0;
  keep(mine);
  if (answering === control) answering = null;
  if (mine !== chat) return;
  draw(node, message, true);
  busy(false);
  finish(message.error ?? (message.state === "stopped" ? "Stopped." : "End of the answer."));
}

/** Adds a chunk's choice to the message; whether it had anything of the answer. */
function take(message, { delta = {}, finish_reason: reason }) {
  if (delta.content) {
    message.content += delta.content;
    hear(delta.content);
  }
  if (delta.reasoning_content) message.reasoning = (message.reasoning ?? "") + delta.reasoning_content;
  for (const call of delta.tool_calls ?? []) {
    message.tools ??= [];
    const tool = (message.tools[call.index ?? 0] ??= { name: "", arguments: "" });
    tool.name += call.function?.name ?? "";
    tool.arguments += call.function?.arguments ?? "";
  }
  if (reason) message.finish = reason;
  return Boolean(delta.content || delta.reasoning_content || delta.tool_calls);
}

function explain(error) {
  if (error instanceof ApiError) return error.message;
  console.error(error);
  return `This page failed on the answer: ${error.message}`;
}

/** Seconds until the first token, and tokens/s after it as they arrived here. */
function timing(message, began, first, last) {
  const tokens = message.usage?.completion_tokens ?? 0;
  const seconds = (last - first) / 1000;
  const speed = tokens > 1 && seconds > 0.005 ? (tokens - 1) / seconds : 0;
  return { first: (first - began) / 1000, rate: speed, emulated: served.emulated };
}

// ---- keeping ----

function keep(which = chat) {
  if (!saveChat(which)) cannotKeep();
}

function keepSoon(which) {
  saving ||= setTimeout(() => {
    saving = 0;
    keep(which);
  }, SAVE_EVERY);
}

// ---- drawing ----

function drawAll() {
  const items = chat.messages.map((message, i) =>
    messageNode(message, message.role === "user" ? [] : actions(message, i)),
  );
  $("messages").replaceChildren(...items);
  $("welcome").hidden = items.length > 0;
  busy(false);
  drawSystem();
  follow();
}

function actions(message, index) {
  const body = () => requestBody(index);
  return answerActions({
    retry: index === chat.messages.length - 1 ? retry : null,
    text: () => message.content,
    asCurl: () => curl(body(), location.origin, Boolean(getKey())),
    asPython: () => python(body(), location.origin, Boolean(getKey())),
  });
}

function drawSystem() {
  const { system } = chat.settings;
  $("system-shown").hidden = !system;
  $("system-shown").lastElementChild.textContent = system ?? "";
}

function busy(yes) {
  $("send").hidden = yes;
  $("stop").hidden = !yes;
}

const drawn = new WeakMap(); // node -> animation frame that will draw it

function draw(node, message, now = false) {
  if (now) {
    cancelAnimationFrame(drawn.get(node));
    drawn.delete(node);
    return paint(node, message);
  }
  if (drawn.has(node)) return;
  drawn.set(
    node,
    requestAnimationFrame(() => {
      drawn.delete(node);
      paint(node, message);
    }),
  );
}

function paint(node, message) {
  const stays = atEnd();
  updateAnswer(node, message);
  if (stays) follow();
}

const scroller = () => $("scroller");

function atEnd() {
  const box = scroller();
  return box.scrollHeight - box.scrollTop - box.clientHeight < 80;
}

function follow() {
  scroller().scrollTop = scroller().scrollHeight;
}
