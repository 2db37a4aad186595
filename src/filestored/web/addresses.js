// The addresses of files: the plain one, and a signed one for what cannot carry the token (video, audio, downloads).

const LIFE = "6h";
const KEPT_MS = 5 * 3600 * 1000;

/** Return the path of a file, under its name. */
export function pathOf(file) {
  // a browser takes these two for steps along the path
  const isStep = file.name === "." || file.name === "..";
  return `/${file.hash}${file.name && !isStep ? `/${encodeURIComponent(file.name)}` : ""}`;
}

/** Return the whole address of a file, as it is passed on to others. */
export function addressOf(file) {
  return location.origin + pathOf(file);
}

/** Makes addresses that the browser itself can load, and keeps them while they are good. */
export class Addresses {
  #signed = new Map();

  constructor(api) {
    this.api = api;
    api.session.addEventListener("signed-out", () => this.#signed.clear());
    api.session.addEventListener("signed-in", () => this.#signed.clear());
  }

  /** Return an address of a file that needs no header, for some hours. Throws ApiError. */
  async open(file, { download = false } = {}) {
    if (!this.api.session.token) return pathOf(file) + (download ? "?download" : "");
    const path = pathOf(file);
    let link = this.#signed.get(path);
    if (!link || link.until < Date.now()) {
      const { url } = await this.api.json("POST", `/v1/files/${file.hash}/link`, { body: { expires_in: LIFE } });
      // the page's own origin: a proxy may have told the server another
      const { pathname, search } = new URL(url, location.href);
      link = { path: pathname + search, until: Date.now() + KEPT_MS };
      this.#signed.set(path, link);
    }
    return link.path + (download ? "&download" : "");
  }

  /** Have the browser save a file. Throws ApiError. */
  async download(file) {
    const anchor = document.createElement("a");
    anchor.href = await this.open(file, { download: true });
    anchor.download = file.name ?? "";
    document.body.append(anchor);
    anchor.click();
    anchor.remove();
  }
}
