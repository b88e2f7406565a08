// Keeps the page up to date, and sends what an operator wishes. The page reads and filters without this.
"use strict";

// What is known of the agent.
const note = document.getElementById("live");
const main = document.getElementById("report");
let stream = null;
let heard = Date.now();
let renewing = false;
let again = false;
let cells = new Map();
let clock = Date.now() / 1000 - Number(main.dataset.now);

function say(text, lost) {
  if (note.textContent !== text) note.textContent = text;
  note.classList.toggle("lost", Boolean(lost));
}

// The texts that change by themselves, by their keys.
function index() {
  cells = new Map();
  for (const cell of main.querySelectorAll("[data-k]")) {
    const known = cells.get(cell.dataset.k);
    if (known) known.push(cell);
    else cells.set(cell.dataset.k, [cell]);
  }
}

// A reader who selects text is not disturbed.
function busy() {
  const selection = document.getSelection();
  return selection !== null && !selection.isCollapsed;
}

let dropped = false;
function patch(texts) {
  if (busy()) { dropped = true; return; }
  for (const [key, text] of Object.entries(texts)) {
    for (const cell of cells.get(key) ?? []) {
      const attribute = cell.dataset.a;
      if (attribute === "d" || attribute === "stroke-width") cell.setAttribute(attribute, text);
      else if (cell.textContent !== text) cell.textContent = text;
    }
  }
}

// As the agent writes durations.
function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  const [m, h, d] = [Math.floor(s / 60), Math.floor(s / 3600), Math.floor(s / 86400)];
  if (s < 60) return s + " s";
  if (s < 3600) return m + " min " + (s % 60) + " s";
  if (s < 86400) return h + " h " + (m % 60) + " min";
  return d + " d " + (h % 24) + " h";
}

function age() {
  if (document.hidden || busy()) return;
  const now = Date.now() / 1000 - clock;
  for (const time of document.querySelectorAll("time[data-since]")) {
    const text = duration(now - Number(time.dataset.since));
    if (time.textContent !== text) time.textContent = text;
  }
}

// What has the focus, so that it has it again in the new text.
function focused() {
  const active = document.activeElement;
  if (!active || !main.contains(active)) return null;
  const row = active.closest("[data-backend]");
  const part = active.closest("[data-part]");
  if (!part) return null;
  const alike = [...part.querySelectorAll(active.tagName)].filter((it) => it.className === active.className);
  return { part: part.dataset.part, tag: active.tagName, kind: active.className, row: row?.dataset.backend,
    href: active.getAttribute("href"), mode: active.dataset.mode, at: alike.indexOf(active) };
}

function focusAgain(was) {
  if (!was || main.contains(document.activeElement)) return;
  const part = main.querySelector(`[data-part="${was.part}"]`);
  if (!part) return;
  const alike = [...part.querySelectorAll(was.tag)].filter((it) => it.className === was.kind);
  const same = alike.filter((it) => it.getAttribute("href") === was.href && it.dataset.mode === was.mode
    && it.closest("[data-backend]")?.dataset.backend === was.row);
  (same.length === 1 ? same[0] : alike[was.at])?.focus({ preventScroll: true });
}

// Takes the parts of a new text of the page; what the reader typed, opened or scrolled to stays.
function take(fresh) {
  const was = focused();
  const now = fresh.getElementById("report");
  main.dataset.now = now.dataset.now;
  main.dataset.seen = now.dataset.seen;
  clock = Date.now() / 1000 - Number(now.dataset.now);
  const names = (root) => [...root.querySelectorAll("[data-part]")].map((part) => part.dataset.part).join();
  if (names(main) !== names(now)) {
    main.replaceChildren(...document.adoptNode(now).childNodes);
  } else {
    for (const part of main.querySelectorAll("[data-part]")) {
      const next = now.querySelector(`[data-part="${part.dataset.part}"]`);
      for (const details of part.querySelectorAll("details[open]")) {
        const same = next.ownerDocument.getElementById(details.id);
        if (same) same.open = true;
      }
      const scrolled = [...part.querySelectorAll(".scroll")].map((it) => it.scrollLeft);
      part.replaceChildren(...document.adoptNode(next).childNodes);
      [...part.querySelectorAll(".scroll")].forEach((it, at) => { it.scrollLeft = scrolled[at] ?? 0; });
    }
  }
  document.title = fresh.title;
  index();
  buttons();
  focusAgain(was);
}

