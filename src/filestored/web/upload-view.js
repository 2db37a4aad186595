// How uploads are shown.

import { icon, iconButton, make } from "./dom.js";
import { gatherChosen } from "./upload-gather.js";
import { ACTIVE } from "./upload-lines.js";
import { formatBytes, formatDuration, say } from "./words.js";

const MOST_ROWS = 40;
const MOST_WAITING = 5;
const EVERY_MS = 200;
const MEASURED_SECONDS = 0.5;
const SMOOTH_SECONDS = 4;
const ICONS = { pause: "pause", resume: "play", retry: "retry" };
const CALLS = { pause: "pause", resume: "resume", retry: "resume" };
const FINISHED = ["stored", "known", "same"];
const EXPLAINED = new Set([-1, 0, 401, 403, 413, 422, 500, 507]);
const DETAILED = new Set([413, "other"]);

/** Shows the queue, and what is left of earlier visits, in `element`. */
export class View {
  #element;
  #queue;
  #left;
  #rows = new Map();
  #meter = new Meter();
  #timer = null;
  #head;
  #title = make("h2");
  #summary = make("p", { class: "upload-summary" });
  #progress = make("progress");
  #list = make("ul");
  #more = make("p", { class: "upload-note" });
  #hint = make("p", { class: "upload-note" });
  #leftTitle = make("h2", { class: "upload-title" });
  #leftList = make("ul");
  #live = make("p", { class: "visually-hidden", role: "status" });
  #buttons;

