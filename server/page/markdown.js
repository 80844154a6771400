// Markdown as answers are written in it: markdown-it reads it, DOMPurify lets through what is harmless, KaTeX and
// highlight.js come where there is math or code. What did not change since the last time is left alone.

import { code, colour } from "./code.js";
import { el } from "./dom.js";
import { fetchMarkdown, fetchMath, library } from "./libraries.js";

const TEXT_LEVEL = 3; // of a first heading in a message: below the page's h1 and the message's own h2
const SAFE = {
  RETURN_DOM_FRAGMENT: true,
  FORBID_TAGS: ["img", "style", "form"],
  FORBID_ATTR: ["style", "id", "name"],
  ADD_ATTR: ["target"],
};

let reader = null;

/** A placeholder that keeps the formula: KaTeX's own markup has styles in it, which the page's policy forbids. */
const placeholder = {
  renderToString: (tex, { displayMode }) =>
    `<span class="math${displayMode ? " display" : ""}">${reader.utils.escapeHtml(tex)}</span>`,
};

function makeReader() {
  reader = library("markdownit")({ html: false, linkify: true, breaks: true });
  reader.use(library("texmath"), { engine: placeholder, delimiters: ["dollars", "brackets"] });
  reader.use(library("markdownitTaskLists"), { label: true });
  reader.linkify.set({ fuzzyLink: false, fuzzyEmail: false });
  const { rules } = reader.renderer;
  // A picture would be an outside request: a link says where it is.
  rules.image = (tokens, i) => {
    const { escapeHtml } = reader.utils;
    const url = escapeHtml(tokens[i].attrGet("src"));
    return `<a href="${url}">${escapeHtml(tokens[i].content) || url}</a>`;
  };
  reader.core.ruler.push("heading_levels", levelHeadings);
  reader.core.ruler.push("cell_classes", alignCells);
}

/** Cells say where their text stands by a class: the page's policy forbids styles in markup. */
function alignCells({ tokens }) {
  for (const token of tokens) {
    const style = token.attrs?.find(([name]) => name === "style");
    if (style) [style[0], style[1]] = ["class", style[1].replace("text-align:", "")];
  }
}

/** Headings begin below the message's own and go down a step at a time, as readers of the page's outline expect. */
function levelHeadings({ tokens }) {
  let last = TEXT_LEVEL - 1;
  for (const token of tokens) {
    if (token.type === "heading_open") last = Math.min(Number(token.tag[1]) + TEXT_LEVEL - 1, last + 1, 6);
    if (token.type.startsWith("heading_")) token.tag = `h${last}`;
  }
}

/** Shows `text` in `container`, as plain text until the libraries are there. */
export function show(container, text) {
  container.source = text;
  if (!reader && library("markdownit") && library("DOMPurify")) makeReader();
  if (reader) return update(container, text);
  if (!text) return container.replaceChildren();
  container.replaceChildren(el("p", { className: "raw" }, text));
  fetchMarkdown().then(
    () => container.source !== undefined && show(container, container.source),
    () => {}, // it stays plain text
  );
}

function update(container, text) {
  container.querySelector(":scope > .raw")?.remove();
  const made = blocks(text);
  made.forEach(({ source, tokens, env }, i) => {
    const old = container.children[i];
    if (old?.source === source) return;
    const node = build(tokens, env);
    node.source = source;
    if (old) old.replaceWith(node);
    else container.append(node);
  });
  while (container.children.length > made.length) container.lastElementChild.remove();
}

/** The text's blocks: each with its source and its tokens. */
function blocks(text) {
  const env = {};
  const lines = text.split("\n");
  const found = [];
  let depth = 0;
  for (const token of reader.parse(text, env)) {
    if (depth === 0) found.push({ tokens: [], map: token.map ?? [0, lines.length], tag: token.tag, env });
    found.at(-1).tokens.push(token);
    depth += token.nesting;
  }
  const links = JSON.stringify(env.references ?? "");
  for (const block of found) block.source = [block.tag, links, ...lines.slice(...block.map)].join("\n");
  return found;
}

function build(tokens, env) {
  const html = reader.renderer.render(tokens, reader.options, env);
  const fragment = library("DOMPurify").sanitize(html, SAFE);
  for (const pre of fragment.querySelectorAll("pre")) {
    const language = /language-(\S+)/.exec(pre.firstElementChild?.className ?? "")?.[1];
    pre.replaceWith(code(pre.textContent.replace(/\n$/, ""), language));
  }
  for (const link of fragment.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer";
  }
  for (const table of fragment.querySelectorAll("table")) {
    const wide = el("div", { className: "wide-table", tabIndex: 0, role: "group", "aria-label": "Table" });
    table.replaceWith(wide);
    wide.append(table);
  }
  for (const box of fragment.querySelectorAll(".code")) colour(box);
  const formulas = fragment.querySelectorAll(".math");
  if (formulas.length) setMath(Array.from(formulas));
  const only = fragment.children.length === 1 && fragment.firstElementChild;
  return only || el("div", {}, fragment);
}

function setMath(formulas) {
  const katex = library("katex");
  if (!katex)
    return fetchMath().then(
      () => setMath(formulas),
      () => {},
    );
  for (const node of formulas) {
    const displayMode = node.classList.contains("display");
    const tex = node.textContent;
    try {
      katex.render(tex, node, { displayMode });
    } catch (error) {
      node.replaceChildren(tex); // it stays as the model wrote it
      node.title = error.message;
      continue;
    }
    if (displayMode) Object.assign(node, { tabIndex: 0, role: "group", ariaLabel: "Formula" }); // wide ones scroll
  }
}
