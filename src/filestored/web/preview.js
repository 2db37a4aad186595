// A file by itself in a dialog: shown where the browser can, with all that is known of it and can be done with it.

import { ONE, offered } from "./acts.js";
import { explain } from "./api.js";
import { openDialog } from "./dialogs.js";
import { icon, iconButton, make } from "./dom.js";
import { kindOf, nameOf } from "./kinds.js";
import { currentLanguage, formatBytes, formatTime, say } from "./words.js";

const TEXT_BYTES = 65536;
const MAX_PDF_BYTES = 100_000_000;

/** Shows files of a list, one at a time. */
export class Preview {
  #blob = null;
  #loading = null;
  #open = null;

  constructor(api, list, addresses, actions) {
    Object.assign(this, { api, list, addresses, actions });
  }

  /** Open the dialog on a file. */
  open(file) {
    this.stage = make("div", { class: "stage" });
    this.facts = make("dl", { class: "facts" });
    const step = (name, label, by) => iconButton(name, say(label), {
      class: `button icon-only ${label}`, onclick: () => this.#step(by),
    });
    this.steps = [step("prev", "previous", -1), step("next", "next", 1)];
    const acts = offered(ONE.filter((name) => name !== "open"), this.api).map(([name, picture]) => make("button", {
      type: "button", class: `button ${name === "delete" ? "danger" : ""}`, onclick: () => this.#act(name),
    }, icon(picture), say(name)));
    const content = [
      make("div", { class: "view" }, this.steps[0], this.stage, this.steps[1]), this.facts,
      make("div", { class: "buttons" }, ...acts),
    ];
    const { dialog, heading } = openDialog("", content, { kind: "preview", onclose: () => this.#leave() });
    [this.dialog, this.heading] = [dialog, heading];
    // the whole document: a click beside the buttons leaves the focus nowhere
    this.#open = new AbortController();
    document.addEventListener("keydown", (event) => this.#press(event), { signal: this.#open.signal });
    this.#show(file);
  }

  #show(file) {
    this.file = file;
    this.heading.textContent = nameOf(file);
    this.facts.replaceChildren(...factsOf(file));
    for (const [place, button] of this.steps.entries()) button.disabled = !this.#neighbour(place * 2 - 1);
    this.#clear();
    const loading = (this.#loading = new AbortController());
    this.stage.replaceChildren(make("p", { class: "note" }, say("loading")));
    this.#view(file, loading.signal).catch((error) => note(explain(error, "read"))).then((view) => {
      if (!loading.signal.aborted) this.stage.replaceChildren(...[view].flat());
    });
  }

  async #view(file, signal) {
    const kind = kindOf(file);
    if (file.size === 0) return note(say("preview.empty"));
    if (kind === "text") return this.#text(file, signal);
    if (kind === "pdf") return this.#pdf(file, signal);
    if (!["image", "video", "audio"].includes(kind)) return [icon(kind), note(say("preview.none"))];
    const src = await this.addresses.open(file);
    const onerror = () => this.stage.replaceChildren(icon(kind), note(say("preview.broken")));
    // a drawing may have no size of its own
    const isDrawing = file.type.startsWith("image/svg");
    if (kind === "image") return make("img", { src, alt: nameOf(file), class: isDrawing && "drawing", onerror });
    return make(kind, { src, controls: true, preload: "metadata", "aria-label": nameOf(file), onerror });
  }

  async #text(file, signal) {
    const headers = { Range: `bytes=0-${TEXT_BYTES - 1}` };
    const answer = await this.api.request("GET", `/${file.hash}`, { headers, signal });
    const decoder = decoderOf(file.type);
    // a sign that the end of the part cuts in two is left out
    const text = decoder.decode(await answer.arrayBuffer(), { stream: file.size > TEXT_BYTES });
    const shown = make("pre", { tabindex: "0", "aria-label": nameOf(file) }, text);
    return file.size > TEXT_BYTES ? [shown, note(say("preview.cut"))] : shown;
  }

  async #pdf(file, signal) {
    if (file.size > MAX_PDF_BYTES) return [icon("pdf"), note(say("preview.large"))];
    if (navigator.pdfViewerEnabled === false) return [icon("pdf"), note(say("preview.none"))];
    const answer = await this.api.request("GET", `/${file.hash}`, { signal });
    // whatever the file is, it is taken for a PDF and nothing else
    this.#blob = URL.createObjectURL(new Blob([await answer.arrayBuffer()], { type: "application/pdf" }));
    return make("iframe", { src: `${this.#blob}#navpanes=0`, title: nameOf(file) });
  }

  async #act(name) {
    const { file } = this;
    if (name === "delete") {
      const next = this.#neighbour(1) ?? this.#neighbour(-1);
      if (!(await this.actions.run(name, [file]))) return;
      if (next) this.#show(next);
      else this.dialog.close();
      return;
    }
    await this.actions.run(name, [file]);
    const row = this.list.rowOf(file);
    if (row && row.file !== file && this.file === file) {
      this.file = row.file;
      this.heading.textContent = nameOf(row.file);
      this.facts.replaceChildren(...factsOf(row.file));
    }
  }

  #press(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    // players and fields have a use of their own for these keys
    if (!step || event.target.closest("video, audio, pre, dialog:not(.preview)")) return;
    event.preventDefault();
    this.#step(step);
  }

  #step(step) {
    const next = this.#neighbour(step);
    if (!next) return;
    this.#show(next);
    // a button that has just become of no use loses the focus
    if (document.activeElement === document.body || document.activeElement.disabled) this.dialog.focus();
  }

  #neighbour(step) {
    const rows = this.list.rows;
    const at = rows.indexOf(this.list.rowOf(this.file));
    if (at === rows.length - 2 && step > 0) this.list.more();
    return at < 0 ? undefined : rows[at + step]?.file;
  }

  #clear() {
    this.#loading?.abort();
    if (this.#blob) URL.revokeObjectURL(this.#blob);
    this.#blob = null;
  }

  #leave() {
    this.#open.abort();
    this.#clear();
    const row = this.list.rowOf(this.file);
    if (!row) return;
    row.element.scrollIntoView({ block: "nearest" });
    row.opener.focus();
  }
}

function note(text) {
  return make("p", { class: "note" }, text);
}

function factsOf(file) {
  const facts = [
    ["size", formatBytes(file.size)], ["type", file.type], ["created", formatTime(file.created_at)],
    ["expires", file.expires_at ? formatTime(file.expires_at) : say("expires.never")],
    ["owner", file.owner ?? say("nobody")], ["hash", file.hash],
  ];
  if (file.size >= 1000) facts[0][1] += ` (${say("bytes", { n: file.size })})`;
  return facts.map(([name, value]) => make("div", { class: name, lang: currentLanguage() },
    make("dt", {}, say(name)), make("dd", {}, value)));
}

/** Return a decoder for a media type's `charset`, for UTF-8 where it names none that the browser knows. */
function decoderOf(type) {
  const [, charset = "utf-8"] = /charset="?([^";\s]+)/i.exec(type) ?? [];
  try {
    return new TextDecoder(charset);
  } catch {
    return new TextDecoder();
  }
}
