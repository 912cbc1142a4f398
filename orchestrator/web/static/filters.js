// Filters of the list that somebody keeps, by name, in this browser alone. Without scripts a filter is a bookmark.
"use strict";

(() => {
  const KEY = "sagasmith.filters";
  const box = document.getElementById("saved");
  if (!box) return;

  const read = () => {
    const kept = JSON.parse(window.localStorage.getItem(KEY) || "{}");
    return Object.entries(kept).filter((pair) => typeof pair[1] === "string");
  };

  const write = (kept) => {
    window.localStorage.setItem(KEY, JSON.stringify(Object.fromEntries(kept)));
    show(kept);
  };

  // As one text for each filter: without what is empty, and without the place in the list.
  const plain = (query) => {
    const asked = [...new URLSearchParams(query)].filter(([name, value]) => value && name !== "after");
    return new URLSearchParams(asked).toString();
  };

  const entry = ([name, query]) => {
    const item = document.createElement("li");
    const link = document.createElement("a");
    const forget = document.createElement("button");
    link.href = `${box.dataset.list}?${plain(query)}`;
    link.textContent = name;
    if (plain(query) === plain(window.location.search)) link.setAttribute("aria-current", "true");
    forget.type = "button";
    forget.className = "quiet";
    forget.textContent = "✗";
    forget.setAttribute("aria-label", `Forget ${name}`);
    forget.addEventListener("click", () => write(read().filter((pair) => pair[0] !== name)));
    item.append(link, " ", forget);
    return item;
  };

  const show = (kept) => {
    box.querySelector("ul").replaceChildren(...kept.sort().map(entry));
    box.hidden = kept.length === 0 && !box.querySelector("form");
  };

  try {
    show(read());
  } catch {
    return; // this browser keeps nothing for us, or something else is kept there: the filter stays in the address
  }
  box.querySelector("form")?.addEventListener("submit", (event) => {
    event.preventDefault();
    const field = event.target.querySelector("input");
    const name = field.value.trim();
    if (!name) return;
    try {
      write([...read().filter((pair) => pair[0] !== name), [name, plain(window.location.search)]]);
      field.value = "";
    } catch {
      field.setCustomValidity("This browser does not let us keep it. Bookmark the page instead.");
      field.reportValidity();
    }
  });
})();
