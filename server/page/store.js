// Conversations in this browser. A tab writes only the one that it shows, so tabs cannot destroy each other's.

const CHAT = "axpress.chat.";
const OPEN = "axpress.open"; // of this tab: the conversation that it shows
const SETTINGS = "axpress.settings"; // for new conversations
const MAX_CHATS = 30;

const tab = identifier();
const tabs = "BroadcastChannel" in globalThis ? new BroadcastChannel("axpress") : null;

/** Random, without crypto.randomUUID, which browsers keep from pages that come over plain HTTP. */
function identifier() {
  return Array.from(crypto.getRandomValues(new Uint8Array(9)), (b) => b.toString(36).padStart(2, "0")).join("");
}

function read(storage, name) {
  try {
    return JSON.parse(storage().getItem(name));
  } catch {
    return null; // no storage, or not ours
  }
}

function write(storage, name, value) {
  try {
    storage().setItem(name, JSON.stringify(value));
    return true;
  } catch {
    return false; // no storage, or full
  }
}

const local = () => localStorage;
const session = () => sessionStorage;

export function newChat() {
  return { id: identifier(), updated: Date.now(), messages: [], settings: read(local, SETTINGS) ?? {} };
}

function valid(chat) {
  return (
    chat &&
    typeof chat.id === "string" &&
    Array.isArray(chat.messages) &&
    chat.settings &&
    typeof chat.settings === "object"
  );
}

/** A kept conversation, or null. An answer that was on its way when it was kept stays as far as it had come. */
export function loadChat(id) {
  const chat = read(local, CHAT + id);
  if (!valid(chat)) return null;
  for (const message of chat.messages) if (message.state === "streaming") message.state = "cut";
  return chat;
}

/** Keeps the conversation; where room is short, the oldest ones make some. False where this browser keeps nothing. */
export function saveChat(chat) {
  if (!chat.messages.length) return true;
  chat.updated = Date.now();
  if (write(local, CHAT + chat.id, chat)) return true;
  for (const old of listChats().reverse()) {
    if (old.id === chat.id) continue;
    removeChat(old.id);
    if (write(local, CHAT + chat.id, chat)) return true;
  }
  return false;
}

export function removeChat(id) {
  try {
    localStorage.removeItem(CHAT + id);
  } catch {
    // nothing there
  }
}

/** Kept conversations, the latest first: id, updated, title. */
export function listChats() {
  const found = [];
  try {
    for (let i = 0; i < localStorage.length; i++) {
      const name = localStorage.key(i);
      const chat = name.startsWith(CHAT) ? read(local, name) : null;
      if (valid(chat)) found.push({ id: chat.id, updated: chat.updated, title: title(chat) });
    }
  } catch {
    // no storage: nothing is kept
  }
  return found.sort((a, b) => b.updated - a.updated);
}

function title(chat) {
  const first = chat.messages.find((message) => message.role === "user");
  return (first?.content ?? "").replace(/\s+/g, " ").trim().slice(0, 80) || "Empty";
}

export function keepSettings(settings) {
  write(local, SETTINGS, settings);
}

/** The conversation that this tab showed before a reload, or a new one. */
export function openChat() {
  const id = read(session, OPEN);
  return (typeof id === "string" && loadChat(id)) || newChat();
}

let shown = null; // the conversation of this tab, whose id other tabs may ask for

/** This tab shows `chat` from now on. If another tab has it, too (a duplicated tab, say), this one takes a copy. */
export function showChat(chat) {
  shown = chat;
  write(session, OPEN, chat.id);
  for (const old of listChats().slice(MAX_CHATS)) removeChat(old.id);
  tabs?.postMessage({ asks: chat.id, from: tab });
}

tabs?.addEventListener("message", ({ data }) => {
  if (!shown) return;
  if (data.asks === shown.id && data.from !== tab) tabs.postMessage({ taken: shown.id, to: data.from });
  if (data.taken === shown.id && data.to === tab) {
    shown.id = identifier();
    write(session, OPEN, shown.id);
    saveChat(shown);
  }
});
