// Puts the parts of the uploads panel together.

import { Knowledge } from "./upload-hash.js";
import { Leftovers } from "./upload-left.js";
import { Queue } from "./upload-queue.js";
import { View, askToStop } from "./upload-view.js";
import "./upload-words.js";

/** Show uploads in `element`. Returns `add(items)` and `mayLeave()`, as mountUploads does. */
export function openPanel(element, parts) {
  const { session } = parts.api;
  const knowledge = new Knowledge(parts.api);
  let view;
  const tell = () => view?.refresh();
  const queue = new Queue({ ...parts, knowledge, tell });
  const left = new Leftovers({ ...parts, queue, tell });
  view = new View(element, queue, left);
  session.addEventListener("signed-out", ({ detail: { isRefused } }) => {
    queue.signOut(isRefused);
    left.load();
  });
  session.addEventListener("signed-in", () => {
    queue.signIn();
    left.load();
  });
  document.addEventListener("languagechange", () => view.render());
  addEventListener("beforeunload", (event) => queue.wouldLose && event.preventDefault());
  left.load();
  return {
    add: (items) => left.add(items),
    mayLeave: async () => !queue.unfinished || askToStop("upload.leave", queue.unfinished),
  };
}
