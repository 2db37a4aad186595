// Building the page's elements, so that no text can ever act as markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Return a new element. An attribute `onclick: f` adds a listener; `true` sets an empty attribute; null, undefined and
 * `false` set none. Children are nodes or texts; null and `false` are left out.
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null && child !== false));
  return element;
}

/** Return one of the page's icons (index.html has them), which screen readers pass over. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** Return a button that shows an icon only; `label` is its name. */
export function iconButton(name, label, attributes = {}) {
  return make("button", { type: "button", class: "button icon-only", "aria-label": label, title: label, ...attributes },
    icon(name));
}

/** Return the element of the document with an id. */
export function byId(id) {
  return document.getElementById(id);
}
