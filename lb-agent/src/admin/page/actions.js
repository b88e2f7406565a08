// The buttons of an operator: shown only to who may change something.
"use strict";

const JSON_HEADERS = { "Content-Type": "application/json", "X-LB-Action": "1" };
const KEY = "lb-session";

// A session is a cookie that no script sees, and a key that no other port of this host is shown. The key lives as long as the tab.
function headers() {
  return { ...JSON_HEADERS, "X-LB-Session": sessionStorage.getItem(KEY) ?? "" };
}

let may = false;
// Whether there is a session, of this tab or another one: whoever has it can end it.
let session = false;
let question = 0;

// Learns both, and says whether who asks may change something; what a later answer has overtaken is forgotten.
async function ask() {
  const number = ++question;
  const answer = await fetch("/api/v1/session", { headers: headers() });
  const told = answer.ok ? await answer.json() : {};
  if (number === question) {
    may = told.may_change === true;
    session = (told.who ?? "").startsWith("session");
  }
  return told.may_change === true;
}

// Why it did not work, if it did not.
async function signIn(token) {
  const answer = await fetch("/api/v1/session",
    { method: "POST", headers: JSON_HEADERS, body: JSON.stringify({ token }) });
  if (answer.status === 429) return "Too many wrong tokens were shown: try again in a minute.";
  if (!answer.ok) return "The token is wrong.";
  sessionStorage.setItem(KEY, (await answer.json()).key);
  return (await ask()) ? "" : "Under this name the page is for reading: changes are made at the agent's own address.";
}

// Ends the session, and with it every stream that it opened.
async function signOut() {
  const answer = await fetch("/api/v1/session", { method: "DELETE", headers: headers() }).catch(() => null);
  if (!answer?.ok) { say("The agent does not answer: you are still signed in.", true); return; }
  sessionStorage.removeItem(KEY);
  question++;
  may = session = false;
  sign();
  buttons();
  document.querySelector("#sign button").focus();
  renew();
}

function order(service, backend, mode) {
  const body = JSON.stringify({ service, backend, mode });
  return fetch("/api/v1/instances/state", { method: "POST", headers: headers(), body });
}

const WORDS = { ready: "Ready", drain: "Drain", maintenance: "Maintenance" };
const MEANS = {
  ready: "It takes new connections again, as far as both health checks agree.",
  drain: "It gets no new connections. Those that are open are cut after lb_drain: 30 seconds, unless the service says otherwise.",
  maintenance: "It gets no new connections, and those that are open are cut at once, through the front as well.",
};

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Puts the buttons into each row; the page calls this whenever rows are new.
function buttons() {
  for (const row of document.querySelectorAll("tr[data-backend]")) {
    const place = row.querySelector(".actions");
    if (!place) continue;
    place.replaceChildren();
    if (!may) continue;
    const service = row.closest("[data-service]").dataset.service;
    for (const mode of Object.keys(WORDS)) {
      // What an operator ordered last is not to be ordered again.
      if (mode === row.dataset.mode) continue;
      const button = make("button", { type: "button", textContent: WORDS[mode] });
      button.dataset.mode = mode;
      button.setAttribute("aria-label", `${WORDS[mode]}: ${row.dataset.backend} of ${service}`);
      button.addEventListener("click", () => confirmFirst(row, service, mode, button));
      place.append(button);
    }
  }
}

// Asks before anything changes; to do nothing is the default.
function confirmFirst(row, service, mode, button) {
  const backend = row.dataset.backend;
  const open = row.querySelector('[data-k$="|active"]')?.textContent ?? "?";
  const cancel = make("button", { type: "button", textContent: "Cancel", autofocus: true });
  const go = make("button", { type: "submit", textContent: WORDS[mode] });
  const answer = make("p", { role: "status" });
  answer.setAttribute("role", "status");
  const form = make("form", { method: "dialog" },
    make("h2", { id: "ask", textContent: `${WORDS[mode]} ${backend}?` }),
    make("p", { textContent: `${MEANS[mode]} It is an instance of ${service} and has ${open} open flows.` }));
  form.append(answer, make("div", { className: "row" }, cancel, go));
  const dialog = make("dialog", {}, form);
  dialog.setAttribute("aria-labelledby", "ask");
  cancel.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    dialog.remove();
    const again = [...document.querySelectorAll("tr[data-backend]")].find((it) =>
      it.dataset.backend === backend && it.closest("[data-service]").dataset.service === service);
    (button.isConnected ? button : again?.querySelector(".actions button"))?.focus();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    go.disabled = true;
    answer.textContent = "Sent …";
    try {
      const result = await order(service, backend, mode);
      if (result.ok) {
        dialog.close();
        renew();
        return;
      }
      if (result.status === 401) begin();
      const said = await result.json().catch(() => ({}));
      answer.textContent = said.error ?? `The agent answered ${result.status}.`;
    } catch (error) {
      answer.textContent = "The agent does not answer: nothing is known to have changed.";
    }
    go.disabled = false;
  });
  document.body.append(dialog);
  dialog.showModal();
}

// The way in and the way out.
function sign() {
  const place = document.getElementById("sign");
  const state = `${may} ${session}`;
  if (place.dataset.state === state) return;
  place.dataset.state = state;
  const focused = place.contains(document.activeElement);
  place.replaceChildren();
  if (may) place.append("signed in: the buttons in each row change this host ");
  else if (session) place.append("signed in for reading ");
  if (session) {
    const out = make("button", { type: "button", textContent: "Sign out" });
    out.addEventListener("click", signOut);
    place.append(out, " ");
  }
  if (!may) place.append(wayIn(place));
  if (focused) place.querySelector("button")?.focus({ preventScroll: true });
}

// The field for the token, behind a button.
function wayIn(place) {
  const open = make("button", { type: "button", textContent: "Sign in" });
  open.addEventListener("click", () => {
    const field = make("input", { type: "password", id: "token", autocomplete: "off", required: true });
    const answer = make("p", {});
    answer.setAttribute("role", "status");
    const cancel = make("button", { type: "button", textContent: "Cancel" });
    const form = make("form", {},
      make("h2", { id: "sign-title", textContent: "Sign in" }),
      make("label", { htmlFor: "token", textContent: "The token; it is in the agent's token file" }),
      field, answer, make("div", { className: "row" }, cancel, make("button", { type: "submit", textContent: "Sign in" })));
    const dialog = make("dialog", {}, form);
    dialog.setAttribute("aria-labelledby", "sign-title");
    cancel.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      (place.querySelector("button") ?? document.getElementById("report")).focus({ preventScroll: true });
    });
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      try {
        answer.textContent = await signIn(field.value);
      } catch (error) {
        answer.textContent = "The agent does not answer.";
      }
      sign();
      if (answer.textContent !== "") return;
      buttons();
      dialog.close();
      // There may be more to see now.
      renew();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
  return open;
}

// Also when the session of this tab has ended elsewhere.
async function begin() {
  await ask().catch(() => { may = session = false; });
  sign();
  buttons();
}
begin();
