// Elements without markup: text goes in as text, whatever it says.

export const $ = (id) => document.getElementById(id);

/** An element with properties (those with a dash or of the kind `role` as attributes) and children: nodes, strings, or
 *  nothing. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.includes("-") || !(name in node)) node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.filter((child) => child !== undefined && child !== null && child !== ""));
  return node;
}

export function button(label, title, act, className = "quiet") {
  const made = el("button", { type: "button", className, textContent: label, title });
  made.addEventListener("click", act);
  return made;
}

export const count = (n) => n.toLocaleString("en-US");

/** 1 row, 2 rows. */
export const many = (n, what) => `${count(n)} ${what}${n === 1 ? "" : "s"}`;

/** Three digits or so, for people. */
export function rate(n) {
  return n >= 100 ? count(Math.round(n)) : n.toFixed(n >= 10 ? 1 : 2);
}

/** Puts text on the clipboard; false where the browser does not allow it. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text); // missing unless the page is local or comes over TLS
    return true;
  } catch {
    const box = el("textarea", { value: text, className: "hidden", "aria-hidden": "true" });
    const before = document.activeElement;
    document.body.append(box);
    box.select();
    let done = false;
    try {
      done = document.execCommand("copy");
    } catch {
      // said by the return value
    }
    box.remove();
    before?.focus();
    return done;
  }
}

/** A button that copies what `make()` gives and says for a moment whether it could. */
export function copyButton(label, title, make) {
  const button = el("button", { type: "button", className: "quiet", textContent: label, title });
  button.addEventListener("click", async () => {
    const done = await copyText(make());
    button.textContent = done ? "Copied" : "Not allowed here";
    setTimeout(() => (button.textContent = label), 1500);
  });
  return button;
}
