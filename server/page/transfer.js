// Conversations as files: JSON, which can be read in again, and Markdown, for people.

import { ApiError } from "./api.js";
import { el } from "./dom.js";
import { allChats, saveChat } from "./store.js";
import { fromMessages, identifier, isTree, path, titleOf } from "./tree.js";

const FORMAT = "axpress-chats";

function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = el("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

const fileName = (chat) =>
  titleOf(chat)
    .replace(/[^\p{L}\p{N}]+/gu, "-")
    .replace(/^-|-$/g, "")
    .slice(0, 60) || "chat";

export function exportJson(chats) {
  const name = chats.length === 1 ? fileName(chats[0]) : "axpress-chats";
  download(`${name}.json`, "application/json", JSON.stringify({ format: FORMAT, version: 1, chats }, null, 1) + "\n");
}

export async function exportAll() {
  exportJson(await allChats());
}

/** The branch on show. */
export function exportMarkdown(chat) {
  const parts = [`# ${titleOf(chat)}`];
  if (chat.settings.system) parts.push(`**System prompt:** ${chat.settings.system}`);
  for (const node of path(chat)) {
    parts.push(node.role === "user" ? "## You" : "## Answer");
    for (const file of node.files ?? []) parts.push(`File \`${file.name}\`:`, `~~~~\n${file.text}\n~~~~`);
    for (const picture of node.pictures ?? []) parts.push(`Picture \`${picture.name}\``);
    if (node.content) parts.push(node.content);
  }
  download(`${fileName(chat)}.md`, "text/markdown", parts.join("\n\n") + "\n");
}

/** Keeps the conversations of a file beside those that are there; how many. Throws ApiError where it has none. */
export async function importFile(file) {
  let document;
  try {
    document = JSON.parse(await file.text());
  } catch {
    throw new ApiError(`${file.name} is no JSON file. Files that "Export" made can be read in, and lists of messages.`);
  }
  const chats = read(document);
  if (!chats.length) throw new ApiError(`${file.name} holds no conversation.`);
  for (const chat of chats) {
    if (!(await saveChat({ ...chat, id: identifier() }, false))) throw new ApiError("This browser keeps nothing.");
  }
  return chats.length;
}

/** Our own files, and what clients of OpenAI's API keep: {"messages": [{"role", "content"}]}. */
function read(document) {
  if (document?.format === FORMAT && Array.isArray(document.chats)) return document.chats.filter(isTree);
  const messages = Array.isArray(document) ? document : document?.messages;
  if (!Array.isArray(messages)) return [];
  const text = (m) => typeof m?.content === "string";
  const system = messages.find((m) => text(m) && m.role === "system")?.content;
  const said = messages.filter((m) => text(m) && ["user", "assistant"].includes(m.role));
  const plain = said.map(({ role, content }) => ({ role, content, ...(role === "assistant" && { state: "done" }) }));
  return plain.length ? [fromMessages(plain, system ? { system } : {})] : [];
}
