// The list of files: searched, sorted and read page by page, as far as it is scrolled.

import { explain } from "./api.js";
import { byId, icon, make } from "./dom.js";
import { Row, isNarrow, keyOf } from "./row.js";
import { toast } from "./toasts.js";
import { say } from "./words.js";

const PAGE = 100;
const SEARCH_DELAY_MS = 250;
const AHEAD_PX = 800;
// a page looks at a bounded number of files; so many without a match are asked for without being told to
const MAX_EMPTY_PAGES = 10;
// beyond so many files that uploads have brought the list is read anew
const MAX_ARRIVED = 300;
const TICK_MS = 60_000;
const COLUMNS = [["name", "name"], ["size", "-size"], ["created", "-created_at"], ["expires"], ["owner"]];

/**
 * The list. Emits "change" whenever its rows have changed, and "act" where something is to be done: `detail.name` says
 * what; with "sign-in" that is all, else there are `button`, `isRange` (Shift was held), and `row` and `file`, but for
 * "select-all".
 */
export class FileList extends EventTarget {
  #rows = new Map();
  #query = { sort: "-created_at", name: "", type: "" };
  #cursor = null;
  #reading = null;
  #arrived = 0;
  #hasFailed = false;
  #table = byId("list");
  #body = make("div", { role: "rowgroup", class: "rows" });
  #more = byId("show-more");
  #watch = new IntersectionObserver(() => this.#readAhead(), { rootMargin: `${AHEAD_PX}px` });

