// Short messages at the edge of the page, read out by screen readers; some can be answered by one button.

import { byId, iconButton, make } from "./dom.js";
import { say } from "./words.js";

const MOST = 4;
const region = byId("messages");
const home = region.parentElement;

/**
 * Show a text for some seconds, longer while the pointer or the focus is on it. `action` is a button `{label, run}`;
 * `gone` is called when the message goes without it. Returns a function that takes the message away.
 */
export function toast(text, { kind = "done", seconds = 4, action = null, gone = () => {} } = {}) {
  place();
  let timer = 0;
  let isOver = false;
  // taking the message away makes focus and pointer leave it, which must not start the clock again
  const leave = (then) => {
    if (isOver) return;
    isOver = true;
    clearTimeout(timer);
    message.remove();
    then?.();
  };
  const end = () => leave(gone);
  const run = () => leave(action.run);
  const wait = () => {
    clearTimeout(timer);
    if (!isOver) timer = setTimeout(end, seconds * 1000);
  };
  const hold = () => clearTimeout(timer);
  const message = make("div", {
    class: `message ${kind}`, role: kind === "error" ? "alert" : "status",
    onmouseenter: hold, onmouseleave: wait, onfocusin: hold, onfocusout: wait,
  }, make("span", {}, text),
    action && make("button", { type: "button", class: "button quiet", onclick: run }, action.label),
    iconButton("close", say("dismiss"), { onclick: end }));
  region.append(message);
  // what can be answered stays for its time
  const others = [...region.children].filter((each) => !each.querySelector(".quiet"));
  for (const other of others.slice(0, -MOST)) other.querySelector("button:last-child").click();
  wait();
  return () => leave();
}

/** Move the messages into the topmost dialog: what lies outside one cannot be reached. */
function place() {
  const dialog = [...document.querySelectorAll("dialog[open]")].at(-1);
  if (region.parentElement === (dialog ?? home)) return;
  if (!dialog) home.insertBefore(region, byId("selected"));
  else {
    dialog.append(region);
    dialog.addEventListener("close", place, { once: true });
  }
}
