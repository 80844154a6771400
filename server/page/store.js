// Conversations in this browser: none is lost unless somebody deletes it. A tab writes only the one that it shows, so
// tabs cannot destroy each other's.

import { get, getAll, write } from "./database.js";
import { fromMessages, identifier, isTree, newTree, titleOf } from "./tree.js";

const OPEN = "axpress.open"; // of this tab: the conversation that it shows
const SETTINGS = "axpress.settings"; // for new conversations
const OLD = "axpress.chat."; // where earlier versions of the page kept them

const tab = identifier();
const tabs = "BroadcastChannel" in globalThis ? new BroadcastChannel("axpress") : null;

/** What this browser keeps beside conversations: settings, presets. Null where there is nothing, or no storage. */
export function readItem(storage, name) {
  try {
    return JSON.parse(storage().getItem(name));
  } catch {
    return null;
  }
}

export function writeItem(storage, name, value) {
  try {
    storage().setItem(name, JSON.stringify(value));
  } catch {
    // no storage, or full: it lasts as long as the page
  }
}

export const local = () => localStorage;
const session = () => sessionStorage;

export const newChat = () => newTree(readItem(local, SETTINGS) ?? {});
export const keepSettings = (settings) => writeItem(local, SETTINGS, settings);

/** A kept conversation, or null. An answer that was on its way when it was kept stays as far as it had come. */
export async function loadChat(id) {
  const chat = await get("chats", id).catch(() => null);
  if (!isTree(chat)) return null;
  for (const node of Object.values(chat.nodes)) if (isUnderWay(node)) node.state = "cut";
  return chat;
}

const isUnderWay = ({ state }) => state === "streaming" || state === "waiting";

const isEmpty = (chat) => !Object.keys(chat.nodes).length;

/** Keeps the conversation, if there is anything in it. False where this browser keeps nothing. */
export async function saveChat(chat, touched = true) {
  if (isEmpty(chat)) return true;
  if (touched) chat.updated = Date.now();
  const { id, updated } = chat;
  askToStay();
  try {
    await write((chats, summaries) => {
      chats.put(chat);
      summaries.put({ id, updated, title: titleOf(chat) });
    });
    return true;
  } catch {
    return false;
  }
}

let asked = false;

/** Asks the browser, once, not to throw conversations away when room is short. */
function askToStay() {
  if (!asked) navigator.storage?.persist?.().catch(() => {});
  asked = true;
}

export async function removeChat(id) {
  await write((chats, summaries) => {
    chats.delete(id);
    summaries.delete(id);
  });
}

/** Kept conversations, the latest first: id, updated, title. */
export async function listChats() {
  const found = await getAll("summaries").catch(() => []);
  return found.sort((a, b) => b.updated - a.updated);
}

/** Those in which all the words are, in the title or in any message. */
export async function searchChats(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const list = await listChats();
  if (!words.length) return list;
  const matching = new Set();
  for (const chat of await getAll("chats").catch(() => [])) {
    const all = [titleOf(chat), ...Object.values(chat.nodes).map(({ content }) => content)].join("\n").toLowerCase();
    if (words.every((word) => all.includes(word))) matching.add(chat.id);
  }
  return list.filter(({ id }) => matching.has(id));
}

export async function allChats() {
  return (await getAll("chats")).filter(isTree);
}

/** Moves what an earlier version of the page kept. */
async function takeOver() {
  const names = Object.keys(localStorage).filter((name) => name.startsWith(OLD));
  for (const name of names) {
    const old = readItem(local, name);
    if (!Array.isArray(old?.messages)) continue;
    const chat = fromMessages(old.messages, old.settings ?? {}, { id: old.id, updated: old.updated });
    if (await saveChat(chat, false)) localStorage.removeItem(name);
  }
}

/** The conversation that this tab showed before a reload, or a new one. */
export async function openChat() {
  await takeOver().catch(() => {}); // no storage
  const id = readItem(session, OPEN);
  return (typeof id === "string" && (await loadChat(id))) || newChat();
}

let shown = null; // the conversation of this tab, whose id other tabs may ask for

/** This tab shows `chat` from now on. If another tab has it, too (a duplicated tab, say), this one takes a copy. */
export function showChat(chat) {
  shown = chat;
  writeItem(session, OPEN, chat.id);
  tabs?.postMessage({ asks: chat.id, from: tab });
}

tabs?.addEventListener("message", ({ data }) => {
  if (!shown) return;
  if (data.asks === shown.id && data.from !== tab) tabs.postMessage({ taken: shown.id, to: data.from });
  if (data.taken === shown.id && data.to === tab) {
    shown.id = identifier();
    writeItem(session, OPEN, shown.id);
    saveChat(shown);
  }
});