  constructor(api, thumbnails, deletions) {
    super();
    Object.assign(this, { api, thumbnails, deletions });
    this.all = make("input", { type: "checkbox", "data-say-label": "select.all", "data-act": "select-all" });
    this.#table.append(this.#head(), this.#body);
    this.#table.addEventListener("click", (event) => this.#press(event));
    this.#more.addEventListener("click", () => this.more());
    this.#listenToTools();
    document.addEventListener("languagechange", () => this.#sayAgain());
    isNarrow.addEventListener("change", () => this.#sayAgain());
    setInterval(() => this.#tick(), TICK_MS);
  }

  /** The rows that are shown, in their order. */
  get rows() {
    return [...this.#body.children].map((element) => this.#rows.get(element.dataset.key)).filter((row) => row.isShown);
  }

  /** Return the row of a file, undefined where it has none. */
  rowOf(file) {
    return this.#rows.get(keyOf(file));
  }

  /** Return all rows of a hash: several owners may keep it. */
  rowsOf(hash) {
    return [...this.#rows.values()].filter((row) => row.file.hash === hash);
  }

  /** Read the list from its beginning. */
  async reload() {
    this.#cursor = null;
    this.#table.setAttribute("aria-busy", "true");
    await this.#read((page) => {
      this.thumbnails.clear();
      this.#rows.clear();
      this.#body.replaceChildren();
      this.#arrived = 0;
      this.#append(page);
    }, (error) => this.#fail(error));
    this.#table.setAttribute("aria-busy", "false");
  }

  /** Read the next page, where there is one. */
  async more() {
    if (this.#reading || !this.#cursor) return;
    await this.#read((page) => this.#append(page), (error) => {
      this.#hasFailed = true;
      toast(explain(error, "read"), { kind: "error", seconds: 8 });
    });
  }

  /** Return the row below the rows of files, else the one above; undefined where no other is shown. */
  beside(files) {
    const { rows } = this;
    const keys = new Set(files.map(keyOf));
    const isOther = (row) => !keys.has(keyOf(row.file));
    const at = rows.findIndex((row) => !isOther(row));
    return rows.slice(Math.max(0, at)).find(isOther) ?? rows.slice(0, Math.max(0, at)).findLast(isOther);
  }

  /** Show files that have just been uploaded. */
  arrive(files) {
    if (!this.#table.hidden && this.#arrived + files.length > MAX_ARRIVED && scrollY < innerHeight) {
      this.reload();
      return;
    }
    for (const file of files.filter((each) => this.#matches(each))) {
      this.#rows.get(keyOf(file))?.element.remove();
      const row = this.#add(file);
      row.element.classList.add("new");
      this.#body.prepend(row.element);
      this.#arrived += 1;
    }
    this.#changed();
  }

  /** Show a file as it is now. */
  update(file) {
    this.rowOf(file)?.show(file);
  }

  /** Hide the files, or show them again. */
  hide(files, isHidden) {
    for (const file of files) {
      const row = this.rowOf(file);
      if (row) row.element.hidden = isHidden;
    }
    this.#changed();
    this.#goOn();
  }

  /** Take the files out. */
  remove(files) {
    for (const file of files) {
      this.rowOf(file)?.element.remove();
      this.#rows.delete(keyOf(file));
    }
    this.#changed();
    this.#goOn();
  }

  /** Show a state in place of the list: a title, a sentence, and a button `{label, run}`. */
  state(title, hint, button = null, name = "file") {
    const place = byId("state");
    place.hidden = !title;
    if (!title) return;
    this.#table.hidden = true;
    this.#more.hidden = !this.#cursor;
    place.replaceChildren(
      icon(name), make("h2", {}, title), make("p", {}, hint),
      button ? make("button", { type: "button", class: "button", onclick: button.run }, button.label) : "",
    );
  }

  async #read(show, fail) {
    this.#reading?.abort();
    const reading = (this.#reading = new AbortController());
    const { sort, name, type } = this.#query;
    const query = { limit: PAGE, sort, ...(name && { name: `*${name}` }), ...(type && { type }) };
    if (this.#cursor) query.cursor = this.#cursor;
    try {
      let page;
      const found = [];
      for (let empty = 0; empty < MAX_EMPTY_PAGES && !found.length; empty += 1) {
        page = await this.api.json("GET", "/v1/files", { query, signal: reading.signal });
        found.push(...page.files);
        if (!page.next_cursor) break;
        query.cursor = page.next_cursor;
      }
      this.#cursor = page.next_cursor;
      this.#hasFailed = false;
      this.#reading = null;
      show(found);
      // observed anew it is told of once more, also where it has been in view all the time
      this.#watch.disconnect();
      this.#watch.observe(this.#more);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.#reading = null;
      fail(error);
    }
    this.#more.dataset.say = this.#hasFailed ? "again" : "show-more";
    this.#more.textContent = say(this.#more.dataset.say);
  }

  #append(files) {
    const known = files.filter((file) => !this.#rows.has(keyOf(file)));
    this.#body.append(...known.map((file) => this.#add(file).element));
    this.#changed();
    byId("announcer").textContent = say("shown", { n: this.rows.length });
    if (files.length) this.#goOn();
  }

  /** Read on where all that was shown is deleted. */
  #goOn() {
    if (!this.rows.length) this.more();
  }

  /** Time goes by: what has expired goes. */
  #tick() {
    const now = Date.now();
    const files = [...this.#rows.values()].map((row) => row.file);
    const ended = files.filter((file) => file.expires_at && new Date(file.expires_at) <= now);
    if (ended.length) this.remove(ended);
    for (const row of this.#rows.values()) row.tick();
  }

  #add(file) {
    const row = new Row(file, this.thumbnails);
    row.element.dataset.key = keyOf(file);
    row.element.hidden = this.deletions.isWaiting(file.hash);
    this.#rows.set(keyOf(file), row);
    return row;
  }

  #changed() {
    const rows = this.rows;
    const owners = new Set(rows.map((row) => row.file.owner));
    this.#table.classList.toggle("owners", owners.size > 1 || (owners.size === 1 && this.#isForeign([...owners][0])));
    this.#table.hidden = rows.length === 0;
    this.#more.hidden = !this.#cursor;
    if (rows.length) this.state(null);
    else this.#sayEmpty();
    this.dispatchEvent(new Event("change"));
  }

  #isForeign(owner) {
    return this.api.caller !== null && owner !== this.api.caller.owner;
  }

  #sayEmpty() {
    const { name, type } = this.#query;
    const mayUpload = this.api.caller?.permissions.includes("write") ?? true;
    if (!name && !type && this.#cursor) this.state(say("loading"), "");
    else if (!name && !type) this.state(say("empty"), mayUpload ? say("empty.hint") : "", null, "upload");
    else this.state(say("nothing"), say(this.#cursor ? "nothing.more" : "nothing.hint"), null, "search");
  }

  #fail(error) {
    this.#rows.clear();
    this.#body.replaceChildren();
    this.dispatchEvent(new Event("change"));
    const again = { label: say("again"), run: () => this.reload() };
    const isForbidden = error.status === 403;
    if (error.status === 401) this.#ask(say("closed.hint"));
    else if (isForbidden && this.api.session.token) this.state(say("unlisted"), say("unlisted.hint"), null, "user");
    else if (isForbidden) this.#ask(say("closed.local"));
    else this.state(say("failed"), explain(error, "read"), again, "warning");
  }

  #ask(hint) {
    const run = () => this.dispatchEvent(new CustomEvent("act", { detail: { name: "sign-in" } }));
    this.state(say("closed"), hint, { label: say("sign-in"), run }, "user");
  }

  #readAhead() {
    const isNear = !this.#more.hidden && this.#more.getBoundingClientRect().top < innerHeight + AHEAD_PX;
    // what has found nothing, or failed, goes on when somebody says so
    if (isNear && !this.#table.hidden && !this.#hasFailed) this.more();
  }

  #matches({ hash, name, type }) {
    const wanted = this.#query;
    const isNamed = wanted.name.split("*").every((part) => (name ?? "").toLowerCase().includes(part.toLowerCase()));
    return isNamed && type.startsWith(wanted.type) && !this.deletions.isWaiting(hash);
  }

  #press(event) {
    const button = event.target.closest("[data-act]");
    const act = button?.dataset.act;
    if (act === "sort") this.#sort(button.dataset.sort);
    else if (act) {
      const row = this.#rows.get(button.closest(".row")?.dataset.key);
      const detail = { name: act, file: row?.file, row, button, isRange: event.shiftKey };
      this.dispatchEvent(new CustomEvent("act", { detail }));
    }
  }

