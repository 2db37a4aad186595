// Dialogs: one that shows, one that asks, one with fields. The browser keeps the focus in them and gives it back after.

import { iconButton, make } from "./dom.js";
import { say } from "./words.js";
import "./dialog-words.js";

let number = 0;

/** Open a dialog; `onclose` is called when it has closed. Returns it, and the heading with its title. */
export function openDialog(title, content, { kind = "", onclose = () => {} } = {}) {
  const id = `dialog-${++number}`;
  const heading = make("h2", { id }, title);
  const close = iconButton("close", say("close"), { onclick: () => dialog.close() });
  const dialog = make("dialog", {
    class: kind, "aria-labelledby": id,
    // a press that begins on the backdrop, not one that ends there after marking text
    onpointerdown: (event) => event.target === dialog && !isInside(event, dialog) && dialog.close(),
    onclose: () => {
      dialog.remove();
      onclose();
    },
  }, make("div", { class: "sheet" }, make("div", { class: "title" }, heading, close), ...content));
  document.body.append(dialog);
  dialog.showModal();
  return { dialog, heading };
}

/**
 * Open a dialog with fields. `submit` is called with the dialog when its button is pressed; what it throws is told by
 * `explain`, and the dialog stays; when it returns the dialog closes, unless it returns `true`. Resolves when closed.
 */
export function openForm(title, content, { button, kind = "", submit, explain, isDanger = false }) {
  const error = make("p", { class: "error", role: "alert" });
  const go = make("button", { type: "submit", class: `button ${isDanger ? "danger" : "primary"}` }, button);
  const send = async (event) => {
    event.preventDefault();
    go.disabled = true;
    error.textContent = "";
    try {
      if ((await submit(dialog)) === true) cancel.textContent = say("close");
      else dialog.close();
    } catch (fault) {
      error.textContent = explain(fault);
    } finally {
      go.disabled = false;
    }
  };
  const cancel = make("button", { type: "button", class: "button", onclick: () => dialog.close() }, say("cancel"));
  const form = make("form", { onsubmit: send }, ...content, error, make("div", { class: "buttons" }, cancel, go));
  let dialog;
  return new Promise((resolve) => {
    ({ dialog } = openDialog(title, [form], { kind: `form ${kind}`, onclose: resolve }));
    (form.querySelector("input, select") ?? cancel).focus();
  });
}

/** Ask a question; resolves to whether it was answered with `button`. */
export async function ask(title, text, button) {
  let isYes = false;
  const submit = () => {
    isYes = true;
  };
  await openForm(title, [make("p", {}, text)], { button, submit, explain: String, isDanger: true });
  return isYes;
}

/** Whether a press lies within the edges of an element, as one on its scrollbar does. */
function isInside({ clientX: x, clientY: y }, element) {
  const { left, right, top, bottom } = element.getBoundingClientRect();
  return x >= left && x < right && y >= top && y < bottom;
}

/** Return a field: a label over an input, a select or the like. */
export function field(label, input) {
  return make("label", { class: "field" }, make("span", {}, label), input);
}

/** Return a select with options `[[value, text], …]`. */
export function choice(options) {
  return make("select", {}, ...options.map(([value, text]) => make("option", { value }, text)));
}
