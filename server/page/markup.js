// The little Markdown that answers are read by: paragraphs, headings, lists, code, bold. Text becomes text nodes and
// nothing else.

import { copyButton, el } from "./dom.js";

const FENCE = /^ {0,3}(```+|~~~+)\s*([\w+#.-]*)[^`]*$/;

/** Shows `text` in `container`; blocks that did not change since the last time are left alone. */
export function show(container, text) {
  const blocks = cut(text);
  blocks.forEach((block, i) => {
    const old = container.children[i];
    if (old?.source === block.source) return;
    const node = build(block);
    node.source = block.source;
    if (old) old.replaceWith(node);
    else container.append(node);
  });
  while (container.children.length > blocks.length) container.lastElementChild.remove();
}

/** Blocks in order: fenced code, or lines up to the next blank one. */
function cut(text) {
  const blocks = [];
  let lines = [];
  let fence = null;
  const close = (kind) => {
    if (lines.length) blocks.push({ kind, lines, source: [kind, fence?.[2], ...lines].join("\n") });
    lines = [];
  };
  for (const line of text.split("\n")) {
    if (fence) {
      if (line.trim().startsWith(fence[1]) && !line.trim().slice(fence[1].length).trim()) {
        close("code");
        fence = null;
      } else lines.push(line);
      continue;
    }
    const opens = FENCE.exec(line);
    if (opens || !line.trim()) close("text");
    if (opens) fence = opens;
    else if (line.trim()) lines.push(line);
  }
  close(fence ? "code" : "text");
  return blocks;
}

function build({ kind, lines, source }) {
  if (kind === "code") return code(lines.join("\n"), source.split("\n")[1]);
  const heading = lines.length === 1 && /^(#{1,6})\s+(.*)$/.exec(lines[0]);
  if (heading)
    return el(
      "p",
      { className: "heading", role: "heading", "aria-level": heading[1].length + 2 },
      ...inline(heading[2]),
    );
  const items = lines.map((line) => /^\s*(?:[-*+]|(\d{1,9})[.)])\s+(.*)$/.exec(line));
  if (items.every(Boolean)) {
    const list = el(items[0][1] ? "ol" : "ul", {}, ...items.map((item) => el("li", {}, ...inline(item[2]))));
    if (items[0][1]) list.start = Number(items[0][1]);
    return list;
  }
  return el("p", {}, ...inline(lines.join("\n")));
}

export function code(text, language = "") {
  const head = el(
    "div",
    { className: "code-head" },
    el("span", {}, language || "code"),
    copyButton("Copy", "Copy this code", () => text),
  );
  // Wide code scrolls, also by keyboard.
  return el(
    "div",
    { className: "code" },
    head,
    el("pre", { tabIndex: 0, role: "group", "aria-label": "Code" }, el("code", {}, text)),
  );
}

function inline(text) {
  return text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/).map((part, i) => {
    if (i % 2 === 0) return part;
    return part[0] === "`" ? el("code", {}, part.slice(1, -1)) : el("strong", {}, part.slice(2, -2));
  });
}
