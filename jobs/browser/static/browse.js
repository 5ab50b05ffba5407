// Keys on every page: n and → follow the link rel=next, p and ← the link rel=prev, / goes to the search field, and ? lists
// the keys. A page that gets no answer shows so.
"use strict";
const FIELDS = "input, select, textarea, [contenteditable], dialog";
const keys = document.getElementById("keys");
const showKeys = document.getElementById("show-keys");
const silent = document.getElementById("silent");

function follow(rel) {
  const link = document.querySelector(`a[rel~="${rel}"]`);
  if (link) link.click();
  return link;
}

function search() {
  const field = document.querySelector("[data-search]");
  if (field) {
    field.focus();
    field.select();
  }
  return field;
}

const ACTIONS = {
  n: () => follow("next"),
  p: () => follow("prev"),
  "/": search,
  "?": () => keys.showModal() ?? keys,
};
const ARROWS = { ArrowRight: "n", ArrowLeft: "p" };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.target.closest?.(FIELDS)) return;
  let key = event.key;
  if (key in ARROWS) {
    // Elsewhere an arrow moves what has the focus, such as a table that is wider than the page.
    if (event.shiftKey || ![document.body, document.getElementById("main")].includes(document.activeElement)) return;
    key = ARROWS[key];
  }
  if (Object.hasOwn(ACTIONS, key) && ACTIONS[key]()) event.preventDefault();
});

showKeys.hidden = false;
showKeys.addEventListener("click", () => keys.showModal());
document.addEventListener("htmx:sendError", () => { silent.hidden = false; });
document.addEventListener("htmx:afterOnLoad", () => { silent.hidden = true; });
