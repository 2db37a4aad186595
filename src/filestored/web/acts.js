// What can be done with files: under which icon, and what it takes to be allowed.

const ACTS = {
  "open": ["file", "read"], "download": ["download", "read"], "copy-link": ["link"], "copy-links": ["link"],
  "copy-hash": ["copy"], "make-link": ["qr", "read"],
  "rename…": ["pencil", "write"], "set-expiry…": ["clock", "write"], "delete": ["trash", "delete"],
};

/** What is offered for one file, and for several. */
export const ONE = ["open", "download", "copy-link", "copy-hash", "make-link", "rename…", "set-expiry…", "delete"];
export const SEVERAL = ["copy-links", "download", "set-expiry…", "delete"];

/** Return `[[name, icon], …]` of those that the caller may do; while it is not known who asks, of all. */
export function offered(names, { caller, session }) {
  const may = (name) => {
    const needed = ACTS[name][1];
    // only a token, or whoever sees all, can have links made
    const isNobody = name === "make-link" && !session.token && !caller?.permissions.includes("admin");
    return !caller || (!isNobody && (!needed || caller.permissions.includes(needed)));
  };
  return names.filter(may).map((name) => [name, ACTS[name][0]]);
}
