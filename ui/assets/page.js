/* The page as a whole: applies updates, reports clicks and keys.
 *
 * Not here: any decision on what is shown, hidden, named or coloured; that is ui/servicemap.py, ui/view.py and
 * palomar.css. Input: differences through the store `update`; output: clicks through the store `click`.
 */
(function () {
  "use strict";

  const palomar = window.palomar = window.palomar || {};

  const KEPT_CLICKS = 8;
  const ARROWS = new Set(["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"]);

  const byId = (id) => document.getElementById(id);

  let held = 0, clicks = [], clicked = 0;

  function showNotes(notes) {
    const box = byId("map-notes");
    if (!box) return;
    const text = JSON.stringify(notes);
    if (box.dataset.shown === text) return;
    box.dataset.shown = text;
    box.textContent = "";
    for (const note of notes) {
      const item = document.createElement(note.more ? "button" : "span");
      item.textContent = note.t + (note.more ? " · show more" : "");
      if (note.more) { item.dataset.click = "limit"; item.dataset.id = String(note.more); }
      box.appendChild(item);
    }
  }

  function apply(update) {
    if (!update || !palomar.map.open()) return 0;
    const began = performance.now();
    palomar.pace.heard();
    // Answers may overtake each other: a difference is good only on top of what it was made from. What is
    // returned here tells the page server what the page holds.
    if ("seq" in update) {
      if (!update.reset && update.base !== held) return held;
      held = update.seq;
      applyNews(update);
    }
    palomar.parts.apply(update.parts);
    window.palomarApplied = { seq: held, ms: performance.now() - began };
    return held;
  }

  function applyNews(update) {
    const { map, mapView, flowTable } = palomar;
    const isHeld = flowTable.isHeld();
    if (update.reset) map.clear();
    const touched = update.map ? map.apply(update.map) : false;
    if (update.refit) mapView.refit();
    else if (update.reset) mapView.fit();
    if (touched || update.reset || update.selected !== map.selected) map.select(update.selected);
    if (update.notes) showNotes(update.notes);
    flowTable.choose(update.flow || "");
    flowTable.apply(update.rows, isHeld);
  }

  function theme(search) {
    const wanted = new URLSearchParams(search || "").get("theme");
    if (wanted === "light" || wanted === "dark") document.documentElement.dataset.theme = wanted;
    else delete document.documentElement.dataset.theme;
    return wanted || "";
  }

  /* The last clicks go together, each with its number: two within one round trip are two, and Dash hears one. */
  function report(kind, id) {
    clicked += 1;
    clicks = [...clicks, { kind, id, n: clicked }].slice(-KEPT_CLICKS);
    window.dash_clientside.set_props("click", { data: clicks });
  }

  function copy(button) {
    const source = byId(button.dataset.copy), done = () => {
      button.dataset.done = "1";
      window.setTimeout(() => { delete button.dataset.done; }, 2000);
    };
    // Without a clipboard the text is at least selected.
    const select = () => window.getSelection().selectAllChildren(source);
    if (navigator.clipboard) navigator.clipboard.writeText(source.textContent).then(done, select);
    else select();
  }

  document.addEventListener("click", (event) => {
    const copied = event.target.closest("[data-copy]");
    if (copied) { copy(copied); return; }
    const action = event.target.closest("[data-map]");
    if (action) { palomar.mapView.ACTIONS[action.dataset.map](); return; }
    if (event.target.closest("#flow-new")) { palomar.flowTable.showNewest(); return; }
    const found = event.target.closest("[data-click]");
    if (found) { report(found.dataset.click, found.dataset.id || ""); return; }
    if (event.target.closest("#map-canvas")) report("nothing", "");
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, [contenteditable]");
    const found = event.target.closest("[data-click]");
    const drawn = found && found.closest("#map-svg"), row = event.target.closest("#flow-rows tr");
    if ((event.key === "Enter" || event.key === " ") && found && (drawn || event.target === row)) {
      event.preventDefault();
      report(found.dataset.click, found.dataset.id || "");
    } else if (ARROWS.has(event.key) && (drawn || row)) {
      event.preventDefault();
      if (drawn) palomar.mapKeys.walk(found.dataset.id, event.key);
      else palomar.flowTable.walk(row, event.key);
    } else if (event.key === "Escape" && !typing) {
      report("nothing", "");
    } else if (event.key === "/" && !typing) {
      const box = byId("text");
      if (box) { event.preventDefault(); box.focus(); }
    }
  });

  palomar.page = { report };
  window.dash_clientside = Object.assign({}, window.dash_clientside, { palomar: { apply, theme } });
})();
