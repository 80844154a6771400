// One answer: asked for, streamed, timed.

import { ApiError, streamChat } from "./api.js";
import { fitting } from "./context.js";
import { mustWait, served, untilReady } from "./model.js";
import * as own from "./own.js";
import { requestBody } from "./request.js";
import { hear } from "./speech.js";

const LEAVES = 250; // ms: Firefox breaks the answers of a page that is left before the page hears that it is

/** Fills `node` with the answer to `nodes`. `changed()` is called whenever it grew; never throws. */
export async function fetchAnswer(chat, nodes, node, signal, changed) {
  const clock = { began: performance.now(), first: 0, last: 0 };
  try {
    if (mustWait()) await wait(node, signal, changed);
    const { kept, count } = await fitted(chat, nodes, signal);
    chat.firstSeen = kept[0].id;
    node.tokens = count;
    own.begin(kept.at(-1).content, count, (picture) => showReading(node, picture, changed));
    clock.began = performance.now();
    await stream(requestBody(chat, kept), node, signal, clock, changed);
    node.state = "done";
  } catch (error) {
    if (!signal.aborted && !error.status) await new Promise((go) => setTimeout(go, LEAVES));
    node.state = signal.aborted ? "stopped" : "failed";
    if (node.state === "failed") fail(node, error);
  }
  own.end();
  delete node.reading;
  if (clock.first) node.timing = timing(node, clock);
}

/** How far the card is with the prompt, as long as it reads. */
function showReading(node, { state, computed, prompt_tokens: prompt }, changed) {
  if (node.content || node.reasoning || state !== "prompt") return;
  node.reading = [Math.min(computed, prompt), prompt];
  changed();
}

async function wait(node, signal, changed) {
  node.state = "waiting";
  changed();
  await untilReady(signal);
  signal.throwIfAborted();
  node.state = "streaming";
  changed();
}

/** Where the server cannot count (a key is wanted, say), the answer's own error tells why. */
async function fitted(chat, nodes, signal) {
  try {
    return await fitting(chat.settings, nodes, signal);
  } catch (error) {
    if (signal.aborted) throw error;
    return { kept: nodes, count: 0 };
  }
}

async function stream(body, node, signal, clock, changed) {
  for await (const chunk of streamChat(body, signal)) {
    if (chunk.usage) node.usage = chunk.usage;
    const choice = chunk.choices?.[0];
    if (!choice || !take(node, choice)) continue;
    clock.last = performance.now();
    clock.first ||= clock.last;
    delete node.reading;
    changed();
  }
}

/** Adds a chunk's choice to the message; whether it had anything of the answer. */
function take(node, { delta = {}, finish_reason: reason }) {
  if (delta.content) {
    node.content += delta.content;
    hear(delta.content);
  }
  if (delta.reasoning_content) node.reasoning = (node.reasoning ?? "") + delta.reasoning_content;
  for (const call of delta.tool_calls ?? []) {
    node.tools ??= [];
    const tool = (node.tools[call.index ?? 0] ??= { name: "", arguments: "" });
    tool.name += call.function?.name ?? "";
    tool.arguments += call.function?.arguments ?? "";
  }
  if (reason) node.finish = reason;
  return Boolean(delta.content || delta.reasoning_content || delta.tool_calls);
}

function fail(node, error) {
  if (!(error instanceof ApiError)) console.error(error);
  node.error = error instanceof ApiError ? error.message : `This page failed on the answer: ${error.message}`;
  node.tooLong = error.code === "context_length_exceeded" || (served.context > 0 && node.tokens >= served.context);
}

/** Seconds until the first token, and tokens/s after it as they arrived here. */
function timing({ usage }, { began, first, last }) {
  const tokens = usage?.completion_tokens ?? 0;
  const seconds = (last - first) / 1000;
  const speed = tokens > 1 && seconds > 0.005 ? (tokens - 1) / seconds : 0;
  return { first: (first - began) / 1000, rate: speed, emulated: served.emulated };
}
