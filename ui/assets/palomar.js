/* The browser's half of the page: draws what the page server decided and reports clicks.
 *
 * Not here: any decision on what is shown, hidden, named or coloured; that is ui/servicemap.py, ui/view.py and
 * palomar.css. Input: differences through the store `update`; output: clicks through the store `click`.
 * Texts are set as text, never as markup: names come from the cluster and may hold anything.
 */
(function () {
  "use strict";

  const SVG = "http://www.w3.org/2000/svg";
  const MAX_ROWS = 100;
  const ASK_MS = 1000;
  const STALE_MS = 6000;
  const FAR_SCALE = 0.62, FARTHER_SCALE = 0.36, MAX_FIT_SCALE = 1.35;
  const CARD_RADIUS = 8;

  const map = { boxes: new Map(), cards: new Map(), edges: new Map(), size: [0, 0], moved: false, drawn: false };
  const view = { x: 0, y: 0, scale: 1 };
  let svg, world, layers, selected = "", hovered = "", flow = "", lastUpdate = performance.now(), clicks = 0;
  let pending = [], pendingMore = 0, held = 0, spot = "";

  const byId = (id) => document.getElementById(id);

  function element(name, attributes, parent) {
    const made = document.createElementNS(SVG, name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    if (parent) parent.appendChild(made);
    return made;
  }

  /* ---- map ---------------------------------------------------------------------------------- */

  function openMap() {
    const canvas = byId("map-canvas");
    if (svg && svg.parentNode === canvas) return true;
    if (!canvas) return false;
    svg = element("svg", { id: "map-svg", role: "group", "aria-label": "service map", "aria-describedby": "map-keys" },
      canvas);
    const defs = element("defs", {}, svg);
    for (const kind of ["forwarded", "dropped", "audit", "idle"]) {
      const marker = element("marker", {
        id: "arrow-" + kind, viewBox: "0 0 10 10", refX: 1, refY: 5, markerWidth: 9, markerHeight: 9,
        orient: "auto", markerUnits: "userSpaceOnUse", class: "arrow " + kind,
      }, defs);
      element("path", { d: "M0 0.8L10 5L0 9.2Z" }, marker);
    }
    const clip = element("clipPath", { id: "card-clip" }, defs);
    element("rect", { x: 10, y: 0, width: 127, height: 50 }, clip);
    world = element("g", { id: "map-world" }, svg);
    layers = {};
    for (const name of ["boxes", "edges", "cards", "labels"]) layers[name] = element("g", { class: name }, world);
    listenToPointer(canvas);
    new MutationObserver(refocusPanel).observe(byId("panel"), { childList: true, subtree: true });
    new ResizeObserver(() => { if (!map.moved) fit(); }).observe(canvas);
    return true;
  }

  function makeBox() {
    const g = element("g", { class: "box" }, layers.boxes);
    return {
      g, data: {},
      rect: element("rect", { rx: 12 }, g),
      text: element("text", { x: 18, y: 26, class: "small" }, g),
      label: element("text", { class: "box-name" }, layers.labels),
    };
  }

  function drawBox(item) {
    const d = item.data;
    item.g.style.transform = `translate(${d.x}px,${d.y}px)`;
    item.g.setAttribute("class", "box " + d.k);
    item.rect.setAttribute("width", d.w);
    item.rect.setAttribute("height", d.h);
    item.text.textContent = d.t;
    item.label.textContent = d.t;
    item.label.setAttribute("x", d.x + d.w / 2);
    item.label.setAttribute("y", d.y + d.h / 2);
  }

  function makeCard(id) {
    const g = element("g", { class: "card", tabindex: -1, role: "button", "data-click": "workload", "data-id": id },
      layers.cards);
    const title = element("title", {}, g);
    const rect = element("rect", { rx: CARD_RADIUS, class: "face" }, g);
    const bar = element("rect", { rx: 1.5, x: 0, y: 12, width: 3.5, height: 26, class: "bar" }, g);
    const inner = element("g", { "clip-path": "url(#card-clip)" }, g);
    return {
      g, title, rect, bar, data: {},
      name: element("text", { x: 14, y: 22, class: "name" }, inner),
      sub: element("text", { x: 14, y: 38, class: "sub" }, inner),
    };
  }

  /* `c` holds the changed fields: writing an attribute again costs a layout even when it is the same. */
  function drawCard(item, c) {
    const d = item.data;
    if ("x" in c || "y" in c) item.g.style.transform = `translate(${d.x}px,${d.y}px)`;
    item.kind = "card " + d.k + (d.d ? " dropped" : "");
    if ("w" in c) item.rect.setAttribute("width", d.w);
    if ("h" in c) item.rect.setAttribute("height", d.h);
    if ("t" in c) item.name.textContent = d.t;
    if ("s" in c) item.sub.textContent = d.s;
    if ("f" in c) {
      item.title.textContent = d.f;
      item.g.setAttribute("aria-label", d.f);
    }
  }

  function makeEdge(id) {
    const g = element("g", { class: "edge", "data-click": "edge", "data-id": id, tabindex: -1, role: "button" },
      layers.edges);
    const title = element("title", {}, g);
    const hit = element("path", { class: "hit" }, g);
    const line = element("path", { class: "line" }, g);
    const label = element("text", { class: "label", "data-click": "edge", "data-id": id }, layers.labels);
    const labelTitle = element("title", {}, label), words = element("tspan", {}, label);
    return { g, title, hit, line, label, labelTitle, words, data: {} };
  }

  function drawEdge(item, c) {
    const d = item.data;
    item.kind = d.k;
    if ("p" in c) {
      item.line.setAttribute("d", d.p);
      item.hit.setAttribute("d", d.p);
    }
    if ("w" in c) item.line.setAttribute("stroke-width", d.w);
    if ("k" in c) item.line.setAttribute("marker-end", `url(#arrow-${d.k})`);
    if ("x" in c) item.label.setAttribute("x", d.x);
    if ("y" in c) item.label.setAttribute("y", d.y);
    if ("t" in c) item.words.textContent = d.t;
    if ("t" in c || "f" in c) {
      item.title.textContent = item.labelTitle.textContent = d.t + "\n" + d.f;
      item.g.setAttribute("aria-label", d.t + ", " + d.f);
    }
  }

  const KINDS = {
    boxes: [makeBox, drawBox],
    cards: [makeCard, drawCard],
    edges: [makeEdge, drawEdge],
  };

  function remove(item) {
    item.g.remove();
    if (item.label) item.label.remove();
  }

  function clearMap() {
    for (const name in KINDS) {
      map[name].forEach(remove);
      map[name].clear();
    }
  }

  function applyMap(change) {
    let touched = false;
    for (const name in KINDS) {
      const part = change[name];
      if (!part) continue;
      touched = true;
      const [make, draw] = KINDS[name];
      for (const id of part.del || []) {
        const item = map[name].get(id);
        if (item) { remove(item); map[name].delete(id); }
      }
      for (const id in part.set || {}) {
        let item = map[name].get(id);
        if (!item) { item = make(id); map[name].set(id, item); }
        Object.assign(item.data, part.set[id]);
        draw(item, part.set[id]);
      }
    }
    if (change.size) {
      map.size = change.size;
      if (!map.moved) fit();
    }
    return touched;
  }

  /* What is selected or under the pointer stands out; everything it does not touch steps back. */
  function highlight() {
    const focus = hovered || selected;
    const edge = map.edges.get(focus);
    const near = new Set();
    if (edge) { near.add(edge.data.a); near.add(edge.data.b); }
    const focusShown = edge || map.cards.has(focus);
    map.edges.forEach((item, id) => {
      const d = item.data;
      const on = focusShown && (id === focus || (!edge && (d.a === focus || d.b === focus)));
      if (on) { near.add(d.a); near.add(d.b); }
      const state = (on ? " on" : focusShown ? " off" : "") + (id === selected ? " chosen" : "");
      const kind = "edge " + item.kind + state;
      if (item.shown !== kind) { item.shown = kind; item.g.setAttribute("class", kind); }
      const label = "label " + item.kind + (d.l ? "" : " spare") + state;
      if (item.labelled !== label) { item.labelled = label; item.label.setAttribute("class", label); }
    });
    map.cards.forEach((item, id) => {
      const on = focusShown && (id === focus || near.has(id));
      const kind = item.kind + (on ? " on" : focusShown ? " off" : "") + (id === selected ? " chosen" : "");
      if (item.shown !== kind) { item.shown = kind; item.g.setAttribute("class", kind); }
    });
  }

  function place() {
    world.setAttribute("transform", `translate(${view.x},${view.y}) scale(${view.scale})`);
    svg.classList.toggle("far", view.scale < FAR_SCALE);
    svg.classList.toggle("farther", view.scale < FARTHER_SCALE);
  }

  function fit() {
    if (!svg || !map.size[0]) return;
    const width = svg.clientWidth, height = svg.clientHeight;
    if (!width || !height) return;
    const top = 12, bottom = 40, side = 14;
    view.scale = Math.min((width - 2 * side) / map.size[0], (height - top - bottom) / map.size[1], MAX_FIT_SCALE);
    view.scale = Math.max(view.scale, 0.05);
    view.x = (width - map.size[0] * view.scale) / 2;
    view.y = top + (height - top - bottom - map.size[1] * view.scale) / 2;
    place();
  }

  function zoom(factor, x, y) {
    const scale = Math.min(Math.max(view.scale * factor, 0.05), 3);
    const real = scale / view.scale;
    view.x = x - (x - view.x) * real;
    view.y = y - (y - view.y) * real;
    view.scale = scale;
    map.moved = true;
    place();
  }

  function listenToPointer(canvas) {
    let drag = null;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const frame = canvas.getBoundingClientRect();
      zoom(Math.exp(-event.deltaY * 0.0015), event.clientX - frame.left, event.clientY - frame.top);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button === 0) drag = { x: event.clientX, y: event.clientY, far: false, id: event.pointerId };
    });
    canvas.addEventListener("pointermove", (event) => {
      if (drag) {
        const dx = event.clientX - drag.x, dy = event.clientY - drag.y;
        if (!drag.far && Math.hypot(dx, dy) < 4) return;
        if (!drag.far) canvas.setPointerCapture(drag.id);
        drag.far = true;
        canvas.classList.add("dragging");
        view.x += dx; view.y += dy;
        drag.x = event.clientX; drag.y = event.clientY;
        map.moved = true;
        place();
        return;
      }
      const found = event.target.closest("[data-id]");
      const id = found ? found.dataset.id : "";
      if (id !== hovered) { hovered = id; highlight(); }
    });
    const drop = () => {
      if (drag && drag.far) canvas.addEventListener("click", (event) => event.stopPropagation(), { once: true, capture: true });
      drag = null;
      canvas.classList.remove("dragging");
    };
    canvas.addEventListener("pointerup", drop);
    canvas.addEventListener("pointercancel", drop);
    canvas.addEventListener("pointerleave", () => { if (hovered) { hovered = ""; highlight(); } });
  }

  /* ---- keyboard on the map ------------------------------------------------------------------
   * One card or line is the map's stop for Tab; arrow keys go from there. With a stop for each, nobody would
   * get past a map of a thousand. */

  const itemOf = (id) => map.cards.get(id) || map.edges.get(id);

  function setSpot(id) {
    const before = itemOf(spot), now = itemOf(id);
    if (before && before !== now) before.g.setAttribute("tabindex", -1);
    spot = now ? id : "";
    if (now) now.g.setAttribute("tabindex", 0);
  }

  function keepSpot() {
    const item = itemOf(spot);
    if (item && item.g.getAttribute("tabindex") === "0") return;
    setSpot(item ? spot : map.cards.has(selected) || map.edges.has(selected) ? selected : cardOrder()[0] || "");
  }

  function cardOrder() {
    const at = (id) => map.cards.get(id).data;
    return [...map.cards.keys()].sort((a, b) => at(a).x - at(b).x || at(a).y - at(b).y);
  }

  function edgeOrder(test) {
    const far = (d, end) => (map.cards.get(d[end]) || { data: { y: 0 } }).data.y;
    const found = [...map.edges].filter(([, item]) => test(item.data));
    found.sort(([a, x], [b, y]) => far(x.data, "b") - far(y.data, "b") || far(x.data, "a") - far(y.data, "a") || (a < b ? -1 : 1));
    return found.map(([id]) => id);
  }

  function neighbour(id, key) {
    const edge = map.edges.get(id), step = key === "ArrowUp" ? -1 : 1;
    const around = (order) => order[(order.indexOf(id) + step + order.length) % order.length];
    if (key === "ArrowRight") return edge ? edge.data.b : edgeOrder((d) => d.a === id)[0];
    if (key === "ArrowLeft") return edge ? edge.data.a : edgeOrder((d) => d.b === id)[0];
    return around(edge ? edgeOrder((d) => d.a === edge.data.a) : cardOrder());
  }

  function walk(id, key) {
    const next = neighbour(id, key), item = itemOf(next);
    if (!item) return;
    setSpot(next);
    item.g.focus({ preventScroll: true });
    const frame = svg.getBoundingClientRect(), box = (item.rect || item.label).getBoundingClientRect();
    const x = (box.left + box.right) / 2, y = (box.top + box.bottom) / 2;
    if (box.width && (x < frame.left || x > frame.right || y < frame.top || y > frame.bottom)) {
      view.x += frame.left + frame.width / 2 - x;
      view.y += frame.top + frame.height / 2 - y;
      map.moved = true;
      place();
    }
  }

  /* ---- flow table --------------------------------------------------------------------------- */

  function cell(row, className, text, click, id, title) {
    const td = document.createElement("td");
    td.className = className;
    if (click) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "cell";
      button.dataset.click = click;
      button.dataset.id = id;
      button.title = title;
      button.tabIndex = -1;
      button.textContent = text;
      td.appendChild(button);
    } else {
      td.textContent = text;
      if (title) td.title = title;
    }
    row.appendChild(td);
    return td;
  }

  function endpoint(row, name, group, id) {
    const td = cell(row, "who", name, "workload", id, `${group} / ${name}: show only its flows`);
    const small = document.createElement("span");
    small.className = "group";
    small.textContent = group;
    td.appendChild(small);
  }

  const MARKS = { forwarded: "→", dropped: "✕", audit: "!" };

  function makeRow(r) {
    const row = document.createElement("tr");
    row.dataset.click = "flow";
    row.dataset.id = r.i;
    row.tabIndex = -1;
    row.className = r.v + (r.i === flow ? " chosen" : "");
    cell(row, "time", r.t);
    const verdict = cell(row, "verdict", "");
    const chip = document.createElement("span");
    chip.className = "chip " + r.v;
    chip.textContent = MARKS[r.v] + " " + r.v;
    verdict.appendChild(chip);
    endpoint(row, r.a, r.an, r.ai);
    endpoint(row, r.b, r.bn, r.bi);
    cell(row, "port", r.p + (r.r ? " ↩" : ""), "", "", r.r ? "a reply" : "");
    cell(row, "why", r.y, "", "", r.d || r.y);
    cell(row, "point", r.o);
    cell(row, "seen", r.n, "", "", r.n);
    return row;
  }

  function insertRows(body, rows) {
    const made = document.createDocumentFragment();
    for (const r of rows) made.appendChild(makeRow(r));
    body.insertBefore(made, body.firstChild);
    while (body.childElementCount > MAX_ROWS) body.lastElementChild.remove();
  }

  function applyRows(change, scrolled) {
    const body = byId("flow-rows"), box = byId("flow-scroll"), note = byId("flow-note");
    if (!body) return;
    const focused = body.contains(document.activeElement);
    if (change && change.reset) {
      body.textContent = "";
      pending = []; pendingMore = 0;
      if (scrolled) box.scrollTop = 0;
    }
    if (change) {
      pending = change.add.concat(pending).slice(0, MAX_ROWS);
      pendingMore += Math.max(change.more || 0, 0);
    }
    const button = byId("flow-new");
    if (scrolled && !(change && change.reset)) {
      button.hidden = !pending.length;
      button.textContent = `▲ ${pending.length + pendingMore} newer flows`;
      return;
    }
    button.hidden = true;
    if (!pending.length) return;
    insertRows(body, pending);
    const first = body.firstElementChild;
    if (!body.querySelector('tr[tabindex="0"]')) first.tabIndex = 0;
    if (focused && !body.contains(document.activeElement)) first.focus({ preventScroll: true });
    note.textContent = pendingMore ? `+${pendingMore.toLocaleString("en")} flows not shown` : "";
    byId("flow-empty").hidden = true;
    pending = []; pendingMore = 0;
  }

  /* Up and down go from row to row, right and left to the names in it and back. */
  function walkRows(row, key) {
    const inside = [row, ...row.querySelectorAll("button.cell")];
    const at = inside.indexOf(document.activeElement);
    let next = inside[key === "ArrowRight" ? at + 1 : at - 1];
    if (key === "ArrowUp") next = row.previousElementSibling;
    if (key === "ArrowDown") next = row.nextElementSibling;
    if (!next) return;
    stopAtRow(next.closest("tr"));
    next.focus();
  }

  function stopAtRow(row) {
    for (const other of document.querySelectorAll('#flow-rows tr[tabindex="0"]')) other.tabIndex = -1;
    row.tabIndex = 0;
  }

  function markFlow() {
    for (const row of document.querySelectorAll("#flow-rows tr")) {
      const chosen = row.dataset.id === flow;
      row.classList.toggle("chosen", chosen);
      if (chosen) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    }
  }

  /* ---- focus in the panel -------------------------------------------------------------------
   * Each change of the panel makes new elements; the one that had the focus is found again by what it does. */

  let panelFocus = null;
  const PANEL_STOPS = "#panel button";
  const sameStop = (a, b) => ["click", "id", "copy"].every((name) => a[name] === b.dataset[name]);

  function refocusPanel() {
    if (!panelFocus || document.activeElement !== document.body) return;
    const found = [...document.querySelectorAll(PANEL_STOPS)].find((item) => sameStop(panelFocus, item));
    if (found) found.focus({ preventScroll: true });
  }

  document.addEventListener("focusin", (event) => {
    panelFocus = event.target.matches(PANEL_STOPS) ? { ...event.target.dataset } : null;
  });
  /* A button that is replaced between press and release gets no click: the release counts. */
  let pressed = null;
  document.addEventListener("pointerdown", (event) => {
    panelFocus = null;
    pressed = event.target.closest(PANEL_STOPS);
  });
  document.addEventListener("pointerup", (event) => {
    const missed = pressed && !pressed.isConnected && event.target.closest("#panel") ? pressed.dataset : null;
    pressed = null;
    if (missed && missed.click) report(missed.click, missed.id || "");
  });

  /* ---- everything --------------------------------------------------------------------------- */

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
    if (!update || !openMap()) return 0;
    const began = performance.now();
    lastUpdate = began;
    document.body.classList.remove("stale");
    // Answers may overtake each other: a difference is good only on top of what it was made from. What is
    // returned here tells the page server what the page holds.
    if (!update.reset && update.base !== held) return held;
    held = update.seq;
    // Read before anything is written: a read in between makes the browser lay the page out twice.
    const scroll = byId("flow-scroll");
    // Who walks the rows by keyboard wants them to stay as much as who has scrolled down.
    const walked = document.activeElement && document.activeElement.matches("#flow-rows :focus-visible");
    const scrolled = Boolean(scroll) && (scroll.scrollTop > 4 || walked);
    if (update.reset) clearMap();
    if (update.refit) map.moved = false;
    const touched = update.map ? applyMap(update.map) : false;
    if (update.reset || update.refit) fit();
    if (touched || update.reset || update.selected !== selected) {
      selected = update.selected;
      highlight();
      keepSpot();
    }
    if (update.notes) showNotes(update.notes);
    if (update.flow !== flow) { flow = update.flow || ""; markFlow(); }
    applyRows(update.rows, scrolled);
    const empty = byId("flow-empty");
    if (empty) empty.hidden = byId("flow-rows").childElementCount > 0;
    window.palomarApplied = { seq: update.seq, ms: performance.now() - began };
    return update.seq;
  }

  function theme(search) {
    const wanted = new URLSearchParams(search || "").get("theme");
    if (wanted === "light" || wanted === "dark") document.documentElement.dataset.theme = wanted;
    else delete document.documentElement.dataset.theme;
    return wanted || "";
  }

  function report(kind, id) {
    clicks += 1;
    window.dash_clientside.set_props("click", { data: { kind, id, n: clicks } });
  }

  const MAP_ACTIONS = {
    "zoom-in": () => zoom(1.3, svg.clientWidth / 2, svg.clientHeight / 2),
    "zoom-out": () => zoom(1 / 1.3, svg.clientWidth / 2, svg.clientHeight / 2),
    fit: () => { map.moved = false; fit(); },
  };

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
    if (action && MAP_ACTIONS[action.dataset.map]) { MAP_ACTIONS[action.dataset.map](); return; }
    if (event.target.closest("#flow-new")) { byId("flow-scroll").scrollTop = 0; applyRows(null, false); return; }
    const found = event.target.closest("[data-click]");
    if (found) { report(found.dataset.click, found.dataset.id || ""); return; }
    if (event.target.closest("#map-canvas")) report("nothing", "");
  });
  const ARROWS = new Set(["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"]);
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, [contenteditable]");
    const found = event.target.closest("[data-click]");
    const drawn = found && found.namespaceURI === SVG, row = event.target.closest("#flow-rows tr");
    if ((event.key === "Enter" || event.key === " ") && found && (drawn || event.target === row)) {
      event.preventDefault();
      report(found.dataset.click, found.dataset.id || "");
    } else if (ARROWS.has(event.key) && (drawn || row)) {
      event.preventDefault();
      if (drawn) walk(found.dataset.id, event.key);
      else walkRows(row, event.key);
    } else if (event.key === "Escape" && !typing) {
      report("nothing", "");
    } else if (event.key === "/" && !typing) {
      const box = byId("text");
      if (box) { event.preventDefault(); box.focus(); }
    }
  });
  document.addEventListener("focusin", (event) => {
    const found = event.target.closest("#map-svg [data-id]");
    const seen = found && found.matches(":focus-visible") ? found.dataset.id : "";
    if (seen) setSpot(seen);
    if (seen !== hovered) { hovered = seen; highlight(); }
  });
  document.addEventListener("scroll", (event) => {
    if (event.target.id === "flow-scroll" && event.target.scrollTop <= 4 && pending.length) applyRows(null, false);
  }, true);
  window.setInterval(() => {
    if (!document.hidden && performance.now() - lastUpdate > STALE_MS) document.body.classList.add("stale");
  }, 1000);

  // One question at a time, a second apart: Dash throws away an answer that the next question overtook, so a server
  // slower than the page asks would never be heard. A question that broke off is not answered at all: ask on.
  let askedAt = performance.now(), waits = true, ticks = 0;
  document.addEventListener("palomar-asked", () => { askedAt = performance.now(); waits = true; });
  document.addEventListener("palomar-answered", () => {
    waits = false;
    lastUpdate = performance.now(); // a paused page is told nothing new, and that is an answer
    document.body.classList.remove("stale");
  });
  window.setInterval(() => {
    const since = performance.now() - askedAt;
    if (since < (waits ? STALE_MS : ASK_MS)) return;
    askedAt = performance.now();
    ticks += 1;
    window.dash_clientside.set_props("tick", { data: ticks });
  }, 50);
  document.addEventListener("visibilitychange", () => { lastUpdate = performance.now(); });

  window.dash_clientside = Object.assign({}, window.dash_clientside, { palomar: { apply, theme } });
})();
