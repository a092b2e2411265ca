"use strict";
(() => {
  // Pick a process: everything of the others fades in figures, tables and the lineage.
  const owned = [...document.querySelectorAll("[data-series]")];
  let picked = null;
  const show = (series) => {
    for (const part of owned) {
      part.classList.toggle("off", series !== null && !part.dataset.series.split(" ").includes(series));
    }
  };
  for (const button of document.querySelectorAll("[data-pick]")) {
    const series = button.dataset.pick;
    const kin = [...document.querySelectorAll(`[data-series~="${series}"]`)];
    if (!kin.length) continue;
    button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && show(series));
    button.addEventListener("pointerleave", () => show(picked));
    button.addEventListener("click", () => {
      picked = picked === series ? null : series;
      for (const other of document.querySelectorAll("[data-pick]")) {
        other.setAttribute("aria-pressed", String(other.dataset.pick === picked));
      }
      show(picked);
    });
  }

  // Points show their values on hover, tap and focus; without this script the browser shows their titles.
  const tip = document.getElementById("tip");
  const showTip = (point) => {
    tip.textContent = point.getAttribute("aria-label");
    tip.hidden = false;
    const box = point.getBoundingClientRect();
    const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.left = `${Math.max(8, Math.min(room, box.left + box.width / 2 - tip.offsetWidth / 2))}px`;
    const above = box.top - tip.offsetHeight - 8;
    tip.style.top = `${window.scrollY + (above > 0 ? above : box.bottom + 8)}px`;
  };
  for (const point of document.querySelectorAll(".point")) {
    const title = point.querySelector("title");
    point.setAttribute("aria-label", title.textContent);
    point.setAttribute("role", "img");
    title.remove();
    for (const event of ["pointerenter", "focus", "click"]) point.addEventListener(event, () => showTip(point));
    for (const event of ["pointerleave", "blur"]) point.addEventListener(event, () => { tip.hidden = true; });
  }

  // Clicking a generation of the lineage shows its details.
  const chosen = document.getElementById("chosen");
  const facts = JSON.parse(document.getElementById("generations").textContent);
  const choose = (node) => {
    for (const other of document.querySelectorAll(".node.chosen")) other.classList.remove("chosen");
    node.classList.add("chosen");
    const list = document.createElement("dl");
    for (const [name, value, link] of facts[node.dataset.key]) {
      const term = document.createElement("dt");
      const detail = document.createElement("dd");
      term.textContent = name;
      const place = link ? detail.appendChild(document.createElement("a")) : detail;
      if (link) place.href = link;
      place.textContent = value;
      list.append(term, detail);
    }
    chosen.replaceChildren(list);
  };
  for (const node of document.querySelectorAll(".node")) {
    node.addEventListener("click", () => choose(node));
    node.addEventListener("focus", () => choose(node));
    node.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(node); }
    });
  }

  // Open all details for printing.
  window.addEventListener("beforeprint", () => {
    for (const closed of document.querySelectorAll("details")) closed.open = true;
  });
})();
