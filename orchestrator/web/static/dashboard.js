// What htmx does not do: `/` goes to the search, and a form that somebody is filling in is not replaced below them.
"use strict";

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  const find = document.getElementById("find");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey && find) {
    event.preventDefault();
    find.focus();
    find.select();
  }
});

document.addEventListener("htmx:before:request", (event) => {
  const actions = event.target;
  if (actions.id === "actions" && actions.querySelector("details[open]")) {
    event.preventDefault();
    actions.classList.add("changed");
  }
});

document.addEventListener("submit", (event) => {
  const button = event.target.querySelector("button");
  if (event.target.method === "post" && button) {
    button.disabled = true; // asking twice by a double click would be asking once, but looks odd
    window.setTimeout(() => { button.disabled = false; }, 5000);
  }
});
