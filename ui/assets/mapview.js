/* What of the map is seen: pan, zoom, fit, and what the pointer is over. The wheel zooms, dragging pans. */
(function () {
  "use strict";

  const palomar = window.palomar = window.palomar || {};

  const FAR_SCALE = 0.62, FARTHER_SCALE = 0.36, MAX_FIT_SCALE = 1.35;

  const view = { x: 0, y: 0, scale: 1 };
  let moved = false;

  function place() {
    palomar.map.world.setAttribute("transform", `translate(${view.x},${view.y}) scale(${view.scale})`);
    palomar.map.svg.classList.toggle("far", view.scale < FAR_SCALE);
    palomar.map.svg.classList.toggle("farther", view.scale < FARTHER_SCALE);
  }

  function fit() {
    const { svg, size } = palomar.map;
    if (!svg || !size[0]) return;
    const width = svg.clientWidth, height = svg.clientHeight;
    if (!width || !height) return;
    const top = 12, bottom = 40, side = 14;
    view.scale = Math.min((width - 2 * side) / size[0], (height - top - bottom) / size[1], MAX_FIT_SCALE);
    view.scale = Math.max(view.scale, 0.05);
    view.x = (width - size[0] * view.scale) / 2;
    view.y = top + (height - top - bottom - size[1] * view.scale) / 2;
    place();
  }

  function zoom(factor, x, y) {
    const scale = Math.min(Math.max(view.scale * factor, 0.05), 3);
    const real = scale / view.scale;
    view.x = x - (x - view.x) * real;
    view.y = y - (y - view.y) * real;
    view.scale = scale;
    moved = true;
    place();
  }

  function listen(canvas) {
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
        moved = true;
        place();
        return;
      }
      const found = event.target.closest("[data-id]");
      palomar.map.hover(found ? found.dataset.id : "");
    });
    const drop = () => {
      if (drag && drag.far) canvas.addEventListener("click", (event) => event.stopPropagation(), { once: true, capture: true });
      drag = null;
      canvas.classList.remove("dragging");
    };
    canvas.addEventListener("pointerup", drop);
    canvas.addEventListener("pointercancel", drop);
    canvas.addEventListener("pointerleave", () => palomar.map.hover(""));
    new ResizeObserver(sizeChanged).observe(canvas);
  }

  function sizeChanged() {
    if (!moved) fit();
  }

  function refit() {
    moved = false;
    fit();
  }

  function bringIntoView(item) {
    const { svg } = palomar.map;
    const frame = svg.getBoundingClientRect(), box = (item.rect || item.label).getBoundingClientRect();
    const x = (box.left + box.right) / 2, y = (box.top + box.bottom) / 2;
    if (!box.width || (x >= frame.left && x <= frame.right && y >= frame.top && y <= frame.bottom)) return;
    view.x += frame.left + frame.width / 2 - x;
    view.y += frame.top + frame.height / 2 - y;
    moved = true;
    place();
  }

  function zoomMiddle(factor) {
    zoom(factor, palomar.map.svg.clientWidth / 2, palomar.map.svg.clientHeight / 2);
  }

  const ACTIONS = { "zoom-in": () => zoomMiddle(1.3), "zoom-out": () => zoomMiddle(1 / 1.3), fit: refit };

  palomar.mapView = { listen, sizeChanged, fit, refit, bringIntoView, ACTIONS };
})();
