/* The parts of the page that are drawn from trees: panel, banner, pill, totals, chips, times under the timeline.
 *
 * Input: `parts` of an update, trees by the id of their place (ui/tree.py); output: elements, changed where they
 * differ. Texts are set as text, never as markup: names come from the cluster and may hold anything.
 */
(function () {
  "use strict";

  const palomar = window.palomar = window.palomar || {};

  const drawn = new WeakMap(); // attributes that an element got here; others (a copy's ✓) are not ours to take away

  function make(tree) {
    if (typeof tree === "string") return document.createTextNode(tree);
    const made = document.createElement(tree[0]);
    change(made, tree);
    return made;
  }

  /* What a click means must not change under the pointer: another target is another element. */
  function fits(node, tree) {
    if (typeof tree === "string") return node.nodeType === Node.TEXT_NODE;
    const before = drawn.get(node);
    return before && node.localName === tree[0] &&
      ["data-click", "data-id", "id"].every((name) => before[name] === tree[1][name]);
  }

  function change(node, tree) {
    if (typeof tree === "string") {
      if (node.data !== tree) node.data = tree;
      return;
    }
    const [, attributes, children] = tree, before = drawn.get(node) || {};
    for (const name in before) if (!(name in attributes)) node.removeAttribute(name);
    for (const name in attributes) if (before[name] !== attributes[name]) node.setAttribute(name, attributes[name]);
    drawn.set(node, attributes);
    draw(node, children || []);
  }

  function draw(place, trees) {
    let at = place.firstChild;
    for (const tree of trees) {
      if (at && fits(at, tree)) {
        change(at, tree);
      } else {
        const made = make(tree);
        if (at) at.replaceWith(made);
        else place.append(made);
        at = made;
      }
      at = at.nextSibling;
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  }

  function apply(parts) {
    for (const id in parts) {
      const place = document.getElementById(id);
      if (place) draw(place, parts[id]);
    }
    refocus();
  }

  /* ---- focus and clicks in the panel ---------------------------------------------------------
   * Lines change their order, and their elements with it; the one that had the focus is found again by what it does. */

  const STOPS = "#panel button";
  let focused = null, pressed = null;

  function refocus() {
    if (!focused || document.activeElement !== document.body) return;
    const same = (item) => ["click", "id", "copy"].every((name) => focused[name] === item.dataset[name]);
    const found = [...document.querySelectorAll(STOPS)].find(same);
    if (found) found.focus({ preventScroll: true });
  }

  document.addEventListener("focusin", (event) => {
    focused = event.target.matches(STOPS) ? { ...event.target.dataset } : null;
  });
  /* A button that is replaced between press and release gets no click: the release counts. */
  document.addEventListener("pointerdown", (event) => {
    focused = null;
    pressed = event.target.closest(STOPS);
  });
  document.addEventListener("pointerup", (event) => {
    const missed = pressed && !pressed.isConnected && event.target.closest("#panel") ? pressed.dataset : null;
    pressed = null;
    if (missed && missed.click) palomar.page.report(missed.click, missed.id || "");
  });

  palomar.parts = { apply };
})();
