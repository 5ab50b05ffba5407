// Keys on every page: n and p follow the links rel=next and rel=prev, / goes to the search field.
"use strict";
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  const chosen = { n: '[rel="next"]', p: '[rel="prev"]', "/": "[data-search]" }[event.key];
  const found = chosen && document.querySelector(chosen);
  if (!found) return;
  event.preventDefault();
  if (found.matches("a")) found.click();
  else found.focus();
});
