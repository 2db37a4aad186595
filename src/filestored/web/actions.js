// What can be done with files: copy, link, rename, end, download, delete.

import { addressOf } from "./addresses.js";
import { explain } from "./api.js";
import { ask, choice, field, openForm } from "./dialogs.js";
import { icon, make } from "./dom.js";
import { isSeen, nameOf } from "./kinds.js";
import { toast } from "./toasts.js";
import { formatTime, say } from "./words.js";

const SECONDS = { "1h": 3600, "1d": 86400, "7d": 604800, "30d": 2592000 };
const MOST_UNDONE = 20;
const BETWEEN_DOWNLOADS_MS = 800;

/** Does things with files of a list, by their names: `run("rename…", [file])`. */
export class Actions {
  constructor(api, list, addresses, deletions) {
    Object.assign(this, { api, list, addresses, deletions });
    this.acts = {
      "copy-link": ([file]) => copy(addressOf(file), say("copied.link")),
      "copy-links": (files) => copy(files.map(addressOf).join("\n"), say("copied.links", { n: files.length })),
      "copy-hash": ([file]) => copy(file.hash, say("copied.hash")),
      "make-link": ([file]) => this.#makeLink(file),
      "rename…": ([file]) => this.#rename(file),
      "set-expiry…": (files) => this.#setExpiry(files),
      "download": (files) => this.#download(files),
      "delete": (files) => this.#delete(files),
    };
  }

  /** Do something; what goes wrong is told. Resolves to whether it was done, as far as that is known. */
  async run(name, files) {
    const next = this.list.beside(files);
    try {
      return await this.acts[name](files);
    } catch (error) {
      toast(explain(error, name === "download" ? "read" : ""), { kind: "error", seconds: 8 });
      return false;
    } finally {
      // the button that had the focus may have been made anew, or be gone
      const row = this.list.rowOf(files[0]);
      const focused = document.activeElement;
      if (focused === document.body || !focused.checkVisibility()) (row?.isShown ? row : next)?.opener.focus();
    }
  }

  #makeLink(file) {
    const life = choice(Object.keys(SECONDS).map((name) => [name, say(`life.${name}`)]));
    life.value = "1d";
    const place = make("div", { class: "made" });
    const submit = async () => {
      const body = { expires_in: life.value, qr: true };
      showLink(place, file, await this.api.json("POST", `/v1/files/${file.hash}/link`, { body }));
      return true;
    };
    const content = [make("p", {}, say("link.hint")), field(say("link.life"), life), place];
    return openForm(say("link.title"), content, {
      button: say("link.make"), submit, explain: (error) => explain(error, "read"),
    });
  }

  #rename(file) {
    const input = make("input", {
      type: "text", maxlength: "255", required: true, autocomplete: "off", spellcheck: "false",
    });
    input.value = file.name ?? "";
    const submit = async () => {
      const name = input.value.trim();
      if (!isSeen(name)) throw new RangeError("nothing to be seen");
      const changed = await this.#change(file, { name });
      toast(say("renamed", { name: nameOf(changed) }));
    };
    const opened = openForm(say("rename"), [field(say("name"), input)], {
      button: say("rename"), submit,
      explain: (error) => (error instanceof RangeError ? say("name.empty") : explain(error, "write")),
    });
    // the part that people change
    input.setSelectionRange(0, /^(.+)\.[^.]+$/.exec(input.value)?.[1].length ?? input.value.length);
    return opened;
  }

  #setExpiry(files) {
    const options = ["never", ...Object.keys(SECONDS), "custom"].map((name) => [name, say(`expiry.${name}`)]);
    const select = choice(options);
    const time = make("input", { type: "datetime-local" });
    const custom = field(say("expiry.time"), time);
    const turn = () => {
      custom.hidden = select.value !== "custom";
      time.required = !custom.hidden;
    };
    select.addEventListener("change", turn);
    const end = files.length === 1 && files[0].expires_at;
    if (end) [select.value, time.value] = ["custom", localTime(end)];
    turn();
    const submit = async () => {
      const expires_at = endOf(select.value, time.value);
      const faults = [];
      for (const file of files) await this.#change(file, { expires_at }).catch((error) => faults.push(error));
      const [n, why] = [faults.length, explain(faults[0], "write")];
      if (n === files.length) throw faults[0];
      toast(say("expiry.set", { n: files.length - n }));
      if (n) toast(say("unchanged", { n, why }), { kind: "error", seconds: 10 });
    };
    return openForm(say("expiry.title"), [field(say("expiry.choice"), select), custom], {
      button: say("expiry.title"), submit,
      explain: (error) => (error instanceof RangeError ? say("expiry.past") : explain(error, "write")),
    });
  }

  async #change(file, body) {
    const changed = await this.api.json("PATCH", `/v1/files/${file.hash}`, { body });
    this.list.update(changed);
    return changed;
  }

  async #download(files) {
    if (files.length > 1) toast(say("downloading", { n: files.length }));
    for (const [place, file] of files.entries()) {
      if (place) await new Promise((resolve) => setTimeout(resolve, BETWEEN_DOWNLOADS_MS));
      await this.addresses.download(file);
    }
    return true;
  }

  async #delete(files) {
    const isMany = files.length > MOST_UNDONE;
    const foreign = !isMany && (await this.#foreign(files));
    if (foreign || isMany) {
      const text = foreign ? sayWhose(foreign, files) : say(this.#seesAll ? "delete.many.all" : "delete.many");
      if (!(await ask(say("delete.question", { n: files.length }), text, say("delete")))) return false;
      await this.deletions.now(this.list, files);
    } else {
      this.deletions.later(this.list, files);
    }
    return true;
  }

  /** Whether the caller deletes a file for all who keep it. */
  get #seesAll() {
    return this.api.caller?.permissions.includes("admin") ?? false;
  }

  /** Return one of the files that is somebody else's, or that others keep too: the list may not have come to theirs. */
  async #foreign(files) {
    const isForeign = ({ owner, owners }) => owner !== this.api.caller?.owner || owners > 1;
    const seen = files.flatMap((file) => [file, ...this.list.rowsOf(file.hash).map((row) => row.file)]).find(isForeign);
    return seen ?? (this.#seesAll ? (await Promise.all(files.map((file) => this.#look(file)))).find(isForeign) : null);
  }

  async #look(file) {
    try {
      return await this.api.json("GET", `/v1/files/${file.hash}`);
    } catch (error) {
      // it is gone already
      if (error.status === 404) return file;
      throw error;
    }
  }
}

