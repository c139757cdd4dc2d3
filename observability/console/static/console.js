/* The console's only script. Pages work without it; this adds live updates, keys, the crosshair and local times. */
"use strict";

const root = document.documentElement;
const $$ = (selector, inside = document) => [...inside.querySelectorAll(selector)];

// -- light and dark
const dark = matchMedia("(prefers-color-scheme: dark)");
const stored = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
const paint = () => { root.dataset.theme = stored() || (dark.matches ? "dark" : "light"); };
paint();
dark.addEventListener("change", paint);
document.getElementById("theme").addEventListener("click", () => {
  const next = root.dataset.theme === "dark" ? "light" : "dark";
  try { localStorage.setItem("theme", next); } catch { /* this page only */ }
  root.dataset.theme = next;
});

// -- times in the reader's zone, UTC on hover
const two = (number) => String(number).padStart(2, "0");
function localise(inside) {
  for (const time of $$("time[datetime]", inside)) {
    const at = new Date(time.dateTime);
    if (!time.dateTime || isNaN(at)) continue;
    const clock = `${two(at.getHours())}:${two(at.getMinutes())}`;
    const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
    const full = `${clock}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, "0")}`;
    const today = new Date().toDateString() === at.toDateString();
    time.textContent = "short" in time.dataset ? clock : today ? full : `${day} ${full}`;
    time.title = `${time.dateTime} (UTC)`;
  }
}

// -- going elsewhere
const busy = (yes) => root.classList.toggle("busy", yes);
addEventListener("pageshow", () => busy(false));
document.addEventListener("submit", (event) => { if (event.target.method !== "dialog") busy(true); });
document.addEventListener("change", (event) => {
  const field = event.target;
  if (field.dataset.clears) field.form.elements[field.dataset.clears].value = "";
  if ("submit" in field.dataset) { busy(true); field.form.requestSubmit(); }
});
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) {
    const label = button.textContent;
    try { await navigator.clipboard.writeText(button.dataset.copy); button.textContent = "✓ copied"; }
    catch { button.textContent = "not allowed"; }
    setTimeout(() => { button.textContent = label; }, 1200);
    return;
  }
  const row = event.target.closest("a.wrow, .shares a, .inset a[href*='#span']");
  if (row && !event.ctrlKey && !event.metaKey && !event.shiftKey) { event.preventDefault(); choose(row.href, row.id); return; }
  const link = event.target.closest("a[href]");
  if (link && !link.hash && !event.ctrlKey && !event.metaKey) busy(true);
});
document.getElementById("pick")?.addEventListener("submit", (event) => {
  const ids = $$("[data-pick]:checked").map((box) => box.value);
  event.preventDefault();
  busy(ids.length === 2);
  if (ids.length === 2) location.href = `${event.target.action}?a=${ids[0]}&b=${ids[1]}`;
});

// -- the same page again, in place: only what changed is replaced, and the focus stays
let running = null;
async function refresh(url, always = false) {
  running?.abort();
  running = new AbortController();
  const answer = await fetch(url, { signal: running.signal });
  if (!answer.ok) return false;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  localise(fresh);
  const active = document.activeElement;
  const key = active?.id || active?.getAttribute?.("href");
  const byId = Boolean(active?.id);
  const chart = active?.closest?.(".chart")?.id;
  for (const part of $$("#main section[id], #main > div[id]:not(:has(> section[id]))")) {
    const other = fresh.getElementById(part.id);
    if (!other || "keep" in part.dataset || part.querySelector("section[id] section[id]")) continue;
    if (!always && part.querySelector("details[open]")) continue; // somebody reads there
    if (other.innerHTML === part.dataset.was) continue;
    part.dataset.was = other.innerHTML;
    part.innerHTML = other.innerHTML;
  }
  const main = document.getElementById("main"), freshMain = fresh.getElementById("main");
  if (freshMain.dataset.live) main.dataset.live = freshMain.dataset.live; else delete main.dataset.live;
  if (key && document.activeElement === document.body) {
    const again = byId ? document.getElementById(key) : $$("a").find((link) => link.getAttribute("href") === key);
    (again || (chart && document.querySelector(`#${CSS.escape(chart)} svg`)))?.focus({ preventScroll: true });
  } else if (chart && document.activeElement === document.body) {
    document.querySelector(`#${CSS.escape(chart)} svg`)?.focus({ preventScroll: true });
  }
  return true;
}
let tries = 0;
async function live() {
  const main = document.getElementById("main");
  const every = parseFloat(main.dataset.live);
  const most = parseInt(main.dataset.tries || "0", 10);
  if (!every || (most && ++tries > most)) return;
  if (!document.hidden && !dragging) {
    let answered = true;
    try { await refresh(location.href); } catch (error) { answered = error.name === "AbortError"; }
    document.getElementById("stale").hidden = answered;
  }
  setTimeout(live, every * 1000);
}
async function choose(href, id) {
  busy(true);
  try {
    history.pushState({}, "", href.split("#")[0]);
    if (!(await refresh(href.split("#")[0], true))) location.reload();
    document.getElementById("span")?.scrollIntoView({ block: "nearest" });
    document.getElementById(id)?.focus({ preventScroll: true });
  } catch (error) { if (error.name !== "AbortError") location.reload(); } // else a newer one took its place
  busy(false);
}
addEventListener("popstate", () => { refresh(location.href, true).then((done) => done || location.reload(), () => location.reload()); });

