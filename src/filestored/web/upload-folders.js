// The files of a dropped folder.

import { itemOf, limited } from "./upload-gather.js";

/** Add the files of a folder, by its handle or else by its entry, to `items`. Rejects with GatherError. */
export async function walk(handle, entry, items) {
  if (handle?.kind === "directory") await walkHandle(handle, `${handle.name}/`, items);
  else if (entry) await walkEntry(entry, `${entry.name}/`, items);
}

async function walkHandle(folder, path, items) {
  const children = [];
  for await (const child of folder.values()) children.push(child);
  await limited(children);
  children.sort(byName);
  // one folder after the other, the files of each at once
  for (const child of children.filter(({ kind }) => kind === "directory")) {
    await walkHandle(child, `${path}${child.name}/`, items);
  }
  const files = children.filter(({ kind }) => kind === "file");
  items.push(...await Promise.all(files.map(async (child) =>
    itemOf(await child.getFile().catch(() => null), path + child.name, child))));
  await limited(items);
}

async function walkEntry(folder, path, items) {
  const reader = folder.createReader();
  const read = () => called(reader, "readEntries").catch(() => []);
  // a browser gives a hundred at a time
  for (let children = await read(); children.length; children = await read()) {
    for (const child of children.sort(byName)) {
      if (child.isDirectory) await walkEntry(child, `${path}${child.name}/`, items);
      else items.push(itemOf(await called(child, "file").catch(() => null), path + child.name));
    }
    await limited(items);
  }
}

function byName(one, other) {
  return one.name < other.name ? -1 : 1;
}

function called(object, method) {
  return new Promise((done, failed) => object[method](done, failed));
}
