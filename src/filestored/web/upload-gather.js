// Files from the chooser, from a drop and from the clipboard, as items for the queue.

import { say } from "./words.js";

/** How many files a drop, or a chosen folder, may bring. */
export const MAX_FILES = 20_000;

/** From this size in bytes a file's handle is kept, so that it need not be chosen again to go on after a reload. */
export const WORTH_A_HANDLE = 4 << 20;

/** More files than are taken at once; the message is for people. */
export class GatherError extends Error {}

/**
 * Take the files of an `<input type="file">`, of folders too. Like the others below it resolves to items: `file`, null
 * where it cannot be read, its `path` from the folder that was chosen, and where the browser gave one the `handle` to
 * open it again. Rejects with GatherError.
 */
export function gatherChosen(files) {
  return limited([...files].map((file) => ({ file, path: file.webkitRelativePath || file.name })));
}

/** Take the files and folders of a drop. To be called while the event is handled: afterwards they are gone. */
export async function gatherDropped(transfer) {
  const dropped = [...transfer.items].filter(({ kind }) => kind === "file").map(grasp);
  const items = [];
  for (const { file, entry, handle } of dropped) {
    if (file) items.push(itemOf(file, file.name, await handle));
    else await (await import("./upload-folders.js")).walk(await handle, entry, items);
  }
  return limited(items);
}

/** Take the files of the clipboard. A pasted picture, which every browser calls image.png, is named by the time. */
export async function gatherPasted({ files }) {
  const pasted = [...files];
  await import("./upload-words.js");
  return limited(pasted.map((file) => {
    const named = /^image\.\w+$/.test(file.name) ? new File([file], pictureName(file), { type: file.type }) : file;
    return itemOf(named, named.name);
  }));
}

/** Return an item. */
export function itemOf(file, path, handle) {
  return { file, path, ...(handle && file?.size >= WORTH_A_HANDLE && { handle }) };
}

/** Return the items; reject with GatherError where they are too many. */
export async function limited(items) {
  if (items.length <= MAX_FILES) return items;
  await import("./upload-words.js");
  throw new GatherError(say("upload.too-many", { n: MAX_FILES }));
}

// asks for all that a dropped item has to give
function grasp(item) {
  const entry = item.webkitGetAsEntry?.() ?? null;
  const file = entry?.isDirectory ? null : item.getAsFile();
  const isWorthIt = !file || file.size >= WORTH_A_HANDLE;
  return { file, entry, handle: isWorthIt ? item.getAsFileSystemHandle?.().catch(() => null) : null };
}

function pictureName({ name }) {
  const now = new Date();
  const time = new Date(now - now.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
  return `${say("upload.pasted")} ${time.replace("T", " ").replaceAll(":", "-")}.${name.split(".").pop()}`;
}
