// A question before something is lost, or for a name.

import { $ } from "./dom.js";

/** Asks; `action` is what the button says. With `text`, for a text that begins as it: the answer is the text or null,
 *  else true or false. */
export function ask(question, action, text = null) {
  const dialog = $("ask");
  const form = dialog.querySelector("form");
  const { answer } = form.elements;
  $("ask-title").textContent = question;
  answer.hidden = text === null;
  answer.value = text ?? "";
  form.querySelector("[type=submit]").textContent = action;
  dialog.returnValue = "";
  form.onsubmit = (event) => {
    event.preventDefault(); // the page's policy lets no form go anywhere
    dialog.close("yes");
  };
  form.querySelector("[data-do=close]").onclick = () => dialog.close("");
  dialog.showModal();
  if (text !== null) answer.select();
  return new Promise((done) => {
    dialog.addEventListener(
      "close",
      () => {
        const agreed = dialog.returnValue === "yes";
        done(text === null ? agreed : agreed ? answer.value.trim() : null);
      },
      { once: true },
    );
  });
}

/** The button that closes a dialog, and a press beside it. */
export function closable(dialog) {
  dialog.querySelector("[data-do=close]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
}
