// A choice of a token, layer or head exchanges the drawing alone, so that the page stays where it is.
"use strict";
document.addEventListener("click", async (event) => {
  const link = event.target.closest("#view a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  const address = link.getAttribute("href");
  await htmx.ajax("GET", address, { target: "#view", select: "#view", swap: "outerHTML" });
  history.replaceState(null, "", address);
});
