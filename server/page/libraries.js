// The libraries in vendor/, each fetched when it is first needed.

import { FILES } from "./vendor/files.js";

const fetched = new Map(); // name of a file -> promise of its being there

function fetchFile(name) {
  if (!fetched.has(name)) fetched.set(name, new Promise((there, failed) => place(name, there, failed)));
  return fetched.get(name);
}

function place(name, there, failed) {
  const url = `/page/vendor/${FILES[name]}`;
  const css = name.endsWith(".css");
  const node = document.createElement(css ? "link" : "script");
  if (css) Object.assign(node, { rel: "stylesheet", href: url });
  else node.src = url;
  node.addEventListener("load", there);
  node.addEventListener("error", () => {
    fetched.delete(name); // the server was away: the next one who asks tries again
    node.remove();
    failed(new Error(`${name} could not be loaded`));
  });
  document.head.append(node);
}

const together = (...names) => Promise.all(names.map(fetchFile));

export const fetchMarkdown = () => together("markdown-it.js", "texmath.js", "task-lists.js", "purify.js");
export const fetchHighlight = () => together("highlight.js");
export const fetchMath = () => together("katex.js", "katex.css");

/** Null until it was fetched. */
export const library = (name) => globalThis[name] ?? null;