  constructor(element, queue, left) {
    [this.#element, this.#queue, this.#left] = [element, queue, left];
    this.#buttons = {
      "pause-all": textButton(() => queue.pause(queue.uploads)),
      "resume-all": textButton(() => queue.resume(queue.uploads)),
      "cancel-all": textButton(() => this.#cancelAll()),
      "clear-failed": textButton(() => queue.cancel(this.#failed())),
      "clear": textButton(() => queue.clear()),
    };
    const buttons = make("div", { class: "upload-buttons" }, ...Object.values(this.#buttons));
    this.#head = make("div", { class: "upload-head" }, this.#title, this.#summary, buttons);
    element.append(this.#head, this.#progress, this.#list, this.#more, this.#hint, this.#leftTitle, this.#leftList,
      this.#live);
  }

  async #cancelAll() {
    const uploads = () => [...this.#queue.uploads];
    if (await askToStop("upload.stop", this.#queue.unfinished)) this.#queue.cancel(uploads());
  }

  #failed() {
    return [...this.#queue.uploads].filter(({ state }) => state === "failed");
  }

  /** Show how things are, soon: not more often than an eye can follow. */
  refresh() {
    if (!this.#queue.uploads.size) this.render();
    else this.#timer ??= setTimeout(() => this.render(), EVERY_MS);
  }

  /** Show how things are. */
  render() {
    clearTimeout(this.#timer);
    this.#timer = null;
    const focused = this.#element.contains(document.activeElement) && document.activeElement;
    this.#show();
    // a button that went leaves the keyboard to the next
    if (!focused || focused === document.activeElement && focused.checkVisibility()) return;
    // a row that has moved has lost it
    const next = focused.checkVisibility() ? focused : this.#element.querySelector("button:not([hidden])");
    next?.focus({ preventScroll: true });
  }

  #show() {
    const { done } = this.#queue;
    const uploads = [...this.#queue.uploads];
    const traces = this.#left.list;
    const finished = FINISHED.reduce((sum, state) => sum + done[state], 0);
    this.#element.hidden = !uploads.length && !finished && !traces.length;
    this.#renderHead(uploads, done, finished);
    const { chosen, rest } = choose(uploads);
    this.#place(this.#list, [...chosen, ...done.latest], UploadRow);
    this.#place(this.#leftList, traces, LeftRow);
    const isLarge = chosen.some(({ isResumable, state }) => isResumable && ACTIVE.has(state));
    show(this.#more, joined(...rest.map(([name, n]) => n && say(`upload.more-${name}`, { n }))));
    show(this.#hint, isLarge && say("upload.hint"));
    show(this.#leftTitle, traces.length && say("upload.left"));
    // those that go on by themselves are measured while nothing happens, too
    if (uploads.some(({ state }) => state === "sending")) this.refresh();
  }

  #renderHead(uploads, done, finished) {
    const sum = (field) => uploads.reduce((total, upload) => total + upload[field], done.bytes);
    const [sent, size] = [sum("sent"), sum("size")];
    const failed = this.#failed().length;
    const isActive = uploads.some(({ state }) => ACTIVE.has(state));
    const isOver = uploads.length === failed;
    this.#meter.update(sent);
    const counts = { stored: done.stored, known: done.known, same: done.same, failed };
    const outcome = joined(...Object.entries(counts).map(([name, n]) => n && say(`upload.count-${name}`, { n })));
    const values = { done: finished, n: finished + uploads.length, sent: formatBytes(sent), size: formatBytes(size) };
    this.#title.textContent = say("uploads");
    this.#summary.textContent = isOver ? outcome
      : joined(say("upload.course", values), isActive && pace(this.#meter, size - sent));
    this.#head.hidden = !uploads.length && !finished;
    this.#progress.hidden = isOver || uploads.length + finished === 1;
    setProgress(this.#progress, sent, size, say("upload.all"), this.#summary.textContent);
    // read out: failures, and what has become of all once it is over
    const news = isOver ? outcome : failed ? say("upload.count-failed", { n: failed }) : "";
    if (this.#live.textContent !== news) this.#live.textContent = news;
    const shown = [
      isActive, uploads.some(({ state }) => !ACTIVE.has(state)), uploads.length - failed > 1, failed > 1, finished,
    ];
    Object.entries(this.#buttons).forEach(([key, button], at) => {
      show(button, shown[at] && say(`upload.${key}`));
    });
  }

  // with as few changes as can be: the keyboard stays where it is
  #place(list, things, Row) {
    const elements = things.map((thing) => {
      const row = this.#rows.get(thing) ?? new Row(thing, this.#queue, this.#left);
      this.#rows.set(thing, row);
      row.render();
      return row.element;
    });
    for (const element of [...list.children]) if (!elements.includes(element)) element.remove();
    elements.forEach((element, at) => {
      if (list.children[at] !== element) list.insertBefore(element, list.children[at] ?? null);
    });
    list.hidden = !elements.length;
    for (const [thing, { element }] of this.#rows) if (!element.parentNode) this.#rows.delete(thing);
  }
}

class UploadRow {
  #upload;
  #meter = new Meter();
  #state = make("span", { class: "upload-state" });
  #progress = make("progress");
  #toggle;
  #cancel;
  #action = "";

  constructor(upload, queue) {
    this.#upload = upload;
    // one button, so that the keyboard stays on it
    this.#toggle = iconButton("pause", "", { onclick: () => queue[CALLS[this.#action]]([upload]) });
    this.#cancel = iconButton("close", "", { onclick: () => queue.cancel([upload]) });
    const buttons = make("div", { class: "upload-buttons" }, this.#toggle, this.#cancel);
    this.element = make("li", {}, nameOf(upload), this.#state, this.#progress, buttons);
  }

  render() {
    const { state, sent, size, path, file } = this.#upload;
    const isActive = ACTIVE.has(state);
    this.element.className = `upload upload-${state}`;
    if (state === "sending") this.#meter.update(sent);
    this.#state.textContent = describe(this.#upload, this.#meter);
    this.#progress.hidden = !isActive && state !== "paused";
    setProgress(this.#progress, sent, size, path, this.#state.textContent);
    const action = isActive ? "pause" : { paused: "resume", failed: "retry" }[state];
    this.#cancel.hidden = !action;
    this.#toggle.hidden = !action || !file;
    if (!action) return;
    if (action !== this.#action) this.#toggle.replaceChildren(icon(ICONS[action]));
    this.#action = action;
    label(this.#toggle, say(`upload.${action}`, { name: path }));
    label(this.#cancel, say("upload.cancel", { name: path }));
  }
}

/** An upload of an earlier visit. */
class LeftRow {
  #trace;
  #state = make("span", { class: "upload-state" });
  #progress = make("progress");
  #go;
  #discard;

  constructor(trace, queue, left) {
    this.#trace = trace;
    const input = make("input", { type: "file", hidden: true });
    input.addEventListener("change", async () => {
      const [item] = await gatherChosen(input.files);
      input.value = "";
      if (item) left.choose(trace, item);
    });
    this.#go = textButton(() => (trace.handle ? left.resume(trace) : input.click()));
    this.#discard = iconButton("close", "", { onclick: () => left.discard(trace) });
    const buttons = make("div", { class: "upload-buttons" }, this.#go, input, this.#discard);
    this.element = make("li", { class: "upload upload-left" }, nameOf(trace), this.#state, this.#progress, buttons);
  }

  render() {
    const { offset, size, path, handle, isElsewhere, isOther } = this.#trace;
    const note = isElsewhere ? "elsewhere" : isOther ? "another" : handle ? "known-file" : "choose-hint";
    this.#state.textContent = joined(amount(offset, size), say(`upload.${note}`));
    setProgress(this.#progress, offset, size, path, this.#state.textContent);
    const text = say(handle ? "upload.continue" : "upload.choose");
    show(this.#go, !isElsewhere && text);
    this.#go.setAttribute("aria-label", `${text}: ${path}`);
    this.#discard.hidden = Boolean(isElsewhere);
    label(this.#discard, say("upload.discard", { name: path }));
  }
}

/** Measures how fast bytes become more, smoothed. */
class Meter {
  #bytes = 0;
  #time = 0;
  rate = 0;

  update(bytes) {
    const now = performance.now();
    const seconds = (now - this.#time) / 1000;
    if (seconds < MEASURED_SECONDS) return;
    if (this.#time && bytes >= this.#bytes) {
      const share = this.rate ? 1 - Math.exp(-seconds / SMOOTH_SECONDS) : 1;
      this.rate += ((bytes - this.#bytes) / seconds - this.rate) * share;
    }
    [this.#bytes, this.#time] = [bytes, now];
  }
}

/** Ask whether uploads may be stopped, in the words of a key; where that cannot be asked they may. */
export async function askToStop(key, n) {
  const dialogs = await import("./dialogs.js").catch(() => null);
  return !dialogs || dialogs.ask(say(`${key}.title`), say(`${key}.text`, { n }), say(`${key}.button`));
}

// `chosen` has rows: what is under way, what has failed, and the next few that wait; `rest` counts the others
function choose(uploads) {
  const isWaiting = ({ state }) => state === "waiting" || state === "ready";
  const begun = uploads.filter((upload) => !isWaiting(upload));
  // what is paused stays where it is, unless that hides something
  const isLate = ({ state }) => (begun.length > MOST_ROWS ? !ACTIVE.has(state) : state === "failed");
  const ordered = [...begun.filter((upload) => !isLate(upload)), ...begun.filter(isLate)];
  const waiting = uploads.filter(isWaiting);
  const hidden = [...ordered.slice(MOST_ROWS), ...waiting.slice(MOST_WAITING)];
  const count = (...states) => hidden.filter(({ state }) => states.includes(state)).length;
  const [failed, paused] = [count("failed"), count("paused")];
  const rest = { waiting: hidden.length - failed - paused, paused, failed };
  return { chosen: [...ordered.slice(0, MOST_ROWS), ...waiting.slice(0, MOST_WAITING)], rest: Object.entries(rest) };
}

function describe({ state, sent, size, error, twin }, meter) {
  if (state === "failed") return explain(error);
  if (error) return say(`upload.${hindrance(error)}`);
  if (state === "same") return say("upload.same", { name: twin });
  if (state === "sending" && size && sent === size) return say("upload.storing");
  if (state === "sending") return joined(amount(sent, size), pace(meter, size - sent));
  const name = say(`upload.${state === "ready" ? "waiting" : state}`);
  return joined(name, state === "paused" && sent ? amount(sent, size) : formatBytes(size));
}

function hindrance({ status }) {
  if (!navigator.onLine) return "offline";
  if (status === 500) return "faulty";
  return status ? "busy" : "unreachable";
}

function explain({ status, detail }) {
  // what was not even sent has no detail
  const key = status === 413 && !detail ? "full" : EXPLAINED.has(status) ? status : "other";
  return [say(`upload.error.${key}`), DETAILED.has(key) && detail].filter(Boolean).join(" ");
}

function amount(sent, size) {
  return say("upload.amount", { sent: formatBytes(sent), size: formatBytes(size), percent: percent(sent, size) });
}

function pace({ rate }, left) {
  if (rate < 1) return "";
  const time = say("upload.time-left", { time: formatDuration(left / rate) });
  return joined(say("upload.rate", { rate: formatBytes(Math.round(rate)) }), time);
}

function percent(sent, size) {
  return size ? Math.floor((100 * sent) / size) : 0;
}

function joined(...texts) {
  return texts.filter(Boolean).join(" · ");
}

function nameOf({ path }) {
  const at = path.lastIndexOf("/") + 1;
  const folder = at > 0 && make("span", { class: "upload-folder" }, path.slice(0, at));
  return make("span", { class: "upload-name", title: path }, folder, path.slice(at));
}

function textButton(act) {
  return make("button", { type: "button", class: "button", onclick: act });
}

function label(button, text) {
  button.title = text;
  button.setAttribute("aria-label", text);
}

function setProgress(element, sent, size, name, text) {
  element.max = 100;
  element.value = percent(sent, size);
  element.setAttribute("aria-label", name);
  element.setAttribute("aria-valuetext", text);
}

// an element without a text is hidden; one that says the same is left alone
function show(element, text) {
  if (element.textContent !== (text || "")) element.textContent = text || "";
  element.hidden = !text;
}
