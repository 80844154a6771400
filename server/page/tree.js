// A conversation is a tree: an edited message and a second answer stand beside the first one, which stays. What is on
// show is the path from a root to the leaf.

/** Random, without crypto.randomUUID, which browsers keep from pages that come over plain HTTP. */
export function identifier() {
  return Array.from(crypto.getRandomValues(new Uint8Array(9)), (b) => b.toString(36).padStart(2, "0")).join("_");
}

export function newTree(settings) {
  const now = Date.now();
  return { id: identifier(), title: "", created: now, updated: now, settings, nodes: {}, leaf: null, firstSeen: null };
}

/** Whether something from a disk is a conversation. */
export function isTree(chat) {
  const { nodes } = chat ?? {};
  return (
    Boolean(nodes && typeof nodes === "object" && typeof chat.id === "string" && typeof chat.settings === "object") &&
    (chat.leaf === null || chat.leaf in nodes) &&
    Object.entries(nodes).every(
      ([id, node]) =>
        node?.id === id &&
        (node.parent === null || node.parent in nodes) &&
        ["user", "assistant"].includes(node.role) &&
        typeof node.content === "string" &&
        (node.files ?? []).every(({ name, text }) => typeof name === "string" && typeof text === "string") &&
        (node.pictures ?? []).every(({ name, url }) => typeof name === "string" && typeof url === "string"),
    ) &&
    Object.values(nodes).every((node) => endsAtRoot(nodes, node))
  );
}

function endsAtRoot(nodes, node) {
  let steps = Object.keys(nodes).length;
  while (node.parent !== null && steps-- > 0) node = nodes[node.parent];
  return node.parent === null;
}

/** The messages on show, first to last. */
export function path(chat) {
  const found = [];
  for (let node = chat.nodes[chat.leaf]; node; node = chat.nodes[node.parent]) found.unshift(node);
  return found;
}

/** Adds a message under `parent` (null: a first one) and shows it. */
export function add(chat, parent, fields) {
  const node = { id: identifier(), parent, at: Date.now(), ...fields };
  chat.nodes[node.id] = node;
  chat.leaf = node.id;
  return node;
}

const children = (chat, id) => Object.values(chat.nodes).filter((node) => node.parent === id);

/** The message and those that stand in its place in other branches, oldest first. */
export const siblings = (chat, node) => children(chat, node.parent).filter(({ role }) => role === node.role);

/** Shows the branch that `node` is in, as far down as it was last continued. */
export function showBranch(chat, node) {
  let leaf = node;
  for (let next = node; next; next = children(chat, leaf.id).at(-1)) leaf = next;
  chat.leaf = leaf.id;
}

/** How many messages come after this one, in all branches. */
export function countBelow(chat, node) {
  return children(chat, node.id).reduce((sum, child) => sum + 1 + countBelow(chat, child), 0);
}

/** Removes a message and what follows it; a branch beside it is shown, or what came before. */
export function remove(chat, node) {
  const beside = siblings(chat, node).filter(({ id }) => id !== node.id);
  const drop = (id) => {
    children(chat, id).forEach((child) => drop(child.id));
    delete chat.nodes[id];
  };
  drop(node.id);
  if (beside.length) showBranch(chat, beside.at(-1));
  else chat.leaf = node.parent;
}

/** What a list calls the conversation: its own name, or how it begins. */
export function titleOf(chat) {
  if (chat.title) return chat.title;
  const first = path(chat).find(({ role }) => role === "user") ?? Object.values(chat.nodes)[0];
  const text = first?.content || (first?.files ?? first?.pictures)?.[0]?.name || "";
  return text.replace(/\s+/g, " ").trim().slice(0, 80) || "Empty";
}

/** A conversation of the messages of an older page or of another program, one after the other. */
export function fromMessages(messages, settings, fields = {}) {
  const chat = { ...newTree(settings), ...fields };
  for (const message of messages) add(chat, chat.leaf, message);
  return chat;
}