/** Put a text on the clipboard; resolves to whether that was possible, and tells. */
export async function copy(text, done) {
  const isCopied = await write(text);
  toast(isCopied ? done : say("copied.not"), { kind: isCopied ? "done" : "error", seconds: isCopied ? 3 : 8 });
  return isCopied;
}

async function write(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return writeOldWay(text);
  }
}

/** Without TLS there is no clipboard but that of the old command, which copies what is marked. */
function writeOldWay(text) {
  const area = make("textarea", { class: "visually-hidden", readonly: true });
  const focused = document.activeElement;
  area.value = text;
  ([...document.querySelectorAll("dialog[open]")].at(-1) ?? document.body).append(area);
  area.select();
  const isCopied = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return isCopied;
}

function sayWhose(foreign, files) {
  if (foreign.owners > 1) return say(files.length > 1 ? "delete.shared.many" : "delete.shared", { n: foreign.owners });
  const owner = foreign.owner ?? say("nobody");
  if (files.length > 1) return say("delete.others.many", { owner });
  return say("delete.others", { name: nameOf(foreign), owner });
}

function showLink(place, file, link) {
  const { origin, pathname, search } = new URL(link.url, location.href);
  // a proxy may have told the server another address than the one that works here: then its code is of no use
  const url = location.origin + pathname + search;
  const end = file.expires_at && file.expires_at < link.expires_at ? file.expires_at : link.expires_at;
  const input = make("input", { type: "text", readonly: true, onfocus: () => input.select() });
  input.value = url;
  const button = make("button", { type: "button", class: "button", onclick: () => copy(url, say("copied.link")) },
    icon("copy"), say("copy-link"));
  const qr = { class: "qr", alt: say("link.qr"), src: `data:image/svg+xml,${encodeURIComponent(link.qr)}` };
  const until = make("p", { role: "status" }, say("link.until", { time: formatTime(end) }));
  const shown = [field(say("link"), input), button, origin === location.origin && make("img", qr), until];
  place.replaceChildren(...shown.filter(Boolean));
  button.focus();
}

/** Return the moment that a choice stands for (RFC 3339), null for never. Throws RangeError for one in the past. */
function endOf(choice, custom) {
  if (choice === "never") return null;
  const end = choice === "custom" ? new Date(custom) : new Date(Date.now() + SECONDS[choice] * 1000);
  if (!(end > Date.now())) throw new RangeError("in the past");
  return end.toISOString();
}

/** Return a moment as the input for times wants it: in the zone of the browser, to the minute. */
function localTime(iso) {
  const moment = new Date(iso);
  return new Date(moment - moment.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}
