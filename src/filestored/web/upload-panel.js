// Puts the parts of the uploads panel together.

import { Knowledge } from "./upload-hash.js";
import { Leftovers } from "./upload-left.js";
import { Queue } from "./upload-queue.js";
import { View } from "./upload-view.js";
import "./upload-words.js";

/** Show uploads in `element` until `signal` is aborted. Returns the leftovers, whose `add` takes items. */
export function openPanel(element, { signal, ...parts }) {
  const { session } = parts.api;
  const knowledge = new Knowledge(parts.api);
  let view;
  const tell = () => view?.refresh();
  const queue = new Queue({ ...parts, knowledge, tell });
  const left = new Leftovers({ ...parts, queue, tell });
  view = new View(element, queue, left);
  const listen = (target, name, act) => target.addEventListener(name, act, { signal });
  listen(session, "signed-out", () => {
    queue.signOut();
    left.load();
  });
  listen(session, "signed-in", () => {
    queue.signIn();
    left.load();
  });
  listen(document, "languagechange", () => view.render());
  listen(window, "beforeunload", (event) => queue.wouldLose && event.preventDefault());
  signal.addEventListener("abort", () => queue.pause(queue.uploads));
  left.load();
  return left;
}
