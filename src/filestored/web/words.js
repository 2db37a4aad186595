// What the page says, in the language of the browser or the one chosen; sizes and times as people write them there.

const UNITS = ["kilobyte", "megabyte", "gigabyte", "terabyte", "petabyte"];
const SPANS = [["year", 31557600], ["month", 2629800], ["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
const words = {};
const sources = [];
const formatters = new Map();

// early.js has chosen it
let language = document.documentElement.lang;
let plurals = new Intl.PluralRules(language);

/**
 * Add words. `load` imports the module of a language, whose default export is a table of texts; a text is a string, or
 * plural forms by `{n}`: `{one, few, many, other}`. Resolves when those of the language in use are there.
 */
export async function addWords(load) {
  sources.push(load);
  Object.assign(words, (await load(language)).default);
}

/** Return a text with `{name}` replaced by `values.name`, numbers as the language writes them; `n` chooses the plural. */
export function say(key, values = {}) {
  const entry = words[key] ?? key;
  const text = typeof entry === "string" ? entry : entry[plurals.select(values.n)] ?? entry.other;
  return text.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name] ?? "";
    return typeof value === "number" ? formatter(Intl.NumberFormat).format(value) : value;
  });
}

/** Return a number of bytes in decimal units: "1.2 MB". */
export function formatBytes(bytes) {
  if (bytes < 1000) return say("bytes", { n: bytes });
  let value = bytes / 1000;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) [value, unit] = [value / 1000, unit + 1];
  const digits = value < 10 ? 1 : 0;
  return formatter(Intl.NumberFormat, {
    style: "unit", unit: UNITS[unit], unitDisplay: "short", maximumFractionDigits: digits,
  }).format(value);
}

/** Return a length of time in seconds by its two largest units: "1 min 5 sec". */
export function formatDuration(seconds) {
  let left = Math.max(1, Math.round(seconds));
  const parts = [];
  for (const [unit, length] of SPANS.slice(2)) {
    const number = Math.floor(left / length);
    left -= number * length;
    if (number || parts.length) parts.push([number, unit]);
  }
  return parts.slice(0, 2).filter(([number]) => number).map(([number, unit]) =>
    formatter(Intl.NumberFormat, { style: "unit", unit, unitDisplay: "short" }).format(number)).join(" ");
}

/** Return a moment (RFC 3339) as a date and a time of day. */
export function formatTime(iso) {
  return formatter(Intl.DateTimeFormat, { dateStyle: "medium", timeStyle: "short" }).format(new Date(iso));
}

/** Return a moment (RFC 3339) as a date alone. */
export function formatDate(iso) {
  return formatter(Intl.DateTimeFormat, { dateStyle: "medium" }).format(new Date(iso));
}

/** Return a moment (RFC 3339) as seen from now: "in 3 days", "5 minutes ago". */
export function formatRelative(iso) {
  const seconds = (new Date(iso) - Date.now()) / 1000;
  const [unit, length] = SPANS.find(([, size]) => Math.abs(seconds) >= size) ?? SPANS.at(-1);
  return formatter(Intl.RelativeTimeFormat, { numeric: "auto" }).format(Math.round(seconds / length), unit);
}

// to make one takes longer than all that it formats for a row
function formatter(Kind, options = {}) {
  const key = [language, Kind.name, ...Object.values(options)].join();
  if (!formatters.has(key)) formatters.set(key, new Kind(language, options));
  return formatters.get(key);
}

/** Return the language in use: "en" or "ru". */
export function currentLanguage() {
  return language;
}

/** Speak a language from now on, and remember it; `languagechange` on `document` tells the views. */
export async function speak(name) {
  const tables = await Promise.all(sources.map((load) => load(name)));
  Object.assign(words, ...tables.map((table) => table.default));
  language = name;
  plurals = new Intl.PluralRules(name);
  document.documentElement.lang = name;
  try {
    localStorage.setItem("filestored.language", name);
  } catch {
    // storage switched off: until the page is closed
  }
  document.dispatchEvent(new Event("languagechange"));
}

/** Fill in all texts of the document that are marked with `data-say` (text), `data-say-label` or `data-say-hint`. */
export function fillIn(root = document) {
  for (const element of root.querySelectorAll("[data-say]")) element.textContent = say(element.dataset.say);
  for (const element of root.querySelectorAll("[data-say-label]")) {
    const text = say(element.dataset.sayLabel);
    element.setAttribute("aria-label", text);
    if (element.matches("button, select")) element.title = text;
  }
  for (const element of root.querySelectorAll("[data-say-hint]")) element.placeholder = say(element.dataset.sayHint);
}

await addWords((name) => import(`./page-words-${name}.js`));
