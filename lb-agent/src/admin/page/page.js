// Refreshes the report in place. The page reads without this; there is nothing here to send or change.
"use strict";

const PERIOD_MS = 2000;
const note = document.getElementById("refresh");

// A reader who selects text or has left the tab is not disturbed.
function busy() {
  const selection = document.getSelection();
  return document.hidden || (selection !== null && !selection.isCollapsed);
}

async function refresh() {
  if (busy()) return;
  try {
    const answer = await fetch("/", { signal: AbortSignal.timeout(5 * PERIOD_MS) });
    if (!answer.ok) throw new Error("answered " + answer.status);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const main = document.getElementById("report");
    for (const details of main.querySelectorAll("details[open]")) {
      const again = fresh.getElementById(details.id);
      if (again) again.open = true;
    }
    if (busy()) return;
    main.replaceWith(document.adoptNode(fresh.getElementById("report")));
    document.title = fresh.title;
    note.textContent = "";
  } catch (error) {
    note.textContent = "The agent does not answer: what you see may be old.";
  }
}

async function loop() {
  await refresh();
  setTimeout(loop, PERIOD_MS);
}

setTimeout(loop, PERIOD_MS);
