// Files that come in: by the buttons, dropped anywhere in the window, or pasted.

import { byId } from "./dom.js";
import { toast } from "./toasts.js";
import { GatherError, gatherChosen, gatherDropped, gatherPasted } from "./upload-gather.js";

/** Listen for files; `add` is called with the items that upload-gather.js makes of them. */
export function listenForFiles(add) {
  for (const kind of ["files", "folder"]) {
    const input = byId(`choose-${kind}`);
    byId(`upload-${kind}`).addEventListener("click", () => input.click());
    input.addEventListener("change", async () => {
      await take(gatherChosen(input.files), add);
      // the same file can be chosen again
      input.value = "";
    });
  }
  // phones have no folders to choose
  const hasFolders = "webkitdirectory" in HTMLInputElement.prototype && !matchMedia("(pointer: coarse)").matches;
  byId("upload-folder").hidden = !hasFolders;
  listenForDrops(add);
  document.addEventListener("paste", (event) => {
    const { files, types } = event.clipboardData;
    // an office program copies its text as a picture too
    const isForField = types.includes("text/plain") && event.target.closest?.("input, textarea");
    if (!files.length || isForField) return;
    event.preventDefault();
    take(gatherPasted(event.clipboardData), add);
  });
}

function listenForDrops(add) {
  const zone = byId("drop");
  let depth = 0;
  const show = (change) => {
    depth = Math.max(0, depth + change);
    zone.hidden = depth === 0;
  };
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => hasFiles(event) && show(1));
  addEventListener("dragleave", (event) => hasFiles(event) && show(-1));
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    show(-depth);
    take(gatherDropped(event.dataTransfer), add);
  });
}

async function take(gathered, add) {
  try {
    add(await gathered);
  } catch (error) {
    if (!(error instanceof GatherError)) throw error;
    toast(error.message, { kind: "error", seconds: 10 });
  }
}