// -- charts: a crosshair in all of the page, drag to zoom, arrows to read
const charts = () => $$(".chart[data-series]");
function show(at) {
  for (const chart of charts()) {
    const t0 = +chart.dataset.t0, t1 = +chart.dataset.t1;
    const output = chart.querySelector(".readout"), cross = chart.querySelector(".cross");
    if (at === null) { output.textContent = ""; cross.setAttribute("d", ""); continue; }
    const when = t0 + at * (t1 - t0);
    cross.setAttribute("d", `M${at * 1000} 0V100`);
    const date = new Date(when * 1000);
    const lines = [`${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`];
    for (const series of JSON.parse(chart.dataset.series).slice(0, 10)) {
      const near = series.p.reduce((best, point) => (!best || Math.abs(point[0] - when) < Math.abs(best[0] - when) ? point : best), null);
      if (near && Math.abs(near[0] - when) < (t1 - t0) / 40) lines.push(`${near[1]}  ${series.n.slice(0, 40)}`);
    }
    output.textContent = lines.join("\n");
  }
}
let dragging = null;
const part = (svg, event) => { const box = svg.getBoundingClientRect(); return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1); };
const plotOf = (event) => event.target.closest?.(".chart[data-series] .plot svg");
document.addEventListener("pointermove", (event) => {
  const svg = dragging?.svg || plotOf(event);
  if (!svg) { if (document.activeElement?.closest?.(".plot") == null) show(null); return; }
  const at = part(svg, event);
  show(at);
  if (dragging) {
    dragging.rect.setAttribute("x", Math.min(at, dragging.from) * 1000);
    dragging.rect.setAttribute("width", Math.abs(at - dragging.from) * 1000);
  }
});
document.addEventListener("pointerdown", (event) => {
  const svg = plotOf(event);
  if (!svg || event.button || event.target.closest("a")) return;
  const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  rect.setAttribute("class", "select");
  rect.setAttribute("height", "100");
  svg.append(rect);
  dragging = { svg, rect, from: part(svg, event) };
});
document.addEventListener("pointerup", (event) => {
  if (!dragging) return;
  const { svg, rect, from } = dragging, to = part(svg, event);
  dragging = null;
  rect.remove();
  if (Math.abs(to - from) < 0.01) return;
  const chart = svg.closest(".chart"), t0 = +chart.dataset.t0, t1 = +chart.dataset.t1;
  const url = new URL(location.href);
  url.searchParams.delete("range");
  url.searchParams.set("from", Math.round((t0 + Math.min(from, to) * (t1 - t0)) * 1000));
  url.searchParams.set("to", Math.round((t0 + Math.max(from, to) * (t1 - t0)) * 1000));
  busy(true);
  location.href = url;
});
document.addEventListener("dblclick", (event) => { if (plotOf(event)) whole(); });
function whole() {
  const url = new URL(location.href);
  if (!url.searchParams.has("from")) { show(null); return; }
  url.searchParams.delete("from");
  url.searchParams.delete("to");
  location.href = url;
}

// -- keys
let reading = 1;
const pages = { o: "/", r: "/orders/", t: "/traces/", l: "/logs", d: "/dashboards/" };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const on = document.activeElement;
  if (on?.matches("input, select, textarea")) {
    if (event.key === "Escape") on.blur();
    if (event.key === "Enter" && on.id === "q" && !event.shiftKey) { event.preventDefault(); on.form.requestSubmit(); }
    return;
  }
  if (document.getElementById("keys").open) return;
  const svg = on?.closest?.(".chart[data-series] svg");
  if (event.key === "/") { event.preventDefault(); document.getElementById("find").focus(); }
  else if (event.key === "?") document.getElementById("keys").showModal();
  else if (svg && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
    event.preventDefault();
    reading = Math.min(Math.max(reading + (event.key === "ArrowLeft" ? -1 : 1) / 60, 0), 1);
    show(reading);
  } else if (svg && event.key === "Escape") whole();
  else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const row = on?.closest?.(".wrow");
    if (!row) return;
    event.preventDefault();
    const rows = $$(".wrow:not(.whead)", row.parentElement);
    const next = rows[rows.indexOf(row) + (event.key === "ArrowDown" ? 1 : -1)];
    next?.focus();
  } else if (pages[event.key]) location.href = pages[event.key];
});

localise(document);
setTimeout(live, parseFloat(document.getElementById("main").dataset.live || "0") * 1000);