let asked = 0;
// Fetches the page anew; an answer that a later one has overtaken is dropped.
async function fetchPage(address) {
  const number = ++asked;
  const answer = await fetch(address, { signal: AbortSignal.timeout(10000) });
  if (!answer.ok && ![403, 404].includes(answer.status)) throw new Error("answered " + answer.status);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (number === asked && fresh.getElementById("report")) take(fresh);
}

let later = 0;
async function renew() {
  if (renewing) { again = true; return; }
  clearTimeout(later);
  if (busy()) { later = setTimeout(renew, 2000); return; }
  renewing = true;
  dropped = false;
  try {
    await fetchPage(location.pathname + location.search);
    // Services that are new here are listened to as well.
    if (shown() !== subscribed) listen();
  } catch (error) {
    say("The agent does not answer: what you see may be old.", true);
  }
  renewing = false;
  if (again) { again = false; later = setTimeout(renew, 1000); }
}
document.addEventListener("selectionchange", () => { if (dropped && !busy()) renew(); });

// The services that are in the document, as many as fit into an address.
function shown() {
  const labels = new Set();
  let room = 12000;
  for (const row of main.querySelectorAll("[data-service]")) {
    room -= encodeURIComponent(row.dataset.service).length + 3;
    if (room < 0) break;
    labels.add(row.dataset.service);
  }
  return [...labels].join("\n");
}

// Some pages have more than the stream tells of.
const every = Number(main.dataset.every);
if (every > 0) setInterval(() => { if (!document.hidden) renew(); }, every * 1000);

let subscribed = "";
let opened = Date.now();
function listen() {
  if (stream) stream.close();
  subscribed = shown();
  opened = heard = Date.now();
  // What changed after this text of the page was made is told first.
  stream = new EventSource("/api/v1/stream?services=" + encodeURIComponent(subscribed)
    + "&seen=" + encodeURIComponent(main.dataset.seen));
  stream.addEventListener("alive", () => { heard = Date.now(); });
  stream.addEventListener("hello", () => {
    heard = Date.now();
    // Whatever happened meanwhile is in the page.
    if (note.classList.contains("lost")) renew();
    say("live", false);
  });
  stream.addEventListener("texts", (event) => {
    heard = Date.now();
    patch(JSON.parse(event.data));
  });
  stream.addEventListener("resync", renew);
  // The session has ended: who may read without one goes on.
  stream.addEventListener("over", () => { listen(); begin(); });
  stream.onerror = () => {
    say("The agent does not answer: what you see may be old.", true);
    // The browser tries again by itself, unless it was answered with a refusal.
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  };
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    stream?.close();
  } else {
    renew();
    listen();
  }
});
addEventListener("pagehide", () => stream?.close());
addEventListener("pageshow", (event) => { if (event.persisted) { renew(); listen(); } });

// The search: at once among the rows that are here, then among all.
const search = document.getElementById("search");
let typed = 0;
function find() {
  const query = new URLSearchParams(new FormData(search));
  for (const [name, value] of [...query]) if (value === "") query.delete(name);
  const words = (query.get("q") ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of main.querySelectorAll("table.list tbody tr")) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
  const text = query.toString();
  history.replaceState(null, "", text ? "/?" + text : "/");
  clearTimeout(typed);
  typed = setTimeout(async () => {
    try {
      await fetchPage(location.pathname + location.search);
      listen();
    } catch (error) {
      say("The agent does not answer: what you see may be old.", true);
    }
  }, 120);
}
if (search) {
  search.addEventListener("input", find);
  search.addEventListener("submit", (event) => { event.preventDefault(); find(); });
  document.addEventListener("keydown", (event) => {
    const free = !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "");
    if (event.key === "/" && free && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      document.getElementById("q").focus();
    }
  });
}

// A link of the demo's dashboard to a service whose section is on a page of its own.
function follow() {
  let id = "";
  try { id = decodeURIComponent(location.hash.slice(1)); } catch (error) { return; }
  if (id.endsWith("_backend") && !document.getElementById(id)) location.replace("/service/" + encodeURIComponent(id));
}
addEventListener("hashchange", follow);

index();
follow();
setInterval(age, 1000);
setInterval(() => {
  if (document.hidden || !stream) return;
  // Nothing for so long is no silence: something is said every 15 seconds.
  if (Date.now() - heard > 45000) {
    say("The agent does not answer: what you see may be old.", true);
    listen();
  } else if (Date.now() - opened > 600000) {
    // A connection of the agent's lasts a quarter of an hour.
    listen();
  }
}, 5000);
listen();
