// The page's panel of uploads. What it consists of is loaded when there is something to show.

import { toast } from "./toasts.js";
import { Memory } from "./upload-memory.js";
import { currentLanguage, say } from "./words.js";

const PARTS = ["digest", "hash", "left", "queue", "send", "tus", "view", "words"];

/**
 * Show uploads in `element`. `onStored` is called with the object of each file that is stored, or was already. Returns
 * `add(items)`, which takes items of upload-gather.js, and `close()`.
 */
export function mountUploads(element, { api, onStored }) {
  const memory = new Memory();
  const stopped = new AbortController();
  let panel = null;
  const load = () => {
    panel ??= open(element, { api, memory, onStored, signal: stopped.signal }).catch(() => {
      panel = null;
      toast(say("error.0"), { kind: "error", seconds: 8 });
    });
    return panel;
  };
  const look = async () => (await memory.list(api.session.key)).length && load();
  const listen = (target, name, act, once) => target?.addEventListener(name, act, { once, signal: stopped.signal });
  listen(api.session, "signed-in", look);
  // somebody is about to need it
  listen(window, "dragenter", load, true);
  for (const id of ["upload-files", "upload-folder"]) listen(document.getElementById(id), "pointerenter", load, true);
  look();
  return {
    add: async (items) => (await load())?.add(items),
    close: () => stopped.abort(),
  };
}

async function open(element, parts) {
  // all at once, not each when the one before it asks for it
  for (const name of [...PARTS, `words-${currentLanguage()}`]) import(`./upload-${name}.js`).catch(() => null);
  const { openPanel } = await import("./upload-panel.js");
  return openPanel(element, parts);
}
