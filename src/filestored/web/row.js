// One file in the list: a row on wide windows, a card on narrow ones (page.css).

import { icon, iconButton, make } from "./dom.js";
import { kindOf, nameOf } from "./kinds.js";
import { formatBytes, formatDate, formatRelative, formatTime, say } from "./words.js";

/** Whether the window is so narrow that files are cards, as page.css has it too. */
export const isNarrow = matchMedia("(max-width: 760px)");

/** What tells a file from all others in a list: several owners may keep the same hash. */
export function keyOf(file) {
  return `${file.hash} ${file.owner ?? ""}`;
}

/** A row of the table. `element.dataset.act` of its buttons says what they do; the list listens. */
export class Row {
  constructor(file, thumbnails) {
    this.thumbnails = thumbnails;
    this.element = make("div", { class: "row", role: "row" });
    this.show(file);
  }

  /** Show a file as it is now. */
  show(file) {
    this.file = file;
    this.element.dataset.hash = file.hash;
    const name = nameOf(file);
    const label = say("select", { name });
    const isChosen = this.box?.checked ?? false;
    this.box = make("input", { type: "checkbox", "aria-label": label, "data-act": "select" });
    this.box.checked = isChosen;
    const picture = make("span", { class: `thumb ${kindOf(file)}`, title: file.type }, icon(kindOf(file)));
    this.opener = make("button", {
      type: "button", class: "open", "data-act": "open", "aria-label": say("open.name", { name }), title: name,
    }, name);
    this.element.replaceChildren(
      // the label makes it larger to hit
      cell("pick", make("label", {}, this.box)),
      cell("name", picture, this.opener),
      cell("size", formatBytes(file.size)),
      cell("created", time(file.created_at, isNarrow.matches ? formatDate : formatTime)),
      cell("expires", file.expires_at && time(file.expires_at, formatRelative)),
      cell("owner", file.owner ?? "–"),
      cell("acts", ...buttons(name)),
    );
    this.thumbnails.want(picture, file);
  }

  /** Say anew when the file goes, as seen from now. */
  tick() {
    const { expires_at: end } = this.file;
    if (end) this.element.querySelector(".expires").replaceChildren(time(end, formatRelative));
  }

  /** Mark the row as chosen, or not. */
  set isChosen(value) {
    this.box.checked = value;
    this.element.classList.toggle("chosen", value);
  }

  /** Whether it is shown: a file that is about to be deleted is not. */
  get isShown() {
    return !this.element.hidden;
  }
}

function cell(kind, ...children) {
  return make("div", { role: "cell", class: kind }, ...children);
}

function time(iso, format) {
  return make("time", { datetime: iso, title: formatTime(iso) }, format(iso));
}

function buttons(name) {
  return [
    iconButton("link", say("copy-link.name", { name }), { "data-act": "copy-link" }),
    iconButton("download", say("download.name", { name }), { "data-act": "download" }),
    iconButton("more", say("more.name", { name }), {
      "data-act": "menu", "aria-haspopup": "menu", "aria-expanded": "false",
    }),
  ];
}
