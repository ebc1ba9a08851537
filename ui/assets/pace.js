/* When the page asks: one question at a time, a second apart.
 *
 * Dash throws away an answer that the next question overtook, so a server slower than the page asks would never be
 * heard. A question that broke off is not answered at all: ask on. Nothing heard for STALE_MS: the page says so.
 */
(function () {
  "use strict";

  const palomar = window.palomar = window.palomar || {};

  const ASK_MS = 1000;
  const STALE_MS = 6000;
  const TAKE_IN_MS = 50; // Dash tells of an answer before it takes it in

  let asks = 0, askedAt = performance.now(), heardAt = askedAt, timer = 0;

  function heard() {
    heardAt = performance.now();
    document.body.classList.remove("stale");
  }

  function askIn(ms) {
    window.clearTimeout(timer);
    timer = window.setTimeout(ask, ms);
  }

  function ask() {
    askIn(STALE_MS);
    asks += 1;
    if (window.dash_clientside.set_props) window.dash_clientside.set_props("tick", { data: asks });
    forgetPast();
  }

  /* Dash keeps every value that a page set, for an undo that this page does not have. */
  function forgetPast() {
    for (const store of window.dash_stores || []) (store.getState().history?.past ?? []).length = 0;
  }

  document.addEventListener("palomar-asked", () => {
    askedAt = performance.now();
    askIn(STALE_MS);
  });
  document.addEventListener("palomar-answered", () => {
    heard(); // a paused page is told nothing new, and that is an answer
    askIn(Math.max(askedAt + ASK_MS - performance.now(), TAKE_IN_MS));
  });
  document.addEventListener("visibilitychange", () => { heardAt = performance.now(); });
  window.setInterval(() => {
    if (!document.hidden && performance.now() - heardAt > STALE_MS) document.body.classList.add("stale");
  }, 1000);
  askIn(STALE_MS);

  palomar.pace = { heard };
})();
