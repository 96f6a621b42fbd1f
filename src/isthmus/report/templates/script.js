"use strict";
(() => {
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const root = document.documentElement;

  // show or hide a classifier everywhere
  for (const bar of all(".toggles")) bar.hidden = false;
  for (const button of all("[data-model]")) {
    button.addEventListener("click", () => {
      const hidden = root.classList.toggle("hide-" + button.dataset.model);
      button.setAttribute("aria-pressed", String(!hidden));
    });
  }

  // sort a table by a column
  const value = (row, column) => {
    const text = (row.cells[column]?.firstChild?.textContent ?? "").trim();
    const number = parseFloat(text.replace("\u2212", "-").replace(/,/g, ""));
    return Number.isNaN(number) || !/^[\u2212-]?[\d.]/.test(text) ? text : number;
  };
  const compare = (a, b) => typeof a === typeof b && typeof a === "number" ? a - b : String(a).localeCompare(String(b));
  const sort = (head) => {
    const table = head.closest("table"), body = table.tBodies[0], column = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of all("th[aria-sort]", table)) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].sort((a, b) => compare(value(a, column), value(b, column)) * (down ? -1 : 1));
    body.append(...rows);
  };
  for (const head of all("table.sortable thead tr:last-child th")) {
    head.tabIndex = 0;
    head.addEventListener("click", (event) => { if (!event.target.closest("a")) sort(head); });
    head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(head); });
  }

  // download the numbers behind a figure
  const columns = (table) => all("thead th", table).map((head) => head.firstChild.textContent.trim());
  const plain = (text) => text !== "" && Number.isFinite(+text.replace("\u2212", "-")) ? +text.replace("\u2212", "-") : text;
  const rows = (table) => [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => plain(cell.textContent.trim())));
  const quoted = (cell) => /[",\n]/.test(cell) ? '"' + String(cell).replace(/"/g, '""') + '"' : String(cell);
  const save = (name, text, type) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  for (const points of all(".points")) {
    const table = points.querySelector("table");
    const title = points.closest("figure").querySelector("h3").textContent;
    const name = title.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "figure";
    const formats = {
      CSV: () => save(name + ".csv", [columns(table), ...rows(table)].map((row) => row.map(quoted).join(",")).join("\n"), "text/csv"),
      JSON: () => save(name + ".json", JSON.stringify({ title, columns: columns(table), rows: rows(table) }, null, 1), "application/json"),
    };
    const bar = document.createElement("p");
    bar.className = "downloads";
    for (const [label, action] of Object.entries(formats)) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.addEventListener("click", action);
      bar.append(button);
    }
    points.querySelector("summary").after(bar);
  }

  // a second click, or Escape, closes an enlarged picture
  for (const zoom of all(".zoom")) {
    zoom.addEventListener("mousedown", (event) => {
      if (document.activeElement === zoom) { event.preventDefault(); zoom.blur(); }
    });
    zoom.addEventListener("keydown", (event) => { if (event.key === "Escape") zoom.blur(); });
  }

  // mark the section in view in the contents, and open what a link leads to
  const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
  if ("IntersectionObserver" in window) {
    const observer = new IntersectionObserver((entries) => {
      for (const entry of entries) links.get(entry.target.id)?.classList.toggle("here", entry.isIntersecting);
    }, { rootMargin: "-25% 0px -65% 0px" });
    for (const id of links.keys()) { const target = document.getElementById(id); if (target) observer.observe(target); }
  }
})();
