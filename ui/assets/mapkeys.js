/* The keyboard on the map: one card or line is its stop for Tab, arrow keys go from there.
 *
 * With a stop for each, nobody would get past a map of a thousand.
 */
(function () {
  "use strict";

  const palomar = window.palomar = window.palomar || {};

  let spot = "";

  function setSpot(id) {
    const before = palomar.map.itemOf(spot), now = palomar.map.itemOf(id);
    if (before && before !== now) before.g.setAttribute("tabindex", -1);
    spot = now ? id : "";
    if (now) now.g.setAttribute("tabindex", 0);
  }

  function keepSpot() {
    const item = palomar.map.itemOf(spot);
    if (item && item.g.getAttribute("tabindex") === "0") return;
    const { selected } = palomar.map;
    setSpot(item ? spot : palomar.map.itemOf(selected) ? selected : cardOrder()[0] || "");
  }

  function cardOrder() {
    const at = (id) => palomar.map.cards.get(id).data;
    return [...palomar.map.cards.keys()].sort((a, b) => at(a).x - at(b).x || at(a).y - at(b).y);
  }

  function edgeOrder(test) {
    const far = (d, end) => (palomar.map.cards.get(d[end]) || { data: { y: 0 } }).data.y;
    const found = [...palomar.map.edges].filter(([, item]) => test(item.data));
    found.sort(([a, x], [b, y]) => far(x.data, "b") - far(y.data, "b") || far(x.data, "a") - far(y.data, "a") || (a < b ? -1 : 1));
    return found.map(([id]) => id);
  }

  function neighbour(id, key) {
    const edge = palomar.map.edges.get(id), step = key === "ArrowUp" ? -1 : 1;
    const around = (order) => order[(order.indexOf(id) + step + order.length) % order.length];
    if (key === "ArrowRight") return edge ? edge.data.b : edgeOrder((d) => d.a === id)[0];
    if (key === "ArrowLeft") return edge ? edge.data.a : edgeOrder((d) => d.b === id)[0];
    return around(edge ? edgeOrder((d) => d.a === edge.data.a) : cardOrder());
  }

  function walk(id, key) {
    const next = neighbour(id, key), item = palomar.map.itemOf(next);
    if (!item) return;
    setSpot(next);
    item.g.focus({ preventScroll: true });
    palomar.mapView.bringIntoView(item);
  }

  document.addEventListener("focusin", (event) => {
    if (!palomar.map || !palomar.map.svg) return;
    const found = event.target.closest("#map-svg [data-id]");
    const seen = found && found.matches(":focus-visible") ? found.dataset.id : "";
    if (seen) setSpot(seen);
    palomar.map.hover(seen);
  });

  palomar.mapKeys = { keepSpot, walk };
})();
