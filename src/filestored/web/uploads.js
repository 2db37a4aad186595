// The page's panel of uploads. What it consists of is loaded when there is something to show.

import { toast } from "./toasts.js";
import { Memory } from "./upload-memory.js";
import { currentLanguage, say } from "./words.js";

const PARTS = ["digest", "hash", "left", "lines", "queue", "send", "tus", "view", "words"];

/**
 * Show uploads in `element`. `onStored` is called with the object of each file that is stored, or was already. Returns
 * `add(items)`, which takes items of upload-gather.js, and `mayLeave()`, which resolves to whether the user may be
 * signed out: where that stops uploads it asks.
 */
export function mountUploads(element, { api, onStored }) {
  const memory = new Memory();
  let panel = null;
  const load = () => {
    panel ??= open(element, { api, memory, onStored }).catch(() => {
      panel = null;
      toast(say("error.0"), { kind: "error", seconds: 8 });
    });
    return panel;
  };
  const look = async () => (await memory.list(api.session.key)).length && load();
  api.session.addEventListener("signed-in", look);
  // somebody is about to need it
  addEventListener("dragenter", load, { once: true });
  for (const id of ["upload-files", "upload-folder"]) {
    document.getElementById(id).addEventListener("pointerenter", load, { once: true });
  }
  look();
  return {
    add: async (items) => (await load())?.add(items),
    mayLeave: async () => (await panel)?.mayLeave() ?? true,
  };
}

async function open(element, parts) {
  // all at once, not each when the one before it asks for it
  for (const name of [...PARTS, `words-${currentLanguage()}`]) import(`./upload-${name}.js`).catch(() => null);
  const { openPanel } = await import("./upload-panel.js");
  return openPanel(element, parts);
}
