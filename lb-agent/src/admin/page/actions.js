// The buttons of an operator: shown only to who may change something.
"use strict";

const JSON_HEADERS = { "Content-Type": "application/json", "X-LB-Action": "1" };

// How the agent knows who asks: by a session, whose cookie no script sees.
const bySession = {
  modes: ["ready", "drain", "maintenance"],
  async may() {
    const answer = await fetch("/api/v1/session");
    if (answer.status === 404) return null;
    return answer.ok && (await answer.json()).may_change === true;
  },
  async signIn(token) {
    const answer = await fetch("/api/v1/session",
      { method: "POST", headers: JSON_HEADERS, body: JSON.stringify({ token }) });
    return answer.ok;
  },
  order(service, backend, mode, seconds) {
    const order = { service, backend, mode };
    if (seconds !== null) order.deadline_seconds = seconds;
    return fetch("/api/v1/instances/state",
      { method: "POST", headers: JSON_HEADERS, body: JSON.stringify(order) });
  },
};

// Or by the token with each request, kept in this document only.
let token = null;
const byToken = {
  modes: ["ready", "drain"],
  send(body, shown) {
    // Without credentials the browser never asks for a password of its own accord.
    const headers = { ...JSON_HEADERS, Authorization: "Bearer " + shown };
    return fetch("/api/v1/drain", { method: "POST", credentials: "omit", headers, body: JSON.stringify(body) });
  },
  async may() { return token !== null; },
  async signIn(shown) {
    // An order for nothing: refused as that, or for the token.
    const answer = await byToken.send({}, shown);
    if (answer.status === 401) return false;
    token = shown;
    return true;
  },
  order(service, backend, mode) {
    return byToken.send({ service, backend, undo: mode === "ready" }, token);
  },
};

let way = bySession;
let may = false;

const WORDS = { ready: "Ready", drain: "Drain", maintenance: "Maintenance" };
const MEANS = {
  ready: "It takes new connections again, as far as both health checks agree.",
  drain: "It gets no new connections. Those that are open live on.",
  maintenance: "It gets no new connections, and those that are open are cut.",
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
    const out = ["draining", "maintenance"].includes(row.dataset.state);
    for (const mode of way.modes) {
      if ((mode === "ready") !== out) continue;
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
  let seconds = null;
  if (mode === "drain" && way === bySession) {
    const field = make("input", { type: "number", min: "0", id: "deadline", inputMode: "numeric" });
    form.append(make("label", { htmlFor: "deadline", textContent: "Cut what is still open after so many seconds (empty: never)" }), field);
    seconds = () => (field.value === "" ? null : Number(field.value));
  }
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
      const result = await way.order(service, backend, mode, seconds ? seconds() : null);
      if (result.ok) {
        dialog.close();
        renew();
        return;
      }
      if (result.status === 401) { may = false; token = null; buttons(); sign(); }
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


// The field for the token, behind a button.
function sign() {
  const place = document.getElementById("sign");
  place.replaceChildren();
  if (may) {
    place.append("signed in: the buttons in each row change this host");
    return;
  }
  const open = make("button", { type: "button", textContent: "Sign in to change" });
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
        may = await way.signIn(field.value);
        answer.textContent = may ? "" : "The token is wrong.";
      } catch (error) {
        answer.textContent = "The agent does not answer.";
      }
      if (!may) return;
      sign();
      buttons();
      dialog.close();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
  place.append(open);
}

async function begin() {
  try {
    const known = await way.may();
    // An agent without sessions knows the token only.
    if (known === null) way = byToken;
    may = known === true;
  } catch (error) {
    may = false;
  }
  sign();
  buttons();
}
begin();
