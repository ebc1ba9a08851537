/* The flow table: newest first, at most MAX_ROWS; who has scrolled down or walks the rows keeps what is there.
 *
 * Input: `rows` of an update (ui/view.py); output: rows, whose clicks page.js reports.
 */
(function () {
  "use strict";

  const palomar = window.palomar = window.palomar || {};

  const MAX_ROWS = 100;
  const MARKS = { forwarded: "→", dropped: "✕", audit: "!" };
  // A copy of a made row takes a third of the time of twenty elements made one by one.
  const TEMPLATE = document.createElement("template");
  TEMPLATE.innerHTML = '<tr data-click="flow" tabindex="-1"><td class="time"></td><td class="verdict"><span></span></td>' +
    '<td class="who"></td><td class="who"></td><td class="port"></td><td class="why"></td><td class="point"></td>' +
    '<td class="seen"></td></tr>';
  const WHO = document.createElement("template");
  WHO.innerHTML = '<button type="button" class="cell" data-click="workload" tabindex="-1"></button><span class="group"></span>';
  for (const who of TEMPLATE.content.querySelectorAll(".who")) who.append(WHO.content.cloneNode(true));

  let pending = [], pendingMore = 0, chosen = "";

  const byId = (id) => document.getElementById(id);

  function fill(cell, text, title) {
    cell.textContent = text;
    if (title) cell.title = title;
  }

  function fillWho(cell, name, group, id) {
    const [button, small] = cell.children;
    button.dataset.id = id;
    fill(button, name, `${group} / ${name}: show only its flows`);
    small.textContent = group;
  }

  function makeRow(r) {
    const row = TEMPLATE.content.firstChild.cloneNode(true);
    const [time, verdict, source, destination, port, why, point, seen] = row.children;
    row.dataset.id = r.i;
    row.className = r.v;
    if (r.i === chosen) mark(row);
    time.textContent = r.t;
    verdict.firstChild.className = "chip " + r.v;
    verdict.firstChild.textContent = MARKS[r.v] + " " + r.v;
    fillWho(source, r.a, r.an, r.ai);
    fillWho(destination, r.b, r.bn, r.bi);
    fill(port, r.p + (r.r ? " ↩" : ""), r.r ? "a reply" : "");
    fill(why, r.y, r.d || r.y);
    point.textContent = r.o;
    fill(seen, r.n, r.n);
    return row;
  }

  function insertRows(body, rows) {
    const made = document.createDocumentFragment();
    for (const r of rows) made.appendChild(makeRow(r));
    body.insertBefore(made, body.firstChild);
    while (body.childElementCount > MAX_ROWS) body.lastElementChild.remove();
  }

  function apply(change, held) {
    const body = byId("flow-rows"), box = byId("flow-scroll"), note = byId("flow-note");
    if (!body) return;
    const focused = body.contains(document.activeElement);
    if (change && change.reset) {
      body.textContent = "";
      pending = []; pendingMore = 0;
      if (held) box.scrollTop = 0;
    }
    if (change) {
      pending = change.add.concat(pending).slice(0, MAX_ROWS);
      pendingMore += Math.max(change.more || 0, 0);
    }
    const button = byId("flow-new");
    if (held && !(change && change.reset)) {
      button.hidden = !pending.length;
      button.textContent = `▲ ${pending.length + pendingMore} newer flows`;
      return;
    }
    button.hidden = true;
    byId("flow-empty").hidden = body.childElementCount + pending.length > 0;
    if (!pending.length) return;
    insertRows(body, pending);
    const first = body.firstElementChild;
    if (!body.querySelector('tr[tabindex="0"]')) first.tabIndex = 0;
    if (focused && !body.contains(document.activeElement)) first.focus({ preventScroll: true });
    note.textContent = pendingMore ? `+${pendingMore.toLocaleString("en")} flows not shown` : "";
    pending = []; pendingMore = 0;
  }

  /* Read before an update writes anything: a read in between makes the browser lay the page out twice. Who walks
   * the rows by keyboard wants them to stay as much as who has scrolled down. */
  function isHeld() {
    const box = byId("flow-scroll");
    return Boolean(box && (box.scrollTop > 4 || document.activeElement?.matches("#flow-rows :focus-visible")));
  }

  function showNewest() {
    byId("flow-scroll").scrollTop = 0;
    apply(null, false);
  }

  /* Up and down go from row to row, right and left to the names in it and back. */
  function walk(row, key) {
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

  function mark(row) {
    const isChosen = row.dataset.id === chosen;
    row.classList.toggle("chosen", isChosen);
    if (isChosen) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }

  function choose(uuid) {
    if (uuid === chosen) return;
    chosen = uuid;
    document.querySelectorAll("#flow-rows tr").forEach(mark);
  }

  document.addEventListener("scroll", (event) => {
    if (event.target.id === "flow-scroll" && event.target.scrollTop <= 4 && pending.length) apply(null, false);
  }, true);

  palomar.flowTable = { apply, isHeld, showNewest, walk, choose };
})();
