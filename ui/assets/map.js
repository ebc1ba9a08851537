/* The service map: boxes, cards and edges as SVG elements, changed by differences keyed by id.
 *
 * Input: `map` of an update (ui/servicemap.py decides every text, place and width); output: elements, whose clicks
 * page.js reports. Not here: which part of the map is seen (mapview.js), the keyboard (mapkeys.js).
 *
 * Each script of this folder puts one object into `window.palomar` and calls those of the others only when something
 * happens, never while it loads: the order in which they load does not matter.
 */
(function () {
  "use strict";

  const palomar = window.palomar = window.palomar || {};

  const SVG = "http://www.w3.org/2000/svg";
  const CARD_RADIUS = 8;
  const NAME_CHAR_WIDTH = 31; // of a box's name at its 62 pixels in palomar.css

  const map = { boxes: new Map(), cards: new Map(), edges: new Map(), size: [0, 0], selected: "", hovered: "" };
  let layers;

  function element(name, attributes, parent) {
    const made = document.createElementNS(SVG, name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    if (parent) parent.appendChild(made);
    return made;
  }

  function open() {
    const canvas = document.getElementById("map-canvas");
    if (map.svg && map.svg.parentNode === canvas) return true;
    if (!canvas) return false;
    const svg = map.svg = element("svg",
      { id: "map-svg", role: "group", "aria-label": "service map", "aria-describedby": "map-keys" }, canvas);
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
    map.world = element("g", { id: "map-world" }, svg);
    layers = {};
    for (const name of ["boxes", "edges", "cards", "labels"]) layers[name] = element("g", { class: name }, map.world);
    palomar.mapView.listen(canvas);
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
    item.label.setAttribute("y", d.y + d.h / 2);
    placeName(item);
  }

  /* A box at the map's side may be narrower than its name from afar: the name stays on the map. */
  function placeName(item) {
    const d = item.data, half = d.t.length * NAME_CHAR_WIDTH / 2;
    item.label.setAttribute("x", Math.max(half, Math.min(d.x + d.w / 2, map.size[0] - half)));
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

  function clear() {
    for (const name in KINDS) {
      map[name].forEach(remove);
      map[name].clear();
    }
  }

  function apply(change) {
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
      map.boxes.forEach(placeName);
      palomar.mapView.sizeChanged();
    }
    return touched;
  }

  /* What is selected or under the pointer stands out; everything it does not touch steps back. */
  function highlight() {
    const focus = map.hovered || map.selected;
    const edge = map.edges.get(focus);
    const near = new Set();
    if (edge) { near.add(edge.data.a); near.add(edge.data.b); }
    const focusShown = edge || map.cards.has(focus);
    map.edges.forEach((item, id) => {
      const d = item.data;
      const on = focusShown && (id === focus || (!edge && (d.a === focus || d.b === focus)));
      if (on) { near.add(d.a); near.add(d.b); }
      const state = (on ? " on" : focusShown ? " off" : "") + (id === map.selected ? " chosen" : "");
      const kind = "edge " + item.kind + state;
      if (item.shown !== kind) { item.shown = kind; item.g.setAttribute("class", kind); }
      const label = "label " + item.kind + (d.l ? "" : " spare") + state;
      if (item.labelled !== label) { item.labelled = label; item.label.setAttribute("class", label); }
    });
    map.cards.forEach((item, id) => {
      const on = focusShown && (id === focus || near.has(id));
      const kind = item.kind + (on ? " on" : focusShown ? " off" : "") + (id === map.selected ? " chosen" : "");
      if (item.shown !== kind) { item.shown = kind; item.g.setAttribute("class", kind); }
    });
  }

  function hover(id) {
    if (id !== map.hovered) { map.hovered = id; highlight(); }
  }

  function select(id) {
    map.selected = id;
    highlight();
    palomar.mapKeys.keepSpot();
  }

  const itemOf = (id) => map.cards.get(id) || map.edges.get(id);

  palomar.map = Object.assign(map, { open, apply, clear, hover, select, itemOf });
})();
