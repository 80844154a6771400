// Code with its language, a button that copies it, and colours by highlight.js.

import { copyButton, el } from "./dom.js";
import { fetchHighlight, library } from "./libraries.js";

/** A block of code. */
export function code(text, language = "") {
  const head = el(
    "div",
    { className: "code-head" },
    el("span", {}, language || "code"),
    copyButton("Copy", "Copy this code", () => text),
  );
  // Wide code scrolls, also by keyboard.
  const inner = el("code", {}, text);
  const node = el(
    "div",
    { className: "code" },
    head,
    el("pre", { tabIndex: 0, role: "group", "aria-label": "Code" }, inner),
  );
  node.language = language;
  node.inner = inner;
  return node;
}

/** Colours a block of code whose language is known. */
export function colour(node) {
  if (!node.language) return;
  const highlighter = library("hljs");
  if (!highlighter)
    return void fetchHighlight().then(
      () => colour(node),
      () => {},
    );
  if (!highlighter.getLanguage(node.language)) return;
  const { value } = highlighter.highlight(node.inner.textContent, { language: node.language, ignoreIllegals: true });
  node.inner.replaceChildren(
    library("DOMPurify").sanitize(value, { RETURN_DOM_FRAGMENT: true, ALLOWED_TAGS: ["span"] }),
  );
}
