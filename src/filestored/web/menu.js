// A menu under a button: arrow keys, first letters, Escape (WAI-ARIA menu button).

import { icon, make } from "./dom.js";

const GAP = 4;

/** Open a menu of `[{label, icon, run, isDanger}]` under a button, which gets the focus back. */
export function openMenu(button, items) {
  const close = () => menu.hidePopover();
  const choose = (run) => () => {
    close();
    run();
  };
  const entries = items.map(({ label, icon: name, run, isDanger }) => make("button", {
    type: "button", role: "menuitem", tabindex: "-1", class: isDanger && "danger", onclick: choose(run),
  }, icon(name), label));
  const menu = make("div", {
    class: "menu", role: "menu", popover: "auto", "aria-label": button.getAttribute("aria-label"),
    onkeydown: (event) => move(event, entries, close),
    ontoggle: (event) => {
      if (event.newState !== "closed") return;
      button.setAttribute("aria-expanded", "false");
      const isInside = menu.contains(document.activeElement) || document.activeElement === document.body;
      menu.remove();
      if (isInside && !document.querySelector("dialog[open]")) button.focus();
    },
  }, ...entries);
  document.querySelector("main").append(menu);
  menu.showPopover();
  put(menu, button);
  button.setAttribute("aria-expanded", "true");
  entries[0].focus();
}

function move(event, entries, close) {
  const at = entries.indexOf(document.activeElement);
  const last = entries.length - 1;
  const letter = event.key.length === 1 ? event.key.toLocaleLowerCase() : null;
  const begins = (entry) => entry.textContent.toLocaleLowerCase().startsWith(letter);
  const target = {
    ArrowDown: at === last ? 0 : at + 1, ArrowUp: at <= 0 ? last : at - 1, Home: 0, End: last,
  }[event.key] ?? (letter ? [...entries.keys()].find((place) => place > at && begins(entries[place])) : undefined);
  if (event.key === "Tab") close();
  if (target === undefined) return;
  event.preventDefault();
  entries[target].focus();
}

/** Put the menu under the button, or above it where there is no room. */
function put(menu, button) {
  const at = button.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = menu;
  const isRoomBelow = at.bottom + GAP + height <= innerHeight;
  const top = isRoomBelow ? at.bottom + GAP : Math.max(GAP, at.top - GAP - height);
  menu.style.setProperty("top", `${top}px`);
  menu.style.setProperty("left", `${Math.max(GAP, Math.min(at.right - width, innerWidth - width - GAP))}px`);
}
