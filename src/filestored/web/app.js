// The page: puts its parts together. What is not needed to see the list is loaded when it is first used.

import { ONE, offered } from "./acts.js";
import { Addresses } from "./addresses.js";
import { Api, Session } from "./api.js";
import { listenForFiles } from "./arrivals.js";
import { Deletions } from "./deletions.js";
import { byId, make } from "./dom.js";
import { FileList } from "./list.js";
import { Selection } from "./selection.js";
import { Thumbnails } from "./thumbnails.js";
import { toast } from "./toasts.js";
import { mountUploads } from "./uploads.js";
import { currentLanguage, fillIn, formatBytes, say, speak } from "./words.js";

const BATCH_MS = 300;
const STATS_MS = 1500;

const session = new Session();
const api = new Api(session);
const deletions = new Deletions(api);
const list = new FileList(api, new Thumbnails(api), deletions);
const addresses = new Addresses(api);
const selection = new Selection(list, run);

let actions = null;
let preview = null;

/** Load a part of the page and go on with it; where the server cannot be reached that is told. */
async function withPart(part, go) {
  const module = await part.catch(() => toast(say("error.0"), { kind: "error", seconds: 8 }) && null);
  return module && go(module);
}

/** Do something with files: open one, or what actions.js can. */
function run(name, files) {
  return withPart(import("./actions.js"), ({ Actions }) => {
    actions ??= new Actions(api, list, addresses, deletions);
    return name === "open" ? open(files[0]) : actions.run(name, files);
  });
}

function open(file) {
  return withPart(import("./preview.js"), ({ Preview }) => {
    preview ??= new Preview(api, list, addresses, actions);
    preview.open(file);
  });
}

function showMenu(file, button) {
  withPart(import("./menu.js"), ({ openMenu }) => openMenu(button, offered(ONE, api).map(([name, icon]) => ({
    label: say(name), icon, isDanger: name === "delete", run: () => run(name, [file]),
  }))));
}

function askForToken(why) {
  withPart(import("./sign-in.js"), (signIn) => signIn.askForToken(api, why));
}

function act({ detail: { name, file, row, button, isRange } }) {
  if (name === "sign-in") askForToken();
  else if (name === "select") selection.toggle(row, isRange);
  else if (name === "select-all") selection.toggleAll(button.checked);
  else if (name === "menu") showMenu(file, button);
  else run(name, [file]);
}

/** Show how much is kept and free; what the server does not tell is not shown. */
async function measure() {
  const stats = api.caller && (await askAsNow("/v1/stats"));
  if (stats === undefined) return;
  api.stats = stats;
  showStats();
}

/** Ask the server; null where it does not tell, undefined where somebody else is signed in by then. */
async function askAsNow(path) {
  const { token } = session;
  const answer = await api.json("GET", path).catch(() => null);
  return session.token === token ? answer : undefined;
}

function showStats() {
  const { stats } = api;
  byId("storage").hidden = !stats;
  if (!stats) return;
  const quota = api.caller?.quota ?? Infinity;
  // of a bucket nobody knows what is free
  const free = Math.max(0, Math.min(stats.free ?? Infinity, quota - stats.bytes));
  const isBounded = free < Infinity;
  byId("storage-used").hidden = !isBounded;
  byId("storage-text").textContent = say(isBounded ? "storage.text" : "storage.text.unbounded", {
    n: stats.files, used: formatBytes(stats.bytes), free: isBounded ? formatBytes(free) : "",
  });
  if (!isBounded) return;
  const share = stats.bytes / Math.max(1, stats.bytes + free);
  byId("storage-used").value = share;
  byId("storage-used").title = new Intl.NumberFormat(currentLanguage(), { style: "percent" }).format(share);
}

async function learnCaller() {
  const caller = await askAsNow("/v1/caller");
  if (caller === undefined) return;
  api.caller = caller;
  const may = api.caller?.permissions ?? ["write"];
  for (const name of ["upload-files", "upload-folder"]) byId(name).disabled = !may.includes("write");
}

let isBegun = false;

/** Read everything anew: who asks may have changed. */
async function begin() {
  isBegun = false;
  [api.caller, api.stats] = [null, null];
  byId("sign-in").hidden = session.token !== null;
  byId("sign-out").hidden = session.token === null;
  await Promise.all([learnCaller(), list.reload()]);
  await measure();
  isBegun = true;
}

let arrived = [];
let batch = 0;
let sums = 0;

/** Show what uploads have brought, a batch at a time. */
function arrive(file) {
  deletions.spare(file.hash);
  arrived.push(file);
  batch ||= setTimeout(() => {
    list.arrive(arrived);
    [arrived, batch] = [[], 0];
  }, BATCH_MS);
  measureSoon();
}

function measureSoon() {
  sums ||= setTimeout(() => {
    sums = 0;
    measure();
  }, STATS_MS);
}

/** Say that the server cannot be reached, or no longer; what is said already is not said again. */
function notify(isReached) {
  const notice = byId("notice");
  const text = isReached ? "" : say(navigator.onLine ? "unreachable" : "offline");
  if (notice.dataset.text === text) return;
  notice.dataset.text = text;
  notice.hidden = isReached;
  const again = make("button", { type: "button", class: "button", onclick: begin }, say("again"));
  notice.replaceChildren(text, again);
}

function listenToChoices() {
  const language = byId("language");
  language.value = currentLanguage();
  language.addEventListener("change", () => speak(language.value));
  const theme = byId("theme");
  const root = document.documentElement;
  theme.value = root.dataset.theme ?? "system";
  theme.addEventListener("change", () => {
    const name = theme.value === "system" ? "" : theme.value;
    if (name) root.dataset.theme = name;
    else delete root.dataset.theme;
    try {
      localStorage.setItem("filestored.theme", name);
    } catch {
      // storage switched off: until the page is closed
    }
  });
}

function listen() {
  list.addEventListener("act", act);
  deletions.done = measureSoon;
  byId("sign-in").addEventListener("click", () => askForToken());
  byId("sign-out").addEventListener("click", async () => (await uploads.mayLeave()) && session.signOut());
  session.addEventListener("signed-in", begin);
  session.addEventListener("signed-out", ({ detail: { isRefused } }) => {
    begin();
    if (isRefused) askForToken(say("token.ended"));
  });
  // at the beginning the list itself says that a token is needed
  session.addEventListener("wanted", () => isBegun && askForToken());
  document.addEventListener("languagechange", () => {
    fillIn();
    showStats();
    if (!byId("notice").hidden) notify(false);
  });
  api.addEventListener("reached", () => notify(true));
  api.addEventListener("unreachable", () => notify(false));
  addEventListener("offline", () => notify(false));
  // a list that is there stays as it is: somebody may be in the midst of it
  addEventListener("online", () => (byId("state").hidden ? measure() : begin()));
}

fillIn();
listenToChoices();
listen();
const uploads = mountUploads(byId("uploads"), { api, onStored: arrive });
listenForFiles((items) => uploads.add(items));
begin();
