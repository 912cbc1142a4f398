// What htmx does not do: `/` goes to the search, a form that somebody is filling in is not replaced below them, and
// a page that cannot be kept up to date says so.
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

// What keeps a page up to date has `again` among its triggers. It is asked again until it is answered; a stream that was
// answered once comes back by itself.
(() => {
  const AGAIN_AFTER_MS = 3000;
  const failing = new Set();

  const tell = (element, fails) => {
    failing.delete(element);
    if (fails && element.matches("[hx-trigger$=again]")) failing.add(element);
    for (const one of failing) if (!one.isConnected) failing.delete(one);
    document.getElementById("not-live").hidden = failing.size === 0;
  };

  // An error, or the login, which must not take the place of what is shown.
  const foreign = (response) => response && (response.status >= 400 || response.raw.redirected);

  document.addEventListener("htmx:before:swap", (event) => {
    if (foreign(event.detail.ctx.response)) event.preventDefault();
  });

  document.addEventListener("htmx:finally:request", (event) => {
    const { status, response, sourceElement } = event.detail.ctx;
    const fails = status.startsWith("error") || foreign(response);
    if (!fails && !response) return; // it was not asked, because a form is being filled in
    tell(sourceElement, fails);
    if (fails) window.setTimeout(() => htmx.trigger(sourceElement, "again"), AGAIN_AFTER_MS * (1 + Math.random()));
  });
  document.addEventListener("htmx:sse:error", (event) => tell(event.target, true));
  document.addEventListener("htmx:sse:after:connection", (event) => tell(event.target, false));
})();
