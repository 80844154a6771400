// What a conversation is as a request.

import { served } from "./model.js";

export const NUMBERS = [
  "temperature",
  "top_p",
  "top_k",
  "min_p",
  "repetition_penalty",
  "presence_penalty",
  "frequency_penalty",
  "max_tokens",
  "seed",
];

/** What the model reads of a message: its files, each in a fence longer than any inside, and then its text. */
export function contentOf({ content, files = [] }) {
  const parts = files.map(({ name, text }) => {
    const longest = Math.max(2, ...(text.match(/`{3,}/g) ?? []).map((run) => run.length));
    const fence = "`".repeat(longest + 1);
    return `File ${name}:\n${fence}\n${text.replace(/\n$/, "")}\n${fence}`;
  });
  return [...parts, content].filter(Boolean).join("\n\n");
}

/** The same with its pictures before it, for a model that sees. */
function seenContentOf(node) {
  const text = contentOf(node);
  if (!served.sees || !node.pictures?.length) return text;
  const seen = node.pictures.map(({ url }) => ({ type: "image_url", image_url: { url } }));
  return [...seen, ...(text ? [{ type: "text", text }] : [])];
}

export function promptOf({ system, thinking }, nodes) {
  const said = nodes.map((node) => ({ role: node.role, content: seenContentOf(node) })).filter(({ content }) => content);
  return {
    messages: [...(system ? [{ role: "system", content: system }] : []), ...said],
    ...(thinking && served.thinks && { reasoning_effort: thinking }),
  };
}

/** The request whose answer comes after `nodes`. */
export function requestBody({ settings }, nodes) {
  const sampling = {};
  for (const name of NUMBERS) if (name in settings) sampling[name] = settings[name];
  const stop = (settings.stop ?? "").split("\n").filter(Boolean);
  return {
    model: served.model,
    ...promptOf(settings, nodes),
    ...sampling,
    ...(stop.length && { stop }),
    stream: true,
    stream_options: { include_usage: true },
  };
}
