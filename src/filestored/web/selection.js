// Which files are chosen, and what can be done with them together.

import { SEVERAL, offered } from "./acts.js";
import { byId, icon, iconButton, make } from "./dom.js";
import { keyOf } from "./row.js";
import { say } from "./words.js";

/** The chosen files. `run` is called with the name of what is to be done and the files. */
export class Selection {
  #keys = new Set();
  #last = null;
  #bar = byId("selected");

  constructor(list, run) {
    Object.assign(this, { list, run });
    list.addEventListener("change", () => this.#follow());
    document.addEventListener("languagechange", () => this.#show());
    document.addEventListener("keydown", (event) => {
      const isElsewhere = event.defaultPrevented || document.querySelector("dialog[open], [popover]");
      if (event.key === "Escape" && this.#keys.size && !isElsewhere) this.clear();
    });
  }

  /** The chosen files, in the order of the list. */
  get files() {
    return this.list.rows.filter((row) => this.#keys.has(keyOf(row.file))).map((row) => row.file);
  }

  /** Choose a row, or not, as its box says; with `isRange` also all between it and the one chosen last. */
  toggle(row, isRange) {
    const rows = this.list.rows;
    const [from, to] = [rows.findIndex((each) => keyOf(each.file) === this.#last), rows.indexOf(row)];
    const isWide = isRange && from >= 0;
    const touched = isWide ? rows.slice(Math.min(from, to), Math.max(from, to) + 1) : [row];
    this.#set(touched, row.box.checked);
    this.#last = keyOf(row.file);
  }

  /** Choose all files that are shown, or none. */
  toggleAll(isChosen) {
    this.#set(this.list.rows, isChosen);
  }

  /** Choose none. */
  clear() {
    this.#set(this.list.rows, false);
    this.#keys.clear();
    this.#show();
  }

  #set(rows, isChosen) {
    for (const row of rows) {
      row.isChosen = isChosen;
      if (isChosen) this.#keys.add(keyOf(row.file));
      else this.#keys.delete(keyOf(row.file));
    }
    this.#show();
  }

  /** Keep to the rows there are: a new row of a chosen file is chosen, a file that is gone is not. */
  #follow() {
    const rows = this.list.rows;
    const chosen = rows.filter((row) => this.#keys.has(keyOf(row.file)));
    this.#keys = new Set(chosen.map((row) => keyOf(row.file)));
    for (const row of rows) row.isChosen = this.#keys.has(keyOf(row.file));
    this.#show();
  }

  #show() {
    const number = this.#keys.size;
    const total = this.list.rows.length;
    this.list.all.checked = number > 0 && number === total;
    this.list.all.indeterminate = number > 0 && number < total;
    const hadFocus = this.#bar.contains(document.activeElement);
    this.#bar.hidden = number === 0;
    if (number === 0) {
      if (hadFocus) this.list.all.focus();
      return;
    }
    this.#build();
    this.count.textContent = say("selected.count", { n: number });
  }

  #build() {
    const acts = offered(SEVERAL, this.list.api);
    const wanted = `${document.documentElement.lang} ${acts}`;
    if (this.built === wanted) return;
    this.built = wanted;
    this.count = make("span", { role: "status" });
    const buttons = acts.map(([name, picture]) => make("button", {
      type: "button", class: `button ${name === "delete" ? "danger" : ""}`, onclick: () => this.run(name, this.files),
    }, icon(picture), make("span", {}, say(name))));
    const clear = iconButton("close", say("selected.clear"), { onclick: () => this.clear() });
    this.#bar.replaceChildren(this.count, ...buttons, clear);
  }
}