  #listenToTools() {
    const [search, kind, sort] = ["search", "kind", "sort"].map(byId);
    let timer = 0;
    search.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.#want({ name: search.value.trim() }), SEARCH_DELAY_MS);
    });
    kind.addEventListener("change", () => this.#want({ type: kind.value }));
    sort.addEventListener("change", () => this.#want({ sort: sort.value }));
  }

  #sort(column) {
    const now = this.#query.sort;
    const turned = now.startsWith("-") ? now.slice(1) : `-${now}`;
    this.#want({ sort: now.replace("-", "") === column.replace("-", "") ? turned : column });
  }

  #want(change) {
    Object.assign(this.#query, change);
    byId("sort").value = this.#query.sort;
    this.#markSorted();
    this.reload();
  }

  #head() {
    const heads = COLUMNS.map(([name, sort]) => make("div", { role: "columnheader", class: name }, sort
      ? make("button", { type: "button", "data-act": "sort", "data-sort": sort, "data-say": name })
      : make("span", { "data-say": name })));
    const acts = make("div", { role: "columnheader", class: "acts" },
      make("span", { class: "visually-hidden", "data-say": "actions" }));
    const pick = make("div", { role: "columnheader", class: "pick" },
      make("label", {}, this.all, make("span", { "data-say": "select.all" })));
    this.heads = heads;
    this.#markSorted();
    return make("div", { role: "rowgroup" }, make("div", { class: "row head", role: "row" }, pick, ...heads, acts));
  }

  #markSorted() {
    const sort = this.#query.sort;
    for (const head of this.heads) {
      const isSorted = head.firstChild.dataset.sort?.replace("-", "") === sort.replace("-", "");
      if (isSorted) head.setAttribute("aria-sort", sort.startsWith("-") ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  }

  #sayAgain() {
    for (const row of this.#rows.values()) row.show(row.file);
    if (byId("state").hidden) return;
    this.reload();
  }
}
